"""The audit log of one process: one JSON line per record, in segment files of its own directory.

    {"seq":42,"time":"2026-11-24T02:55:00.000123Z", ...the record's own fields, "chain":"...","mac":"..."}

Each line carries the hash that chains it to all before (lines.py); checkpoints sign the tree over them (checkpoints.py).

Promises:
  - `append` returns after the line is in the page cache: it survives the death of the process at once, and a power loss
    after the next `check` (one second).  `append_durable` returns after fdatasync; records before it are then durable
    too, but for those of an abandoned segment: the record that abandons it says how many bytes of it are durable.
  - Sequence numbers have no gaps, across restarts as well.  A number is given out again only when a power loss took its
    record, which was then not durable yet.
  - When a line cannot be written whole, or a sync fails or takes too long, the caller gets Unavailable and the segment
    is never written again: a kernel that failed to write pages back may have dropped them and still say yes to a second
    fsync. The next append opens a new segment, whose first record, `segment_abandoned`, says which bytes of the old one
    count.  After a sync that failed or took too long, nothing is appended before that segment is durable, in time.
  - A segment that was deleted or replaced is put back from the descriptor that still has it, and a record says so.

Once it is open, everything but syncs runs on the event loop's thread, so there are no locks.
"""

from __future__ import annotations

import asyncio
import errno
import os
import time
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from typing import TYPE_CHECKING, Final, NamedTuple

import orjson

from vaultd.audit import heads, segments
from vaultd.audit.blocks import BlockFiles
from vaultd.audit.checkpoints import TreeHead
from vaultd.audit.lines import RESERVED
from vaultd.audit.recovery import resume
from vaultd.audit.syncing import OpenSegment, SyncThread, unavailable
from vaultd.audit.walk import CHECKPOINT, SEALED
from vaultd.brief_calls import pwrite
from vaultd.durable import sync_directory
from vaultd.errors import FailedPrecondition, Unavailable

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from vaultd.audit.chain import Chain
    from vaultd.audit.checkpoints import Signer
    from vaultd.audit.lines import RecordMac

    Record = dict[str, object]

MAX_SEGMENT_BYTES: Final = 256 * 1024 * 1024
MAX_SEGMENT_AGE_S: Final = 86_400.0
SYNC_TIMEOUT_S: Final = 2.0

_NOT_SYNCED: Final = frozenset({"sync_failed", "sync_timed_out"})
"""Why a segment is abandoned of which nothing may be believed any more."""


class Receipt(NamedTuple):
    """The place of one record: enough to ask for a proof of it later."""

    chain_id: bytes
    sequence: int
    leaf_hash: bytes
    """SHA-256 over 0x00 and the line without its newline (the leaf hash of RFC 6962)."""


@dataclass(slots=True, eq=False)
class _Proof:
    """A new segment that counts once it is durable, and what was known when its records were written."""

    segment: OpenSegment
    lines: list[tuple[bytes, bytes]]
    faults: int
    mac: RecordMac | None


class AuditLog:
    """Appends records; a process owns its directory alone.  Use from the event loop that ran `open`.

    fdatasync is a parameter so that tests can let it fail; it is called on a thread, with a descriptor of a segment.
    on_proved: told, on the loop, when the log serves again after a sync that failed or took too long.
    """

    def __init__(
        self,
        directory: Path,
        *,
        now: Callable[[], int],
        chain_id: bytes | None = None,
        fdatasync: Callable[[int], None] = os.fdatasync,
        max_segment_bytes: int = MAX_SEGMENT_BYTES,
        max_segment_age_s: float = MAX_SEGMENT_AGE_S,
        min_free_bytes: int = 0,
        sync_timeout_s: float = SYNC_TIMEOUT_S,
        on_proved: Callable[[], None] = lambda: None,
    ) -> None:
        if chain_id is not None and len(chain_id) != segments.CHAIN_ID_BYTES:
            raise ValueError(f"chain_id must have {segments.CHAIN_ID_BYTES} bytes")
        self._directory = directory
        self._now = now
        self._wanted_chain_id = chain_id
        self._chain: Chain | None = None
        self._blocks = BlockFiles(directory)
        self._fdatasync = fdatasync
        self._max_segment_bytes = max_segment_bytes
        self._max_segment_age_us = int(max_segment_age_s * 1_000_000)
        self._min_free_bytes = min_free_bytes
        self.has_room = True
        """Whether the disk has room for more than what must be recorded of calls that are refused."""
        self._thread = SyncThread(directory, fdatasync, sync_timeout_s, self._sync_failed)
        self._lock_fd: int | None = None
        self._segment: OpenSegment | None = None
        self._number = 0
        self._sequence = 0
        self._faults: list[Record] = []
        self._prove_sync = False
        self._proof: _Proof | None = None
        self._sync_timeout_s = sync_timeout_s
        self._on_proved = on_proved
        self._last_line = b""
        self._second = -1
        self._time = b""

    @property
    def serving(self) -> bool:
        """Whether the last append worked and nothing is known that would stop the next one."""
        return self._segment is not None

    @property
    def directory(self) -> Path:
        """Where it is written."""
        return self._directory

    @property
    def chain(self) -> Chain:
        """Where the chain stands."""
        if self._chain is None:
            raise unavailable()
        return self._chain

    @property
    def chain_id(self) -> bytes:
        """16 bytes, the identity of this log; b"" before `open`."""
        return self._chain.chain_id if self._chain is not None else b""

    @property
    def segment_number(self) -> int:
        """Of the newest segment; those before it are not written any more."""
        return self._number

    @property
    def sequence(self) -> int:
        """The number of the newest record, 0 before the first."""
        return self._sequence

    async def open(self) -> None:
        """Lock the directory, recover, and start a segment.

        Raises FailedPrecondition: AUDIT_DIRECTORY_IN_USE, AUDIT_DIRECTORY_MODE, AUDIT_CHAIN_MISMATCH or
        AUDIT_CHAIN_ID_INVALID; DataLoss AUDIT_TAMPERED, when what follows the newest checkpoint is not as it was written; or
        Unavailable AUDIT_UNAVAILABLE.
        """
        if self._lock_fd is not None or self._thread.started:
            raise FailedPrecondition("AUDIT_DIRECTORY_IN_USE", "this audit log was opened before")
        try:
            await asyncio.to_thread(self._open)
        except OSError as e:
            raise unavailable() from e
        self._thread.start()

    def append(self, record: Record) -> Receipt:
        """Write one line to the page cache.  Raises Unavailable AUDIT_UNAVAILABLE; then the record counts for nothing.

        A record that is not JSON, or sets a field of the log's own, is a TypeError or ValueError, and no number is used.
        """
        segment, chain = self._segment, self._chain
        if segment is None or chain is None:
            return self._recover([record])[-1]
        sequence = self._sequence + 1
        line, head = chain.line(self._format(sequence, record))
        if segment.size >= segment.roll_at:
            segment = self._roll(segment)
        try:
            # At its own place: what others append is overwritten, and never between two records.
            written = pwrite(segment.fd, line + b"\n", segment.size)
        except OSError as e:
            raise self._abandon(segment, "write_failed") from e
        if written != len(line) + 1:
            raise self._abandon(segment, "write_failed")
        segment.size += written
        self._sequence = sequence
        self._last_line = line
        return Receipt(chain.chain_id, sequence, chain.add(head, line))

    def append_all(self, records: Sequence[Record]) -> list[Receipt]:
        """Write lines like `append`, with one write.  Raises Unavailable when not all are written: those that are count, and
        may be followed by others that say that what they tell of was refused.
        """
        segment, chain = self._segment, self._chain
        if segment is None or chain is None:
            return self._recover(records)[-len(records) :]
        lines = self._lines(records)
        if segment.size >= segment.roll_at:
            segment = self._roll(segment)
        data = b"".join([line + b"\n" for line, _ in lines])
        try:
            written = pwrite(segment.fd, data, segment.size)
        except OSError as e:
            raise self._abandon(segment, "write_failed") from e
        if written != len(data):
            whole = lines[: data.count(b"\n", 0, written)]
            segment.size += sum(len(line) + 1 for line, _ in whole)
            self._count(whole)
            raise self._abandon(segment, "write_failed")
        segment.size += written
        return self._count(lines)

    async def append_durable(self, record: Record) -> Receipt:
        """Write one line and wait until it is on stable storage; waiters share one fdatasync.  Raises like `append`.

        When the sync fails the line may still be in the log: a record of what was refused is no harm.
        """
        receipt = self.append(record)
        segment = self._segment
        if segment is None:
            raise unavailable()
        await self._thread.durable(segment)
        return receipt

    async def durable(self) -> None:
        """Wait until everything that was appended is on stable storage; raises Unavailable."""
        segment = self._segment
        if segment is None:
            raise unavailable()
        await self._thread.durable(segment)

    # The chain

    def use_key(self, key: bytes) -> None:
        """MAC every record from now on with a key of the key ring."""
        self.chain.use_key(key)

    def seal(self) -> None:
        """Forget the key, once a record says so: what follows has MACs of a key that cannot make those before.  Never raises."""
        if self._chain is not None and self._chain.has_key:
            with suppress(Unavailable):
                self.append({"event": SEALED})
            self._chain.seal_key()

    def checkpoint(
        self, signer: Signer, revision: int, store: bytes, recorded: int, ties: Record | None = None
    ) -> heads.Newest | None:
        """Sign the tree over every record and append it; None when there is no record yet.  Raises Unavailable.

        `ties` is a record that goes before it: the last one that it covers.  Durable after `durable`; only then it may be kept
        anywhere else.
        """
        chain = self.chain
        if self._segment is None:
            raise unavailable()
        if ties is not None:
            self.append(ties)
        tree = chain.tree()
        if not tree.size:
            return None
        second, microsecond = divmod(self._now(), 1_000_000)
        self._begin_second(second)
        time = f"{self._time.decode()}.{microsecond:06}Z"
        head = TreeHead(
            chain.chain_id, tree.size, tree.root(), chain.first, chain.head, time, revision, store, recorded
        )
        peaks = list(tree.peaks)
        note = signer.sign(head)
        record: Record = {"event": CHECKPOINT, "size": tree.size, "note": note}
        record["frontier"] = [peak.hex() for peak in peaks]
        self.append(record)
        return heads.Newest(self._sequence, self._last_line, note, head, peaks)

    async def keep(self, newest: heads.Newest) -> None:
        """Make a checkpoint durable, and keep its copy and what proofs need beside the segments."""
        await self.durable()
        pending = self._blocks.take()

        def write() -> None:
            self._blocks.write(pending)
            heads.write_newest(self._directory, newest.line)

        try:
            await asyncio.to_thread(write)
        except OSError as e:
            raise unavailable() from e

    def check(self) -> None:
        """Notice what no write would: a segment deleted, replaced, cut or written by others.  Call it each second.

        Then, or when not serving, try to go on in a new segment; `serving` says with what success.  Also starts a sync
        of what `append` wrote.
        """
        if self._lock_fd is None:
            return
        segment = self._segment
        if segment is not None and (damage := segment.damage()):
            self._abandon(segment, damage)
        self._look_for_room()
        if self._segment is not None and self._segment.size:
            age_us = self._now() - self._segment.created_us
            if not 0 <= age_us < self._max_segment_age_us:
                self._segment = self._roll(self._segment)
        if self._segment is None:
            with suppress(Unavailable):
                self._recover([])
        elif self._segment.size > self._segment.synced and not self._segment.syncs:
            self._thread.submit(self._segment)

    def _look_for_room(self) -> None:
        """Calls are refused while there is room to record that they were; they come back with a quarter more."""
        if self._min_free_bytes:
            with suppress(OSError):
                found = os.statvfs(self._directory)
                free = found.f_bavail * found.f_frsize
                self.has_room = free >= self._min_free_bytes * (1 if self.has_room else 1.25)

    async def close(self) -> None:
        """Sync what was written and give the directory free.  Idempotent.  Raises Unavailable when the sync fails."""
        if self._lock_fd is None or not self._thread.started:
            return
        lock_fd, self._lock_fd = self._lock_fd, None
        segment, self._segment = self._segment, None
        try:
            if segment is not None:
                await self._thread.durable(segment)
                self._close_segment(segment)
        finally:
            await self._thread.stop()
            os.close(lock_fd)

    # Opening

    def _open(self) -> None:
        segments.prepare_directory(self._directory)
        lock_fd = segments.lock_directory(self._directory)
        self._lock_fd = lock_fd
        try:
            resumed = resume(self._directory, self._wanted_chain_id)
            self._number, self._blocks = resumed.number, resumed.blocks
            self._sequence = resumed.chain.last
            self._chain = resumed.chain
            segment, lines = self._write_segment(resumed.records)
            try:
                self._sync_whole(segment)
            except BaseException:
                segments.discard(segment.path, segment.fd)
                raise
        except BaseException:
            os.close(lock_fd)
            self._lock_fd = None
            raise
        self._begin(segment, lines)

    def _write_segment(self, records: Sequence[Record]) -> tuple[OpenSegment, list[tuple[bytes, bytes]]]:
        """Create a segment that begins with these records, all or none; they count once `_begin` is given it with their lines
        and chain hashes.  Raises OSError, leaving no file behind.
        """
        lines = self._lines(records)
        data = b"".join(line + b"\n" for line, _ in lines)
        if self._lock_fd is None or not segments.is_locked_by(self._directory, self._lock_fd):
            raise OSError(errno.ESTALE, "the audit directory was replaced")
        now_us = self._now()
        name, fd = segments.create_segment(self._directory, self._number + 1, now_us)
        self._number += 1  # only now is the one before not the newest
        segment = OpenSegment(name, self._directory / name, fd, self._max_segment_bytes, now_us)
        try:
            if data and os.pwrite(fd, data, 0) != len(data):
                raise OSError(errno.ENOSPC, "short write")
        except BaseException:
            segments.discard(segment.path, fd)
            raise
        segment.size = len(data)
        return segment, lines

    def _sync_whole(self, segment: OpenSegment) -> None:
        """Make a new segment durable; blocks.  Raises OSError."""
        self._fdatasync(segment.fd)
        sync_directory(self._directory)
        segment.name_durable = True
        segment.synced = segment.size

    def _begin(self, segment: OpenSegment, lines: Sequence[tuple[bytes, bytes]]) -> list[Receipt]:
        """Go on in a new segment: its records count."""
        self._segment = segment
        return self._count(lines)

    # Lines

    def _lines(self, records: Sequence[Record]) -> list[tuple[bytes, bytes]]:
        """The lines of the next records, and their chain hashes."""
        lines: list[tuple[bytes, bytes]] = []
        before: bytes | None = None
        for sequence, record in enumerate(records, self._sequence + 1):
            line, before = self.chain.line(self._format(sequence, record), before)
            lines.append((line, before))
        return lines

    def _count(self, lines: Sequence[tuple[bytes, bytes]]) -> list[Receipt]:
        """Take in lines that were written."""
        chain, first = self.chain, self._sequence + 1
        self._sequence += len(lines)
        if lines:
            self._last_line = lines[-1][0]
        return [Receipt(chain.chain_id, first + n, chain.add(head, line)) for n, (line, head) in enumerate(lines)]

    def _format(self, sequence: int, record: Record) -> bytes:
        """A record without its closing brace: what the chain hash is over."""
        if not RESERVED.isdisjoint(record):
            raise ValueError("a record does not set seq, time, chain or mac itself")
        second, microsecond = divmod(self._now(), 1_000_000)
        if second != self._second:
            self._begin_second(second)
        own = orjson.dumps(record)[1:-1]
        return b'{"seq":%d,"time":"%b.%06dZ"%b%b' % (sequence, self._time, microsecond, own and b",", own)

    def _begin_second(self, second: int) -> None:
        self._second = second
        self._time = datetime.fromtimestamp(second, UTC).strftime("%Y-%m-%dT%H:%M:%S").encode()

    # Segments that end

    def _roll(self, segment: OpenSegment) -> OpenSegment:
        """Go on in a new segment.  The sync thread finishes the old one before it looks at the new one."""
        try:
            new, _ = self._write_segment([])
        except OSError:
            segment.roll_at += self._max_segment_bytes  # nothing is wrong with this one: out of descriptors, perhaps
            return segment
        self._thread.submit(segment)
        self._close_segment(segment)
        self._segment = new
        return new

    def _abandon(self, segment: OpenSegment, reason: str) -> Unavailable:
        """Never write to this segment again, fail all who wait for it, and give the error for the caller."""
        if not segment.dead:
            segment.dead = True
            self._faults.append(
                {
                    "event": "segment_abandoned",
                    "segment": segment.name,
                    "reason": reason,
                    "whole_bytes": segment.size,
                    "durable_bytes": segment.synced,
                }
            )
            self._prove_sync = self._prove_sync or reason in _NOT_SYNCED
            if self._segment is segment:
                self._segment = None
            self._thread.fail_waiters(segment)
            # Before whatever follows is synced: a later record vouches for all that are before it.
            if segment.closing:  # its descriptor may be another file's by now
                self._thread.put(partial(self._renew, segment, segment.size, self._lock_fd))
            else:
                may_hold = reason not in _NOT_SYNCED
                self._thread.put(partial(self._rescue, segment, segment.size, self._lock_fd, may_hold=may_hold))
            self._close_segment(segment)
        return unavailable()

    def _sync_failed(self, segment: OpenSegment, reason: str) -> None:
        self._abandon(segment, reason)
        if self._segment is not None:  # a later segment: a durable record in it would vouch for this one's records
            self._abandon(self._segment, f"previous_segment_{reason}")

    def _rescue(self, segment: OpenSegment, size: int, lock_fd: int | None, *, may_hold: bool) -> None:
        """Put the segment back if it is away, and make durable what counts of it; runs on the sync thread, before its
        descriptor is closed.

        may_hold: no sync of it has failed, so that one more can be believed.
        """
        with suppress(OSError):  # then it stays away, and who verifies the log finds out
            if lock_fd is None or not segments.is_locked_by(self._directory, lock_fd):
                return  # of a directory that was moved it is a part still
            if segments.rescue(segment.path, segment.fd, size):
                self._thread.back(self._rescued, segment.name, size)
                return
            if may_hold:
                with suppress(OSError):
                    self._fdatasync(segment.fd)
                    sync_directory(self._directory)
                    return
            segments.renew(segment.path, segment.fd, size)

    def _renew(self, segment: OpenSegment, size: int, lock_fd: int | None) -> None:
        """Write a full segment anew, whose sync failed after it was followed by another; runs on the sync thread."""
        with suppress(OSError):
            if lock_fd is None or not segments.is_locked_by(self._directory, lock_fd):
                return
            fd = os.open(segment.path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
            try:
                segments.renew(segment.path, fd, size)
            finally:
                os.close(fd)

    def _rescued(self, name: str, size: int) -> None:
        record: Record = {"event": "segment_restored", "segment": name, "bytes": size}
        try:
            self.append(record)
        except Unavailable:
            self._faults.append(record)

    def _recover(self, records: Sequence[Record]) -> list[Receipt]:
        """Open a new segment that begins with what went wrong, then these records.

        After a failed sync the new segment, with what went wrong alone, is first synced by the thread: nothing may be answered on
        a disk that still fails, and meanwhile Unavailable is raised. While a sync hangs nothing is tried, so no more than one
        thread ever hangs.
        """
        if self._lock_fd is None or self._thread.hung or self._proof is not None:
            raise unavailable()
        try:
            segment, lines = self._write_segment(self._faults if self._prove_sync else [*self._faults, *records])
        except OSError as e:
            raise unavailable() from e
        if self._prove_sync:
            self._proof = _Proof(segment, lines, len(self._faults), self.chain.mac)
            self._thread.put(partial(self._prove, self._proof))
            raise unavailable()
        self._faults.clear()
        return self._begin(segment, lines)

    def _prove(self, proof: _Proof) -> None:
        """Runs on the sync thread, after what was to be done for the segments before.  Late is as bad as never."""
        segment, until_s = proof.segment, time.monotonic() + self._sync_timeout_s
        with suppress(OSError):
            self._sync_whole(segment)
        works = segment.name_durable and time.monotonic() <= until_s
        if not works and self._lock_fd is None:
            os.close(segment.fd)  # the directory may be another's by now; whose first look is for what is not whole
        elif not works:
            segments.discard(segment.path, segment.fd)
        self._thread.back(self._proved, proof, works)

    def _proved(self, proof: _Proof, works: bool) -> None:
        self._proof = None
        if not works:
            return
        if self._lock_fd is None:
            os.close(proof.segment.fd)  # its records are whole: whoever opens the directory next goes on after them
        elif proof.faults == len(self._faults) and proof.mac is self.chain.mac:
            self._faults.clear()
            self._prove_sync = False
            self._begin(proof.segment, proof.lines)
            self._on_proved()
        else:  # more went wrong, or the key is another one
            segments.discard(proof.segment.path, proof.segment.fd)
            with suppress(Unavailable):
                self._recover([])

    def _close_segment(self, segment: OpenSegment) -> None:
        """Close the descriptor on the sync thread, after the syncs that use it."""
        if not segment.closing:
            segment.closing = True
            self._thread.put(partial(os.close, segment.fd))
