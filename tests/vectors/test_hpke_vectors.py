"""HPKE against published vectors.

The files' messages carry associated data, which the backend's single messages do not.  So the peer here is written out
from RFC 9180; it first proves itself on the files and then talks to the backend, with the files' keys, both ways.
"""

from __future__ import annotations

import hashlib
import hmac
import json
from typing import NamedTuple

import pytest
from cryptography.hazmat.primitives.asymmetric.mlkem import MLKEM768PrivateKey, MLKEM768PublicKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM, ChaCha20Poly1305

from vaultd.backends.base import OpKind
from vaultd.errors import DecryptionFailed
from vectors.published import ROOT, open_vault

DHKEM_X25519 = 0x0020
X_WING = 0x647A
HKDF_SHA256 = 0x0001
AES_256_GCM = 0x0002
CHACHA20_POLY1305 = 0x0003
CIPHERS = {AES_256_GCM: AESGCM, CHACHA20_POLY1305: ChaCha20Poly1305}
INFO, MESSAGE = b"vaults/default/keys/k", b"the quick brown fox"


def number(value: int) -> bytes:
    return value.to_bytes(2, "big")


def labeled_extract(suite: bytes, salt: bytes, label: bytes, ikm: bytes) -> bytes:
    return hmac.digest(salt, b"HPKE-v1" + suite + label + ikm, "sha256")


def labeled_expand(suite: bytes, prk: bytes, label: bytes, info: bytes, length: int) -> bytes:
    labeled = number(length) + b"HPKE-v1" + suite + label + info
    return hmac.digest(prk, labeled + b"\x01", "sha256")[:length]


class Schedule(NamedTuple):
    """RFC 9180, section 5.1, base mode."""

    key: bytes
    base_nonce: bytes
    aead: int

    @classmethod
    def derive(cls, kem: int, aead: int, shared_secret: bytes, info: bytes) -> Schedule:
        suite = b"HPKE" + number(kem) + number(HKDF_SHA256) + number(aead)
        hashes = [
            labeled_extract(suite, b"", b"psk_id_hash", b""),
            labeled_extract(suite, b"", b"info_hash", info),
        ]
        context = b"\0" + b"".join(hashes)
        secret = labeled_extract(suite, shared_secret, b"secret", b"")
        return cls(
            labeled_expand(suite, secret, b"key", context, 32),
            labeled_expand(suite, secret, b"base_nonce", context, 12),
            aead,
        )

    def open(self, ciphertext: bytes, aad: bytes) -> bytes:
        return CIPHERS[self.aead](self.key).decrypt(self.base_nonce, ciphertext, aad)

    def seal(self, plaintext: bytes, aad: bytes) -> bytes:
        return CIPHERS[self.aead](self.key).encrypt(self.base_nonce, plaintext, aad)


class DhKem:
    """DHKEM(X25519, HKDF-SHA256), RFC 9180, section 4.1."""

    kem = DHKEM_X25519
    algorithm = "HPKE_X25519"
    enc_bytes = 32

    @staticmethod
    def material(secret: bytes) -> bytes:
        return secret

    @staticmethod
    def bare_public(public_key: bytes) -> bytes:
        return public_key[-32:]

    @staticmethod
    def secret_of(dh: bytes, enc: bytes, public: bytes) -> bytes:
        suite = b"KEM" + number(DHKEM_X25519)
        prk = labeled_extract(suite, b"", b"eae_prk", dh)
        return labeled_expand(suite, prk, b"shared_secret", enc + public, 32)

    @classmethod
    def decapsulate(cls, secret: bytes, enc: bytes) -> bytes:
        private = X25519PrivateKey.from_private_bytes(secret)
        dh = private.exchange(X25519PublicKey.from_public_bytes(enc))
        return cls.secret_of(dh, enc, private.public_key().public_bytes_raw())

    @classmethod
    def encapsulate(cls, public: bytes) -> tuple[bytes, bytes]:
        ephemeral = X25519PrivateKey.generate()
        enc = ephemeral.public_key().public_bytes_raw()
        return cls.secret_of(ephemeral.exchange(X25519PublicKey.from_public_bytes(public)), enc, public), enc


class XWing:
    """MLKEM768-X25519, draft-connolly-cfrg-xwing-kem: a 32-byte seed expands to the two keys that we store."""

    kem = X_WING
    algorithm = "HPKE_MLKEM768_X25519"
    enc_bytes = 1120

    @staticmethod
    def material(secret: bytes) -> bytes:
        return hashlib.shake_256(secret).digest(96)

    @staticmethod
    def bare_public(public_key: bytes) -> bytes:
        return public_key

    @staticmethod
    def secret_of(mlkem: bytes, dh: bytes, share: bytes, public: bytes) -> bytes:
        return hashlib.sha3_256(mlkem + dh + share + public + b"\\.//^\\").digest()

    @classmethod
    def decapsulate(cls, secret: bytes, enc: bytes) -> bytes:
        material = cls.material(secret)
        mlkem = MLKEM768PrivateKey.from_seed_bytes(material[:64]).decapsulate(enc[:1088])
        private, share = X25519PrivateKey.from_private_bytes(material[64:]), enc[1088:]
        dh = private.exchange(X25519PublicKey.from_public_bytes(share))
        return cls.secret_of(mlkem, dh, share, private.public_key().public_bytes_raw())

    @classmethod
    def encapsulate(cls, public: bytes) -> tuple[bytes, bytes]:
        mlkem, ciphertext = MLKEM768PublicKey.from_public_bytes(public[:1184]).encapsulate()
        ephemeral = X25519PrivateKey.generate()
        share = ephemeral.public_key().public_bytes_raw()
        dh = ephemeral.exchange(X25519PublicKey.from_public_bytes(public[1184:]))
        return cls.secret_of(mlkem, dh, share, public[1184:]), ciphertext + share


KEMS = [
    pytest.param(DhKem, "test-vectors.json", AES_256_GCM, id="X25519"),
    pytest.param(XWing, "hpke-pq-test-vectors.json", CHACHA20_POLY1305, id="MLKEM768-X25519"),
]


def read_vector(file: str, kem: int, aead: int) -> dict:
    """The one vector of base mode with this KEM, HKDF-SHA256 and this AEAD."""
    wanted = (0, kem, HKDF_SHA256, aead)
    vectors = json.loads((ROOT / "HPKE" / file).read_text())
    (vector,) = [one for one in vectors if (one["mode"], one["kem_id"], one["kdf_id"], one["aead_id"]) == wanted]
    return vector


@pytest.mark.parametrize(("kem", "file", "aead"), KEMS)
def test_the_peer_written_out_from_the_rfc_is_right(kem, file, aead):
    vector = read_vector(file, kem.kem, aead)
    secret = kem.decapsulate(bytes.fromhex(vector["skRm"]), bytes.fromhex(vector["enc"]))
    assert secret.hex() == vector["shared_secret"]
    schedule = Schedule.derive(kem.kem, aead, secret, bytes.fromhex(vector["info"]))
    assert (schedule.key.hex(), schedule.base_nonce.hex()) == (vector["key"], vector["base_nonce"])
    first = vector["encryptions"][0]
    assert schedule.open(bytes.fromhex(first["ct"]), bytes.fromhex(first["aad"])).hex() == first["pt"]


@pytest.mark.parametrize(("kem", "file", "aead"), KEMS)
async def test_backend_and_peer_open_what_the_other_seals(kem, file, aead):
    vector = read_vector(file, kem.kem, aead)
    secret, public = bytes.fromhex(vector["skRm"]), bytes.fromhex(vector["pkRm"])
    async with open_vault() as vault:
        key = await vault.take_in(kem.algorithm, kem.material(secret))
        assert kem.bare_public(key.public_key) == public

        sealed = await vault.use(key.public, OpKind.ENCRYPT, MESSAGE, INFO)
        enc, ciphertext = sealed[: kem.enc_bytes], sealed[kem.enc_bytes :]
        schedule = Schedule.derive(kem.kem, AES_256_GCM, kem.decapsulate(secret, enc), INFO)
        assert schedule.open(ciphertext, b"") == MESSAGE

        shared, enc = kem.encapsulate(public)
        schedule = Schedule.derive(kem.kem, AES_256_GCM, shared, INFO)
        assert await vault.use(key.private, OpKind.DECRYPT, enc + schedule.seal(MESSAGE, b""), INFO) == MESSAGE


async def test_published_encapsulation_opens_for_the_backend():
    """The file's own ephemeral key; only the AEAD's associated data is ours."""
    vector = read_vector("test-vectors.json", DHKEM_X25519, AES_256_GCM)
    info, enc = bytes.fromhex(vector["info"]), bytes.fromhex(vector["enc"])
    schedule = Schedule(bytes.fromhex(vector["key"]), bytes.fromhex(vector["base_nonce"]), AES_256_GCM)
    first = vector["encryptions"][0]
    plaintext = bytes.fromhex(first["pt"])
    async with open_vault() as vault:
        key = await vault.take_in("HPKE_X25519", bytes.fromhex(vector["skRm"]))
        sealed = enc + schedule.seal(plaintext, b"")
        assert await vault.use(key.private, OpKind.DECRYPT, sealed, info) == plaintext
        with pytest.raises(DecryptionFailed):
            await vault.use(key.private, OpKind.DECRYPT, enc + bytes.fromhex(first["ct"]), info)
