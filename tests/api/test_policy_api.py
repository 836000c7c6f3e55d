"""The policy over the wire: read, change, test, explain, review; and every way that we know to get more than one has."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import grpc
import pytest
import pytest_asyncio
from wire import (
    ADMIN,
    CRYPTO,
    FAILED_PRECONDITION,
    GENEROUS,
    INVALID_ARGUMENT,
    KEYS,
    NOT_FOUND,
    OK,
    PERMISSION_DENIED,
    World,
    call,
    key_of,
)

from harness import ADMIN as ROOT
from harness import FakeClock, running_server
from vaultd_client.v1 import admin_pb2, crypto_pb2, keys_pb2, policy_pb2

pytestmark = pytest.mark.asyncio(loop_scope="module")

ABORTED = grpc.StatusCode.ABORTED
ALREADY_EXISTS = grpc.StatusCode.ALREADY_EXISTS
SPIFFE = "spiffe://dev.vaultd"
OWNER = f"{SPIFFE}/owner"
FRIEND = f"{SPIFFE}/friend"
AUDITOR = f"{SPIFFE}/auditor"
TESTER = f"{SPIFFE}/tester"
SET, GET = f"{ADMIN}SetPolicy", f"{ADMIN}GetPolicy"
TEST, EXPLAIN, REVIEW = f"{ADMIN}TestPolicy", f"{ADMIN}ExplainAccess", f"{ADMIN}ReviewAccess"
POLICY = {
    "roles": [{"name": "seal-only", "permissions": ["admin.seal"]}],
    "groups": [{"name": "ops", "members": [FRIEND]}, {"name": "nobody", "members": []}],
    "bindings": [
        {"members": [OWNER], "role": "vault-operator", "resource": "vaults/a"},
        {"members": [AUDITOR], "role": "auditor", "resource": "/"},
        {"members": ["group:ops"], "role": "signer", "resource": "vaults/b/keys/sign"},
    ],
    "denies": [{"members": [OWNER], "permissions": ["keys.purge"], "resource": "vaults/a/keys/kept"}],
}
NAMES = ("owner", "friend", "auditor", "tester", "stranger")


def bind(resource: str, role: str, *members: str, **more: str) -> policy_pb2.Binding:
    return policy_pb2.Binding(members=members, role=role, resource=resource, **more)


def deny(resource: str, permission: str, *members: str, **more: str) -> policy_pb2.Deny:
    return policy_pb2.Deny(members=members, permissions=[permission], resource=resource, **more)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def clock():
    return FakeClock()


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def world(tmp_path_factory, clock):
    directory = tmp_path_factory.mktemp("policy")
    async with running_server(directory, policy=POLICY, clock=clock, **GENEROUS) as server:
        made = World(server)
        for vault in ("a", "b"):
            await server.admin.admin.CreateVault(admin_pb2.CreateVaultRequest(vault_id=vault))
            for key_id, purpose in (("enc", "ENCRYPT_DECRYPT"), ("sign", "SIGN"), ("kept", "MAC")):
                await made.create(vault, key_id, key_of(purpose, labels={"env": "dev", "team": vault}))
        for stem in NAMES:
            server.add_identity(stem, uri=f"{SPIFFE}/{stem}")
        yield made


@pytest_asyncio.fixture(loop_scope="module")
async def fresh(world):
    """The world; afterwards its policy is what it was."""
    before = await read(world, "/")
    yield world
    assert (await put(world, "/", before.policy)).code is OK


async def read(world, resource: str, client: str = "admin") -> Any:
    outcome = await call(world.server.client(client), GET, policy_pb2.GetPolicyRequest(resource=resource))
    return outcome.message()


async def put(world, resource: str, policy: Any, client: str = "admin", **more: Any) -> Any:
    request = policy_pb2.SetPolicyRequest(resource=resource, policy=policy, **more)
    return await call(world.server.client(client), SET, request)


async def change(world, resource: str, edit: Any, client: str = "admin", **more: Any) -> Any:
    """Read a part, edit it, and set it."""
    policy = (await read(world, resource, client)).policy
    edit(policy)
    return await put(world, resource, policy, client, **more)


async def may_encrypt(world, client: str, key: str) -> bool:
    request = crypto_pb2.EncryptRequest(name=key, plaintext=b"x")
    return (await call(world.server.client(client), f"{CRYPTO}Encrypt", request)).code is OK


# -- reading ------------------------------------------------------------------------------------------------------------


async def test_the_whole_policy_is_read_at_the_root(world):
    found = await read(world, "/")
    assert found.resource == "/"
    assert [role.name for role in found.policy.roles] == ["seal-only"]
    assert [group.name for group in found.policy.groups] == ["ops", "nobody"]
    assert found.policy.bindings[-1] == bind("/", "admin", ROOT)
    assert found.policy.denies[0] == deny("vaults/a/keys/kept", "keys.purge", OWNER)
    assert found.etag.startswith('"')


async def test_a_vaults_part_is_the_bindings_and_denies_on_it_and_below(world):
    found = await read(world, "vaults/b", "auditor")
    assert list(found.policy.bindings) == [bind("vaults/b/keys/sign", "signer", "group:ops")]
    assert not found.policy.roles
    assert not found.policy.groups
    assert not found.policy.denies


@pytest.mark.parametrize("resource", ["", "vaults", "vaults/a/keys/enc", "vaults/A", "vaults/a/", "//", "*"])
async def test_only_the_root_and_vaults_have_a_part(world, resource):
    for path, make in ((GET, policy_pb2.GetPolicyRequest), (SET, policy_pb2.SetPolicyRequest)):
        outcome = await call(world.admin, path, make(resource=resource))
        assert (outcome.code, outcome.reason) == (INVALID_ARGUMENT, "INVALID_NAME")


async def test_a_vault_operator_reads_the_part_of_its_vault_only(world):
    assert (await read(world, "vaults/a", "owner")).policy.bindings[0].role == "vault-operator"
    for resource in ("/", "vaults/b", "vaults/unknown"):
        outcome = await call(world.server.client("owner"), GET, policy_pb2.GetPolicyRequest(resource=resource))
        assert outcome.code is PERMISSION_DENIED


# -- changing -----------------------------------------------------------------------------------------------------------


async def test_a_change_is_in_force_when_it_returns(fresh):
    assert not await may_encrypt(fresh, "tester", "vaults/a/keys/enc")
    outcome = await change(fresh, "/", lambda p: p.bindings.append(bind("vaults/a", "crypto-user", TESTER)))
    assert outcome.message().entries_added == 1
    assert await may_encrypt(fresh, "tester", "vaults/a/keys/enc")
    await change(fresh, "/", lambda p: p.bindings.pop())
    assert not await may_encrypt(fresh, "tester", "vaults/a/keys/enc")


async def test_a_policy_that_is_set_is_the_one_that_is_read(fresh):
    def edit(policy):
        policy.roles.add(name="mine", permissions=["crypto.sign"])
        policy.groups.add(name="more", members=[TESTER])
        policy.bindings.append(bind("vaults/a", "mine", "group:more", condition="true"))
        policy.denies.append(deny("vaults/b", "crypto.sign", "group:more", condition="claims.x == 1"))

    outcome = await change(fresh, "/", edit)
    answer = outcome.message()
    found = await read(fresh, "/")
    assert (answer.entries_added, answer.entries_removed) == (4, 0)
    assert found.policy == answer.policy
    assert found.etag == answer.etag


async def test_a_policy_survives_a_restart(tmp_path):
    async with running_server(tmp_path, **GENEROUS) as server:
        one = World(server)
        await change(one, "/", lambda p: p.bindings.append(bind("vaults/default", "signer", TESTER, condition="true")))
        before = await read(one, "/")
    async with running_server(tmp_path, **GENEROUS) as server:
        assert await read(World(server), "/") == before


async def test_a_stale_etag_is_aborted_and_a_current_one_is_not(fresh):
    before = await read(fresh, "/")
    changed = await change(fresh, "/", lambda p: p.groups.add(name="other"), etag=before.etag)
    assert changed.code is OK
    outcome = await put(fresh, "/", before.policy, etag=before.etag)
    assert (outcome.code, outcome.reason) == (ABORTED, "ETAG_MISMATCH")
    assert (await put(fresh, "/", before.policy, etag=changed.message().etag)).code is OK


async def test_the_etag_of_a_vaults_part_does_not_change_with_another_vault(fresh):
    before = await read(fresh, "vaults/a")
    await change(fresh, "vaults/b", lambda p: p.bindings.append(bind("vaults/b", "signer", TESTER)))
    assert (await read(fresh, "vaults/a")).etag == before.etag


async def test_of_changes_that_race_one_wins_and_nothing_is_lost(fresh):
    before = await read(fresh, "/")

    def adding(name: str) -> policy_pb2.Policy:
        policy = policy_pb2.Policy()
        policy.CopyFrom(before.policy)
        policy.groups.add(name=name)
        return policy

    outcomes = await asyncio.gather(*(put(fresh, "/", adding(f"g{i}"), etag=before.etag) for i in range(8)))
    won = [outcome for outcome in outcomes if outcome.code is OK]
    assert len(won) == 1
    assert {o.reason for o in outcomes if o.code is not OK} <= {"ETAG_MISMATCH", "POLICY_CHANGED"}
    assert (await read(fresh, "/")).policy == won[0].message().policy


async def test_a_repeated_request_gets_its_first_answer_and_changes_nothing(fresh):
    policy = (await read(fresh, "/")).policy
    policy.groups.add(name="once")
    first = await put(fresh, "/", policy, request_id="policy-once")
    await change(fresh, "/", lambda p: p.groups.pop())
    again = await put(fresh, "/", policy, request_id="policy-once")
    assert again.message() == first.message()
    assert [group.name for group in (await read(fresh, "/")).policy.groups] == ["ops", "nobody"]
    policy.groups.add(name="twice")
    other = await put(fresh, "/", policy, request_id="policy-once")
    assert (other.code, other.reason) == (ALREADY_EXISTS, "REQUEST_ID_REUSED")


@pytest.mark.parametrize(
    ("edit", "field"),
    [
        (lambda p: p.bindings.append(bind("vaults/a", "nobody-role", TESTER)), "bindings[4].role"),
        (lambda p: p.bindings.append(bind("vaults/A", "signer", TESTER)), "bindings[4].resource"),
        (lambda p: p.bindings.append(bind("vaults/a", "signer", "CANARY")), "bindings[4].members[0]"),
        (lambda p: p.bindings.append(bind("vaults/a", "signer", TESTER, condition="1 +")), "bindings[4].condition"),
        (lambda p: p.denies.append(deny("/", "keys.nothing", TESTER)), "denies[1].permissions[0]"),
        (lambda p: p.denies.append(deny("/", "keys.get", TESTER, condition="x")), "denies[1].condition"),
        (lambda p: p.roles.add(name="admin", permissions=["keys.get"]), "roles[1].name"),
        (lambda p: p.groups.add(name="ops"), "groups[2].name"),
    ],
)
async def test_a_fault_is_named_by_its_path_and_the_policy_stays(world, edit, field):
    before = await read(world, "/")
    outcome = await change(world, "/", edit)
    assert (outcome.code, outcome.reason, outcome.fields) == (INVALID_ARGUMENT, "POLICY_INVALID", [field])
    assert b"CANARY" not in outcome.seen()
    assert await read(world, "/") == before


async def test_a_request_without_a_policy_is_not_an_empty_policy(world):
    outcome = await call(world.admin, SET, policy_pb2.SetPolicyRequest(resource="vaults/b"))
    assert (outcome.code, outcome.reason) == (INVALID_ARGUMENT, "INPUT_MISSING")
    assert (await read(world, "vaults/b")).policy.bindings


async def test_a_change_is_recorded_with_intent_counts_and_no_payload(fresh):
    await change(fresh, "vaults/b", lambda p: p.bindings.append(bind("vaults/b", "signer", TESTER)))
    records = [r for r in fresh.server.audit_records() if r.get("method") == SET]
    intent, outcome = records[-2:]
    assert (intent["event"], intent["resource"], intent["principal"]) == ("intent", "vaults/b", ROOT)
    assert (outcome["code"], outcome["entries_added"], outcome["entries_removed"]) == ("OK", 1, 0)
    assert TESTER not in json.dumps([intent, outcome])


async def test_a_refused_change_is_recorded_by_itself(world):
    outcome = await change(world, "vaults/a", lambda p: p.bindings.append(bind("vaults/a", "admin", OWNER)), "owner")
    (record,) = [r for r in world.server.audit_records() if r.get("id") == outcome.request_id and r["event"] == "call"]
    assert (record["code"], record["reason"]) == ("PERMISSION_DENIED", "POLICY_GRANTS_TOO_MUCH")


async def test_another_process_follows_a_change(tmp_path):
    async with running_server(tmp_path, **GENEROUS) as server:
        one = World(server)
        key = await one.create("default", "k", key_of("ENCRYPT_DECRYPT"))
        from vaultd.wiring import Server

        async with Server(
            server.server._settings.model_copy(update={"audit": _other_audit(server, tmp_path)})
        ).running() as second:
            other = type(server)(second, tmp_path)
            other.add_identity("tester", uri=TESTER)
            assert not await may_encrypt(World(other), "tester", key)
            await change(one, "/", lambda p: p.bindings.append(bind("vaults/default", "crypto-user", TESTER)))
            await second.engine.feed.poll()
            assert await may_encrypt(World(other), "tester", key)
            changed = await change(World(other), "/", lambda p: p.bindings.pop())
            assert changed.code is OK
            await other.close()


def _other_audit(server, tmp_path):
    return server.server._settings.audit.model_copy(update={"directory": tmp_path / "audit2"})


# -- getting more than one has ------------------------------------------------------------------------------------------

TOO_MUCH = (PERMISSION_DENIED, "POLICY_GRANTS_TOO_MUCH")


@pytest.mark.parametrize(
    "binding",
    [
        bind("vaults/a", "admin", OWNER),
        bind("vaults/a", "crypto-user", OWNER),
        bind("vaults/a", "crypto-user", FRIEND),
        bind("vaults/a/keys/enc", "encrypter", FRIEND),
        bind("vaults/a", "signer", "group:ops"),
        bind("vaults/a", "seal-only", OWNER),
        bind("vaults/a", "decrypter", FRIEND, condition="false"),
        bind("vaults/a/keys/kept", "key-admin", FRIEND),
        bind("vaults/a", "key-admin", FRIEND),
    ],
    ids=lambda b: f"{b.role}-{b.resource.rpartition('/')[2]}-{b.members[0].rpartition('/')[2]}",
)
async def test_a_vault_operator_gives_nothing_that_it_lacks(world, binding):
    before = await read(world, "/")
    outcome = await change(world, "vaults/a", lambda p: p.bindings.append(binding), "owner")
    assert (outcome.code, outcome.reason) == TOO_MUCH
    assert outcome.fields == ["bindings[1]"]
    assert await read(world, "/") == before


async def test_a_vault_operator_gives_what_it_holds_and_takes_it_back(fresh):
    given = bind("vaults/a/keys/enc", "key-admin", FRIEND)
    assert (await change(fresh, "vaults/a", lambda p: p.bindings.append(given), "owner")).code is OK
    request = keys_pb2.GetKeyRequest(name="vaults/a/keys/enc")
    assert (await call(fresh.server.client("friend"), f"{KEYS}GetKey", request)).code is OK
    assert (await change(fresh, "vaults/a", lambda p: p.bindings.pop(), "owner")).code is OK
    assert (await call(fresh.server.client("friend"), f"{KEYS}GetKey", request)).code is PERMISSION_DENIED


@pytest.mark.parametrize("resource", ["/", "vaults", "vaults/b", "vaults/b/keys/enc", "vaults/ab", "vaults/a2"])
async def test_a_vault_operator_binds_nothing_outside_its_vault(world, resource):
    binding = bind(resource, "key-admin", OWNER)
    outcome = await change(world, "vaults/a", lambda p: p.bindings.append(binding), "owner")
    assert (outcome.code, outcome.reason, outcome.fields) == (
        INVALID_ARGUMENT,
        "POLICY_INVALID",
        ["bindings[1].resource"],
    )


@pytest.mark.parametrize("resource", ["/", "vaults/b", "vaults/unknown"])
async def test_a_vault_operator_sets_no_other_policy(world, resource):
    outcome = await put(world, resource, policy_pb2.Policy(), "owner")
    assert (outcome.code, outcome.reason) == (PERMISSION_DENIED, "PERMISSION_DENIED")


@pytest.mark.parametrize("section", ["roles", "groups"])
async def test_roles_and_groups_are_changed_at_the_root_only(world, section):
    policy = policy_pb2.Policy()
    if section == "roles":
        policy.roles.add(name="seal-only", permissions=["keys.get"])
    else:
        policy.groups.add(name="nobody", members=[OWNER])
    for client in ("owner", "admin"):
        outcome = await put(world, "vaults/a", policy, client)
        assert (outcome.code, outcome.reason, outcome.fields) == (INVALID_ARGUMENT, "POLICY_INVALID", [section])


async def test_a_vaults_part_is_replaced_and_the_rest_stays_in_its_order(fresh):
    before = (await read(fresh, "/")).policy
    only = policy_pb2.Policy(bindings=[bind("vaults/b", "key-admin", TESTER), bind("vaults/b", "signer", TESTER)])
    assert (await put(fresh, "vaults/b", only)).code is OK
    after = (await read(fresh, "/")).policy
    assert list(after.bindings) == [*before.bindings[:2], *only.bindings, *before.bindings[3:]]
    assert after.denies == before.denies
    assert after.roles == before.roles


@pytest.mark.parametrize(
    "denies",
    [
        [],
        [deny("vaults/a/keys/kept", "keys.get", OWNER)],
        [deny("vaults/a/keys/kept", "keys.purge", FRIEND)],
        [deny("vaults/a/keys/kept", "keys.purge", OWNER, condition="true")],
        [deny("vaults/a/keys/kep", "keys.purge", OWNER)],
    ],
    ids=["removed", "permission", "member", "condition", "resource"],
)
async def test_nobody_lifts_a_deny_that_applies_to_them(world, denies):
    def edit(policy):
        del policy.denies[:]
        policy.denies.extend(denies)

    outcome = await change(world, "vaults/a", edit, "owner")
    assert (outcome.code, outcome.reason) == (PERMISSION_DENIED, "POLICY_DENY_LIFTED")


async def test_nobody_leaves_a_group_that_is_denied_something(fresh):
    def edit(policy):
        policy.groups.add(name="barred", members=[ROOT, TESTER])
        policy.bindings.append(bind("/", "admin", FRIEND))
        policy.denies.append(deny("vaults/b", "keys.purge", "group:barred"))

    assert (await change(fresh, "/", edit)).code is OK

    def leave(policy):
        del policy.groups[-1].members[0]

    outcome = await change(fresh, "/", leave)
    assert outcome.reason == "POLICY_DENY_LIFTED"
    # Somebody else may let them out.
    assert (await change(fresh, "/", lambda p: p.denies.pop(), "friend")).code is OK


async def test_an_administrator_of_one_vault_does_not_shut_out_those_above(world):
    outcome = await change(world, "vaults/a", lambda p: p.denies.append(deny("vaults/a", "keys.get", AUDITOR)), "owner")
    assert (outcome.code, outcome.reason, outcome.fields) == (PERMISSION_DENIED, "POLICY_DENY_ABOVE", ["denies[1]"])


@pytest.mark.parametrize(
    "edit",
    [
        lambda p: p.bindings.pop(),
        lambda p: p.ClearField("bindings"),
        lambda p: setattr(p.bindings[-1], "role", "auditor"),
        lambda p: setattr(p.bindings[-1], "condition", "true"),
        lambda p: setattr(p.bindings[-1], "resource", "vaults"),
        lambda p: p.bindings[-1].members.__setitem__(0, "group:nobody"),
        lambda p: p.denies.append(deny("/", "policy.set", ROOT)),
        lambda p: p.denies.append(deny("/", "policy.set", ROOT, condition="false")),
    ],
    ids=["removed", "all-removed", "role", "condition", "resource", "empty-group", "deny", "conditional-deny"],
)
async def test_the_last_administrator_stays(world, edit):
    outcome = await change(world, "/", edit)
    assert (outcome.code, outcome.reason) == (FAILED_PRECONDITION, "POLICY_LAST_ADMIN")
    assert (await read(world, "/")).policy.bindings[-1] == bind("/", "admin", ROOT)


async def test_who_may_set_the_policy_under_a_condition_gives_nothing_by_it(fresh):
    setter = bind("/", "admin", TESTER, condition='request.permission.startsWith("policy.")')
    assert (await change(fresh, "/", lambda p: p.bindings.append(setter))).code is OK
    for role in ("admin", "signer"):
        outcome = await change(fresh, "/", lambda p, role=role: p.bindings.append(bind("/", role, FRIEND)), "tester")
        assert (outcome.code, outcome.reason) == TOO_MUCH
    dropped = await change(fresh, "/", lambda p: p.bindings[-1].ClearField("condition"), "tester")
    assert dropped.reason == "POLICY_GRANTS_TOO_MUCH"


async def test_who_only_reads_the_policy_does_not_set_it(world):
    outcome = await put(world, "/", (await read(world, "/", "auditor")).policy, "auditor")
    assert (outcome.code, outcome.reason) == (PERMISSION_DENIED, "PERMISSION_DENIED")


# -- conditions over the wire -------------------------------------------------------------------------------------------


async def test_a_condition_on_labels_follows_the_labels(fresh):
    name = await fresh.create("b", fresh.fresh_id(), key_of("ENCRYPT_DECRYPT", labels={"env": "dev"}))
    binding = bind("vaults/b", "crypto-user", TESTER, condition='resource.labels.env == "dev"')
    await change(fresh, "/", lambda p: p.bindings.append(binding))
    assert await may_encrypt(fresh, "tester", name)
    assert await may_encrypt(fresh, "tester", f"{name}/versions/1")
    update = keys_pb2.UpdateKeyRequest(key={"name": name, "labels": {"env": "prod"}})
    update.update_mask.paths.append("labels")
    await fresh.admin.keys.UpdateKey(update)
    assert not await may_encrypt(fresh, "tester", name)


async def test_a_key_that_is_not_there_looks_forbidden_under_a_condition_on_labels(fresh):
    binding = bind("vaults/b", "crypto-user", TESTER, condition='resource.labels.env == "dev"')
    await change(fresh, "/", lambda p: p.bindings.append(binding))
    hidden = await fresh.create("b", fresh.fresh_id(), key_of("ENCRYPT_DECRYPT", labels={"env": "prod"}))
    outcomes = []
    for name in (hidden, "vaults/b/keys/unknown"):
        request = crypto_pb2.EncryptRequest(name=name, plaintext=b"x")
        outcomes.append((await call(fresh.server.client("tester"), f"{CRYPTO}Encrypt", request)).refusal)
    assert outcomes[0] == outcomes[1]


async def test_items_of_a_batch_are_decided_by_the_labels_of_each(fresh):
    binding = bind("vaults/b", "crypto-user", TESTER, condition='resource.labels.env == "dev"')
    await change(fresh, "/", lambda p: p.bindings.append(binding))
    prod = await fresh.create("b", fresh.fresh_id(), key_of("ENCRYPT_DECRYPT", labels={"env": "prod"}))
    items = [
        crypto_pb2.EncryptRequest(name=name, plaintext=b"x")
        for name in ("vaults/b/keys/enc", prod, "vaults/b/keys/enc", "vaults/b/keys/unknown")
    ]
    request = crypto_pb2.BatchEncryptRequest(items=items)
    results = (await call(fresh.server.client("tester"), f"{CRYPTO}BatchEncrypt", request)).message().results
    assert [result.WhichOneof("outcome") for result in results] == ["result", "status", "result", "status"]
    assert results[1].status == results[3].status


async def test_a_condition_on_a_vaults_labels_and_one_on_time(fresh, clock):
    update = admin_pb2.UpdateVaultRequest(vault={"name": "vaults/b", "labels": {"tier": "gold"}})
    update.update_mask.paths.append("labels")
    await fresh.admin.admin.UpdateVault(update)
    hour = clock.us // 3_600_000_000 % 24
    condition = f'resource.labels.tier == "gold" && request.time.getHours() == {hour}'
    binding = bind("vaults/b", "crypto-user", TESTER, condition=condition)
    await change(fresh, "/", lambda p: p.bindings.append(binding))
    request = crypto_pb2.GenerateRandomBytesRequest(parent="vaults/b", length_bytes=8)
    client = fresh.server.client("tester")
    assert (await call(client, f"{CRYPTO}GenerateRandomBytes", request)).code is OK
    clock.advance(3600)
    assert (await call(client, f"{CRYPTO}GenerateRandomBytes", request)).code is PERMISSION_DENIED


async def test_a_deny_whose_condition_fails_applies_over_the_wire(fresh):
    def edit(policy):
        policy.bindings.append(bind("vaults/b", "crypto-user", TESTER))
        policy.denies.append(deny("vaults/b/keys/enc", "crypto.encrypt", TESTER, condition="claims.level == 1"))

    await change(fresh, "/", edit)
    assert not await may_encrypt(fresh, "tester", "vaults/b/keys/enc")


# -- testing ------------------------------------------------------------------------------------------------------------


async def ask(world, client: str, resource: str, *permissions: str, **more: Any) -> Any:
    request = policy_pb2.TestPolicyRequest(resource=resource, permissions=permissions, **more)
    return await call(world.server.client(client), TEST, request)


async def test_anybody_may_ask_what_they_hold_and_learns_no_reasons(world):
    found = (await ask(world, "friend", "vaults/b/keys/sign", "crypto.sign", "crypto.encrypt")).message()
    assert list(found.permissions) == ["crypto.sign"]
    assert not found.decisions
    assert not (await ask(world, "stranger", "/", "keys.get", "policy.get")).message().permissions


@pytest.mark.parametrize(
    "more",
    [{"principal": ROOT}, {"principal": f"{SPIFFE}/stranger"}, {"policy": policy_pb2.Policy()}],
    ids=["somebody", "oneself-by-name", "candidate"],
)
async def test_asking_for_others_or_for_another_policy_needs_the_permission(world, more):
    assert (await ask(world, "stranger", "vaults/a", "keys.get", **more)).code is PERMISSION_DENIED


async def test_a_vault_operator_asks_for_others_in_its_vault_only(world):
    assert (await ask(world, "owner", "vaults/a/keys/enc", "keys.get", principal=AUDITOR)).message().permissions
    assert (await ask(world, "owner", "vaults/b/keys/enc", "keys.get", principal=AUDITOR)).code is PERMISSION_DENIED
    policy = policy_pb2.Policy()
    for part in ("", "/", "vaults/b"):
        outcome = await ask(world, "owner", "vaults/a", "keys.get", policy=policy, policy_resource=part)
        assert outcome.code is PERMISSION_DENIED, part
    outcome = await ask(world, "owner", "vaults/a", "keys.get", policy=policy, policy_resource="vaults/a")
    assert not outcome.message().permissions


async def test_an_answer_about_others_says_why(world):
    found = (await ask(world, "auditor", "vaults/a/keys/kept", "keys.purge", "keys.get", principal=OWNER)).message()
    assert [(d.permission, d.allowed, d.reason) for d in found.decisions] == [
        ("keys.purge", False, "denies[0] on vaults/a/keys/kept"),
        ("keys.get", True, "bindings[0] gives vault-operator on vaults/a"),
    ]


async def test_a_candidate_is_asked_with_given_circumstances_and_changes_nothing(world):
    condition = 'claims.team == "a" && resource.labels.env == "dev" && request.time.getHours() == 3'
    policy = policy_pb2.Policy(bindings=[bind("vaults/a", "signer", TESTER, condition=condition)])
    circumstances = policy_pb2.Circumstances(claims='{"team": "a"}', labels={"env": "dev"})
    circumstances.time.FromJsonString("2027-01-01T03:30:00Z")
    before = await read(world, "/")
    given = {"principal": TESTER, "policy": policy, "policy_resource": "vaults/a"}
    asked = ("admin", "vaults/a/keys/sign", "crypto.sign")
    held = (await ask(world, *asked, **given, circumstances=circumstances)).message()
    assert list(held.permissions) == ["crypto.sign"]
    circumstances.time.FromJsonString("2027-01-01T04:30:00Z")
    assert not (await ask(world, *asked, **given, circumstances=circumstances)).message().permissions
    assert await read(world, "/") == before


async def test_a_method_stands_for_the_permissions_that_it_needs(world):
    circumstances = policy_pb2.Circumstances(method="ReEncrypt")
    found = (await ask(world, "admin", "vaults/a/keys/enc", principal=ROOT, circumstances=circumstances)).message()
    assert list(found.permissions) == ["crypto.reencrypt_from", "crypto.reencrypt_to"]


async def test_a_candidate_cannot_be_made_to_tell_a_keys_labels(world):
    policy = policy_pb2.Policy(bindings=[bind("vaults/a", "signer", TESTER, condition='resource.labels.env == "dev"')])
    given = {"principal": TESTER, "policy": policy, "policy_resource": "vaults/a"}
    assert not (await ask(world, "owner", "vaults/a/keys/sign", "crypto.sign", **given)).message().permissions


@pytest.mark.parametrize(
    ("request_fields", "reason"),
    [
        ({"permissions": []}, "INPUT_MISSING"),
        (
            {"permissions": [], "principal": ROOT, "circumstances": policy_pb2.Circumstances(method="CANARY")},
            "METHOD_NAME",
        ),
        ({"permissions": ["CANARY"]}, "PERMISSION_UNKNOWN"),
        ({"permissions": ["keys.get"] * 101}, "PERMISSION_UNKNOWN"),
        ({"resource": ""}, "INVALID_NAME"),
        ({"resource": "vaults/a/keys/K"}, "INVALID_NAME"),
        ({"policy": policy_pb2.Policy(), "policy_resource": "vaults"}, "INVALID_NAME"),
        ({"policy": policy_pb2.Policy(bindings=[bind("/", "CANARY", ROOT)])}, "POLICY_INVALID"),
        ({"principal": ROOT, "circumstances": policy_pb2.Circumstances(claims="CANARY")}, "CLAIMS"),
        ({"principal": ROOT, "circumstances": policy_pb2.Circumstances(claims="[]")}, "CLAIMS"),
        ({"principal": ROOT, "circumstances": policy_pb2.Circumstances(claims="x" * 16_385)}, "FIELD_SIZE"),
        ({"principal": ROOT, "circumstances": policy_pb2.Circumstances(method="x" * 257)}, "FIELD_SIZE"),
        ({"principal": ROOT, "circumstances": policy_pb2.Circumstances(labels={"A": "b"})}, "LABELS"),
        ({"circumstances": policy_pb2.Circumstances(claims="{}")}, "INPUT_UNEXPECTED"),
    ],
)
async def test_a_faulty_test_is_refused_with_its_reason(world, request_fields, reason):
    fields = {"resource": "vaults/a", "permissions": ["keys.get"], **request_fields}
    outcome = await call(world.admin, TEST, policy_pb2.TestPolicyRequest(**fields))
    assert (outcome.code, outcome.reason) == (INVALID_ARGUMENT, reason)
    assert b"CANARY" not in outcome.seen()


# -- explaining ---------------------------------------------------------------------------------------------------------


async def explain(world, client: str, **fields: Any) -> Any:
    return await call(world.server.client(client), EXPLAIN, policy_pb2.ExplainAccessRequest(**fields))


async def test_an_allowed_call_is_explained_by_its_binding_and_the_keys_state(world):
    found = (await explain(world, "admin", principal=FRIEND, method="Sign", resource="vaults/b/keys/sign")).message()
    assert found.allowed
    assert found.decisions[0].reason == "bindings[2] gives signer on vaults/b/keys/sign"
    assert found.key_state == "ACTIVE, version 1 ENABLED"
    assert not found.missing_permissions
    assert not found.advice


async def test_a_missing_permission_is_named_with_the_roles_that_have_it(world):
    method = "/vaultd.v1.CryptoService/Encrypt"
    found = (await explain(world, "admin", principal=FRIEND, method=method, resource="vaults/b/keys/enc")).message()
    assert not found.allowed
    assert list(found.missing_permissions) == ["crypto.encrypt"]
    assert list(found.roles) == ["admin", "crypto-user", "encrypter"]
    assert any("crypto-user" in advice for advice in found.advice)


async def test_a_deny_is_named_as_what_decides(world):
    request = {"principal": OWNER, "method": "PurgeKey", "resource": "vaults/a/keys/kept"}
    found = (await explain(world, "auditor", **request)).message()
    assert found.decisions[0].reason == "denies[0] on vaults/a/keys/kept"
    assert any("denies[0]" in advice for advice in found.advice)


async def test_a_condition_that_would_allow_is_told(fresh):
    condition = 'resource.labels.env == "prod"'
    await change(fresh, "/", lambda p: p.bindings.append(bind("vaults/b", "signer", TESTER, condition=condition)))
    request = {"principal": TESTER, "method": "Sign", "resource": "vaults/b/keys/sign"}
    found = (await explain(fresh, "admin", **request)).message()
    assert not found.allowed
    assert any(condition in advice for advice in found.advice)
    labels = policy_pb2.Circumstances(labels={"env": "prod"})
    assert (await explain(fresh, "admin", **request, circumstances=labels)).message().allowed


async def test_the_state_of_the_key_is_told_to_those_who_may_look_at_it(fresh):
    name = await fresh.fresh_key("a")
    await fresh.admin.keys.DisableKeyVersion(keys_pb2.DisableKeyVersionRequest(name=f"{name}/versions/1"))
    request = {"principal": ROOT, "method": "Encrypt", "resource": name}
    assert (await explain(fresh, "owner", **request)).message().key_state.startswith("KEY_VERSION_DISABLED: ")
    reader = policy_pb2.Role(name="reader", permissions=["policy.get"])

    def edit(policy):
        policy.roles.append(reader)
        policy.bindings.append(bind("vaults/a", "reader", TESTER))

    await change(fresh, "/", edit)
    assert (await explain(fresh, "tester", **request)).message().key_state == ""


@pytest.mark.parametrize("method", ["Init", "/vaultd.v1.AdminService/Unseal"])
async def test_what_only_operators_may_do_is_explained(world, method):
    found = (await explain(world, "admin", principal=FRIEND, method=method, resource="/")).message()
    assert not found.allowed
    assert "operators" in found.advice[0]
    assert (await explain(world, "admin", principal=ROOT, method=method, resource="/")).message().allowed


@pytest.mark.parametrize("client", ["stranger", "friend", "owner"])
async def test_explaining_needs_the_permission_on_the_resource(world, client):
    request = {"principal": f"{SPIFFE}/{client}", "method": "Sign", "resource": "vaults/b/keys/sign"}
    assert (await explain(world, client, **request)).code is PERMISSION_DENIED


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({}, "INPUT_MISSING"),
        ({"principal": ROOT}, "INPUT_MISSING"),
        ({"principal": ROOT, "method": "Sign"}, "INPUT_MISSING"),
        ({"principal": ROOT, "method": "CANARY", "resource": "/"}, "METHOD_NAME"),
        ({"principal": ROOT, "method": "Sign", "resource": "vaults/A"}, "INVALID_NAME"),
        ({"incident_id": "x", "method": "Sign"}, "INPUT_UNEXPECTED"),
        ({"incident_id": "no id!"}, "INVALID_REQUEST_ID"),
        ({"incident_id": "x" * 65}, "INVALID_REQUEST_ID"),
    ],
)
async def test_a_faulty_question_is_refused_with_its_reason(world, fields, reason):
    outcome = await explain(world, "admin", **fields)
    assert (outcome.code, outcome.reason) == (INVALID_ARGUMENT, reason)
    assert b"CANARY" not in outcome.seen()


async def refused(world, client: str, name: str) -> Any:
    request = crypto_pb2.EncryptRequest(name=name, plaintext=b"CANARY")
    return await call(world.server.client(client), f"{CRYPTO}Encrypt", request)


async def test_ones_own_refusal_is_repeated_and_nothing_more(world):
    texts = []
    for name in ("vaults/b/keys/enc", "vaults/b/keys/unknown"):
        outcome = await refused(world, "stranger", name)
        found = (await explain(world, "stranger", incident_id=outcome.request_id)).message()
        assert list(found.refusal.resources) == [name]
        assert (found.refusal.code, found.refusal.reason) == ("PERMISSION_DENIED", "PERMISSION_DENIED")
        assert list(found.missing_permissions) == ["crypto.encrypt"]
        assert not found.decisions
        assert not found.key_state
        assert "seal-only" not in found.roles
        found.refusal.Clear()
        texts.append(str(found).replace(outcome.request_id, ""))
    assert texts[0] == texts[1]


async def test_a_disguised_refusal_does_not_tell_by_explanation_that_the_key_is_missing(fresh):
    await change(fresh, "/", lambda p: p.bindings.append(bind("vaults/b", "encrypter", TESTER)))
    outcome = await refused(fresh, "tester", "vaults/b/keys/unknown")
    assert outcome.code is PERMISSION_DENIED
    found = (await explain(fresh, "tester", incident_id=outcome.request_id)).message()
    assert not found.allowed
    assert list(found.missing_permissions) == ["crypto.encrypt"]


async def test_somebody_elses_refusal_is_as_unknown_as_none(world):
    outcome = await refused(world, "stranger", "vaults/b/keys/enc")
    seen = await explain(world, "friend", incident_id=outcome.request_id)
    none = await explain(world, "friend", incident_id="no-such-id")
    assert (seen.code, seen.reason) == (NOT_FOUND, "REFUSAL_NOT_FOUND")
    assert seen.refusal == none.refusal
    assert (await explain(world, "owner", incident_id=outcome.request_id)).code is NOT_FOUND


async def test_a_refusal_is_explained_in_full_to_those_who_read_the_policy_of_what_it_named(world):
    outcome = await refused(world, "stranger", "vaults/a/keys/enc")
    found = (await explain(world, "owner", incident_id=outcome.request_id)).message()
    assert found.refusal.principal == f"{SPIFFE}/stranger"
    assert found.decisions[0].reason == "no binding"
    assert list(found.missing_permissions) == ["crypto.encrypt"]
    assert "CANARY" not in str(found)


async def test_a_refusal_that_named_nothing_needs_the_permission_on_the_root(world):
    outcome = await call(world.server.client("stranger"), f"{ADMIN}GetStatus")
    assert (await explain(world, "owner", incident_id=outcome.request_id)).code is NOT_FOUND
    found = (await explain(world, "auditor", incident_id=outcome.request_id)).message()
    assert list(found.missing_permissions) == ["admin.get_status"]


async def test_a_refused_item_of_a_batch_can_be_asked_for(world):
    items = [crypto_pb2.EncryptRequest(name="vaults/b/keys/enc", plaintext=b"x")]
    outcome = await call(
        world.server.client("stranger"), f"{CRYPTO}BatchEncrypt", crypto_pb2.BatchEncryptRequest(items=items)
    )
    found = (await explain(world, "auditor", incident_id=outcome.request_id)).message()
    assert list(found.refusal.resources) == ["vaults/b/keys/enc"]
    assert list(found.missing_permissions) == ["crypto.encrypt"]


async def test_a_malformed_name_is_not_remembered(world):
    outcome = await refused(world, "stranger", "vaults/CANARY")
    found = (await explain(world, "stranger", incident_id=outcome.request_id)).message()
    assert found.refusal.reason == "INVALID_NAME"
    assert not found.refusal.resources


# -- reviewing ----------------------------------------------------------------------------------------------------------


async def review(world, client: str, resource: str, **fields: Any) -> Any:
    return await call(world.server.client(client), REVIEW, policy_pb2.ReviewAccessRequest(resource=resource, **fields))


def summary(found: Any) -> list[tuple[str, str, str]]:
    return [(grant.principal, grant.role, grant.bound_on) for grant in found.grants]


async def test_a_review_lists_who_has_access_above_on_and_below_a_resource(world):
    found = (await review(world, "auditor", "vaults/b")).message()
    assert summary(found) == [
        (ROOT, "admin", "/"),
        (AUDITOR, "auditor", "/"),
        (FRIEND, "signer", "vaults/b/keys/sign"),
    ]
    assert [grant.binding for grant in found.grants] == [3, 1, 2]
    assert found.grants[2].group == "group:ops"


async def test_a_review_names_the_deny_that_takes_a_permission(world):
    everything = (await review(world, "auditor", "vaults/a")).message()
    (grant,) = [grant for grant in everything.grants if grant.principal == OWNER]
    assert {use.permission: use.denied for use in grant.permissions}["keys.purge"] == ""  # the vault is wider


async def test_a_review_needs_the_permission_on_the_resource(world):
    assert (await review(world, "owner", "vaults/a/keys/enc")).code is OK
    for client, resource in (("owner", "/"), ("owner", "vaults/b"), ("stranger", "vaults/a")):
        assert (await review(world, client, resource)).code is PERMISSION_DENIED


async def test_a_use_is_seen_at_once_written_by_the_scheduler_and_found_after_a_restart(tmp_path):
    clock = FakeClock()
    policy = {"bindings": [{"members": [TESTER], "role": "signer", "resource": "vaults/default"}]}

    async def last_use(server) -> dict[str, int]:
        grants = (await review(World(server), "admin", "vaults/default")).message().grants
        (grant,) = [grant for grant in grants if grant.principal == TESTER]
        return {
            use.permission: use.last_use_time.ToMicroseconds()
            for use in grant.permissions
            if use.HasField("last_use_time")
        }

    async with running_server(tmp_path, policy=policy, clock=clock, **GENEROUS) as server:
        made = World(server)
        key = await made.create("default", "s", key_of("SIGN"))
        client = server.add_identity("tester", uri=TESTER)
        assert await last_use(server) == {}
        assert (await call(client, f"{CRYPTO}Sign", crypto_pb2.SignRequest(name=key, message=b"x"))).code is OK
        first = clock.us
        assert await last_use(server) == {"crypto.sign": first}
        await server.server.engine.scheduler.tick()
        revision = await server.server.engine.store.revision()
        clock.advance(60)
        await client.crypto.Sign(crypto_pb2.SignRequest(name=key, message=b"x"))
        await server.server.engine.scheduler.tick()
        assert await server.server.engine.store.revision() == revision  # coalesced: not older than an hour
        assert await last_use(server) == {"crypto.sign": first + 60_000_000}
    async with running_server(tmp_path, clock=clock, **GENEROUS) as server:
        assert await last_use(server) == {"crypto.sign": first + 60_000_000}
        found = (await review(World(server), "admin", "vaults/default")).message()
        assert found.observed_since.ToMicroseconds() == first


async def test_what_was_not_used_for_long_is_found(tmp_path):
    clock = FakeClock()
    policy = {"bindings": [{"members": [TESTER], "role": "signer", "resource": "vaults/default"}]}
    async with running_server(tmp_path, policy=policy, clock=clock, **GENEROUS) as server:
        made = World(server)
        key = await made.create("default", "s", key_of("SIGN"))
        client = server.add_identity("tester", uri=TESTER)
        await client.crypto.Sign(crypto_pb2.SignRequest(name=key, message=b"x"))

        async def unused(days: int) -> set[str]:
            request = policy_pb2.ReviewAccessRequest(resource="vaults/default")
            request.unused_for.FromSeconds(days * 86_400)
            grants = (await call(server.admin, REVIEW, request)).message().grants
            return {use.permission for grant in grants if grant.principal == TESTER for use in grant.permissions}

        never = {"crypto.generate_mac", "keys.get_public_key", "quotas.get_own"}
        assert await unused(30) == never
        await server.server.engine.scheduler.tick()
        clock.jump_wall(31 * 86_400)
        assert await unused(30) == {"crypto.sign", *never}
        assert await unused(90) == never


async def test_a_refused_call_and_a_test_are_no_use(fresh):
    await change(fresh, "/", lambda p: p.bindings.append(bind("vaults/b/keys/enc", "signer", TESTER)))
    await refused(fresh, "tester", "vaults/b/keys/enc")
    await ask(fresh, "tester", "vaults/b/keys/enc", "crypto.sign")
    found = (await review(fresh, "admin", "vaults/b/keys/enc")).message()
    (grant,) = [grant for grant in found.grants if grant.principal == TESTER]
    assert not any(use.HasField("last_use_time") for use in grant.permissions)


@pytest.mark.parametrize("unused", [False, True])
async def test_a_review_is_paged(world, unused):
    def page(token: str) -> policy_pb2.ReviewAccessRequest:
        request = policy_pb2.ReviewAccessRequest(resource="vaults", page_size=1, page_token=token)
        if unused:
            request.unused_for.FromSeconds(1)
        return request

    whole = page("")
    whole.page_size = 0
    expected = summary((await call(world.admin, REVIEW, whole)).message())
    seen, token = [], ""
    while True:
        found = (await call(world.admin, REVIEW, page(token))).message()
        seen += summary(found)
        token = found.next_page_token
        if not token:
            break
    assert seen == expected
    assert len(seen) == 4
    negative = policy_pb2.ReviewAccessRequest(resource="vaults")
    negative.unused_for.seconds = -1
    assert (await call(world.admin, REVIEW, negative)).reason == "DURATION_RANGE"
    other = policy_pb2.ReviewAccessRequest(resource="vaults/a", page_token="x" * 20)
    assert (await call(world.admin, REVIEW, other)).reason == "PAGE_TOKEN"
