"""The server inside Envoy: what pyvoy loads as the application that Envoy starts with.

socket to the parent:   {"config": ..., "accept_restore": ...}  in;  {"ready": ...} or {"failed": ...}  out;
                        {"do": "reload"} and {"do": "drain"} in.  Its end is a drain: the parent is gone.
"""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import socket
import sys
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NoReturn

import uvloop

from vaultd.config import ConfigError, load_settings
from vaultd.errors import VaultdError
from vaultd.hosts.envoy import embedding
from vaultd.process import harden_process

if TYPE_CHECKING:
    from vaultd.wiring import Server

VARIABLE: Final = "ENVOY_OF_VAULTD"
"""The variable in which the parent says what this process is.  Without the prefix of settings."""
SWITCH_S: Final = 2e-4
"""How long Envoy's thread waits for the interpreter, which it needs for each request, while long batches are served: a part of
their turn, and not all of it."""
_OF_PYVOY: Final = ("LD_PRELOAD", "PYTHONHOME", "PYTHONPATH")


def enter(said: dict[str, Any]) -> None:
    """Make this process what Python expects of one: children must not be Envoys, and modules come from nowhere else."""
    for name in _OF_PYVOY:
        os.environ.pop(name, None)
    os.environ.update(said["environment"])
    sys.executable = said["python"]
    sys.path[:] = [entry for entry in sys.path if entry not in {"", "."}]  # pyvoy put the working directory first
    directory = Path.cwd()
    os.chdir(said["cwd"])
    harden_process()
    sys.setswitchinterval(SWITCH_S)
    _let_others_finish()
    embedding.inside(embedding.Process(directory, said["library"]))


def _let_others_finish() -> None:
    """Have no thread of this process interrupt another when it wakes (SCHED_BATCH of sched(7)).

    A request wakes three: of Envoy, of pyvoy and of the loop.  Each that waits until a processor is free finds more to do at
    once, and what it needs in its caches.  Threads that are started later inherit it.
    """
    for thread in os.listdir("/proc/self/task") if sys.platform == "linux" else ():
        with suppress(OSError):  # it ended, or none may be changed here: then they interrupt each other
            os.sched_setscheduler(int(thread), os.SCHED_BATCH, os.sched_param(0))


class Inside:
    """The server in this process, from its start to the end of the process."""

    def __init__(self, control: int) -> None:
        self._control = control
        self._drain = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    def loop(self) -> asyncio.AbstractEventLoop:
        """The loop of everything."""
        loop = uvloop.Loop()
        loop.call_soon(self._begin, loop)
        return loop

    def _begin(self, loop: asyncio.AbstractEventLoop) -> None:
        self._task = loop.create_task(self._run())

    async def __call__(self, scope: dict[str, Any], receive: Any, send: Any) -> None:
        """Take part in pyvoy's lifespan: when Envoy is told to end, the server drains first."""
        if scope["type"] != "lifespan":
            return
        await receive()
        await send({"type": "lifespan.startup.complete"})
        await receive()
        self._drain.set()
        await asyncio.Event().wait()  # the process ends with `_run`

    async def _run(self) -> None:
        reader, writer = await asyncio.open_connection(sock=socket.socket(fileno=self._control))

        def tell(**said: Any) -> None:
            writer.write(json.dumps(said).encode() + b"\n")

        try:
            await self._serve(reader, tell)
        except (VaultdError, ConfigError, OSError) as error:
            text = f"{error.reason}: {error.text}" if isinstance(error, VaultdError) else str(error)
            tell(failed=text)
            await self._leave(writer, 1)
        except BaseException:
            tell(failed="the server ended with an error of its own; its log says more")
            import traceback

            traceback.print_exc()
            await self._leave(writer, 1)
        await self._leave(writer, 0)

    async def _serve(self, reader: asyncio.StreamReader, tell: Any) -> None:
        from vaultd.telemetry.log import configure_logging
        from vaultd.wiring import Server

        order = json.loads(await reader.readline())
        settings = load_settings(Path(order["config"])).model_copy(update={"host": "envoy", **order["overrides"]})
        configure_logging(settings.log.level, json=settings.log.format == "json")
        server = Server(settings, accept_restore=order["accept_restore"])
        async with server.running():
            pem = server.witness.public_pem.decode() if server.witness.public_keys else ""
            tell(ready={"port": server.port, "metrics_port": server.observing.port, "public_pem": pem})
            await self._obey(reader, server)

    async def _obey(self, reader: asyncio.StreamReader, server: Server) -> None:
        async def listen() -> None:
            while line := await reader.readline():
                if json.loads(line)["do"] == "drain":
                    break
                server.reload()
            self._drain.set()

        listening = asyncio.create_task(listen())
        await self._drain.wait()
        listening.cancel()

    async def _leave(self, writer: asyncio.StreamWriter, code: int) -> NoReturn:
        """End the process: Envoy's own way out would wait for clients that stay connected."""
        writer.close()
        try:
            async with asyncio.timeout(1):
                await writer.wait_closed()
        except (OSError, TimeoutError):
            pass
        process = embedding.around()
        if process is not None:
            shutil.rmtree(process.directory, ignore_errors=True)
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def _start() -> Inside:
    said = json.loads(os.environ.pop(VARIABLE))
    enter(said)
    inside = Inside(said["control"])
    embedding.LoopShare(inside.loop).install()
    return inside


def __getattr__(name: str) -> Any:
    """Pyvoy asks for `app`, once; importing this module alone starts nothing."""
    if name != "app":
        raise AttributeError(name)
    return _start()
