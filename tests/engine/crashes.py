"""A crash in the middle of a change: what the files held at that moment, opened by another engine."""

from __future__ import annotations

import itertools
import shutil
from typing import TYPE_CHECKING

from engine.engines import OpenEngine, engine_settings
from vaultd import failpoints

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from pathlib import Path
    from typing import Any

    from harness import FakeClock

FLUSHED = "ledger.flushed"
"""All is written and nothing is committed: after the crash nothing has happened."""
COMMITTED = "ledger.committed"
"""All is committed and nobody was told: after the crash all of it has happened."""


class Crashed(BaseException):
    """The process died here.  No handler of the server's may catch it."""


class CrashingEngine:
    """An engine whose process can be made to die at a failpoint, and which is then started again on what it left."""

    def __init__(self, directory: Path, clock: FakeClock, **overrides: Any) -> None:
        self._parent = directory
        self._clock = clock
        self._overrides = overrides
        self._numbers = itertools.count()
        self._directory = directory / "start"
        self._directory.mkdir()
        self._hit = failpoints.hit
        self._armed = ""
        self.opened = self._new()

    def _new(self) -> OpenEngine:
        return OpenEngine(engine_settings(self._directory, **self._overrides), self._clock)

    async def start(self) -> None:
        """Open, and from now on listen to failpoints."""
        await self.opened.start()
        failpoints.hit = self._die

    async def stop(self) -> None:
        """Close, and give the failpoints back."""
        failpoints.hit = self._hit
        await self.opened.stop()

    def _die(self, name: str) -> None:
        if name == self._armed:
            self._armed = ""
            left = self._parent / f"crash-{next(self._numbers)}"
            shutil.copytree(self._directory, left)
            self._directory = left
            raise Crashed

    async def crash_in(self, point: str, call: Callable[[], Awaitable[object]]) -> bool:
        """Make a call during which the process dies at a failpoint, and start again; whether it came that far."""
        self._armed = point
        try:
            await call()
        except Crashed:
            await self.opened.crash()
            self.opened = self._new()
            await self.opened.start()
            return True
        finally:
            self._armed = ""
        return False
