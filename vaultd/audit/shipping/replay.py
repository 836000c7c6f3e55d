"""Sends a range of the log to a sink once more, beside a server that runs or without one.

Reads segments and touches neither the log nor the sink's cursor.  What the sink has already, it gets again: records are told
apart by chain and sequence.
"""

from __future__ import annotations

import asyncio
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final

import orjson

from vaultd.audit.reader import AuditReader, RecordsMissing, oldest_sequence, sequence_at, time_of
from vaultd.audit.shipping.base import MAX_BATCH_BYTES, MAX_BATCH_RECORDS, DeliveryFailed, Record
from vaultd.errors import FailedPrecondition, InvalidArgument, Unavailable

if TYPE_CHECKING:
    from pathlib import Path

    from vaultd.audit.shipping.base import Sink

ATTEMPTS: Final = 5
RETRY_S: Final = 0.5


@dataclass(frozen=True, slots=True)
class Point:
    """A place in the log: the number of a record, or a time."""

    sequence: int | None = None
    time_us: int | None = None

    @staticmethod
    def parse(text: str) -> Point:
        """A number, or an RFC 3339 time with its offset.  Raises InvalidArgument AUDIT_POINT_MALFORMED."""
        if text.isascii() and text.isdecimal() and int(text):
            return Point(sequence=int(text))
        try:
            moment = datetime.fromisoformat(text)
        except ValueError:
            moment = None
        if moment is None or moment.tzinfo is None:
            raise InvalidArgument(
                "AUDIT_POINT_MALFORMED", "say a record's number, or a time such as 2026-11-26T03:00:00Z"
            )
        since = moment.astimezone(UTC) - datetime(1970, 1, 1, tzinfo=UTC)
        return Point(time_us=(since.days * 86_400 + since.seconds) * 1_000_000 + since.microseconds)

    def is_after(self, record: Record) -> bool:
        """Whether the point comes after a record; a record at the point itself is not before it."""
        if self.sequence is not None:
            return record.sequence < self.sequence
        return time_of(record.line) < (self.time_us or 0)


@dataclass(slots=True)
class Replayed:
    """What a replay has done so far."""

    records: int = 0
    first: int = 0
    last: int = 0
    rejected: int = 0
    missing: int = 0


async def replay(
    sink: Sink, directory: Path, begin: Point, end: Point | None, *, timeout_s: float, retry_s: float = RETRY_S
) -> Replayed:
    """Deliver every record from `begin` up to and including `end`, in order.

    A time as the end includes what was written in that very microsecond.  Raises FailedPrecondition AUDIT_RANGE_EMPTY, or
    Unavailable AUDIT_SINK_UNAVAILABLE, whose text says from where to go on.
    """
    done = Replayed()
    with closing(_Range(directory, begin, end)) as source:
        while records := await asyncio.to_thread(source.read):
            done.rejected += await _deliver(sink, records, timeout_s, retry_s)
            done.first = done.first or records[0].sequence
            done.last = records[-1].sequence
            done.records += len(records)
    done.missing = source.missing
    if not done.records:
        raise FailedPrecondition("AUDIT_RANGE_EMPTY", "the audit directory has no record in this range")
    return done


async def _deliver(sink: Sink, records: list[Record], timeout_s: float, retry_s: float) -> int:
    for attempt in range(1, ATTEMPTS + 1):
        try:
            batch = await asyncio.to_thread(sink.encode, records)
            async with asyncio.timeout(timeout_s):
                return await sink.deliver(batch)
        except TimeoutError:
            why = f"no acknowledgement within {timeout_s:g} s"
        except DeliveryFailed as failure:
            why = failure.text
        if attempt < ATTEMPTS:
            await asyncio.sleep(retry_s * attempt)
    raise Unavailable(
        "AUDIT_SINK_UNAVAILABLE", f"{why}; mend it, and go on with --from {records[0].sequence}", retry_after_s=1
    )


class _Range:
    """Reads the records between two points.  Blocks."""

    def __init__(self, directory: Path, begin: Point, end: Point | None) -> None:
        self._directory = directory
        self._begin = begin
        self._end = end
        self._reader: AuditReader | None = None
        self._over = False
        self.missing = 0

    def read(self) -> list[Record]:
        """The next records, at least one unless the range is over."""
        if self._reader is None:
            self._reader = AuditReader(self._directory, self._before_first())
        records: list[Record] = []
        size = 0
        while not self._over and len(records) < MAX_BATCH_RECORDS and size < MAX_BATCH_BYTES:
            try:
                found = self._reader.read(MAX_BATCH_RECORDS - len(records))
            except RecordsMissing as gap:
                self.missing += gap.next_sequence - gap.first_missing
                continue
            if not found:
                self._over = True
            for one in found:
                record = Record(one.sequence, one.line, orjson.loads(one.line))
                if self._begin.is_after(record):
                    continue
                if self._end is not None and self._is_over(record):
                    self._over = self._end.sequence is not None  # clocks jump: a later record may be in time again
                    continue
                records.append(record)
                size += len(one.line)
        return records

    def close(self) -> None:
        """Give the segment free."""
        if self._reader is not None:
            self._reader.close()

    def _before_first(self) -> int:
        if self._begin.sequence is not None:
            first = max(self._begin.sequence, oldest_sequence(self._directory))
        else:
            first = sequence_at(self._directory, self._begin.time_us or 0)
        return max(0, first - 1)

    def _is_over(self, record: Record) -> bool:
        end = self._end
        assert end is not None  # noqa: S101  # asked only with an end
        if end.sequence is not None:
            return record.sequence > end.sequence
        return time_of(record.line) > (end.time_us or 0)
