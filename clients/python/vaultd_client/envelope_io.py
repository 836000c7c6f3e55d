"""Encrypted streams as files: one to write plaintext to, one to read it from in order, and one to read it from anywhere."""

from __future__ import annotations

import errno
import io
import os
from typing import TYPE_CHECKING

from vaultd_client.envelope_format import FIXED_BYTES, HeaderReader
from vaultd_client.segments import HEADER_BYTES, TAG_BYTES, cannot_open

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any, BinaryIO

    from vaultd_client.envelope_format import EnvelopeHeader
    from vaultd_client.segments import SegmentCipher, SegmentOpener, SegmentSealer


def write_all(sink: BinaryIO, data: bytes) -> None:
    """Write to a file that may take less than it is given.  Raises BlockingIOError when it takes nothing now."""
    view = memoryview(data)
    while view:
        taken = sink.write(view)
        if taken is None:
            raise BlockingIOError(
                errno.EAGAIN, "write to a file that blocks: this one took nothing", len(data) - len(view)
            )
        view = view[taken:]


def read_exactly(source: BinaryIO, size: int) -> bytes:
    """Read so many bytes.  Raises DecryptionFailed when there are fewer."""
    found = bytearray()
    while len(found) < size:
        piece = source.read(size - len(found))
        if not piece:
            raise cannot_open()
        found += piece
    return bytes(found)


def read_header(source: BinaryIO) -> EnvelopeHeader:
    """Read our header and nothing after it.  Raises DecryptionFailed."""
    reader = HeaderReader()
    begin = read_exactly(source, FIXED_BYTES)
    found = reader.feed(begin)
    if found is None:
        found = reader.feed(read_exactly(source, int.from_bytes(begin[5:], "big")))
    if found is None:
        raise cannot_open()
    return found[0]


class EnvelopeWriter(io.RawIOBase):
    """Takes plaintext and writes a stream to `sink`, which it does not close.

    `close` completes the stream.  `abort` does not, and neither does leaving `with` by an exception, nor being forgotten: what was
    written does not open.  After a write that failed nothing completes it.

    It needs no io.BufferedWriter or io.TextIOWrapper around it: those call `close` also when their own `with` is left by an
    exception, and when they are forgotten.
    """

    def __init__(self, sink: BinaryIO, before: bytes, sealer: SegmentSealer) -> None:
        self._sink = sink
        self._sealer = sealer
        self._failed = False
        write_all(sink, before)

    def writable(self) -> bool:
        """It is."""
        return True

    def write(self, data: Any, /) -> int:
        """Take all of it.  Raises ValueError after `close`, OSError after a write that failed, and what the sink raises."""
        if self.closed:
            raise ValueError("the stream is complete")
        view = memoryview(data)
        self._require_whole()
        self._failed = True  # unless all of it is written
        for sealed in self._sealer.update(view):
            write_all(self._sink, sealed)
        self._failed = False
        return view.nbytes

    def close(self) -> None:
        """Write the last segment.  Raises OSError after a write that failed, and what the sink raises: then it does not open."""
        if not self.closed:
            try:
                self._require_whole()
                for sealed in self._sealer.finish():
                    write_all(self._sink, sealed)
            finally:
                super().close()

    def _require_whole(self) -> None:
        if self._failed:
            raise OSError("the stream is not complete, since a write failed; begin another one")

    def abort(self) -> None:
        """End without the last segment."""
        super().close()

    def __exit__(self, kind: Any, *error: Any) -> None:
        if kind is None:
            self.close()
        else:
            self.abort()

    def __del__(self) -> None:
        self.abort()  # not `close`, as for other files: whoever lost sight of it has not said that it is complete


class EnvelopeReader(io.RawIOBase):
    """Reads the plaintext of a stream from `source`, which it does not close, in order.

    Every byte that it gives is authentic.  Only when it ends without an error was that all.
    """

    def __init__(self, source: BinaryIO, open_stream: Callable[[EnvelopeHeader], SegmentOpener]) -> None:
        self._source = source
        self._opener = open_stream(read_header(source))
        self._ready: list[bytes] = []
        self._at = 0
        self._ended = False

    def readable(self) -> bool:
        """It is."""
        return True

    def readinto(self, buffer: Any, /) -> int:
        """Read some.  Raises DecryptionFailed."""
        if self.closed:
            raise ValueError("the file is closed")
        view = memoryview(buffer).cast("B")
        while not self._ready:
            if self._ended:
                return 0
            self._fill()
        first = self._ready[0]
        piece = memoryview(first)[self._at : self._at + len(view)]
        view[: len(piece)] = piece
        self._at += len(piece)
        if self._at == len(first):
            self._ready.pop(0)
            self._at = 0
        return len(piece)

    def _fill(self) -> None:
        piece = self._source.read(self._opener.wanted_bytes)
        if piece:
            self._ready += self._opener.update(piece)
            return
        last = self._opener.finish()
        self._ended = True  # not before: whoever reads on after an error gets it again, and no end
        if last:
            self._ready.append(last)


class EnvelopeFile(io.RawIOBase):
    """The plaintext of a stream in a seekable `source`, which it does not close: reads decrypt the segments that they touch.

    Every byte that it gives is authentic, and so is its length.
    """

    def __init__(self, source: BinaryIO, cipher: SegmentCipher, start: int) -> None:
        self._source = source
        self._cipher = cipher
        self._start = start
        self._position = 0
        self._body_bytes = source.seek(0, os.SEEK_END) - start
        segment_bytes = cipher.segment_bytes
        self._last = max(0, -(-self._body_bytes // segment_bytes) - 1)
        self._size = self._body_bytes - HEADER_BYTES - TAG_BYTES * (self._last + 1)
        self._loaded = -1
        self._segment = b""
        self._load(self._last)  # what was cut off, or put behind the end, is found now

    def readable(self) -> bool:
        """It is."""
        return True

    def seekable(self) -> bool:
        """It is."""
        return True

    def tell(self) -> int:
        """Where the next read begins."""
        return self._position

    def seek(self, offset: int, whence: int = os.SEEK_SET, /) -> int:
        """Read elsewhere next."""
        base = {os.SEEK_SET: 0, os.SEEK_CUR: self._position, os.SEEK_END: self._size}[whence]
        if base + offset < 0:
            raise ValueError("before the beginning")
        self._position = base + offset
        return self._position

    def readinto(self, buffer: Any, /) -> int:
        """Read some.  Raises DecryptionFailed."""
        if self.closed:
            raise ValueError("the file is closed")
        view = memoryview(buffer).cast("B")
        if self._position >= self._size:
            return 0
        # With the header, the first segment has as many bytes as the others.
        number, offset = divmod(self._position + HEADER_BYTES, self._cipher.segment_bytes - TAG_BYTES)
        self._load(number)
        piece = memoryview(self._segment)[offset - (0 if number else HEADER_BYTES) :][: len(view)]
        view[: len(piece)] = piece
        self._position += len(piece)
        return len(piece)

    def _load(self, number: int) -> None:
        if number == self._loaded:
            return
        begin = number * self._cipher.segment_bytes + (0 if number else HEADER_BYTES)
        end = min((number + 1) * self._cipher.segment_bytes, self._body_bytes)
        self._source.seek(self._start + begin)
        sealed = read_exactly(self._source, max(0, end - begin))
        self._segment = self._cipher.open(number, sealed, last=number == self._last)
        self._loaded = number
