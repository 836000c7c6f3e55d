"""When each principal last used each permission, by the resource on which it is bound.

A call notes its permission in memory.  The scheduler's tick gives the time to what was noted and writes it, one row for each
principal, when the stored time is more than an hour old: the last use is exact to the second while the server runs, and to the
hour after a crash.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any, Final

from vaultd.engine.clock import DAY_US, SECOND_US
from vaultd.store.base import RowKey

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from vaultd.engine.clock import Clock
    from vaultd.engine.ledger import Changes, Ledger

Use = tuple[str, str, str]
"""Principal, permission, and the resource of the binding."""

GRAIN_US: Final = 3_600 * SECOND_US
"""How old a stored time may get before a newer one replaces it."""
KEPT_US: Final = 400 * DAY_US
MAX_USES: Final = 100_000
"""Uses in memory: of all principals together."""
MAX_USES_PER_PRINCIPAL: Final = 2_000
ROWS_PER_CHANGE: Final = 100
SINCE_KEY: Final = RowKey("access", "", "since", 0)


class AccessBook:
    """The last uses."""

    def __init__(self, ledger: Ledger, clock: Clock) -> None:
        self._ledger = ledger
        self._clock = clock
        self._noted: set[Use] = set()
        self.note: Final[Callable[[Use], None]] = self._noted.add
        """Remember that a binding allowed a call.  On the path of every call: a look into a set."""
        self._pending: dict[Use, int] = {}
        self._written: dict[Use, int] = {}

    def _stamp(self) -> None:
        now_us = self._clock.now_us()
        for use in self._noted:
            self._pending[use] = now_us
        self._noted.clear()

    async def flush(self) -> None:
        """Write what is more than an hour newer than what is stored.  What a failed write would have stored stays pending."""
        self._stamp()
        crowded = len(self._pending) > MAX_USES
        due = {use: at for use, at in self._pending.items() if crowded or at - self._written.get(use, 0) >= GRAIN_US}
        await self._write(due)

    async def flush_all(self) -> None:
        """Write everything that is not stored yet: the server stops."""
        self._stamp()
        await self._write(dict(self._pending))

    async def _write(self, due: dict[Use, int]) -> None:
        by_principal: dict[str, dict[tuple[str, str], int]] = {}
        for (principal, permission, bound_on), at in due.items():
            by_principal.setdefault(principal, {})[permission, bound_on] = at
        principals = list(by_principal)
        for start in range(0, len(principals), ROWS_PER_CHANGE):
            some = principals[start : start + ROWS_PER_CHANGE]
            async with self._ledger.change() as changes:
                await self._put_start(changes)
                for principal in some:
                    await self._put(changes, principal, by_principal[principal])
            for principal in some:
                for (permission, bound_on), at in by_principal[principal].items():
                    use = (principal, permission, bound_on)
                    if len(self._written) >= MAX_USES:  # which costs a write of each that is used again
                        self._written.clear()
                    self._written[use] = at
                    if self._pending.get(use) == at:
                        del self._pending[use]

    async def _put_start(self, changes: Changes) -> None:
        if await changes.get(SINCE_KEY) is None:
            await changes.put(SINCE_KEY, _uid("since"), "ACTIVE", None, {"since": changes.now_us})

    async def _put(self, changes: Changes, principal: str, uses: dict[tuple[str, str], int]) -> None:
        key = _key(principal)
        found = await changes.get(key)
        stored = _uses_in(found.values) if found is not None else {}
        for use, at in uses.items():
            stored[use] = max(at, stored.get(use, 0))
        kept = [(at, use) for use, at in stored.items() if at >= changes.now_us - KEPT_US]
        kept = sorted(kept, reverse=True)[:MAX_USES_PER_PRINCIPAL]
        values = {"principal": principal, "uses": [[permission, bound_on, at] for at, (permission, bound_on) in kept]}
        await changes.put(key, _uid(principal), "ACTIVE", None, values)

    async def since_us(self) -> int | None:
        """When the recording began; None before the first use was written."""
        found = await self._ledger.read(SINCE_KEY)
        return int(found.values["since"]) if found is not None else None

    async def last_uses(self, principals: Iterable[str]) -> dict[str, dict[tuple[str, str], int]]:
        """By principal: when it last used (permission, resource of the binding), in microseconds, as stored and as pending."""
        self._stamp()
        found: dict[str, dict[tuple[str, str], int]] = {}
        for principal in principals:
            row = await self._ledger.read(_key(principal))
            found[principal] = _uses_in(row.values) if row is not None else {}
        for (principal, permission, bound_on), at in self._pending.items():
            uses = found.get(principal)
            if uses is not None:
                uses[permission, bound_on] = max(at, uses.get((permission, bound_on), 0))
        return found


def _uses_in(values: dict[str, Any]) -> dict[tuple[str, str], int]:
    return {(permission, bound_on): at for permission, bound_on, at in values["uses"]}


def _digest(principal: str) -> bytes:
    return hashlib.sha256(b"vaultd access\0" + principal.encode()).digest()


def _key(principal: str) -> RowKey:
    # A principal is longer than an id may be, and the id of a row is readable in the file.
    return RowKey("access", "", _digest(principal).hex(), 0)


def _uid(principal: str) -> bytes:
    return _digest(principal)[:16]
