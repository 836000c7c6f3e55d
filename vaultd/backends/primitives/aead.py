"""Authenticated encryption: AES-GCM, AES-GCM-SIV, ChaCha20-Poly1305, XAES-256-GCM and AES-SIV.

These are the hottest lines of the vault.  Each class loads its OpenSSL objects once, and `perform` compares constants
and calls; handles are used on the event loop.
"""

from __future__ import annotations

from os import urandom
from typing import TYPE_CHECKING, Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM, AESGCMSIV, AESSIV, ChaCha20Poly1305

from vaultd.backends.base import OpKind
from vaultd.backends.primitives.scheme import wrong_purpose
from vaultd.backends.xaes import XAES256GCM
from vaultd.brief_calls import random_nonce
from vaultd.errors import DecryptionFailed

if TYPE_CHECKING:
    from collections.abc import Sequence

    from vaultd.backends.base import Operation

# An enum's member looked up on its class costs as much as a tenth of an encryption.
_ENCRYPT: Final = OpKind.ENCRYPT
_DECRYPT: Final = OpKind.DECRYPT

_NONCE_BYTES: Final = 12
_SHORTEST: Final = _NONCE_BYTES + 16


class NonceCipher:
    """A cipher with a random 12-byte nonce: nonce || ciphertext || tag."""

    __slots__ = ("_decrypt", "_encrypt")
    inline: bool = True
    in_turns: bool = True

    def __init__(self, cipher: AESGCM | AESGCMSIV | ChaCha20Poly1305) -> None:
        self._encrypt = cipher.encrypt
        self._decrypt = cipher.decrypt

    def perform(self, operation: Operation) -> bytes:
        """ENCRYPT or DECRYPT."""
        kind, data, context = operation
        if kind is _ENCRYPT:
            # Drawn for this message and never kept: a machine that is cloned or put back from a snapshot would use what
            # waits in memory twice.
            nonce = random_nonce(_NONCE_BYTES)
            return nonce + self._encrypt(nonce, data, context)
        if kind is _DECRYPT:
            if len(data) < _SHORTEST:
                raise DecryptionFailed
            try:
                return self._decrypt(data[:12], data[12:], context)
            except InvalidTag:
                raise DecryptionFailed from None
        raise wrong_purpose()

    def encrypt_many(self, messages: Sequence[tuple[bytes, bytes]]) -> list[bytes]:
        """ENCRYPT for each.  Nonces are drawn together, for these very messages: a machine that is put back from a snapshot in
        the midst of it encrypts the same ones again.
        """
        encrypt, drawn = self._encrypt, urandom(_NONCE_BYTES * len(messages))
        nonces = [drawn[at : at + _NONCE_BYTES] for at in range(0, len(drawn), _NONCE_BYTES)]
        return [nonce + encrypt(nonce, data, context) for nonce, (data, context) in zip(nonces, messages, strict=True)]


class ExtendedNonceCipher:
    """XAES-256-GCM: a random 24-byte nonce || ciphertext || tag."""

    __slots__ = ("_decrypt", "_encrypt", "encrypt_many")
    inline: bool = True
    in_turns: bool = True

    def __init__(self, key: bytes) -> None:
        cipher = XAES256GCM(key)
        self.encrypt_many = cipher.encrypt_many
        self._encrypt = cipher.encrypt
        self._decrypt = cipher.decrypt

    def perform(self, operation: Operation) -> bytes:
        """ENCRYPT or DECRYPT."""
        kind, data, context = operation
        if kind is _ENCRYPT:
            return self._encrypt(data, context)
        if kind is _DECRYPT:
            try:
                return self._decrypt(data, context)
            except (InvalidTag, ValueError):
                raise DecryptionFailed from None
        raise wrong_purpose()


class DeterministicCipher:
    """AES-SIV (RFC 5297): the synthetic IV || ciphertext.

    The context is always the one component of associated data, also when it is empty: in RFC 5297 an empty component
    and none at all give different ciphertexts.
    """

    __slots__ = ("_decrypt", "_encrypt")
    inline: bool = True
    in_turns: bool = True

    def __init__(self, key: bytes) -> None:
        cipher = AESSIV(key)
        self._encrypt = cipher.encrypt
        self._decrypt = cipher.decrypt

    def perform(self, operation: Operation) -> bytes:
        """ENCRYPT or DECRYPT."""
        kind, data, context = operation
        if kind is _ENCRYPT:
            return self._encrypt(data, [context])
        if kind is _DECRYPT:
            try:
                return self._decrypt(data, [context])
            except InvalidTag:
                raise DecryptionFailed from None
        raise wrong_purpose()


def aes_gcm(key: bytes) -> NonceCipher:
    """AES-GCM with a 96-bit nonce (NIST SP 800-38D)."""
    return NonceCipher(AESGCM(key))


def aes_gcm_siv(key: bytes) -> NonceCipher:
    """AES-GCM-SIV (RFC 8452)."""
    return NonceCipher(AESGCMSIV(key))


def chacha20_poly1305(key: bytes) -> NonceCipher:
    """ChaCha20-Poly1305 (RFC 8439)."""
    return NonceCipher(ChaCha20Poly1305(key))
