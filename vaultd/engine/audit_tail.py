"""Follows an audit log of this node from a record or a time on, as it is written: that of this process, or one beside it."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import orjson

from vaultd.audit.reader import AuditReader, RecordsMissing, sequence_at, time_of
from vaultd.audit.segments import last_sequence
from vaultd.audit.ties import chain_beside
from vaultd.engine.audit_proofs import not_found
from vaultd.errors import OutOfRange, Unavailable

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from vaultd.audit.log import AuditLog
    from vaultd.audit.reader import AuditRecord

POLL_S: Final = 0.05
"""How often the number of the newest record is looked at: an attribute of an object in memory."""
BESIDE_POLL_S: Final = 0.2
"""How often the files of another process's log are looked at."""
READ_RECORDS: Final = 500
"""A read ends after `READ_BYTES` as well, so that what it finds fits into a message."""


@dataclass(frozen=True, slots=True)
class RecordFilter:
    """Which records are wanted; what is empty wants all."""

    events: frozenset[str] = frozenset()
    methods: frozenset[str] = frozenset()
    principals: frozenset[str] = frozenset()
    codes: frozenset[str] = frozenset()
    resource: str = ""

    def wants(self, line: bytes) -> bool:
        """Whether a record matches."""
        if self == _EVERYTHING:
            return True
        record = orjson.loads(line)
        wanted = (
            (self.events, "event"),
            (self.methods, "method"),
            (self.principals, "principal"),
            (self.codes, "code"),
        )
        if any(values and record.get(field) not in values for values, field in wanted):
            return False
        return not self.resource or self.resource == "/" or any(map(self._covers, _names_in(record)))

    def _covers(self, name: str) -> bool:
        return name == self.resource or name.startswith(f"{self.resource}/")


_EVERYTHING: Final = RecordFilter()


def _names_in(record: dict[str, Any]) -> list[str]:
    """Every resource that a record names: in its fields, and in the counts of a batch."""
    names: list[str] = []
    for value in record.values():
        if isinstance(value, str):
            names.append(value)
        elif isinstance(value, dict | list):
            names += [name for name in value if isinstance(name, str)]
    return names


class AuditTail:
    """Many may follow one log; each reads the segments by itself, off the event loop."""

    def __init__(self, log: AuditLog) -> None:
        self._log = log

    async def follow(
        self,
        wanted: RecordFilter,
        *,
        after: int | None,
        start_us: int | None,
        to_end: bool,
        heartbeat_s: float,
        chain_id: bytes = b"",
    ) -> AsyncGenerator[tuple[list[AuditRecord], int], None]:
        """Give matching records, and up to which record everything was looked at; first an empty delivery, and one when it is
        silent for `heartbeat_s`.

        after: begin behind this record.  start_us: begin with the first record at or after this time.  Neither: from now on.
        to_end: stop with the newest record of now.  chain_id: the chain of another process beside this one's.  Raises OutOfRange,
        reason AUDIT_PRUNED, for records that are gone, and NotFound for a chain that is not here.
        """
        log = self._log
        directory, end, newest = log.directory, log.sequence, self._newest
        own = not chain_id or chain_id == log.chain_id
        if not own:
            beside = await asyncio.to_thread(chain_beside, log.directory, chain_id)
            if beside is None:
                raise not_found()
            directory, end = beside, await asyncio.to_thread(last_sequence, beside)
        if start_us is not None:
            after = max(0, await asyncio.to_thread(sequence_at, directory, start_us) - 1)
        begin = end if after is None else after
        reading = _Reading(AuditReader(directory, begin, newest=newest if own else None), wanted, start_us)
        loop = asyncio.get_running_loop()
        told_s = loop.time()
        yield [], begin
        try:
            while not (to_end and reading.last >= end):
                before = reading.last
                found = await reading.more()
                if found or loop.time() - told_s >= heartbeat_s:
                    yield found, reading.last
                    told_s = loop.time()
                if reading.last == before and own:
                    await self._more(before, told_s + heartbeat_s)
                elif reading.last == before:
                    await asyncio.sleep(BESIDE_POLL_S)
        finally:
            reading.close()

    def _newest(self) -> int:
        return self._log.sequence

    async def _more(self, last: int, until_s: float) -> None:
        """Wait for a record after the last, or for the time of a heartbeat."""
        loop = asyncio.get_running_loop()
        await asyncio.sleep(POLL_S)  # also where there is one that cannot be read yet: its segment is being put back
        while self._log.sequence <= last and loop.time() < until_s:  # noqa: ASYNC110  # the path of a call signals nobody
            await asyncio.sleep(POLL_S)


class _Reading:
    """A reader that is used on threads, by a task that may be cancelled while one of them reads."""

    def __init__(self, reader: AuditReader, wanted: RecordFilter, start_us: int | None) -> None:
        self._reader = reader
        self._wanted = wanted
        self._start_us = start_us
        self._read: asyncio.Future[list[AuditRecord]] | None = None

    @property
    def last(self) -> int:
        """The number of the last record that was read."""
        return self._reader.last

    async def more(self) -> list[AuditRecord]:
        """What is wanted of the next records; raises OutOfRange and Unavailable."""
        self._read = asyncio.get_running_loop().run_in_executor(None, self._matching)
        try:
            return await asyncio.shield(self._read)
        except RecordsMissing as gap:
            raise OutOfRange(
                "AUDIT_PRUNED",
                "records from there on are not in this log any more; begin with the one that the detail oldest_sequence names",
                metadata={"oldest_sequence": str(gap.next_sequence)},
            ) from None
        except OSError as error:
            raise Unavailable("AUDIT_UNAVAILABLE", "the audit log cannot be read", retry_after_s=1) from error

    def _matching(self) -> list[AuditRecord]:
        """On the thread: to parse 500 records takes as long as many calls."""
        start_us, wants = self._start_us, self._wanted.wants
        return [
            record
            for record in self._reader.read(READ_RECORDS)
            if (start_us is None or time_of(record.line) >= start_us) and wants(record.line)
        ]

    def close(self) -> None:
        """Give the segment free, once no thread reads it."""
        if self._read is None or self._read.done():
            self._reader.close()
        else:
            self._read.add_done_callback(self._close)

    def _close(self, read: asyncio.Future[list[AuditRecord]]) -> None:
        if not read.cancelled():
            read.exception()  # of a reader whom nobody waits for
        self._reader.close()
