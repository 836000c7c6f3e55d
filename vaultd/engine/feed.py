"""Follows the revision feed, so that this process sees what others wrote to the same store."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final

from vaultd.engine.authority import POLICY_KEY
from vaultd.engine.ledger import RING_KEY
from vaultd.engine.seal import SealState

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from vaultd.engine.authority import Authority
    from vaultd.engine.ledger import Ledger
    from vaultd.engine.seal import Seal
    from vaultd.store.base import RowKey

PAGE: Final = 1000


class FeedFollower:
    """Passes other processes' changes to the ledger's listeners.  `poll` is called often and costs one cheap question."""

    def __init__(
        self,
        ledger: Ledger,
        authority: Authority,
        seal: Seal,
        forget_keys: Callable[[], None],
        followers: Sequence[Callable[[], Awaitable[None]]] = (),
    ) -> None:
        """`followers` read again what the listeners found changed."""
        self._ledger = ledger
        self._authority = authority
        self._seal = seal
        self._forget_keys = forget_keys
        self._followers = followers
        self._turn = asyncio.Lock()
        self._behind = False
        self._unread: set[RowKey] = set()
        self.revision = 0

    async def start(self) -> None:
        """Follow from now on: what was written before is read from the store when it is needed."""
        self.revision = await self._ledger.store.revision()

    async def poll(self) -> int:
        """Take in what others wrote since the last poll; returns the number of their changes.

        What a failed poll could not take in (raises what the store or the policy raised), the next one takes in.
        """
        async with self._turn:
            self._behind |= await self._ledger.store.changed()
            foreign = await self._publish_others() if self._behind else 0
            self._behind = False
            await self._read_again()
            return foreign

    async def _publish_others(self) -> int:
        foreign = 0
        while changes := await self._ledger.store.changes(self.revision, PAGE):
            if changes[0].revision != self.revision + 1:
                # What is in between was trimmed while this process stood still: believe nothing that is in memory.
                self._forget_keys()
                self._unread |= {RING_KEY, POLICY_KEY}
            self.revision = changes[-1].revision
            others = [change for change in changes if change.revision not in self._ledger.own_revisions]
            self._ledger.own_revisions.difference_update(change.revision for change in changes)
            self._unread |= {change.key for change in others} & {RING_KEY, POLICY_KEY}
            self._ledger.publish(others)
            foreign += len(others)
        return foreign

    async def _read_again(self) -> None:
        if RING_KEY in self._unread:
            await self._seal.follow_ring()
            self._unread.discard(RING_KEY)
        if POLICY_KEY in self._unread:
            if self._seal.state is SealState.UNSEALED:  # else unsealing reads it
                await self._authority.reload()
            self._unread.discard(POLICY_KEY)
        if self._seal.state is SealState.UNSEALED:  # else unsealing reads all of it
            for follow in self._followers:
                await follow()
