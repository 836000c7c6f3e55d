"""Approval rules and approvals, to and from messages."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from vaultd.engine.approval_rules import DEFAULT_EXPIRY_US
from vaultd.engine.model import Approval, ApprovalRule, ApprovalRules, ApprovalState
from vaultd.services.convert import duration_us, set_time
from vaultd_client.v1 import approval_pb2 as pb

if TYPE_CHECKING:
    from collections.abc import Callable

_NUMBERS: Final[dict[ApprovalState, Any]] = {
    state: pb.ApprovalState.Value(f"APPROVAL_STATE_{state.value}") for state in ApprovalState
}
STATES: Final[dict[int, ApprovalState | None]] = {0: None, **{number: state for state, number in _NUMBERS.items()}}


def rule_of(message: pb.ApprovalRule, path: str, canonical_method: Callable[[str], str]) -> ApprovalRule:
    """A rule as the engine has it; raises InvalidArgument for a duration that is none."""
    expiry_us = duration_us(message, "expires_after", f"{path}.expires_after")
    return ApprovalRule(
        id=message.id,
        methods=tuple(canonical_method(method) for method in message.methods),
        resource=message.resource,
        approvers=tuple(message.approvers),
        required=message.required,
        expires_after_us=DEFAULT_EXPIRY_US if expiry_us is None else expiry_us,
    )


def _rule_message(rule: ApprovalRule) -> pb.ApprovalRule:
    message = pb.ApprovalRule(
        id=rule.id, methods=rule.methods, resource=rule.resource, approvers=rule.approvers, required=rule.required
    )
    message.expires_after.FromMicroseconds(rule.expires_after_us)
    return message


def rules_message(rules: ApprovalRules) -> pb.ApprovalRules:
    """ApprovalRules as the wire has them."""
    message = pb.ApprovalRules(rules=[_rule_message(rule) for rule in rules.rules], etag=rules.etag)
    set_time(message.update_time, rules.update_us)
    return message


def approval_message(approval: Approval) -> pb.Approval:
    """An Approval as the wire has it."""
    message = pb.Approval(
        name=approval.name,
        state=_NUMBERS[approval.state],
        principal=approval.principal,
        method=approval.method,
        resources=approval.resources,
        request=approval.request,
        request_sha256=approval.digest if approval.digest_shown else "",
        rules=[_rule_message(rule) for rule in approval.rules],
        end_principal=approval.end_principal,
    )
    for principal, at_us in approval.consents:
        set_time(message.consents.add(principal=principal).time, at_us)
    set_time(message.create_time, approval.create_us)
    set_time(message.expire_time, approval.expire_us)
    set_time(message.end_time, approval.end_us)
    return message
