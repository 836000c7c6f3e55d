"""Labels of keys, secrets and vaults in memory, for conditions of the policy.

Staleness as of the catalog: a change made by this process is seen by the next call, one by another process within one poll of the
feed.  What does not exist has no labels, and that is remembered too, so that the second question costs the same for a key
that is missing and for one that is forbidden.

Another kind of resource with labels needs its line in `_row_of` and its kind in `forget_changed`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from vaultd.engine.conditions import NO_LABELS
from vaultd.store.base import RowKey

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from vaultd.engine.ledger import Ledger
    from vaultd.store.base import Change

MAX_REMEMBERED: Final = 100_000


class LabelBook:
    """Read-through cache of labels, bounded; the oldest read goes first."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self._known: dict[RowKey, Mapping[str, str]] = {}
        self._changes = 0
        ledger.subscribe(self.forget_changed)

    async def of(self, resource: str) -> Mapping[str, str]:
        """The labels of a resource by its name: of a version those of its key or secret.

        None of the server, `vaults`, and what is not there.
        Raises DataLoss and Unavailable, as reading does.
        """
        at = _row_of(resource)
        if at is None:
            return NO_LABELS
        found = self._known.get(at)
        if found is None:
            changes = self._changes
            row = await self._ledger.read(at)
            found = row.values.get("labels", {}) if row is not None else NO_LABELS
            if changes == self._changes:  # else it may be old already: it is used once and not kept
                if len(self._known) >= MAX_REMEMBERED:
                    del self._known[next(iter(self._known))]
                self._known[at] = found
        return found

    def forget_changed(self, changes: Iterable[Change]) -> None:
        """Drop what a change touched."""
        for change in changes:
            if change.key.kind in {"key", "secret", "vault"}:
                self._changes += 1
                self._known.pop(change.key, None)

    def forget_all(self) -> None:
        """Drop everything: at seal, and when the feed has a gap."""
        self._changes += 1
        self._known.clear()


def _row_of(resource: str) -> RowKey | None:
    segments = resource.split("/")
    if len(segments) == 2 and segments[1]:
        return RowKey("vault", "", segments[1], 0)
    if len(segments) >= 4 and segments[2] == "keys":
        return RowKey("key", segments[1], segments[3], 0)
    if len(segments) >= 4 and segments[2] == "secrets":
        return RowKey("secret", segments[1], segments[3], 0)
    return None
