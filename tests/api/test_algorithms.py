"""Every algorithm through the API, checked from the outside with `cryptography` and the public key that the API gives."""

from __future__ import annotations

import asyncio
import base64
import json
from dataclasses import dataclass

import pytest
import pytest_asyncio
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed448, ed25519, mldsa, mlkem, padding, rsa, x25519
from cryptography.hazmat.primitives.asymmetric.utils import Prehashed, encode_dss_signature
from cryptography.hazmat.primitives.hpke import AEAD, KDF, KEM, MLKEM768X25519PublicKey, Suite
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_public_key
from wire import GENEROUS, World, key_of

from harness import running_server
from vaultd_client.v1 import crypto_pb2, keys_pb2, resources_pb2

pytestmark = pytest.mark.asyncio(loop_scope="module")

NAMES = [name.removeprefix("ALGORITHM_") for name in resources_pb2.Algorithm.keys() if not name.endswith("UNSPECIFIED")]
AEADS = ["AES_128_GCM", "AES_256_GCM", "XAES_256_GCM", "AES_256_GCM_SIV", "CHACHA20_POLY1305"]
SELF_DESCRIBING = [*AEADS, "AES_256_SIV"]
OAEPS = [name for name in NAMES if name.startswith("RSA_OAEP")]
RSA_SIGNERS = [name for name in NAMES if name.startswith(("RSA_PSS", "RSA_PKCS1"))]
CURVES = {
    "EC_P256_SHA256": (ec.SECP256R1, hashes.SHA256, 32),
    "EC_P384_SHA384": (ec.SECP384R1, hashes.SHA384, 48),
    "EC_P521_SHA512": (ec.SECP521R1, hashes.SHA512, 66),
    "EC_SECP256K1_SHA256": (ec.SECP256K1, hashes.SHA256, 32),
}
EDWARDS = {"ED25519": ed25519.Ed25519PublicKey, "ED448": ed448.Ed448PublicKey}
ML_DSA = {"ML_DSA_44": mldsa.MLDSA44PublicKey, "ML_DSA_65": mldsa.MLDSA65PublicKey, "ML_DSA_87": mldsa.MLDSA87PublicKey}
MESSAGE_SIGNERS = [*EDWARDS, *ML_DSA]
DIGEST_SIGNERS = [*RSA_SIGNERS, *CURVES]
SIGNERS = [*DIGEST_SIGNERS, *MESSAGE_SIGNERS]
MACS = {"HMAC_SHA256": 32, "HMAC_SHA384": 48, "HMAC_SHA512": 64, "AES_256_CMAC": 16}
AGREEMENTS = {"ECDH_P256": (ec.SECP256R1, 32), "ECDH_P384": (ec.SECP384R1, 48), "X25519": (None, 32)}
ML_KEM = {"ML_KEM_768": (mlkem.MLKEM768PublicKey, 1088), "ML_KEM_1024": (mlkem.MLKEM1024PublicKey, 1568)}
HPKES = {"HPKE_X25519": KEM.X25519, "HPKE_MLKEM768_X25519": KEM.MLKEM768_X25519}
PURPOSES = {
    "ENCRYPT_DECRYPT": AEADS,
    "DETERMINISTIC": ["AES_256_SIV"],
    "WRAP": ["AES_256_KWP"],
    "ASYMMETRIC_DECRYPT": OAEPS,
    "SIGN": SIGNERS,
    "MAC": list(MACS),
    "KEY_AGREEMENT": list(AGREEMENTS),
    "KEM": list(ML_KEM),
    "HPKE": list(HPKES),
}
PURPOSE_OF = {name: purpose for purpose, names in PURPOSES.items() for name in names}
PUBLIC = [*OAEPS, *SIGNERS, *AGREEMENTS, *ML_KEM, *HPKES]
DEFAULTS = {
    "ENCRYPT_DECRYPT": "XAES_256_GCM",
    "DETERMINISTIC": "AES_256_SIV",
    "ASYMMETRIC_DECRYPT": "RSA_OAEP_3072_SHA256",
    "WRAP": "AES_256_KWP",
    "SIGN": "EC_P256_SHA256",
    "MAC": "HMAC_SHA256",
    "KEY_AGREEMENT": "X25519",
    "KEM": "ML_KEM_768",
    "HPKE": "HPKE_X25519",
}
MESSAGE = b"what is signed, encrypted or authenticated here"
FORMAT = b"\x01"


@dataclass
class Stage:
    """The server, and the resource of one key of each algorithm."""

    world: World
    keys: dict[str, resources_pb2.Key]

    @property
    def crypto(self):
        return self.world.admin.crypto

    def name(self, algorithm: str) -> str:
        return self.keys[algorithm].name

    async def public(self, name: str) -> keys_pb2.PublicKey:
        return await self.world.admin.keys.GetPublicKey(keys_pb2.GetPublicKeyRequest(name=name))

    async def sign(self, algorithm: str, **fields) -> bytes:
        return (await self.crypto.Sign(crypto_pb2.SignRequest(name=self.name(algorithm), **fields))).signature

    async def valid(self, algorithm: str, signature: bytes, **fields) -> bool:
        request = crypto_pb2.VerifyRequest(name=self.name(algorithm), signature=signature, **fields)
        return (await self.crypto.Verify(request)).valid

    async def encrypt(self, name: str, plaintext: bytes, aad: bytes = b"") -> bytes:
        request = crypto_pb2.EncryptRequest(name=name, plaintext=plaintext, associated_data=aad)
        return (await self.crypto.Encrypt(request)).ciphertext

    async def decrypt(self, name: str, ciphertext: bytes, aad: bytes = b"") -> bytes:
        request = crypto_pb2.DecryptRequest(name=name, ciphertext=ciphertext, associated_data=aad)
        return (await self.crypto.Decrypt(request)).plaintext

    async def rotate(self, name: str) -> resources_pb2.KeyVersion:
        return await self.world.admin.keys.RotateKey(keys_pb2.RotateKeyRequest(name=name))

    async def fresh(self, algorithm: str) -> str:
        return await self.world.create("default", self.world.fresh_id(), key_of(PURPOSE_OF[algorithm], algorithm))


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def stage(tmp_path_factory):
    async with running_server(tmp_path_factory.mktemp("algorithms"), **GENEROUS) as server:
        requests = [
            keys_pb2.CreateKeyRequest(
                parent="vaults/default",
                key_id=name.lower().replace("_", "-"),
                key=key_of(PURPOSE_OF[name], name),
            )
            for name in NAMES
        ]
        created = await asyncio.gather(*(server.admin.keys.CreateKey(request) for request in requests))
        yield Stage(World(server), dict(zip(NAMES, created, strict=True)))


def from_base64(text: str) -> bytes:
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))


def number(text: str) -> int:
    return int.from_bytes(from_base64(text), "big")


JWK_CURVES = {
    "P-256": ec.SECP256R1,
    "P-384": ec.SECP384R1,
    "P-521": ec.SECP521R1,
    "secp256k1": ec.SECP256K1,
}


def key_from_jwk(jwk: dict[str, str]):
    """What another library would make of the JWK."""
    if jwk["kty"] == "RSA":
        return rsa.RSAPublicNumbers(number(jwk["e"]), number(jwk["n"])).public_key()
    if jwk["kty"] == "EC":
        curve = JWK_CURVES[jwk["crv"]]()
        return ec.EllipticCurvePublicNumbers(number(jwk["x"]), number(jwk["y"]), curve).public_key()
    if jwk["kty"] == "OKP":
        classes = {
            "Ed25519": ed25519.Ed25519PublicKey,
            "Ed448": ed448.Ed448PublicKey,
            "X25519": x25519.X25519PublicKey,
        }
        return classes[jwk["crv"]].from_public_bytes(from_base64(jwk["x"]))
    assert jwk["kty"] == "AKP"
    return ML_DSA[jwk["alg"].replace("-", "_")].from_public_bytes(from_base64(jwk["pub"]))


def der_of(key) -> bytes:
    return key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


def hash_of(algorithm: str) -> hashes.HashAlgorithm:
    if algorithm in CURVES:
        return CURVES[algorithm][1]()
    return hashes.SHA512() if algorithm.endswith("SHA512") else hashes.SHA256()


def digest_of(algorithm: str, data: bytes) -> bytes:
    digest = hashes.Hash(hash_of(algorithm))
    digest.update(data)
    return digest.finalize()


def verify_outside(algorithm: str, key, signature: bytes, data: bytes, *, prehashed: bool = False) -> None:
    """Raise InvalidSignature unless an independent caller of `cryptography` accepts the signature."""
    if algorithm in MESSAGE_SIGNERS:
        key.verify(signature, data)
        return
    chosen = Prehashed(hash_of(algorithm)) if prehashed else hash_of(algorithm)
    if algorithm in CURVES:
        key.verify(signature, data, ec.ECDSA(chosen))
        return
    pss = padding.PSS(padding.MGF1(hash_of(algorithm)), hash_of(algorithm).digest_size)
    key.verify(signature, data, pss if "PSS" in algorithm else padding.PKCS1v15(), chosen)


async def test_every_algorithm_of_the_enum_is_in_one_of_the_groups_tested_here(stage):
    assert sorted(PURPOSE_OF) == sorted(NAMES)
    assert sorted(stage.keys) == sorted(NAMES)


@pytest.mark.parametrize("algorithm", NAMES)
async def test_a_created_key_says_its_algorithm_and_its_purpose(stage, algorithm):
    key = stage.keys[algorithm]
    assert resources_pb2.Algorithm.Name(key.algorithm) == f"ALGORITHM_{algorithm}"
    assert resources_pb2.KeyPurpose.Name(key.purpose) == f"KEY_PURPOSE_{PURPOSE_OF[algorithm]}"
    assert key.primary_version == f"{key.name}/versions/1"
    assert len(key.uid) == 16


@pytest.mark.parametrize("purpose", DEFAULTS)
async def test_a_purpose_alone_chooses_the_documented_algorithm(stage, purpose):
    name = await stage.world.create("default", stage.world.fresh_id(), key_of(purpose))
    key = await stage.world.admin.keys.GetKey(keys_pb2.GetKeyRequest(name=name))
    assert resources_pb2.Algorithm.Name(key.algorithm) == f"ALGORITHM_{DEFAULTS[purpose]}"


async def test_capabilities_list_every_algorithm_and_the_default_of_every_purpose(stage):
    answer = await stage.world.admin.keys.GetCapabilities(keys_pb2.GetCapabilitiesRequest(parent="vaults/default"))
    software = [c for c in answer.capabilities if c.protection_level == resources_pb2.PROTECTION_LEVEL_SOFTWARE]
    names = [resources_pb2.Algorithm.Name(c.algorithm).removeprefix("ALGORITHM_") for c in software]
    assert sorted(names) == sorted(NAMES)
    chosen = {
        resources_pb2.KeyPurpose.Name(c.purpose).removeprefix("KEY_PURPOSE_"): name
        for c, name in zip(software, names, strict=True)
        if c.purpose_default
    }
    assert chosen == DEFAULTS


# -- public keys --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("algorithm", [name for name in PUBLIC if name != "HPKE_MLKEM768_X25519"])
async def test_pem_jwk_and_raw_are_one_and_the_same_public_key(stage, algorithm):
    public = await stage.public(stage.name(algorithm))
    key = load_pem_public_key(public.pem.encode())
    assert public.key_version == public.name == f"{stage.name(algorithm)}/versions/1"
    if algorithm in ML_KEM:
        assert public.jwk == ""
    else:
        jwk = json.loads(public.jwk)
        assert der_of(key_from_jwk(jwk)) == der_of(key)
        assert jwk["kid"] == public.key_version
        assert "d" not in jwk
    if isinstance(key, rsa.RSAPublicKey | ec.EllipticCurvePublicKey):
        assert public.raw == b""
    else:
        assert public.raw == key.public_bytes_raw()


async def test_the_hybrid_public_key_is_the_two_keys_side_by_side_and_nothing_else(stage):
    public = await stage.public(stage.name("HPKE_MLKEM768_X25519"))
    assert (len(public.raw), public.pem, public.jwk) == (1184 + 32, "", "")


@pytest.mark.parametrize("algorithm", [*OAEPS, *RSA_SIGNERS])
async def test_an_rsa_key_has_the_modulus_that_its_name_says(stage, algorithm):
    key = load_pem_public_key((await stage.public(stage.name(algorithm))).pem.encode())
    assert key.key_size == int(algorithm.split("_")[2])
    assert key.public_numbers().e == 65_537


@pytest.mark.parametrize("algorithm", [name for name in NAMES if name not in PUBLIC])
async def test_a_symmetric_key_has_no_public_key(stage, algorithm):
    with pytest.raises(Exception, match="symmetric: it has no public key"):
        await stage.public(stage.name(algorithm))


# -- signatures ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("algorithm", SIGNERS)
async def test_a_signature_of_a_message_verifies_outside_and_inside(stage, algorithm):
    public = await stage.public(stage.name(algorithm))
    signature = await stage.sign(algorithm, message=MESSAGE)
    verify_outside(algorithm, load_pem_public_key(public.pem.encode()), signature, MESSAGE)
    assert await stage.valid(algorithm, signature, message=MESSAGE)


@pytest.mark.parametrize("algorithm", SIGNERS)
async def test_a_signature_is_not_valid_for_another_message(stage, algorithm):
    public = await stage.public(stage.name(algorithm))
    signature = await stage.sign(algorithm, message=MESSAGE)
    with pytest.raises(InvalidSignature):
        verify_outside(algorithm, load_pem_public_key(public.pem.encode()), signature, MESSAGE + b".")
    assert not await stage.valid(algorithm, signature, message=MESSAGE + b".")


@pytest.mark.parametrize("algorithm", DIGEST_SIGNERS)
async def test_signing_the_digest_is_signing_the_message(stage, algorithm):
    public = await stage.public(stage.name(algorithm))
    digest = digest_of(algorithm, MESSAGE)
    signature = await stage.sign(algorithm, digest=digest)
    key = load_pem_public_key(public.pem.encode())
    verify_outside(algorithm, key, signature, MESSAGE)
    verify_outside(algorithm, key, signature, digest, prehashed=True)
    assert await stage.valid(algorithm, signature, message=MESSAGE)
    assert await stage.valid(algorithm, signature, digest=digest)


@pytest.mark.parametrize("algorithm", MESSAGE_SIGNERS)
async def test_an_algorithm_that_signs_messages_refuses_digests(stage, algorithm):
    with pytest.raises(Exception, match="signs messages, not digests"):
        await stage.sign(algorithm, digest=bytes(32))


@pytest.mark.parametrize("algorithm", CURVES)
async def test_a_p1363_signature_is_two_coordinates_and_verifies_outside(stage, algorithm):
    public = await stage.public(stage.name(algorithm))
    encoding = resources_pb2.SIGNATURE_ENCODING_P1363
    signature = await stage.sign(algorithm, message=MESSAGE, signature_encoding=encoding)
    size = CURVES[algorithm][2]
    assert len(signature) == 2 * size
    r, s = int.from_bytes(signature[:size], "big"), int.from_bytes(signature[size:], "big")
    verify_outside(algorithm, load_pem_public_key(public.pem.encode()), encode_dss_signature(r, s), MESSAGE)
    assert await stage.valid(algorithm, signature, message=MESSAGE, signature_encoding=encoding)


@pytest.mark.parametrize("algorithm", CURVES)
async def test_a_signature_in_the_other_encoding_is_not_valid(stage, algorithm):
    encoding = resources_pb2.SIGNATURE_ENCODING_P1363
    der = await stage.sign(algorithm, message=MESSAGE)
    p1363 = await stage.sign(algorithm, message=MESSAGE, signature_encoding=encoding)
    assert not await stage.valid(algorithm, der, message=MESSAGE, signature_encoding=encoding)
    assert not await stage.valid(algorithm, p1363, message=MESSAGE)


@pytest.mark.parametrize("algorithm", CURVES)
@pytest.mark.parametrize("fill", [0, 255], ids=["zeros", "ones"])
async def test_coordinates_out_of_range_are_not_a_signature(stage, algorithm, fill):
    signature = bytes([fill]) * (2 * CURVES[algorithm][2])
    encoding = resources_pb2.SIGNATURE_ENCODING_P1363
    assert not await stage.valid(algorithm, signature, message=MESSAGE, signature_encoding=encoding)


@pytest.mark.parametrize("algorithm", [name for name in SIGNERS if name not in CURVES])
async def test_p1363_is_refused_for_everything_but_ecdsa(stage, algorithm):
    with pytest.raises(Exception, match="P1363 is for ECDSA keys only"):
        await stage.sign(algorithm, message=MESSAGE, signature_encoding=resources_pb2.SIGNATURE_ENCODING_P1363)


@pytest.mark.parametrize("algorithm", ["EC_P256_SHA256", "ED25519", "ML_DSA_44"])
async def test_a_signature_of_an_older_version_verifies_by_the_name_of_that_version_only(stage, algorithm):
    name = await stage.fresh(algorithm)
    signature = (await stage.crypto.Sign(crypto_pb2.SignRequest(name=name, message=MESSAGE))).signature
    await stage.rotate(name)
    answers = [
        await stage.crypto.Verify(crypto_pb2.VerifyRequest(name=asked, message=MESSAGE, signature=signature))
        for asked in (f"{name}/versions/1", name)
    ]
    assert [answer.valid for answer in answers] == [True, False]
    assert [answer.key_version for answer in answers] == [f"{name}/versions/1", f"{name}/versions/2"]


# -- encryption ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("algorithm", SELF_DESCRIBING)
@pytest.mark.parametrize("size", [0, 1, 65_536])
async def test_what_was_encrypted_decrypts_with_its_associated_data(stage, algorithm, size):
    name, plaintext = stage.name(algorithm), bytes(range(256)) * 256
    sealed = await stage.encrypt(name, plaintext[:size], b"order 7")
    assert await stage.decrypt(name, sealed, b"order 7") == plaintext[:size]


@pytest.mark.parametrize("algorithm", SELF_DESCRIBING)
async def test_a_ciphertext_begins_with_format_uid_and_version(stage, algorithm):
    key = stage.keys[algorithm]
    sealed = await stage.encrypt(key.name, MESSAGE)
    assert sealed[:21] == FORMAT + key.uid + (1).to_bytes(4, "big")
    overhead = {"XAES_256_GCM": 24 + 16, "AES_256_SIV": 16}.get(algorithm, 12 + 16)
    assert len(sealed) == 21 + overhead + len(MESSAGE)


@pytest.mark.parametrize("algorithm", AEADS)
async def test_the_same_plaintext_never_gives_the_same_ciphertext(stage, algorithm):
    sealed = [await stage.encrypt(stage.name(algorithm), MESSAGE) for _ in range(8)]
    assert len(set(sealed)) == 8


async def test_deterministic_encryption_gives_the_same_ciphertext_for_the_same_input(stage):
    name = stage.name("AES_256_SIV")
    assert await stage.encrypt(name, MESSAGE, b"column 1") == await stage.encrypt(name, MESSAGE, b"column 1")


async def test_deterministic_encryption_depends_on_plaintext_and_associated_data(stage):
    name = stage.name("AES_256_SIV")
    inputs = [(MESSAGE, b"column 1"), (MESSAGE, b"column 2"), (MESSAGE, b""), (MESSAGE + b".", b"column 1")]
    assert len({await stage.encrypt(name, *one) for one in inputs}) == 4


async def test_deterministic_keys_of_the_same_algorithm_give_different_ciphertexts(stage):
    other = await stage.fresh("AES_256_SIV")
    mine, theirs = await stage.encrypt(stage.name("AES_256_SIV"), MESSAGE), await stage.encrypt(other, MESSAGE)
    assert mine[21:] != theirs[21:]


@pytest.mark.parametrize("algorithm", OAEPS)
async def test_what_was_encrypted_outside_with_oaep_decrypts(stage, algorithm):
    key = load_pem_public_key((await stage.public(stage.name(algorithm))).pem.encode())
    oaep = padding.OAEP(padding.MGF1(hash_of(algorithm)), hash_of(algorithm), None)
    assert await stage.decrypt(stage.name(algorithm), key.encrypt(MESSAGE, oaep)) == MESSAGE


@pytest.mark.parametrize("algorithm", OAEPS)
async def test_oaep_encrypts_its_limit_and_refuses_one_byte_more(stage, algorithm):
    limit = int(algorithm.split("_")[2]) // 8 - 2 * hash_of(algorithm).digest_size - 2
    name = stage.name(algorithm)
    assert await stage.decrypt(name, await stage.encrypt(name, bytes(limit))) == bytes(limit)
    with pytest.raises(Exception, match=f"encrypts at most {limit} bytes"):
        await stage.encrypt(name, bytes(limit + 1))


def hpke_key(algorithm: str, raw: bytes):
    if algorithm == "HPKE_X25519":
        return x25519.X25519PublicKey.from_public_bytes(raw)
    lattice = mlkem.MLKEM768PublicKey.from_public_bytes(raw[:1184])
    return MLKEM768X25519PublicKey(lattice, x25519.X25519PublicKey.from_public_bytes(raw[1184:]))


@pytest.mark.parametrize("algorithm", HPKES)
async def test_what_was_sealed_outside_with_hpke_decrypts(stage, algorithm):
    key = hpke_key(algorithm, (await stage.public(stage.name(algorithm))).raw)
    sealed = Suite(HPKES[algorithm], KDF.HKDF_SHA256, AEAD.AES_256_GCM).encrypt(MESSAGE, key, b"the info")
    assert await stage.decrypt(stage.name(algorithm), sealed, b"the info") == MESSAGE


@pytest.mark.parametrize("algorithm", HPKES)
async def test_hpke_round_trips_inside_and_never_repeats(stage, algorithm):
    name = stage.name(algorithm)
    first, second = [await stage.encrypt(name, MESSAGE, b"the info") for _ in range(2)]
    assert first != second
    assert await stage.decrypt(name, first, b"the info") == MESSAGE


@pytest.mark.parametrize("algorithm", SELF_DESCRIBING)
async def test_old_ciphertexts_decrypt_after_rotation_and_new_ones_name_the_new_version(stage, algorithm):
    name = await stage.fresh(algorithm)
    old = await stage.encrypt(name, MESSAGE)
    await stage.rotate(name)
    new = await stage.encrypt(name, MESSAGE)
    assert (old[17:21], new[17:21]) == ((1).to_bytes(4, "big"), (2).to_bytes(4, "big"))
    assert [await stage.decrypt(name, one) for one in (old, new)] == [MESSAGE, MESSAGE]


async def test_a_version_encrypts_by_its_name_after_rotation(stage):
    name = await stage.fresh("XAES_256_GCM")
    await stage.rotate(name)
    request = crypto_pb2.EncryptRequest(name=f"{name}/versions/1", plaintext=MESSAGE)
    assert (await stage.crypto.Encrypt(request)).key_version == f"{name}/versions/1"


async def test_inspect_tells_version_algorithm_and_whether_to_reencrypt(stage):
    name = await stage.fresh("AES_256_GCM")
    old = await stage.encrypt(name, MESSAGE)
    await stage.rotate(name)
    new = await stage.encrypt(name, MESSAGE)
    answers = [
        await stage.crypto.InspectCiphertext(crypto_pb2.InspectCiphertextRequest(name=name, ciphertext=one))
        for one in (old, new)
    ]
    assert [answer.key_version for answer in answers] == [f"{name}/versions/1", f"{name}/versions/2"]
    assert [answer.needs_reencrypt for answer in answers] == [True, False]
    assert {answer.algorithm for answer in answers} == {resources_pb2.ALGORITHM_AES_256_GCM}


async def test_reencrypt_moves_a_ciphertext_to_the_primary_version(stage):
    name = await stage.fresh("XAES_256_GCM")
    old = await stage.encrypt(name, MESSAGE, b"order 7")
    await stage.rotate(name)
    answer = await stage.crypto.ReEncrypt(
        crypto_pb2.ReEncryptRequest(
            source_name=name,
            ciphertext=old,
            source_associated_data=b"order 7",
            destination_name=name,
            destination_associated_data=b"order 8",
        )
    )
    assert (answer.source_key_version, answer.key_version) == (f"{name}/versions/1", f"{name}/versions/2")
    assert await stage.decrypt(name, answer.ciphertext, b"order 8") == MESSAGE


@pytest.mark.parametrize("source", ["XAES_256_GCM", "RSA_OAEP_2048_SHA256", "HPKE_X25519", "AES_256_SIV"])
@pytest.mark.parametrize("destination", ["AES_256_GCM", "RSA_OAEP_2048_SHA256", "HPKE_MLKEM768_X25519"])
async def test_reencrypt_moves_a_ciphertext_between_keys(stage, source, destination):
    answer = await stage.crypto.ReEncrypt(
        crypto_pb2.ReEncryptRequest(
            source_name=stage.name(source),
            ciphertext=await stage.encrypt(stage.name(source), MESSAGE),
            destination_name=stage.name(destination),
        )
    )
    assert await stage.decrypt(stage.name(destination), answer.ciphertext) == MESSAGE


@pytest.mark.parametrize("algorithm", AEADS)
async def test_a_wrapped_data_key_opens_with_decrypt(stage, algorithm):
    name = stage.name(algorithm)
    answer = await stage.crypto.GenerateDataKey(
        crypto_pb2.GenerateDataKeyRequest(
            name=name, length_bytes=48, count=3, include_plaintext=True, associated_data=b"table 1"
        )
    )
    opened = [await stage.decrypt(name, key.wrapped, b"table 1") for key in answer.data_keys]
    assert opened == [key.plaintext for key in answer.data_keys]
    assert {len(key) for key in opened} == {48}
    assert len(set(opened)) == 3


async def test_a_data_key_is_wrapped_only_unless_its_plaintext_is_asked_for(stage):
    request = crypto_pb2.GenerateDataKeyRequest(name=stage.name("XAES_256_GCM"))
    (key,) = (await stage.crypto.GenerateDataKey(request)).data_keys
    assert key.plaintext == b""
    assert len(await stage.decrypt(stage.name("XAES_256_GCM"), key.wrapped)) == 32


# -- wrapping, codes, agreement, encapsulation --------------------------------------------------------------------------


@pytest.mark.parametrize("size", [1, 7, 8, 16, 32, 33, 8192])
async def test_wrapped_key_material_unwraps_and_has_the_length_of_rfc_5649(stage, size):
    material = bytes(range(256)) * 32
    name = stage.name("AES_256_KWP")
    wrap = crypto_pb2.WrapKeyRequest(name=name, key_material=material[:size])
    wrapped = (await stage.crypto.WrapKey(wrap)).wrapped_key
    assert len(wrapped) == (size + 7) // 8 * 8 + 8
    unwrap = crypto_pb2.UnwrapKeyRequest(name=name, wrapped_key=wrapped)
    assert (await stage.crypto.UnwrapKey(unwrap)).key_material == material[:size]


async def test_wrapped_with_an_older_version_unwraps_by_its_name(stage):
    name = await stage.fresh("AES_256_KWP")
    wrapped = await stage.crypto.WrapKey(crypto_pb2.WrapKeyRequest(name=name, key_material=MESSAGE))
    await stage.rotate(name)
    request = crypto_pb2.UnwrapKeyRequest(name=wrapped.key_version, wrapped_key=wrapped.wrapped_key)
    assert (await stage.crypto.UnwrapKey(request)).key_material == MESSAGE


@pytest.mark.parametrize("algorithm", MACS)
async def test_a_code_has_its_length_is_repeatable_and_verifies(stage, algorithm):
    name = stage.name(algorithm)
    request = crypto_pb2.GenerateMacRequest(name=name, data=MESSAGE)
    codes = [(await stage.crypto.GenerateMac(request)).mac for _ in range(2)]
    assert codes[0] == codes[1]
    assert len(codes[0]) == MACS[algorithm]
    request = crypto_pb2.VerifyMacRequest(name=name, data=MESSAGE, mac=codes[0])
    assert (await stage.crypto.VerifyMac(request)).valid


@pytest.mark.parametrize("algorithm", MACS)
async def test_a_code_cut_short_or_altered_or_of_other_data_is_not_valid(stage, algorithm):
    name = stage.name(algorithm)
    code = (await stage.crypto.GenerateMac(crypto_pb2.GenerateMacRequest(name=name, data=MESSAGE))).mac
    altered = bytes([code[0] ^ 1]) + code[1:]
    requests = [crypto_pb2.VerifyMacRequest(name=name, data=MESSAGE, mac=code[:n]) for n in range(1, len(code))]
    requests.append(crypto_pb2.VerifyMacRequest(name=name, data=MESSAGE, mac=altered))
    requests.append(crypto_pb2.VerifyMacRequest(name=name, data=MESSAGE + b".", mac=code))
    answers = await stage.crypto.BatchVerifyMac(crypto_pb2.BatchVerifyMacRequest(items=requests))
    assert [result.result.valid for result in answers.results] == [False] * len(requests)
    assert all(result.HasField("result") for result in answers.results)


@pytest.mark.parametrize("algorithm", AGREEMENTS)
@pytest.mark.parametrize("encoding", ["raw", "der"])
async def test_both_sides_of_an_agreement_derive_the_same_secret(stage, algorithm, encoding):
    theirs = load_pem_public_key((await stage.public(stage.name(algorithm))).pem.encode())
    curve, size = AGREEMENTS[algorithm]
    if curve is None:
        private = x25519.X25519PrivateKey.generate()
        expected = private.exchange(theirs)
        raw = private.public_key().public_bytes_raw()
    else:
        private = ec.generate_private_key(curve())
        expected = private.exchange(ec.ECDH(), theirs)
        raw = private.public_key().public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)
    sent = raw if encoding == "raw" else der_of(private.public_key())
    answer = await stage.crypto.DeriveSharedSecret(
        crypto_pb2.DeriveSharedSecretRequest(name=stage.name(algorithm), peer_public_key=sent)
    )
    assert answer.shared_secret == expected
    assert len(expected) == size


@pytest.mark.parametrize("algorithm", ML_KEM)
async def test_what_was_encapsulated_outside_decapsulates(stage, algorithm):
    kind, size = ML_KEM[algorithm]
    public = await stage.public(stage.name(algorithm))
    secret, ciphertext = kind.from_public_bytes(public.raw).encapsulate()
    assert len(ciphertext) == size
    request = crypto_pb2.DecapsulateRequest(name=stage.name(algorithm), ciphertext=ciphertext)
    assert (await stage.crypto.Decapsulate(request)).shared_secret == secret


@pytest.mark.parametrize("algorithm", ML_KEM)
async def test_encapsulation_inside_decapsulates_and_never_repeats(stage, algorithm):
    name = stage.name(algorithm)
    made = [await stage.crypto.Encapsulate(crypto_pb2.EncapsulateRequest(name=name)) for _ in range(2)]
    assert made[0].shared_secret != made[1].shared_secret
    request = crypto_pb2.DecapsulateRequest(name=name, ciphertext=made[0].ciphertext)
    assert (await stage.crypto.Decapsulate(request)).shared_secret == made[0].shared_secret
    assert len(made[0].shared_secret) == 32


@pytest.mark.parametrize("algorithm", ML_KEM)
async def test_an_altered_encapsulation_gives_another_secret_and_no_error(stage, algorithm):
    name = stage.name(algorithm)
    made = await stage.crypto.Encapsulate(crypto_pb2.EncapsulateRequest(name=name))
    altered = bytes([made.ciphertext[0] ^ 1]) + made.ciphertext[1:]
    answer = await stage.crypto.Decapsulate(crypto_pb2.DecapsulateRequest(name=name, ciphertext=altered))
    assert answer.shared_secret != made.shared_secret
    assert len(answer.shared_secret) == 32


@pytest.mark.parametrize("size", [16, 32, 65_536])
async def test_random_bytes_have_the_asked_length_and_differ(stage, size):
    request = crypto_pb2.GenerateRandomBytesRequest(parent="vaults/default", length_bytes=size)
    first, second = [(await stage.crypto.GenerateRandomBytes(request)).data for _ in range(2)]
    assert (len(first), len(second)) == (size, size)
    assert first != second
