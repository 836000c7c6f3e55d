"""Python inside Envoy: one event loop for everything, and the applications that pyvoy asks for by name.

pyvoy runs each application that a listener names on an event loop of its own, in a thread of its own.  A server has one loop:
pyvoy is therefore given, for every listener, a loop that hands on to the server's.  The registry is module state since pyvoy
finds applications only as attributes of a module.
"""

from __future__ import annotations

import asyncio
import threading
from typing import TYPE_CHECKING, Any, Final

import uvloop

from vaultd.hosts.envoy.listeners import Listeners

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from vaultd.hosts.envoy.app import GrpcApp

MODULE: Final = __name__
_apps: dict[str, tuple[GrpcApp, asyncio.AbstractEventLoop]] = {}
_process: list[Process] = []


class Process:
    """The Envoy around us: its private directory, pyvoy's library, and the listeners that it has."""

    def __init__(self, directory: Path, library: str) -> None:
        self.directory = directory
        self.library = library
        self.listeners = Listeners(directory)


def inside(process: Process) -> None:
    """Say which Envoy this process is.  Once, before it has a listener."""
    _process.append(process)


def around() -> Process | None:
    """The Envoy that this process is, or None when it is none."""
    return _process[0] if _process else None


def add(name: str, app: GrpcApp) -> None:
    """Let a listener of this name have the application, on the loop that runs now."""
    _apps[name] = app, asyncio.get_running_loop()


def remove(name: str) -> None:
    """Forget it.  Envoy asks once, when it takes up the listener."""
    _apps.pop(name, None)


class LoopShare:
    """Gives pyvoy loops: the first one for the application that Envoy starts with, and shares of an application's loop."""

    def __init__(self, main: Callable[[], asyncio.AbstractEventLoop]) -> None:
        self._main: Callable[[], asyncio.AbstractEventLoop] | None = main

    def install(self) -> None:
        """Take the place of uvloop's own, in this process."""
        uvloop.new_event_loop = self.new_event_loop  # type: ignore[assignment]  # what pyvoy calls in each new thread

    def new_event_loop(self) -> asyncio.AbstractEventLoop:
        """A loop for the thread that asks.  Envoy takes up one listener after the other, on its main thread."""
        if self._main is not None:
            main, self._main = self._main, None
            return main()
        return SharedLoop(_apps[_last_asked[0]][1])  # type: ignore[abstract]  # pyvoy uses these methods only


_last_asked: list[str] = [""]


def __getattr__(name: str) -> Any:
    """Give pyvoy an application by its name."""
    if name not in _apps:
        raise AttributeError(name)
    _last_asked[0] = name
    return _apps[name][0]


class _Future(asyncio.Future[Any]):
    """pyvoy answers futures that a cancelled call no longer waits for; such an answer is dropped."""

    def set_result(self, result: Any) -> None:
        if not self.done():
            super().set_result(result)

    def set_exception(self, exception: Any) -> None:
        if not self.done():
            super().set_exception(exception)


class SharedLoop(asyncio.AbstractEventLoop):
    """What pyvoy takes for a loop that runs in its thread: the thread waits, and the work goes to the server's loop."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._over = threading.Event()
        self._loop = loop
        # As attributes, for pyvoy asks for them with every request.
        self.call_soon_threadsafe = loop.call_soon_threadsafe  # type: ignore[method-assign]
        self.create_task = loop.create_task  # type: ignore[method-assign]
        self.create_future = lambda: _Future(loop=loop)  # type: ignore[method-assign]

    def run_forever(self) -> None:
        """Wait until the listener is gone."""
        self._over.wait()

    @property
    def stop(self) -> Callable[[], None]:  # pyvoy passes it to call_soon_threadsafe
        """Asking for it is enough: the server's loop may be closed by now."""
        self.call_soon_threadsafe = _nothing  # type: ignore[assignment]
        self._over.set()
        return _nothing

    def shutdown_asyncgens(self) -> None:  # type: ignore[override]
        """Do nothing: the loop goes on."""

    def shutdown_default_executor(self, timeout: float | None = None) -> None:  # type: ignore[override]
        """Do nothing: the loop goes on."""

    def run_until_complete(self, future: Any) -> None:  # type: ignore[override]
        """Do nothing: there is nothing to shut down."""

    def close(self) -> None:
        """Do nothing: the loop goes on."""


def _nothing(*_: Any) -> Any:
    return None
