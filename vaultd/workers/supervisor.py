"""Keeps N workers: starts them, starts again what crashed, replaces them one by one, and carries what they say to each other.

The supervisor holds ports and no connections, opens no store and no log, and keeps no key: root keys that one worker hands to
another pass through its memory.  When it dies, the workers notice and drain.
"""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import sys
import tempfile
import time
from contextlib import AsyncExitStack, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import structlog

from vaultd.workers.channel import Channel, ChannelClosed
from vaultd.workers.ports import HeldPort
from vaultd.workers.siblings import SETTLE_S

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from vaultd.workers.channel import Body

QUICK_S: Final = 10.0
"""A worker that ends sooner after its start than this has crashed quickly: the next one is started later and later."""
MAX_FAILED: Final = 5
"""Starts one after the other that never came to serve.  A worker that did is started again, however often it dies."""
BACKOFF_S: Final = (0.0, 0.2, 0.5, 1.0, 2.0)
SEAL_S: Final = 3.0
"""A worker that does not say within this that it is sealed is killed."""
OPEN_S: Final = 50.0
LEAVE_S: Final = 15.0
"""Beyond `drain_grace_s`, how long a worker may take to end."""
SCRAPE_S: Final = 5.0

_log = structlog.get_logger("vaultd.supervisor")


@dataclass(slots=True, eq=False)
class Worker:
    """A process, from its start to its end."""

    index: int
    process: asyncio.subprocess.Process
    channel: Channel | None = None
    serving: bool = False
    replaced: bool = False
    """Whether it was asked to end so that another takes its place."""
    chain_id: bytes = b""


class _LoginTurns:
    """Whose turn it is to log in to a token, who waits for it, the PIN that it refused, and what it cannot do."""

    def __init__(self) -> None:
        self.holder: Worker | None = None
        self.waiting: dict[Worker, asyncio.Future[None]] = {}
        self.refused = b""
        self.lacking: dict[str, str] | None = None

    async def take(self, worker: Worker) -> bool:
        """Wait for the turn; False when the worker left meanwhile."""
        if self.holder is None:
            self.holder = worker
        else:
            self.waiting[worker] = turn = asyncio.get_running_loop().create_future()
            await turn
        return self.holder is worker

    def leave(self, worker: Worker) -> None:
        """Give the turn up, or the wait for it: nobody is given one who does not wait any more."""
        turn = self.waiting.pop(worker, None)
        if turn is not None:
            turn.set_result(None)
        if self.holder is worker:
            self.holder = next(iter(self.waiting), None)
            if self.holder is not None:
                self.waiting.pop(self.holder).set_result(None)


class Supervisor:
    """`run` returns when all has ended.

    `command` starts a worker; its place and the control descriptor are put behind it.  `on_ready` is told once, when all serve, of
    the address and of the public keys of the audit log.
    """

    def __init__(
        self,
        command: Sequence[str],
        count: int,
        listen: str,
        listen_tls: str,
        drain_grace_s: float,
        on_ready: Callable[[str, bytes], None],
        *,
        counts_fd: int,
        accept_restore: bool = False,
    ) -> None:
        self._command = list(command)
        self._count = count
        self._addresses = {"listen": listen, "listen_tls": listen_tls}
        self._drain_grace_s = drain_grace_s
        self._on_ready = on_ready
        self._counts_fd = counts_fd
        self._accept_restore = accept_restore
        self._workers: dict[int, Worker] = {}
        self._keepers: dict[int, asyncio.Task[None]] = {}
        self._changed = asyncio.Event()
        self._stop = asyncio.Event()
        self._roll = asyncio.Event()
        self._announced = False
        self._failed = False
        self._sealed = False
        self._seals = 0
        self._logins: dict[str, _LoginTurns] = {}
        self._audit_keys = b""

    # -- the whole ------------------------------------------------------------------------------------------------------

    async def run(self, beside: Callable[[AsyncExitStack, Supervisor], Awaitable[None]] | None = None) -> bool:
        """Serve until a signal or a failure; returns whether it ended as it was asked to.  `beside` opens what else is served."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._end)
        loop.add_signal_handler(signal.SIGHUP, self._reload)
        loop.add_signal_handler(signal.SIGUSR2, self._roll.set)
        async with AsyncExitStack() as stack:
            for name, address in self._addresses.items():
                if address:
                    port = HeldPort(address)
                    stack.callback(port.close)
                    self._addresses[name] = port.address
            stack.push_async_callback(self._end_all)
            self._start(
                0
            )  # by itself: what is wrong with the configuration, the store or a PIN is said, and tried, once
            if await self._wait_for(lambda: self._serves(0)):
                for index in range(1, self._count):
                    self._start(index)
                if await self._wait_for(lambda: all(map(self._serves, range(self._count)))):
                    if beside is not None:
                        await beside(stack, self)
                    self._announced = True
                    self._on_ready(self._addresses["listen"], self._audit_keys)
                    await self._serve()
        return not self._failed

    async def _serve(self) -> None:
        while not self._stop.is_set():
            waits = [asyncio.ensure_future(event.wait()) for event in (self._stop, self._roll)]
            await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
            for wait in waits:
                wait.cancel()
            if self._roll.is_set() and not self._stop.is_set():
                self._roll.clear()
                await self._replace_all()

    async def _wait_for(self, holds: Callable[[], bool]) -> bool:
        """Wait until it holds; False when all is to end before that."""
        while not self._stop.is_set():
            if holds():
                return True
            await self._changed.wait()
        return False

    def _tell_changed(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()

    def _end(self) -> None:
        self._stop.set()
        self._tell_changed()

    def _serves(self, index: int) -> bool:
        worker = self._workers.get(index)
        return worker is not None and worker.serving

    def _fail(self) -> None:
        self._failed = True
        self._end()

    def _reload(self) -> None:
        """SIGHUP: every worker reads its files again; a PIN that was refused may be tried again, once."""
        for turns in self._logins.values():
            turns.refused, turns.lacking = b"", None
        for worker in self._workers.values():
            if worker.serving:  # one that starts reads them now, and is not ready for a signal
                with suppress(ProcessLookupError):
                    worker.process.send_signal(signal.SIGHUP)

    async def _end_all(self) -> None:
        self._end()
        for worker in self._workers.values():
            with suppress(ProcessLookupError):
                worker.process.terminate()
        if self._keepers:
            _, slow = await asyncio.wait(self._keepers.values(), timeout=self._drain_grace_s + LEAVE_S)
            if slow:
                for worker in self._workers.values():
                    _log.error("worker_killed", worker=worker.index, why="it did not end")
                    with suppress(ProcessLookupError):
                        worker.process.kill()
                await asyncio.wait(slow)

    # -- one worker -----------------------------------------------------------------------------------------------------

    def _start(self, index: int) -> None:
        self._keepers[index] = asyncio.get_running_loop().create_task(self._keep(index))
        self._keepers[index].add_done_callback(self._kept)

    def _kept(self, keeper: asyncio.Task[None]) -> None:
        error = None if keeper.cancelled() else keeper.exception()
        if error is not None:  # a fault of ours: better no server than one that lost a worker without a word
            _log.critical("supervisor_failed", exc_info=error)
            self._fail()
        self._tell_changed()

    async def _keep(self, index: int) -> None:
        """Have a worker at this place until all ends, or too many in a row did not come to serve."""
        quick = failed = 0
        while not self._stop.is_set():
            began_s, served = time.monotonic(), False
            try:
                worker = await self._spawn(index)
            except OSError as error:
                _log.error("worker_not_started", worker=index, why=os.strerror(error.errno or 0))
                if self._stop.is_set():
                    return
            else:
                code = await worker.process.wait()
                served = worker.serving
                if self._workers.get(index) is worker:
                    del self._workers[index]
                self._release_logins(worker)
                if worker.channel is not None:
                    worker.channel.close()
                self._tell_changed()
                if self._stop.is_set() or worker.replaced:
                    quick = failed = 0
                    continue
                _log.error("worker_ended", worker=index, code=code)
            if not self._announced:
                self._fail()
                return
            quick = quick + 1 if time.monotonic() - began_s < QUICK_S else 1
            failed = 0 if served else failed + 1
            if failed >= MAX_FAILED:
                _log.error(
                    "worker_given_up",
                    worker=index,
                    advice="it does not come to serve; the others go on; mend what its log says, then send SIGUSR2",
                )
                if not self._workers:
                    self._fail()
                return
            await self._pause(BACKOFF_S[min(quick, len(BACKOFF_S)) - 1])

    async def _pause(self, seconds: float) -> None:
        with suppress(TimeoutError):
            await asyncio.wait_for(self._stop.wait(), seconds)

    async def _spawn(self, index: int) -> Worker:
        """Start a worker and greet it; raises OSError."""
        here, there = socket.socketpair()
        try:
            with there:
                fd = there.fileno()
                process = await asyncio.create_subprocess_exec(
                    *self._command,
                    f"--index={index}",
                    f"--control-fd={fd}",
                    stdin=asyncio.subprocess.DEVNULL,
                    pass_fds=(fd, self._counts_fd),
                    start_new_session=True,  # Ctrl-C in a terminal is for the supervisor, which tells them
                )
        except BaseException:
            here.close()
            raise
        worker = self._workers[index] = Worker(index, process)

        async def handle(kind: str, body: Body) -> Body | None:
            return await self._handle(worker, kind, body)

        try:
            worker.channel = await Channel.attach(here, handle)
        except OSError:
            del self._workers[index]
            here.close()
            process.kill()
            raise
        worker.channel.tell(
            "hello",
            count=self._count,
            sealed=self._sealed,
            seals=self._seals,
            counts_fd=self._counts_fd,
            accept_restore=self._accept_restore and not self._announced,
            **self._addresses,
        )
        _log.info("worker_started", worker=index, pid=process.pid)
        if self._stop.is_set():  # all ended while it was made
            process.terminate()
        return worker

    async def _replace_all(self) -> None:
        """A rolling restart: each worker in turn ends and comes back; the next one only when it serves again."""
        _log.info("rolling_restart")
        for index in range(self._count):
            worker = self._workers.get(index)
            if worker is not None:
                worker.replaced = True
                with suppress(ProcessLookupError):
                    worker.process.terminate()
                if not await self._gone(worker):
                    return
            elif self._keepers[index].done():  # it was given up
                self._start(index)
            if not await self._wait_for(lambda at=index: self._serves(at) or self._keepers[at].done()):  # type: ignore[misc]
                return
            if not self._serves(index):
                _log.error(
                    "rolling_restart_stopped", worker=index, advice="it does not start; the others go on as they are"
                )
                return
        _log.info("rolling_restart_done")

    async def _gone(self, worker: Worker) -> bool:
        """Wait for its end, and end it when it takes too long; False when all is to end."""
        until = asyncio.get_running_loop().create_task(worker.process.wait())
        stop = asyncio.ensure_future(self._stop.wait())
        await asyncio.wait((until, stop), timeout=self._drain_grace_s + LEAVE_S, return_when=asyncio.FIRST_COMPLETED)
        stop.cancel()
        if not until.done() and not self._stop.is_set():
            _log.error("worker_killed", worker=worker.index, why="it did not drain")
            with suppress(ProcessLookupError):
                worker.process.kill()
        if self._stop.is_set():
            until.cancel()
            return False
        await until
        return await self._wait_for(lambda: self._workers.get(worker.index) is not worker)

    # -- what they say --------------------------------------------------------------------------------------------------

    async def _handle(self, worker: Worker, kind: str, body: Body) -> Body | None:
        match kind:
            case "ready":
                worker.serving, worker.chain_id = True, body["chain_id"]
                self._audit_keys = body["audit_keys"]
                self._tell_changed()
            case "committed":
                for other in self._others(worker):
                    other.tell("poll")
            case "settle":
                await self._ask_others(worker, "poll", SETTLE_S)
            case "sealed":
                self._sealed, self._seals = True, self._seals + 1
                await self._seal_all(worker)
            case "opened":
                return await self._open_others(worker, body)
            case "keys":
                await self._ask_others(worker, "keys", SETTLE_S * 2, keys=body["keys"])
            case "want_keys":
                return await self._keys_for(worker)
            case "refusal":
                found = await self._ask_others(worker, "refusal", SETTLE_S * 2, id=body["id"])
                return next(filter(None, found), None)
            case "sign":
                return await self._sign(body["chain"])
            case "login":
                return await self._login(worker, body["slot"])
            case "logged_in":
                self._end_login(worker, body["slot"], body["refused"], body["lacking"])
            case "no_login":
                self._leave_login(worker, body["slot"])
        return None

    def _others(self, worker: Worker) -> list[Channel]:
        return [
            other.channel
            for other in self._workers.values()
            if other is not worker and other.channel is not None and not other.channel.closed
        ]

    async def _ask_others(self, worker: Worker, kind: str, timeout_s: float, **body: Any) -> list[Body]:
        """Ask all others at once; the answers of those who answered."""
        asked = (other.ask(kind, timeout_s, **body) for other in self._others(worker))
        answers = await asyncio.gather(*asked, return_exceptions=True)
        return [answer for answer in answers if isinstance(answer, dict)]

    # Whether the vault is sealed is decided here.  What is said of it goes to each worker in the order of the decisions, and each
    # acts in that order: nothing may be awaited between a decision and what is said of it.

    async def _seal_all(self, worker: Worker) -> None:
        """Seal all: also the one that says it is sealed, which somebody may have been about to open."""
        await asyncio.gather(*(self._seal(other, other is worker) for other in list(self._workers.values())))

    async def _seal(self, worker: Worker, asked: bool) -> None:
        if worker.channel is None:
            return  # it will be told when it has one
        if asked and not worker.serving:  # it waits for us before it can answer
            worker.channel.tell("seal", seals=self._seals)
            return
        try:
            await worker.channel.ask("seal", SEAL_S, seals=self._seals)
        except ChannelClosed:
            _log.error("worker_killed", worker=worker.index, why="it did not seal")
            with suppress(ProcessLookupError):
                worker.process.kill()

    async def _open_others(self, worker: Worker, body: Body) -> Body:
        """Open the vault everywhere, or where it was sealed after the worker began to open it, close it there as well."""
        if self._sealed and body["seals"] < self._seals:
            await self._seal(worker, asked=True)
        else:
            self._sealed = False
            await self._ask_others(worker, "unseal", OPEN_S, keys=body["keys"], seals=self._seals)
        return {"sealed": self._sealed}

    async def _keys_for(self, worker: Worker) -> Body:
        if not self._sealed:
            for answer in await self._ask_others(worker, "hand_over", SEAL_S):
                if answer.get("keys"):
                    return answer
        return {}

    async def _sign(self, chain_id: bytes) -> Body:
        for other in self._workers.values():
            if other.chain_id == chain_id and other.channel is not None:
                await other.channel.ask("sign", SEAL_S)
                return {"signed": True}
        return {"signed": False}

    async def _login(self, worker: Worker, slot: str) -> Body:
        turns = self._logins.setdefault(slot, _LoginTurns())
        if self._workers.get(worker.index) is not worker or not await turns.take(worker):
            raise ChannelClosed("it does not wait any more")
        return {"refused": turns.refused, "lacking": turns.lacking}

    def _end_login(self, worker: Worker, slot: str, refused: bytes, lacking: dict[str, str] | None) -> None:
        turns = self._logins.get(slot)
        if turns is not None and turns.holder is worker:
            turns.refused, turns.lacking = refused, lacking
            turns.leave(worker)

    def _leave_login(self, worker: Worker, slot: str) -> None:
        if slot in self._logins:
            self._logins[slot].leave(worker)

    def _release_logins(self, worker: Worker) -> None:
        for slot in self._logins:
            self._leave_login(worker, slot)

    # -- what is asked of all -------------------------------------------------------------------------------------------

    async def ask_each(self, kind: str, timeout_s: float = SCRAPE_S, **body: Any) -> dict[int, Body]:
        """What each worker that serves answers, by its place."""

        async def ask(worker: Worker) -> tuple[int, Body | None]:
            try:
                assert worker.channel is not None  # noqa: S101  # who serves said so through it
                return worker.index, await worker.channel.ask(kind, timeout_s, **body)
            except ChannelClosed:
                return worker.index, None

        answers = await asyncio.gather(*(ask(worker) for worker in list(self._workers.values()) if worker.serving))
        return {index: answer for index, answer in answers if answer is not None}

    @property
    def count(self) -> int:
        """How many workers there should be."""
        return self._count


def shared_file(size: int) -> int:
    """A descriptor of zeroes in memory, which workers inherit; it goes with the last process that has it."""
    if hasattr(os, "memfd_create"):
        fd = os.memfd_create("vaultd-counts")
    else:
        with tempfile.TemporaryFile() as file:
            fd = os.dup(file.fileno())
    os.ftruncate(fd, size)
    return fd


def worker_command(config: os.PathLike[str]) -> list[str]:
    """What starts a worker, but for its place and the descriptor of its control socket."""
    return [sys.executable, "-m", "vaultd", "worker", "--config", os.fspath(config)]
