"""Policy documents, the resources that they cover, and decisions against an evaluator too simple to be wrong."""

from __future__ import annotations

import json
import os
import random
import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, given, seed, settings
from hypothesis import strategies as st

from vaultd.engine import policy as policy_module
from vaultd.engine.conditions import Facts
from vaultd.engine.permissions import BUILT_IN_ROLES, GRANTABLE, PERMISSIONS
from vaultd.engine.policy import (
    MAX_BINDINGS,
    MAX_CACHED_DECISIONS,
    MAX_GROUPS,
    MAX_MEMBERS,
    MAX_ROLES,
    Binding,
    Decision,
    Deny,
    Group,
    Policy,
    PolicyEngine,
    Role,
    is_principal,
    seed_policy,
)
from vaultd.errors import InvalidArgument

PROTOS = Path(__file__).parents[2] / "protos" / "vaultd" / "v1"
RANDOM_POLICIES = int(os.environ.get("VAULTD_POLICIES", "1000"))
"""`make policy-campaign` asks for 100,000."""
SEED = int(os.environ.get("VAULTD_TEST_SEED", random.randrange(2**32)))

APP = "spiffe://example.org/app"
OPS = "spiffe://example.org/ops-1"
ADMIN = "spiffe://example.org/admin"
KEY = "vaults/default/keys/orders"

EXAMPLE = """
roles:    [{name: payments, permissions: [crypto.encrypt, crypto.decrypt]}]
groups:   [{name: ops, members: ["spiffe://example.org/ops-1"]}]
bindings: [{members: ["spiffe://example.org/app", "group:ops"], role: crypto-user, resource: vaults/default}]
denies:   [{members: ["spiffe://example.org/app"], permissions: ["keys.purge"], resource: vaults/default}]
"""


@pytest.fixture(autouse=True)
def _seed() -> None:
    print(f"VAULTD_TEST_SEED={SEED}")  # Shown with a failure; the same value repeats it.


def binding(resource: str, role: str = "crypto-user", *members: str) -> dict[str, Any]:
    return {"members": list(members or (APP,)), "role": role, "resource": resource}


def deny(resource: str, permission: str = "crypto.encrypt", *members: str) -> dict[str, Any]:
    return {"members": list(members or (APP,)), "permissions": [permission], "resource": resource}


def engine(**sections: Any) -> PolicyEngine:
    return PolicyEngine(Policy.parse(sections))


def fault(document: object) -> str:
    """Return the path that the refusal of this document names."""
    with pytest.raises(InvalidArgument) as caught:
        Policy.parse(document)
    error = caught.value
    assert error.reason == "POLICY_INVALID"
    assert error.field is not None
    assert error.text.startswith(f"{error.field} ")
    return error.field


# The closed list of permissions and the built-in roles.


def test_the_permissions_are_those_that_the_protos_name() -> None:
    text = "".join(path.read_text() for path in PROTOS.glob("*.proto"))
    assert PERMISSIONS == set(
        re.findall(r"`((?:audit|crypto|keys|secrets|vaults|policy|admin|quotas|approvals)\.[a-z_]+)`", text)
    )


def test_built_in_roles_hold_only_permissions_that_exist() -> None:
    assert all(permissions and permissions <= PERMISSIONS for permissions in BUILT_IN_ROLES.values())


def test_an_admin_holds_every_permission() -> None:
    assert BUILT_IN_ROLES["admin"] == PERMISSIONS


def test_a_crypto_user_may_use_keys_and_not_look_at_them() -> None:
    role = BUILT_IN_ROLES["crypto-user"]
    assert {p for p in PERMISSIONS if p.startswith("crypto.")} < role
    others = {p for p in role if not p.startswith("crypto.")}
    assert others == {"keys.get_public_key", "keys.get_capabilities", "quotas.get_own"}


def test_a_vault_operator_steers_keys_and_secrets_and_never_uses_them() -> None:
    keys = {p for p in PERMISSIONS if p.startswith(("keys.", "quotas.", "secrets."))}
    keys -= {"keys.adopt", "keys.export", "keys.import", "keys.restore", "secrets.access"}
    others = {"vaults.get", "vaults.update", "policy.get", "policy.set"}
    assert BUILT_IN_ROLES["vault-operator"] == keys | others


def test_an_auditor_only_reads_metadata() -> None:
    reads = {f"{kind}.{verb}" for kind in ("keys", "secrets", "vaults", "quotas") for verb in ("get", "list")}
    others = {
        *("admin.get_status", "admin.list_revoked_identities"),
        *("audit.get_proof", "audit.tail", "audit.verify"),
        *("approvals.get_rules", "approvals.list", "keys.list_grants", "policy.get"),
    }
    assert BUILT_IN_ROLES["auditor"] == reads | others


def test_only_readers_and_administrators_of_all_read_secrets() -> None:
    assert {role for role, held in BUILT_IN_ROLES.items() if "secrets.access" in held} == {"admin", "secret-reader"}


def test_a_writer_of_secrets_destroys_nothing() -> None:
    assert BUILT_IN_ROLES["secret-writer"].isdisjoint({"secrets.destroy", "secrets.delete", "secrets.purge"})


def test_a_granter_holds_nothing_that_could_be_granted() -> None:
    assert BUILT_IN_ROLES["granter"] == {"keys.grant", "keys.list_grants", "keys.revoke_grant"}
    assert BUILT_IN_ROLES["granter"].isdisjoint(GRANTABLE)


@pytest.mark.parametrize("role", ["encrypter", "verifier", "wrapper", "auditor", "key-admin", "vault-operator"])
def test_roles_that_must_not_read_cannot(role: str) -> None:
    reads = {"crypto.decrypt", "crypto.reencrypt_from", "crypto.unwrap", "crypto.decapsulate", "crypto.derive"}
    assert BUILT_IN_ROLES[role].isdisjoint(reads)


@pytest.mark.parametrize("role", ["decrypter", "verifier", "auditor", "encrypter", "key-admin", "vault-operator"])
def test_roles_that_must_not_sign_cannot(role: str) -> None:
    assert BUILT_IN_ROLES[role].isdisjoint({"crypto.sign", "crypto.generate_mac"})


# Documents.


def test_the_documented_example_is_read() -> None:
    assert Policy.parse(yaml.safe_load(EXAMPLE)) == Policy(
        roles=(Role("payments", ("crypto.encrypt", "crypto.decrypt")),),
        groups=(Group("ops", (OPS,)),),
        bindings=(Binding((APP, "group:ops"), "crypto-user", "vaults/default"),),
        denies=(Deny((APP,), ("keys.purge",), "vaults/default"),),
    )


def test_a_policy_survives_json() -> None:
    policy = Policy.parse(yaml.safe_load(EXAMPLE))
    assert Policy.parse(json.loads(json.dumps(policy.to_document()))) == policy


def test_missing_lists_are_empty() -> None:
    assert Policy.parse({}) == Policy()


def test_the_canonical_document_has_all_lists() -> None:
    assert Policy().to_document() == {"roles": [], "groups": [], "bindings": [], "denies": []}


@pytest.mark.parametrize("document", [None, [], "roles: []", 1, True])
def test_a_document_that_is_no_mapping_is_refused(document: object) -> None:
    assert fault(document) == "policy"


@pytest.mark.parametrize("document", [{"binding": []}, {1: []}, {"bindings": [], "default": "allow"}])
def test_an_unknown_section_is_refused(document: object) -> None:
    assert fault(document) == "policy"


@pytest.mark.parametrize("section", ["roles", "groups", "bindings", "denies"])
@pytest.mark.parametrize("value", [None, {}, "x", 1])
def test_a_section_that_is_no_list_is_refused(section: str, value: object) -> None:
    assert fault({section: value}) == section


@pytest.mark.parametrize("section", ["roles", "groups", "bindings", "denies"])
@pytest.mark.parametrize("value", [None, [], "x", 1, {"conditions": "true"}])
def test_an_entry_that_is_no_mapping_of_known_keys_is_refused(section: str, value: object) -> None:
    assert fault({section: [value]}) == f"{section}[0]"


@pytest.mark.parametrize("key", ["members", "role", "resource"])
def test_a_missing_key_of_a_binding_is_named(key: str) -> None:
    entry = binding("vaults/a")
    del entry[key]
    assert fault({"bindings": [binding("vaults/a"), entry]}) == f"bindings[1].{key}"


@pytest.mark.parametrize("key", ["members", "permissions", "resource"])
def test_a_missing_key_of_a_deny_is_named(key: str) -> None:
    entry = deny("vaults/a")
    del entry[key]
    assert fault({"denies": [entry]}) == f"denies[0].{key}"


def test_an_unknown_key_of_a_binding_is_refused() -> None:
    assert fault({"bindings": [binding("vaults/a") | {"conditions": "true"}]}) == "bindings[0]"


@pytest.mark.parametrize("value", [None, 1, True, 2.5, ["vaults/a"], {}])
def test_a_resource_that_is_no_text_is_refused(value: object) -> None:
    assert fault({"bindings": [binding("vaults/a") | {"resource": value}]}) == "bindings[0].resource"


@pytest.mark.parametrize("value", [None, APP, {APP: 1}, 7])
def test_members_that_are_no_list_are_refused(value: object) -> None:
    assert fault({"bindings": [binding("vaults/a") | {"members": value}]}) == "bindings[0].members"


def test_a_member_that_is_no_text_is_refused() -> None:
    assert fault({"bindings": [binding("vaults/a") | {"members": [APP, 7]}]}) == "bindings[0].members[1]"


def test_an_unknown_role_is_named_by_its_path() -> None:
    assert fault({"bindings": [binding("/"), binding("/"), binding("/", "crypto-users")]}) == "bindings[2].role"


def test_an_unknown_group_is_refused() -> None:
    assert fault({"bindings": [binding("/", "admin", APP, "group:ops")]}) == "bindings[0].members[1]"
    assert fault({"denies": [deny("/", "keys.get", "group:ops")]}) == "denies[0].members[0]"


@pytest.mark.parametrize(
    "permission", ["crypto.*", "*", "crypto.Encrypt", "crypto.encrypt ", "keys", "", "secrets.read", "admin.init"]
)
def test_an_unknown_permission_is_refused(permission: str) -> None:
    role = {"name": "a", "permissions": ["keys.get", permission]}
    assert fault({"roles": [role]}) == "roles[0].permissions[1]"
    assert fault({"denies": [deny("/", permission)]}) == "denies[0].permissions[0]"


@pytest.mark.parametrize("role", sorted(BUILT_IN_ROLES))
def test_a_built_in_role_cannot_be_redefined(role: str) -> None:
    other = {"name": "other", "permissions": ["keys.get"]}
    assert fault({"roles": [other, {"name": role, "permissions": ["keys.get"]}]}) == "roles[1].name"


def test_a_role_that_is_defined_twice_is_refused() -> None:
    role = {"name": "a", "permissions": ["keys.get"]}
    assert fault({"roles": [role, role]}) == "roles[1].name"


def test_a_group_that_is_defined_twice_is_refused() -> None:
    group = {"name": "a", "members": []}
    assert fault({"groups": [group, group]}) == "groups[1].name"


@pytest.mark.parametrize("name", ["", "A", "a b", " a", "a\n", "-a", "a-", "a.b", "a_b", "ä", "a" * 64])
def test_a_name_outside_the_alphabet_is_refused(name: str) -> None:
    assert fault({"roles": [{"name": name, "permissions": ["keys.get"]}]}) == "roles[0].name"
    assert fault({"groups": [{"name": name, "members": []}]}) == "groups[0].name"


def test_a_repeated_member_is_refused() -> None:
    assert fault({"bindings": [binding("/", "admin", APP, OPS, APP)]}) == "bindings[0].members[2]"


def test_a_repeated_permission_is_refused() -> None:
    assert fault({"roles": [{"name": "a", "permissions": ["keys.get"] * 2}]}) == "roles[0].permissions[1]"


def test_a_binding_for_nobody_is_refused() -> None:
    assert fault({"bindings": [binding("/") | {"members": []}]}) == "bindings[0].members"


def test_a_deny_of_nothing_is_refused() -> None:
    assert fault({"denies": [deny("/") | {"permissions": []}]}) == "denies[0].permissions"


def test_a_role_without_permissions_is_refused() -> None:
    assert fault({"roles": [{"name": "a", "permissions": []}]}) == "roles[0].permissions"


def test_groups_hold_no_groups() -> None:
    groups = [{"name": "a", "members": [APP]}, {"name": "b", "members": ["group:a"]}]
    assert fault({"groups": groups}) == "groups[1].members[0]"


def test_a_refusal_does_not_repeat_the_document() -> None:
    with pytest.raises(InvalidArgument) as caught:
        Policy.parse({"bindings": [binding("CANARY")]})
    assert "CANARY" not in str(caught.value)


def test_a_policy_that_is_made_in_code_is_checked_like_a_document() -> None:
    with pytest.raises(InvalidArgument, match=r"bindings\[0\]\.role"):
        Policy(bindings=(Binding((APP,), "nobody", "/"),))


# Limits: at the limit, and one above.


@pytest.mark.parametrize(
    ("section", "most", "entry"),
    [
        ("roles", MAX_ROLES, {"permissions": ["keys.get"]}),
        ("groups", MAX_GROUPS, {"members": []}),
    ],
)
def test_names_are_bounded(section: str, most: int, entry: dict[str, Any]) -> None:
    entries = [{"name": f"n{i}", **entry} for i in range(most + 1)]
    Policy.parse({section: entries[:most]})
    assert fault({section: entries}) == section


@pytest.mark.parametrize(("section", "entry"), [("bindings", binding("/")), ("denies", deny("/"))])
def test_bindings_and_denies_are_bounded(section: str, entry: dict[str, Any]) -> None:
    Policy.parse({section: [entry] * MAX_BINDINGS})
    assert fault({section: [entry] * (MAX_BINDINGS + 1)}) == section


def test_members_are_bounded() -> None:
    members = [f"dns:h{i}.example.org" for i in range(MAX_MEMBERS + 1)]
    Policy.parse({"groups": [{"name": "a", "members": members[:-1]}]})
    assert fault({"groups": [{"name": "a", "members": members}]}) == "groups[0].members"
    assert fault({"bindings": [binding("/", "admin", *members)]}) == "bindings[0].members"


def test_members_are_bounded_in_all(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(policy_module, "MAX_MEMBERS_IN_ALL", 3)
    Policy.parse({"bindings": [binding("/", "admin", APP, OPS)], "denies": [deny("/")]})
    assert fault({"bindings": [binding("/", "admin", APP, OPS)], "denies": [deny("/"), deny("/")]}) == "policy"


# Principals and resources have one spelling.


@pytest.mark.parametrize(
    "principal",
    [
        "spiffe://example.org/app",
        "spiffe://example.org/ns/prod/sa/App_1.2-x",
        "spiffe://dev.vaultd/admin",
        "spiffe://example.org/...",
        "dns:app.example.org",
        "dns:localhost",
        "dns:xn--bcher-kva.example",
        "dns:1.2.3.com",
        "jwt:github:repo:org/name:ref:refs/heads/main",
        "jwt:k8s:system:serviceaccount:prod:app",
        "jwt:auth0:auth0|5f7c8ec7c33c6c004bbafe82",
    ],
)
def test_a_canonical_principal_is_accepted(principal: str) -> None:
    assert is_principal(principal)


@pytest.mark.parametrize(
    "principal",
    [
        "",
        "app",
        "*",
        "group:ops",
        " spiffe://example.org/app",
        "spiffe://example.org/app ",
        "spiffe://example.org/app\n",
        "spiffe://example.org/a b",
        "SPIFFE://example.org/app",
        "Spiffe://example.org/app",
        "spiffe://Example.org/app",
        "spiffe://example.org",
        "spiffe://example.org/",
        "spiffe://example.org/app/",
        "spiffe://example.org//app",
        "spiffe://example.org/./app",
        "spiffe://example.org/../app",
        "spiffe://example.org/app/..",
        "spiffe://example.org/%61pp",
        "spiffe://example.org/app?x=1",
        "spiffe://example.org/app#x",
        "spiffe://example.org:443/app",
        "spiffe://user@example.org/app",
        "spiffe:///app",
        "spiffe:/example.org/app",
        "spiffe://example.org/äpp",
        "spiffe://example.org/*",
        "spiffe://example.org/" + "a" * 2048,
        "DNS:app.example.org",
        "dns:App.example.org",
        "dns:app.example.org.",
        "dns:.example.org",
        "dns:app..example.org",
        "dns:*.example.org",
        "dns:-app.example.org",
        "dns:app_1.example.org",
        "dns:10.0.0.1",
        "dns:",
        "dns:" + "a" * 64,
        "dns:" + ".".join(["a" * 63] * 4),
        "jwt:issuer",
        "jwt:issuer:",
        "jwt::sub",
        "jwt:Issuer:sub",
        "jwt:issuer:a b",
        "jwt:issuer:a\tb",
        "jwt:issuer:sub\n",
        "jwt:issuer:süb",
        "jwt:issuer:" + "a" * 256,
        "JWT:issuer:sub",
        "cn:admin",
        "https://example.org/app",
    ],
)
def test_any_other_spelling_of_a_principal_is_refused(principal: str) -> None:
    assert not is_principal(principal)
    assert fault({"bindings": [binding("/", "admin", APP, principal)]}) == "bindings[0].members[1]"
    assert fault({"groups": [{"name": "a", "members": [principal]}]}) == "groups[0].members[0]"


@pytest.mark.parametrize("resource", ["/", "vaults", "vaults/a", "vaults/a/keys/b", "vaults/a/secrets/b"])
def test_a_resource_of_the_grammar_is_accepted(resource: str) -> None:
    Policy.parse({"bindings": [binding(resource)], "denies": [deny(resource)]})


@pytest.mark.parametrize(
    "resource",
    [
        "",
        "*",
        "//",
        "/vaults",
        "vaults/",
        "vaults/*",
        "vaults/a/*",
        "vaults/a/",
        "vaults//a",
        "vaults/A",
        " vaults/a",
        "vaults/a ",
        "vaults/a\n",
        "vaults/..",
        "vaults/a/../b",
        "vaults/a/keys",
        "vaults/a/keys/",
        "vaults/a/keys/*",
        "vaults/a/keys/b/versions/1",
        "vaults/a/certs/b",
        "Vaults/a",
        "vault/a",
        "root",
        "admin",
        "vaults/a%2fb",
        "vaults/" + "a" * 64,
    ],
)
def test_any_other_resource_is_refused(resource: str) -> None:
    assert fault({"bindings": [binding(resource)]}) == "bindings[0].resource"
    assert fault({"denies": [deny(resource)]}) == "denies[0].resource"


# Decisions.


def test_an_empty_policy_allows_nothing() -> None:
    decisions = PolicyEngine(Policy())
    for permission in PERMISSIONS:
        for resource in ("/", "vaults", "vaults/default", KEY):
            assert decisions.decide(ADMIN, permission, resource) == Decision(False, "no binding")


def test_a_binding_allows_what_its_role_holds_and_names_itself() -> None:
    decisions = engine(bindings=[binding("vaults/other"), binding("vaults/default")])
    decision = decisions.decide(APP, "crypto.encrypt", KEY)
    assert decision == Decision(True, "bindings[1] gives crypto-user on vaults/default", "vaults/default")
    assert decisions.allows(APP, "crypto.encrypt", KEY)


def test_the_widest_and_then_the_first_entry_is_the_one_named() -> None:
    entries = [binding(KEY), binding("vaults/default"), binding("vaults/default", "admin")]
    denies = [deny(KEY, "keys.get"), deny("vaults", "keys.get"), deny("vaults", "keys.get")]
    decisions = engine(bindings=entries, denies=denies)
    assert decisions.decide(APP, "crypto.sign", KEY).reason == "bindings[1] gives crypto-user on vaults/default"
    assert decisions.decide(APP, "keys.get", KEY).reason == "denies[1] on vaults"


def test_a_binding_allows_nothing_that_its_role_lacks() -> None:
    assert not engine(bindings=[binding("vaults/default")]).allows(APP, "keys.get", KEY)


def test_a_binding_allows_nobody_else() -> None:
    assert not engine(bindings=[binding("/", "admin")]).allows(OPS, "keys.get", KEY)


def test_a_role_of_the_policy_is_bound_like_a_built_in_one() -> None:
    role = {"name": "payments", "permissions": ["crypto.sign"]}
    decisions = engine(roles=[role], bindings=[binding("vaults/default", "payments")])
    assert decisions.allows(APP, "crypto.sign", KEY)
    assert not decisions.allows(APP, "crypto.encrypt", KEY)


def test_members_of_a_group_hold_what_is_bound_to_it() -> None:
    decisions = engine(
        groups=[{"name": "ops", "members": [OPS]}], bindings=[binding("vaults/default", "key-admin", "group:ops")]
    )
    assert decisions.allows(OPS, "keys.get", KEY)
    assert not decisions.allows(APP, "keys.get", KEY)


def test_a_deny_of_a_group_reaches_its_members() -> None:
    decisions = engine(
        groups=[{"name": "ops", "members": [OPS]}],
        bindings=[binding("/", "admin", OPS)],
        denies=[deny("vaults/default", "keys.purge", "group:ops")],
    )
    assert decisions.decide(OPS, "keys.purge", KEY) == Decision(False, "denies[0] on vaults/default")


def test_a_caller_named_like_a_group_gets_nothing() -> None:
    decisions = engine(groups=[{"name": "ops", "members": [OPS]}], bindings=[binding("/", "admin", "group:ops")])
    assert not decisions.allows("group:ops", "keys.get", KEY)


@pytest.mark.parametrize("denied_on", ["/", "vaults", "vaults/default", KEY])
@pytest.mark.parametrize("bound_on", ["/", "vaults", "vaults/default", KEY])
def test_a_deny_wins_over_a_binding_however_wide_or_narrow(denied_on: str, bound_on: str) -> None:
    decisions = engine(bindings=[binding(bound_on, "admin")], denies=[deny(denied_on)])
    assert decisions.decide(APP, "crypto.encrypt", KEY) == Decision(False, f"denies[0] on {denied_on}")
    assert decisions.allows(APP, "crypto.decrypt", KEY)


def test_a_deny_reaches_no_further_than_its_resource() -> None:
    decisions = engine(bindings=[binding("/", "admin")], denies=[deny("vaults/default")])
    assert decisions.allows(APP, "crypto.encrypt", "vaults/default2/keys/orders")


def test_a_deny_alone_allows_nothing() -> None:
    assert not engine(denies=[deny("vaults/default")]).allows(APP, "crypto.decrypt", KEY)


def test_a_binding_on_the_root_covers_the_server_and_everything_in_it() -> None:
    decisions = engine(bindings=[binding("/", "admin")])
    assert decisions.allows(APP, "admin.seal", "/")
    assert decisions.allows(APP, "vaults.create", "vaults")
    assert decisions.allows(APP, "keys.get", f"{KEY}/versions/3")


def test_a_binding_on_vaults_does_not_reach_the_server() -> None:
    decisions = engine(bindings=[binding("vaults", "admin")])
    assert decisions.allows(APP, "vaults.create", "vaults")
    assert decisions.allows(APP, "keys.get", KEY)
    assert not decisions.allows(APP, "admin.seal", "/")


def test_a_binding_on_a_vault_covers_it_and_all_in_it() -> None:
    decisions = engine(bindings=[binding("vaults/a", "admin")])
    for resource in ("vaults/a", "vaults/a/keys/x", "vaults/a/keys/x/versions/3", "vaults/a/secrets/y"):
        assert decisions.allows(APP, "keys.get", resource)


@pytest.mark.parametrize(
    "resource", ["/", "vaults", "vaults/ab", "vaults/a-b", "vaults/b", "vaults/ab/keys/x", "vaults/b/keys/a"]
)
def test_a_binding_on_a_vault_covers_nothing_else(resource: str) -> None:
    assert not engine(bindings=[binding("vaults/a", "admin")]).allows(APP, "keys.get", resource)


@pytest.mark.parametrize(
    "resource", ["vaults/a", "vaults/a/keys/xy", "vaults/a/keys/y", "vaults/b/keys/x", "vaults/a/secrets/x"]
)
def test_a_binding_on_a_key_covers_its_versions_and_nothing_else(resource: str) -> None:
    decisions = engine(bindings=[binding("vaults/a/keys/x", "admin")])
    assert decisions.allows(APP, "keys.get", "vaults/a/keys/x/versions/3")
    assert not decisions.allows(APP, "keys.get", resource)


@pytest.mark.parametrize(
    "resource", ["", "*", "//", "vaults/", "vaults/a/", "vaults/a/../b", "vaults/a//keys", "VAULTS/a", "vaults/a\n"]
)
def test_what_is_no_resource_name_is_denied_even_to_an_admin(resource: str) -> None:
    decision = engine(bindings=[binding("/", "admin")]).decide(APP, "keys.get", resource)
    assert decision == Decision(False, "not a resource name")


@pytest.mark.parametrize("permission", ["", "*", "keys.*", "keys.Get", "keys.get ", "nonsense"])
def test_what_is_no_permission_is_denied_even_to_an_admin(permission: str) -> None:
    assert not engine(bindings=[binding("/", "admin")]).allows(APP, permission, KEY)


@pytest.mark.parametrize("principal", ["", APP.upper(), f" {APP}", f"{APP} ", f"{APP}/", APP.replace("app", "App")])
def test_a_variant_of_a_name_is_somebody_else(principal: str) -> None:
    assert not engine(bindings=[binding("/", "admin")]).allows(principal, "keys.get", KEY)


def test_a_variant_of_a_name_does_not_push_out_decisions_of_callers() -> None:
    decisions = engine(bindings=[binding("/", "admin")])
    for i in range(1_000):
        decisions.allows(f"dns:stranger-{i}", "keys.get", KEY)
    assert len(decisions._decisions) == 0


def test_the_second_answer_is_the_first() -> None:
    decisions = engine(bindings=[binding("vaults/default")])
    for permission in ("crypto.encrypt", "keys.get"):
        first = decisions.decide(APP, permission, KEY)
        assert decisions.decide(APP, permission, KEY) is first
        assert decisions.allows(APP, permission, KEY) is first.allowed


def test_kept_decisions_are_bounded() -> None:
    decisions = engine(bindings=[binding("vaults/default")])
    for i in range(MAX_CACHED_DECISIONS + 10):
        decisions.allows(APP, "crypto.encrypt", f"vaults/default/keys/k{i}")
    assert len(decisions._decisions) == 10
    assert decisions.allows(APP, "crypto.encrypt", KEY)


def test_what_is_gathered_of_principals_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(policy_module, "MAX_COMPILED_GRANTS", 100)
    members = [f"dns:h{i}.example.org" for i in range(100)]
    decisions = engine(bindings=[binding("vaults/default", "crypto-user", *members)])
    for member in members:
        assert decisions.allows(member, "crypto.encrypt", KEY)
        assert len(decisions._grants) <= 100 // len(BUILT_IN_ROLES["crypto-user"]) + 1


# The first policy.


def test_the_first_policy_makes_administrators_of_everything() -> None:
    decisions = PolicyEngine(seed_policy([ADMIN, OPS], None))
    for principal in (ADMIN, OPS):
        assert all(decisions.allows(principal, permission, "/") for permission in PERMISSIONS)


def test_the_first_policy_holds_the_document_at_the_indexes_it_was_written_with() -> None:
    document = yaml.safe_load(EXAMPLE)
    policy = seed_policy([ADMIN], document)
    assert policy.bindings[:-1] == Policy.parse(document).bindings
    assert policy.bindings[-1] == Binding((ADMIN,), "admin", "/")
    assert (policy.roles, policy.denies) == (Policy.parse(document).roles, Policy.parse(document).denies)


@pytest.mark.parametrize("admins", [[], ["admin"], ["group:ops"], [ADMIN, ADMIN], ["SPIFFE://example.org/admin"]])
def test_the_first_policy_needs_administrators_in_canonical_form(admins: list[str]) -> None:
    with pytest.raises(InvalidArgument, match="admins") as caught:
        seed_policy(admins, None)
    assert caught.value.reason == "POLICY_INVALID"


def test_the_first_policy_is_as_strict_with_the_document() -> None:
    with pytest.raises(InvalidArgument, match="policy"):
        seed_policy([ADMIN], {"binding": []})


# Random policies against an evaluator that is too simple to be wrong.

# Names that are prefixes of each other, and equal names at different places, are where a prefix match goes wrong.
VAULTS = ["a", "ab", "a-b", "keys", "vaults"]
KEYS = ["a", "ab", "keys"]
POLICY_RESOURCES = [
    "/",
    "vaults",
    *[f"vaults/{v}" for v in VAULTS],
    *[f"vaults/{v}/{kind}/{k}" for v in VAULTS[:2] for kind in ("keys", "secrets") for k in KEYS],
]
REQUEST_RESOURCES = [*POLICY_RESOURCES, "vaults/a/keys/a/versions/1", "vaults/ab/keys/a/versions/12"]
PRINCIPALS = [APP, APP + "s", "dns:app.example.org", "jwt:k8s:system:serviceaccount:prod:app"]
GROUPS = ["ops", "op"]
SOME_PERMISSIONS = ["crypto.encrypt", "crypto.decrypt", "keys.get", "admin.seal"]
ROLES = ["mine", "min", "admin", "crypto-user", "auditor"]

CONDITIONS: dict[str, Any] = {
    "true": lambda facts, request: True,
    "false": lambda facts, request: False,
    "1": lambda facts, request: None,
    'principal == "dns:app.example.org"': lambda facts, request: request[0] == "dns:app.example.org",
    'request.permission.startsWith("crypto.")': lambda facts, request: request[1].startswith("crypto."),
    'resource.name.endsWith("/a")': lambda facts, request: request[2].endswith("/a"),
    'request.method == "/m/Encrypt"': lambda facts, request: facts.method == "/m/Encrypt",
    "request.time.getHours() < 8": lambda facts, request: facts.now_us // 3_600_000_000 % 24 < 8,
    'resource.labels.env == "dev"': lambda facts, request: (
        facts.labels["env"] == "dev" if "env" in facts.labels else None
    ),
    "has(resource.labels.env)": lambda facts, request: "env" in facts.labels,
    '"ops" in claims.groups': lambda facts, request: (
        "ops" in facts.claims["groups"] if "groups" in facts.claims else None
    ),
    "claims.level > 2": lambda facts, request: facts.claims["level"] > 2 if "level" in facts.claims else None,
    'claims.absent == 1 || principal != ""': lambda facts, request: True,
    'claims.absent == 1 && principal == ""': lambda facts, request: False,
}
"""Condition -> what it must evaluate to; None for a failure."""
FACTS = [
    Facts(method, hour * 3_600_000_000, claims, labels)
    for method in ("/m/Encrypt", "/m/Sign")
    for hour in (0, 7, 8, 23)
    for claims in ({}, {"groups": ["ops"], "level": 2}, {"groups": [], "level": 3})
    for labels in ({}, {"env": "dev"}, {"env": "prod"})
]


def conditional(entry: dict[str, Any]) -> st.SearchStrategy[dict[str, Any]]:
    some = st.one_of(st.just({}), st.sampled_from(sorted(CONDITIONS)).map(lambda text: {"condition": text}))
    return some.map(lambda more: entry | more)


permission_sets = st.lists(st.sampled_from(SOME_PERMISSIONS), min_size=1, unique=True)
member_sets = st.lists(
    st.sampled_from([*PRINCIPALS, *[f"group:{g}" for g in GROUPS]]), min_size=1, max_size=3, unique=True
)
resources = st.sampled_from(POLICY_RESOURCES)
documents = st.fixed_dictionaries(
    {
        "roles": st.tuples(permission_sets, permission_sets).map(
            lambda sets: [{"name": name, "permissions": held} for name, held in zip(ROLES[:2], sets, strict=True)]
        ),
        "groups": st.tuples(*[st.lists(st.sampled_from(PRINCIPALS), max_size=3, unique=True)] * 2).map(
            lambda sets: [{"name": name, "members": held} for name, held in zip(GROUPS, sets, strict=True)]
        ),
        "bindings": st.lists(
            st.fixed_dictionaries(
                {"members": member_sets, "role": st.sampled_from(ROLES), "resource": resources}
            ).flatmap(conditional),
            max_size=5,
        ),
        "denies": st.lists(
            st.fixed_dictionaries(
                {"members": member_sets, "permissions": permission_sets, "resource": resources}
            ).flatmap(conditional),
            max_size=3,
        ),
    }
)


def naive_covers(resource: str, requested: str) -> bool:
    wide = [segment for segment in resource.split("/") if segment]
    return [segment for segment in requested.split("/") if segment][: len(wide)] == wide


def naive_matches(document: dict[str, Any], entry: dict[str, Any], principal: str, requested: str) -> bool:
    groups = {f"group:{group['name']}": group["members"] for group in document["groups"]}
    named = any(member == principal or principal in groups.get(member, []) for member in entry["members"])
    return named and naive_covers(entry["resource"], requested)


def naive_reasons(document: dict[str, Any], request: tuple[str, str, str], facts: Facts) -> tuple[bool, set[str]]:
    """Return the answer, and the reasons that may be given for it."""
    principal, permission, requested = request
    roles = dict(BUILT_IN_ROLES) | {role["name"]: frozenset(role["permissions"]) for role in document["roles"]}

    def outcome(entry: dict[str, Any]) -> bool | None:
        return CONDITIONS[entry["condition"]](facts, request) if "condition" in entry else True

    denied = {
        f"denies[{i}] on {entry['resource']}"
        for i, entry in enumerate(document["denies"])
        if permission in entry["permissions"]
        and naive_matches(document, entry, principal, requested)
        and outcome(entry) is not False
    }
    if denied:
        return False, denied
    allowed = {
        f"bindings[{i}] gives {entry['role']} on {entry['resource']}"
        for i, entry in enumerate(document["bindings"])
        if permission in roles[entry["role"]]
        and naive_matches(document, entry, principal, requested)
        and outcome(entry) is True
    }
    return bool(allowed), allowed or {"no binding"}


def assert_decides_like_the_naive_evaluator(document: dict[str, Any], rng: random.Random, requests: int) -> None:
    decisions = PolicyEngine(Policy.parse(document))
    for _ in range(requests):
        request = rng.choice(PRINCIPALS), rng.choice(SOME_PERMISSIONS), rng.choice(REQUEST_RESOURCES)
        facts = rng.choice(FACTS)
        allowed, reasons = naive_reasons(document, request, facts)
        decision = decisions.decide(*request, facts)
        assert decision.allowed is allowed, (SEED, document, request, facts)
        assert decision.reason in reasons, (SEED, document, request, facts)
        assert decisions.allows(*request, facts) is allowed, (SEED, document, request, facts)


@pytest.mark.slow
@seed(SEED)
@settings(max_examples=200, deadline=None, database=None, suppress_health_check=list(HealthCheck))
@given(document=documents, request_seed=st.integers(0, 2**32 - 1))
def test_every_decision_is_that_of_the_naive_evaluator(document: dict[str, Any], request_seed: int) -> None:
    assert_decides_like_the_naive_evaluator(document, random.Random(request_seed), 20)


def random_document(rng: random.Random) -> dict[str, Any]:
    """The same documents as above, made a hundred times faster and without shrinking."""

    def some(values: list[str], least: int, most: int) -> list[str]:
        return rng.sample(values, rng.randint(least, min(most, len(values))))

    def entry(**fields: Any) -> dict[str, Any]:
        members = some([*PRINCIPALS, *[f"group:{g}" for g in GROUPS]], 1, 3)
        condition = {"condition": rng.choice(sorted(CONDITIONS))} if rng.random() < 0.5 else {}
        return {"members": members, **fields, "resource": rng.choice(POLICY_RESOURCES), **condition}

    return {
        "roles": [{"name": name, "permissions": some(SOME_PERMISSIONS, 1, 4)} for name in ROLES[:2]],
        "groups": [{"name": name, "members": some(PRINCIPALS, 0, 3)} for name in GROUPS],
        "bindings": [entry(role=rng.choice(ROLES)) for _ in range(rng.randint(0, 8))],
        "denies": [entry(permissions=some(SOME_PERMISSIONS, 1, 4)) for _ in range(rng.choice((0, 0, 1, 2, 3)))],
    }


@pytest.mark.slow
def test_decisions_of_many_random_policies_are_those_of_the_naive_evaluator() -> None:
    rng = random.Random(SEED)
    for _ in range(RANDOM_POLICIES):
        assert_decides_like_the_naive_evaluator(random_document(rng), rng, 10)
    print(f"{RANDOM_POLICIES:,} policies, {RANDOM_POLICIES * 10:,} requests, 0 differences")


@pytest.mark.slow
@seed(SEED)
@settings(max_examples=150, deadline=None, database=None)
@given(document=documents)
def test_every_policy_survives_its_document(document: dict[str, Any]) -> None:
    policy = Policy.parse(document)
    assert policy.to_document() == document
    assert Policy.parse(policy.to_document()) == policy


names = st.from_regex(r"[a-c]([a-c-]{0,3}[a-c])?", fullmatch=True)


@pytest.mark.slow
@seed(SEED)
@settings(max_examples=400, deadline=None, database=None)
@given(bound=names, asked=names, bound_key=names, asked_key=names)
def test_a_binding_covers_whole_segments_only(bound: str, asked: str, bound_key: str, asked_key: str) -> None:
    on_vault = engine(bindings=[binding(f"vaults/{bound}", "admin")])
    for tail in ("", f"/keys/{asked_key}", f"/keys/{asked_key}/versions/3", f"/secrets/{bound}"):
        assert on_vault.allows(APP, "keys.get", f"vaults/{asked}{tail}") is (bound == asked), SEED
    on_key = engine(bindings=[binding(f"vaults/{bound}/keys/{bound_key}", "admin")])
    for tail in ("", "/versions/3"):
        same = (bound, bound_key) == (asked, asked_key)
        assert on_key.allows(APP, "keys.get", f"vaults/{asked}/keys/{asked_key}{tail}") is same, SEED


@pytest.mark.slow
@seed(SEED)
@settings(max_examples=400, deadline=None, database=None)
@given(
    principal=st.one_of(
        st.text(max_size=40),
        st.sampled_from(PRINCIPALS).flatmap(
            lambda name: st.tuples(st.integers(0, len(name)), st.characters()).map(
                lambda edit: name[: edit[0]] + edit[1] + name[edit[0] :]
            )
        ),
        st.sampled_from(PRINCIPALS).flatmap(
            lambda name: st.sampled_from([name.upper(), name.title(), name.swapcase(), name + "/", "\ufeff" + name])
        ),
    )
)
def test_no_unicode_case_or_space_variant_of_a_name_is_that_name(principal: str) -> None:
    decisions = engine(bindings=[binding("/", "admin", *PRINCIPALS)])
    assert decisions.allows(principal, "keys.get", KEY) is (principal in PRINCIPALS), SEED
    if is_principal(principal):
        assert principal.isascii(), SEED
        assert not any(character.isspace() for character in principal), SEED
