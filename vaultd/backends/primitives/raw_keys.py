"""Keys that are a short string of bytes: Ed25519, Ed448, X25519, and the seeds of ML-KEM and ML-DSA."""

from __future__ import annotations

from typing import TYPE_CHECKING, Generic, Protocol, TypeVar

from vaultd.backends.base import Lane
from vaultd.backends.primitives.der import DerPrivateKey, load_private_der, load_public_der, write_pair, write_public
from vaultd.backends.primitives.scheme import Encoded, material_mismatch
from vaultd.secret import Secret

if TYPE_CHECKING:
    from collections.abc import Callable


class RawPrivateKey(DerPrivateKey, Protocol):
    """A private key of `cryptography` with a raw encoding."""

    def private_bytes_raw(self) -> bytes: ...


RawPrivateT = TypeVar("RawPrivateT", bound=RawPrivateKey)
RawPublicT = TypeVar("RawPublicT")


class RawEncoding(Generic[RawPrivateT, RawPublicT]):
    """Stored raw, with the public part as SubjectPublicKeyInfo; imported raw or as PKCS#8."""

    __slots__ = ("_from_bytes", "_generate", "_private_type", "_public_type", "_secret_bytes")
    generation_lane: Lane = Lane.BATCH

    def __init__(
        self,
        private_type: type[RawPrivateT],
        public_type: type[RawPublicT],
        secret_bytes: int,
        generate: Callable[[], RawPrivateT],
        from_bytes: Callable[[bytes], RawPrivateT],
    ) -> None:
        self._private_type = private_type
        self._public_type = public_type
        self._secret_bytes = secret_bytes
        self._generate = generate
        self._from_bytes = from_bytes

    def generate(self) -> RawPrivateT:
        """Make a new key."""
        return self._generate()

    def parse(self, material: bytes) -> RawPrivateT:
        """Read raw bytes, or PKCS#8 DER, which is longer."""
        if len(material) == self._secret_bytes:
            return self._from_bytes(material)
        private = load_private_der(material)
        if not isinstance(private, self._private_type):
            raise material_mismatch("the material is a key of another algorithm")
        return private

    def write(self, private: RawPrivateT) -> Encoded:
        """Encode raw, and as SubjectPublicKeyInfo."""
        return Encoded(Secret(private.private_bytes_raw()), write_public(private.public_key()))

    def write_out(self, private: RawPrivateT) -> Encoded:
        """Encode as PKCS#8 (of ML-KEM and ML-DSA: with the seed) and SubjectPublicKeyInfo."""
        return write_pair(private)

    def read(self, secret: bytes) -> RawPrivateT:
        """Read what `write` gave."""
        if len(secret) != self._secret_bytes:
            raise material_mismatch(f"the algorithm's private keys have {self._secret_bytes} bytes")
        return self._from_bytes(secret)

    def read_public(self, public_key: bytes) -> RawPublicT:
        """Read SubjectPublicKeyInfo."""
        public = load_public_der(public_key)
        if not isinstance(public, self._public_type):
            raise material_mismatch("the public key is of another algorithm")
        return public
