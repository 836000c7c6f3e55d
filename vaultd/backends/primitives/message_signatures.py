"""Signatures over messages, not digests.

Ed25519 and Ed448 (RFC 8032), ML-DSA (FIPS 204, hedged, with an empty context).
"""

# mypy: disable-error-code="type-abstract"
# The abstract classes of `cryptography` are for isinstance here, never called.

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol, TypeVar

from cryptography import exceptions
from cryptography.hazmat.primitives.asymmetric import ed448, ed25519, mldsa

from vaultd.backends.base import OpKind
from vaultd.backends.primitives.raw_keys import RawEncoding, RawPrivateKey
from vaultd.backends.primitives.scheme import KeyPairScheme, check_no_context, wrong_purpose
from vaultd.errors import InvalidSignature

if TYPE_CHECKING:
    from vaultd.backends.base import Operation


class Signer(Protocol):
    """A private key of `cryptography` that signs messages."""

    def sign(self, data: bytes, /) -> bytes: ...


class Verifier(Protocol):
    """A public key of `cryptography` that verifies messages."""

    def verify(self, signature: bytes, data: bytes, /) -> None: ...


class SigningRawKey(RawPrivateKey, Signer, Protocol):
    """A private key that encodes itself raw, and signs."""


class MessageSigningKey:
    """Signs messages."""

    __slots__ = ("_sign",)

    def __init__(self, key: Signer) -> None:
        self._sign = key.sign

    def perform(self, operation: Operation) -> bytes:
        """SIGN_MESSAGE."""
        kind, data, context = operation
        if kind is not OpKind.SIGN_MESSAGE:
            raise wrong_purpose()
        check_no_context(context)
        return self._sign(data)


class MessageVerifyingKey:
    """Verifies signatures over messages."""

    __slots__ = ("_verify",)

    def __init__(self, key: Verifier) -> None:
        self._verify = key.verify

    def perform(self, operation: Operation) -> bytes:
        """VERIFY_MESSAGE."""
        kind, data, signature = operation
        if kind is not OpKind.VERIFY_MESSAGE:
            raise wrong_purpose()
        try:
            self._verify(signature, data)
        except exceptions.InvalidSignature:
            raise InvalidSignature from None
        return b""


PrivateT = TypeVar("PrivateT", bound=SigningRawKey)
PublicT = TypeVar("PublicT", bound=Verifier)


def _message_signature(encoding: RawEncoding[PrivateT, PublicT]) -> KeyPairScheme[PrivateT, PublicT]:
    return KeyPairScheme(encoding, MessageSigningKey, MessageVerifyingKey)


ED25519 = _message_signature(
    RawEncoding(
        ed25519.Ed25519PrivateKey,
        ed25519.Ed25519PublicKey,
        32,
        ed25519.Ed25519PrivateKey.generate,
        ed25519.Ed25519PrivateKey.from_private_bytes,
    )
)
ED448 = _message_signature(
    RawEncoding(
        ed448.Ed448PrivateKey,
        ed448.Ed448PublicKey,
        57,
        ed448.Ed448PrivateKey.generate,
        ed448.Ed448PrivateKey.from_private_bytes,
    )
)
ML_DSA_44 = _message_signature(
    RawEncoding(
        mldsa.MLDSA44PrivateKey,
        mldsa.MLDSA44PublicKey,
        32,
        mldsa.MLDSA44PrivateKey.generate,
        mldsa.MLDSA44PrivateKey.from_seed_bytes,
    )
)
ML_DSA_65 = _message_signature(
    RawEncoding(
        mldsa.MLDSA65PrivateKey,
        mldsa.MLDSA65PublicKey,
        32,
        mldsa.MLDSA65PrivateKey.generate,
        mldsa.MLDSA65PrivateKey.from_seed_bytes,
    )
)
ML_DSA_87 = _message_signature(
    RawEncoding(
        mldsa.MLDSA87PrivateKey,
        mldsa.MLDSA87PublicKey,
        32,
        mldsa.MLDSA87PrivateKey.generate,
        mldsa.MLDSA87PrivateKey.from_seed_bytes,
    )
)
