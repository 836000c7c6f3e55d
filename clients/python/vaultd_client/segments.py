"""Authenticated encryption of streams, in segments, as Tink's AES-GCM-HKDF streaming AEAD lays them out: the construction STREAM of
Hoang, Reyhanitabar, Rogaway and Vizár (Online Authenticated-Encryption and its Nonce-Reuse Misuse-Resistance, CRYPTO 2015).

Every stream has a key of its own, derived from the data key with a random salt, so streams of one data key never share a nonce.
The nonce of a segment is its place and whether it is the last: segments that are changed, moved, left out, repeated or added do
not open, and neither does a stream that ends early.  No byte of a segment is given out before the whole segment is authenticated.

Nothing here reads or writes: bytes go in, bytes come out.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from typing import Any, Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from vaultd_client.errors import DecryptionFailed, Refusal

KEY_BYTES: Final = 32
SALT_BYTES: Final = 32
PREFIX_BYTES: Final = 7
TAG_BYTES: Final = 16
HEADER_BYTES: Final = 1 + SALT_BYTES + PREFIX_BYTES
MAX_SEGMENTS: Final = 1 << 32

DeriveKey = Callable[[bytes, bytes], bytes]
"""Gives the key of a stream for its salt and its associated data: HKDF-SHA256 of the data key (RFC 5869), 32 bytes."""


class StreamTooLong(ValueError):
    """A stream has at most 2^32 segments: 4 PiB with those of 1 MiB."""


def cannot_open() -> DecryptionFailed:
    """The one error of everything that does not open."""
    text = (
        "it does not open: it is damaged or not whole, or the key or the associated data is not what encrypted it; "
        "discard what was read of it"
    )
    return DecryptionFailed(Refusal("INVALID_ARGUMENT", text, "DECRYPTION_FAILED"))


class SegmentCipher:
    """Seals and opens the segments of one stream, by their number."""

    __slots__ = ("_aes", "_prefix", "segment_bytes")

    def __init__(self, key: bytes, prefix: bytes, segment_bytes: int) -> None:
        if segment_bytes <= HEADER_BYTES + TAG_BYTES:
            raise ValueError("a segment has more bytes than header and tag")
        self._aes = AESGCM(key)
        self._prefix = prefix
        self.segment_bytes = segment_bytes

    def sealed_bytes(self, number: int) -> int:
        """How long a full segment is: the first one leaves room for the header."""
        return self.segment_bytes if number else self.segment_bytes - HEADER_BYTES

    def seal(self, number: int, segment: bytes | bytearray | memoryview, *, last: bool) -> bytes:
        """Encrypt one segment.  Raises StreamTooLong."""
        return self._aes.encrypt(self._nonce(number, last), segment, None)

    def open(self, number: int, sealed: bytes | bytearray | memoryview, *, last: bool) -> bytes:
        """Decrypt one segment.  Raises DecryptionFailed."""
        if len(sealed) < TAG_BYTES or number >= MAX_SEGMENTS:
            raise cannot_open()
        try:
            return self._aes.decrypt(self._nonce(number, last), sealed, None)
        except InvalidTag:
            raise cannot_open() from None

    def _nonce(self, number: int, last: bool) -> bytes:
        if number >= MAX_SEGMENTS:
            raise StreamTooLong("the stream has more than 2^32 segments; divide it")
        return self._prefix + number.to_bytes(4, "big") + (b"\x01" if last else b"\x00")


def start_stream(derive: DeriveKey, info: bytes, segment_bytes: int) -> tuple[bytes, SegmentCipher]:
    """A new stream's header, and its cipher."""
    salt, prefix = os.urandom(SALT_BYTES), os.urandom(PREFIX_BYTES)
    return bytes([HEADER_BYTES]) + salt + prefix, SegmentCipher(derive(salt, info), prefix, segment_bytes)


def read_stream(derive: DeriveKey, info: bytes, segment_bytes: int, header: bytes | bytearray) -> SegmentCipher:
    """The cipher of a stream that has this header.  Raises DecryptionFailed."""
    if len(header) != HEADER_BYTES or header[0] != HEADER_BYTES:
        raise cannot_open()
    salt, prefix = bytes(header[1 : 1 + SALT_BYTES]), bytes(header[1 + SALT_BYTES :])
    return SegmentCipher(derive(salt, info), prefix, segment_bytes)


class _Segments:
    """Cuts what comes into full segments.  What would just fill one is held back, since it may be the last."""

    __slots__ = ("_held", "_number", "_size")

    def __init__(self, size: Callable[[int], int]) -> None:
        self._size = size
        self._held: Any = bytearray()  # or a memoryview of a segment that came whole
        self._number = 0

    @property
    def wanted_bytes(self) -> int:
        """How much to read for choice: what comes in segments as they are is not copied."""
        held = len(self._held)
        size = self._size(self._number)
        return size - held if held < size else self._size(self._number + 1)

    def _next(self, view: memoryview) -> tuple[bytearray | memoryview | None, memoryview]:
        """A segment that is full and not the last, if there is one, and what is left of the input."""
        size, held = self._size(self._number), self._held
        if len(held) + len(view) <= size:
            if len(view) == size and isinstance(view.obj, bytes):
                self._held = view  # whole, and nobody changes it
            elif view:
                held += view  # no whole segment, so a bytearray
            return None, view[:0]
        if not held:
            return view[:size], view[size:]
        take = size - len(held)
        if take:
            held += view[:take]
        self._held = bytearray()
        return held, view[take:]


class SegmentSealer(_Segments):
    """Encrypts a stream, whatever the pieces in which it comes."""

    __slots__ = ("_cipher", "_done", "_header")

    def __init__(self, derive: DeriveKey, info: bytes, segment_bytes: int) -> None:
        self._header, self._cipher = start_stream(derive, info, segment_bytes)
        self._done = False
        super().__init__(lambda number: self._cipher.sealed_bytes(number) - TAG_BYTES)

    def update(self, data: bytes | bytearray | memoryview) -> Iterator[bytes]:
        """What can be written so far; read it to its end.  A segment at a time, so that even a large input takes no more memory.

        Who stops before, as when a segment cannot be written, ends the stream: it would open, and not be what was written.
        """
        self._require_open()
        view = memoryview(data).cast("B")
        self._done = True  # unless all of it is taken
        yield from self._take_header()
        while True:
            full, view = self._next(view)
            if full is None:
                self._done = False
                return
            number, self._number = self._number, self._number + 1  # never twice, even if nobody reads on
            yield self._cipher.seal(number, full, last=False)

    def finish(self) -> Iterator[bytes]:
        """The end; read it to its end.  Without it the stream does not open."""
        self._require_open()
        self._done = True
        yield from self._take_header()
        yield self._cipher.seal(self._number, self._held, last=True)

    def _take_header(self) -> Iterator[bytes]:
        header, self._header = self._header, b""
        if header:
            yield header

    def _require_open(self) -> None:
        if self._done:
            raise ValueError("the stream was finished, or not all of it was written; begin another one")


class SegmentOpener(_Segments):
    """Decrypts a stream, whatever the pieces in which it comes.  After an error it gives nothing more."""

    __slots__ = ("_cipher", "_done", "_stream")

    def __init__(self, derive: DeriveKey, info: bytes, segment_bytes: int) -> None:
        self._stream = derive, info, segment_bytes
        self._cipher: SegmentCipher | None = None
        self._done = False
        super().__init__(lambda number: HEADER_BYTES)

    def update(self, data: bytes | bytearray | memoryview) -> Iterator[bytes]:
        """What is authentic so far, a segment at a time; read it to its end.  Raises DecryptionFailed."""
        self._require_open()
        view = memoryview(data).cast("B")
        while True:
            full, view = self._next(view)
            if full is None:
                return
            self._done = True  # unless this opens
            if self._cipher is None:
                self._cipher = read_stream(*self._stream, bytes(full))
                self._size = self._cipher.sealed_bytes
                self._done = False
                continue
            opened = self._cipher.open(self._number, full, last=False)
            self._done = False
            self._number += 1
            yield opened

    def finish(self) -> bytes:
        """The last of it.  Raises DecryptionFailed, also when the stream goes on elsewhere."""
        self._require_open()
        self._done = True
        if self._cipher is None:
            raise cannot_open()
        return self._cipher.open(self._number, self._held, last=True)

    def _require_open(self) -> None:
        if self._done:
            raise cannot_open()
