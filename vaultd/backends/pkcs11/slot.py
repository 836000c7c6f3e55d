"""A token as the server sees it: a queue that knows deadlines, and a worker process that is replaced when it fails.

What was asked of a worker that failed is asked once more of the next one; nothing here is done twice with two effects.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import time
from collections import Counter, deque
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from enum import Enum
from typing import TYPE_CHECKING, Any, Final, NamedTuple, Protocol

import structlog

from vaultd.backends.backlog import Backlog, too_late
from vaultd.backends.base import Lane
from vaultd.backends.pkcs11.messages import LAST_USE, Hello, Status, Verb, pack
from vaultd.backends.pkcs11.process import WorkerProcess
from vaultd.errors import FailedPrecondition, Unavailable, VaultdError
from vaultd.telemetry import spans

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Mapping, Sequence
    from contextlib import AbstractAsyncContextManager

    from vaultd.backends.pkcs11.uri import TokenSelector
    from vaultd.secret import Secret

_log = structlog.get_logger("vaultd.hsm")

_LIST_CALLS: Final = 64


class _Share(NamedTuple):
    """How much estimated work of a lane is in one list of requests at most, and before each of a worker's threads.

    A list is one thread's, and costs a wake-up on either side, whatever is in it.  What is online waits behind one request of
    a batch's list, not behind all of it.
    """

    list_s: float
    window_s: float


_SHORTEST_LIST_S: Final = 0.0005
_SHARES: Final = {Lane.ONLINE: _Share(_SHORTEST_LIST_S, 0.004), Lane.BATCH: _Share(0.008, 0.016)}
_UNKNOWN_S: Final = 0.002
_WATCH_S: Final = 0.1
_RECOVERY_S: Final = 0.5
_BACKOFF_S: Final = (0.25, 0.5, 1.0)
_SHORT_LIFE_S: Final = 0.5
_MISS_AGAIN_S: Final = 30.0
_QUIET_S: Final = 5.0
_REMEMBERED: Final = 1_000
"""Objects that are missing, or were destroyed: the last ones."""


class LoginTurn(Protocol):
    """One process's turn to try the PIN of a token."""

    refused: bytes
    """SHA-256 of the PIN that the token refused last, whoever tried it; empty when it refused none."""
    lacking: dict[str, str] | None
    """What the token cannot do, where another process found it out; None where nobody did."""


class _OwnTurn:
    refused = b""
    lacking: dict[str, str] | None = None


@asynccontextmanager
async def _own_turn(slot: str) -> AsyncIterator[LoginTurn]:
    """Nobody else logs in to the token."""
    del slot
    yield _OwnTurn()


@dataclass(frozen=True, slots=True)
class SlotSettings:
    """Which token, and how it is entered.

    name: what key versions and the health component call it.  read_pin: reads the PIN from where it is kept; may raise
    FailedPrecondition.  sessions: for uses, beside the one that makes and destroys keys.  environment: variables for the
    module.  operation_timeout_s and generation_timeout_s: without an answer for so long a worker is given up.  login: the turn to
    try the PIN, where other processes use the token, too; raises Unavailable when it does not come.
    """

    name: str
    selector: TokenSelector
    read_pin: Callable[[], Secret]
    sessions: int = field(default_factory=lambda: os.cpu_count() or 1)
    max_queued: int = 20_000
    operation_timeout_s: float = 10.0
    generation_timeout_s: float = 120.0
    environment: Mapping[str, str] = field(default_factory=dict)
    login: Callable[[str], AbstractAsyncContextManager[LoginTurn]] = _own_turn


class SlotState(Enum):
    """Whether calls are answered, wait for a moment, or are refused."""

    RECOVERING = "RECOVERING"
    SERVING = "SERVING"
    DOWN = "DOWN"
    CLOSED = "CLOSED"


class Request(NamedTuple):
    """One thing to ask of a worker.  Requests of one cost class take about the same time."""

    cost_class: str
    verb: Verb
    arguments: tuple[Any, ...]


class _Ticket:
    """What one submission waits for."""

    __slots__ = ("deadline", "future", "lane", "launched_s", "outcomes", "queued_s", "span", "unfinished")

    def __init__(
        self, count: int, deadline: float | None, lane: Lane, future: asyncio.Future[list[Any]], queued_s: float
    ) -> None:
        self.deadline = deadline
        self.lane = lane
        self.future = future
        self.outcomes: list[Any] = [None] * count
        self.unfinished = count
        self.queued_s = queued_s
        self.launched_s = 0.0
        self.span = spans.current()

    def settle(self, index: int, outcome: Any) -> None:
        self.outcomes[index] = outcome
        self.unfinished -= 1
        if self.unfinished == 0 and not self.future.done():
            if self.span is not None:
                spans.record_work(self.span, "hsm", self.queued_s, self.launched_s, len(self.outcomes))
            self.future.set_result(self.outcomes)


class _Work:
    """One request of a ticket."""

    __slots__ = ("expected_s", "index", "launched_s", "request", "retried", "ticket")

    def __init__(self, ticket: _Ticket, index: int, request: Request) -> None:
        self.ticket = ticket
        self.index = index
        self.request = request
        self.retried = False
        self.launched_s = 0.0
        self.expected_s = 0.0

    def settle(self, outcome: Any) -> None:
        self.ticket.settle(self.index, outcome)


class TokenSlot:
    """Sends requests to the worker of one token, and keeps a worker there.

    `on_health` is told when the token begins and ceases to answer.  One event loop.
    """

    def __init__(
        self,
        settings: SlotSettings,
        on_health: Callable[[str, bool], None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.settings = settings
        self.state = SlotState.RECOVERING
        self.token: dict[str, str] = {}
        self.lacking: dict[str, str] | None = None
        """Algorithms that the token cannot do, with the reason; None until it was reached for the first time."""
        self.logins = 0
        self.recoveries = 0
        self._on_health = on_health
        self._clock = clock
        self._why = "it was not reached yet"
        workers = {**dict.fromkeys(Lane, settings.sessions), Lane.KEY_GENERATION: 1}
        self._backlog = Backlog(workers, settings.max_queued, clock)
        self._threads = settings.sessions
        self._lanes: dict[Lane, deque[_Work]] = {lane: deque() for lane in Lane}
        self._in_flight: dict[int, _Work] = {}
        self._managing = 0
        self._managing_since_s = 0.0
        self._in_flight_s = dict.fromkeys(_SHARES, 0.0)
        self._next_number = 0
        self._heard_s = 0.0
        self._pumping = False
        self._worker: WorkerProcess | None = None
        self._lost = asyncio.Event()
        self._first_try = asyncio.Event()
        self._nudge = asyncio.Event()
        self._refused_pin: bytes | None = None
        self._missing: dict[bytes, float] = {}
        self._missed_s = -_MISS_AGAIN_S
        self._worked_s = 0.0
        self._destroyed: dict[bytes, None] = {}
        self._tasks: list[asyncio.Task[None]] = []

    @property
    def _closed(self) -> bool:
        return self.state is SlotState.CLOSED

    @property
    def serving(self) -> bool:
        """Whether the token answers."""
        return self.state is SlotState.SERVING

    @property
    def sessions(self) -> int:
        """Sessions that the worker uses; 0 while there is none."""
        return self._threads if self._worker is not None else 0

    @property
    def backlog(self) -> Backlog:
        """What is queued, for metrics."""
        return self._backlog

    @property
    def worker_pid(self) -> int:
        """Of the worker's process; 0 when there is none."""
        return self._worker.pid if self._worker is not None else 0

    # -- for callers ----------------------------------------------------------------------------------------------------

    async def open(self) -> None:
        """Start the first worker and return when it serves, or failed to: a token that is away is waited for later."""
        self._tasks = [asyncio.create_task(self._supervise()), asyncio.create_task(self._watch())]
        await self._first_try.wait()

    def submit(self, requests: Sequence[Request], deadline: float | None, lane: Lane) -> asyncio.Future[list[Any]]:
        """Queue requests and return the future of their outcomes, in order: results or VaultdErrors.

        Raises, with nothing queued, Unavailable while the token does not answer, ResourceExhausted when the queue is full
        or too long for the deadline, DeadlineExceeded when that is past.
        """
        self._require_hope(deadline)
        future: asyncio.Future[list[Any]] = asyncio.get_running_loop().create_future()
        ticket = _Ticket(len(requests), deadline, lane, future, self._clock())
        if not requests:
            future.set_result([])
            return future
        self._backlog.admit(Counter(request.cost_class for request in requests), self._threads, deadline, lane)
        work = [_Work(ticket, index, request) for index, request in enumerate(requests)]
        if requests[0].verb is Verb.DESTROY:
            # It takes milliseconds, and the keys that are to be made before it may take a minute.
            self._lanes[lane].extendleft(work)
        else:
            self._lanes[lane].extend(work)
        self._pump_soon()
        return future

    async def ask(self, request: Request, deadline: float | None, lane: Lane) -> Any:
        """Do one request and return its result; raises what `submit` raises, and what the token answers."""
        (outcome,) = await self.submit((request,), deadline, lane)
        if isinstance(outcome, VaultdError):
            raise outcome
        return outcome

    def reload(self) -> None:
        """Try the PIN again, even one that was refused: an operator says so."""
        self._refused_pin = None
        self._nudge.set()

    async def close(self) -> None:
        """End the worker; what is queued or under way fails with Unavailable.  Idempotent."""
        if self._closed:
            return
        self.state = SlotState.CLOSED
        self._fail_all(_shut_down())
        self._lost.set()
        self._nudge.set()
        if self._worker is not None:
            self._worker.hang_up()
        for task in self._tasks:
            await task

    def unavailable(self) -> Unavailable:
        """The error of a token that does not answer."""
        name = self.settings.name
        return Unavailable(
            "HSM_UNAVAILABLE",
            f"the token of HSM slot {name} does not answer now ({self._why}); health component hsm:{name} tells when it does",
            retry_after_s=1.0,
        )

    def _require_hope(self, deadline: float | None) -> None:
        if self.state is SlotState.CLOSED:
            raise _shut_down()
        if self.state is SlotState.DOWN:
            raise self.unavailable()
        if self.state is SlotState.RECOVERING and deadline is not None:
            left_s = deadline - self._clock()
            if left_s <= 0:
                raise too_late()
            if left_s < _RECOVERY_S:
                raise self.unavailable()

    # -- sending and receiving ------------------------------------------------------------------------------------------

    def _pump_soon(self) -> None:
        if not self._pumping:
            self._pumping = True
            asyncio.get_running_loop().call_soon(self._pump)

    def _pump(self) -> None:
        """Hand queued work to the worker, as much as it has room for, in one write."""
        self._pumping = False
        if self.state is not SlotState.SERVING or self._worker is None:
            return
        out: list[bytes] = []
        now_s = self._clock()
        if self._managing == 0 and not self._held_up():
            work = self._take(Lane.KEY_GENERATION, now_s)
            if work is not None:
                out.append(pack([Lane.KEY_GENERATION, [self._launch(work, now_s)]]))
        for lane, share in _SHARES.items():
            in_flight_s = self._in_flight_s
            while self._lanes[lane] and in_flight_s[lane] < self._threads * share.window_s:
                list_s = share.list_s
                if list_s > _SHORTEST_LIST_S:
                    # What is queued is for all threads: the last of it is not left to one of them.
                    list_s = min(list_s, max(_SHORTEST_LIST_S, self._backlog.wait_s(lane)))
                requests: list[Any] = []
                full_s = in_flight_s[lane] + list_s
                while (
                    in_flight_s[lane] < full_s
                    and len(requests) < _LIST_CALLS
                    and (work := self._take(lane, now_s)) is not None
                ):
                    requests.append(self._launch(work, now_s))
                if requests:
                    out.append(pack([lane, requests]))
            if self._lanes[lane]:
                break  # the lanes behind it wait
        if out:
            self._worker.send(b"".join(out))

    def _held_up(self) -> bool:
        """Whether what comes next is to destroy a key that is being used: what a token makes of that, nobody knows.

        No use of it begins any more, those under way end in no time, and what comes late is not looked for in the token.
        """
        queue = self._lanes[Lane.KEY_GENERATION]
        if not queue or queue[0].request.verb is not Verb.DESTROY:
            return False
        object_id = queue[0].request.arguments[0]
        _remember(self._destroyed, object_id, None)
        return any(work.request.arguments[0] == object_id for work in self._in_flight.values())

    def _take(self, lane: Lane, now_s: float) -> _Work | None:
        """The next request that somebody still waits for."""
        queue = self._lanes[lane]
        while queue:
            work = queue.popleft()
            self._backlog.take(work.request.cost_class, lane)
            ticket = work.ticket
            if ticket.future.done():
                continue
            if ticket.deadline is not None and now_s >= ticket.deadline:
                work.settle(too_late())
                continue
            if self._destroyed and lane is not Lane.KEY_GENERATION and work.request.arguments[0] in self._destroyed:
                work.settle(FailedPrecondition("KEY_VERSION_DESTROYED", "the version's material is gone"))
                continue
            return work
        return None

    def _launch(self, work: _Work, now_s: float) -> list[Any]:
        if not self._in_flight:
            self._heard_s = now_s
        self._next_number = number = self._next_number + 1
        self._in_flight[number] = work
        work.launched_s = now_s
        ticket = work.ticket
        self._backlog.waits[ticket.lane].add(now_s - ticket.queued_s)
        if not ticket.launched_s:
            ticket.launched_s = now_s
        cost_class, verb, arguments = work.request
        if verb > LAST_USE:
            self._managing += 1
            self._managing_since_s = now_s
        else:
            work.expected_s = self._backlog.estimate(cost_class, _UNKNOWN_S)
            self._in_flight_s[work.ticket.lane] += work.expected_s
        return [number, verb, *arguments]

    def _receive(self, worker: WorkerProcess, replies: Any) -> None:
        if worker is not self._worker:
            return
        self._heard_s = self._clock()
        for number, status, payload, service_us in replies:
            work = self._in_flight.pop(number, None)
            if work is None:
                continue
            request = work.request
            if request.verb <= LAST_USE:
                self._in_flight_s[work.ticket.lane] -= work.expected_s
            else:
                self._managing -= 1
                self._note_objects(request, status, payload)
            if status == Status.DONE:
                self._worked_s = self._heard_s
                if self._missing:
                    self._missing.pop(request.arguments[0], None)
                self._backlog.measure(request.cost_class, service_us / 1e6)
                work.settle(payload)
            else:
                self._settle_failure(work, Status(status), payload)
        if not self._in_flight:
            self._in_flight_s = dict.fromkeys(_SHARES, 0.0)  # what sums of fractions leave over
        self._pump()

    def _settle_failure(self, work: _Work, status: Status, payload: Any) -> None:
        if status is Status.BAD_INPUT:
            work.settle(BadInput())
        elif status is Status.REFUSED:
            work.settle(FailedPrecondition("HSM_REFUSED", f"the token refuses: {payload}"))
        elif status is Status.MISSING:
            self._settle_missing(work)
        else:
            self._again(work)
            self._lose_worker(str(payload))

    def _note_objects(self, request: Request, status: int, payload: Any) -> None:
        """What was found or made is not destroyed any more, and what could not be destroyed is not."""
        if status == Status.DONE and request.verb is Verb.FIND and payload is not None:
            self._destroyed.pop(bytes(payload["object_id"]), None)
        elif request.verb in {Verb.GENERATE, Verb.IMPORT} or status == Status.REFUSED:
            self._destroyed.pop(request.arguments[0], None)

    def _settle_missing(self, work: _Work) -> None:
        """Our row says that the object exists.  It is looked for once more; by a fresh worker, when nothing else works either."""
        object_id, now_s = bytes(work.request.arguments[0]), self._clock()
        if not work.retried:
            self._again(work)
            if now_s - self._worked_s > _QUIET_S and now_s - self._missed_s > _MISS_AGAIN_S:
                self._missed_s = now_s
                self._lose_worker("an object is missing")
            return
        if now_s - self._missing.get(object_id, -_MISS_AGAIN_S) >= _MISS_AGAIN_S:
            _remember(self._missing, object_id, now_s)
            _log.error("hsm_key_missing", slot=self.settings.name, object_id=object_id.hex())
        work.settle(
            Unavailable(
                "HSM_KEY_MISSING",
                f"the token of HSM slot {self.settings.name} does not show this key's object; it must be restored there",
                retry_after_s=_MISS_AGAIN_S,
            )
        )

    def _again(self, work: _Work) -> None:
        """Put a request back in front, once."""
        if work.retried:
            work.settle(self.unavailable())
            return
        work.retried = True
        lane = work.ticket.lane
        self._lanes[lane].appendleft(work)
        self._backlog.add(Counter((work.request.cost_class,)), lane)

    def _lose_worker(self, why: str) -> None:
        """Give the worker up.  What it had not answered is asked again of the next one."""
        if self.state is not SlotState.SERVING:
            return
        _log.warning("hsm_worker_lost", slot=self.settings.name, why=why)
        self._why = "its worker failed"
        self.state = SlotState.RECOVERING
        self._on_health(self.settings.name, False)
        in_flight = list(self._in_flight.values())
        self._in_flight.clear()
        self._managing, self._in_flight_s = 0, dict.fromkeys(_SHARES, 0.0)
        for work in reversed(in_flight):
            self._again(work)
        self._lost.set()

    def _fail_all(self, error: VaultdError) -> None:
        for lane, queue in self._lanes.items():
            while queue:
                work = queue.popleft()
                self._backlog.take(work.request.cost_class, lane)
                work.settle(error)
        for work in self._in_flight.values():
            work.settle(error)
        self._in_flight.clear()
        self._managing, self._in_flight_s = 0, dict.fromkeys(_SHARES, 0.0)

    # -- keeping a worker -----------------------------------------------------------------------------------------------

    async def _supervise(self) -> None:
        failures = 0
        while not self._closed:
            began_s = self._clock()
            why = await self._start_worker()
            if not self._closed:
                began_s = self._clock()
                if why:
                    self._go_down(why)
                else:
                    await self._serve()
            self._first_try.set()
            await self._end_worker()
            if not why and self._clock() - began_s > _SHORT_LIFE_S:
                failures = 0
                continue
            with suppress(TimeoutError):
                await asyncio.wait_for(self._nudge.wait(), _BACKOFF_S[min(failures, len(_BACKOFF_S) - 1)])
            self._nudge.clear()
            failures += 1

    def _go_down(self, why: str) -> None:
        self._why = why
        if self.state is not SlotState.DOWN:
            _log.error("hsm_down", slot=self.settings.name, why=why)
        self.state = SlotState.DOWN
        self._on_health(self.settings.name, False)
        self._fail_all(self.unavailable())

    async def _serve(self) -> None:
        _log.info("hsm_serving", slot=self.settings.name, **self.token)
        self.state = SlotState.SERVING
        self._on_health(self.settings.name, True)
        self._first_try.set()
        self._pump_soon()
        await self._lost.wait()
        self.recoveries += 1

    async def _start_worker(self) -> str:
        """Start a worker and let it enter the token; returns "" when it serves, or why it does not."""
        settings = self.settings
        try:
            pin = await asyncio.to_thread(settings.read_pin)
            async with settings.login(settings.name) as turn:
                return await self._log_in(pin.expose("log in to the token"), turn)
        except VaultdError as error:  # the PIN cannot be read, or it is another process's turn
            return error.text

    async def _log_in(self, exposed: bytes, turn: LoginTurn) -> str:
        settings, selector = self.settings, self.settings.selector
        digest = hashlib.sha256(exposed).digest()
        self.lacking = turn.lacking if self.lacking is None else self.lacking
        if digest in (self._refused_pin, turn.refused):
            return "the token refused this PIN; correct it, or send SIGHUP to try it again"
        hello = Hello(
            selector.module,
            selector.label,
            selector.serial,
            selector.manufacturer,
            selector.model,
            exposed.decode("utf-8", "replace"),
            settings.sessions,
            self.lacking is None,
        )
        self._lost.clear()
        self._worker = WorkerProcess(self._receive, self._ended)
        try:
            greeting = await self._worker.start(settings.environment, hello)
        except OSError as error:
            return f"its worker cannot be started ({os.strerror(error.errno or 0)})"
        if "refused" in greeting:
            self.logins += 1
            self._refused_pin = turn.refused = digest
            return str(greeting["refused"])
        if "token" not in greeting:
            return (
                f"the token is away or does not work: {greeting.get('absent', 'its worker ended, or does not answer')}"
            )
        self.logins += 1
        self.token = greeting["token"]
        self._threads = int(greeting["threads"])
        if greeting["lacking"] is not None:
            self.lacking = turn.lacking = greeting["lacking"]
        return ""

    def _ended(self, worker: WorkerProcess) -> None:
        if worker is self._worker:
            self._lose_worker("its worker ended")

    async def _end_worker(self) -> None:
        worker, self._worker = self._worker, None
        if worker is not None:
            await worker.end()

    async def _watch(self) -> None:
        """Fail what is queued past its deadline, and give up a worker that has stopped answering."""
        while not self._closed:
            await asyncio.sleep(_WATCH_S)
            now_s = self._clock()
            for lane, queue in self._lanes.items():
                if any(work.ticket.deadline is not None and work.ticket.deadline <= now_s for work in queue):
                    for work in list(queue):
                        if work.ticket.deadline is not None and work.ticket.deadline <= now_s:
                            queue.remove(work)
                            self._backlog.take(work.request.cost_class, lane)
                            work.settle(too_late())
            if self.state is SlotState.SERVING:
                stuck = now_s - self._answering_since(now_s) > self.settings.operation_timeout_s
                if stuck or (self._managing and now_s - self._managing_since_s > self.settings.generation_timeout_s):
                    self._lose_worker("its module does not answer")

    def _answering_since(self, now_s: float) -> float:
        """Since when a use waits for the worker's answer: one thread may hang while the others go on."""
        for work in self._in_flight.values():  # the oldest come first
            if work.request.verb <= LAST_USE:
                if self._threads > 1:
                    return work.launched_s
                # A single thread does one thing after the other; making a key has a limit of its own.
                return now_s if self._managing else max(self._heard_s, work.launched_s)
        return now_s


def _remember(memory: dict[bytes, Any], object_id: bytes, what: Any) -> None:
    """Keep the newest ones: those that are in use, or wait in a queue."""
    memory.pop(object_id, None)
    if len(memory) >= _REMEMBERED:
        del memory[next(iter(memory))]
    memory[object_id] = what


def _shut_down() -> Unavailable:
    return Unavailable("SHUTTING_DOWN", "the server is shutting down; try another one, or again later")


class BadInput(VaultdError):
    """The token refused the data, and is sound.  What that means depends on the operation; it never reaches a caller."""

    code = "INVALID_ARGUMENT"

    def __init__(self) -> None:
        super().__init__("BAD_INPUT", "the token does not accept the data")
