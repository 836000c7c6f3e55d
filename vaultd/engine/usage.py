"""What key versions were used for, and the message budget of random-nonce ciphers.

Counters live in memory and reach the store every few seconds.  Budgets are leased from the store in blocks: a block is
durable before its first message is encrypted, so a crash wastes messages and never repeats a count.  The next block is
fetched when half of one is left, so no call waits for a write in ordinary running.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final

from vaultd.errors import FailedPrecondition, VaultdError
from vaultd.store.base import RowKey, Usage

if TYPE_CHECKING:
    from vaultd.engine.ledger import Changes, Ledger
    from vaultd.engine.model import Key
    from vaultd.names import KeyRef

BLOCK_MESSAGES: Final = 65_536
ROTATE_AT: Final = 7 / 8
"""Share of the budget at which a fresh version is made by itself."""


class VersionUsage:
    """Use of one key version that the store does not know of yet."""

    __slots__ = ("bytes", "last_us", "messages", "number", "uid")

    def __init__(self, uid: bytes, number: int) -> None:
        self.uid = uid
        self.number = number
        self.messages = 0
        self.bytes = 0
        self.last_us = 0

    def note(self, messages: int, size: int, now_us: int) -> None:
        """Count operations over `size` bytes of input in all."""
        self.messages += messages
        self.bytes += size
        self.last_us = now_us


class UsageBook:
    """All counters of this process."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self._counters: dict[bytes, dict[int, VersionUsage]] = {}

    def counter(self, uid: bytes, number: int) -> VersionUsage:
        """The counter of a version; the same object until the process ends."""
        of_key = self._counters.setdefault(uid, {})
        counter = of_key.get(number)
        if counter is None:
            counter = of_key[number] = VersionUsage(uid, number)
        return counter

    async def flush(self) -> None:
        """Add what was counted to the store.  What a failed write would have added stays counted."""
        taken = []
        for of_key in self._counters.values():
            for counter in of_key.values():
                if counter.messages:
                    taken.append((counter, counter.messages, counter.bytes))
        if not taken:
            return
        await self._ledger.store.add_usage(
            [Usage(counter.uid, counter.number, messages, size, counter.last_us) for counter, messages, size in taken]
        )
        for counter, messages, size in taken:
            counter.messages -= messages
            counter.bytes -= size

    async def totals(self, uid: bytes) -> dict[int, Usage]:
        """Stored and pending use of each version of a key."""
        totals = {usage.version: usage for usage in await self._ledger.store.usage(uid)}
        for number, counter in self._counters.get(uid, {}).items():
            if counter.messages:
                old = totals.get(number, Usage(uid, number, 0, 0, 0))
                totals[number] = Usage(
                    uid,
                    number,
                    old.messages + counter.messages,
                    old.bytes + counter.bytes,
                    max(old.last_use_at, counter.last_us),  # another process's use may be the later one
                )
        return totals


class Budget:
    """Messages that one version may still encrypt, in this process's lease."""

    __slots__ = ("_book", "_low", "_refill", "exhausted", "key", "leased", "left", "limit", "uid")

    def __init__(self, book: BudgetBook, key: RowKey, uid: bytes, limit: int) -> None:
        self._book = book
        self._low = book.block // 2
        self._refill: asyncio.Task[None] | None = None
        self.key = key
        self.uid = uid
        self.limit = limit
        self.left = 0
        self.leased = 0
        self.exhausted = False

    def spend(self) -> None:
        """Take one message.  Raises FailedPrecondition when the version may encrypt no more."""
        if not self.spend_many(1):
            raise budget_exhausted()

    def spend_many(self, messages: int) -> bool:
        """Take so many messages, or none of them when they are not all left here: False."""
        left = self.left - messages
        if left < self._low:
            if left < 0:
                return False
            if not self.exhausted and self._refill is None:
                self._start()
        self.left = left
        return True

    def _start(self) -> None:
        self._refill = asyncio.get_running_loop().create_task(self._book.lease(self))
        self._refill.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._refill = None
        if not task.cancelled():
            task.exception()  # a failed lease shows as an empty budget to the call that needs it

    async def ready(self, messages: int) -> None:
        """Wait until `messages` can be spent, or the version is at its limit; raises what the lease raised."""
        while self.left < messages and not self.exhausted:
            if self._refill is None:
                self._start()
            refill = self._refill
            if refill is not None:
                await asyncio.shield(refill)


class BudgetBook:
    """Leases of message budgets."""

    def __init__(self, ledger: Ledger, messages_per_version: int | None) -> None:
        self._ledger = ledger
        self.low: set[RowKey] = set()
        """Versions that near their limit; the scheduler takes them out and rotates their keys."""
        self._ceiling = messages_per_version
        self._budgets: dict[tuple[bytes, int], Budget] = {}
        self.block = (
            BLOCK_MESSAGES if messages_per_version is None else max(1, min(BLOCK_MESSAGES, messages_per_version // 16))
        )

    def budget(self, vault: str, key: str, number: int, uid: bytes, max_messages: int) -> Budget:
        """The budget of a version; the same object until the process ends."""
        found = self._budgets.get((uid, number))
        if found is None:
            limit = self.limit_of(max_messages)
            found = self._budgets[uid, number] = Budget(self, RowKey("budget", vault, key, number), uid, limit)
        return found

    def limit_of(self, max_messages: int) -> int:
        """How many messages a version may encrypt here, of an algorithm that permits so many."""
        return min(max_messages, self._ceiling or max_messages)

    async def spend_before(self, changes: Changes, key: Key, number: int, messages: int | None) -> None:
        """In the change that brings a version in: take off its budget what it encrypted elsewhere; None is all of it.

        Nothing where the algorithm's messages are not counted.
        """
        most = key.algorithm.max_messages
        if most is not None and messages != 0:
            limit = self.limit_of(most)
            spent = limit if messages is None else min(messages, limit)
            await changes.put(RowKey("budget", key.vault, key.id, number), key.uid, "LEASED", None, {"leased": spent})

    def exhaust(self, uid: bytes, number: int) -> None:
        """Give up what this process holds of a version that may encrypt no more."""
        found = self._budgets.get((uid, number))
        if found is not None:
            found.left, found.exhausted = 0, True

    async def lease(self, budget: Budget) -> None:
        """Lease one more block.  Durable before any message of it is encrypted."""
        async with self._ledger.change() as changes:
            found = await changes.get(budget.key)
            leased: int = found.values["leased"] if found is not None else 0
            block = min(self.block, budget.limit - leased)
            if block > 0:
                await changes.put(budget.key, budget.uid, "LEASED", None, {"leased": leased + block})
        budget.leased = leased + max(block, 0)
        budget.left += max(block, 0)
        budget.exhausted = budget.leased >= budget.limit
        if budget.leased >= budget.limit * ROTATE_AT:
            self.low.add(budget.key)

    async def messages_left(self, ref: KeyRef, uid: bytes, max_messages: int) -> int:
        """Messages that a version may still encrypt, counting other processes' leases as spent."""
        budget = self.budget(ref.vault, ref.key, ref.version, uid, max_messages)
        found = await self._ledger.read(budget.key)
        leased: int = found.values["leased"] if found is not None else 0
        return budget.limit - leased + budget.left


def budget_exhausted() -> VaultdError:
    """The error of an encryption that would pass the limit of its version."""
    return FailedPrecondition(
        "MESSAGE_BUDGET_EXHAUSTED",
        "this key version has encrypted as many messages as its algorithm permits; call RotateKey",
    )
