"""Message authentication codes: HMAC and AES-CMAC."""

from __future__ import annotations

from hmac import compare_digest
from typing import TYPE_CHECKING, Final

from cryptography.hazmat.primitives.ciphers.algorithms import AES
from cryptography.hazmat.primitives.cmac import CMAC
from cryptography.hazmat.primitives.hashes import SHA256, SHA384, SHA512
from cryptography.hazmat.primitives.hmac import HMAC

from vaultd.backends.base import OpKind
from vaultd.backends.primitives.scheme import check_no_context, wrong_purpose
from vaultd.errors import InvalidSignature

if TYPE_CHECKING:
    from vaultd.backends.base import Operation

_MAC: Final = OpKind.MAC
_VERIFY_MAC: Final = OpKind.VERIFY_MAC


class MacKey:
    """A keyed context of OpenSSL, copied for every message, so that the key schedule is computed once."""

    __slots__ = ("_keyed",)
    inline: bool = True
    in_turns: bool = True

    def __init__(self, keyed: HMAC | CMAC) -> None:
        self._keyed = keyed

    def perform(self, operation: Operation) -> bytes:
        """MAC or VERIFY_MAC.  Only the whole code verifies: one cut short would be that much easier to guess."""
        kind, data, context = operation
        if kind is _MAC:
            check_no_context(context)
            return self._compute_code(data)
        if kind is _VERIFY_MAC:
            # compare_digest takes strings of unequal length to be unequal, and tells only the length by its timing.
            if not compare_digest(self._compute_code(data), context):
                raise InvalidSignature
            return b""
        raise wrong_purpose()

    def _compute_code(self, data: bytes) -> bytes:
        keyed = self._keyed.copy()
        keyed.update(data)
        return keyed.finalize()


def hmac_sha256(key: bytes) -> MacKey:
    """HMAC-SHA-256 (FIPS 198-1)."""
    return MacKey(HMAC(key, SHA256()))


def hmac_sha384(key: bytes) -> MacKey:
    """HMAC-SHA-384."""
    return MacKey(HMAC(key, SHA384()))


def hmac_sha512(key: bytes) -> MacKey:
    """HMAC-SHA-512."""
    return MacKey(HMAC(key, SHA512()))


def aes_cmac(key: bytes) -> MacKey:
    """AES-CMAC (NIST SP 800-38B)."""
    return MacKey(CMAC(AES(key)))
