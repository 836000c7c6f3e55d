"""X25519 (RFC 7748)."""

# mypy: disable-error-code="type-abstract"
# The abstract classes of `cryptography` are for isinstance here, never called.

from __future__ import annotations

from typing import TYPE_CHECKING

from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey

from vaultd.backends.base import OpKind
from vaultd.backends.primitives.der import load_public_der
from vaultd.backends.primitives.public_only import NoPublicUse
from vaultd.backends.primitives.raw_keys import RawEncoding
from vaultd.backends.primitives.scheme import KeyPairScheme, check_no_context, wrong_purpose
from vaultd.errors import InvalidArgument

if TYPE_CHECKING:
    from vaultd.backends.base import Operation

X25519_BYTES = 32
X25519_ENCODING = RawEncoding(
    X25519PrivateKey,
    X25519PublicKey,
    X25519_BYTES,
    X25519PrivateKey.generate,
    X25519PrivateKey.from_private_bytes,
)


class X25519Key:
    """Agrees on a shared secret."""

    __slots__ = ("_key",)

    def __init__(self, key: X25519PrivateKey) -> None:
        self._key = key

    def perform(self, operation: Operation) -> bytes:
        """DERIVE."""
        kind, data, context = operation
        if kind is not OpKind.DERIVE:
            raise wrong_purpose()
        check_no_context(context)
        try:
            return self._key.exchange(_read_peer(data))
        except ValueError:
            # OpenSSL refuses the all-zero result, to which a peer of low order would force every key.
            raise _bad_peer() from None


def _read_peer(data: bytes) -> X25519PublicKey:
    if len(data) == X25519_BYTES:
        return X25519PublicKey.from_public_bytes(data)
    try:
        public = load_public_der(data)
    except InvalidArgument:
        raise _bad_peer() from None
    if not isinstance(public, X25519PublicKey):
        raise _bad_peer()
    return public


def _bad_peer() -> InvalidArgument:
    return InvalidArgument(
        "PEER_PUBLIC_KEY",
        "the peer's public key must be an X25519 key, not of low order: raw, 32 bytes, or SubjectPublicKeyInfo in DER",
    )


X25519 = KeyPairScheme(X25519_ENCODING, X25519Key, NoPublicUse)
