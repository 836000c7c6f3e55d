"""The open segment of a log, and the one thread that makes what was written to it durable.

Waiters share syncs: who comes while one runs shares the next.  All but fdatasync, and what is put on the thread, runs on the
event loop.
"""

from __future__ import annotations

import asyncio
import errno
import os
import queue
import threading
from collections import deque
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING

from vaultd.durable import sync_directory
from vaultd.errors import Unavailable

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


def unavailable() -> Unavailable:
    """The error of every call that cannot be recorded."""
    return Unavailable(
        "AUDIT_UNAVAILABLE", "the audit log cannot be written, and nothing is done unrecorded", retry_after_s=1
    )


@dataclass(slots=True, eq=False)
class OpenSegment:
    """A segment that is written, or was and is not closed yet."""

    name: str
    path: Path
    fd: int
    roll_at: int
    created_us: int
    size: int = 0
    """Bytes of whole lines."""
    synced: int = 0
    """Bytes known to be durable."""
    dead: bool = False
    closing: bool = False
    name_durable: bool = False
    """Written by the sync thread only."""
    syncs: int = 0
    waiting: list[asyncio.Future[None]] = field(default_factory=list)

    def damage(self) -> str | None:
        """What happened to the file behind the writer's back; None for nothing."""
        try:
            opened = os.fstat(self.fd)
            named = self.path.stat(follow_symlinks=False)
        except FileNotFoundError:
            return "deleted"
        except OSError:
            return "unreachable"
        if not os.path.samestat(opened, named):
            return "replaced"
        if opened.st_size != self.size:
            return "truncated" if opened.st_size < self.size else "written_by_others"
        return None


@dataclass(slots=True, eq=False)
class _Sync:
    """One fdatasync, and everybody whose line was written before it began."""

    segment: OpenSegment
    size: int
    waiters: list[asyncio.Future[None]]
    timer: asyncio.TimerHandle
    timed_out: bool = False


class SyncThread:
    """Runs syncs, and jobs between them, in the order in which they were asked for.

    on_failed: is told, on the loop, of a segment that must not be written again, and why: `sync_failed`, `sync_timed_out` or
    `deleted`.
    """

    def __init__(
        self,
        directory: Path,
        fdatasync: Callable[[int], None],
        timeout_s: float,
        on_failed: Callable[[OpenSegment, str], None],
    ) -> None:
        self._directory = directory
        self._fdatasync = fdatasync
        self._timeout_s = timeout_s
        self._on_failed = on_failed
        self._syncs: deque[_Sync] = deque()
        self._jobs: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None
        self._loop: asyncio.AbstractEventLoop

    @property
    def started(self) -> bool:
        """Whether `start` was called."""
        return self._thread is not None

    @property
    def hung(self) -> bool:
        """Whether a sync takes longer than it may, and holds the thread."""
        return any(sync.timed_out for sync in self._syncs)

    def start(self) -> None:
        """Begin, for the loop that runs now."""
        self._loop = asyncio.get_running_loop()
        self._thread = threading.Thread(target=self._work, name="vaultd-audit-sync", daemon=True)
        self._thread.start()

    async def stop(self) -> None:
        """End after the jobs that wait; a thread that hangs is left to the end of the process."""
        self._jobs.put(None)
        if self._thread is not None and not self.hung:
            await asyncio.to_thread(self._thread.join, self._timeout_s)

    def put(self, job: Callable[[], None]) -> None:
        """Run a job on the thread."""
        self._jobs.put(job)

    def back(self, act: Callable[..., object], *arguments: object) -> None:
        """From the thread: run something on the loop, unless it was closed and nobody waits."""
        with suppress(RuntimeError):
            self._loop.call_soon_threadsafe(act, *arguments)

    async def durable(self, segment: OpenSegment) -> None:
        """Wait until what was written to a segment is durable; raises Unavailable when it does not become so."""
        waiter: asyncio.Future[None] = self._loop.create_future()
        segment.waiting.append(waiter)
        if not segment.syncs:
            self.submit(segment)
        await waiter

    def submit(self, segment: OpenSegment) -> None:
        """Queue one sync for all that wait now."""
        waiters, segment.waiting = segment.waiting, []
        timer = self._loop.call_later(self._timeout_s, self._timed_out, segment)
        sync = _Sync(segment, segment.size, waiters, timer)
        segment.syncs += 1
        self._syncs.append(sync)
        self._jobs.put(partial(self._run, sync))

    def fail_waiters(self, segment: OpenSegment) -> None:
        """Tell everybody who waits for a segment that it is in vain."""
        for waiters in (segment.waiting, *(sync.waiters for sync in self._syncs if sync.segment is segment)):
            for waiter in waiters:
                if not waiter.done():
                    waiter.set_exception(unavailable())
            waiters.clear()

    def _work(self) -> None:
        while (job := self._jobs.get()) is not None:
            job()

    def _run(self, sync: _Sync) -> None:
        """Runs on the thread."""
        segment, fault = sync.segment, ""
        try:
            if segment.dead:
                raise OSError(errno.EIO, "abandoned")  # a second fsync may succeed without having written anything
            self._fdatasync(segment.fd)
            if not segment.name_durable:
                sync_directory(self._directory)
                segment.name_durable = True
            if os.fstat(segment.fd).st_nlink == 0:
                fault = "deleted"  # durable, but no longer in the directory
        except OSError:
            fault = "sync_failed"
        self.back(self._synced, sync, fault)

    def _synced(self, sync: _Sync, fault: str) -> None:
        segment = sync.segment
        if fault and not segment.dead:
            self._on_failed(segment, fault)  # fails the waiters of this sync, which is still among self._syncs
        self._syncs.remove(sync)
        sync.timer.cancel()
        segment.syncs -= 1
        if segment.dead:
            return
        segment.synced = max(segment.synced, sync.size)
        for waiter in sync.waiters:
            if not waiter.done():
                waiter.set_result(None)
        if segment.waiting and not segment.syncs:
            self.submit(segment)

    def _timed_out(self, segment: OpenSegment) -> None:
        for sync in self._syncs:
            if sync.segment is segment:
                sync.timed_out = True
        self._on_failed(segment, "sync_timed_out")
