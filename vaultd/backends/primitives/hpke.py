"""HPKE base mode (RFC 9180) with HKDF-SHA256 and AES-256-GCM, over X25519 or over ML-KEM-768 with X25519 (X-Wing).

The context is HPKE's `info`, and the single message's associated data is empty; output is enc || ciphertext || tag.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric.mlkem import MLKEM768PrivateKey, MLKEM768PublicKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.hpke import (
    AEAD,
    KDF,
    KEM,
    MLKEM768X25519PrivateKey,
    MLKEM768X25519PublicKey,
    Suite,
)

from vaultd.backends.base import Lane, OpKind
from vaultd.backends.primitives.kem import SEED_BYTES
from vaultd.backends.primitives.montgomery import X25519_BYTES, X25519_ENCODING
from vaultd.backends.primitives.scheme import Encoded, KeyPairScheme, material_mismatch, wrong_purpose
from vaultd.errors import DecryptionFailed, InvalidArgument
from vaultd.secret import Secret

if TYPE_CHECKING:
    from vaultd.backends.base import Operation

_MLKEM768_PUBLIC_BYTES = 1184


class HybridPair(NamedTuple):
    """The two private keys of MLKEM768-X25519; `cryptography` joins them, but takes no joined key apart."""

    mlkem: MLKEM768PrivateKey
    x25519: X25519PrivateKey


class HybridEncoding:
    """ML-KEM seed (64) || X25519 (32), and ML-KEM public (1184) || X25519 public (32): no DER is standardised yet."""

    __slots__ = ()
    generation_lane: Lane = Lane.BATCH

    def generate(self) -> HybridPair:
        """Make a new key."""
        return HybridPair(MLKEM768PrivateKey.generate(), X25519PrivateKey.generate())

    def parse(self, material: bytes) -> HybridPair:
        """Read the 96 bytes."""
        if len(material) != SEED_BYTES + X25519_BYTES:
            raise material_mismatch("the algorithm takes an ML-KEM-768 seed (64 bytes) and an X25519 key (32 bytes)")
        return HybridPair(
            MLKEM768PrivateKey.from_seed_bytes(material[:SEED_BYTES]),
            X25519PrivateKey.from_private_bytes(material[SEED_BYTES:]),
        )

    def write(self, private: HybridPair) -> Encoded:
        """Encode both parts."""
        return Encoded(
            Secret(private.mlkem.private_bytes_raw() + private.x25519.private_bytes_raw()),
            private.mlkem.public_key().public_bytes_raw() + private.x25519.public_key().public_bytes_raw(),
        )

    def write_out(self, private: HybridPair) -> Encoded:
        """The same: no PKCS#8 is standardised yet."""
        return self.write(private)

    def read(self, secret: bytes) -> HybridPair:
        """Read what `write` gave."""
        return self.parse(secret)

    def read_public(self, public_key: bytes) -> MLKEM768X25519PublicKey:
        """Read the public part of what `write` gave."""
        if len(public_key) != _MLKEM768_PUBLIC_BYTES + X25519_BYTES:
            raise material_mismatch("the public key is ML-KEM-768 (1184 bytes) and X25519 (32 bytes)")
        try:
            mlkem = MLKEM768PublicKey.from_public_bytes(public_key[:_MLKEM768_PUBLIC_BYTES])
        except ValueError:
            raise material_mismatch("the ML-KEM-768 part of the public key is not sound") from None
        return MLKEM768X25519PublicKey(mlkem, X25519PublicKey.from_public_bytes(public_key[_MLKEM768_PUBLIC_BYTES:]))


class HpkePrivateKey:
    """Opens messages sealed to the public key."""

    __slots__ = ("_key", "_suite")

    def __init__(self, key: X25519PrivateKey | MLKEM768X25519PrivateKey, suite: Suite) -> None:
        self._key = key
        self._suite = suite

    def perform(self, operation: Operation) -> bytes:
        """DECRYPT."""
        kind, data, context = operation
        if kind is not OpKind.DECRYPT:
            raise wrong_purpose()
        try:
            return self._suite.decrypt(data, self._key, context)
        except (InvalidTag, ValueError):
            raise DecryptionFailed from None


class HpkePublicKey:
    """Seals messages."""

    __slots__ = ("_key", "_suite")

    def __init__(self, key: X25519PublicKey | MLKEM768X25519PublicKey, suite: Suite) -> None:
        self._key = key
        self._suite = suite

    def perform(self, operation: Operation) -> bytes:
        """ENCRYPT."""
        kind, data, context = operation
        if kind is not OpKind.ENCRYPT:
            raise wrong_purpose()
        try:
            return self._suite.encrypt(data, self._key, context)
        except ValueError:
            raise InvalidArgument("PUBLIC_KEY", "nothing can be sealed to this public key") from None


_X25519_SUITE = Suite(KEM.X25519, KDF.HKDF_SHA256, AEAD.AES_256_GCM)
_HYBRID_SUITE = Suite(KEM.MLKEM768_X25519, KDF.HKDF_SHA256, AEAD.AES_256_GCM)

HPKE_X25519 = KeyPairScheme(
    X25519_ENCODING,
    lambda private: HpkePrivateKey(private, _X25519_SUITE),
    lambda public: HpkePublicKey(public, _X25519_SUITE),
)
HPKE_MLKEM768_X25519 = KeyPairScheme(
    HybridEncoding(),
    lambda private: HpkePrivateKey(MLKEM768X25519PrivateKey(private.mlkem, private.x25519), _HYBRID_SUITE),
    lambda public: HpkePublicKey(public, _HYBRID_SUITE),
)
