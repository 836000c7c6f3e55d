"""Long work on the event loop, in turns: batches, whose items are quick one by one and thousands together.

Whoever works through a list asks every few dozen items whether the turn is `over`, and then waits for the next one:

    if lane.over():
        await lane.next_turn()

All who do so share one turn, however many they are, and take it one after the other: so in one round of the event loop there is
no more than one turn of such work, and between two of them the loop looks after everybody else.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable

TURN_S: Final = 0.001
ROUNDS_BETWEEN: Final = 1
"""Rounds of the event loop that belong to others alone: a single call needs about eight from its arrival to its answer."""
ITEMS_PER_LOOK: Final = 64
"""Items between two looks at the clock, and the most that nobody looks at."""


class BulkLane:
    """One turn for all long work of an event loop.  Those who wait get theirs in the order in which they came."""

    def __init__(self, turn_s: float = TURN_S, clock: Callable[[], float] = time.monotonic) -> None:
        self._turn_s = turn_s
        self._clock = clock
        self._until = 0.0
        self._running = False
        self._waiting: deque[asyncio.Future[None]] = deque()

    def over(self) -> bool:
        """Whether the turn of this round of the event loop is used up.  It begins with the first question in the round."""
        if not self._running:
            self._running = True
            self._until = self._clock() + self._turn_s
            asyncio.get_running_loop().call_soon(self._end)
            return bool(self._waiting)
        return self._clock() >= self._until

    async def next_turn(self) -> None:
        """Wait behind those who wait already."""
        loop = asyncio.get_running_loop()
        turn: asyncio.Future[None] = loop.create_future()
        self._waiting.append(turn)
        if len(self._waiting) == 1:
            loop.call_soon(self._pass_on, loop, ROUNDS_BETWEEN)
        await turn

    def _end(self) -> None:
        self._running = False

    def _pass_on(self, loop: asyncio.AbstractEventLoop, rounds: int) -> None:
        if rounds:
            loop.call_soon(self._pass_on, loop, rounds - 1)
            return
        while self._waiting:
            turn = self._waiting.popleft()
            if not turn.done():  # else who waited was cancelled
                turn.set_result(None)
                break
        if self._waiting:
            loop.call_soon(self._pass_on, loop, ROUNDS_BETWEEN)
