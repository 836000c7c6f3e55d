"""What a change of policy may not do: give what its author lacks, lift a deny of its author, or leave nobody in charge.

Two policies are compared by what their entries say, not by evaluating them: an entry of the new policy counts as old only where
one entry of the old policy covers it, on the same resource or a wider one, without a condition or with the very same.  So
the answer may be stricter than need be (two narrow bindings do not make a wide one), and never laxer.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, NamedTuple

from vaultd.engine.policy import ROOT, PolicyEngine, covering_of
from vaultd.errors import FailedPrecondition, PermissionDenied

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

SET_POLICY: Final = "policy.set"
MAX_COMPARED: Final = 2_000_000
"""Entries that a comparison looks at: those of each principal, counted for each."""
_NOTHING: Final[frozenset[str]] = frozenset()


@dataclass(frozen=True, slots=True)
class _Entry:
    """A binding or a deny, with its role looked up."""

    index: int
    permissions: frozenset[str]
    resource: str
    condition: str


class _Table:
    """Entries by resource and condition: which permissions they speak of there."""

    def __init__(self, entries: Iterable[_Entry]) -> None:
        self._held: dict[tuple[str, str], set[str]] = {}
        for entry in entries:
            self._held.setdefault((entry.resource, entry.condition), set()).update(entry.permissions)

    def not_covered(self, entry: _Entry) -> frozenset[str]:
        """The permissions of an entry that no entry here has, on its resource or a wider one, under no narrower condition."""
        lacking = set(entry.permissions)
        for resource in covering_of(entry.resource):
            lacking -= self._held.get((resource, ""), _NOTHING)
            lacking -= self._held.get((resource, entry.condition), _NOTHING)
        return frozenset(lacking)


class _Side:
    """One of the two policies."""

    def __init__(self, engine: PolicyEngine) -> None:
        self.engine = engine
        policy = engine.policy
        self.bindings = [
            _Entry(i, engine.roles[binding.role], binding.resource, binding.condition)
            for i, binding in enumerate(policy.bindings)
        ]
        self.denies = [
            _Entry(i, frozenset(deny.permissions), deny.resource, deny.condition)
            for i, deny in enumerate(policy.denies)
        ]

    def of(self, principal: str) -> tuple[list[_Entry], list[_Entry]]:
        bindings, denies = self.engine.entries(principal)
        return [self.bindings[i] for i in bindings], [self.denies[i] for i in denies]


def _covers(wide: str, narrow: str) -> bool:
    return wide == ROOT or narrow == wide or narrow.startswith(f"{wide}/")


def _overlap(one: str, other: str) -> str | None:
    """The narrower of two resources when one covers the other, else None."""
    if _covers(one, other):
        return other
    return one if _covers(other, one) else None


class _Author:
    """What the author of a change holds for certain: without a condition, and without a deny anywhere below."""

    def __init__(self, bindings: list[_Entry], denies: list[_Entry]) -> None:
        self._denies = denies
        self._held = _Table(entry for entry in bindings if not entry.condition)
        self._known: dict[tuple[str, str], bool] = {}

    def holds(self, permission: str, resource: str) -> bool:
        asked = (permission, resource)
        known = self._known.get(asked)
        if known is None:
            known = self._known[asked] = not self._held.not_covered(
                _Entry(0, frozenset({permission}), resource, "")
            ) and not any(
                permission in deny.permissions and _overlap(deny.resource, resource) is not None
                for deny in self._denies
            )
        return known


class _Case(NamedTuple):
    """What the two policies say of one principal, or of several of whom they say the same."""

    old_bindings: list[_Entry]
    old_denies: list[_Entry]
    new_bindings: list[_Entry]
    new_denies: list[_Entry]


def check_change(
    old: PolicyEngine, new: PolicyEngine, author: str, scope: str, revoked: frozenset[str] = frozenset()
) -> None:
    """Raise unless `author` may replace `old` by `new`, which differ in the part of `scope` only.

    PermissionDenied: POLICY_DENY_LIFTED, POLICY_GRANTS_TOO_MUCH, POLICY_DENY_ABOVE.  FailedPrecondition: POLICY_LAST_ADMIN,
    POLICY_TOO_LARGE.  Takes seconds for the largest policies, and touches nothing of the event loop's.
    """
    before, after = _Side(old), _Side(new)
    _check_own_denies(before, after, author)
    cases = list(_cases(before, after))
    _check_last_admin(after, revoked)
    holder = _Author(*before.of(author))
    for case in cases:
        _check_gains(case, holder)
    if not holder.holds(SET_POLICY, ROOT):
        for case in cases:
            _check_denies_above(case, scope)


def _cases(before: _Side, after: _Side) -> Iterator[_Case]:
    """Each different set of entries that a principal of the new policy has in the two."""
    seen: set[tuple[tuple[str, ...], ...]] = set()
    entries = 0
    for principal in after.engine.principals:
        same = (before.engine.memberships(principal), after.engine.memberships(principal))
        if same in seen:
            continue
        seen.add(same)
        case = _Case(*before.of(principal), *after.of(principal))
        entries += sum(map(len, case))
        if entries > MAX_COMPARED:
            raise FailedPrecondition(
                "POLICY_TOO_LARGE", "the policy has too many members in too many entries to be compared; use groups"
            )
        yield case


def _check_own_denies(before: _Side, after: _Side, author: str) -> None:
    kept = _Table(after.of(author)[1])
    if any(kept.not_covered(deny) for deny in before.of(author)[1]):
        raise PermissionDenied(
            "POLICY_DENY_LIFTED",
            "the change lifts or narrows a deny that applies to you, by itself or by a group; ask another administrator",
        )


def _check_last_admin(after: _Side, revoked: frozenset[str]) -> None:
    refused: set[tuple[str, ...]] = set()
    for principal in after.engine.principals:
        members = after.engine.memberships(principal)
        if principal in revoked or members in refused:
            continue
        if _Author(*after.of(principal)).holds(SET_POLICY, ROOT):
            return
        refused.add(members)
    raise FailedPrecondition(
        "POLICY_LAST_ADMIN",
        "nobody would be left who holds policy.set on / without a condition or a deny, and is not revoked; keep one such binding",
    )


def _check_gains(case: _Case, holder: _Author) -> None:
    """Whatever is gained must be the author's to give: by a wider binding, or by a deny that no longer takes it away."""
    old_table, new_denied = _Table(case.old_bindings), _Table(case.new_denies)
    for binding in case.new_bindings:
        for permission in sorted(old_table.not_covered(binding)):
            if not holder.holds(permission, binding.resource):
                raise _too_much(binding, permission)
    for deny in case.old_denies:
        lifted = new_denied.not_covered(deny)
        for binding in case.new_bindings if lifted else ():
            freed = _overlap(binding.resource, deny.resource)
            for permission in sorted(lifted & binding.permissions) if freed is not None else ():
                if not holder.holds(permission, str(freed)):
                    raise _too_much(binding, permission)


def _check_denies_above(case: _Case, scope: str) -> None:
    """Who administers a part cannot shut out those who got in from above: they could not let themselves in again."""
    above: set[str] = set()
    for binding in case.new_bindings:
        if not _covers(scope, binding.resource):
            above |= binding.permissions
    old_table = _Table(case.old_denies)
    for deny in case.new_denies:
        if old_table.not_covered(deny) & above:
            raise PermissionDenied(
                "POLICY_DENY_ABOVE",
                "the change denies what a binding above this vault gives; ask an administrator of / to do it",
                field=f"denies[{deny.index}]",
            )


def _too_much(binding: _Entry, permission: str) -> PermissionDenied:
    return PermissionDenied(
        "POLICY_GRANTS_TOO_MUCH",
        f"the change gives {permission} where you do not hold it yourself, without a condition; ask somebody who does",
        field=f"bindings[{binding.index}]",
        metadata={"permission": permission},
    )
