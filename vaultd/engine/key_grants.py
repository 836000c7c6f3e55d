"""Grants: use of one key that a principal delegates to another, until a time and for a number of uses.

Policy is asked first, and a grant is looked at only where policy has nothing to say: an explicit deny on the grantee wins.  In
each use the granter must hold the permission by policy, so a grant dies with its granter's right, and no grant rests on a grant.

All grants are in memory, by grantee and key: one look-up says that there is none.  The grants of a key are one row of the store,
so that their number is bounded and a key that goes takes all of them along, in one transaction.  Uses are leased from the store
in blocks, like message budgets: a block is durable before its first use, so a crash loses uses and never gives more.
"""

from __future__ import annotations

import asyncio
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from vaultd.engine.catalog import key_not_found
from vaultd.engine.clock import DAY_US
from vaultd.engine.model import Grant, KeyState, decode_resource, encode_resource
from vaultd.engine.permissions import GRANTABLE
from vaultd.engine.policy import is_principal
from vaultd.errors import FailedPrecondition, InvalidArgument, NotFound, PermissionDenied, ResourceExhausted
from vaultd.store.base import RowKey

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from vaultd.engine.authority import Authority
    from vaultd.engine.clock import Clock
    from vaultd.engine.ledger import Changes, Intent, Ledger, OpenRow
    from vaultd.engine.revocations import Revocations
    from vaultd.names import KeyRef
    from vaultd.store.base import Change

KIND: Final = "grants"
USES: Final = "grant_uses"
MAX_GRANTS_PER_KEY: Final = 500
MAX_GRANTS: Final = 100_000
"""In all.  Counted in memory: nodes that create at the same moment may pass it by what they create in a tenth of a second."""
MAX_TERM_US: Final = 366 * DAY_US
DEFAULT_TERM_US: Final = 30 * DAY_US
MAX_USES: Final = 10**12
BLOCK_USES: Final = 1024
ROWS_PER_PAGE: Final = 100
"""Keys that one page of a list looks at, whatever it finds."""


@dataclass(frozen=True, slots=True)
class GrantSpec:
    """What a caller asks of a new grant."""

    grantee: str
    permissions: tuple[str, ...]
    expire_us: int | None = None
    max_uses: int = 0


class HeldGrant:
    """A grant in memory, and the uses that this process may still give of it."""

    __slots__ = ("alive", "grant", "left", "permissions", "short", "turn")

    def __init__(self, grant: Grant) -> None:
        self.grant = grant
        self.permissions = frozenset(grant.permissions)
        self.left = 0
        self.alive = True
        """False once it is revoked or its key is gone."""
        self.short = 0
        """So many uses the store did not have, if not 0: nobody asks it for as many again until its count changes."""
        self.turn = asyncio.Lock()

    @property
    def block(self) -> int:
        return min(BLOCK_USES, max(1, self.grant.max_uses // 16))


def _row(vault: str, key: str) -> RowKey:
    return RowKey(KIND, vault, key, 0)


def _uses_row(grant: Grant) -> RowKey:
    return RowKey(USES, grant.vault, f"{grant.key}/{grant.id}", 0)


Entry = dict[str, Any]
"""A grant as its row holds it.  A row may hold hundreds: they are decoded one by one, where they are needed."""


def _entries(found: OpenRow | None) -> list[Entry]:
    return found.values["grants"] if found is not None else []


def _decode(entry: Entry) -> Grant:
    grant: Grant = decode_resource(entry)
    return grant


async def drop_grants(changes: Changes, vault: str, key: str) -> None:
    """Take the grants of a key away with it, in the change that deletes it."""
    found = await changes.get(_row(vault, key))
    if found is not None:
        await _put(changes, found.row.uid, vault, key, _entries(found), [])


async def _put(
    changes: Changes, uid: bytes, vault: str, key: str, before: Sequence[Entry], after: Sequence[Entry]
) -> None:
    """Write the grants of a key; forget the uses of those that are gone."""
    kept = {entry["id"] for entry in after}
    for entry in before:
        if entry["id"] not in kept and entry["max_uses"]:
            uses = _uses_row(_decode(entry))
            if await changes.get(uses) is not None:
                await changes.delete(uses)
    if after:
        due_us = min(entry["expire_us"] for entry in after)
        await changes.put(_row(vault, key), uid, "ACTIVE", due_us, {"grants": list(after)})
    else:
        await changes.delete(_row(vault, key))


class Grants:
    """Creates, finds, counts and ends grants.  Mutations are atomic, durable, and in force on this node when they return."""

    def __init__(self, ledger: Ledger, authority: Authority, revocations: Revocations, clock: Clock) -> None:
        self._ledger = ledger
        self._authority = authority
        self._revocations = revocations
        self._clock = clock
        self._by_key: dict[tuple[str, str], tuple[HeldGrant, ...]] = {}
        self._by_grantee: dict[tuple[str, str], tuple[HeldGrant, ...]] = {}
        self._count = 0
        self._unread: dict[tuple[str, str], None] = {}
        self._loaded = False
        self._turn = asyncio.Lock()
        ledger.subscribe(self._note)

    # -- what is in memory ----------------------------------------------------------------------------------------------

    def _note(self, changes: Iterable[Change]) -> None:
        for change in changes:
            if change.key.kind == KIND:
                at = (change.key.scope, change.key.id)
                if change.event == "delete":
                    self._keep(at, [])  # at once: none of them is left
                self._unread[at] = None
            elif change.key.kind == USES:
                key, _, id = change.key.id.partition("/")
                for held in self._by_key.get((change.key.scope, key), ()):
                    if held.grant.id == id:
                        held.short = 0

    def forget(self) -> None:
        """Know nothing: at seal, and when the feed has a gap.  Nothing is granted until `follow`."""
        self._loaded = False
        for at in list(self._by_key):
            self._keep(at, [])
        self._unread.clear()

    async def follow(self) -> None:
        """Take in what changed, here or elsewhere.  What it could not read gives nothing until the next call has read it."""
        async with self._turn:
            if not self._loaded:
                await self._load()
                self._loaded = True
            while self._unread:
                at = next(iter(self._unread))
                del self._unread[at]
                try:
                    found = await self._ledger.read(_row(*at))
                except BaseException:
                    self._unread[at] = None
                    self._keep(at, [])
                    raise
                self._keep(at, _entries(found))

    async def _load(self) -> None:
        after = ""
        while vaults := await self._ledger.list("vault", "", after, ROWS_PER_PAGE, ()):
            after = vaults[-1].row.key.id
            for vault in vaults:
                last = ""
                while rows := await self._ledger.list(KIND, vault.row.key.id, last, ROWS_PER_PAGE, ()):
                    last = rows[-1].row.key.id
                    for row in rows:
                        at = (row.row.key.scope, row.row.key.id)
                        if at not in self._unread:  # else it changed after this was read
                            self._keep(at, _entries(row))

    def _keep(self, at: tuple[str, str], entries: Sequence[Entry]) -> None:
        """Make these the grants of a key; those that stay keep their leases."""
        before = {held.grant.id: held for held in self._by_key.pop(at, ())}
        for grantee in {held.grant.grantee for held in before.values()}:
            self._by_grantee.pop((grantee, f"vaults/{at[0]}/keys/{at[1]}"), None)
        self._count += len(entries) - len(before)
        if entries:
            # A grant never changes: one that is known need not be decoded again.
            kept = tuple(before.pop(one["id"]) if one["id"] in before else HeldGrant(_decode(one)) for one in entries)
            self._by_key[at] = kept
            for held in kept:
                place = (held.grant.grantee, held.grant.key_name)
                self._by_grantee[place] = (*self._by_grantee.get(place, ()), held)
        for held in before.values():
            held.alive = False

    # -- use ------------------------------------------------------------------------------------------------------------

    def candidates(self, grantee: str, permission: str, resource: str, key_name: str) -> list[HeldGrant]:
        """The grants that give a permission on a resource of a key now; those without a count first, then the first to expire.

        The caller has asked policy for the grantee, found no decision, and spends a use before it allows anything.
        """
        found = self._by_grantee.get((grantee, key_name))
        if found is None or permission not in GRANTABLE:
            return []
        now_us = self._clock.now_us()
        giving = [
            held
            for held in found
            if permission in held.permissions and self._gives(held, now_us) and self._held(held, permission, resource)
        ]
        return sorted(giving, key=lambda held: (held.grant.max_uses > 0, held.grant.expire_us))

    @staticmethod
    def _gives(held: HeldGrant, now_us: int) -> bool:
        return held.alive and now_us < held.grant.expire_us

    def _held(self, held: HeldGrant, permission: str, resource: str) -> bool:
        granter = held.grant.granter
        return not self._revocations.is_revoked(granter) and self._authority.engine.allows(
            granter, permission, resource
        )

    async def spend(self, held: HeldGrant, uses: int = 1) -> bool:
        """Take uses of a grant, all or none; False when it does not give so many.  Durable before they are given."""
        while self._gives(held, self._clock.now_us()):
            if not held.grant.max_uses:
                return True
            if held.left >= uses:
                held.left -= uses
                return True
            async with held.turn:
                wanted = uses - held.left
                if wanted > 0 and (0 < held.short <= wanted or not await self._lease(held, wanted)):
                    return False
        return False

    async def _lease(self, held: HeldGrant, wanted: int) -> bool:
        grant = held.grant
        async with self._ledger.change() as changes:
            found = await changes.get(_uses_row(grant))
            if found is None:  # revoked elsewhere, and the feed is on its way
                held.alive = False
                return False
            leased: int = found.values["leased"]
            block = min(max(wanted, held.block), grant.max_uses - leased)
            if block < wanted:
                held.short = wanted
                return False
            await changes.put(_uses_row(grant), found.row.uid, "LEASED", None, {"leased": leased + block})
        held.left += block
        return True

    async def give_back(self) -> None:
        """Return the uses that were leased and not spent: the process ends."""
        held_back = [held for held in self._all() if held.left and held.alive]
        if not held_back:
            return
        async with self._ledger.change() as changes:
            for held in held_back:
                left, held.left = held.left, 0
                found = await changes.get(_uses_row(held.grant))
                if found is not None:
                    values = {"leased": found.values["leased"] - left}
                    await changes.put(_uses_row(held.grant), found.row.uid, "LEASED", None, values)

    def _all(self) -> Iterable[HeldGrant]:
        return (held for grants in self._by_key.values() for held in grants)

    # -- life -----------------------------------------------------------------------------------------------------------

    async def create(self, intent: Intent, ref: KeyRef, spec: GrantSpec) -> Grant:
        """Create a grant.  Raises InvalidArgument, PermissionDenied for what the granter lacks, NotFound for the key."""
        known, answer = await self._ledger.answered(intent)
        if known:
            return answer  # type: ignore[no-any-return]  # what create stored
        self._check(intent.principal, spec)
        for permission in spec.permissions:
            if not self._authority.engine.allows(intent.principal, permission, ref.key_name):
                raise PermissionDenied(
                    "GRANT_EXCEEDS_RIGHTS",
                    "only what policy gives the granter on this key can be granted; leave out what you do not hold",
                )
        if self._count >= MAX_GRANTS:
            raise ResourceExhausted(
                "TOO_MANY_GRANTS", f"this server has {MAX_GRANTS:,} grants; revoke some, or use bindings of the policy"
            )

        async def body(changes: Changes) -> Grant:
            key = await changes.get(RowKey("key", ref.vault, ref.key, 0))
            if key is None or key.row.state == KeyState.PURGED.value:
                raise key_not_found()
            if key.row.state != KeyState.ACTIVE.value:
                raise FailedPrecondition("KEY_DELETED", "the key is deleted; call UndeleteKey first")
            found = await changes.get(_row(ref.vault, ref.key))
            before = _entries(found)
            if len(before) >= MAX_GRANTS_PER_KEY:
                raise ResourceExhausted(
                    "TOO_MANY_GRANTS",
                    f"a key has at most {MAX_GRANTS_PER_KEY} grants; revoke some, or use bindings of the policy",
                )
            grant = Grant(
                vault=ref.vault,
                key=ref.key,
                id=os.urandom(10).hex(),
                granter=intent.principal,
                grantee=spec.grantee,
                permissions=spec.permissions,
                create_us=changes.now_us,
                expire_us=self._expiry(spec, changes.now_us),
                max_uses=spec.max_uses,
            )
            uid = found.row.uid if found is not None else os.urandom(16)
            after = sorted([*before, encode_resource(grant)], key=lambda entry: str(entry["id"]))
            await _put(changes, uid, ref.vault, ref.key, before, after)
            if grant.max_uses:
                await changes.put(_uses_row(grant), uid, "LEASED", None, {"leased": 0})
            return grant

        grant = await self._ledger.mutate(intent, body)
        await self.follow()
        return grant

    @staticmethod
    def _check(granter: str, spec: GrantSpec) -> None:
        if not is_principal(spec.grantee) or spec.grantee == granter:
            raise InvalidArgument(
                "GRANTEE_INVALID",
                "grant.grantee must be another principal: spiffe://domain/path, dns:name or jwt:issuer:sub, in its "
                "canonical spelling",
                field="grant.grantee",
            )
        granted = set(spec.permissions)
        if not granted or len(granted) != len(spec.permissions) or not granted <= GRANTABLE:
            raise InvalidArgument(
                "PERMISSION_NOT_GRANTABLE",
                "grant.permissions must name, each once, permissions that use a key or read its public part",
                field="grant.permissions",
            )

    @staticmethod
    def _expiry(spec: GrantSpec, now_us: int) -> int:
        if spec.expire_us is None:
            return now_us + DEFAULT_TERM_US
        if not now_us < spec.expire_us <= now_us + MAX_TERM_US:
            raise InvalidArgument(
                "EXPIRE_TIME_RANGE",
                f"grant.expire_time must be in the future and at most {MAX_TERM_US // DAY_US} days ahead",
                field="grant.expire_time",
            )
        return spec.expire_us

    async def get(self, ref: KeyRef, id: str) -> tuple[Grant, int]:
        """A grant and the uses that are left of it; raises NotFound."""
        found = await self._ledger.read(_row(ref.vault, ref.key))
        for entry in _entries(found):
            if entry["id"] == id and self._clock.now_us() < entry["expire_us"]:
                grant = _decode(entry)
                return grant, await self.uses_left(grant)
        raise _grant_not_found()

    async def uses_left(self, grant: Grant) -> int:
        """Uses that a grant may still give, counting other processes' leases as spent; 0 for one without a count."""
        if not grant.max_uses:
            return 0
        found = await self._ledger.read(_uses_row(grant))
        leased: int = found.values["leased"] if found is not None else grant.max_uses
        mine = sum(held.left for held in self._by_key.get((grant.vault, grant.key), ()) if held.grant.id == grant.id)
        return grant.max_uses - leased + mine

    async def list(
        self, vault: str, key: str, grantee: str, after: tuple[str, str], limit: int
    ) -> tuple[list[tuple[Grant, int]], tuple[str, str] | None]:
        """Grants and their uses after (key, id), of one key or of all keys of a vault; and where to go on, if anywhere.

        Raises NotFound when there is no such key or vault.
        Looks at a bounded number of keys, so there may be a next page after an empty one.
        """
        if key:
            await self._require_key(vault, key)
            one = await self._ledger.read(_row(vault, key))
            rows, more = [one] if one is not None else [], False
        else:
            await self._require_vault(vault)
            # The key of `after` may have more: it is read again, and what was shown is passed over.
            first = await self._ledger.read(_row(vault, after[0])) if after[0] else None
            rest = await self._ledger.list(KIND, vault, after[0], ROWS_PER_PAGE, ())
            rows, more = [*([first] if first is not None else []), *rest], len(rest) == ROWS_PER_PAGE
        now_us = self._clock.now_us()
        found: list[tuple[Grant, int]] = []
        last = after
        for row in rows:
            for entry in _entries(row):
                at = (entry["key"], entry["id"])
                if at <= after or now_us >= entry["expire_us"] or grantee not in {"", entry["grantee"]}:
                    continue
                if len(found) == limit:
                    return found, last
                grant = _decode(entry)
                found.append((grant, await self.uses_left(grant)))
                last = at
        # Past the last id of the last key that was looked at.
        return found, (rows[-1].row.key.id, "~") if more else None

    async def _require_key(self, vault: str, key: str) -> None:
        found = await self._ledger.read(RowKey("key", vault, key, 0))
        if found is None or found.row.state == KeyState.PURGED.value:
            raise key_not_found()

    async def _require_vault(self, vault: str) -> None:
        found = await self._ledger.read(RowKey("vault", "", vault, 0))
        if found is None or found.row.state != "ACTIVE":
            raise NotFound("VAULT_NOT_FOUND", "no such vault; ListVaults shows the vaults")

    async def revoke(self, intent: Intent, ref: KeyRef, id: str) -> None:
        """End a grant; no use of it is given on this node once it returned.  Raises NotFound."""

        async def body(changes: Changes) -> None:
            found = await changes.get(_row(ref.vault, ref.key))
            before = _entries(found)
            after = [entry for entry in before if entry["id"] != id]
            if found is None or len(after) == len(before):
                raise _grant_not_found()
            await _put(changes, found.row.uid, ref.vault, ref.key, before, after)

        await self._ledger.mutate(intent, body)
        await self.follow()

    async def expire_if_due(self, key: RowKey, now_us: int) -> int:
        """The scheduler's part: remove the expired grants of a key; how many they were."""
        gone = 0
        async with self._ledger.change() as changes:
            found = await changes.get(key)
            if found is not None:
                before = _entries(found)
                after = [entry for entry in before if now_us < entry["expire_us"]]
                gone = len(before) - len(after)
                if gone:
                    await _put(changes, found.row.uid, key.scope, key.id, before, after)
        await self.follow()
        return gone


def _grant_not_found() -> NotFound:
    return NotFound("GRANT_NOT_FOUND", "no such grant, or it ended; ListGrants shows those of a key")
