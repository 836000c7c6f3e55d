"""How much a caller may do: token buckets per principal and class of operation, and caps of calls in flight.

All in memory and in whole numbers: a bucket counts in nanoseconds times its rate, where a token is the length of the
period, so that a token is there exactly when it is due, at any rate and after any number of calls.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from vaultd.errors import ResourceExhausted, Unavailable

if TYPE_CHECKING:
    from collections.abc import Mapping

    from vaultd.engine.clock import Clock

MAX_PRINCIPALS: Final = 100_000

_NS: Final = 1_000_000_000
# More than one, so that principals are dropped faster than others come.
_EXAMINED_PER_NEWCOMER: Final = 2


@dataclass(frozen=True, slots=True)
class Window:
    """`count` tokens every `period_s`, of which `burst` (by default `count`) may be saved up."""

    name: str
    count: int
    period_s: float
    burst: int = 0

    def __post_init__(self) -> None:
        if not self.name:
            raise ValueError("a window needs a name")
        if self.count < 1 or self.burst < 0:
            raise ValueError("a window needs a count of at least 1 and no negative burst")
        if not (math.isfinite(self.period_s) and self.period_s * _NS >= 1):
            raise ValueError("a window needs a period of at least a nanosecond")
        if self.burst == 0:
            object.__setattr__(self, "burst", self.count)


@dataclass(frozen=True, slots=True)
class Limit:
    """The windows of one class of operation; a call needs room in each.  No windows: no limit."""

    windows: tuple[Window, ...]

    def __post_init__(self) -> None:
        if len({window.name for window in self.windows}) < len(self.windows):
            raise ValueError("the windows of a limit need different names")


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

    def is_full(self, now_ns: int) -> bool:
        """Whether a new bucket would be the same as this one."""
        return self._full_at <= now_ns * self._rate


class RateLimiter:
    """Admits calls by principal and class of operation.

    Memory is bounded: with each newcomer the principals that were looked at longest ago are examined, and those whose
    buckets are all full are dropped, which loses nothing.  At `max_principals` one is dropped as it is.  Its owner then
    starts with full buckets, which is no gift: whoever can act as so many principals has as many full buckets already.
    """

    def __init__(self, limits: Mapping[str, Limit], clock: Clock, *, max_principals: int = MAX_PRINCIPALS) -> None:
        if max_principals < 1:
            raise ValueError("max_principals must be at least 1")
        self._limits = dict(limits)
        self._monotonic_s = clock.monotonic_s
        self._max_principals = max_principals
        self._accounts: OrderedDict[str, dict[str, tuple[TokenBucket, ...]]] = OrderedDict()

    def __len__(self) -> int:
        """Return the number of principals in memory."""
        return len(self._accounts)

    def admit(self, principal: str, cost_class: str, cost: int = 1) -> None:
        """Spend `cost` in every window of the class, or spend nothing and raise ResourceExhausted.

        Reason QUOTA_EXCEEDED says when to come back; COST_ABOVE_QUOTA is for a call that no wait will admit.  A class
        without a limit is a defect of the wiring (KeyError), not a free pass.
        """
        if cost < 0:
            raise ValueError("a cost is not negative")
        now_ns = int(self._monotonic_s() * 1e9 + 0.5)
        try:
            buckets = self._accounts[principal][cost_class]
        except KeyError:
            buckets = self._open(principal, cost_class, now_ns)
        for bucket in buckets:
            if bucket.take(cost, now_ns):
                for spent in buckets[: buckets.index(bucket)]:
                    spent.give_back(cost)
                raise self._refusal(cost_class, cost, now_ns, buckets)

    def _refusal(self, cost_class: str, cost: int, now_ns: int, buckets: tuple[TokenBucket, ...]) -> ResourceExhausted:
        waits = [bucket.wait_s(cost, now_ns) for bucket in buckets]
        wait = max(waits)
        quota = f"{cost_class}/{self._limits[cost_class].windows[waits.index(wait)].name}"
        if math.isinf(wait):
            return ResourceExhausted(
                "COST_ABOVE_QUOTA",
                f"the call costs more than the quota {quota} can ever hold; send less in one call",
                metadata={"quota": quota},
            )
        return ResourceExhausted(
            "QUOTA_EXCEEDED",
            f"the quota {quota} is used up; wait as long as the retry delay says",
            retry_after_s=wait,
            metadata={"quota": quota},
        )

    def _open(self, principal: str, cost_class: str, now_ns: int) -> tuple[TokenBucket, ...]:
        buckets = tuple(
            TokenBucket(window.count, window.period_s, window.burst, now_ns)
            for window in self._limits[cost_class].windows
        )
        account = self._accounts.get(principal)
        if account is None:
            self._make_room(now_ns)
            account = self._accounts[principal] = {}
        account[cost_class] = buckets
        return buckets

    def _make_room(self, now_ns: int) -> None:
        for _ in range(min(_EXAMINED_PER_NEWCOMER, len(self._accounts))):
            principal, account = next(iter(self._accounts.items()))
            if all(bucket.is_full(now_ns) for buckets in account.values() for bucket in buckets):
                del self._accounts[principal]
            else:
                self._accounts.move_to_end(principal)
        if len(self._accounts) >= self._max_principals:
            self._accounts.popitem(last=False)


class InFlight:
    """Caps the calls that are being served at once, in all and for each principal.

    The caller's own cap is looked at first: a caller that is over both is told what it can change.
    """

    __slots__ = ("_calls", "_per_principal", "_retry_after_s", "_total", "_total_calls")

    def __init__(self, total: int, per_principal: int, *, retry_after_s: float = 0.1) -> None:
        if total < 1 or per_principal < 1:
            raise ValueError("caps of calls in flight must be at least 1")
        self._total = total
        self._per_principal = per_principal
        self._retry_after_s = retry_after_s
        self._calls: dict[str, int] = {}
        self._total_calls = 0

    def __len__(self) -> int:
        """Return the number of calls in flight."""
        return self._total_calls

    def enter(self, principal: str) -> None:
        """Count a call in, or raise: then it is not counted and `leave` must not be called.

        ResourceExhausted when the principal has too many, Unavailable when the server has.  Reason TOO_MANY_IN_FLIGHT.
        """
        calls = self._calls.get(principal, 0)
        if calls >= self._per_principal:
            raise ResourceExhausted(
                "TOO_MANY_IN_FLIGHT",
                f"at most {self._per_principal} calls of one caller are served at once; wait for answers",
                retry_after_s=self._retry_after_s,
            )
        if self._total_calls >= self._total:
            raise Unavailable(
                "TOO_MANY_IN_FLIGHT",
                "the server is busy; try again after the retry delay",
                retry_after_s=self._retry_after_s,
            )
        self._calls[principal] = calls + 1
        self._total_calls += 1

    def leave(self, principal: str) -> None:
        """Count a call out.  Without an `enter` before it this raises RuntimeError: a cap that drifts is no cap."""
        calls = self._calls.get(principal, 0)
        if calls == 0:
            raise RuntimeError("a call left that never entered")
        if calls == 1:
            del self._calls[principal]
        else:
            self._calls[principal] = calls - 1
        self._total_calls -= 1
