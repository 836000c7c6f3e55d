"""XAES-256-GCM (https://c2sp.org/XAES-256-GCM): AES-256-GCM with a 24-byte nonce, safe to draw at random for ever.

Every message has an AES-256-GCM key of its own, derived from the first half of its nonce by the counter KDF of NIST
SP 800-108r1 over AES-256-CMAC; the second half is that key's GCM nonce.
"""

from __future__ import annotations

from os import urandom
from typing import TYPE_CHECKING, Final

from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from vaultd.brief_calls import random_nonce

if TYPE_CHECKING:
    from collections.abc import Sequence

KEY_BYTES: Final = 32
NONCE_BYTES: Final = 24
TAG_BYTES: Final = 16

# The KDF's two input blocks without their 12 bytes of nonce: counter (16 bits), label "X", a zero byte.
_BLOCKS: Final = int.from_bytes(b"\x00\x01X\x00" + bytes(12) + b"\x00\x02X\x00" + bytes(12), "big")
# Multiplying a 96-bit number by this puts it at the end of both blocks.
_TWICE: Final = 1 << 128 | 1
_GAP: Final = bytes(4)
"""In front of the nonce in each block."""


def _cmac_subkey(block: bytes) -> int:
    """K1 of NIST SP 800-38B: the encrypted zero block doubled in GF(2^128), with no branch on a bit of the key."""
    value = int.from_bytes(block, "big")
    return (value << 1 & (1 << 128) - 1) ^ 0x87 * (value >> 127)


class XAES256GCM:
    """One XAES-256-GCM key, with everything that depends on the key alone computed once.

    The derivation goes through one kept AES-ECB context: whole blocks in, whole blocks out, in one call that does not
    give up the GIL, and nothing is carried from call to call, so threads cannot mix each other's blocks.
    """

    __slots__ = ("_encrypt_blocks", "_mask")

    def __init__(self, key: bytes) -> None:
        if len(key) != KEY_BYTES:
            raise ValueError("an XAES-256-GCM key has 32 bytes")
        # ECB is the bare block cipher that the KDF is made of; no message is ever encrypted with it.
        encryptor = Cipher(algorithms.AES(key), modes.ECB()).encryptor()  # noqa: S305  # see the line above
        self._encrypt_blocks = encryptor.update
        # M1 xor K1 and M2 xor K1 but for the nonce.
        self._mask = _cmac_subkey(encryptor.update(bytes(16))) * _TWICE ^ _BLOCKS

    def encrypt(self, plaintext: bytes, aad: bytes) -> bytes:
        """Return nonce || ciphertext || tag under a fresh random nonce."""
        nonce = random_nonce(NONCE_BYTES)
        blocks = (int.from_bytes(nonce[:12], "big") * _TWICE ^ self._mask).to_bytes(32, "big")
        return nonce + AESGCM(self._encrypt_blocks(blocks)).encrypt(nonce[12:], plaintext, aad)

    def encrypt_many(self, messages: Sequence[tuple[bytes, bytes]]) -> list[bytes]:
        """Encrypt pairs of plaintext and associated data, each under a fresh random nonce; their keys are derived together.

        Nonces are drawn for these very messages: a machine that is put back from a snapshot in the midst of it encrypts the
        same ones again.
        """
        count = len(messages)
        drawn = urandom(NONCE_BYTES * count)
        nonces = [drawn[at : at + NONCE_BYTES] for at in range(0, len(drawn), NONCE_BYTES)]
        halves = b"".join([_GAP + nonce[:12] + _GAP + nonce[:12] for nonce in nonces])
        mask = int.from_bytes(self._mask.to_bytes(32, "big") * count, "big")
        keys = self._encrypt_blocks((int.from_bytes(halves, "big") ^ mask).to_bytes(32 * count, "big"))
        return [
            nonce + AESGCM(keys[at : at + 32]).encrypt(nonce[12:], plaintext, aad)
            for at, nonce, (plaintext, aad) in zip(range(0, len(keys), 32), nonces, messages, strict=True)
        ]

    def decrypt(self, sealed: bytes, aad: bytes) -> bytes:
        """Open nonce || ciphertext || tag.  Raises cryptography's InvalidTag, or ValueError when it is too short."""
        if len(sealed) < NONCE_BYTES + TAG_BYTES:
            raise ValueError("shorter than a nonce and a tag")
        return self._message_cipher(sealed[:24]).decrypt(sealed[12:24], sealed[24:], aad)

    def _encrypt_with_nonce(self, nonce: bytes, plaintext: bytes, aad: bytes) -> bytes:
        """Return ciphertext || tag under a given nonce.  For test vectors: a nonce used twice betrays the messages."""
        if len(nonce) != NONCE_BYTES:
            raise ValueError("an XAES-256-GCM nonce has 24 bytes")
        return self._message_cipher(nonce).encrypt(nonce[12:], plaintext, aad)

    def _message_cipher(self, nonce: bytes) -> AESGCM:
        blocks = (int.from_bytes(nonce[:12], "big") * _TWICE ^ self._mask).to_bytes(32, "big")
        return AESGCM(self._encrypt_blocks(blocks))
