"""Key wrapping: AES key wrap with padding (RFC 5649, NIST SP 800-38F KWP)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from cryptography.hazmat.primitives.keywrap import (
    InvalidUnwrap,
    aes_key_unwrap_with_padding,
    aes_key_wrap_with_padding,
)

from vaultd.backends.base import OpKind
from vaultd.backends.primitives.scheme import check_no_context, wrong_purpose
from vaultd.errors import DecryptionFailed, InvalidArgument
from vaultd.secret import Secret

if TYPE_CHECKING:
    from vaultd.backends.base import Operation

_WRAP: Final = OpKind.WRAP
_UNWRAP: Final = OpKind.UNWRAP


class PaddedKeyWrap:
    """A key-encryption key.  `cryptography` has no keyed object for KWP, so the bytes stay with us, in a Secret."""

    __slots__ = ("_key",)
    inline: bool = True
    in_turns: bool = True

    def __init__(self, key: bytes) -> None:
        self._key = Secret(key)

    def perform(self, operation: Operation) -> bytes:
        """WRAP or UNWRAP."""
        kind, data, context = operation
        if kind is _WRAP:
            check_no_context(context)
            if not data:
                raise InvalidArgument("KEY_MATERIAL_EMPTY", "there is no key material to wrap")
            return aes_key_wrap_with_padding(self._key.expose("KWP takes the key with every call"), data)
        if kind is _UNWRAP:
            check_no_context(context)
            try:
                return aes_key_unwrap_with_padding(self._key.expose("KWP takes the key with every call"), data)
            except InvalidUnwrap:
                raise DecryptionFailed from None
        raise wrong_purpose()
