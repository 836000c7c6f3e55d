"""What policy does not decide, a grant may.  Asked only about callers whom policy refused, so others pay nothing for it."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

from vaultd.engine.permissions import GRANTABLE
from vaultd.names import parse_key_or_version_name

if TYPE_CHECKING:
    from vaultd.engine.caller import Caller
    from vaultd.engine.decider import Decider
    from vaultd.engine.key_grants import Grants, HeldGrant
    from vaultd.errors import PermissionDenied
    from vaultd.interceptors.audit import Entry
    from vaultd.interceptors.rules import Rule


class Granted:
    """What grants make of one refusal: for each permission that policy does not give, the grants that give it."""

    __slots__ = ("_choices", "_grants", "refused")

    def __init__(self, grants: Grants, refused: PermissionDenied, choices: list[list[HeldGrant]]) -> None:
        self._grants = grants
        self.refused = refused
        self._choices = choices

    async def spend(self, uses: int) -> list[str]:
        """Take the uses and name the grants that decided; nobody when none has enough left, and then the refusal stands.

        One grant that gives several of the permissions is used once.  Does not raise: in a batch thousands may be refused.
        """
        spent: list[HeldGrant] = []
        for choice in self._choices:
            if any(held in spent for held in choice):
                continue
            for held in choice:
                if await self._grants.spend(held, uses):
                    spent.append(held)
                    break
            else:
                return []
        return [held.grant.name for held in spent]


class GrantStep:
    """Looks for grants.  Neither a deny of the policy nor a permission that cannot be granted is ever overruled."""

    def __init__(self, decider: Decider, grants: Grants) -> None:
        self._decider = decider
        self._grants = grants

    async def require(self, refused: PermissionDenied, caller: Caller, rule: Rule, request: Any, entry: Entry) -> None:
        """Raise `refused` unless grants give what policy does not; the record says which did."""
        granted = await self.look_up(refused, caller, rule, request)
        names = await granted.spend(uses_of(request))
        if not names:
            raise refused
        entry.fields["grant"] = names[0] if len(names) == 1 else names

    async def look_up(self, refused: PermissionDenied, caller: Caller, rule: Rule, request: Any) -> Granted:
        """The grants that may decide, before any use is taken; raises `refused` when there are none."""
        choices = []
        for access in rule.access:
            if access.when is not None and not access.when(request):
                continue
            resource = access.resource(request)
            decision = await self._decider.decide(caller, rule.method, access.permission, resource)
            if decision.allowed:
                continue
            if access.permission not in GRANTABLE or not decision.silent:
                raise refused
            key_name = parse_key_or_version_name(resource).key_name
            found = self._grants.candidates(caller.principal, access.permission, resource, key_name)
            if not found:
                raise refused
            choices.append(found)
        if not choices:  # refused for something that no permission is about
            raise refused
        return Granted(self._grants, refused, choices)


class GrantsOfBatch:
    """Spends a use for each item of a batch that a grant allows, and counts them for the record."""

    def __init__(self) -> None:
        self._used: Counter[str] = Counter()

    async def spend(self, granted: Granted, item: Any) -> PermissionDenied | None:
        """Take the uses of an item; what it returns is why the item fails."""
        names = await granted.spend(uses_of(item))
        self._used.update(names)
        return None if names else granted.refused

    def record(self, entry: Entry) -> None:
        """Say which grants decided, and for how many items."""
        if self._used:
            entry.fields["grant"] = dict(self._used)


def uses_of(request: Any) -> int:
    """How many uses a request is: GenerateDataKey gives `count` data keys."""
    return max(1, getattr(request, "count", 1))
