"""The bytes of envelope encryption (docs/envelope.md): our header, which carries the wrapped data key, and then a stream."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from vaultd_client.segments import cannot_open

MAGIC: Final = b"VDE1"
FIXED_BYTES: Final = 7
MAX_WRAPPED_BYTES: Final = 1_024
SEGMENT_EXPONENT: Final = 20
"""Segments of 1 MiB, as in Tink's AES256_GCM_HKDF_1MB."""
EXPONENTS: Final = range(12, 25)
DATA_KEY_CONTEXT: Final = b"vaultd envelope v1"
"""Associated data of wrapped data keys: a data key that was made for something else does not open here."""


@dataclass(frozen=True, slots=True)
class EnvelopeHeader:
    """What stands in front of a stream."""

    wrapped: bytes
    segment_exponent: int = SEGMENT_EXPONENT

    @property
    def segment_bytes(self) -> int:
        """Length of a full segment."""
        return 1 << self.segment_exponent

    def encode(self) -> bytes:
        """Its bytes."""
        length = len(self.wrapped).to_bytes(2, "big")
        return MAGIC + bytes([self.segment_exponent]) + length + self.wrapped

    def info(self, associated_data: bytes) -> bytes:
        """The associated data of the stream: it binds this header and what the caller gave."""
        return self.encode() + associated_data


class HeaderReader:
    """Reads a header from what comes, in whatever pieces."""

    __slots__ = ("_held",)

    def __init__(self) -> None:
        self._held = bytearray()

    def feed(self, data: bytes | bytearray | memoryview) -> tuple[EnvelopeHeader, bytes] | None:
        """The header and what came after it; None while it is not whole.  Raises DecryptionFailed."""
        self._held += data
        held = self._held
        if len(held) < FIXED_BYTES:
            return None
        length = int.from_bytes(held[5:FIXED_BYTES], "big")
        if held[:4] != MAGIC or held[4] not in EXPONENTS or not 1 <= length <= MAX_WRAPPED_BYTES:
            raise cannot_open()
        end = FIXED_BYTES + length
        if len(held) < end:
            return None
        return EnvelopeHeader(bytes(held[FIXED_BYTES:end]), held[4]), bytes(held[end:])
