"""Principals whose calls are refused, whatever their credentials and the policy say.

The rows are in the store, sealed and bound like every other; all of them are in memory, so a call costs one look into a
dictionary.  A revocation holds in this process when `revoke` returns, and in every other at its next poll of the feed.
While the vault is sealed the rows cannot be read: what was known stays in force, and a process that started sealed knows none.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
from typing import TYPE_CHECKING, Final

from vaultd.engine.model import RevokedIdentity, encode_resource
from vaultd.engine.permissions import PERMISSIONS
from vaultd.engine.policy import GROUP_PREFIX, ROOT
from vaultd.errors import DataLoss, FailedPrecondition, NotFound, ResourceExhausted, Unauthenticated
from vaultd.store.base import RowKey

if TYPE_CHECKING:
    import builtins
    from collections.abc import Iterable, Iterator

    from vaultd.engine.authority import Authority
    from vaultd.engine.ledger import Changes, Intent, Ledger
    from vaultd.engine.policy import PolicyEngine
    from vaultd.store.base import Change

KIND: Final = "revocation"
MAX_REVOKED: Final = 100_000
_ACTIVE: Final = "ACTIVE"
_ROWS: Final = 1_000
"""Rows that one read of all of them takes at a time."""


def row_key(principal: str) -> RowKey:
    """Where a principal's revocation is.  The name is hashed: rows are readable without the key ring, and policy is not."""
    return RowKey(KIND, "", hashlib.sha256(principal.encode()).hexdigest(), 0)


class Revocations:
    """Revokes and restores principals, and knows at any time which are revoked."""

    def __init__(self, ledger: Ledger, authority: Authority) -> None:
        self._ledger = ledger
        self._authority = authority
        self._principals: dict[str, str] = {}
        """Row id -> principal."""
        self._revoked: set[str] = set()
        self._unread: set[RowKey] = set()
        self._all_unread = True
        self._lost: DataLoss | None = None
        self._turn = asyncio.Lock()
        ledger.subscribe(self._note)

    def require(self, principal: str) -> None:
        """Raise Unauthenticated when the principal is revoked, and DataLoss when that cannot be known."""
        if principal in self._revoked:
            raise Unauthenticated(
                "IDENTITY_REVOKED", "an administrator revoked this identity; AdminService.RestoreIdentity lifts it"
            )
        if self._lost is not None:
            raise self._lost

    def revoked(self) -> frozenset[str]:
        """Every revoked principal, as it is known now."""
        return frozenset(self._revoked)

    def is_revoked(self, principal: str) -> bool:
        """Whether a principal is revoked, as it is known now."""
        return principal in self._revoked

    # -- what is in memory ----------------------------------------------------------------------------------------------

    def _note(self, changes: Iterable[Change]) -> None:
        self._unread |= {change.key for change in changes if change.key.kind == KIND and change.event != "reseal"}

    def forget(self) -> None:
        """Read every row again at the next `take_in`; what is known stays in force until then."""
        self._all_unread = True

    async def reload(self) -> None:
        """Read every row, on unsealing; raises DataLoss."""
        self.forget()
        try:
            await self.take_in()
        except DataLoss:
            self._lost = None  # the vault is sealed then, which says so to everybody, and lets operators look
            raise

    async def take_in(self) -> None:
        """Read what changed.  What cannot be read is read by the next call; meanwhile nobody is accepted if rows were lost."""
        async with self._turn:
            try:
                if self._all_unread:
                    self._unread.clear()
                    await self._read_all()
                    self._all_unread = False
                while self._unread:
                    key = next(iter(self._unread))
                    self._unread.discard(key)
                    await self._read(key)
            except DataLoss as error:
                self._lost = error
                self._all_unread = True
                raise
            except BaseException:
                self._all_unread = True
                raise
            self._lost = None

    async def _read_all(self) -> None:
        principals: dict[str, str] = {}
        after = ""
        while rows := await self._ledger.list(KIND, "", after, _ROWS, (_ACTIVE,)):
            principals.update((row.row.key.id, row.resource().principal) for row in rows)
            after = rows[-1].row.key.id
        self._principals = principals
        self._revoked = set(principals.values())

    async def _read(self, key: RowKey) -> None:
        found = await self._ledger.read(key)
        if found is not None:
            principal = self._principals[key.id] = found.resource().principal
            self._revoked.add(principal)
        elif key.id in self._principals:
            self._revoked.discard(self._principals.pop(key.id))

    # -- calls ----------------------------------------------------------------------------------------------------------

    async def revoke(self, intent: Intent, principal: str, reason: str) -> RevokedIdentity:
        """Refuse a principal's calls from now on.  Idempotent: one that is revoked stays as it is.

        Durable, and in force in this process, when it returns.  Raises FailedPrecondition for the caller itself, and for
        the last administrator that is not revoked.
        """
        if principal == intent.principal:
            raise FailedPrecondition(
                "REVOKES_ITSELF", "nobody revokes the identity that they call with; let another administrator do it"
            )

        async def body(changes: Changes) -> RevokedIdentity:
            # Two who revoke each other at once: the second finds itself revoked.
            if await changes.get(row_key(intent.principal)) is not None:
                raise Unauthenticated(
                    "IDENTITY_REVOKED", "an administrator revoked this identity; AdminService.RestoreIdentity lifts it"
                )
            key = row_key(principal)
            found = await changes.get(key)
            if found is not None:
                known: RevokedIdentity = found.resource()
                return known
            if len(self._revoked) >= MAX_REVOKED:
                raise ResourceExhausted(
                    "TOO_MANY_REVOKED", f"at most {MAX_REVOKED:,} principals are revoked at once; restore some"
                )
            await self._keep_an_administrator(changes, principal)
            fresh = RevokedIdentity(principal, os.urandom(16), reason, intent.principal, changes.now_us)
            await changes.put(key, fresh.uid, _ACTIVE, None, encode_resource(fresh))
            return fresh

        revoked = await self._ledger.mutate(intent, body)
        await self.take_in()
        return revoked

    async def restore(self, intent: Intent, principal: str) -> None:
        """Lift a revocation; raises NotFound when there is none."""

        async def body(changes: Changes) -> None:
            if not await lift(changes, [principal]):
                raise NotFound(
                    "REVOCATION_NOT_FOUND", "this principal is not revoked; ListRevokedIdentities shows those that are"
                )

        await self._ledger.mutate(intent, body)
        await self.take_in()

    async def list(self, after: str, limit: int) -> builtins.list[tuple[str, RevokedIdentity]]:
        """Read row ids and revocations, after a row id."""
        rows = await self._ledger.list(KIND, "", after, limit, (_ACTIVE,))
        return [(row.row.key.id, row.resource()) for row in rows]

    async def _keep_an_administrator(self, changes: Changes, principal: str) -> None:
        """Raise FailedPrecondition when nobody would be left who can undo it."""
        engine = self._authority.engine
        last = False
        for administrator in administrators(engine):
            if administrator == principal:
                last = True
            elif await changes.get(row_key(administrator)) is None:
                return
        if last:
            raise FailedPrecondition(
                "LAST_ADMINISTRATOR",
                "this is the last administrator that is not revoked; make another one first (or `vaultd recover-admin`)",
            )


async def lift(changes: Changes, principals: Iterable[str]) -> int:
    """Delete the revocations of principals; returns how many there were."""
    keys = [row_key(principal) for principal in principals]
    found = [key for key in keys if await changes.get(key) is not None]
    for key in found:
        await changes.delete(key)
    return len(found)


def administrators(engine: PolicyEngine) -> Iterator[str]:
    """The principals that a policy gives every permission on everything."""
    policy = engine.policy
    groups = {GROUP_PREFIX + group.name: group.members for group in policy.groups}
    seen: set[str] = set()
    for binding in policy.bindings:
        if binding.resource != ROOT:
            continue
        for member in binding.members:
            for principal in groups.get(member, (member,)):
                if principal not in seen:
                    seen.add(principal)
                    if all(engine.allows(principal, permission, ROOT) for permission in PERMISSIONS):
                        yield principal
