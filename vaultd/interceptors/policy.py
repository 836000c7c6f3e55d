"""Whether the caller may.  Decided on the same validated names that the engine will use, before the engine looks anything up."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from vaultd.engine.policy import Decision
from vaultd.errors import NotFound, PermissionDenied, VaultdError

if TYPE_CHECKING:
    from vaultd.engine.access import AccessBook
    from vaultd.engine.authority import Authority
    from vaultd.engine.caller import Caller
    from vaultd.engine.decider import Decider
    from vaultd.interceptors.rules import Rule


def denied(rule: Rule, decided_by: str = "") -> PermissionDenied:
    """The same answer for what is forbidden and for what is not there.

    It names every permission of the rule: saying which one of two is missing would tell a forbidden resource from one
    that is not there.
    """
    permissions = " and ".join(dict.fromkeys(access.permission for access in rule.access)) or " or ".join(rule.some)
    error = PermissionDenied(
        "PERMISSION_DENIED",
        f"permission {permissions} is missing on the resource, or the resource does not exist",
        metadata={"permission": permissions},
    )
    error.decided_by = decided_by
    return error


class PolicyStep:
    """Asks the policy in force; fails closed without one.  What a binding allowed is noted as used."""

    def __init__(self, authority: Authority, decider: Decider, access: AccessBook) -> None:
        self._authority = authority
        self._decider = decider
        self._note = access.note

    async def require(self, caller: Caller, rule: Rule, request: Any) -> str:
        """Raise PermissionDenied unless every access of the rule is allowed; return what allows it.

        Waits only for labels that a condition asks for.  What decides is a text of the decision, which is kept with it.
        """
        if rule.operator and caller.principal in self._authority.operators:
            return "operators"
        if rule.operator_only:
            raise PermissionDenied(
                "OPERATOR_REQUIRED", "only a principal listed under `operators` in the configuration may call this"
            )
        if rule.some:
            if not self._authority.engine.holds_some(caller.principal, rule.some, rule.where(request)):
                raise denied(rule)
            return ""
        look_up = self._authority.engine.look_up
        decided = ""
        for access in rule.access:
            if access.when is not None and not access.when(request):
                continue
            found = look_up(caller.principal, access.permission, access.resource(request))
            decision = found if isinstance(found, Decision) else await self._decider.settle(found, caller, rule.method)
            if not decision.allowed:
                raise denied(rule, decision.reason)
            decided = f"{decided}; {decision.reason}" if decided and decided != decision.reason else decision.reason
            self._note((caller.principal, access.permission, decision.bound_on))
        return decided

    def require_loaded(self) -> None:
        """Raise what asking would raise while there is no policy: Unavailable, reason SEALED, or DataLoss."""
        self._authority.engine  # noqa: B018  # raises

    def permits(self, caller: Caller, rule: Rule, request: Any) -> str | None:
        """What allows the call, where the policy can say so at once; else `require` finds out."""
        access = rule.sole_access
        if access is None:
            return self._permits_each(caller, rule, request)
        principal, permission = caller.principal, access.permission
        found = self._authority.engine.look_up(principal, permission, access.resource(request))
        if type(found) is not Decision or not found.allowed:
            return None
        self._note((principal, permission, found.bound_on))
        return found.reason

    def _permits_each(self, caller: Caller, rule: Rule, request: Any) -> str | None:
        if rule.operator or rule.operator_only:
            return None
        engine, principal, decided = self._authority.engine, caller.principal, ""
        for access in rule.access:
            if access.when is not None:
                return None
            found = engine.look_up(principal, access.permission, access.resource(request))
            if type(found) is not Decision or not found.allowed:
                return None
            decided = f"{decided}; {found.reason}" if decided and decided != found.reason else found.reason
            self._note((principal, access.permission, found.bound_on))
        return decided if rule.access else None

    async def disguise(self, error: VaultdError, caller: Caller, rule: Rule, request: Any) -> VaultdError:
        """A NotFound that the caller may not see becomes the answer that a forbidden resource gives."""
        if not isinstance(error, NotFound) or not self._authority.loaded:
            return error
        for access in rule.access:
            if access.when is not None and not access.when(request):
                continue
            seen = await self._decider.decide(caller, rule.method, access.visible_by, access.resource(request))
            if not seen.allowed:
                return denied(rule)
        return error
