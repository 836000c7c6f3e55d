"""Long work on the event loop, in turns: batches, whose items are quick one by one and thousands together.

Whoever works through a list asks every few dozen items whether the turn is `over`, and then waits for the next one:

    if lane.over():
        await lane.next_turn()

All who do so share one turn, however many they are, and take it one after the other: so in one round of the event loop there is
no more than one turn of such work, and between two of them the loop looks after everybody else.

Single calls come first.  The lane is told of each of them, and keeps the loop free of long work for about as long as a call needs,
for one call after the other; turns are short meanwhile.  A pause ends after `LONGEST_PAUSE_S` at the latest, and who waits longer
because the loop is full gets a longer turn, so that long work always has its part.  Where nobody else calls it has all of the loop.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Callable

TURN_S: Final = 0.001
SHORT_TURN_S: Final = 0.000_25
"""A turn while single calls come."""
RECENT_S: Final = 0.003
"""Single calls come when one has come within this time."""
CALL_S: Final = 0.000_5
"""How long a single call keeps the loop free of long work."""
LONGEST_PAUSE_S: Final = 0.004
LEAST_PART: Final = 12
"""A turn is at least the time that it was waited for through this, and at most `TURN_S`."""
ROUNDS_BETWEEN: Final = 1
BUSY_ROUNDS_BETWEEN: Final = 4
"""Rounds of the event loop that belong to others alone; more of them while single calls come, for one that arrived during a turn
shows only after some."""
TICK_S: Final = 0.001
"""What event loops count their timers in."""
ITEMS_PER_LOOK: Final = 64
"""Items between two looks at the clock, and the most that nobody looks at."""
FREED_PER_LOOK: Final = 1_000
"""Of lists that are let go; to free so many takes no longer than other items between two looks."""


class BulkLane:
    """One turn for all long work of an event loop.  Those who wait get theirs in the order in which they came."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._running = False
        self._until = 0.0
        self._waiting: deque[asyncio.Future[None]] = deque()
        self._paused_s = 0.0
        self._waited_s = 0.0
        self._last_single_s = -RECENT_S
        self._free_until = 0.0

    def single(self, now_s: float) -> None:
        """A single call has come, by the same clock."""
        self._last_single_s = now_s
        self._free_until = min(max(self._free_until, now_s) + CALL_S, now_s + LONGEST_PAUSE_S)

    def over(self) -> bool:
        """Whether the turn of this round of the event loop is used up.  It begins with the first question in the round."""
        now_s = self._clock()
        if self._running:
            return now_s >= self._until
        self._running = True
        self._until = now_s + self._length_s(now_s)
        asyncio.get_running_loop().call_soon(self._end)
        return bool(self._waiting)

    async def next_turn(self) -> None:
        """Wait behind those who wait already."""
        loop = asyncio.get_running_loop()
        turn: asyncio.Future[None] = loop.create_future()
        self._waiting.append(turn)
        if len(self._waiting) == 1:
            self._pause(loop)
        await turn

    async def let_go(self, *lists: list[Any]) -> None:
        """Empty long lists in turns: to free 10,000 of anything takes as long as a turn."""
        for each in lists:
            while len(each) > FREED_PER_LOOK:
                if self.over():
                    await self.next_turn()
                del each[-FREED_PER_LOOK:]

    def _are_calls_coming(self, now_s: float) -> bool:
        return now_s - self._last_single_s < RECENT_S

    def _length_s(self, now_s: float) -> float:
        if not self._are_calls_coming(now_s):
            return TURN_S
        return max(SHORT_TURN_S, min(TURN_S, self._waited_s / LEAST_PART))

    def _end(self) -> None:
        self._running = False
        self._waited_s = 0.0

    def _pause(self, loop: asyncio.AbstractEventLoop) -> None:
        self._paused_s = self._clock()
        rounds = BUSY_ROUNDS_BETWEEN if self._are_calls_coming(self._paused_s) else ROUNDS_BETWEEN
        loop.call_soon(self._pass_on, loop, rounds)

    def _pass_on(self, loop: asyncio.AbstractEventLoop, rounds: int) -> None:
        if rounds:
            loop.call_soon(self._pass_on, loop, rounds - 1)
            return
        now_s = self._clock()
        left_s = min(self._free_until, self._paused_s + LONGEST_PAUSE_S) - now_s
        if left_s > 0:
            loop.call_later(max(left_s, TICK_S), self._pass_on, loop, 0)
            return
        while self._waiting:
            turn = self._waiting.popleft()
            if not turn.done():  # else who waited was cancelled
                self._waited_s = now_s - self._paused_s
                turn.set_result(None)
                break
        if self._waiting:
            self._pause(loop)
