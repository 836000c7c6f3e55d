"""How a payload is laid out before it is sealed for the store, and how it is sealed for a caller (docs/formats.md)."""

from __future__ import annotations

from typing import Final

from vaultd.errors import DataLoss

MAX_PAYLOAD_BYTES: Final = 64 * 1024
LEAST_PADDED_BYTES: Final = 64
X25519_BYTES: Final = 32
DELIVERY_LABEL: Final = b"vaultd secret delivery v1"
_MARK: Final = b"\x80"
_SPKI_X25519: Final = bytes.fromhex("302a300506032b656e032100")
"""SubjectPublicKeyInfo of RFC 8410 up to the 32 bytes of the key."""


def padded_length(length: int) -> int:
    """The length that a payload is padded to, at most an eighth more than it needs.

    The store reuses the place of what was destroyed only for as many bytes, so there are few sizes; and the file says less
    about how long a secret is.
    """
    need = max(length + 1, LEAST_PADDED_BYTES)
    step = max(LEAST_PADDED_BYTES, 1 << ((need - 1).bit_length() - 4))
    return -(-need // step) * step


def pad_payload(payload: bytes) -> bytes:
    """The payload, 0x80, and zeros (ISO/IEC 7816-4)."""
    return (payload + _MARK).ljust(padded_length(len(payload)), b"\0")


def unpad_payload(padded: bytes) -> bytes:
    """What `pad_payload` took; raises DataLoss for anything else."""
    end = padded.rfind(_MARK)
    if end < 0:
        raise DataLoss("ROW_TAMPERED", "a stored payload is not in the form that this server writes; it was not used")
    return padded[:end]


def delivery_info(asked: str, version: str, context: bytes) -> bytes:
    """HPKE's `info` of a sealed payload: a label, the name that was asked for, the version that it meant, and the context.

    Each has its length before it, four bytes, big-endian.  So what was sealed for one name, version or context does not open as
    the answer to another question.
    """
    parts = (DELIVERY_LABEL, asked.encode("ascii"), version.encode("ascii"), context)
    return b"".join(len(part).to_bytes(4, "big") + part for part in parts)


def recipient_key(public_key: bytes) -> bytes:
    """A raw X25519 public key as SubjectPublicKeyInfo, which the backend reads."""
    return _SPKI_X25519 + public_key
