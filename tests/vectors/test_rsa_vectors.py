"""RSA against published vectors, through the backend."""

from __future__ import annotations

import hashlib
from itertools import pairwise

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.padding import PSS
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from vaultd.backends.base import OpKind
from vaultd.errors import DecryptionFailed, InvalidSignature
from vectors.published import ROOT, open_vault, read_lines, rsa_material, rsa_public

DIGESTS = {"SHA256": hashlib.sha256, "SHA512": hashlib.sha512}
# The CAVP files for verification: primes once a section, e and d with every record.
PKCS1_FILE = "asymmetric/RSA/FIPS_186-2/SigVer15_186-3.rsp"
PSS_FILE = "asymmetric/RSA/FIPS_186-2/SigVerPSS_186-3.rsp"


def read_signatures(path: str) -> list[dict[str, str]]:
    """Records for our algorithms, whose exponent is not one of the small ones that we refuse."""
    records, modulus = [], {}
    record: dict[str, str] = {}
    for text in read_lines(path):
        name, _, value = (part.strip() for part in text.partition("="))
        if name in ("n", "p", "q"):
            modulus[name] = value
        elif name == "SHAAlg":
            record = {**modulus, name: value}
        elif name == "Result":
            records.append({**record, name: value[0]})
        else:
            record[name] = value
    ours = [one for one in records if one["SHAAlg"] in DIGESTS and int(one["e"], 16) >= 65537]
    return [one for one in ours if int(one["n"], 16).bit_length() in (2048, 3072, 4096)]


def numbers(record: dict[str, str], *names: str) -> list[int]:
    return [int(record[name], 16) for name in names]


async def verifies(vault, handle, message: bytes, signature: bytes, digest: str) -> bool:
    """Verify message and digest, which must agree."""
    answers = []
    for kind, data in (
        (OpKind.VERIFY_MESSAGE, message),
        (OpKind.VERIFY_DIGEST, DIGESTS[digest](message).digest()),
    ):
        try:
            answers.append(await vault.use(handle, kind, data, signature) == b"")
        except InvalidSignature:
            answers.append(False)
    assert answers[0] is answers[1]
    return answers[0]


async def test_pkcs1_signatures_of_nist_verify_or_do_not():
    records = read_signatures(PKCS1_FILE)
    async with open_vault() as vault:
        for record in records:
            n, e = numbers(record, "n", "e")
            algorithm = f"RSA_PKCS1_{n.bit_length()}_{record['SHAAlg']}"
            handle = vault.backend.load_public(algorithm, rsa_public(n, e))
            message, signature = bytes.fromhex(record["Msg"]), bytes.fromhex(record["S"])
            expected = record["Result"] == "P"
            assert await verifies(vault, handle, message, signature, record["SHAAlg"]) is expected
    assert {record["Result"] for record in records} == {"P", "F"}
    assert len({(len(record["n"]), record["SHAAlg"]) for record in records}) >= 4


@pytest.mark.slow
async def test_pkcs1_signatures_of_nist_are_made_again():
    records = [record for record in read_signatures(PKCS1_FILE) if record["Result"] == "P"]
    async with open_vault() as vault:
        for record in records:
            n, e, p, q, d = numbers(record, "n", "e", "p", "q", "d")
            key = await vault.take_in(f"RSA_PKCS1_{n.bit_length()}_{record['SHAAlg']}", rsa_material(p, q, d, e))
            message = bytes.fromhex(record["Msg"])
            digest = DIGESTS[record["SHAAlg"]](message).digest()
            for kind, data in ((OpKind.SIGN_MESSAGE, message), (OpKind.SIGN_DIGEST, digest)):
                assert int.from_bytes(await vault.use(key.private, kind, data), "big") == int(record["S"], 16)
    assert records


def pss_is_sound(digest: str, message: bytes, encoded: bytes, modulus_bits: int, salt_bytes: int) -> bool:
    """EMSA-PSS-VERIFY of RFC 8017, section 9.1.2, with MGF1 over the same hash."""
    new = DIGESTS[digest]
    hash_bytes = new().digest_size
    masked, seed, trailer = encoded[: -hash_bytes - 1], encoded[-hash_bytes - 1 : -1], encoded[-1]
    mask = b"".join(new(seed + counter.to_bytes(4, "big")).digest() for counter in range(-(-len(masked) // hash_bytes)))
    block = bytearray(left ^ right for left, right in zip(masked, mask, strict=False))
    spare_bits = 8 * len(encoded) - (modulus_bits - 1)
    if trailer != 0xBC or masked[0] >> (8 - spare_bits):
        return False
    block[0] &= 0xFF >> spare_bits
    padding, salt = block[: len(block) - salt_bytes], bytes(block[len(block) - salt_bytes :])
    if padding[-1] != 1 or any(padding[:-1]):
        return False
    return new(bytes(8) + new(message).digest() + salt).digest() == seed


def open_signature(signature: int, n: int, e: int) -> bytes:
    return pow(signature, e, n).to_bytes((n.bit_length() + 6) // 8, "big")


@pytest.mark.slow
async def test_pss_signatures_are_as_rfc_8017_with_a_salt_as_long_as_the_digest():
    """NIST's salts have 10 bytes: with them they prove `pss_is_sound`, with ours it proves the backend."""
    records = read_signatures(PSS_FILE)
    keys = set()
    async with open_vault() as vault:
        for record in records:
            n, e, p, q, d, s = numbers(record, "n", "e", "p", "q", "d", "S")
            digest, message = record["SHAAlg"], bytes.fromhex(record["Msg"])
            salt_bytes = len(record["SaltVal"]) // 2
            sound = pss_is_sound(digest, message, open_signature(s, n, e), n.bit_length(), salt_bytes)
            assert sound is (record["Result"] == "P")

            algorithm = f"RSA_PSS_{n.bit_length()}_{digest}"
            handle = vault.backend.load_public(algorithm, rsa_public(n, e))
            nist_signature = s.to_bytes(n.bit_length() // 8, "big")
            assert not await verifies(vault, handle, message, nist_signature, digest)
            if algorithm in keys or record["Result"] != "P":
                continue
            keys.add(algorithm)
            key = await vault.take_in(algorithm, rsa_material(p, q, d, e))
            for kind, data in (
                (OpKind.SIGN_MESSAGE, message),
                (OpKind.SIGN_DIGEST, DIGESTS[digest](message).digest()),
            ):
                ours = await vault.use(key.private, kind, data)
                encoded = open_signature(int.from_bytes(ours, "big"), n, e)
                assert pss_is_sound(digest, message, encoded, n.bit_length(), DIGESTS[digest]().digest_size)
                assert await verifies(vault, handle, message, ours, digest)
    assert len(keys) == 6


@pytest.mark.parametrize("name", ["rsa_pss_cert.pem", "rsa_pss_sha256_no_null.pem"])
async def test_published_self_signed_pss_certificate_verifies(name):
    certificate = x509.load_pem_x509_certificate((ROOT / "x509" / "custom" / name).read_bytes())
    parameters = certificate.signature_algorithm_parameters
    assert isinstance(parameters, PSS)
    assert parameters._salt_length == 32
    spki = certificate.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    async with open_vault() as vault:
        handle = vault.backend.load_public("RSA_PSS_2048_SHA256", spki)
        signed, signature = certificate.tbs_certificate_bytes, certificate.signature
        assert await verifies(vault, handle, signed, signature, "SHA256")
        assert not await verifies(vault, handle, signed[:-1], signature, "SHA256")


async def test_oaep_with_the_2048_bit_keys_of_pyca():
    """The file is labels and values in turn; a label before each `Message` says which key is in force."""
    fields: dict[str, str] = {}
    opened, keys = 0, {}
    text = (ROOT / "asymmetric/RSA/oaep-custom/oaep-sha256-sha256.txt").read_text()
    async with open_vault() as vault:
        for label, value in pairwise(line.strip() for line in text.splitlines()):
            if not label.startswith("#") or value.startswith("#"):
                continue
            fields[label.strip("# :")] = value
            if not label.startswith("# Encryption"):
                continue
            n, e, d, p, q = (
                int(fields[name], 16) for name in ("Modulus", "Public exponent", "Exponent", "Prime 1", "Prime 2")
            )
            assert (n, n.bit_length()) == (p * q, 2048)
            if n not in keys:
                keys[n] = await vault.take_in("RSA_OAEP_2048_SHA256", rsa_material(p, q, d, e))
            ciphertext = bytes.fromhex(value)
            assert (await vault.use(keys[n].private, OpKind.DECRYPT, ciphertext)).hex() == fields["Message"]
            with pytest.raises(DecryptionFailed):
                await vault.use(keys[n].private, OpKind.DECRYPT, ciphertext[:-1] + bytes([ciphertext[-1] ^ 1]))
            opened += 1
    assert opened == 6 * len(keys) >= 54
