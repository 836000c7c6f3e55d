"""One run for many who ask: whoever asks before it begins waits for the same one."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable


class Joined:
    """Runs `act` so that it begins after each call of `run`, one at a time, and no more often than needed."""

    def __init__(self, act: Callable[[], Awaitable[object]]) -> None:
        self._act = act
        self._turn = asyncio.Lock()
        self._next: asyncio.Task[None] | None = None

    async def run(self) -> None:
        """Return when a run that began after this call has ended; raises what it raised."""
        if self._next is None:
            self._next = asyncio.get_running_loop().create_task(self._run())
        await asyncio.shield(self._next)

    async def _run(self) -> None:
        async with self._turn:
            self._next = None  # who asks from now on may want what this run does not see
            await self._act()
