"""What an operation of the engine asks of a token, and what is made of the answer.  Server side.

Encodings are those of the software backend: digests are made here, DER is written here, nonces are drawn here.
"""

from __future__ import annotations

import hashlib
from hmac import compare_digest
from os import urandom
from typing import TYPE_CHECKING, Any, Final, Protocol

from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from vaultd.backends.base import OpKind
from vaultd.backends.pkcs11.messages import Verb
from vaultd.backends.primitives.elliptic import read_peer
from vaultd.backends.primitives.scheme import check_no_context, wrong_purpose
from vaultd.errors import DecryptionFailed, FailedPrecondition, InvalidArgument, InvalidSignature

if TYPE_CHECKING:
    from collections.abc import Callable

    from vaultd.backends.base import Operation

_NONCE_BYTES: Final = 12
_SHORTEST: Final = _NONCE_BYTES + 16

Asked = tuple[Verb, tuple[bytes, ...]]


class TokenUse(Protocol):
    """One algorithm's operations."""

    def ask(self, operation: Operation) -> Asked:
        """Say what the token must do.  Raises InvalidArgument."""
        ...

    def answer(self, operation: Operation, asked: Asked, result: bytes) -> bytes:
        """Make the engine's result of the token's."""
        ...

    def bad_input(self, operation: Operation) -> InvalidArgument:
        """The error of data that the token does not accept."""
        ...


class _Use:
    def answer(self, operation: Operation, asked: Asked, result: bytes) -> bytes:
        del operation, asked
        return result

    def bad_input(self, operation: Operation) -> InvalidArgument:
        if operation.kind in {OpKind.DECRYPT, OpKind.UNWRAP}:
            return DecryptionFailed()
        return InvalidArgument("TOKEN_DATA_REFUSED", "the token does not accept this data for this key")


class DigestSigner(_Use):
    """RSA and ECDSA: the digest is made here and signed there."""

    def __init__(self, hash: str, coordinate_bytes: int = 0) -> None:
        self._digest: Callable[[bytes], Any] = getattr(hashlib, hash)  # a third of the price of hashlib.new
        self._digest_bytes = self._digest(b"").digest_size
        self._coordinate_bytes = coordinate_bytes

    def ask(self, operation: Operation) -> Asked:
        """SIGN_MESSAGE or SIGN_DIGEST."""
        kind, data, context = operation
        if kind is OpKind.SIGN_MESSAGE:
            check_no_context(context)
            return Verb.SIGN, (self._digest(data).digest(),)
        if kind is OpKind.SIGN_DIGEST:
            check_no_context(context)
            if len(data) != self._digest_bytes:
                raise InvalidArgument("DIGEST_LENGTH", f"a digest of this algorithm is {self._digest_bytes} bytes long")
            return Verb.SIGN, (data,)
        raise wrong_purpose()

    def answer(self, operation: Operation, asked: Asked, result: bytes) -> bytes:
        """RSA as it is; ECDSA's r || s as DER."""
        del operation, asked
        size = self._coordinate_bytes
        if not size:
            return result
        if len(result) != 2 * size:
            raise FailedPrecondition("HSM_REFUSED", "the token's signature is not one of this curve")
        return encode_dss_signature(int.from_bytes(result[:size], "big"), int.from_bytes(result[size:], "big"))


class MessageSigner(_Use):
    """Ed25519 and Ed448, which take the message itself."""

    def ask(self, operation: Operation) -> Asked:
        """SIGN_MESSAGE."""
        kind, data, context = operation
        if kind is not OpKind.SIGN_MESSAGE:
            raise wrong_purpose()
        check_no_context(context)
        return Verb.SIGN, (data,)


class Cipher(_Use):
    """AES-GCM: nonce || ciphertext || tag."""

    def ask(self, operation: Operation) -> Asked:
        """ENCRYPT or DECRYPT."""
        kind, data, context = operation
        if kind is OpKind.ENCRYPT:
            return Verb.ENCRYPT, (data, urandom(_NONCE_BYTES), context)
        if kind is OpKind.DECRYPT:
            if len(data) < _SHORTEST:
                raise DecryptionFailed
            return Verb.DECRYPT, (data[_NONCE_BYTES:], data[:_NONCE_BYTES], context)
        raise wrong_purpose()

    def answer(self, operation: Operation, asked: Asked, result: bytes) -> bytes:
        """The nonce goes before what was encrypted."""
        return asked[1][1] + result if operation.kind is OpKind.ENCRYPT else result


class Oaep(_Use):
    """RSA-OAEP; encryption is for the public key, in software."""

    def __init__(self, modulus_bytes: int) -> None:
        self._modulus_bytes = modulus_bytes

    def ask(self, operation: Operation) -> Asked:
        """DECRYPT."""
        kind, data, context = operation
        if kind is not OpKind.DECRYPT:
            raise wrong_purpose()
        check_no_context(context)
        if len(data) != self._modulus_bytes:
            raise DecryptionFailed
        return Verb.DECRYPT, (data, b"", b"")


class KeyWrap(_Use):
    """RFC 5649.  `multiple`: of how many bytes the material must be, for a token that pads otherwise."""

    def __init__(self, multiple: int) -> None:
        self._multiple = multiple

    def ask(self, operation: Operation) -> Asked:
        """WRAP or UNWRAP."""
        kind, data, context = operation
        if kind is OpKind.WRAP:
            check_no_context(context)
            if not data:
                raise InvalidArgument("KEY_MATERIAL_EMPTY", "there is no key material to wrap")
            if len(data) % self._multiple:
                raise InvalidArgument(
                    "KEY_MATERIAL_LENGTH",
                    f"this key's token wraps material whose length is a multiple of {self._multiple} bytes; pad it, or "
                    "use a software key",
                )
            return Verb.WRAP, (data,)
        if kind is OpKind.UNWRAP:
            check_no_context(context)
            if len(data) < 16 or len(data) % 8:
                raise DecryptionFailed
            return Verb.UNWRAP, (data,)
        raise wrong_purpose()


class Mac(_Use):
    """HMAC and CMAC; codes are compared here, whole and in constant time."""

    def ask(self, operation: Operation) -> Asked:
        """MAC or VERIFY_MAC."""
        kind, data, context = operation
        if kind is OpKind.MAC:
            check_no_context(context)
        elif kind is not OpKind.VERIFY_MAC:
            raise wrong_purpose()
        return Verb.SIGN, (data,)

    def answer(self, operation: Operation, asked: Asked, result: bytes) -> bytes:
        """The code, or nothing when it is the one that was given."""
        del asked
        if operation.kind is OpKind.MAC:
            return result
        if not compare_digest(result, operation.context):
            raise InvalidSignature
        return b""


class Agreement(_Use):
    """ECDH; the peer's point is checked here, whatever the token checks."""

    def __init__(self, curve: ec.EllipticCurve) -> None:
        self._curve = curve

    def ask(self, operation: Operation) -> Asked:
        """DERIVE."""
        kind, data, context = operation
        if kind is not OpKind.DERIVE:
            raise wrong_purpose()
        check_no_context(context)
        peer = read_peer(self._curve, data)
        return Verb.DERIVE, (peer.public_bytes(Encoding.X962, PublicFormat.UncompressedPoint),)


USES: Final[dict[str, TokenUse]] = {
    "AES_128_GCM": Cipher(),
    "AES_256_GCM": Cipher(),
    "AES_256_KWP": KeyWrap(1),
    "AES_256_CMAC": Mac(),
    "HMAC_SHA256": Mac(),
    "HMAC_SHA384": Mac(),
    "HMAC_SHA512": Mac(),
    **{
        f"RSA_{padding}_{bits}_SHA{size}": DigestSigner(f"sha{size}")
        for padding in ("PSS", "PKCS1")
        for bits in (2048, 3072, 4096)
        for size in (256, 512)
    },
    **{f"RSA_OAEP_{bits}_SHA256": Oaep(bits // 8) for bits in (2048, 3072, 4096)},
    "RSA_OAEP_4096_SHA512": Oaep(512),
    "EC_P256_SHA256": DigestSigner("sha256", 32),
    "EC_P384_SHA384": DigestSigner("sha384", 48),
    "EC_P521_SHA512": DigestSigner("sha512", 66),
    "EC_SECP256K1_SHA256": DigestSigner("sha256", 32),
    "ECDH_P256": Agreement(ec.SECP256R1()),
    "ECDH_P384": Agreement(ec.SECP384R1()),
    "ED25519": MessageSigner(),
    "ED448": MessageSigner(),
}
"""Every algorithm that PKCS#11 can do."""

PARTIAL_KEY_WRAP: Final = KeyWrap(8)
