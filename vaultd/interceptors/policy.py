"""Whether the caller may.  Decided on the same validated names that the engine will use, before the engine looks anything up."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from vaultd.errors import NotFound, PermissionDenied, VaultdError

if TYPE_CHECKING:
    from vaultd.engine.authority import Authority
    from vaultd.engine.caller import Caller
    from vaultd.interceptors.rules import Rule


def denied(rule: Rule) -> PermissionDenied:
    """The same answer for what is forbidden and for what is not there.

    It names every permission of the rule: saying which one of two is missing would tell a forbidden resource from one
    that is not there.
    """
    permissions = " and ".join(access.permission for access in rule.access)
    return PermissionDenied(
        "PERMISSION_DENIED",
        f"permission {permissions} is missing on the resource, or the resource does not exist",
        metadata={"permission": permissions},
    )


class PolicyStep:
    """Asks the policy in force; fails closed without one."""

    def __init__(self, authority: Authority) -> None:
        self._authority = authority

    def require(self, caller: Caller, rule: Rule, request: Any) -> None:
        """Raise PermissionDenied unless every access of the rule is allowed."""
        if rule.operator and caller.principal in self._authority.operators:
            return
        if rule.operator_only:
            raise PermissionDenied(
                "OPERATOR_REQUIRED", "only a principal listed under `operators` in the configuration may call this"
            )
        allows = self._authority.engine.allows
        for access in rule.access:
            if not allows(caller.principal, access.permission, access.resource(request)):
                raise denied(rule)

    def disguise(self, error: VaultdError, caller: Caller, rule: Rule, request: Any) -> VaultdError:
        """A NotFound that the caller may not see becomes the answer that a forbidden resource gives."""
        if not isinstance(error, NotFound) or not self._authority.loaded:
            return error
        allows = self._authority.engine.allows
        for access in rule.access:
            if not allows(caller.principal, access.visible_by, access.resource(request)):
                return denied(rule)
        return error
