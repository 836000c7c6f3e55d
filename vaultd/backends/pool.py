"""A bounded pool of threads for work that is too slow for the event loop: private-key operations and key generation.

A submission is a `_Ticket`: one call or many, one future, one deadline.  It is queued in chunks, in its lane; a worker
takes several chunks at a visit, and finished tickets reach the loop many at a time, mostly with one wake-up pending at most.

Who hands over holds no lock while the other one wakes up: it would wake up for nothing, and wait for the lock.
"""

from __future__ import annotations

import asyncio
import os
import threading
import time
from collections import Counter, deque
from operator import itemgetter
from queue import SimpleQueue
from typing import TYPE_CHECKING, Any, Final, Generic, NamedTuple, TypeVar

from vaultd.backends.background import stand_back
from vaultd.backends.backlog import Backlog, too_late
from vaultd.backends.base import Lane
from vaultd.errors import Unavailable, VaultdError
from vaultd.telemetry import spans

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from vaultd.telemetry.cells import Histogram

DEFAULT_MAX_QUEUED: Final = 20_000
_CHUNK_CALLS: Final = 16
# A worker holds no more than this much estimated work at a time, so that another that falls idle finds some left.
_VISIT_S: Final = 0.002
# Calls of a chunk are counted in and out together, as many as take about so long: the lock, in a processor whose caches a
# signature has used up, costs each of them 8 us.  Admission does not see what is left of a run, nor do the depths.
_RUN_S: Final = 0.005


_CLASS_OF: Final = itemgetter(0)

ResultT = TypeVar("ResultT")


class Call(NamedTuple, Generic[ResultT]):
    """One piece of work: `function(*arguments)`.  Calls of one cost class take about the same time."""

    cost_class: str
    function: Callable[..., ResultT]
    arguments: tuple[object, ...]


class _Ticket:
    """What one submission waits for.  Written by workers under the pool's lock, but for `outcomes`, one slot a call."""

    __slots__ = (
        "began_s",
        "calls",
        "deadline",
        "failure",
        "future",
        "lane",
        "outcomes",
        "queued_s",
        "span",
        "unfinished",
    )

    def __init__(
        self,
        calls: Sequence[Call[Any]],
        deadline: float | None,
        lane: Lane,
        future: asyncio.Future[list[Any]],
        queued_s: float,
    ) -> None:
        self.calls = calls
        self.deadline = deadline
        self.lane = lane
        self.future = future
        self.outcomes: list[Any] = [None] * len(calls)
        self.unfinished = len(calls)
        self.failure: Exception | None = None
        self.queued_s = queued_s
        self.began_s = 0.0
        self.span = spans.current()


class _Chunk(NamedTuple):
    """Calls `start` to `stop` of a ticket."""

    ticket: _Ticket
    start: int
    stop: int


class WorkPool:
    """Runs calls on threads, in lanes, within deadlines, or refuses at once.

    Threads start at the first submission and deliver to the event loop that made it; one pool serves one loop.  A lane
    is served only when those before it are empty; key generation, which takes seconds, has threads of its own, to which the
    kernel gives what the others leave.  `clock` gives the seconds that deadlines are in.
    """

    def __init__(
        self,
        threads: int | None = None,
        max_queued: int = DEFAULT_MAX_QUEUED,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._thread_count = threads if threads is not None else os.cpu_count() or 1
        if self._thread_count < 1 or max_queued < 1:
            raise ValueError("a pool has at least one thread and room for one call")
        self._generator_count = max(1, self._thread_count - 1)
        self._clock = clock
        self._lock = threading.Lock()
        self._generation_arrived = threading.Condition(self._lock)
        self._work_arrived: SimpleQueue[None] = SimpleQueue()
        """One for each thread that is woken.  All of it is C, where a condition is a dozen of Python's steps."""
        self._finished: deque[_Ticket] = deque()
        self._wake_up_pending = False
        # From here on everything is read and written under the lock.
        self._lanes: dict[Lane, deque[_Chunk]] = {lane: deque() for lane in Lane}
        self._for_work = tuple(chunks for lane, chunks in self._lanes.items() if lane is not Lane.KEY_GENERATION)
        self._in_front = {lane: tuple(self._lanes[other] for other in Lane if other < lane) for lane in Lane}
        self._in_front[Lane.KEY_GENERATION] = ()
        workers = {**dict.fromkeys(Lane, self._thread_count), Lane.KEY_GENERATION: self._generator_count}
        self._backlog = Backlog(workers, max_queued, clock)
        self._idle = 0
        self._closing = False
        self._threads: list[threading.Thread] = []
        self._loop: asyncio.AbstractEventLoop | None = None

    @property
    def queue_depth(self) -> int:
        """Calls that are waiting for a thread."""
        return self._backlog.queued

    @property
    def waits(self) -> dict[Lane, Histogram]:
        """How long calls waited for a thread."""
        return self._backlog.waits

    def depths(self) -> dict[Lane, int]:
        """Calls that are waiting for a thread, by lane."""
        with self._lock:
            return self._backlog.depths()

    async def run(self, call: Call[ResultT], deadline: float | None, lane: Lane = Lane.ONLINE) -> ResultT:
        """Do one call and return what it returns.

        Raises what it raises; ResourceExhausted at once when the queue is full or too long for the deadline;
        DeadlineExceeded when the deadline is past, now or when its turn comes; Unavailable when the pool closes.
        """
        (outcome,) = await self.submit((call,), deadline, lane)
        if isinstance(outcome, VaultdError):
            raise outcome
        return outcome

    def submit(
        self, calls: Sequence[Call[ResultT]], deadline: float | None, lane: Lane = Lane.BATCH
    ) -> asyncio.Future[list[ResultT | VaultdError]]:
        """Queue calls and return the future of their outcomes, in order: what each returned, or its VaultdError.

        Any other exception is that of the whole future, and calls of it that have not begun are dropped, as they are
        when it is cancelled.  Raises ResourceExhausted, DeadlineExceeded or Unavailable, as `run` does, with nothing
        queued.
        """
        loop = asyncio.get_running_loop()
        ticket = _Ticket(calls, deadline, lane, loop.create_future(), self._clock())
        if not calls:
            ticket.future.set_result([])
            return ticket.future
        count = len(calls)
        chunks = -(-count // _CHUNK_CALLS)
        classes = Counter(map(_CLASS_OF, calls)) if count > 1 else {calls[0].cost_class: 1}
        woken = 0
        with self._lock:
            if self._loop is not loop or self._closing:
                self._start(loop)
            self._backlog.admit(classes, chunks, deadline, lane)
            queue = self._lanes[lane]
            for start in range(0, count, _CHUNK_CALLS):
                queue.append(_Chunk(ticket, start, min(start + _CHUNK_CALLS, count)))
            if lane is Lane.KEY_GENERATION:
                self._generation_arrived.notify(chunks)
            elif self._idle:
                woken = min(self._idle, chunks)
                self._idle -= woken
        for _ in range(woken):
            self._work_arrived.put(None)
        return ticket.future

    def require_open(self) -> None:
        """Raise Unavailable once `close` began."""
        if self._closing:
            raise _closed()

    async def close(self) -> None:
        """Fail what is queued with Unavailable, let what has begun finish, and join the threads.  Idempotent."""
        with self._lock:
            self._closing = True
            for chunks in self._lanes.values():
                for ticket in {chunk.ticket for chunk in chunks}:
                    self._fail(ticket, _closed())
                chunks.clear()
            self._backlog.clear()
            self._generation_arrived.notify_all()
            woken, self._idle = self._idle, 0
        for _ in range(woken):
            self._work_arrived.put(None)
        self._tell_loop()
        for thread in self._threads:
            await asyncio.to_thread(thread.join)
        self._deliver()

    # Admission, on the event loop, under the lock.

    def _start(self, loop: asyncio.AbstractEventLoop) -> None:
        self.require_open()
        if self._loop is None:
            self._loop = loop
            crews = {"work": (self._work, self._thread_count), "generate": (self._generate, self._generator_count)}
            for name, (target, count) in crews.items():
                for number in range(count):
                    # Daemons: a process that ends without `close` does not wait for a key to be generated.
                    thread = threading.Thread(target=target, name=f"vaultd-{name}-{number}", daemon=True)
                    self._threads.append(thread)
                    thread.start()
        elif self._loop is not loop:
            raise RuntimeError("a pool serves the one event loop that used it first")

    # Work, on the threads.

    def _work(self) -> None:
        while visit := self._wait_for_visit():
            for chunk in visit:
                self._do_chunk(chunk)

    def _generate(self) -> None:
        stand_back()
        waiting = self._lanes[Lane.KEY_GENERATION]
        while True:
            with self._lock:
                while not waiting:
                    if self._closing:
                        return
                    self._generation_arrived.wait()
                chunk = waiting.popleft()
            self._do_chunk(chunk)

    def _wait_for_visit(self) -> list[_Chunk]:
        """Take chunks of the first lane that has any; none when the pool is closing."""
        while True:
            with self._lock:
                for chunks in self._for_work:
                    if chunks:
                        return self._take_share(chunks)
                if self._closing:
                    return []
                self._idle += 1  # who wakes this thread counts it out
            self._work_arrived.get()

    def _take_share(self, chunks: deque[_Chunk]) -> list[_Chunk]:
        """Take at least one chunk, and at most this thread's share of the queue and of `_VISIT_S`."""
        share = len(chunks) // self._thread_count
        if share <= 1:
            return [chunks.popleft()]
        visit: list[_Chunk] = []
        budget_s = _VISIT_S
        while chunks and len(visit) < share and budget_s > 0:
            chunk = chunks.popleft()
            visit.append(chunk)
            first = chunk.ticket.calls[chunk.start]
            budget_s -= (chunk.stop - chunk.start) * self._backlog.estimate(first.cost_class, _VISIT_S)
        return visit

    def _do_chunk(self, chunk: _Chunk) -> None:
        ticket, index = chunk.ticket, chunk.start
        while index < chunk.stop:
            if index > chunk.start and self._give_way(_Chunk(ticket, index, chunk.stop)):
                return
            stop = self._begin(ticket, index, chunk.stop)
            if stop == index:
                index += 1  # dropped: nobody waits for it any more, or it is too late
                self._tell_loop()
            else:
                index = self._do_run(ticket, index, stop)

    def _do_run(self, ticket: _Ticket, start: int, stop: int) -> int:
        """Do calls of one class that were counted out together; returns the first that was not done."""
        calls, outcomes, lane = ticket.calls, ticket.outcomes, ticket.lane
        in_front = self._in_front[lane]
        cost_class, index, began = calls[start].cost_class, start, self._clock()
        while index < stop:
            if index > start and (any(in_front) or self._is_over(ticket)):
                break
            _, function, arguments = calls[index]
            try:
                outcomes[index] = function(*arguments)
            except VaultdError as error:
                outcomes[index] = error
            except BaseException as error:  # the thread outlives every call; the exception is that of the ticket
                with self._lock:
                    self._fail(ticket, _fit_for_future(error))
            index += 1
        took_s = self._clock() - began
        with self._lock:
            self._backlog.measure(cost_class, took_s / (index - start))
            if index < stop and not self._closing:
                self._backlog.add({cost_class: stop - index}, lane)
            self._count_down(ticket, index - start)
        self._tell_loop()
        return index

    def _is_due(self, lane: Lane) -> bool:
        """Whether a lane before this one has work."""
        # Without the lock: whether a deque is empty is one step, and being one call late does no harm.
        return any(self._in_front[lane])

    def _is_over(self, ticket: _Ticket) -> bool:
        """Whether nobody waits for the rest of a ticket.  Without the lock, as above."""
        if self._closing or ticket.failure is not None or ticket.future.cancelled():
            return True
        return ticket.deadline is not None and self._clock() >= ticket.deadline

    def _give_way(self, rest: _Chunk) -> bool:
        """Put the rest of a chunk back where it came from when a lane before it has work."""
        if not self._is_due(rest.ticket.lane):
            return False
        with self._lock:
            if self._closing:
                return False
            self._lanes[rest.ticket.lane].appendleft(rest)
        return True

    def _begin(self, ticket: _Ticket, index: int, stop: int) -> int:
        """Count calls as no longer queued, and say where they end: `index` itself when that one was dropped, with none begun."""
        calls = ticket.calls
        cost_class = calls[index].cost_class
        with self._lock:
            if self._closing:
                self._fail(ticket, _closed())
                return index
            now_s = self._clock()
            if (
                ticket.failure is not None
                or ticket.future.cancelled()
                or (ticket.deadline is not None and now_s >= ticket.deadline)
            ):
                self._backlog.take(cost_class, ticket.lane)
                if ticket.failure is None and not ticket.future.cancelled():
                    ticket.outcomes[index] = too_late()
                    self._count_down(ticket, 1)
                return index
            end = index + 1
            if end < stop:
                each_s = self._backlog.estimate(cost_class, _RUN_S)
                last = min(stop, index + max(1, int(_RUN_S / each_s) if each_s > 0 else stop - index))
                while end < last and calls[end].cost_class == cost_class:
                    end += 1
            self._backlog.take(cost_class, ticket.lane, end - index)
            self._backlog.waits[ticket.lane].add(now_s - ticket.queued_s, end - index)
            if not ticket.began_s:
                ticket.began_s = now_s
            return end

    # Delivery.  The first two are called under the lock.

    def _count_down(self, ticket: _Ticket, calls: int) -> None:
        ticket.unfinished -= calls
        if ticket.unfinished == 0 and ticket.failure is None:
            self._finished.append(ticket)

    def _fail(self, ticket: _Ticket, failure: Exception) -> None:
        if ticket.failure is None:
            ticket.failure = failure
            self._finished.append(ticket)

    def _tell_loop(self) -> None:
        """Wake the loop for what has finished, unless somebody did and it has not looked yet."""
        if self._finished and not self._wake_up_pending and self._loop is not None:
            self._wake_up_pending = True
            try:
                self._loop.call_soon_threadsafe(self._deliver)
            except RuntimeError:
                return  # the loop is closed, and nobody waits any more

    def _deliver(self) -> None:
        """Hand over, on the event loop, everything that has finished by now."""
        self._wake_up_pending = False  # before the look: who finishes from here on wakes the loop again
        while self._finished:
            ticket = self._finished.popleft()
            if ticket.span is not None:
                spans.record_work(ticket.span, "software", ticket.queued_s, ticket.began_s, len(ticket.calls))
            if ticket.future.done():
                continue
            if ticket.failure is not None:
                ticket.future.set_exception(ticket.failure)
            else:
                ticket.future.set_result(ticket.outcomes)


def _fit_for_future(error: BaseException) -> Exception:
    """Wrap what a future does not take (StopIteration), or a loop would die of (KeyboardInterrupt, a panic in Rust)."""
    if isinstance(error, Exception) and not isinstance(error, StopIteration):
        return error
    wrapped = RuntimeError("a call in the pool ended abnormally")
    wrapped.__cause__ = error
    return wrapped


def _closed() -> Unavailable:
    return Unavailable("SHUTTING_DOWN", "the server is shutting down; try another one, or again later")
