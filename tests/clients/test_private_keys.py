"""Remote private keys under the real x509 builders, checked by the real openssl."""

from __future__ import annotations

import copy
import datetime
import hashlib
import ipaddress
import pickle
import subprocess

import pytest
from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, utils, x25519
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

from clients.sdk_rig import VAULT, server_in_a_thread, sync_client
from vaultd_client import DecryptionFailed, FailedPrecondition, UsageError
from vaultd_client.integrations.private_keys import remote_private_key

SHA256, SHA384, SHA512 = hashes.SHA256(), hashes.SHA384(), hashes.SHA512()
PSS = padding.PSS(padding.MGF1(SHA256), padding.PSS.DIGEST_LENGTH)
SIGNERS = {
    "RSA_PKCS1_2048_SHA256": (SHA256, None),
    "RSA_PSS_2048_SHA256": (SHA256, PSS),
    "EC_P256_SHA256": (SHA256, None),
    "EC_P384_SHA384": (SHA384, None),
    "ED25519": (None, None),
    "ED448": (None, None),
}
OTHERS = {
    "RSA_OAEP_2048_SHA256": "ASYMMETRIC_DECRYPT",
    "ECDH_P256": "KEY_AGREEMENT",
    "X25519": "KEY_AGREEMENT",
    "ML_DSA_65": "SIGN",
    "HPKE_X25519": "HPKE",
    "ML_KEM_768": "KEM",
    "EC_P521_SHA512": "SIGN",
}


def key_name(algorithm: str) -> str:
    return f"{VAULT}/keys/{algorithm.lower().replace('_', '-')}"


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    with server_in_a_thread(tmp_path_factory.mktemp("remote")) as server, sync_client(server, "admin") as admin:
        for algorithm, purpose in {**dict.fromkeys(SIGNERS, "SIGN"), **OTHERS}.items():
            key = {"purpose": f"KEY_PURPOSE_{purpose}", "algorithm": f"ALGORITHM_{algorithm}"}
            admin.create_key(VAULT, key_name(algorithm).rpartition("/")[2], key)
        yield server


@pytest.fixture(scope="module")
def vault(server):
    with sync_client(server) as vault:
        yield vault


def subject(name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])


def openssl(*arguments: object) -> str:
    done = subprocess.run(["openssl", *map(str, arguments)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


def certificate(name: str, public_key, issuer: str, ca: bool) -> x509.CertificateBuilder:
    now = datetime.datetime.now(datetime.UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(subject(name))
        .issuer_name(subject(issuer))
        .public_key(public_key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(minutes=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.BasicConstraints(ca=ca, path_length=None), critical=True)
    )


@pytest.mark.parametrize("algorithm", SIGNERS)
def test_a_chain_a_request_and_a_list_are_what_openssl_takes(vault, tmp_path, algorithm):
    digest, rsa_padding = SIGNERS[algorithm]
    key = remote_private_key(vault, key_name(algorithm))

    def sign(builder, path):
        signed = builder.sign(key, digest, rsa_padding=rsa_padding)
        (tmp_path / path).write_bytes(signed.public_bytes(Encoding.PEM))
        return signed

    ca = sign(certificate("CA", key.public_key(), "CA", ca=True), "ca.pem")
    ca.verify_directly_issued_by(ca)
    leaf_key = ec.generate_private_key(ec.SECP256R1())
    names = x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))])
    leaf = sign(
        certificate("leaf", leaf_key.public_key(), "CA", ca=False).add_extension(names, critical=False), "leaf.pem"
    )
    assert "leaf.pem: OK" in openssl("verify", "-check_ss_sig", "-CAfile", tmp_path / "ca.pem", tmp_path / "leaf.pem")

    sign(x509.CertificateSigningRequestBuilder().subject_name(subject("request")), "request.pem")
    assert "verify OK" in openssl("req", "-verify", "-noout", "-in", tmp_path / "request.pem")

    now = datetime.datetime.now(datetime.UTC)
    revoked = x509.RevokedCertificateBuilder().serial_number(leaf.serial_number).revocation_date(now).build()
    crl = x509.CertificateRevocationListBuilder().issuer_name(subject("CA")).last_update(now)
    sign(crl.next_update(now + datetime.timedelta(days=1)).add_revoked_certificate(revoked), "crl.pem")
    assert "verify OK" in openssl("crl", "-noout", "-in", tmp_path / "crl.pem", "-CAfile", tmp_path / "ca.pem")


def test_a_damaged_certificate_does_not_verify(vault, tmp_path):
    key = remote_private_key(vault, key_name("EC_P256_SHA256"))
    ca = certificate("CA", key.public_key(), "CA", ca=True).sign(key, SHA256).public_bytes(Encoding.DER)
    damaged = tmp_path / "damaged.pem"
    damaged.write_bytes(x509.load_der_x509_certificate(ca.replace(b"CA", b"CB")).public_bytes(Encoding.PEM))
    with pytest.raises(AssertionError, match="certificate signature failure"):
        openssl("verify", "-check_ss_sig", "-CAfile", damaged, damaged)


def test_messages_of_any_size_and_digests_made_elsewhere_are_signed(vault):
    data = bytes(1_000_000)
    digest = hashlib.sha256(data).digest()
    signer = remote_private_key(vault, key_name("EC_P256_SHA256"))
    signer.public_key().verify(signer.sign(data, ec.ECDSA(SHA256)), data, ec.ECDSA(SHA256))
    prehashed = ec.ECDSA(utils.Prehashed(SHA256))
    signer.public_key().verify(signer.sign(digest, prehashed), data, ec.ECDSA(SHA256))
    with pytest.raises(ValueError, match="32 bytes was announced, and 31 came"):
        signer.sign(digest[:-1], prehashed)
    rsa_signer = remote_private_key(vault, key_name("RSA_PSS_2048_SHA256"))
    salt = padding.PSS(padding.MGF1(SHA256), 32)
    signature = rsa_signer.sign(memoryview(data), salt, SHA256)
    rsa_signer.public_key().verify(signature, data, PSS, SHA256)
    signature = rsa_signer.sign(digest, PSS, utils.Prehashed(SHA256))
    rsa_signer.public_key().verify(signature, data, PSS, SHA256)


@pytest.mark.parametrize(
    ("algorithm", "act", "told"),
    [
        (
            "RSA_PSS_2048_SHA256",
            lambda key: key.sign(b"m", padding.PKCS1v15(), SHA256),
            "algorithm RSA_PKCS1_2048_SHA256$",
        ),
        ("RSA_PKCS1_2048_SHA256", lambda key: key.sign(b"m", padding.PKCS1v15(), SHA512), "RSA_PKCS1_2048_SHA512$"),
        ("RSA_PKCS1_2048_SHA256", lambda key: key.sign(b"m", padding.PKCS1v15(), SHA384), "no algorithm of vaultd"),
        ("RSA_PKCS1_2048_SHA256", lambda key: key.sign(b"m", PSS, SHA256), "algorithm RSA_PSS_2048_SHA256$"),
        (
            "RSA_PSS_2048_SHA256",
            lambda key: key.sign(b"m", padding.PSS(padding.MGF1(SHA256), padding.PSS.MAX_LENGTH), SHA256),
            "salt_length=PSS.DIGEST_LENGTH",
        ),
        (
            "RSA_PSS_2048_SHA256",
            lambda key: key.sign(b"m", padding.PSS(padding.MGF1(SHA512), padding.PSS.DIGEST_LENGTH), SHA256),
            "another hash in MGF1",
        ),
        ("RSA_PKCS1_2048_SHA256", lambda key: key.sign(b"m", padding.PKCS1v15(), utils.NoDigestInfo()), "DigestInfo"),
        ("RSA_PSS_2048_SHA256", lambda key: key.decrypt(b"c", padding.PKCS1v15()), "no algorithm of vaultd"),
        (
            "RSA_OAEP_2048_SHA256",
            lambda key: key.decrypt(b"c", padding.OAEP(padding.MGF1(SHA256), SHA256, b"label")),
            "with a label",
        ),
        (
            "RSA_OAEP_2048_SHA256",
            lambda key: key.decrypt(b"c", padding.OAEP(padding.MGF1(SHA512), SHA256, None)),
            "another hash in MGF1",
        ),
        ("EC_P256_SHA256", lambda key: key.sign(b"m", ec.ECDSA(SHA384)), "no algorithm of vaultd"),
        ("EC_P256_SHA256", lambda key: key.sign(b"m", ec.ECDSA(SHA256, deterministic_signing=True)), "RFC 6979"),
        ("EC_P256_SHA256", lambda key: key.exchange(ec.ECDH(), key.public_key()), "algorithm ECDH_P256$"),
        ("ECDH_P256", lambda key: key.sign(b"m", ec.ECDSA(SHA256)), "algorithm EC_P256_SHA256$"),
    ],
)
def test_what_is_not_of_the_algorithm_is_refused_and_the_right_one_named(vault, algorithm, act, told):
    key = remote_private_key(vault, key_name(algorithm))
    with pytest.raises(UnsupportedAlgorithm, match=told) as refused:
        act(key)
    assert f"{key_name(algorithm)}/versions/1 is {algorithm}" in str(refused.value)


def test_decryption_and_agreement(vault):
    oaep = padding.OAEP(padding.MGF1(SHA256), SHA256, None)
    decrypter = remote_private_key(vault, key_name("RSA_OAEP_2048_SHA256"))
    assert decrypter.key_size == 2048
    assert decrypter.decrypt(decrypter.public_key().encrypt(b"hello", oaep), oaep) == b"hello"
    with pytest.raises(DecryptionFailed):
        decrypter.decrypt(bytes(256), oaep)
    for algorithm, ours in (
        ("ECDH_P256", ec.generate_private_key(ec.SECP256R1())),
        ("X25519", x25519.X25519PrivateKey.generate()),
    ):
        theirs = remote_private_key(vault, key_name(algorithm))
        ecdh = [ec.ECDH()] if algorithm != "X25519" else []
        assert theirs.exchange(*ecdh, ours.public_key()) == ours.exchange(*ecdh, theirs.public_key())


def test_the_private_part_cannot_be_had(vault):
    for algorithm in (*SIGNERS, "X25519"):
        key = remote_private_key(vault, key_name(algorithm))
        takes = [lambda key=key: key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())]
        takes += [getattr(key, name) for name in ("private_numbers", "private_bytes_raw") if hasattr(key, name)]
        for take in takes:
            with pytest.raises(UsageError, match="stays in the vault"):
                take()
        assert copy.copy(key) is key
        assert copy.deepcopy(key) is key
        with pytest.raises((TypeError, UsageError)):
            pickle.dumps(key)
        assert repr(key).endswith(f"{key_name(algorithm)}/versions/1 {algorithm}>")


def test_a_post_quantum_certificate_verifies(vault):
    key = remote_private_key(vault, key_name("ML_DSA_65"))
    ca = certificate("CA", key.public_key(), "CA", ca=True).sign(key, None)
    ca.verify_directly_issued_by(ca)
    for act in (lambda: key.sign(b"m", b"context"), lambda: key.sign_mu(bytes(64))):
        with pytest.raises(UnsupportedAlgorithm, match="no algorithm of vaultd"):
            act()
    with pytest.raises(UsageError, match="stays in the vault"):
        key.private_bytes_raw()


@pytest.mark.parametrize("algorithm", ["HPKE_X25519", "ML_KEM_768"])
def test_what_has_no_private_key_object_says_so(vault, algorithm):
    with pytest.raises(UnsupportedAlgorithm, match=f"versions/1 is {algorithm}: use the methods of the client"):
        remote_private_key(vault, key_name(algorithm))


def test_an_object_stays_with_its_version_until_that_is_disabled(server, vault):
    name = key_name("EC_P521_SHA512")
    before = remote_private_key(vault, name)
    with sync_client(server, "admin") as admin:
        admin.rotate_key(name)
        after = remote_private_key(vault, name)
        assert (before.name, after.name) == (f"{name}/versions/1", f"{name}/versions/2")
        for key in (before, after):
            key.public_key().verify(key.sign(b"m", ec.ECDSA(SHA512)), b"m", ec.ECDSA(SHA512))
        admin.disable_key_version(before.name)
    with pytest.raises(FailedPrecondition) as refused:
        before.sign(b"m", ec.ECDSA(SHA512))
    assert refused.value.reason == "KEY_VERSION_DISABLED"
