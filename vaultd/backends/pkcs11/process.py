"""One worker process as the server holds it: how it is started, spoken to and ended."""

from __future__ import annotations

import asyncio
import os
import socket
import sys
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final

import structlog

from vaultd.backends.pkcs11.messages import Hello, pack, unpacker

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

_log = structlog.get_logger("vaultd.hsm")

_START_TIMEOUT_S: Final = 60.0
_LEAVE_S: Final = 0.1
_INHERITED: Final = ("PATH", "HOME", "LANG", "LC_ALL", "TZ", "TMPDIR", "PYTHONPATH", "LD_LIBRARY_PATH")


class WorkerProcess(asyncio.Protocol):
    """A spawned process and the socket to it.

    `on_replies` is given what replies have arrived, `on_end` told once that the worker has gone.  The process has the
    variables of `environment`, a few of ours, and nothing secret.
    """

    def __init__(
        self, on_replies: Callable[[WorkerProcess, Any], None], on_end: Callable[[WorkerProcess], None]
    ) -> None:
        self._on_replies = on_replies
        self._on_end = on_end
        self._incoming = unpacker()
        self._greeting: asyncio.Future[dict[str, Any]] = asyncio.get_running_loop().create_future()
        self._transport: asyncio.Transport | None = None
        self._process: asyncio.subprocess.Process | None = None
        self._hung_up = False

    @property
    def pid(self) -> int:
        """Of the process; 0 when there is none."""
        return self._process.pid if self._process is not None else 0

    async def start(self, environment: Mapping[str, str], hello: Hello) -> dict[str, Any]:
        """Spawn, say hello, and return the greeting; empty when the worker ended or said nothing for a minute.

        Raises OSError when it cannot be spawned.
        """
        here, there = socket.socketpair()
        try:
            here.setblocking(False)
            inherited = {name: os.environ[name] for name in _INHERITED if name in os.environ}
            self._process = await asyncio.create_subprocess_exec(
                sys.executable,
                "-m",
                "vaultd.backends.pkcs11.worker",
                str(there.fileno()),
                pass_fds=(there.fileno(),),
                env={**inherited, **environment},
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.DEVNULL,
            )
        except OSError:
            here.close()
            raise
        finally:
            there.close()
        await asyncio.get_running_loop().create_unix_connection(lambda: self, sock=here)
        if self._hung_up:
            self.hang_up()
        self.send(pack(list(hello)))
        try:
            return await asyncio.wait_for(self._greeting, _START_TIMEOUT_S)
        except TimeoutError:
            return {}

    def send(self, data: bytes) -> None:
        """Send packed lists of requests."""
        if self._transport is not None:
            self._transport.write(data)

    def hang_up(self) -> None:
        """Close the socket: nothing more is heard, and the process ends by itself, or by `end`."""
        self._hung_up = True
        if self._transport is not None:
            self._transport.abort()

    async def end(self) -> None:
        """Hang up, kill the process if it is still there, and reap it."""
        self.hang_up()
        if self._process is not None:
            # It ends when its socket does, unless its module hangs.  One that is killed as it ends, asyncio complains of.
            with suppress(TimeoutError):
                await asyncio.wait_for(self._process.wait(), _LEAVE_S)
            if self._process.returncode is None:
                self._process.kill()
                await self._process.wait()

    # asyncio.Protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """See asyncio."""
        self._transport = transport  # type: ignore[assignment]  # a stream's transport is one that writes

    def data_received(self, data: bytes) -> None:
        """See asyncio.  The first message is the greeting."""
        try:
            self._incoming.feed(data)
            if not self._greeting.done():
                for greeting in self._incoming:
                    self._greeting.set_result(dict(greeting))
                    break
            replies = [reply for message in self._incoming for reply in message]
            if replies:
                self._on_replies(self, replies)
        except Exception:
            # Not what a worker says: it is not trusted any further.
            _log.exception("hsm_worker_unintelligible")
            self.hang_up()

    def connection_lost(self, error: Exception | None) -> None:
        """See asyncio."""
        del error
        if not self._greeting.done():
            self._greeting.set_result({})
        self._on_end(self)
