"""Follows the revision feed, so that this process sees what others wrote to the same store."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from vaultd.engine.authority import POLICY_KEY
from vaultd.engine.ledger import RING_KEY

if TYPE_CHECKING:
    from vaultd.engine.authority import Authority
    from vaultd.engine.ledger import Ledger
    from vaultd.engine.seal import Seal
    from vaultd.store.base import Change

PAGE: Final = 1000


class FeedFollower:
    """Passes other processes' changes to the ledger's listeners.  `poll` is called often and costs one cheap question."""

    def __init__(self, ledger: Ledger, authority: Authority, seal: Seal) -> None:
        self._ledger = ledger
        self._authority = authority
        self._seal = seal
        self.revision = 0

    async def start(self) -> None:
        """Follow from now on: what was written before is read from the store when it is needed."""
        self.revision = await self._ledger.store.revision()

    async def poll(self) -> int:
        """Take in what others wrote since the last poll; returns the number of their changes."""
        if not await self._ledger.store.changed():
            return 0
        foreign = 0
        while changes := await self._ledger.store.changes(self.revision, PAGE):
            self.revision = changes[-1].revision
            others = [change for change in changes if change.revision not in self._ledger.own_revisions]
            self._ledger.own_revisions.difference_update(change.revision for change in changes)
            foreign += len(others)
            await self._take_in(others)
        return foreign

    async def _take_in(self, changes: list[Change]) -> None:
        self._ledger.publish(changes)
        touched = {change.key for change in changes}
        if RING_KEY in touched:
            await self._seal.follow_ring()
        if POLICY_KEY in touched and self._authority.loaded:
            await self._authority.reload()
