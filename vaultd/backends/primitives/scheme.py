"""What an algorithm is to the software backend, and the refusals that all of them share."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Generic, NamedTuple, Protocol, TypeVar

from vaultd.errors import InvalidArgument
from vaultd.secret import Secret

if TYPE_CHECKING:
    from collections.abc import Callable

    from vaultd.backends.base import Handle, Lane, Operation


class Key(Protocol):
    """A key that is ready for use."""

    def perform(self, operation: Operation) -> bytes:
        """Do it now, on this thread.  Raises VaultdError."""
        ...


class Encoded(NamedTuple):
    """A key as it is stored."""

    secret: Secret
    public_key: bytes


PrivateT = TypeVar("PrivateT")
PublicT = TypeVar("PublicT")
ReadableT_co = TypeVar("ReadableT_co", covariant=True)


class KeyEncoding(Protocol[PrivateT, ReadableT_co]):
    """How one kind of key pair is made, written and read.  Reading raises InvalidArgument, MATERIAL_MISMATCH."""

    generation_lane: Lane
    """KEY_GENERATION where making a key takes long enough to hold others up."""

    def generate(self) -> PrivateT:
        """Make a new key."""
        ...

    def parse(self, material: bytes) -> PrivateT:
        """Read material from outside, checking that it is a sound key of exactly this kind."""
        ...

    def write(self, private: PrivateT) -> Encoded:
        """Encode for the store."""
        ...

    def write_out(self, private: PrivateT) -> Encoded:
        """Encode for others: PKCS#8 DER where there is one, else as for the store."""
        ...

    def read(self, secret: bytes) -> PrivateT:
        """Read what `write` gave."""
        ...

    def read_public(self, public_key: bytes) -> ReadableT_co:
        """Read the public part of what `write` gave."""
        ...


@dataclass(frozen=True, slots=True)
class SymmetricScheme:
    """An algorithm whose key is a string of random bytes, and whose operations take microseconds."""

    key_bytes: int
    load_key: Callable[[bytes], Handle]

    def generate(self) -> Secret:
        """Make a new key."""
        return Secret(os.urandom(self.key_bytes))

    def load(self, secret: Secret) -> Handle:
        """Make a handle.  Raises InvalidArgument unless the length is exact."""
        self._check_length(secret)
        return self.load_key(secret.expose("load the key into OpenSSL"))

    def reveal(self, secret: Secret) -> Encoded:
        """Stored material as it leaves: as it is."""
        self._check_length(secret)
        return Encoded(secret, b"")

    def _check_length(self, secret: Secret) -> None:
        if len(secret) != self.key_bytes:
            raise material_mismatch(f"the algorithm takes a raw key of exactly {self.key_bytes} bytes")


@dataclass(frozen=True, slots=True)
class KeyPairScheme(Generic[PrivateT, PublicT]):
    """An algorithm with a private and a public part: how they are encoded, and what each of them does."""

    encoding: KeyEncoding[PrivateT, PublicT]
    use_private: Callable[[PrivateT], Key]
    use_public: Callable[[PublicT], Key]

    @property
    def generation_lane(self) -> Lane:
        """Where in the queue making a key belongs."""
        return self.encoding.generation_lane

    def generate(self) -> Encoded:
        """Make a new key."""
        return self.encoding.write(self.encoding.generate())

    def take_in(self, material: Secret) -> Encoded:
        """Check material from outside and write it in the one encoding that is stored."""
        return self.encoding.write(self.encoding.parse(material.expose("check imported material")))

    def load(self, secret: Secret) -> Key:
        """Read stored material."""
        return self.use_private(self.encoding.read(secret.expose("load the key into OpenSSL")))

    def reveal(self, secret: Secret) -> Encoded:
        """Stored material as it leaves, with the public part that it gives."""
        return self.encoding.write_out(self.encoding.read(secret.expose("encode the key for its way out")))

    def load_public(self, public_key: bytes) -> Key:
        """Read a stored public key."""
        return self.use_public(self.encoding.read_public(public_key))


def wrong_purpose() -> InvalidArgument:
    """The operation is not one that this part of a key of this algorithm does."""
    return InvalidArgument("WRONG_PURPOSE", "this key's algorithm does not do this operation")


def material_mismatch(text: str) -> InvalidArgument:
    """Key material does not fit the algorithm.  The text says what would."""
    return InvalidArgument("MATERIAL_MISMATCH", text)


def check_no_context(context: bytes) -> None:
    """Refuse a context that would be bound to nothing: dropping it in silence would promise what does not hold."""
    if context:
        raise InvalidArgument("CONTEXT_NOT_SUPPORTED", "this algorithm takes no associated data; leave it empty")
