"""How many resources there are, by when they expire, and how many rotations are due: for metrics, so it may be a minute old.

A census walks over all rows, in pages, between calls.  It keeps no row in memory, and rests two hundred times as long as it took.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import orjson

from vaultd.engine.clock import DAY_US

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from vaultd.engine.clock import Clock
    from vaultd.engine.ledger import Ledger

PAGE_ROWS: Final = 200
LEAST_REST_S: Final = 60.0
REST_PER_WORK: Final = 200
EXPIRED: Final = "expired"
LATER: Final = "later"
NEVER: Final = "never"
HORIZONS: Final = (("1d", DAY_US), ("7d", 7 * DAY_US), ("30d", 30 * DAY_US), ("90d", 90 * DAY_US))
EXPIRIES: Final = (EXPIRED, *(name for name, _ in HORIZONS), LATER, NEVER)


class Counted(NamedTuple):
    """What is counted of a kind of rows: those of these states, by `expire_us` of their values; and those that are due."""

    type: str
    states: frozenset[str]


KINDS: Final[Mapping[str, Counted]] = {
    "key": Counted("key", frozenset({"ACTIVE"})),
    "secret_version": Counted("secret", frozenset({"ENABLED"})),
}
ROTATIONS: Final[Mapping[str, Counted]] = {
    "key": Counted("key", frozenset({"ACTIVE"})),
    "rotation": Counted("secret", frozenset()),
}
"""Kinds of rows that are due when a rotation is; without states, whatever their state."""


def expiry_of(expire_us: int | None, now_us: int) -> str:
    """Which of EXPIRIES an expiry is in."""
    if expire_us is None:
        return NEVER
    left_us = expire_us - now_us
    if left_us <= 0:
        return EXPIRED
    return next((name for name, horizon_us in HORIZONS if left_us <= horizon_us), LATER)


class Census:
    """The last count."""

    def __init__(self, ledger: Ledger, clock: Clock) -> None:
        self._ledger = ledger
        self._clock = clock
        self._next_s = 0.0
        self._resources: dict[tuple[str, str], int] = {}
        self._due: dict[str, int] = {}

    async def tick(self) -> None:
        """Count, if it is time to.  Raises what reading raises; the last count stays."""
        began_s = self._clock.monotonic_s()
        if began_s < self._next_s or not self._ledger.unsealed:
            return
        self._next_s = began_s + LEAST_REST_S
        await self.count()
        took_s = self._clock.monotonic_s() - began_s
        self._next_s = began_s + max(LEAST_REST_S, took_s * REST_PER_WORK)

    async def count(self) -> None:
        """Count now."""
        now_us = self._clock.now_us()
        resources = {(kind.type, expiry): 0 for kind in KINDS.values() for expiry in EXPIRIES}
        due = dict.fromkeys((kind.type for kind in ROTATIONS.values()), 0)
        async with self._ledger.store.snapshot(PAGE_ROWS) as snapshot:
            async for page in snapshot.rows:
                for row in page:
                    counted, rotated = KINDS.get(row.key.kind), ROTATIONS.get(row.key.kind)
                    if counted is not None and row.state in counted.states:
                        values: dict[str, Any] = orjson.loads(self._ledger.sealer.open_row(row))
                        resources[counted.type, expiry_of(values.get("expire_us"), now_us)] += 1
                    if rotated is not None and row.due_at is not None and row.due_at <= now_us:
                        due[rotated.type] += not rotated.states or row.state in rotated.states
                await asyncio.sleep(0)
        self._resources, self._due = resources, due

    def resources(self) -> Iterator[tuple[tuple[str, str], int]]:
        """Resources by (type, expiry)."""
        return iter(self._resources.items())

    def rotations_due(self) -> Iterator[tuple[tuple[str], int]]:
        """Rotations that were due and not done when it was counted, by type."""
        return (((kind,), count) for kind, count in self._due.items())
