"""Key encapsulation: ML-KEM (FIPS 203)."""

# mypy: disable-error-code="type-abstract"
# The abstract classes of `cryptography` are for isinstance here, never called.

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol, TypeVar

from cryptography.hazmat.primitives.asymmetric import mlkem

from vaultd.backends.base import OpKind
from vaultd.backends.primitives.raw_keys import RawEncoding, RawPrivateKey
from vaultd.backends.primitives.scheme import KeyPairScheme, check_no_context, wrong_purpose
from vaultd.errors import InvalidArgument

if TYPE_CHECKING:
    from vaultd.backends.base import Operation


class Decapsulator(Protocol):
    """A private key of `cryptography` that decapsulates."""

    def decapsulate(self, ciphertext: bytes, /) -> bytes: ...


class Encapsulator(Protocol):
    """A public key of `cryptography` that encapsulates."""

    def encapsulate(self) -> tuple[bytes, bytes]: ...


class DecapsulatingRawKey(RawPrivateKey, Decapsulator, Protocol):
    """A private key that encodes itself raw, and decapsulates."""


class DecapsulationKey:
    """Opens encapsulations.  An altered one of the right length gives another secret, no error (implicit rejection)."""

    __slots__ = ("_ciphertext_bytes", "_key")

    def __init__(self, key: Decapsulator, ciphertext_bytes: int) -> None:
        self._key = key
        self._ciphertext_bytes = ciphertext_bytes

    def perform(self, operation: Operation) -> bytes:
        """DECAPSULATE."""
        kind, data, context = operation
        if kind is not OpKind.DECAPSULATE:
            raise wrong_purpose()
        check_no_context(context)
        if len(data) != self._ciphertext_bytes:
            raise InvalidArgument(
                "CIPHERTEXT_LENGTH", f"the algorithm's ciphertexts have exactly {self._ciphertext_bytes} bytes"
            )
        return self._key.decapsulate(data)


class EncapsulationKey:
    """Makes a shared secret and its encapsulation."""

    __slots__ = ("_key",)

    def __init__(self, key: Encapsulator) -> None:
        self._key = key

    def perform(self, operation: Operation) -> bytes:
        """ENCAPSULATE."""
        kind, data, context = operation
        if kind is not OpKind.ENCAPSULATE:
            raise wrong_purpose()
        check_no_context(context)
        if data:
            raise InvalidArgument("UNEXPECTED_DATA", "encapsulation takes no input; leave it empty")
        shared_secret, ciphertext = self._key.encapsulate()
        return shared_secret + ciphertext


PrivateT = TypeVar("PrivateT", bound=DecapsulatingRawKey)
PublicT = TypeVar("PublicT", bound=Encapsulator)

SEED_BYTES = 64


def _ml_kem(encoding: RawEncoding[PrivateT, PublicT], ciphertext_bytes: int) -> KeyPairScheme[PrivateT, PublicT]:
    return KeyPairScheme(encoding, lambda private: DecapsulationKey(private, ciphertext_bytes), EncapsulationKey)


ML_KEM_768 = _ml_kem(
    RawEncoding(
        mlkem.MLKEM768PrivateKey,
        mlkem.MLKEM768PublicKey,
        SEED_BYTES,
        mlkem.MLKEM768PrivateKey.generate,
        mlkem.MLKEM768PrivateKey.from_seed_bytes,
    ),
    1088,
)
ML_KEM_1024 = _ml_kem(
    RawEncoding(
        mlkem.MLKEM1024PrivateKey,
        mlkem.MLKEM1024PublicKey,
        SEED_BYTES,
        mlkem.MLKEM1024PrivateKey.generate,
        mlkem.MLKEM1024PrivateKey.from_seed_bytes,
    ),
    1568,
)
