"""Reads the records of an audit directory in order, also while they are written.

    reader = AuditReader(directory, after=1234)
    records = reader.read(limit=1000)     # [] : nothing more for now; ask again

What a shipper keeps as its cursor is the chain's identity (`segments.read_chain_id`) and the sequence of the last record
that it delivered.  All functions block, and raise OSError when the directory is out of reach.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, BinaryIO, NamedTuple

import orjson

from vaultd.audit import segments

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

READ_LIMIT = 1_000
READ_BYTES = 1024 * 1024


class AuditRecord(NamedTuple):
    """One record as it is in the log."""

    sequence: int
    line: bytes
    """Without its newline."""
    segment: str
    """Name of the segment, without `.gz`."""
    number: int
    """Of the line in its segment, from 1."""


class RecordsMissing(Exception):
    """Records that were asked for are not in the directory: pruned, lost or taken away.

    The reader goes on with `next_sequence` when it is asked again.
    """

    def __init__(self, first_missing: int, next_sequence: int) -> None:
        super().__init__(f"records {first_missing} to {next_sequence - 1} are not in the audit directory")
        self.first_missing = first_missing
        self.next_sequence = next_sequence


class AuditReader:
    """Gives each record once, in order, over closed, compressed and open segments.  Not thread-safe; one thread at a time.

    Lines behind the last record of a segment that was abandoned are not records and are passed over.  Nothing is verified:
    that is for `vaultd.audit.verify`.
    """

    def __init__(self, directory: Path, after: int = 0, *, newest: Callable[[], int] | None = None) -> None:
        """Begin behind the record with the number `after`.

        newest: says the number of the newest record that was written, where the writer can be asked.  What somebody else
        appends to the open segment is then not taken for a record.
        """
        self._directory = directory
        self._newest = newest
        self._last = after
        self._file: BinaryIO | None = None
        self._segment_number = 0
        self._segment = ""
        self._line_number = 0
        self._offset = 0
        self._end: int | None = None
        """The first sequence of the next segment, once there is one: lines from it on do not count here."""

    @property
    def last(self) -> int:
        """The number of the last record that was given, or `after`."""
        return self._last

    def close(self) -> None:
        """Give the segment free.  The next read opens it again."""
        if self._file is not None:
            self._file.close()
            self._file = None

    def read(self, limit: int = READ_LIMIT, max_bytes: int = READ_BYTES) -> list[AuditRecord]:
        """The next records, at most `limit`, and none more once they have `max_bytes`; none when there are no more for now.

        Raises RecordsMissing.
        """
        records: list[AuditRecord] = []
        size = 0
        newest = self._newest() if self._newest is not None else None
        if self._file is not None and self._end is None:
            self._end = self._following()  # after `newest`: a record that it knows of is here or in what follows
        while len(records) < limit and size < max_bytes and (newest is None or self._last < newest):
            record = self._next()
            if record is None:
                break
            if record.sequence != self._last + 1:
                if records:
                    self._unread(record)
                    break
                first_missing, self._last = self._last + 1, record.sequence - 1
                self._unread(record)
                raise RecordsMissing(first_missing, record.sequence)
            if newest is not None and record.sequence > newest:
                self._unread(record)
                break
            self._last = record.sequence
            records.append(record)
            size += len(record.line)
        return records

    def _unread(self, record: AuditRecord) -> None:
        assert self._file is not None  # noqa: S101  # the record was just read from it
        self._offset -= len(record.line) + 1
        self._line_number -= 1
        self._file.seek(self._offset)

    def _next(self) -> AuditRecord | None:
        """The next line with a number beyond the last; None at the end for now."""
        if self._file is None and not self._open_at(self._last + 1):
            return None
        while True:
            record = self._next_here()
            if record is not None:
                return record
            if self._end is None:
                # Looked for before the last read of this segment, so that nothing written in between is passed over.
                self._end = self._following()
                if self._end is None:
                    return None
            elif not self._advance():
                return None

    def _next_here(self) -> AuditRecord | None:
        file = self._file
        assert file is not None  # noqa: S101  # opened above
        while line := file.readline():
            if not line.endswith(b"\n"):
                file.seek(self._offset)  # being written, or cut off by a crash
                return None
            self._offset += len(line)
            self._line_number += 1
            sequence = segments.sequence_of(line)
            if sequence > self._last and (self._end is None or sequence < self._end):
                return AuditRecord(sequence, line[:-1], self._segment, self._line_number)
        return None

    def _following(self) -> int | None:
        """The first sequence in the segments after this one, or None while they hold none."""
        for number, path in segments.list_segments(self._directory):
            if number > self._segment_number and (first := first_sequence(path)):
                return first
        return None

    def _advance(self) -> bool:
        for number, path in segments.list_segments(self._directory):
            if number > self._segment_number and first_sequence(path):
                self._open(number, path)
                return True
        return False

    def _open_at(self, sequence: int) -> bool:
        """Open the segment that holds a sequence, or the oldest one; False when there is no record."""
        found = _segment_of(segments.list_segments(self._directory), sequence)
        if found is None:
            return False
        self._open(*found)
        return True

    def _open(self, number: int, path: Path) -> None:
        self.close()
        self._file = segments.open_segment(path)
        self._segment_number, self._segment = number, segments.plain_name(path)
        self._line_number = self._offset = 0
        self._end = self._following()


def first_sequence(path: Path) -> int:
    """The number of a segment's first record; 0 when it has none yet, or was compressed or removed meanwhile."""
    try:
        with segments.open_segment(path) as file:
            line = file.readline()
    except FileNotFoundError:
        return 0
    return segments.sequence_of(line) if line.endswith(b"\n") else 0


def oldest_sequence(directory: Path) -> int:
    """The number of the oldest record in the directory; 0 when it has none."""
    return next((first for _, path in segments.list_segments(directory) if (first := first_sequence(path))), 0)


def sequence_at(directory: Path, time_us: int) -> int:
    """The number of the first record in a segment that begins at or before a time, so that none after it is missed.

    0 when there is no record.  Clocks jump: what is read from there on is still to be compared with the time.
    """
    chosen = 0
    for _, path in reversed(segments.list_segments(directory)):
        try:
            with segments.open_segment(path) as file:
                line = file.readline()
        except FileNotFoundError:
            continue
        if line.endswith(b"\n") and (sequence := segments.sequence_of(line)):
            chosen = sequence
            if time_of(line) <= time_us:
                break
    return chosen


def time_of(line: bytes) -> int:
    """When a record was written, in microseconds since the Unix epoch; 0 when it does not say."""
    try:
        text = orjson.loads(line)["time"]
        moment = datetime.fromisoformat(text)
    except (ValueError, TypeError, KeyError):
        return 0
    since = moment.astimezone(UTC) - datetime(1970, 1, 1, tzinfo=UTC)
    return (since.days * 86_400 + since.seconds) * 1_000_000 + since.microseconds


def _segment_of(listed: list[tuple[int, Path]], sequence: int) -> tuple[int, Path] | None:
    """The newest segment that begins at or before a sequence; else the oldest that has a record."""
    low, high = 0, len(listed)
    found: tuple[int, Path] | None = None
    while low < high:
        middle = at = (low + high) // 2
        while at < high and not (first := first_sequence(listed[at][1])):
            at += 1  # a segment without a record says nothing
        if at == high:
            high = middle
        elif first <= sequence:
            found, low = listed[at], at + 1
        else:
            high = middle
    if found is not None:
        return found
    return next((one for one in listed if first_sequence(one[1])), None)
