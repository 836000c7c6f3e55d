"""Floods of refused calls, folded: the first ones of a second are records of their own, the rest become one."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Final, NamedTuple

INDIVIDUAL_PER_SECOND: Final = 20
MAX_KEYS: Final = 10_000
OVERFLOW: Final = "*"
"""Principal and reason of the record that stands for all keys beyond the limit; no principal is spelled like this."""

_SECOND_US = 1_000_000


class _Key(NamedTuple):
    second: int
    principal: str
    reason: str


class RefusalFolder:
    """Counts refusals per principal, reason and second, in bounded memory.

    `now` is always unix microseconds.  A caller that is stopping drains with a time one second ahead, so that nothing
    counted is lost.
    """

    def __init__(self, *, individual_per_second: int = INDIVIDUAL_PER_SECOND, max_keys: int = MAX_KEYS) -> None:
        self._individual_per_second = individual_per_second
        self._max_keys = max_keys
        self._counts: dict[_Key, int] = {}
        self._overflow: _Key | None = None

    def note(self, principal: str, reason: str, now: int) -> bool:
        """Count a refusal.  True: record it by itself.  False: it is in the record that `drain` will give."""
        key = _Key(now // _SECOND_US, principal, reason)
        count = self._counts.get(key, 0)
        if count == 0 and len(self._counts) >= self._max_keys:
            key = self._overflow = self._overflow or _Key(key.second, OVERFLOW, OVERFLOW)
            count = self._counts.get(key, 0)
        self._counts[key] = count + 1
        return count < self._individual_per_second

    def drain(self, now: int) -> list[dict[str, object]]:
        """Take the folded records of every second but the present one, oldest first.

        Seconds ahead of `now` are over too: the clock was set back, and they would wait for it for ever.
        """
        present = now // _SECOND_US
        over = sorted((key, count) for key, count in self._counts.items() if key.second != present)
        for key, _ in over:
            del self._counts[key]
            if key == self._overflow:
                self._overflow = None
        return [
            {
                "event": "refusals_folded",
                "principal": key.principal,
                "reason": key.reason,
                "second": datetime.fromtimestamp(key.second, UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
                "folded": count - self._individual_per_second,
            }
            for key, count in over
            if count > self._individual_per_second
        ]
