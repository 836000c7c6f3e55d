"""SecretsService over real connections: what the wire adds to the engine's rules."""

from __future__ import annotations

import asyncio

import pytest
import pytest_asyncio
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from cryptography.hazmat.primitives.hpke import AEAD, KDF, KEM, Suite
from google.protobuf import field_mask_pb2
from wire import (
    BATCHES,
    GENEROUS,
    INVALID_ARGUMENT,
    METHODS,
    NOT_FOUND,
    OK,
    PERMISSION_DENIED,
    SECRETS,
    World,
    call,
    reason_in,
    verdicts,
)

from harness import ADMIN, running_server
from vaultd.interceptors.validate import crc32c
from vaultd_client.v1 import approval_pb2, policy_pb2, quota_pb2
from vaultd_client.v1 import secrets_pb2 as pb

pytestmark = pytest.mark.asyncio(loop_scope="module")

SPIFFE = "spiffe://dev.vaultd"
VAULT = "vaults/default"
POLICY = {
    "roles": [{"name": "blind-reader", "permissions": ["secrets.access"]}],
    "bindings": [
        {"members": [f"{SPIFFE}/reader"], "role": "secret-reader", "resource": f"{VAULT}/secrets/mine"},
        {"members": [f"{SPIFFE}/blind"], "role": "blind-reader", "resource": f"{VAULT}"},
        {"members": [f"{SPIFFE}/writer"], "role": "secret-writer", "resource": VAULT},
        {
            "members": [f"{SPIFFE}/labelled"],
            "role": "secret-reader",
            "resource": VAULT,
            "condition": 'resource.labels.team == "a"',
        },
    ],
    "denies": [
        {"members": [f"{SPIFFE}/blind"], "permissions": ["secrets.access"], "resource": f"{VAULT}/secrets/forbidden"}
    ],
}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def world(tmp_path_factory):
    async with running_server(tmp_path_factory.mktemp("secrets"), policy=POLICY, **GENEROUS) as server:
        for stem in ("reader", "blind", "writer", "labelled", "stranger"):
            server.add_identity(stem, uri=f"{SPIFFE}/{stem}")
        made = World(server)
        await made.create_secret("default", "shown")
        await made.create_secret("default", "mine")
        await made.create_secret("default", "forbidden")
        yield made


async def access(world, name: str, client=None, **fields):
    return await call(
        client or world.admin, f"{SECRETS}AccessSecretVersion", pb.AccessSecretVersionRequest(name=name, **fields)
    )


async def add(world, name: str, payload: bytes, **fields):
    return (
        await call(
            world.admin,
            f"{SECRETS}AddSecretVersion",
            pb.AddSecretVersionRequest(parent=name, payload=payload, **fields),
        )
    ).message()


def records(world, method: str) -> list[dict]:
    return [r for r in world.server.audit_records() if r.get("method") == f"{SECRETS}{method}"]


# -- what goes in comes out ---------------------------------------------------------------------------------------------


async def test_a_payload_comes_back_with_all_that_was_said_of_it(world):
    request = pb.CreateSecretRequest(parent=VAULT, secret_id=world.fresh_id(), payload=b'{"user": "a"}')
    request.content_type = "application/json"
    request.version_metadata.update({"user": "a", "hosts": ["x", "y"], "port": 5432, "tls": True, "note": None})
    request.expire_time.FromMicroseconds(4_000_000_000_000_001)
    request.secret.metadata.update({"runbook": {"page": 7}})
    secret = (await call(world.admin, f"{SECRETS}CreateSecret", request)).message()
    answer = (await access(world, secret.name)).message()
    assert (answer.payload, answer.content_type) == (request.payload, "application/json")
    assert (answer.metadata, answer.expire_time) == (request.version_metadata, request.expire_time)
    assert answer.version == f"{secret.name}/versions/1" == secret.current_version
    assert answer.payload_crc32c == crc32c(answer.payload)
    shown = (await call(world.admin, f"{SECRETS}GetSecret", pb.GetSecretRequest(name=secret.name))).message()
    assert shown == secret
    assert shown.metadata == request.secret.metadata


async def test_the_largest_payload_passes_and_one_byte_more_is_told_what_to_do(world):
    name = await world.create_secret("default", world.fresh_id())
    added = await add(world, name, bytes(65_536))
    assert (await access(world, added.version)).message().payload == bytes(65_536)
    request = pb.AddSecretVersionRequest(parent=name, payload=bytes(65_537))
    outcome = await call(world.admin, f"{SECRETS}AddSecretVersion", request)
    assert (outcome.code, outcome.reason, outcome.fields) == (INVALID_ARGUMENT, "PAYLOAD_TOO_LARGE", ["payload"])
    assert "envelope encryption" in outcome.text


async def test_an_answer_that_the_caller_has_carries_no_payload(world):
    name = await world.create_secret("default", world.fresh_id())
    had = (await access(world, name)).message().version
    answer = (await access(world, name, if_version_not=had)).message()
    assert (answer.not_modified, answer.version, answer.payload) == (True, had, b"")
    assert not answer.HasField("payload_crc32c")
    await add(world, name, b"another")
    answer = (await access(world, name, if_version_not=had)).message()
    assert (answer.not_modified, answer.payload) == (False, b"another")


@pytest.mark.parametrize("had", ["7", "vaults/default/secrets/mine", "vaults/default/secrets/mine/versions/latest"])
async def test_what_the_caller_has_is_named_in_full(world, had):
    outcome = await access(world, f"{VAULT}/secrets/mine", if_version_not=had)
    assert (outcome.code, outcome.fields) == (INVALID_ARGUMENT, ["if_version_not"])


def opened(answer, key: X25519PrivateKey, name: str, context: bytes) -> bytes:
    """As docs/secrets.md has it."""
    parts = (b"vaultd secret delivery v1", name.encode(), answer.version.encode(), context)
    info = b"".join(len(part).to_bytes(4, "big") + part for part in parts)
    return Suite(KEM.X25519, KDF.HKDF_SHA256, AEAD.AES_256_GCM).decrypt(answer.sealed_payload, key, info)


@pytest.mark.parametrize("context", [b"", b"deploy 7f3a"])
async def test_a_sealed_payload_is_for_the_recipient_alone(world, context):
    name, key = f"{VAULT}/secrets/mine/versions/latest", X25519PrivateKey.generate()
    fields = {"recipient_public_key": key.public_key().public_bytes_raw(), "recipient_context": context}
    answers = [(await access(world, name, **fields)).message() for _ in range(2)]
    assert [opened(answer, key, name, context) for answer in answers] == [b"a payload"] * 2
    assert answers[0].sealed_payload != answers[1].sealed_payload
    for answer in answers:
        assert (answer.payload, answer.HasField("payload_crc32c")) == (b"", False)
        assert answer.sealed_payload_crc32c == crc32c(answer.sealed_payload)


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"recipient_public_key": bytes(31)}, "FIELD_SIZE"),
        ({"recipient_public_key": bytes(33)}, "FIELD_SIZE"),
        ({"recipient_public_key": bytes(32)}, "PUBLIC_KEY"),
        ({"recipient_context": b"alone"}, "RECIPIENT_MISSING"),
    ],
)
async def test_a_recipient_that_is_none_is_refused(world, fields, reason):
    outcome = await access(world, f"{VAULT}/secrets/mine", **fields)
    assert (outcome.code, outcome.reason) == (INVALID_ARGUMENT, reason)


# -- batches ------------------------------------------------------------------------------------------------------------


async def test_each_item_of_a_batch_is_answered_by_itself(world):
    name, key = await world.create_secret("default", world.fresh_id()), X25519PrivateKey.generate()
    await add(world, name, b"two")
    public = key.public_key().public_bytes_raw()
    items = [
        pb.AccessSecretVersionRequest(name=name),
        pb.AccessSecretVersionRequest(name=f"{name}/versions/9"),
        pb.AccessSecretVersionRequest(name=name, recipient_public_key=public),
        pb.AccessSecretVersionRequest(name=name, if_version_not=f"{name}/versions/2"),
        pb.AccessSecretVersionRequest(name=name, recipient_public_key=b"short"),
        pb.AccessSecretVersionRequest(name=name, recipient_public_key=bytes(32)),
        pb.AccessSecretVersionRequest(name=f"{name}/versions/1"),
    ]
    batch = pb.BatchAccessSecretVersionsRequest(items=items)
    answer = (await call(world.admin, f"{SECRETS}BatchAccessSecretVersions", batch)).message()
    told = [
        result.result.payload if result.HasField("result") else reason_in(result.status) for result in answer.results
    ]
    assert told == [b"two", "SECRET_VERSION_NOT_FOUND", b"", b"", "FIELD_SIZE", "PUBLIC_KEY", b"a payload"]
    assert opened(answer.results[2].result, key, name, b"") == b"two"
    assert answer.results[3].result.not_modified


async def test_a_batch_opens_no_more_than_an_answer_holds(world):
    name = await world.create_secret("default", world.fresh_id(), bytes(65_536))
    batch = pb.BatchAccessSecretVersionsRequest(items=[pb.AccessSecretVersionRequest(name=name)] * 200)
    outcome = await call(world.admin, f"{SECRETS}BatchAccessSecretVersions", batch)
    results = outcome.message().results
    full = [result for result in results if result.HasField("result")]
    assert 60 <= len(full) <= 64
    assert {reason_in(result.status) for result in results if result.HasField("status")} == {"ANSWER_TOO_LARGE"}


async def test_one_record_stands_for_a_batch_and_names_what_was_given_out(world):
    name = await world.create_secret("default", world.fresh_id())
    batch = pb.BatchAccessSecretVersionsRequest(items=[pb.AccessSecretVersionRequest(name=name)] * 3)
    await call(world.admin, f"{SECRETS}BatchAccessSecretVersions", batch)
    record = records(world, "BatchAccessSecretVersions")[-1]
    assert (record["name"], record["version"], record["items"]) == ({name: 3}, {f"{name}/versions/1": 3}, 3)


async def test_the_record_of_an_access_names_the_version_that_an_alias_meant(world):
    name = await world.create_secret("default", world.fresh_id())
    await access(world, f"{name}/versions/latest")
    record = records(world, "AccessSecretVersion")[-1]
    assert (record["name"], record["version"]) == (f"{name}/versions/latest", f"{name}/versions/1")


# -- who may ------------------------------------------------------------------------------------------------------------


async def test_a_reader_of_one_secret_reads_that_one(world):
    reader = world.server.client("reader")
    other = await world.create_secret("default", world.fresh_id())
    assert (await access(world, f"{VAULT}/secrets/mine", reader)).code is OK
    assert (await access(world, f"{VAULT}/secrets/mine/versions/1", reader)).code is OK
    assert (await access(world, other, reader)).code is PERMISSION_DENIED


async def test_unknown_and_forbidden_look_the_same_to_who_may_not_look(world):
    blind = world.server.client("blind")
    names = [f"{VAULT}/secrets/{id}" for id in ("forbidden", "unknown")]
    refusals = {(await access(world, name, blind)).refusal for name in names}
    assert len(refusals) == 1
    batch = pb.BatchAccessSecretVersionsRequest(items=[pb.AccessSecretVersionRequest(name=name) for name in names])
    one, two = (await call(blind, f"{SECRETS}BatchAccessSecretVersions", batch)).message().results
    assert one.status.code == PERMISSION_DENIED.value[0]
    assert one.status == two.status
    outcome = await access(world, names[1])
    assert (outcome.code, outcome.reason) == (NOT_FOUND, "SECRET_NOT_FOUND")


async def secrets_in_each_state(world) -> list[str]:
    """A secret in each state that a secret or its version can be in, and a name that no secret has."""
    active, disabled, destroyed, deleted, purged = [
        await world.create_secret("default", world.fresh_id()) for _ in range(5)
    ]
    await world.admin.secrets.DisableSecretVersion(pb.DisableSecretVersionRequest(name=f"{disabled}/versions/1"))
    await world.admin.secrets.DestroySecretVersion(pb.DestroySecretVersionRequest(name=f"{destroyed}/versions/1"))
    for name in (deleted, purged):
        await world.admin.secrets.DeleteSecret(pb.DeleteSecretRequest(name=name))
    await world.admin.secrets.PurgeSecret(pb.PurgeSecretRequest(name=purged))
    return [active, disabled, destroyed, deleted, purged, f"{VAULT}/secrets/{world.fresh_id()}"]


async def test_who_may_not_is_told_the_same_whatever_state_the_secret_is_in(world):
    names, stranger, asked = await secrets_in_each_state(world), world.server.client("stranger"), 0
    for path in (path for path in METHODS if path.startswith(SECRETS) and path not in BATCHES):
        kept = await world.request(path)
        field = next((f for f in ("name", "parent") if getattr(kept, f, "").startswith(f"{VAULT}/secrets/")), "")
        if field:
            base, told = "/".join(getattr(kept, field).split("/")[:4]), set()
            for name in names:
                setattr(kept, field, name + getattr(kept, field).removeprefix(base))
                told.add((await call(stranger, path, kept)).refusal)
                base = name
            assert len(told) == 1, path
            assert {code for code, *_ in told} == {PERMISSION_DENIED}
            asked += 1
    assert asked >= 12


async def test_a_condition_asks_for_the_labels_of_the_secret(world):
    client = world.server.client("labelled")
    name = await world.create_secret("default", world.fresh_id(), labels={"team": "a"})
    assert (await access(world, f"{name}/versions/latest", client)).code is OK
    update = pb.UpdateSecretRequest(
        secret=pb.Secret(name=name, labels={"team": "b"}), update_mask=field_mask_pb2.FieldMask(paths=["labels"])
    )
    await call(world.admin, f"{SECRETS}UpdateSecret", update)
    assert (await access(world, name, client)).code is PERMISSION_DENIED


@pytest.mark.parametrize(
    ("paths", "verdict"),
    [
        (["labels", "owner"], (OK, "")),
        (["keep_versions"], (PERMISSION_DENIED, "PERMISSION_DENIED")),
        (["owner", "version_ttl"], (PERMISSION_DENIED, "PERMISSION_DENIED")),
        (["*"], (PERMISSION_DENIED, "PERMISSION_DENIED")),
    ],
)
async def test_who_may_not_destroy_does_not_change_what_is_kept(world, paths, verdict):
    name = await world.create_secret("default", world.fresh_id())
    secret = pb.Secret(name=name, owner="somebody", keep_versions=1)
    request = pb.UpdateSecretRequest(secret=secret, update_mask=field_mask_pb2.FieldMask(paths=paths))
    assert verdicts(await call(world.server.client("writer"), f"{SECRETS}UpdateSecret", request)) == {verdict}


async def test_the_states_of_a_secret_are_told_to_who_may_look(world):
    name = await world.create_secret("default", world.fresh_id())

    async def told(state_of: str = name) -> str:
        request = policy_pb2.ExplainAccessRequest(
            principal=f"{SPIFFE}/reader", method="AccessSecretVersion", resource=state_of
        )
        return (await world.admin.admin.ExplainAccess(request)).secret_state

    assert await told() == "ACTIVE, version 1 ENABLED"
    await world.admin.secrets.DisableSecretVersion(pb.DisableSecretVersionRequest(name=f"{name}/versions/1"))
    assert (await told(f"{name}/versions/latest")).startswith("SECRET_VERSION_DISABLED: ")
    await world.admin.secrets.DeleteSecret(pb.DeleteSecretRequest(name=name))
    assert (await told()).startswith("SECRET_DELETED: ")


# -- approvals, quotas --------------------------------------------------------------------------------------------------


async def test_a_purge_can_be_put_under_approval(world):
    name = await world.create_secret("default", "guarded")
    await world.admin.secrets.DeleteSecret(pb.DeleteSecretRequest(name=name))
    rule = approval_pb2.ApprovalRule(
        id="purge", methods=["PurgeSecret"], resource=name, approvers=[ADMIN, f"{SPIFFE}/reader"], required=1
    )
    await world.admin.admin.SetApprovalRules(approval_pb2.SetApprovalRulesRequest(rules=[rule]))
    purge = pb.PurgeSecretRequest(name=name)
    outcome = await call(world.admin, f"{SECRETS}PurgeSecret", purge)
    assert outcome.reason == "APPROVAL_REQUIRED"
    (waiting,) = (await world.admin.admin.ListApprovals(approval_pb2.ListApprovalsRequest())).approvals
    approve = approval_pb2.ApproveRequestRequest(name=waiting.name)
    await world.server.client("reader").admin.ApproveRequest(approve)
    assert (await call(world.admin, f"{SECRETS}PurgeSecret", purge)).code is OK
    rule.methods[:] = ["PurgeKey"]
    with pytest.raises(Exception, match="not cover"):
        await world.admin.admin.SetApprovalRules(approval_pb2.SetApprovalRulesRequest(rules=[rule]))
    await world.admin.admin.SetApprovalRules(approval_pb2.SetApprovalRulesRequest())


async def test_a_quota_counts_a_batch_as_the_accesses_that_it_is(world):
    quota = quota_pb2.Quota(subject=f"{SPIFFE}/reader", resource="/", methods=["SecretsService.AccessSecretVersion"])
    window = quota.windows.add(count=3, burst=3)
    window.period.FromSeconds(3000)
    request = quota_pb2.CreateQuotaRequest(parent="/", quota_id="accesses", quota=quota)
    made = await world.admin.admin.CreateQuota(request)
    items = [pb.AccessSecretVersionRequest(name=f"{VAULT}/secrets/mine")] * 3
    path, reader = f"{SECRETS}BatchAccessSecretVersions", world.server.client("reader")
    assert (await call(reader, path, pb.BatchAccessSecretVersionsRequest(items=items))).code is OK
    assert (await access(world, f"{VAULT}/secrets/mine", reader)).reason == "QUOTA_EXCEEDED"
    await world.admin.admin.DeleteQuota(quota_pb2.DeleteQuotaRequest(name=made.name))


# -- lists, structures, races -------------------------------------------------------------------------------------------


async def test_lists_go_on_where_a_page_ended(world):
    name = await world.create_secret("default", world.fresh_id())
    for number in range(4):
        await add(world, name, b"x" * (number + 1))
    request, seen = pb.ListSecretVersionsRequest(parent=name, page_size=2), []
    while not seen or request.page_token:
        page = await world.admin.secrets.ListSecretVersions(request)
        seen += [version.payload_bytes for version in page.secret_versions]
        request.page_token = page.next_page_token
    assert seen == [9, 1, 2, 3, 4]
    listing, names = pb.ListSecretsRequest(parent=VAULT, page_size=3), []
    while not names or listing.page_token:
        found = await world.admin.secrets.ListSecrets(listing)
        names += [secret.name for secret in found.secrets]
        listing.page_token = found.next_page_token
    assert names == sorted(set(names))
    assert name in names


@pytest.mark.parametrize("value", [float("nan"), float("inf"), "x" * 9000])
async def test_metadata_that_cannot_be_kept_is_refused(world, value):
    request = pb.CreateSecretRequest(parent=VAULT, secret_id=world.fresh_id())
    request.secret.metadata["deep"] = {"list": [{"value": value}]}
    outcome = await call(world.admin, f"{SECRETS}CreateSecret", request)
    assert (outcome.code, outcome.fields) == (INVALID_ARGUMENT, ["secret.metadata"])


async def test_a_first_version_without_its_payload_is_refused(world):
    request = pb.CreateSecretRequest(parent=VAULT, secret_id=world.fresh_id())
    request.expire_time.FromSeconds(4_000_000_000)
    assert (await call(world.admin, f"{SECRETS}CreateSecret", request)).reason == "PAYLOAD_MISSING"


@pytest.mark.parametrize("seconds", [0, -1, 36_525 * 86_400 + 1])
async def test_a_time_to_live_has_its_limits(world, seconds):
    request = pb.CreateSecretRequest(parent=VAULT, secret_id=world.fresh_id())
    request.secret.version_ttl.FromSeconds(seconds)
    outcome = await call(world.admin, f"{SECRETS}CreateSecret", request)
    assert outcome.reason in {"VERSION_TTL_RANGE", "DURATION_RANGE"}


async def test_of_many_who_compare_and_set_one_wins(world):
    name = await world.create_secret("default", world.fresh_id())
    etag = (await world.admin.secrets.GetSecret(pb.GetSecretRequest(name=name))).etag
    requests = [pb.AddSecretVersionRequest(parent=name, payload=b"x", expected_etag=etag) for _ in range(20)]
    outcomes = await asyncio.gather(*(call(world.admin, f"{SECRETS}AddSecretVersion", each) for each in requests))
    assert sorted(outcome.reason for outcome in outcomes if outcome.code is not OK) == ["ETAG_MISMATCH"] * 19


@pytest.mark.parametrize("name", ["latest", "7x", "A", "a-", "-a", "0", "a" * 64])
async def test_an_alias_has_one_spelling(world, name):
    request = pb.AccessSecretVersionRequest(name=f"{VAULT}/secrets/mine/versions/{name}")
    outcome = await call(world.admin, f"{SECRETS}AccessSecretVersion", request)
    assert outcome.code is (OK if name == "latest" else INVALID_ARGUMENT)


@pytest.mark.parametrize("method", ["EnableSecretVersion", "DisableSecretVersion", "DestroySecretVersion"])
async def test_versions_are_changed_by_number_and_not_by_alias(world, method):
    request = getattr(pb, f"{method}Request")(name=f"{VAULT}/secrets/mine/versions/latest")
    assert (await call(world.admin, f"{SECRETS}{method}", request)).reason == "INVALID_NAME"
