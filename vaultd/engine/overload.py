"""What keeps answers quick when more is asked than can be served: caps of calls in flight, and a cap that follows the delay.

Delay is how late the event loop comes to work that was due.  It is the queue in front of every call that gRPC has handed
over, whoever filled it, and no caller can feign it by sending slowly.  What waits within gRPC it does not see.

When the delay stays above a target, the cap of calls in flight per principal falls by a quarter with each further look, from
what the busiest principal has; when it is below, the cap rises again.  So those who use most are cut first, those who have
fewer calls in flight than the cap notice nothing, and a call costs nothing more: it is compared with a cap in any case.  As
in CoDel it is the least delay of an interval that counts, since a burst is no overload.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from vaultd.errors import ResourceExhausted, Unavailable

if TYPE_CHECKING:
    from collections.abc import Callable

PROBE_S: Final = 0.05
LATE_PROBES: Final = 4
"""Looks in a row that must be late before anything is shed."""
LEAST_CAP: Final = 8
"""Who has fewer calls in flight than this is never shed."""
_SHED_RETRY_S: Final = 0.5


class InFlight:
    """Caps the calls that are being served at once, in all and for each principal.

    The caller's own cap is looked at first: a caller that is over both is told what it can change.
    """

    __slots__ = ("_calls", "_per_principal", "_retry_after_s", "_total", "_total_calls", "cap")

    def __init__(self, total: int, per_principal: int, *, retry_after_s: float = 0.1) -> None:
        if total < 1 or per_principal < 1:
            raise ValueError("caps of calls in flight must be at least 1")
        self._total = total
        self._per_principal = per_principal
        self._retry_after_s = retry_after_s
        self._calls: dict[str, int] = {}
        self._total_calls = 0
        self.cap = per_principal
        """The cap of a principal now: at most the configured one, less while the server is overloaded."""

    def __len__(self) -> int:
        """Return the number of calls in flight."""
        return self._total_calls

    @property
    def per_principal(self) -> int:
        """The configured cap of a principal."""
        return self._per_principal

    def busiest(self) -> int:
        """The calls in flight of the principal that has most."""
        return max(self._calls.values(), default=0)

    def enter(self, principal: str) -> None:
        """Count a call in, or raise: then it is not counted and `leave` must not be called.

        ResourceExhausted when the principal has too many, reason TOO_MANY_IN_FLIGHT, or LOAD_SHED for the cap of an
        overloaded server; Unavailable, reason TOO_MANY_IN_FLIGHT, when the server has too many.
        """
        calls = self._calls.get(principal, 0)
        if calls >= self.cap:
            raise self._too_many(calls)
        if self._total_calls >= self._total:
            raise Unavailable(
                "TOO_MANY_IN_FLIGHT",
                "the server is busy; try again after the retry delay",
                retry_after_s=self._retry_after_s,
            )
        self._calls[principal] = calls + 1
        self._total_calls += 1

    def _too_many(self, calls: int) -> ResourceExhausted:
        if calls >= self._per_principal:
            return ResourceExhausted(
                "TOO_MANY_IN_FLIGHT",
                f"at most {self._per_principal} calls of one caller are served at once; wait for answers",
                retry_after_s=self._retry_after_s,
            )
        return ResourceExhausted(
            "LOAD_SHED",
            "the server is overloaded and this caller has most calls under way; have fewer at once, or use batches",
            retry_after_s=_SHED_RETRY_S,
        )

    def leave(self, principal: str) -> None:
        """Count a call out.  Without an `enter` before it this raises RuntimeError: a cap that drifts is no cap."""
        calls = self._calls
        try:
            left = calls[principal] - 1
        except KeyError:
            raise RuntimeError("a call left that never entered") from None
        if left:
            calls[principal] = left
        else:
            del calls[principal]
        self._total_calls -= 1


class LoadShedder:
    """Moves the cap of calls in flight with the delay.  `on_change` is told when shedding begins and ends."""

    def __init__(self, in_flight: InFlight, target_s: float, on_change: Callable[[bool], None]) -> None:
        self._in_flight = in_flight
        self._target_s = target_s
        self._on_change = on_change
        self._least_cap = min(LEAST_CAP, in_flight.per_principal)
        self._late = 0

    @property
    def shedding(self) -> bool:
        """Whether the cap is below the configured one."""
        return self._in_flight.cap < self._in_flight.per_principal

    def note(self, delay_s: float) -> None:
        """Take in one look at the delay; a target of 0 sheds nothing, ever."""
        if not self._target_s:
            return
        in_flight = self._in_flight
        was = self.shedding
        if delay_s > self._target_s:
            self._late += 1
            if self._late >= LATE_PROBES:
                in_flight.cap = max(self._least_cap, min(in_flight.cap, in_flight.busiest()) * 3 // 4)
        else:
            self._late = 0
            in_flight.cap = min(in_flight.per_principal, in_flight.cap + max(1, in_flight.cap // 8))
        if self.shedding is not was:
            self._on_change(self.shedding)
