"""The policy in force, read from the store and replaced when it changes."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final

from vaultd.engine.policy import Policy, PolicyEngine
from vaultd.engine.sealing import row_lost, sealed_error
from vaultd.errors import DataLoss
from vaultd.store.base import RowKey

if TYPE_CHECKING:
    from vaultd.engine.ledger import Changes, Ledger

POLICY_KEY: Final = RowKey("policy", "", "policy", 0)
POLICY_UID: Final = b"vaultd-policy-01"


class Authority:
    """Holds the compiled policy; none while sealed, and then nothing is allowed."""

    def __init__(self, ledger: Ledger, operators: frozenset[str]) -> None:
        self._ledger = ledger
        self._engine: PolicyEngine | None = None
        self._lost = False
        self._revision = 0
        self._loads = 0
        self.operators = operators

    @property
    def engine(self) -> PolicyEngine:
        """The policy in force; raises Unavailable, reason SEALED, while there is none, and DataLoss when it is missing."""
        if self._engine is None:
            self._ledger.require_unsealed()
            # While the key ring is being opened and checked there is no policy yet, and nothing is wrong.
            raise row_lost(POLICY_KEY) if self._lost else sealed_error()
        return self._engine

    @property
    def loaded(self) -> bool:
        """Whether there is a policy to ask."""
        return self._engine is not None

    async def reload(self) -> None:
        """Read and compile the policy; the one in force stays meanwhile.

        Fails closed: whatever it raises (DataLoss when the policy is missing), nothing is allowed from then on.
        """
        loads = self._loads
        try:
            found = await self._ledger.read(POLICY_KEY)
            if found is None:
                raise row_lost(POLICY_KEY)
            # Not on the event loop: a large policy takes a second to read.
            engine = await asyncio.to_thread(_compile, found.values["policy"])
        except BaseException as error:
            self._engine = None
            self._revision = 0
            self._lost = isinstance(error, DataLoss)
            raise
        if self._loads == loads and found.row.revision >= self._revision:  # else it was overtaken by a newer one
            self._engine, self._revision = engine, found.row.revision
            self._lost = False

    def adopt(self, engine: PolicyEngine, revision: int) -> None:
        """Put in force what this process has just committed; nothing, when the server was sealed meanwhile."""
        if self._engine is not None and revision > self._revision:
            self._engine, self._revision = engine, revision

    def forget(self) -> None:
        """Allow nothing from now on; what is being read now is not put in force either."""
        self._engine = None
        self._revision = 0
        self._loads += 1
        self._lost = False


def _compile(document: object) -> PolicyEngine:
    return PolicyEngine(Policy.parse(document))


async def put_policy(changes: Changes, policy: Policy) -> None:
    """Write a policy; it is in force on this node when the change is committed and reloaded."""
    await changes.put(POLICY_KEY, POLICY_UID, "ACTIVE", None, {"policy": policy.to_document()})
