"""What a change of policy may not do, and every way round it that we could think of."""

from __future__ import annotations

from typing import Any

import pytest

from vaultd.engine import policy_change
from vaultd.engine.policy import Policy, PolicyEngine
from vaultd.engine.policy_change import check_change
from vaultd.errors import FailedPrecondition, PermissionDenied

ROOT = "spiffe://example.org/root"
ME = "spiffe://example.org/me"
FRIEND = "spiffe://example.org/friend"
OTHER = "spiffe://example.org/other"

ROLES = [
    {"name": "small", "permissions": ["crypto.sign"]},
    {"name": "setter", "permissions": ["policy.get", "policy.set", "crypto.verify", "keys.get"]},
]
GROUPS = [
    {"name": "team", "members": [FRIEND]},
    {"name": "barred", "members": [ME]},
    {"name": "empty", "members": []},
]


def on(resource: str, role: str, *members: str, **more: str) -> dict[str, Any]:
    return {"members": list(members), "role": role, "resource": resource, **more}


def deny(resource: str, permission: str, *members: str, **more: str) -> dict[str, Any]:
    return {"members": list(members), "permissions": [permission], "resource": resource, **more}


ADMIN = on("/", "admin", ROOT)
MINE = on("/", "setter", ME)


def policy(
    *bindings: dict[str, Any],
    denies: tuple[dict[str, Any], ...] = (),
    roles: list[dict[str, Any]] | None = None,
    groups: list[dict[str, Any]] | None = None,
) -> PolicyEngine:
    document = {
        "roles": ROLES if roles is None else roles,
        "groups": GROUPS if groups is None else groups,
        "bindings": [ADMIN, MINE, *bindings],
        "denies": list(denies),
    }
    return PolicyEngine(Policy.parse(document))


def verdict(old: PolicyEngine, new: PolicyEngine, author: str = ME, scope: str = "/") -> str:
    """The reason of the refusal, or `ok`."""
    try:
        check_change(old, new, author, scope)
    except (PermissionDenied, FailedPrecondition) as error:
        return error.reason
    return "ok"


TOO_MUCH = "POLICY_GRANTS_TOO_MUCH"
LIFTED = "POLICY_DENY_LIFTED"
LAST = "POLICY_LAST_ADMIN"
ABOVE = "POLICY_DENY_ABOVE"


# Giving what one holds, and what one lacks.


@pytest.mark.parametrize("resource", ["/", "vaults", "vaults/a", "vaults/a/keys/k"])
def test_one_may_give_what_one_holds_there(resource: str) -> None:
    assert verdict(policy(), policy(on(resource, "setter", FRIEND))) == "ok"
    assert verdict(policy(), policy(on(resource, "setter", "group:team"))) == "ok"
    assert verdict(policy(), policy(on(resource, "setter", FRIEND, condition="true"))) == "ok"


@pytest.mark.parametrize("member", [FRIEND, ME, "group:team", "group:barred"])
@pytest.mark.parametrize("role", ["small", "admin", "key-admin", "crypto-user"])
@pytest.mark.parametrize("condition", [{}, {"condition": "false"}])
def test_one_may_not_give_what_one_lacks(member: str, role: str, condition: dict[str, str]) -> None:
    assert verdict(policy(), policy(on("vaults/a", role, member, **condition))) == TOO_MUCH


def test_an_empty_group_gets_nothing_yet() -> None:
    assert verdict(policy(), policy(on("vaults/a", "admin", "group:empty"))) == "ok"


def test_a_member_of_a_group_that_holds_more_gains_what_the_group_holds() -> None:
    old = policy(on("vaults/a", "admin", "group:empty"))
    groups = [{"name": "empty", "members": [FRIEND]}, *GROUPS[:2]]
    assert verdict(old, policy(on("vaults/a", "admin", "group:empty"), groups=groups)) == TOO_MUCH


def test_joining_a_group_oneself_is_a_gain_too() -> None:
    old = policy(on("vaults/a", "small", "group:team"))
    groups = [{"name": "team", "members": [FRIEND, ME]}, *GROUPS[1:]]
    assert verdict(old, policy(on("vaults/a", "small", "group:team"), groups=groups)) == TOO_MUCH


def test_naming_a_held_group_in_a_wider_binding_is_a_gain() -> None:
    old = policy(on("vaults/a/keys/k", "small", FRIEND))
    assert verdict(old, policy(on("vaults/a", "small", FRIEND))) == TOO_MUCH


def test_narrowing_moving_down_and_splitting_is_no_gain() -> None:
    old = policy(on("vaults/a", "crypto-user", FRIEND))
    new = policy(on("vaults/a/keys/k", "small", FRIEND), on("vaults/a/keys/l", "encrypter", FRIEND))
    assert verdict(old, new) == "ok"


def test_moving_to_another_vault_is_a_gain() -> None:
    old = policy(on("vaults/a", "small", FRIEND))
    assert verdict(old, policy(on("vaults/ab", "small", FRIEND))) == TOO_MUCH


def test_widening_a_role_counts() -> None:
    old = policy(on("vaults/a", "small", FRIEND))
    roles = [{"name": "small", "permissions": ["crypto.sign", "keys.purge"]}, ROLES[1]]
    assert verdict(old, policy(on("vaults/a", "small", FRIEND), roles=roles)) == TOO_MUCH


def test_widening_ones_own_role_counts() -> None:
    roles = [ROLES[0], {"name": "setter", "permissions": [*ROLES[1]["permissions"], "admin.seal"]}]
    assert verdict(policy(), policy(roles=roles)) == TOO_MUCH


def test_a_role_of_another_name_with_the_same_permissions_is_no_gain() -> None:
    old = policy(on("vaults/a", "small", FRIEND))
    roles = [*ROLES, {"name": "renamed", "permissions": ["crypto.sign"]}]
    assert verdict(old, policy(on("vaults/a", "renamed", FRIEND), roles=roles)) == "ok"


def test_replacing_a_member_gives_to_the_new_one() -> None:
    old = policy(on("vaults/a", "small", FRIEND))
    assert verdict(old, policy(on("vaults/a", "small", OTHER))) == TOO_MUCH


def test_taking_away_needs_nothing() -> None:
    old = policy(on("vaults/a", "admin", FRIEND), on("/", "admin", OTHER))
    assert verdict(old, policy()) == "ok"


# Conditions.


@pytest.mark.parametrize("new", [{}, {"condition": "principal != ''"}, {"condition": "true"}])
def test_removing_or_changing_a_condition_counts(new: dict[str, str]) -> None:
    old = policy(on("vaults/a", "small", FRIEND, condition="false"))
    assert verdict(old, policy(on("vaults/a", "small", FRIEND, **new))) == TOO_MUCH


def test_adding_a_condition_or_keeping_one_is_no_gain() -> None:
    old = policy(on("vaults/a", "small", FRIEND), on("vaults/b", "small", FRIEND, condition="false"))
    new = policy(
        on("vaults/a", "small", FRIEND, condition="true"), on("vaults/b/keys/k", "small", FRIEND, condition="false")
    )
    assert verdict(old, new) == "ok"


def test_what_one_holds_under_a_condition_one_may_not_give() -> None:
    mine = on("vaults/a", "small", ME, condition="true")
    assert verdict(policy(mine), policy(mine, on("vaults/a", "small", FRIEND))) == TOO_MUCH
    assert verdict(policy(mine), policy(mine, on("vaults/a", "small", FRIEND, condition="true"))) == TOO_MUCH


def test_one_may_not_drop_the_condition_of_what_one_holds() -> None:
    old = policy(on("vaults/a", "small", ME, condition="false"))
    assert verdict(old, policy(on("vaults/a", "small", ME))) == TOO_MUCH


# Denies of others.

HELD = on("vaults/a", "small", FRIEND)
BARRED = deny("vaults/a", "crypto.sign", FRIEND)


@pytest.mark.parametrize(
    "new",
    [
        (),
        (deny("vaults/a/keys/k", "crypto.sign", FRIEND),),
        (deny("vaults/b", "crypto.sign", FRIEND),),
        (deny("vaults/a", "crypto.encrypt", FRIEND),),
        (deny("vaults/a", "crypto.sign", OTHER),),
        (deny("vaults/a", "crypto.sign", "group:empty"),),
        (deny("vaults/a", "crypto.sign", FRIEND, condition="true"),),
    ],
    ids=["removed", "narrowed", "moved", "other-permission", "other-member", "empty-group", "condition"],
)
def test_lifting_a_deny_gives_what_was_denied(new: tuple[dict[str, Any], ...]) -> None:
    assert verdict(policy(HELD, denies=(BARRED,)), policy(HELD, denies=new)) == TOO_MUCH


@pytest.mark.parametrize("held_on", ["/", "vaults", "vaults/a", "vaults/a/keys/k"])
@pytest.mark.parametrize("denied_on", ["/", "vaults", "vaults/a", "vaults/a/keys/k"])
def test_lifting_a_deny_counts_wherever_the_two_meet(held_on: str, denied_on: str) -> None:
    held, barred = on(held_on, "small", FRIEND), deny(denied_on, "crypto.sign", FRIEND)
    assert verdict(policy(held, denies=(barred,)), policy(held)) == TOO_MUCH


def test_taking_somebody_out_of_a_denied_group_lifts_its_deny() -> None:
    barred = deny("vaults/a", "crypto.sign", "group:team")
    groups = [{"name": "team", "members": [OTHER]}, *GROUPS[1:]]
    old, new = policy(HELD, denies=(barred,)), policy(HELD, denies=(barred,), groups=groups)
    assert verdict(old, new) == TOO_MUCH


def test_lifting_a_deny_of_what_nobody_gives_is_no_gain() -> None:
    assert verdict(policy(denies=(BARRED,)), policy()) == "ok"


def test_a_deny_that_stays_under_another_name_is_not_lifted() -> None:
    old = policy(HELD, denies=(BARRED,))
    assert verdict(old, policy(HELD, denies=(deny("/", "crypto.sign", "group:team"),))) == "ok"


def test_lifting_a_deny_of_what_one_holds_oneself_is_allowed() -> None:
    held = on("vaults/a", "setter", FRIEND)
    assert verdict(policy(held, denies=(deny("vaults/a", "keys.get", FRIEND),)), policy(held)) == "ok"


# Denies of the author.

OWN = deny("vaults/a", "keys.get", ME)


@pytest.mark.parametrize(
    "new",
    [
        (),
        (deny("vaults/a/keys/k", "keys.get", ME),),
        (deny("vaults/a", "keys.list", ME),),
        (deny("vaults/a", "keys.get", FRIEND),),
        (deny("vaults/a", "keys.get", ME, condition="true"),),
        (deny("vaults/a", "keys.get", "group:team"),),
    ],
    ids=["removed", "narrowed", "other-permission", "other-member", "condition", "other-group"],
)
def test_nobody_lifts_a_deny_of_their_own(new: tuple[dict[str, Any], ...]) -> None:
    assert verdict(policy(denies=(OWN,)), policy(denies=new)) == LIFTED


def test_nobody_lifts_a_deny_of_a_group_that_they_are_in() -> None:
    barred = deny("vaults/a", "keys.get", "group:barred")
    assert verdict(policy(denies=(barred,)), policy()) == LIFTED


def test_nobody_leaves_a_denied_group() -> None:
    barred = deny("vaults/a", "keys.get", "group:barred")
    groups = [GROUPS[0], {"name": "barred", "members": [OTHER]}, GROUPS[2]]
    assert verdict(policy(denies=(barred,)), policy(denies=(barred,), groups=groups)) == LIFTED


def test_an_administrator_of_everything_does_not_lift_its_own_deny_either() -> None:
    barred = deny("vaults/a", "keys.purge", ROOT)
    new_admin = on("/", "admin", OTHER)
    assert verdict(policy(new_admin, denies=(barred,)), policy(new_admin), author=ROOT) == LIFTED


def test_who_is_denied_something_cannot_give_it_to_a_second_self() -> None:
    assert verdict(policy(denies=(OWN,)), policy(on("vaults/a", "setter", FRIEND), denies=(OWN,))) == TOO_MUCH
    assert verdict(policy(denies=(OWN,)), policy(on("/", "setter", FRIEND), denies=(OWN,))) == TOO_MUCH
    assert verdict(policy(denies=(OWN,)), policy(on("vaults/b", "setter", FRIEND), denies=(OWN,))) == "ok"


def test_a_deny_under_a_condition_is_a_deny_for_this_too() -> None:
    own = deny("vaults/a/keys/k", "keys.get", ME, condition="false")
    assert verdict(policy(denies=(own,)), policy(on("vaults/a", "setter", FRIEND), denies=(own,))) == TOO_MUCH


def test_adding_a_deny_for_oneself_needs_nothing() -> None:
    assert verdict(policy(), policy(denies=(OWN,))) == "ok"


# The last administrator.


def last(bindings: list[dict[str, Any]], denies: tuple[dict[str, Any], ...] = ()) -> str:
    new = PolicyEngine(Policy.parse({"groups": GROUPS, "bindings": bindings, "denies": list(denies)}))
    return verdict(policy(), new, author=ROOT)


@pytest.mark.parametrize(
    ("bindings", "denies"),
    [
        ([], ()),
        ([on("/", "auditor", ROOT)], ()),
        ([on("vaults", "admin", ROOT)], ()),
        ([on("/", "admin", "group:empty")], ()),
        ([on("/", "admin", ROOT, condition="true")], ()),
        ([on("/", "admin", ROOT)], (deny("/", "policy.set", ROOT),)),
        ([on("/", "admin", ROOT)], (deny("/", "policy.set", ROOT, condition="false"),)),
        ([on("/", "admin", FRIEND)], (deny("/", "policy.set", "group:team"),)),
    ],
    ids=["nothing", "reader", "not-the-root", "empty-group", "condition", "deny", "conditional-deny", "group-deny"],
)
def test_somebody_must_still_be_in_charge(bindings: list[dict[str, Any]], denies: tuple[dict[str, Any], ...]) -> None:
    assert last(bindings, denies) == LAST


def test_the_last_administrator_may_hand_over() -> None:
    assert last([on("/", "admin", FRIEND)]) == "ok"
    assert last([on("/", "admin", "group:team")]) == "ok"


# The administrator of one vault.

VAULT = on("vaults/a", "vault-operator", ME)
SECOND = on("/", "admin", OTHER)


def delegated(
    old: list[dict[str, Any]],
    new: list[dict[str, Any]],
    old_denies: tuple[dict[str, Any], ...] = (),
    new_denies: tuple[dict[str, Any], ...] = (),
) -> str:
    def make(bindings: list[dict[str, Any]], denies: tuple[dict[str, Any], ...]) -> PolicyEngine:
        document = {"roles": ROLES, "groups": GROUPS, "bindings": [ADMIN, SECOND, *bindings], "denies": list(denies)}
        return PolicyEngine(Policy.parse(document))

    return verdict(make(old, old_denies), make(new, new_denies), scope="vaults/a")


def test_a_vault_operator_hands_on_its_role_and_less_and_nothing_more() -> None:
    assert delegated([VAULT], [VAULT, on("vaults/a", "vault-operator", FRIEND)]) == "ok"
    assert delegated([VAULT], [VAULT, on("vaults/a/keys/k", "key-admin", "group:team")]) == "ok"
    assert delegated([VAULT], [VAULT, on("vaults/a", "crypto-user", FRIEND)]) == TOO_MUCH
    assert delegated([VAULT], [VAULT, on("vaults/a", "admin", ME)]) == TOO_MUCH


def test_a_vault_operator_may_deny_what_was_given_in_its_vault() -> None:
    given = on("vaults/a", "crypto-user", FRIEND)
    assert delegated([VAULT, given], [VAULT, given], (), (deny("vaults/a", "crypto.sign", FRIEND),)) == "ok"


@pytest.mark.parametrize("member", [ROOT, FRIEND, "group:team"])
@pytest.mark.parametrize("condition", [{}, {"condition": "true"}])
def test_a_vault_operator_cannot_shut_out_those_above(member: str, condition: dict[str, str]) -> None:
    above = on("vaults", "admin", FRIEND)
    new = (deny("vaults/a", "policy.set", member, **condition),)
    assert delegated([VAULT, above], [VAULT, above], (), new) == ABOVE


def test_a_deny_from_above_that_is_there_already_may_stay() -> None:
    there = (deny("vaults/a", "crypto.sign", ROOT),)
    assert delegated([VAULT], [VAULT, on("vaults/a", "key-admin", FRIEND)], there, there) == "ok"


def test_comparisons_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(policy_change, "MAX_COMPARED", 10)
    members = [f"dns:h{i}.example.org" for i in range(20)]
    new = policy(*[on(f"vaults/v{i}", "setter", member) for i, member in enumerate(members)])
    assert verdict(policy(), new) == "POLICY_TOO_LARGE"
