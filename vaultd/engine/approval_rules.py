"""What an approval rule may say."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

from vaultd.engine.clock import DAY_US, SECOND_US
from vaultd.engine.policy import is_principal
from vaultd.errors import InvalidArgument
from vaultd.names import ID

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from vaultd.engine.model import ApprovalRule

MAX_RULES: Final = 100
MAX_METHODS: Final = 32
MAX_APPROVERS: Final = 100
MAX_RULES_CHARS: Final = 64 * 1024
MIN_EXPIRY_US: Final = 60 * SECOND_US
MAX_EXPIRY_US: Final = 30 * DAY_US
DEFAULT_EXPIRY_US: Final = DAY_US

_RULE_ID = re.compile(ID)
_RULE_RESOURCE = re.compile(rf"/|vaults(?:/{ID}(?:/(?:keys|secrets)/{ID})?)?")
_SERVICES = {"keys": "/vaultd.v1.KeysService/", "secrets": "/vaultd.v1.SecretsService/"}
"""Whose methods can be about a resource of a vault, by its collection."""


def check_rules(rules: Sequence[ApprovalRule], methods: Mapping[str, int]) -> None:
    """Raise InvalidArgument for rules that are malformed, cover nothing, or can never be satisfied."""
    if len(rules) > MAX_RULES:
        raise _invalid("rules", f"may be at most {MAX_RULES}")
    size = sum(len(text) for rule in rules for text in (rule.id, rule.resource, *rule.methods, *rule.approvers))
    if size > MAX_RULES_CHARS:
        raise _invalid("rules", f"may have at most {MAX_RULES_CHARS // 1024} KiB of text in all")
    seen: set[str] = set()
    for at, rule in enumerate(rules):
        path = f"rules[{at}]"
        if not _RULE_ID.fullmatch(rule.id) or rule.id in seen:
            raise _invalid(f"{path}.id", "must match [a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?, each once")
        seen.add(rule.id)
        if not 1 <= len(rule.methods) <= MAX_METHODS or len(set(rule.methods)) < len(rule.methods):
            raise _invalid(f"{path}.methods", f"must name 1 to {MAX_METHODS} methods, each once")
        if any(method not in methods for method in rule.methods):
            raise _invalid(f"{path}.methods", f"may name {', '.join(path.rpartition('/')[2] for path in methods)}")
        _check_resource(rule, path, methods)
        _check_approvers(rule, path)
        if not MIN_EXPIRY_US <= rule.expires_after_us <= MAX_EXPIRY_US:
            raise _invalid(f"{path}.expires_after", "must be 60 s to 30 days")


def _check_resource(rule: ApprovalRule, path: str, methods: Mapping[str, int]) -> None:
    if not _RULE_RESOURCE.fullmatch(rule.resource):
        raise _invalid(
            f"{path}.resource",
            "must be /, vaults, vaults/{vault}, vaults/{vault}/keys/{key} or vaults/{vault}/secrets/{secret}",
        )
    depth = 0 if rule.resource == "/" else rule.resource.count("/") + 1
    service = _SERVICES.get(rule.resource.split("/")[2], "") if depth > 2 else ""
    if any(depth > methods[method] or not method.startswith(service) for method in rule.methods):
        raise _invalid(
            f"{path}.resource", "is below what some of the methods are about, so the rule would not cover them"
        )


def _check_approvers(rule: ApprovalRule, path: str) -> None:
    approvers = rule.approvers
    if (
        not 1 <= len(approvers) <= MAX_APPROVERS
        or len(set(approvers)) < len(approvers)
        or not all(map(is_principal, approvers))
    ):
        raise _invalid(f"{path}.approvers", f"must be 1 to {MAX_APPROVERS} principals in canonical spelling, each once")
    if not 1 <= rule.required <= len(approvers):
        raise InvalidArgument(
            "APPROVAL_RULE_UNSATISFIABLE",
            f"{path}.required must be 1 to the number of approvers; where all are required, none of them can be the "
            "requester",
            field=f"{path}.required",
        )


def _invalid(field: str, problem: str) -> InvalidArgument:
    return InvalidArgument("APPROVAL_RULE_INVALID", f"{field} {problem}", field=field)
