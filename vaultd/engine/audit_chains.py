"""What a store knows of the chains of its audit logs: a row for each, with its newest checkpoint and the chains beside it.

Chains that were in one audit directory belong together: where one of them is, all must be, and none shorter than its row says.
Those of another server on the store, or of a directory that was set aside as a whole, are none of a directory's concern.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, NamedTuple

from vaultd.audit.ties import Tie
from vaultd.store.base import RowKey

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from vaultd.audit.checkpoints import TreeHead
    from vaultd.engine.ledger import Ledger

LOG_KIND: Final = "audit_log"
ACCEPTANCE: Final = RowKey(LOG_KIND, "", "accepted", 0)
"""When an operator last had a store served that was put back from the past."""
_PAGE: Final = 500


class KnownChain(NamedTuple):
    """What a row says."""

    tie: Tie
    beside: frozenset[bytes]
    """The chains that this one named when the store was told."""


def log_row(chain_id: bytes) -> RowKey:
    """The row of a chain."""
    return RowKey(LOG_KIND, "", chain_id.hex(), 0)


def to_values(head: TreeHead, directory: str, beside: Sequence[Tie]) -> dict[str, Any]:
    """The row of a chain whose newest checkpoint is `head`."""
    return {
        "size": head.size,
        "root": head.root.hex(),
        "time": head.time,
        "first": head.first,
        "directory": directory,
        "beside": sorted(tie.chain_id.hex() for tie in beside),
    }


async def known_chains(ledger: Ledger) -> list[KnownChain]:
    """Every chain that the store was told of; but for those of a release whose servers had one each.  Raises DataLoss."""
    found, after = [], ""
    while rows := await ledger.list(LOG_KIND, "", after, _PAGE, ()):
        after = rows[-1].row.key.id
        for key, values in ((row.row.key, row.values) for row in rows):
            if key != ACCEPTANCE and "beside" in values:
                root = bytes.fromhex(values["root"])
                tie = Tie(bytes.fromhex(key.id), values["directory"], values["first"], values["size"], root)
                found.append(KnownChain(tie, frozenset(map(bytes.fromhex, values["beside"]))))
    return found


def belonging_to(present: Collection[bytes], known: Sequence[KnownChain]) -> list[Tie]:
    """What is known of the chains that were ever beside one of those that are present, directly or not, and of these."""
    together, rest = set(present), list(known)
    found: list[Tie] = []
    while near := [one for one in rest if one.tie.chain_id in together or together & one.beside]:
        for one in near:
            rest.remove(one)
            found.append(one.tie)
            together |= {one.tie.chain_id, *one.beside}
    return found
