"""Who can do what on a resource, through which binding, and when they last did."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from vaultd.engine.policy import ROOT, covering_of

if TYPE_CHECKING:
    from vaultd.engine.access import AccessBook
    from vaultd.engine.authority import Authority
    from vaultd.engine.clock import Clock
    from vaultd.engine.policy import Binding, Deny, PolicyEngine

PRINCIPALS_PER_TURN: Final = 200


@dataclass(frozen=True, slots=True)
class PermissionUse:
    """A permission that a binding gives; when it was last used, None for never; and the deny that takes it, if any."""

    permission: str
    last_use_us: int | None
    denied: str


@dataclass(frozen=True, slots=True)
class AccessGrant:
    """What one binding gives one principal."""

    principal: str
    group: str
    binding: int
    role: str
    bound_on: str
    condition: str
    permissions: tuple[PermissionUse, ...]


class AccessReview:
    """Reads the policy in force and the uses of its bindings."""

    def __init__(self, authority: Authority, access: AccessBook, clock: Clock) -> None:
        self._authority = authority
        self._access = access
        self._clock = clock

    async def grants(self, resource: str, unused_for_us: int | None, start: int, limit: int) -> list[AccessGrant]:
        """At most `limit` grants on a resource, above and below it, from the `start`th; only of what was not used for so long."""
        engine = self._authority.engine
        pairs = await self._pairs(engine, resource, start, limit if unused_for_us is None else None)
        uses = await self._access.last_uses({principal for principal, _ in pairs})
        before_us = None if unused_for_us is None else self._clock.now_us() - unused_for_us
        grants = []
        for at, (principal, index) in enumerate(pairs):
            if at % PRINCIPALS_PER_TURN == PRINCIPALS_PER_TURN - 1:
                await asyncio.sleep(0)
            grant = _grant(engine, principal, index, uses[principal], before_us)
            if grant.permissions:
                grants.append(grant)
        return grants[:limit] if unused_for_us is None else grants[start : start + limit]

    async def _pairs(self, engine: PolicyEngine, resource: str, start: int, limit: int | None) -> list[tuple[str, int]]:
        """Principals and their bindings, in order: those of the page, or all when the page is chosen by use."""
        pairs: list[tuple[str, int]] = []
        skip = start if limit is not None else 0
        for at, principal in enumerate(sorted(engine.principals)):
            if at % PRINCIPALS_PER_TURN == PRINCIPALS_PER_TURN - 1:
                await asyncio.sleep(0)
            for index in engine.entries(principal)[0]:
                if _near(engine.policy.bindings[index].resource, resource):
                    if skip:
                        skip -= 1
                    else:
                        pairs.append((principal, index))
            if limit is not None and len(pairs) >= limit:
                return pairs[:limit]
        return pairs

    async def since_us(self) -> int | None:
        """Since when use is recorded."""
        return await self._access.since_us()


def _near(one: str, other: str) -> bool:
    return one in covering_of(other) or other in covering_of(one)


def _grant(
    engine: PolicyEngine,
    principal: str,
    index: int,
    uses: dict[tuple[str, str], int],
    before_us: int | None,
) -> AccessGrant:
    binding: Binding = engine.policy.bindings[index]
    denies = [(i, engine.policy.denies[i]) for i in engine.entries(principal)[1]]
    permissions = []
    for permission in sorted(engine.roles[binding.role]):
        last_us = uses.get((permission, binding.resource))
        if before_us is None or last_us is None or last_us <= before_us:
            denied = next((_named(i, deny) for i, deny in denies if _takes(deny, permission, binding)), "")
            permissions.append(PermissionUse(permission, last_us, denied))
    group = engine.via(principal, binding.members)
    return AccessGrant(principal, group, index, binding.role, binding.resource, binding.condition, tuple(permissions))


def _takes(deny: Deny, permission: str, binding: Binding) -> bool:
    covers = deny.resource == ROOT or deny.resource in covering_of(binding.resource)
    return permission in deny.permissions and covers


def _named(index: int, deny: Deny) -> str:
    return f"denies[{index}] on {deny.resource}" + (", under a condition" if deny.condition else "")
