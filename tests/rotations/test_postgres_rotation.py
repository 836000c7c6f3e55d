"""Rotation of a secret against a real PostgreSQL: through the engine, with what goes wrong on the way."""

from __future__ import annotations

import pytest

from engine.engines import intent
from postgres import USERS, Postgres
from rotations.world import HOUR_US, NAME, REF, RotatingEngine, S, rotating_engine
from vaultd.engine.generators import BytesEncoding, PasswordRules, RandomBytesRules
from vaultd.engine.model import SecretVersionState
from vaultd.engine.rotation_model import RotationState, Stage
from vaultd.errors import FailedPrecondition
from vaultd.names import SecretRef
from vaultd.secret import Secret


@pytest.fixture
async def vault(server, tmp_path):
    for user in USERS:
        server.sql(f"ALTER ROLE {user} PASSWORD NULL")
    server.sql("ALTER ROLE rotator CREATEROLE")
    async with rotating_engine(tmp_path, server.target(tmp_path)) as running:
        await running.make_secret()
        await running.set_policy()
        yield running


async def only_the_served_one_works(server: Postgres, vault: RotatingEngine) -> None:
    """The role in use has the password that the vault serves, the other one has none."""
    user, password = await vault.login()
    assert await server.logs_in(user, password)
    other = USERS[1 - USERS.index(user)]
    assert not server.has_password(other)


async def test_rotations_take_turns_and_the_old_version_goes(server, vault):
    seen = set()
    for number in range(1, 5):
        rotation = await vault.rotate()
        assert (rotation.state, rotation.new, rotation.failure) == (RotationState.IDLE, number, None)
        user, password = await vault.login()
        assert user == USERS[(number - 1) % 2]
        seen.add(password)
        await only_the_served_one_works(server, vault)
    assert len(seen) == 4
    states = [version.state for version in await vault.engine.secrets.list_versions(REF)]
    assert states == [*[SecretVersionState.DISABLED] * 3, SecretVersionState.ENABLED]
    assert [event for event, _, _ in vault.events].count("secret_rotated") == 4
    assert ("rotate_secret", NAME) in vault.intents


async def test_both_credentials_work_for_the_overlap(server, vault):
    await vault.set_policy(overlap_us=60 * S)
    await vault.rotate()
    first = await vault.login()
    await vault.run_out(ticks=65)
    rotation = await vault.rotate()
    assert rotation.state is RotationState.OVERLAP
    second = await vault.login()
    assert await server.logs_in(*first)
    assert await server.logs_in(*second)
    assert (await vault.go_on(59)).state is RotationState.OVERLAP
    assert await server.logs_in(*first)
    assert (await vault.go_on(1)).state is RotationState.IDLE
    assert not await server.logs_in(*first)
    await only_the_served_one_works(server, vault)


async def test_rotating_again_within_the_overlap_ends_it(server, vault):
    await vault.set_policy(overlap_us=HOUR_US)
    await vault.rotate()
    first = await vault.login()
    await vault.rotate()
    rotation = await vault.rotate()
    assert (rotation.state, rotation.run) == (RotationState.OVERLAP, 3)
    assert not await server.logs_in(*first)
    assert await server.logs_in(*await vault.login())


async def test_a_secret_rotates_when_its_time_has_come(server, vault):
    rotation = await vault.set_policy(period_us=HOUR_US, notice_us=600 * S)
    assert rotation.next_us == vault.clock.us + HOUR_US
    assert (await vault.go_on(2999)).noticed_us is None
    assert (await vault.go_on(1)).noticed_us == rotation.next_us
    assert ("rotation_notice", NAME, "") in vault.events
    assert (await vault.go_on(599)).run == 0
    rotation = await vault.go_on(1)
    assert (rotation.run, rotation.new) == (1, 1)
    assert rotation.next_us == vault.clock.us + HOUR_US
    assert [event for event, _, _ in vault.events].count("rotation_notice") == 1
    await only_the_served_one_works(server, vault)


async def test_the_role_in_use_is_left_alone_when_the_version_in_service_was_destroyed(server, vault):
    await vault.rotate()
    first = await vault.login()
    await vault.engine.secrets.destroy_version(intent(), SecretRef(REF.vault, REF.secret, 1))
    rotation = await vault.rotate()
    assert (rotation.state, rotation.failure.reason) == (RotationState.FAILED, "PAYLOAD_UNKNOWN")
    assert await server.logs_in(*first)


async def test_a_target_that_is_away_is_tried_again_and_the_run_goes_on(server, vault):
    await vault.rotate()
    server.stop()
    try:
        rotation = await vault.rotate()
        assert (rotation.state, rotation.stage) == (RotationState.RUNNING, Stage.SET)
        assert rotation.failure.reason == "UNREACHABLE"
    finally:
        server.start()
    rotation = await vault.run_out()
    assert (rotation.state, rotation.new, rotation.failure) == (RotationState.IDLE, 2, None)
    await only_the_served_one_works(server, vault)


async def test_a_set_that_fails_for_good_is_undone_and_says_why(server, vault):
    await vault.rotate()
    before = await vault.login()
    server.sql("ALTER ROLE rotator NOCREATEROLE")
    rotation = await vault.rotate()
    rotation = rotation if rotation.state is RotationState.FAILED else await vault.run_out()
    assert (rotation.state, rotation.failure.stage) == (RotationState.FAILED, Stage.SET)
    assert rotation.failure.reason == "POSTGRES_STATEMENT_REFUSED"
    assert "42501" in rotation.failure.text
    assert await vault.login() == before
    await only_the_served_one_works(server, vault)
    server.sql("ALTER ROLE rotator CREATEROLE")
    rotation = await vault.go_on(60)
    assert (rotation.state, rotation.failures, rotation.new) == (RotationState.IDLE, 0, 2)
    await only_the_served_one_works(server, vault)


async def test_a_test_that_fails_is_undone_and_says_why(server, vault):
    await vault.rotate()
    before = await vault.login()
    server.sql(f"ALTER ROLE {USERS[1]} NOLOGIN")
    try:
        rotation = await vault.rotate()
    finally:
        server.sql(f"ALTER ROLE {USERS[1]} LOGIN")
    assert (rotation.state, rotation.failure.stage) == (RotationState.FAILED, Stage.TEST)
    assert rotation.failure.reason == "POSTGRES_LOGIN_REFUSED"
    assert await vault.login() == before
    await only_the_served_one_works(server, vault)
    assert [event for event, _, _ in vault.events][-2:] == ["rotation_failed", "rotation_rolled_back"]


async def test_a_payload_that_does_not_say_who_is_in_use_stops_before_anything_is_set(server, vault):
    from vaultd.engine.secrets import NewVersion

    await vault.engine.secrets.add_version(intent(), REF, NewVersion(Secret(b"hunter2")))
    rotation = await vault.rotate()
    assert (rotation.state, rotation.failure.stage) == (RotationState.FAILED, Stage.CREATE)
    assert rotation.failure.reason == "PAYLOAD_UNKNOWN"
    assert not any(server.has_password(user) for user in USERS)


async def test_random_bytes_are_a_password_when_they_are_written_down(server, vault):
    await vault.set_policy(rules=RandomBytesRules(32, BytesEncoding.HEX))
    await vault.rotate()
    assert len((await vault.login())[1]) == 64
    await only_the_served_one_works(server, vault)


async def test_a_password_with_every_symbol_logs_in(server, vault):
    rules = PasswordRules(128, {"lowercase": 1, "uppercase": 1, "digits": 1, "symbols": 90})
    await vault.set_policy(rules=rules)
    await vault.rotate()
    await only_the_served_one_works(server, vault)


async def test_the_admin_may_be_a_secret_of_the_vault(server, tmp_path):
    import orjson

    from postgres import ADMIN, ADMIN_PASSWORD

    admin = SecretRef("default", "pg-admin")
    target = server.target(tmp_path, admin={"password": {"secret": str(admin)}})
    async with rotating_engine(tmp_path, target) as vault:
        await vault.make_secret()
        await vault.set_policy()
        rotation = await vault.rotate()
        assert rotation.failure.reason == "CREDENTIAL_MISSING"
        await vault.make_secret(orjson.dumps({"username": ADMIN, "password": ADMIN_PASSWORD}), admin)
        rotation = await vault.run_out()
        assert rotation.state is RotationState.IDLE
        await only_the_served_one_works(server, vault)


async def test_only_the_secret_that_the_configuration_names_may_use_the_target(vault):
    other = SecretRef("default", "other")
    await vault.make_secret(ref=other)
    for target in ("orders-db", "no-such-target"):
        with pytest.raises(FailedPrecondition) as caught:
            await vault.set_policy(target, other)
        assert caught.value.reason == "ROTATION_TARGET"
