"""Rotation as callers see it: over mTLS, with a real PostgreSQL behind it, and clients that log in all the while."""

from __future__ import annotations

import grpc
import orjson
import pytest
import pytest_asyncio

from harness import reason_of, running_server
from postgres import USERS
from rotations.follower import IDLE, NAME, following, rotate, set_up
from vaultd_client.v1 import rotation_pb2, secrets_pb2

pytestmark = pytest.mark.asyncio(loop_scope="module")
OVERLAP_MS = 300


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def server(postgres, tmp_path_factory):
    tmp_path = tmp_path_factory.mktemp("vault")
    rotation = {"targets": [postgres.target(tmp_path)], "backoff_s": 0.01, "max_backoff_s": 0.01, "max_attempts": 2}
    lifecycle = {"min_destroy_delay_s": 0, "scheduler_interval_ms": 20}
    async with running_server(tmp_path, rotation=rotation, lifecycle=lifecycle) as running:
        await set_up(running.admin, OVERLAP_MS)
        yield running


async def test_no_login_fails_while_passwords_rotate(postgres, server):
    async with following(server.admin, postgres, workers=3) as follower:
        for run in (2, 3, 4):
            await rotate(server.admin)
            rotation = await follower.rotated(run)
            assert rotation.old_version == f"{NAME}/versions/{run - 1}"
    assert follower.failures == []
    assert follower.logins > 3
    assert follower.users == [USERS[number % 2] for number in range(4)]
    user, password = follower.login
    assert await postgres.logs_in(user, password)
    assert not postgres.has_password(USERS[1 - USERS.index(user)])

    acts = [(record["event"], record.get("act", ""), record.get("resource", "")) for record in server.audit_records()]
    assert acts.count(("secret_rotated", "", NAME)) == 4
    assert acts.count(("intent", "rotate_secret", NAME)) >= 4
    assert password not in b"".join(orjson.dumps(record) for record in server.audit_records()).decode()


async def test_what_failed_is_listed_with_the_reason(postgres, server):
    answer = await server.admin.secrets.AccessSecretVersion(secrets_pb2.AccessSecretVersionRequest(name=NAME))
    (other,) = set(USERS) - {orjson.loads(answer.payload)["username"]}
    postgres.sql(f"ALTER ROLE {other} NOLOGIN")
    try:
        await rotate(server.admin)
        await server.server.engine.rotation_runner.settle()
    finally:
        postgres.sql(f"ALTER ROLE {other} LOGIN")
    failed = rotation_pb2.ListRotationsRequest(
        parent="vaults/default", states=[rotation_pb2.ROTATION_STATE_FAILED, rotation_pb2.ROTATION_STATE_RUNNING]
    )
    (rotation,) = (await server.admin.secrets.ListRotations(failed)).rotations
    assert rotation.secret == NAME
    assert rotation.state == rotation_pb2.ROTATION_STATE_FAILED
    assert (rotation.failure.stage, rotation.failure.reason) == (
        rotation_pb2.ROTATION_STAGE_TEST,
        "POSTGRES_LOGIN_REFUSED",
    )
    assert rotation.failed_runs == 1
    assert rotation.retry_time.seconds > 0
    idle = rotation_pb2.ListRotationsRequest(parent="vaults/default", states=[IDLE])
    assert list((await server.admin.secrets.ListRotations(idle)).rotations) == []
    stopped = await server.admin.secrets.CancelRotation(rotation_pb2.CancelRotationRequest(name=NAME))
    assert stopped.state == IDLE
    await server.admin.secrets.DeleteRotationPolicy(rotation_pb2.DeleteRotationPolicyRequest(name=NAME))
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await server.admin.secrets.GetRotation(rotation_pb2.GetRotationRequest(name=NAME))
    assert reason_of(caught.value) == "ROTATION_NOT_FOUND"


async def test_a_policy_comes_back_as_it_was_set(server):
    parent = "vaults/default"
    await server.admin.secrets.CreateSecret(secrets_pb2.CreateSecretRequest(parent=parent, secret_id="signing"))
    for generator in (
        {"password": rotation_pb2.PasswordGenerator(length=40, digits=3, symbols=0, excluded_characters="'\\")},
        {"random_bytes": rotation_pb2.RandomBytesGenerator(length_bytes=48, encoding=rotation_pb2.BYTES_ENCODING_HEX)},
        {"key_pair": rotation_pb2.KeyPairGenerator(type=rotation_pb2.KEY_PAIR_TYPE_EC_P256)},
    ):
        policy = rotation_pb2.RotationPolicy(**generator)
        policy.rotation_period.FromSeconds(86_400)
        policy.notice_period.FromSeconds(3_600)
        request = rotation_pb2.SetRotationPolicyRequest(name=f"{parent}/secrets/signing", policy=policy)
        rotation = await server.admin.secrets.SetRotationPolicy(request)
        assert rotation.policy.HasField("next_rotation_time")
        rotation.policy.ClearField("next_rotation_time")
        assert rotation.policy == policy
        assert rotation.state == IDLE
    rotated = await server.admin.secrets.RotateSecret(rotation_pb2.RotateSecretRequest(name=request.name))
    assert rotated.new_version == f"{request.name}/versions/1"
    answer = await server.admin.secrets.AccessSecretVersion(secrets_pb2.AccessSecretVersionRequest(name=request.name))
    assert answer.payload.startswith(b"-----BEGIN PRIVATE KEY-----")
    assert answer.metadata["public_key"].startswith("-----BEGIN PUBLIC KEY-----")


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"target": "no-such"}, "ROTATION_TARGET"),
        ({"target": "Not an id"}, "INVALID_NAME"),
        ({"password": {"length": 7}}, "GENERATOR_RULES"),
        ({"password": {"length": -1}}, "GENERATOR_RULES"),
        ({"password": {"digits": 0, "length": 12}}, "GENERATOR_RULES"),
        ({"password": {"digits": -1}}, "GENERATOR_RULES"),
        ({"random_bytes": {"length_bytes": 1}}, "GENERATOR_RULES"),
        ({"random_bytes": {"encoding": 99}}, "ENUM_UNKNOWN"),
        ({"key_pair": {"type": 99}}, "ENUM_UNKNOWN"),
        ({"key_pair": {}, "target": "orders-db"}, "GENERATOR_RULES"),
        ({"random_bytes": {}, "target": "orders-db"}, "GENERATOR_RULES"),
        ({"rotation_period": {"seconds": 3_599}}, "ROTATION_PERIOD_RANGE"),
        ({"next_rotation_time": {"seconds": 1}}, "ROTATION_TIME_PAST"),
        ({"notice_period": {"seconds": 7_200}, "rotation_period": {"seconds": 3_600}}, "ROTATION_NOTICE_RANGE"),
        ({"overlap": {"seconds": 7_200}, "rotation_period": {"seconds": 3_600}}, "ROTATION_OVERLAP_RANGE"),
        ({"overlap": {"seconds": -1}}, "DURATION_RANGE"),
    ],
)
async def test_a_policy_that_makes_no_sense_is_refused_with_a_reason(server, fields, reason):
    policy = rotation_pb2.RotationPolicy(**fields)
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await server.admin.secrets.SetRotationPolicy(rotation_pb2.SetRotationPolicyRequest(name=NAME, policy=policy))
    assert reason_of(caught.value) == reason
