"""Reading and changing the policy, as a whole or the part of one vault."""

from __future__ import annotations

import asyncio
import hashlib
from collections import Counter
from typing import TYPE_CHECKING, Any, Final

import orjson

from vaultd.engine.authority import POLICY_KEY, put_policy
from vaultd.engine.etags import check_etag
from vaultd.engine.model import PolicyPart
from vaultd.engine.policy import ROOT, Decision, Policy, PolicyEngine
from vaultd.engine.policy_change import SET_POLICY, check_change
from vaultd.engine.sealing import row_lost
from vaultd.errors import Aborted, InvalidArgument, VaultdError

if TYPE_CHECKING:
    from vaultd.engine.authority import Authority
    from vaultd.engine.ledger import Changes, Intent, Ledger
    from vaultd.engine.revocations import Revocations

Document = dict[str, list[dict[str, Any]]]
SECTIONS: Final = ("roles", "groups", "bindings", "denies")


def part_of(policy: Policy, scope: str) -> Document:
    """The part of a policy that belongs to `/` (all of it) or to a vault: its bindings and denies, and those below."""
    document = policy.to_document()
    if scope == ROOT:
        return document
    return {section: [entry for entry in document[section] if _within(entry, scope)] for section in SECTIONS[2:]}


def _within(entry: dict[str, Any], scope: str) -> bool:
    resource = str(entry["resource"])
    return resource == scope or resource.startswith(f"{scope}/")


def etag_of_part(part: Document) -> str:
    """A number in quotes, as every etag, and the same wherever the same part is in force."""
    digest = hashlib.sha256(orjson.dumps({section: part.get(section, []) for section in SECTIONS})).digest()
    return f'"{int.from_bytes(digest[:8], "big")}"'


def splice(policy: Policy, scope: str, part: Document) -> tuple[Policy, dict[str, int]]:
    """The policy with this part in place of the old one, and where bindings and denies of the part begin in it.

    Raises InvalidArgument, POLICY_INVALID, whose field is the path of a fault within the part.
    """
    if scope == ROOT:
        return Policy.parse(part), {"bindings": 0, "denies": 0}
    for section in ("roles", "groups"):
        if part.get(section):
            raise _invalid(section, "can be changed in the policy of / only; leave them out here")
    merged = policy.to_document()
    starts = {}
    for section in SECTIONS[2:]:
        for i, entry in enumerate(part.get(section, [])):
            if not _within(entry, scope):
                raise _invalid(f"{section}[{i}].resource", "must be the vault of the request, or below it")
        old = merged[section]
        start = next((i for i, entry in enumerate(old) if _within(entry, scope)), len(old))
        kept = [entry for entry in old if not _within(entry, scope)]
        merged[section] = [*kept[:start], *part.get(section, []), *kept[start:]]
        starts[section] = start
    try:
        return Policy.parse(merged), starts
    except VaultdError as error:
        raise _shifted(error, starts) from None


def _invalid(path: str, problem: str) -> InvalidArgument:
    return InvalidArgument("POLICY_INVALID", f"{path} {problem}", field=path)


def _shifted(error: VaultdError, starts: dict[str, int]) -> VaultdError:
    """The same fault, with the index that it has in the part."""
    section, bracket, rest = (error.field or "").partition("[")
    index, close, tail = rest.partition("]")
    if not bracket or not close or section not in starts:
        return error
    path = f"{section}[{int(index) - starts[section]}]{tail}"
    return InvalidArgument("POLICY_INVALID", f"{path}{error.text.removeprefix(str(error.field))}", field=path)


def _counted(old: Document, new: Document) -> tuple[int, int]:
    def entries(part: Document) -> Counter[tuple[str, bytes]]:
        return Counter((section, orjson.dumps(entry)) for section in SECTIONS for entry in part.get(section, []))

    before, after = entries(old), entries(new)
    return (after - before).total(), (before - after).total()


class PolicyEditor:
    """Reads and replaces parts of the policy.  A change is atomic, durable, and in force on this node when it returns."""

    def __init__(self, ledger: Ledger, authority: Authority, revocations: Revocations) -> None:
        self._ledger = ledger
        self._authority = authority
        self._revocations = revocations

    def get(self, scope: str) -> PolicyPart:
        """The part of a scope, `/` or `vaults/{vault}`; raises Unavailable while sealed."""
        part = part_of(self._authority.engine.policy, scope)
        return PolicyPart(scope, part, etag_of_part(part))

    async def set(self, intent: Intent, scope: str, part: Document, etag: str) -> PolicyPart:
        """Replace the part of a scope.

        Raises InvalidArgument for a policy with a fault, Aborted when it changed meanwhile, and what
        `policy_change.check_change` raises.
        """
        known, answer = await self._ledger.answered(intent)
        if known:
            return answer  # type: ignore[no-any-return]  # what `mutate` below remembered: a PolicyPart
        old = self._authority.engine
        if self._lost_the_right(old, intent.principal, scope):
            raise _changed_meanwhile()
        check_etag(etag, etag_of_part(part_of(old.policy, scope)))
        # A large policy takes seconds to check.  The old one is immutable, and the engine of the new one nobody else has.
        revoked = self._revocations.revoked()
        new, written = await asyncio.to_thread(_prepare, old.policy, scope, part, intent.principal, revoked)

        committed = 0

        async def body(changes: Changes) -> PolicyPart:
            nonlocal committed
            found = await changes.get(POLICY_KEY)
            if found is None:
                raise row_lost(POLICY_KEY)
            if found.values["policy"] != old.policy.to_document():
                raise _changed_meanwhile()
            await put_policy(changes, new.policy)
            committed = changes.revision
            return written

        done: PolicyPart = await self._ledger.mutate(intent, body)
        if committed:
            self._authority.adopt(new, committed)
        return done

    @staticmethod
    def _lost_the_right(engine: PolicyEngine, principal: str, scope: str) -> bool:
        # The chain asked the policy that was in force when the call came in; this may be another one already.
        found = engine.look_up(principal, SET_POLICY, scope)
        return isinstance(found, Decision) and not found.allowed


def _prepare(
    old: Policy, scope: str, part: Document, author: str, revoked: frozenset[str]
) -> tuple[PolicyEngine, PolicyPart]:
    """Check a change.  Runs in a thread: it makes engines of its own and shares none."""
    policy, starts = splice(old, scope, part)
    new = PolicyEngine(policy)
    try:
        check_change(PolicyEngine(old), new, author, scope, revoked)
    except VaultdError as error:
        if error.field is not None:
            error.field = _path_in_part(error.field, starts, part)
        raise
    written = part_of(policy, scope)
    added, removed = _counted(part_of(old, scope), written)
    # The engine that decided here has gathered what it was asked for in this thread; the one in force starts afresh.
    return PolicyEngine(policy), PolicyPart(scope, written, etag_of_part(written), added, removed)


def _path_in_part(field: str, starts: dict[str, int], part: Document) -> str | None:
    section, _, rest = field.partition("[")
    index = int(rest.rstrip("]")) - starts[section]
    return f"{section}[{index}]" if 0 <= index < len(part.get(section, [])) else None


def _changed_meanwhile() -> Aborted:
    return Aborted("POLICY_CHANGED", "somebody else changed the policy just now; read it again and repeat the change")
