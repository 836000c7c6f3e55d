"""Grants over real connections: what a grantee may do, how it ends, and what the audit log says of it."""

from __future__ import annotations

import asyncio

import pytest
import pytest_asyncio
from wire import (
    CRYPTO,
    GENEROUS,
    INVALID_ARGUMENT,
    KEYS,
    NOT_FOUND,
    OK,
    PERMISSION_DENIED,
    World,
    call,
    verdicts,
)

from harness import running_server
from vaultd.engine.authority import put_policy
from vaultd.engine.policy import Policy
from vaultd_client.v1 import crypto_pb2, grant_pb2, keys_pb2

pytestmark = pytest.mark.asyncio(loop_scope="module")

SPIFFE = "spiffe://dev.vaultd"
HOLDER, GRANTEE, BARRED, ONLY_GRANTER = (f"{SPIFFE}/{stem}" for stem in ("holder", "grantee", "barred", "only-granter"))
ENC = "vaults/default/keys/enc"
POLICY = {
    "bindings": [
        {"members": [HOLDER], "role": "crypto-user", "resource": "vaults/default"},
        {"members": [HOLDER, ONLY_GRANTER], "role": "granter", "resource": "vaults/default"},
        {"members": [HOLDER], "role": "granter", "resource": "vaults/other"},
    ],
    "denies": [{"members": [BARRED], "permissions": ["crypto.encrypt"], "resource": ENC}],
}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def world(tmp_path_factory):
    async with running_server(tmp_path_factory.mktemp("grants"), policy=POLICY, **GENEROUS) as server:
        made = World(server)
        await made.furnish("default")
        for stem in ("holder", "grantee", "barred", "only-granter", "stranger"):
            server.add_identity(stem, uri=f"{SPIFFE}/{stem}")
        yield made


async def grant(world, permissions="crypto.encrypt", key=ENC, *, by="holder", grantee=GRANTEE, **fields):
    made = grant_pb2.Grant(grantee=grantee, permissions=permissions.split(), **fields)
    request = grant_pb2.CreateGrantRequest(parent=key, grant=made)
    return await call(world.server.client(by), f"{KEYS}CreateGrant", request)


async def revoke(world, name, by="holder"):
    return await call(world.server.client(by), f"{KEYS}RevokeGrant", grant_pb2.RevokeGrantRequest(name=name))


async def encrypt(world, key=ENC, by="grantee"):
    request = crypto_pb2.EncryptRequest(name=key, plaintext=b"x")
    return await call(world.server.client(by), f"{CRYPTO}Encrypt", request)


@pytest.fixture
def record_of(world):
    def find(outcome, event="call"):
        records = [r for r in world.server.audit_records() if r.get("id") == outcome.request_id and r["event"] == event]
        return records[-1]

    return find


async def test_a_grantee_uses_the_key_until_the_grant_is_revoked(world, record_of):
    assert (await encrypt(world)).code is PERMISSION_DENIED
    made = (await grant(world)).message()
    used = await encrypt(world)
    assert used.code is OK
    assert record_of(used)["grant"] == made.name
    assert (await revoke(world, made.name)).code is OK
    refused = await encrypt(world)
    assert refused.code is PERMISSION_DENIED
    assert "grant" not in record_of(refused)


async def test_the_answer_says_all_of_the_grant(world):
    made = (await grant(world, "crypto.sign crypto.encrypt", max_uses=7)).message()
    assert made.name.startswith(f"{ENC}/grants/")
    assert (made.granter, made.grantee) == (HOLDER, GRANTEE)
    assert list(made.permissions) == ["crypto.encrypt", "crypto.sign"]
    assert (made.max_uses, made.uses_left) == (7, 7)
    assert made.expire_time.seconds - made.create_time.seconds == 30 * 86_400
    got = await call(world.server.client("holder"), f"{KEYS}GetGrant", grant_pb2.GetGrantRequest(name=made.name))
    assert got.message() == made
    await revoke(world, made.name)


async def test_creation_and_revocation_are_recorded_with_what_was_given_to_whom(world, record_of):
    outcome = await grant(world, "crypto.sign crypto.decrypt")
    for event in ("intent", "call"):
        record = record_of(outcome, event)
        assert record["parent"] == ENC
        assert record["grant.grantee"] == GRANTEE
        assert record["grant.permissions"] == ["crypto.sign", "crypto.decrypt"]
    name = outcome.message().name
    revoked = await revoke(world, name)
    assert record_of(revoked, "intent")["name"] == name


async def test_a_deny_on_the_grantee_wins(world):
    made = (await grant(world, grantee=BARRED)).message()
    assert (await encrypt(world, by="barred")).code is PERMISSION_DENIED
    await revoke(world, made.name)


async def test_a_refused_grantee_sees_what_a_stranger_sees(world):
    made = (await grant(world, max_uses=1)).message()
    assert (await encrypt(world)).code is OK
    used_up, stranger = await encrypt(world), await encrypt(world, by="stranger")
    assert used_up.refusal == stranger.refusal
    assert (await encrypt(world, key="vaults/default/keys/no-such")).refusal == stranger.refusal
    await revoke(world, made.name)


async def test_a_version_that_does_not_exist_looks_forbidden_to_a_grantee(world):
    made = (await grant(world)).message()
    outcome = await encrypt(world, key=f"{ENC}/versions/9")
    assert (outcome.code, outcome.reason) == (PERMISSION_DENIED, "PERMISSION_DENIED")
    assert (await encrypt(world, key=f"{ENC}/versions/1")).code is OK
    await revoke(world, made.name)


async def test_a_grant_gives_only_what_it_names(world):
    made = (await grant(world, "crypto.encrypt")).message()
    client = world.server.client("grantee")
    decrypt = crypto_pb2.DecryptRequest(name=ENC, ciphertext=world.sealed["default"])
    assert (await call(client, f"{CRYPTO}Decrypt", decrypt)).code is PERMISSION_DENIED
    for path in (f"{KEYS}GetKey", f"{KEYS}GetGrant", f"{KEYS}ListGrants", f"{KEYS}CreateGrant", f"{KEYS}RevokeGrant"):
        assert (await call(client, path, await world.kept_request(path))).code is PERMISSION_DENIED
    random = crypto_pb2.GenerateRandomBytesRequest(parent="vaults/default", length_bytes=8)
    assert (await call(client, f"{CRYPTO}GenerateRandomBytes", random)).code is PERMISSION_DENIED
    await revoke(world, made.name)


async def test_a_public_key_can_be_granted(world):
    name = "vaults/default/keys/sign"
    made = (await grant(world, "keys.get_public_key", name)).message()
    outcome = await call(world.server.client("grantee"), f"{KEYS}GetPublicKey", keys_pb2.GetPublicKeyRequest(name=name))
    assert outcome.code is OK
    await revoke(world, made.name)


async def test_whoever_may_grant_still_grants_only_what_they_hold(world):
    refused = await grant(world, by="only-granter")
    assert (refused.code, refused.reason) == (PERMISSION_DENIED, "GRANT_EXCEEDS_RIGHTS")


async def test_a_grantee_cannot_grant_on_even_when_allowed_to_grant(world):
    made = (await grant(world, grantee=ONLY_GRANTER)).message()
    assert (await encrypt(world, by="only-granter")).code is OK
    assert (await grant(world, by="only-granter")).reason == "GRANT_EXCEEDS_RIGHTS"
    await revoke(world, made.name)


@pytest.mark.parametrize("permission", ["keys.grant", "keys.purge", "crypto.generate_random", "admin.seal", "crypto.*"])
async def test_nothing_but_use_can_be_granted_even_by_an_administrator(world, permission):
    refused = await grant(world, permission, by="admin")
    assert (refused.code, refused.reason) == (INVALID_ARGUMENT, "PERMISSION_NOT_GRANTABLE")
    assert refused.fields == ["grant.permissions"]


@pytest.mark.parametrize("grantee", ["", "group:ops", "admin", "spiffe://Dev.vaultd/x", "spiffe://dev.vaultd/../x"])
async def test_a_grantee_has_its_one_spelling(world, grantee):
    refused = await grant(world, grantee=grantee)
    assert (refused.code, refused.reason, refused.fields) == (INVALID_ARGUMENT, "INVALID_PRINCIPAL", ["grant.grantee"])


async def test_a_caller_cannot_grant_to_itself(world):
    assert (await grant(world, grantee=HOLDER)).reason == "GRANTEE_INVALID"


@pytest.mark.parametrize(("uses", "code"), [(-1, INVALID_ARGUMENT), (10**12, OK), (10**12 + 1, INVALID_ARGUMENT)])
async def test_a_number_of_uses_keeps_to_its_range(world, uses, code):
    outcome = await grant(world, max_uses=uses)
    assert outcome.code is code
    if code is OK:
        await revoke(world, outcome.message().name)


@pytest.mark.parametrize(("count", "code"), [(32, INVALID_ARGUMENT), (0, INVALID_ARGUMENT)])
async def test_a_permission_is_granted_once(world, count, code):
    assert (await grant(world, " ".join(["crypto.sign"] * count))).code is code


# -- uses ---------------------------------------------------------------------------------------------------------------


async def test_each_item_of_a_batch_is_a_use_and_items_beyond_the_count_fail_alone(world, record_of):
    made = (await grant(world, max_uses=3)).message()
    item = crypto_pb2.EncryptRequest(name=ENC, plaintext=b"x")
    batch = crypto_pb2.BatchEncryptRequest(items=[item] * 5)
    outcome = await call(world.server.client("grantee"), f"{CRYPTO}BatchEncrypt", batch)
    kinds = [result.WhichOneof("outcome") for result in outcome.message().results]
    assert kinds == ["result"] * 3 + ["status"] * 2
    assert verdicts(outcome) == {(OK, ""), (PERMISSION_DENIED, "PERMISSION_DENIED")}
    record = record_of(outcome)
    assert record["grant"] == {made.name: 3}
    assert record["failures"] == {"PERMISSION_DENIED": [3, 4]}
    await revoke(world, made.name)


async def test_an_item_that_is_not_valid_is_no_use(world):
    made = (await grant(world, max_uses=2)).message()
    good = crypto_pb2.EncryptRequest(name=ENC, plaintext=b"x")
    bad = crypto_pb2.EncryptRequest(name=ENC, plaintext=b"x" * (64 * 1024 + 1))
    batch = crypto_pb2.BatchEncryptRequest(items=[bad, good, bad, good])
    outcome = await call(world.server.client("grantee"), f"{CRYPTO}BatchEncrypt", batch)
    kinds = [result.WhichOneof("outcome") for result in outcome.message().results]
    assert kinds == ["status", "result", "status", "result"]
    await revoke(world, made.name)


async def test_a_batch_of_granted_and_other_keys_decides_each_item(world):
    made = (await grant(world)).message()
    items = [crypto_pb2.EncryptRequest(name=f"vaults/default/keys/{key}", plaintext=b"x") for key in ("enc", "det")]
    batch = crypto_pb2.BatchEncryptRequest(items=items)
    outcome = await call(world.server.client("grantee"), f"{CRYPTO}BatchEncrypt", batch)
    assert [result.WhichOneof("outcome") for result in outcome.message().results] == ["result", "status"]
    await revoke(world, made.name)


async def test_each_data_key_is_a_use(world):
    made = (await grant(world, "crypto.generate_data_key", max_uses=5)).message()
    request = crypto_pb2.GenerateDataKeyRequest(name=ENC, count=4)
    client = world.server.client("grantee")
    assert (await call(client, f"{CRYPTO}GenerateDataKey", request)).code is OK
    assert (await call(client, f"{CRYPTO}GenerateDataKey", request)).code is PERMISSION_DENIED
    request.count = 1
    assert (await call(client, f"{CRYPTO}GenerateDataKey", request)).code is OK
    await revoke(world, made.name)


@pytest.mark.parametrize("given", ["crypto.reencrypt_from", "crypto.reencrypt_to"])
async def test_a_grant_of_one_side_of_reencryption_is_not_enough(world, given):
    made = (await grant(world, given)).message()
    request = world.crypto_request("ReEncrypt")
    outcome = await call(world.server.client("grantee"), f"{CRYPTO}ReEncrypt", request)
    assert outcome.code is PERMISSION_DENIED
    await revoke(world, made.name)


async def test_two_grants_may_give_the_two_sides_of_reencryption(world, record_of):
    made = [(await grant(world, f"crypto.reencrypt_{side}")).message().name for side in ("from", "to")]
    outcome = await call(world.server.client("grantee"), f"{CRYPTO}ReEncrypt", world.crypto_request("ReEncrypt"))
    assert outcome.code is OK
    assert record_of(outcome)["grant"] == made
    for name in made:
        await revoke(world, name)


async def test_one_grant_of_both_sides_is_used_once_for_one_reencryption(world):
    made = (await grant(world, "crypto.reencrypt_from crypto.reencrypt_to", max_uses=2)).message()
    client = world.server.client("grantee")
    codes = [(await call(client, f"{CRYPTO}ReEncrypt", world.crypto_request("ReEncrypt"))).code for _ in range(3)]
    assert codes == [OK, OK, PERMISSION_DENIED]
    await revoke(world, made.name)


async def test_concurrent_calls_share_the_uses_there_are(world):
    made = (await grant(world, max_uses=10)).message()
    outcomes = await asyncio.gather(*(encrypt(world) for _ in range(25)))
    assert sorted(outcome.code is OK for outcome in outcomes) == [False] * 15 + [True] * 10
    await revoke(world, made.name)


async def test_a_holder_of_the_permission_spends_nothing(world):
    made = (await grant(world, grantee=f"{SPIFFE}/admin", max_uses=1)).message()
    outcome = await encrypt(world, by="admin")
    assert outcome.code is OK
    got = await call(world.server.client("holder"), f"{KEYS}GetGrant", grant_pb2.GetGrantRequest(name=made.name))
    assert got.message().uses_left == 1
    await revoke(world, made.name)


# -- ends ---------------------------------------------------------------------------------------------------------------


async def test_a_grant_of_a_granter_who_lost_the_right_gives_nothing(tmp_path):
    async with running_server(tmp_path, policy=POLICY, **GENEROUS) as server:
        own = World(server)
        await own.furnish("default")
        for stem in ("holder", "grantee"):
            server.add_identity(stem, uri=f"{SPIFFE}/{stem}")
        await grant(own)
        assert (await encrypt(own)).code is OK
        engine = server.server.engine
        async with engine.ledger.change() as changes:
            await put_policy(changes, Policy.parse({"bindings": [POLICY["bindings"][1]]}))
        await engine.authority.reload()
        assert (await encrypt(own)).code is PERMISSION_DENIED


async def test_a_revoked_grant_ends_on_another_server_of_the_same_store(tmp_path):
    second = {"audit": {"directory": tmp_path / "audit-2"}}
    async with (
        running_server(tmp_path, policy=POLICY, **GENEROUS) as one,
        running_server(tmp_path, policy=POLICY, **GENEROUS, **second) as two,
    ):
        first, other = World(one), World(two)
        await first.furnish("default")
        for server in (one, two):
            for stem in ("holder", "grantee"):
                server.add_identity(stem, uri=f"{SPIFFE}/{stem}")
        made = (await grant(first)).message()
        await two.server.engine.feed.poll()
        assert (await encrypt(other)).code is OK
        await revoke(first, made.name)
        await two.server.engine.feed.poll()
        assert (await encrypt(other)).code is PERMISSION_DENIED


async def test_a_grant_is_there_after_a_restart_with_the_uses_that_are_left(tmp_path):
    async with running_server(tmp_path, policy=POLICY, **GENEROUS) as server:
        own = World(server)
        await own.furnish("default")
        for stem in ("holder", "grantee"):
            server.add_identity(stem, uri=f"{SPIFFE}/{stem}")
        await grant(own, max_uses=40)
        await encrypt(own)
    async with running_server(tmp_path, policy=POLICY, **GENEROUS) as server:
        again = World(server)
        item = crypto_pb2.EncryptRequest(name=ENC, plaintext=b"x")
        batch = crypto_pb2.BatchEncryptRequest(items=[item] * 50)
        results = (await call(again.server.client("grantee"), f"{CRYPTO}BatchEncrypt", batch)).message().results
        assert [result.WhichOneof("outcome") for result in results].count("result") == 39


# -- looking ------------------------------------------------------------------------------------------------------------


async def test_grants_are_listed_page_by_page_by_key_and_by_grantee(world):
    key = await world.fresh_key("default", "enc")
    made = [(await grant(world, key=key)).message().name for _ in range(3)]
    made += [(await grant(world, key=key, grantee=BARRED)).message().name]
    client = world.server.client("holder")

    async def pages(**fields):
        found, token = [], ""
        while True:
            request = grant_pb2.ListGrantsRequest(page_size=2, page_token=token, **fields)
            answer = (await call(client, f"{KEYS}ListGrants", request)).message()
            found += [one.name for one in answer.grants]
            token = answer.next_page_token
            if not token:
                return found

    assert await pages(parent=key) == sorted(made)
    assert set(made) <= set(await pages(parent="vaults/default"))
    assert await pages(parent=key, grantee=BARRED) == made[3:]
    assert await pages(parent="vaults/default", grantee=BARRED) == made[3:]


async def test_a_page_token_is_of_one_parent_and_one_grantee(world):
    key = await world.fresh_key("default", "enc")
    for _ in range(2):
        await grant(world, key=key)
    client = world.server.client("holder")
    first = grant_pb2.ListGrantsRequest(parent=key, page_size=1)
    token = (await call(client, f"{KEYS}ListGrants", first)).message().next_page_token
    assert token
    for fields in ({"parent": "vaults/default"}, {"parent": key, "grantee": GRANTEE}):
        outcome = await call(client, f"{KEYS}ListGrants", grant_pb2.ListGrantsRequest(page_token=token, **fields))
        assert outcome.reason == "PAGE_TOKEN"


async def test_a_grant_that_is_gone_is_not_found_for_who_may_look(world):
    made = (await grant(world)).message()
    await revoke(world, made.name)
    again = await revoke(world, made.name)
    assert (again.code, again.reason) == (NOT_FOUND, "GRANT_NOT_FOUND")
    elsewhere = await revoke(world, made.name.replace("keys/enc", "keys/no-such"))
    assert again.refusal == elsewhere.refusal


@pytest.mark.parametrize("name", ["", ENC, f"{ENC}/grants", f"{ENC}/grants/", f"{ENC}/grants/A", f"{ENC}/versions/1"])
async def test_a_nasty_grant_name_is_refused(world, name):
    for method, make in (("GetGrant", grant_pb2.GetGrantRequest), ("RevokeGrant", grant_pb2.RevokeGrantRequest)):
        outcome = await call(world.admin, f"{KEYS}{method}", make(name=name))
        assert (outcome.code, outcome.reason, outcome.fields) == (INVALID_ARGUMENT, "INVALID_NAME", ["name"])


async def test_a_batch_far_beyond_the_count_is_answered_item_by_item(world):
    made = (await grant(world, max_uses=2_000)).message()
    item = crypto_pb2.EncryptRequest(name=ENC, plaintext=b"x")
    batch = crypto_pb2.BatchEncryptRequest(items=[item] * 10_000)
    results = (await call(world.server.client("grantee"), f"{CRYPTO}BatchEncrypt", batch)).message().results
    given = [result.WhichOneof("outcome") == "result" for result in results]
    assert given == [True] * 2_000 + [False] * 8_000
    await revoke(world, made.name)
