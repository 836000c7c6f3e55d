"""What if: decisions for any principal, by the policy in force or by another that is not yet."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from vaultd.engine.caller import NO_CLAIMS, Caller
from vaultd.engine.conditions import NO_LABELS
from vaultd.engine.editor import splice
from vaultd.engine.policy import Decision, Policy, PolicyEngine

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from vaultd.engine.authority import Authority
    from vaultd.engine.decider import Decider
    from vaultd.engine.editor import Document


@dataclass(frozen=True, slots=True)
class Circumstances:
    """What is assumed of a call; None for what is so now."""

    method: str = ""
    time_us: int | None = None
    claims: Mapping[str, Any] = field(default_factory=lambda: NO_CLAIMS)
    labels: Mapping[str, str] | None = None


class PolicyTester:
    """Answers without any effect: nothing is recorded as used."""

    def __init__(self, authority: Authority, decider: Decider) -> None:
        self._authority = authority
        self._decider = decider

    async def own(self, caller: Caller, method: str, permissions: Sequence[str], resource: str) -> list[Decision]:
        """The caller's own decisions, in this very call."""
        return [await self._decider.decide(caller, method, permission, resource) for permission in permissions]

    async def in_force(
        self, principal: str, permissions: Sequence[str], resource: str, circumstances: Circumstances
    ) -> list[Decision]:
        """Decisions of the policy in force."""
        return await self._ask(self._authority.engine, principal, permissions, resource, circumstances)

    async def candidate(
        self,
        scope: str,
        part: Document,
        principal: str,
        permissions: Sequence[str],
        resource: str,
        circumstances: Circumstances,
    ) -> list[Decision]:
        """Decisions of the policy with another part; raises InvalidArgument, POLICY_INVALID.

        Labels are the ones given, or none: conditions made up for the purpose would tell those of the resource.
        """
        engine = await asyncio.to_thread(_compile, self._authority.engine.policy, scope, part)
        if circumstances.labels is None:
            circumstances = Circumstances(circumstances.method, circumstances.time_us, circumstances.claims, NO_LABELS)
        return await self._ask(engine, principal, permissions, resource, circumstances)

    async def _ask(
        self,
        engine: PolicyEngine,
        principal: str,
        permissions: Sequence[str],
        resource: str,
        circumstances: Circumstances,
    ) -> list[Decision]:
        decisions = []
        for permission in permissions:
            found = engine.look_up(principal, permission, resource)
            if not isinstance(found, Decision):
                facts = await self._decider.facts(
                    found,
                    circumstances.method,
                    circumstances.claims,
                    time_us=circumstances.time_us,
                    labels=circumstances.labels,
                )
                found = found.settle(facts)
            decisions.append(found)
        return decisions


def _compile(policy: Policy, scope: str, part: Document) -> PolicyEngine:
    return PolicyEngine(splice(policy, scope, part)[0])
