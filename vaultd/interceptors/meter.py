"""The metrics step: counts a call when its outcome is known, by method, status, reason, vault and principal.

Labels are bounded, and callers cannot make any up: a method is one of the table's, a reason is a literal of the code, a vault
gets a label when a call in it succeeded (so it exists, and the caller may know), a principal was authenticated.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from itertools import repeat
from operator import methodcaller, sub
from typing import TYPE_CHECKING, Any, Final

from vaultd.telemetry.cells import OTHER, Counts, Histogram

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from vaultd.interceptors.audit import Entry
    from vaultd.interceptors.routes import Route

UNKNOWN_METHOD: Final = "_OTHER"
"""What the semantic conventions call a method that the server does not have."""
MAX_CANDIDATES: Final = 1_000
"""Principals without a label that are counted one by one, to see who is busiest."""
MAX_REASONS: Final = 500
LOT: Final = 64
"""Served calls of a method that are counted together."""
IDLE_S: Final = 3_600.0
"""A principal without a call for so long gives its label back."""
_NAMES_PER_BATCH: Final = 64
THROTTLED: Final = ("TOO_MANY_IN_FLIGHT", "LOAD_SHED", "OVERLOADED")
QUOTAS: Final = ("QUOTA_EXCEEDED", "COST_ABOVE_QUOTA")
_OUTCOMES: Final = ("ok", "refused")


class _Caller:
    """Calls of a principal with a label."""

    __slots__ = ("counts", "seen_s")

    def __init__(self) -> None:
        self.counts = [0, 0]
        self.seen_s = 0.0


class _Lot(list[tuple[str, dict[str, Any], int, int, float, float]]):
    """Calls of one method that were served and are not counted yet: of each the principal, the audited fields, bytes of request
    and answer, and when it began and ended.
    """

    __slots__ = ("name_of", "path")

    def __init__(self, route: Route) -> None:
        super().__init__()
        self.path = route.path
        self.name_of = methodcaller("get", route.rule.audited[0] if route.rule.audited else "")
        """What a call was about, by its audited fields."""


class CallMeter:
    """Counts of calls.  `monotonic_s` is the clock that entries were opened with.

    Calls that are served are counted in lots of one method, which takes a fraction of the time that they would take one by one.
    Whoever reads finds all of them counted.
    """

    def __init__(self, monotonic_s: Callable[[], float], max_vaults: int = 100, max_principals: int = 20) -> None:
        self._monotonic_s = monotonic_s
        self._max_vaults = max_vaults
        self._max_principals = max_principals
        self._lots: dict[str, _Lot] = {}
        self._calls: dict[tuple[str, str], Histogram] = {}
        self._vaults: dict[str, list[int]] = {}
        self._callers: dict[str, _Caller] = {}
        self._others = [0, 0]
        self._candidates: dict[str, int] = {}
        self.refusals = Counts(MAX_REASONS, 2)
        """By (code, reason)."""
        self.items = [0, 0]
        """Of batches: served, failed."""
        self.bytes = [0, 0]
        """Of requests, of answers."""

    def ended(self, entry: Entry) -> None:
        """Count a call by its outcome."""
        route, principal = entry.route, entry.principal
        _, reason, bytes_out = entry.outcome
        if reason or not principal or route is None or route.batch:
            self._count(entry)
            return
        lot = self._lots.get(route.path)
        if lot is None:
            lot = self._lots[route.path] = _Lot(route)
        lot.append((principal, entry.fields, entry.bytes_in, bytes_out, entry.started, self._monotonic_s()))
        if len(lot) >= LOT:
            self._count_lot(lot)

    def _count(self, entry: Entry) -> None:
        """A call by itself: one that was refused, or a batch.  After those before it: what is refused makes no label."""
        self._count_lots()
        route, principal, now_s = entry.route, entry.principal, self._monotonic_s()
        code, reason, bytes_out = entry.outcome
        self._cell(route.path if route is not None else UNKNOWN_METHOD, code).add(now_s - entry.started)
        refused = reason != ""
        if refused:
            self.refusals.add((code, reason))
        if principal == "" or route is None:
            return
        self.bytes[0] += entry.bytes_in
        self.bytes[1] += bytes_out
        self._count_caller(principal, 1, refused, now_s)
        if route.rule.audited:
            self._count_vaults(entry.fields, route.rule.audited[0], refused)

    def _count_lot(self, lot: _Lot) -> None:
        principals, fields, sizes, answers, started, ended = zip(*lot, strict=True)
        lot.clear()
        seconds = list(map(sub, ended, started))
        cell = self._cell(lot.path, "OK")
        for at, calls in Counter(map(bisect_left, repeat(cell.bounds), seconds)).items():
            cell.counts[at] += calls
        cell.total += sum(seconds)
        self.bytes[0] += sum(sizes)
        self.bytes[1] += sum(answers)
        last_s = dict(zip(principals, ended, strict=True))
        for principal, calls in Counter(principals).items():
            self._count_caller(principal, calls, False, last_s[principal])
        named = [name for name in map(lot.name_of, fields) if type(name) is str]
        for name, calls in Counter(named).items():
            if name[:7] == "vaults/":
                self._count_vault(name.split("/", 2)[1], calls, False)

    def _count_lots(self) -> None:
        for lot in self._lots.values():
            if lot:
                self._count_lot(lot)

    def _cell(self, path: str, code: str) -> Histogram:
        cell = self._calls.get((path, code))
        if cell is None:
            cell = self._calls[path, code] = Histogram()
        return cell

    def _count_caller(self, principal: str, calls: int, refused: bool, seen_s: float) -> None:
        caller = self._callers.get(principal)
        if caller is not None:
            caller.counts[refused] += calls
            caller.seen_s = max(caller.seen_s, seen_s)
            return
        self._others[refused] += calls
        if principal in self._candidates:
            self._candidates[principal] += calls
        elif len(self._candidates) < MAX_CANDIDATES:
            self._candidates[principal] = calls

    def _count_vaults(self, fields: dict[str, Any], audited: str, refused: bool) -> None:
        name = fields.get(audited)
        if type(name) is str:
            if name[:7] == "vaults/":
                self._count_vault(name.split("/", 2)[1], 1, refused)
        elif type(name) is dict:  # of a batch: names and how many items have each
            failures = fields.get("failures", {})
            failed = sum(map(len, failures.values())) if failures else 0
            self.items[0] += fields["items"] - failed
            self.items[1] += failed
            for number, (one, items) in enumerate(name.items()):
                vault = one.split("/", 2)[1] if number < _NAMES_PER_BATCH else OTHER
                self._count_vault(vault, items, refused)

    def _count_vault(self, vault: str, operations: int, refused: bool) -> None:
        counts = self._vaults.get(vault)
        if counts is None:
            room = len(self._vaults) - (OTHER in self._vaults) < self._max_vaults and not refused
            counts = self._vaults.setdefault(vault if room else OTHER, [0, 0])
        counts[refused] += operations

    # -- what is read ---------------------------------------------------------------------------------------------------

    def durations(self) -> Iterator[tuple[tuple[str, str, str], Histogram]]:
        """By system, method and status; the method as the semantic conventions write it, without the slash in front."""
        self._count_lots()
        return ((("grpc", path.removeprefix("/"), code), cell) for (path, code), cell in self._calls.items())

    def vaults(self) -> Iterator[tuple[tuple[str, str], int]]:
        """Operations by vault and outcome."""
        self._count_lots()
        return (
            ((vault, outcome), count)
            for vault, counts in self._vaults.items()
            for outcome, count in zip(_OUTCOMES, counts, strict=True)
        )

    def principals(self) -> Iterator[tuple[tuple[str, str], int]]:
        """Calls of the busiest principals, and of all others together; hands out labels that are free.

        A principal's count begins when it gets its label: what came before stays with the others, so no count falls.
        """
        self._count_lots()
        now_s = self._monotonic_s()
        for principal in [name for name, caller in self._callers.items() if now_s - caller.seen_s > IDLE_S]:
            del self._callers[principal]
        free = self._max_principals - len(self._callers)
        for principal in sorted(self._candidates, key=self._candidates.__getitem__, reverse=True)[: max(0, free)]:
            self._callers[principal] = caller = _Caller()
            caller.seen_s = now_s
        self._candidates.clear()
        named = [(name, caller.counts) for name, caller in self._callers.items()]
        return (
            ((principal, outcome), count)
            for principal, counts in (*named, (OTHER, self._others))
            for outcome, count in zip(_OUTCOMES, counts, strict=True)
        )

    def batch_items(self) -> list[tuple[tuple[str], int]]:
        """Items of batches by outcome."""
        return [(("ok",), self.items[0]), (("failed",), self.items[1])]

    def payload_bytes(self) -> list[tuple[tuple[str], int]]:
        """Bytes of messages by direction."""
        self._count_lots()
        return [(("in",), self.bytes[0]), (("out",), self.bytes[1])]

    def auth_failures(self) -> Iterator[tuple[tuple[str], float]]:
        """Calls whose caller was not authenticated, by reason."""
        return (((reason,), count) for (_, reason), count in self.refusals.where(0, "UNAUTHENTICATED"))

    def quota_refusals(self) -> list[tuple[tuple[str], float]]:
        """Calls that a quota refused, by reason."""
        return self._by_reason(QUOTAS)

    def throttled(self) -> list[tuple[tuple[str], float]]:
        """Calls that were refused because too much was asked at once, by reason."""
        return self._by_reason(THROTTLED)

    def _by_reason(self, reasons: tuple[str, ...]) -> list[tuple[tuple[str], float]]:
        sums = dict.fromkeys(reasons, 0.0)
        for (_, reason), count in self.refusals.where(1, *reasons):
            sums[reason] += count
        return [((reason,), count) for reason, count in sums.items()]
