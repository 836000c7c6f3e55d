"""One worker of several: a server whose supervisor and siblings are at the other end of a socket."""

from __future__ import annotations

import asyncio
import mmap
import os
import signal
import socket
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import structlog

from vaultd.audit.ties import worker_directory
from vaultd.engine.seal import SealState
from vaultd.engine.shared_buckets import SharedCounts
from vaultd.errors import VaultdError
from vaultd.wiring.server import Server
from vaultd.workers.channel import Channel
from vaultd.workers.joined import Joined
from vaultd.workers.siblings import Siblings, exposed, hidden

if TYPE_CHECKING:
    from vaultd.config import Settings
    from vaultd.workers.channel import Body

_log = structlog.get_logger("vaultd")

LEAST_THREADS = 2
"""Of the work pool of each worker: one alone leaves its core idle whenever it waits for the event loop."""


def settings_of(settings: Settings, index: int, hello: Body) -> Settings:
    """The settings of a worker: its own audit log, its part of the processors, the ports that the supervisor holds."""
    count = hello["count"]
    threads = settings.software.threads or max(LEAST_THREADS, -(-(os.cpu_count() or 1) // count))
    audit = settings.audit.model_copy(update={"directory": worker_directory(settings.audit.directory, index)})
    return settings.model_copy(
        update={
            "listen": hello["listen"],
            "listen_tls": hello["listen_tls"],
            "audit": audit,
            "software": settings.software.model_copy(update={"threads": threads}),
        }
    )


class Worker:
    """Does what the supervisor asks, from the first message to the end."""

    def __init__(self, settings: Settings, index: int) -> None:
        self._settings = settings
        self._index = index
        self._stop = asyncio.Event()
        self._hello: asyncio.Future[Body] = asyncio.get_running_loop().create_future()
        self._serving: asyncio.Future[Server] = asyncio.get_running_loop().create_future()
        self._siblings: Siblings | None = None
        self._poll = Joined(self._follow)

    async def serve(self, control: socket.socket) -> None:
        """Serve until the supervisor says to stop, or is gone; then drain."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._stop.set)
        structlog.contextvars.bind_contextvars(worker=self._index)  # before there is a task that logs
        channel = await Channel.attach(control, self._handle, self._stop.set)
        hello = await self._hello
        self._siblings = siblings = Siblings(channel, hello)
        os.set_inheritable(hello["counts_fd"], False)
        counts = SharedCounts(mmap.mmap(hello["counts_fd"], 0), hello["counts_fd"])
        server = Server(
            settings_of(self._settings, self._index, hello),
            accept_restore=hello["accept_restore"],
            siblings=siblings,
            counts=counts,
        )
        loop.add_signal_handler(signal.SIGHUP, server.reload)
        async with server.running():
            self._serving.set_result(server)
            channel.tell("ready", chain_id=server.witness.chain_id, audit_keys=server.witness.public_pem)
            await self._stop.wait()
            if channel.closed:
                _log.error("supervisor_gone", advice="this worker drains and ends; start vaultd again")

    async def _handle(self, kind: str, body: Body) -> Body | None:
        if kind == "hello":
            self._hello.set_result(body)
            return None
        siblings = self._siblings
        if siblings is not None and kind in {"seal", "unseal"}:
            siblings.heard(kind, body)
        server = await asyncio.shield(self._serving)
        seal = server.engine.seal
        match kind:
            case "poll":
                await self._poll.run()
            case "seal":
                await seal.seal_here()
            case "unseal":
                await self._unseal(server, body)
            case "keys":
                seal.take_over(hidden(body))
            case "hand_over":
                return {"keys": exposed(seal.root_keys())} if seal.state is SealState.UNSEALED else {}
            case "refusal":
                found = server.refusals.known(body["id"])
                return asdict(found) if found is not None else None
            case "sign":
                await server.witness.checkpoint()
            case "scrape":
                content_type, text = await server.observing.scrape(body["accept"])
                return {"content_type": content_type, "text": text}
            case "health":
                return _health(server)
        return None

    async def _follow(self) -> None:
        try:
            await self._serving.result().follow()
        except VaultdError as error:  # the poll after it tries again
            if not self._stop.is_set():  # else the store may be closed already
                _log.warning("background_failed", reason=error.reason)

    @staticmethod
    async def _unseal(server: Server, body: Body) -> None:
        try:
            await server.engine.seal.unseal_with(hidden(body))
        except VaultdError as error:
            await server.unseal_failed(error)


def _health(server: Server) -> dict[str, Any]:
    board = server.board
    return {"serving": bool(board.serving("")), "draining": board.draining, "components": board.components()}


async def serve_worker(settings: Settings, index: int, control_fd: int) -> None:
    """Serve as one worker, with the supervisor at the other end of a descriptor that was inherited."""
    os.set_inheritable(control_fd, False)
    await Worker(settings, index).serve(socket.socket(fileno=control_fd))
