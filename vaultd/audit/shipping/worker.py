"""Carries records to one sink: from its cursor on, a batch at a time, again until the sink has it.

Memory is bounded by one batch: what a sink has not taken stays in the segments.  Files are read and written, and batches
made, on threads of the worker's own; the event loop only sends.
"""

from __future__ import annotations

import asyncio
import hashlib
import heapq
import itertools
import random
from collections import Counter, deque
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import orjson

from vaultd.audit import segments
from vaultd.audit.reader import AuditReader, RecordsMissing, first_sequence, oldest_sequence, time_of
from vaultd.audit.shipping.base import MAX_BATCH_BYTES, MAX_BATCH_RECORDS, DeliveryFailed, Record
from vaultd.audit.shipping.cursor import Cursor
from vaultd.errors import Unavailable

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from vaultd.audit.shipping.base import Sink
    from vaultd.audit.shipping.cursor import CursorFile
    from vaultd.engine.clock import Clock

POLL_S: Final = 0.1
"""How often a sink that has everything looks for more; who waits for a record wakes it at once."""
SOON_S: Final = 0.005
"""How soon it looks again for a record that is waited for and cannot be read yet."""
SAVE_S: Final = 1.0
"""How often the cursor is written, and so how much is delivered again after a crash."""
FIRST_RETRY_S: Final = 0.1
LONGEST_RETRY_S: Final = 2.0
CLOSE_S: Final = 1.0
_READ_STEP: Final = 32
_LOST_KEPT: Final = 64
"""Ranges; calls ask within seconds."""


@dataclass(frozen=True, slots=True)
class WorkerSettings:
    """What is configured for one sink."""

    name: str
    timeout_s: float
    """For one attempt to deliver one batch."""
    hold_s: float
    """How long records that the sink does not have are kept from being pruned."""
    from_newest: bool
    """Where a sink without a cursor begins: behind the newest record, or with the oldest."""


@dataclass(frozen=True, slots=True)
class SinkFigures:
    """Plain numbers of one sink, since the process began."""

    name: str
    serving: bool
    delivered: int
    """Records that the sink acknowledged; what was sent twice counts once."""
    expected: int
    """Records that it should have by now."""
    rejected: int
    """Records that it will never take (OTLP)."""
    missing: int
    """Records that were gone from the directory before they were delivered."""
    lag_records: int
    lag_s: float
    """Age of the oldest record that it does not have."""
    failures: dict[str, int]
    """Failed attempts by kind."""


class SinkWorker:
    """Use from the event loop that runs `run`.

    A sink is serving once it has everything, and no longer when an attempt fails (a broken connection: the second in a row),
    or when a call waited in vain.
    """

    def __init__(
        self,
        settings: WorkerSettings,
        sink: Sink,
        directory: Path,
        cursor: CursorFile,
        chain_id: str,
        newest: Callable[[], int],
        clock: Clock,
        on_change: Callable[[str, bool, str], None],
        on_incident: Callable[[str, BaseException], None],
    ) -> None:
        """`on_change` hears the name, whether it serves now, and why not; `on_incident` of faults of our own."""
        self.settings = settings
        self._sink = sink
        self._directory = directory
        self._cursor = cursor
        self._chain_id = chain_id
        self._newest = newest
        self._clock = clock
        self._on_change = on_change
        self._on_incident = on_incident
        # One reads and encodes, one writes the cursor.
        self._threads = ThreadPoolExecutor(2, f"vaultd-audit-{settings.name}")
        self._wake = asyncio.Event()
        self._stopping = False
        self._reader: AuditReader | None = None
        self._pending: list[Record] = []
        self._full = False
        """Whether there is more behind the pending batch, as far as its reader looked."""
        self._position = 0
        """Records up to here were delivered, or never can be."""
        self._before_last = 0
        """The position before the last batch: where to go back to when that is in doubt."""
        self._acknowledged = 0
        """The newest record that was ever delivered; never goes back."""
        self._started_at = 0
        self._state: bool | None = None
        self._behind_since_us = 0
        self._lost: deque[tuple[int, int]] = deque(maxlen=_LOST_KEPT)
        """Records that the sink passed and does not have: rejected, or gone before they were delivered."""
        self._waiting: list[tuple[int, int, asyncio.Future[None]]] = []
        self._order = itertools.count()
        self._failed_in_a_row = 0
        self._retry_s = FIRST_RETRY_S
        self._saved = 0
        self._saved_at_s = 0.0
        self._saving: asyncio.Task[None] | None = None
        self._last_hash = ""
        self._delivered = 0
        self._rejected = 0
        self._missing = 0
        self._failures: Counter[str] = Counter()

    # What others ask

    @property
    def serving(self) -> bool:
        """Whether the sink took everything the last time that it was tried."""
        return self._state is True

    @property
    def failing(self) -> bool:
        """Whether a call that needs the sink is refused at once; not before the first attempt was made."""
        return self._state is False

    def figures(self) -> SinkFigures:
        """The numbers of this moment."""
        newest = self._newest()
        lag = max(0, newest - self._position)
        return SinkFigures(
            name=self.settings.name,
            serving=self.serving,
            delivered=self._delivered,
            expected=max(0, newest - self._started_at),
            rejected=self._rejected,
            missing=self._missing,
            lag_records=lag,
            lag_s=max(0, self._clock.now_us() - self._behind_since_us) / 1e6 if lag and self._behind_since_us else 0.0,
            failures=dict(self._failures),
        )

    def oldest_needed_sequence(self) -> int | None:
        """The oldest record that must not be pruned for this sink; None when it has all, or is too far behind to be waited for."""
        figures = self.figures()
        if not figures.lag_records or figures.lag_s > self.settings.hold_s:
            return None
        return self._position + 1

    async def wait_for(self, sequence: int) -> None:
        """Return once the sink has acknowledged a record.  Raises Unavailable at once when it is failing, or begins to."""
        if self._acknowledged >= sequence:
            if any(first <= sequence <= last for first, last in self._lost):
                raise sink_unavailable()
            return
        if self.failing:
            raise sink_unavailable()
        waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        heapq.heappush(self._waiting, (sequence, next(self._order), waiter))
        self._wake.set()
        await waiter

    def give_up(self) -> None:
        """A call waited for too long: refuse the others at once until the sink has everything again."""
        self._failures["timeout"] += 1
        self._fail("a record was not acknowledged in time")

    # The work

    async def run(self) -> None:
        """Deliver until `stop`, and then what there still is, unless an attempt fails."""
        began = False
        while True:
            failed = False
            try:
                if not began:
                    await self._begin()
                    began = True
                delivered = await self._deliver_next()
                if delivered:
                    self._failed_in_a_row, self._retry_s = 0, FIRST_RETRY_S
            except DeliveryFailed as failure:
                failed = True
                self._failed(failure)
            except Exception as error:  # a fault of ours must not end the deliveries silently: it is an incident
                failed = True
                self._on_incident("audit sink", error)
                self._failed(DeliveryFailed("internal", "internal error; the server's log has it as an incident"))
            if self._stopping and (failed or not delivered):
                return
            if failed and self._state is False:
                # Not all nodes at once, when what they share comes back.
                await self._pause(self._retry_s * random.uniform(0.5, 1.0))  # noqa: S311  # no secret
                self._retry_s = min(self._retry_s * 2, LONGEST_RETRY_S)
            elif not failed and not delivered:
                await self._pause(SOON_S if self._waiting else POLL_S)
            elif not failed and not self._waiting and not self._full:
                await self._pause(POLL_S)  # a batch costs as much with one record as with many

    def stop(self) -> None:
        """Let `run` end."""
        self._stopping = True
        self._wake.set()

    async def close(self) -> None:
        """Write the cursor and give everything free; does not wait for the sink.  Call it after `run` ended."""
        self._fail_waiting()
        await self._sink.close()
        with suppress(TimeoutError):  # a disk that hangs holds the thread
            async with asyncio.timeout(CLOSE_S):
                await self._on_thread(self._close_reader)
                if self._saving is not None:
                    await self._saving
                if self._saved != self._position:
                    await self._save()
        self._threads.shutdown(wait=False, cancel_futures=True)

    async def _begin(self) -> None:
        newest = self._newest()
        try:
            self._position = await self._on_thread(self._starting_point, newest)
        except OSError as error:
            raise DeliveryFailed("storage", "the audit directory cannot be read") from error
        self._before_last = self._acknowledged = self._started_at = self._saved = self._position
        if self._position < newest:
            self._behind_since_us = self._clock.now_us()

    def _starting_point(self, newest: int) -> int:
        cursor = self._cursor.load()
        if cursor is None and self.settings.from_newest:
            return newest
        if cursor is None or cursor.chain_id != self._chain_id or cursor.sequence <= 0:
            # A sink that is new, or to which all of this chain is new.
            return max(0, oldest_sequence(self._directory) - 1)
        try:
            with closing(AuditReader(self._directory, cursor.sequence - 1)) as reader:
                found = reader.read(1)
        except RecordsMissing:
            return cursor.sequence  # pruned
        if found and leaf_hash(found[0].line) == cursor.leaf_hash:
            self._last_hash = cursor.leaf_hash
            return cursor.sequence
        # A power loss took records that were delivered before they were durable, and their numbers were given out again:
        # by a process that began a new segment.
        return max(0, self._segment_start(min(cursor.sequence, newest)) - 1)

    def _segment_start(self, sequence: int) -> int:
        starts = [first_sequence(path) for _, path in segments.list_segments(self._directory)]
        return max((start for start in starts if 0 < start <= sequence), default=1)

    async def _deliver_next(self) -> bool:
        """Deliver one batch; False when there is none."""
        newest = self._newest()
        if self._position >= newest and not self._pending:
            self._caught_up()
            return False
        batch = await self._on_thread(self._prepare)
        if batch is None:
            return False  # written, but not yet to be read
        try:
            async with asyncio.timeout(self.settings.timeout_s):
                rejected = await self._sink.deliver(batch)
        except TimeoutError:
            raise DeliveryFailed("timeout", f"no acknowledgement within {self.settings.timeout_s:g} s") from None
        self._note_delivered(rejected)
        if self._position >= newest:
            self._caught_up()
        if self._clock.monotonic_s() - self._saved_at_s >= SAVE_S and (self._saving is None or self._saving.done()):
            self._saving = asyncio.create_task(self._save())  # a sync takes its time: nobody waits for it
        return True

    def _prepare(self) -> Any:
        """Runs on the thread: read the next batch unless there is one, and encode it.  None when there are no records."""
        if not self._pending:
            try:
                self._pending = self._read()
            except RecordsMissing as gap:
                self._missing += gap.next_sequence - gap.first_missing
                self._lost.append((gap.first_missing, gap.next_sequence - 1))
                self._position = gap.next_sequence - 1
                self._pending = self._read()
            except OSError as error:
                raise DeliveryFailed("storage", "the audit directory cannot be read") from error
            if self._pending:
                self._behind_since_us = max(1, time_of(self._pending[0].line))
        return self._sink.encode(self._pending) if self._pending else None

    def _read(self) -> list[Record]:
        if self._reader is None:
            self._reader = AuditReader(self._directory, self._position, newest=self._newest)
        records: list[Record] = []
        size, step = 0, _READ_STEP
        newest = self._newest()
        while len(records) < MAX_BATCH_RECORDS and size < MAX_BATCH_BYTES:
            try:
                found = self._reader.read(step)
            except RecordsMissing:
                if not records:
                    raise
                self._close_reader()  # comes to the gap again, with the next batch
                break
            for one in found:
                records.append(Record(one.sequence, one.line, orjson.loads(one.line)))
                size += len(one.line)
            if not found or records[-1].sequence >= newest:
                self._full = False
                return records
            rest = MAX_BATCH_RECORDS - len(records)
            # Each read looks at the whole directory; but a step of long lines would be too much at once.
            step = rest if size // len(records) * rest < MAX_BATCH_BYTES else min(rest, _READ_STEP)
        self._full = True
        return records

    def _note_delivered(self, rejected: int) -> None:
        rejected = min(max(rejected, 0), len(self._pending))  # whatever the sink says
        first, last = self._pending[0].sequence, self._pending[-1]
        fresh = sum(1 for record in self._pending if record.sequence > self._acknowledged)
        self._delivered += max(0, fresh - rejected)
        self._rejected += rejected
        self._before_last, self._position = first - 1, last.sequence
        self._last_hash = leaf_hash(last.line)
        self._pending = []
        if rejected:
            # Which of them, the sink does not say: nobody who waits for one of these is told that it was delivered.
            self._lost.append((first, last.sequence))
            self._fail_waiting(last.sequence)
        else:
            # Those before this batch that still wait were gone before they could be delivered.
            self._fail_waiting(first - 1)
            while self._waiting and self._waiting[0][0] <= last.sequence:
                waiter = heapq.heappop(self._waiting)[2]
                if not waiter.done():
                    waiter.set_result(None)
        self._acknowledged = max(self._acknowledged, last.sequence)
        self._behind_since_us = (
            0 if self._position >= self._newest() else max(1, time_of(last.line))
        )  # the next is as old

    def _caught_up(self) -> None:
        self._behind_since_us = 0
        if self._state is not True:
            self._state = True
            self._on_change(self.settings.name, True, "")

    def _failed(self, failure: DeliveryFailed) -> None:
        self._failures[failure.kind] += 1
        self._failed_in_a_row += 1
        if failure.doubtful:
            self._go_back()
        if failure.kind == "connection" and self._failed_in_a_row == 1 and self._state is not False:
            return  # receivers end connections that were idle: another one is tried before anybody is refused
        self._fail(failure.text)

    def _go_back(self) -> None:
        """Send the last batch again."""
        if self._position != self._before_last:
            self._position = self._before_last
            self._pending = []
            self._close_reader()

    def _close_reader(self) -> None:
        reader, self._reader = self._reader, None
        if reader is not None:
            reader.close()

    def _fail(self, why: str) -> None:
        self._fail_waiting()
        if self._state is not False:
            self._state = False
            self._on_change(self.settings.name, False, why)

    def _fail_waiting(self, up_to: int | None = None) -> None:
        while self._waiting and (up_to is None or self._waiting[0][0] <= up_to):
            waiter = heapq.heappop(self._waiting)[2]
            if not waiter.done():
                waiter.set_exception(sink_unavailable())

    async def _save(self) -> None:
        """A cursor that cannot be written costs nothing but repetition after a restart."""
        self._saved_at_s = self._clock.monotonic_s()
        cursor = Cursor(self._chain_id, self._position, self._last_hash)
        try:
            await self._on_thread(self._cursor.save, cursor)
        except OSError:
            self._failures["storage"] += 1
        else:
            self._saved = cursor.sequence

    async def _pause(self, seconds: float) -> None:
        if self._stopping:
            return
        self._wake.clear()
        try:
            async with asyncio.timeout(seconds):
                await self._wake.wait()
        except TimeoutError:
            return

    async def _on_thread(self, function: Callable[..., Any], *arguments: object) -> Any:
        return await asyncio.get_running_loop().run_in_executor(self._threads, function, *arguments)


def leaf_hash(line: bytes) -> str:
    """The leaf hash of a receipt, in hex (RFC 6962)."""
    return hashlib.sha256(b"\0" + line).hexdigest()


def sink_unavailable() -> Unavailable:
    """The answer to a call whose record a required sink does not have."""
    return Unavailable(
        "AUDIT_SINK_UNAVAILABLE",
        "a required audit sink did not acknowledge the record, so the answer is withheld; what the call was to do may have "
        "been done: repeat it with the same request_id",
        retry_after_s=1,
    )
