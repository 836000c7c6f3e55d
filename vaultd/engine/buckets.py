"""Windows and token buckets: so many tokens a period, counted in whole numbers.

A bucket counts in nanoseconds times its rate, where a token is the length of the period, so that a token is there exactly
when it is due, at any rate and after any number of calls.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

from vaultd.engine.clock import SECOND_US

DURABLE_US: Final = 3_600 * SECOND_US
"""What windows of this period and longer counted survives a restart."""
MAX_COUNT: Final = 10**12
MIN_PERIOD_US: Final = 1_000
MAX_PERIOD_US: Final = 366 * 86_400 * SECOND_US

_NS: Final = 1_000_000_000


@dataclass(frozen=True, slots=True)
class Window:
    """`count` tokens every `period_us`, of which `burst` (by default `count`) may be saved up.

    In any span of time t no more than `burst` and `count` times t over the period are given out.
    """

    count: int
    period_us: int
    burst: int = 0

    def __post_init__(self) -> None:
        if not 1 <= self.count <= MAX_COUNT or not 0 <= self.burst <= MAX_COUNT:
            raise ValueError(f"a window needs a count of 1 to {MAX_COUNT:,}, and a burst of at most as much")
        if not MIN_PERIOD_US <= self.period_us <= MAX_PERIOD_US:
            raise ValueError("a window needs a period of a millisecond to 366 days")
        if self.burst == 0:
            object.__setattr__(self, "burst", self.count)

    @property
    def name(self) -> str:
        """`per_60s`, `per_250000us`: what a refusal calls it."""
        seconds, rest = divmod(self.period_us, SECOND_US)
        return f"per_{self.period_us}us" if rest else f"per_{seconds}s"

    @property
    def durable(self) -> bool:
        """Whether what it counted survives a restart."""
        return self.period_us >= DURABLE_US


class TokenBucket:
    """Full at first, refilled evenly.  All it remembers is when it will be full again.

    A clock that goes back finds that time too far ahead.  The bucket then counts as empty from what the clock shows, so
    that a caller is never locked out for longer than an empty bucket takes to hold the cost.
    """

    __slots__ = ("_capacity", "_full_at", "_period_ns", "_rate", "burst")

    def __init__(self, count: int, period_s: float, burst: int, now_ns: int) -> None:
        self.burst = burst
        self._rate = count
        self._period_ns = round(period_s * _NS)
        self._capacity = burst * self._period_ns
        self._full_at = now_ns * count

    @classmethod
    def of(cls, window: Window, now_ns: int) -> TokenBucket:
        """A full bucket of a window."""
        return cls(window.count, window.period_us / SECOND_US, window.burst, now_ns)

    @property
    def full_at(self) -> int:
        """All its state: when it is full, in nanoseconds times its rate."""
        return self._full_at

    def resume(self, full_at: int, count: int, now_ns: int) -> None:
        """Go on from the state of a bucket of the same period and perhaps another count: what was spent stays spent."""
        missing = max(full_at - now_ns * count, 0)
        self._full_at = full_at if count == self._rate else now_ns * self._rate + missing

    def take(self, cost: int, now_ns: int) -> float:
        """Take `cost` tokens and return 0.0, or take nothing and return the seconds until they are there.

        Infinity when they never will be: the cost is above the burst.
        """
        now = now_ns * self._rate
        full_at = self._full_at
        if full_at < now:
            full_at = now
        full_at += cost * self._period_ns
        if full_at - now <= self._capacity:
            self._full_at = full_at
            return 0.0
        return self.wait_s(cost, now_ns)

    def give_back(self, cost: int) -> None:
        """Undo a `take` of the same cost at the same time."""
        self._full_at -= cost * self._period_ns

    def wait_s(self, cost: int, now_ns: int) -> float:
        """Return what `take` would, and take nothing."""
        now = now_ns * self._rate
        if self._full_at - now > self._capacity:
            self._full_at = now + self._capacity
        missing = max(self._full_at - now, 0) + cost * self._period_ns - self._capacity
        if missing <= 0:
            return 0.0
        return -(-missing // self._rate) / _NS if cost <= self.burst else math.inf

    def left(self, now_ns: int) -> int:
        """Whole tokens that can be taken now."""
        missing = max(self._full_at - now_ns * self._rate, 0)
        return max(self._capacity - missing, 0) // self._period_ns

    def full_at_ns(self, now_ns: int) -> int:
        """When it is full if nothing more is taken; now, when it is."""
        now = now_ns * self._rate
        return -(-min(max(self._full_at, now), now + self._capacity) // self._rate)

    def is_full(self, now_ns: int) -> bool:
        """Whether a new bucket would be the same as this one."""
        return self._full_at <= now_ns * self._rate
