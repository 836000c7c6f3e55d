"""Decisions for callers: the policy in force, and the facts that its conditions ask for."""

from __future__ import annotations

from typing import TYPE_CHECKING

from vaultd.engine.conditions import NO_LABELS, Facts
from vaultd.engine.policy import Conditional, Decision

if TYPE_CHECKING:
    from collections.abc import Mapping

    from vaultd.engine.authority import Authority
    from vaultd.engine.caller import Caller
    from vaultd.engine.clock import Clock
    from vaultd.engine.labels import LabelBook


class Decider:
    """Asks the policy in force; raises what `Authority.engine` raises while there is none."""

    def __init__(self, authority: Authority, labels: LabelBook, clock: Clock) -> None:
        self._authority = authority
        self._labels = labels
        self._clock = clock

    async def decide(self, caller: Caller, method: str, permission: str, resource: str) -> Decision:
        """Whether the caller holds the permission in this call.  Waits only where a condition asks for labels not in memory."""
        found = self._authority.engine.look_up(caller.principal, permission, resource)
        return found if isinstance(found, Decision) else await self.settle(found, caller, method)

    async def settle(self, found: Conditional, caller: Caller, method: str) -> Decision:
        """Decide what depends on conditions; raises DataLoss and Unavailable when the labels cannot be read."""
        return found.settle(await self.facts(found, method, caller.claims))

    async def facts(
        self,
        found: Conditional,
        method: str,
        claims: Mapping[str, object],
        *,
        time_us: int | None = None,
        labels: Mapping[str, str] | None = None,
    ) -> Facts:
        """What the conditions of a decision may ask for; time and labels are those of now and of the resource, if not given."""
        if labels is None:
            labels = await self._labels.of(found.resource) if found.needs_labels else NO_LABELS
        return Facts(method, self._clock.now_us() if time_us is None else time_us, claims, labels)
