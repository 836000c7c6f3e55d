"""Time, passed in so that tests can hold it."""

from __future__ import annotations

import time
from typing import Final, Protocol

SECOND_US: Final = 1_000_000
DAY_US: Final = 86_400 * SECOND_US


class Clock(Protocol):
    """Wall and monotonic time."""

    def now_us(self) -> int:
        """Microseconds since the Unix epoch, UTC."""
        ...

    def monotonic_s(self) -> float:
        """Seconds that never go back; deadlines are in these."""
        ...


class SystemClock:
    """The machine's clocks."""

    def now_us(self) -> int:
        return time.time_ns() // 1000

    monotonic_s = staticmethod(time.monotonic)
