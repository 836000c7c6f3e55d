"""Moments at which something happens by itself, to the microsecond; erasure; budgets; counts of use."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from engine.engines import DAY_US, HOUR_US, intent, move_to, move_us, open_engine, version
from harness import FakeClock, running_server
from vaultd.engine.algorithms import Purpose
from vaultd.engine.key_specs import KeySpec, KeyUpdate
from vaultd.engine.transit import EncryptItem, MacItem, SignItem, VerifyItem
from vaultd.errors import FailedPrecondition, InvalidArgument, NotFound, VaultdError
from vaultd.store.base import RowKey, Usage
from vaultd_client.v1 import crypto_pb2, keys_pb2, resources_pb2

if TYPE_CHECKING:
    from vaultd.names import KeyRef

LIMIT = 1_024
BLOCK = LIMIT // 16
BUDGETED = {"limits": {"messages_per_version": LIMIT}}


@pytest.fixture
def clock():
    return FakeClock()


@pytest.fixture
async def vault(tmp_path, clock):
    async with open_engine(tmp_path, clock) as opened:
        yield opened


# -- rotation -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("offset_us", "primary"), [(-1, 1), (0, 2), (1, 2)])
async def test_a_scheduled_rotation_happens_at_its_time_and_not_before(vault, clock, offset_us, primary):
    due = clock.us + HOUR_US
    ref = await vault.create(rotation_period_us=HOUR_US)
    move_to(clock, due + offset_us)
    await vault.tick()
    assert await vault.primary(ref) == primary


async def test_a_scheduled_rotation_counts_the_next_period_from_itself(vault, clock):
    ref = await vault.create(rotation_period_us=HOUR_US)
    move_us(clock, 3 * HOUR_US)
    await vault.tick()
    assert (await vault.keys.get_key(ref)).next_rotation_us == clock.us + HOUR_US


async def test_periods_that_passed_unseen_make_one_rotation(vault, clock):
    ref = await vault.create(rotation_period_us=HOUR_US)
    move_us(clock, 5 * HOUR_US)
    await vault.tick()
    await vault.tick()
    assert await vault.primary(ref) == 2


async def test_a_rotation_by_call_starts_the_period_anew(vault, clock):
    ref = await vault.create(rotation_period_us=HOUR_US)
    move_us(clock, HOUR_US - 1)
    await vault.key_versions.rotate_key(intent(), ref)
    move_us(clock, HOUR_US - 1)
    await vault.tick()
    assert await vault.primary(ref) == 2


async def test_a_first_rotation_time_is_kept(vault, clock):
    ref = await vault.create(rotation_period_us=DAY_US, next_rotation_us=clock.us + 5)
    move_us(clock, 5)
    await vault.tick()
    assert await vault.primary(ref) == 2


async def test_keep_primary_makes_a_version_and_leaves_the_primary(vault):
    ref = await vault.create()
    made = await vault.key_versions.rotate_key(intent(), ref, keep_primary=True)
    key = await vault.keys.get_key(ref)
    assert (made.number, key.primary, key.newest) == (2, 1, 2)


async def test_a_deleted_key_does_not_rotate(vault, clock):
    ref = await vault.create(rotation_period_us=HOUR_US)
    await vault.lifecycle.delete_key(intent(), ref, "")
    move_us(clock, HOUR_US)
    await vault.tick()
    assert (await vault.keys.get_key(ref)).newest == 1


async def test_everything_that_is_due_is_done_in_one_tick(vault, clock):
    refs = [await vault.create(f"k{number}", rotation_period_us=HOUR_US) for number in range(130)]
    move_us(clock, HOUR_US)
    await vault.tick()
    assert [await vault.primary(ref) for ref in refs] == [2] * 130


async def test_an_answered_create_is_replayed_after_the_times_in_it_have_passed(vault, clock):
    spec = {"expire_us": clock.us + HOUR_US}
    request = intent("once")

    async def create():
        return await vault.lifecycle.create_key(request, "default", "k", KeySpec(Purpose.ENCRYPT_DECRYPT, **spec))

    first = await create()
    move_us(clock, 2 * HOUR_US)
    assert await create() == first


# -- destruction --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("offset_us", "state"), [(-1, "DESTROY_SCHEDULED"), (0, "DESTROYED"), (1, "DESTROYED")])
async def test_a_version_is_destroyed_at_its_time_and_not_before(vault, clock, offset_us, state):
    ref = await vault.create(destroy_delay_us=DAY_US)
    scheduled = await vault.key_versions.destroy_version(intent(), version(ref, 1), "")
    assert scheduled.destroy_us == clock.us + DAY_US
    move_us(clock, DAY_US + offset_us)
    await vault.tick()
    assert await vault.state(ref, 1) == state


async def test_destroying_again_does_not_move_the_time(vault, clock):
    ref = await vault.create(destroy_delay_us=DAY_US)
    first = await vault.key_versions.destroy_version(intent(), version(ref, 1), "")
    move_us(clock, HOUR_US)
    assert await vault.key_versions.destroy_version(intent(), version(ref, 1), "") == first


async def test_a_version_restored_a_microsecond_before_its_time_is_kept(vault, clock):
    ref = await vault.create(destroy_delay_us=DAY_US)
    sealed = await vault.encrypt(ref)
    await vault.key_versions.destroy_version(intent(), version(ref, 1), "")
    move_us(clock, DAY_US - 1)
    await vault.key_versions.restore_version(intent(), version(ref, 1), "")
    move_us(clock, 2)
    await vault.tick()
    await vault.key_versions.enable_version(intent(), version(ref, 1), "")
    assert await vault.decrypt(ref, sealed) == b"plaintext"


async def test_a_destroyed_version_cannot_be_restored(vault, clock):
    ref = await vault.create(destroy_delay_us=0)
    await vault.key_versions.destroy_version(intent(), version(ref, 1), "")
    await vault.tick()
    with pytest.raises(FailedPrecondition) as refused:
        await vault.key_versions.restore_version(intent(), version(ref, 1), "")
    assert refused.value.reason == "KEY_VERSION_DESTROYED"


async def test_a_key_whose_primary_is_destroyed_says_so(vault):
    ref = await vault.create(destroy_delay_us=0)
    await vault.key_versions.destroy_version(intent(), version(ref, 1), "")
    await vault.tick()
    with pytest.raises(FailedPrecondition) as refused:
        await vault.encrypt(ref)
    assert refused.value.reason == "KEY_VERSION_DESTROYED"


async def test_a_version_on_its_way_out_is_not_used(vault):
    ref = await vault.create(destroy_delay_us=DAY_US)
    sealed = await vault.encrypt(ref)
    await vault.key_versions.destroy_version(intent(), version(ref, 1), "")
    with pytest.raises(FailedPrecondition) as refused:
        await vault.decrypt(ref, sealed)
    assert refused.value.reason == "KEY_VERSION_DESTROY_SCHEDULED"


async def test_a_delay_under_the_least_is_refused(tmp_path):
    async with open_engine(tmp_path, lifecycle={"min_destroy_delay_s": 60}) as vault:
        with pytest.raises(InvalidArgument) as refused:
            await vault.create(destroy_delay_us=59_999_999)
        assert refused.value.reason == "DESTROY_DELAY_RANGE"


# -- purge --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("offset_us", "purged"), [(-1, False), (0, True), (1, True)])
async def test_a_deleted_key_is_purged_at_its_time_and_not_before(vault, clock, offset_us, purged):
    ref = await vault.create()
    deleted = await vault.lifecycle.delete_key(intent(), ref, "")
    move_to(clock, deleted.purge_us + offset_us)
    await vault.tick()
    keys = await vault.keys.list_keys("default", "", 10, deleted=True)
    assert (keys == []) is purged


async def test_purge_protection_refuses_a_purge_by_call_before_its_time(vault, clock):
    ref = await vault.create(purge_protection=True)
    deleted = await vault.lifecycle.delete_key(intent(), ref, "")
    move_to(clock, deleted.purge_us - 1)
    with pytest.raises(FailedPrecondition) as refused:
        await vault.lifecycle.purge_key(intent(), ref, "")
    assert refused.value.reason == "PURGE_PROTECTED"


async def test_purge_protection_ends_at_the_purge_time(vault, clock):
    ref = await vault.create(purge_protection=True)
    deleted = await vault.lifecycle.delete_key(intent(), ref, "")
    move_to(clock, deleted.purge_us)
    await vault.lifecycle.purge_key(intent(), ref, "")
    with pytest.raises(NotFound):
        await vault.keys.get_key(ref)


async def test_purge_protection_cannot_be_cleared(vault):
    ref = await vault.create(purge_protection=True)
    with pytest.raises(FailedPrecondition) as refused:
        await vault.lifecycle.update_key(intent(), ref, KeyUpdate({"purge_protection": False}))
    assert refused.value.reason == "PURGE_PROTECTION_STAYS"


async def test_a_purged_key_leaves_no_version_and_no_budget_behind(tmp_path):
    async with open_engine(tmp_path, **BUDGETED) as vault:
        ref = await vault.create(algorithm="AES_256_GCM")
        await vault.encrypt(ref)
        await vault.lifecycle.delete_key(intent(), ref, "")
        await vault.lifecycle.purge_key(intent(), ref, "")
        assert await vault.store.versions("key_version", "default", "k") == []
        assert await vault.store.get(RowKey("budget", "default", "k", 1)) is None


async def material_blobs(vault) -> list[bytes]:
    """The sealed key material of every version of `k`."""
    return [row.secret for row in await vault.store.versions("key_version", "default", "k")]


def files_hold(directory, blobs: list[bytes]) -> list[str]:
    """Which database files hold any of the blobs."""
    names = ("vault.db", "vault.db-wal")
    files = [directory / name for name in names if (directory / name).exists()]
    return [file.name for file in files if any(blob in file.read_bytes() for blob in blobs)]


async def test_sealed_material_is_in_the_files_while_the_key_lives(tmp_path, vault):
    await vault.create()
    assert files_hold(tmp_path, await material_blobs(vault))


async def test_purged_material_leaves_no_byte_in_the_files(tmp_path, vault):
    ref = await vault.create()
    for _ in range(3):
        await vault.key_versions.rotate_key(intent(), ref)
    await vault.key_versions.disable_version(intent(), version(ref, 2), "")
    blobs = await material_blobs(vault)
    await vault.lifecycle.delete_key(intent(), ref, "")
    await vault.lifecycle.purge_key(intent(), ref, "")
    assert files_hold(tmp_path, blobs) == []


async def test_destroyed_material_leaves_no_byte_in_the_files(tmp_path, vault):
    ref = await vault.create(destroy_delay_us=0)
    blobs = await material_blobs(vault)
    await vault.key_versions.destroy_version(intent(), version(ref, 1), "")
    await vault.tick()
    assert files_hold(tmp_path, blobs) == []


async def test_a_purge_while_somebody_reads_succeeds_and_the_files_are_scrubbed_later(tmp_path, vault):
    ref = await vault.create()
    blobs = await material_blobs(vault)
    await vault.lifecycle.delete_key(intent(), ref, "")
    async with vault.store.snapshot():
        await vault.lifecycle.purge_key(intent(), ref, "")
    await vault.tick()
    assert files_hold(tmp_path, blobs) == []


async def test_material_erased_just_before_a_crash_is_scrubbed_after_it(tmp_path):
    async with open_engine(tmp_path) as vault:
        ref = await vault.create()
        blobs = await material_blobs(vault)
        await vault.lifecycle.delete_key(intent(), ref, "")
        async with vault.store.snapshot():
            await vault.lifecycle.purge_key(intent(), ref, "")
    async with open_engine(tmp_path) as vault:
        await vault.tick()
        assert files_hold(tmp_path, blobs) == []


# -- expiry -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("offset_us", "refused"), [(-1, False), (0, True), (1, True)])
async def test_an_expired_key_encrypts_nothing_from_its_time_on(vault, clock, offset_us, refused):
    expire = clock.us + HOUR_US
    ref = await vault.create(expire_us=expire)
    move_to(clock, expire + offset_us)
    try:
        await vault.encrypt(ref)
        reason = ""
    except FailedPrecondition as error:
        reason = error.reason
    assert reason == ("KEY_EXPIRED" if refused else "")


async def test_an_expired_key_still_decrypts(vault, clock):
    ref = await vault.create(expire_us=clock.us + HOUR_US)
    sealed = await vault.encrypt(ref)
    move_us(clock, HOUR_US)
    assert await vault.decrypt(ref, sealed) == b"plaintext"


async def test_an_expired_key_signs_nothing(vault, clock):
    ref = await vault.create(purpose=Purpose.SIGN, algorithm="ED25519", expire_us=clock.us + HOUR_US)
    move_us(clock, HOUR_US)
    with pytest.raises(FailedPrecondition) as refused:
        await vault.transit.sign(SignItem(ref, b"message"), None)
    assert refused.value.reason == "KEY_EXPIRED"


async def test_an_expired_key_still_verifies(vault, clock):
    ref = await vault.create(purpose=Purpose.SIGN, algorithm="ED25519", expire_us=clock.us + HOUR_US)
    signature = (await vault.transit.sign(SignItem(ref, b"message"), None))[0]
    move_us(clock, HOUR_US)
    assert (await vault.transit.verify(VerifyItem(ref, b"message", signature), None))[0] is True


async def test_an_expired_key_authenticates_nothing_new(vault, clock):
    ref = await vault.create(purpose=Purpose.MAC, expire_us=clock.us + HOUR_US)
    move_us(clock, HOUR_US)
    with pytest.raises(FailedPrecondition) as refused:
        await vault.transit.generate_mac(MacItem(ref, b"data"), None)
    assert refused.value.reason == "KEY_EXPIRED"


async def test_a_later_expire_time_brings_an_expired_key_back(vault, clock):
    ref = await vault.create(expire_us=clock.us + HOUR_US)
    move_us(clock, HOUR_US)
    await vault.lifecycle.update_key(intent(), ref, KeyUpdate({"expire_us": clock.us + 1}))
    assert await vault.encrypt(ref)


@pytest.mark.parametrize("offset_us", [-1, 0])
async def test_an_expire_time_that_has_passed_is_refused(vault, clock, offset_us):
    with pytest.raises(InvalidArgument) as refused:
        await vault.create(expire_us=clock.us + offset_us)
    assert refused.value.reason == "EXPIRE_TIME_PAST"


# -- clocks that jump ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("jump_s", [3_601, 10 * 365 * 86_400])
async def test_a_wall_clock_that_jumps_forward_destroys_nothing(vault, clock, jump_s):
    ref = await vault.create(destroy_delay_us=HOUR_US)
    await vault.key_versions.destroy_version(intent(), version(ref, 1), "")
    clock.jump_wall(jump_s)
    await vault.tick()
    assert await vault.state(ref, 1) == "DESTROY_SCHEDULED"


async def test_a_wall_clock_that_jumps_forward_purges_nothing(vault, clock):
    ref = await vault.create()
    await vault.lifecycle.delete_key(intent(), ref, "")
    clock.jump_wall(31 * 86_400)
    await vault.tick()
    assert (await vault.keys.get_key(ref)).state.value == "DELETED"


async def test_a_wall_clock_that_jumps_forward_still_rotates(vault, clock):
    ref = await vault.create(rotation_period_us=HOUR_US)
    clock.jump_wall(7_200)
    await vault.tick()
    assert await vault.primary(ref) == 2


async def test_destructions_that_wait_do_not_hold_up_rotations(vault, clock):
    doomed = await vault.create("doomed", destroy_delay_us=0)
    for _ in range(120):
        await vault.key_versions.rotate_key(intent(), doomed)
    for number in range(1, 121):
        await vault.key_versions.destroy_version(intent(), version(doomed, number), "")
    ref = await vault.create(rotation_period_us=HOUR_US)
    clock.jump_wall(7_200)
    await vault.tick()
    assert await vault.primary(ref) == 2


async def test_a_clock_that_jumps_is_reported_once(vault, clock):
    clock.jump_wall(7_200)
    await vault.tick()
    await vault.tick()
    assert [event for event, _, _ in vault.events].count("clock_jumped") == 1


async def test_small_steps_of_the_clock_add_up(vault, clock):
    ref = await vault.create(destroy_delay_us=HOUR_US + 1)
    await vault.key_versions.destroy_version(intent(), version(ref, 1), "")
    for _ in range(3):
        clock.jump_wall(1_800)
        await vault.tick()
    assert await vault.state(ref, 1) == "DESTROY_SCHEDULED"


async def test_a_restart_believes_the_clock_again(tmp_path, clock):
    async with open_engine(tmp_path, clock) as vault:
        ref = await vault.create(destroy_delay_us=HOUR_US)
        await vault.key_versions.destroy_version(intent(), version(ref, 1), "")
        clock.jump_wall(7_200)
        await vault.tick()
    async with open_engine(tmp_path, clock) as vault:
        await vault.tick()
        assert await vault.state(ref, 1) == "DESTROYED"


# -- message budgets ----------------------------------------------------------------------------------------------------


async def spend(vault, ref: KeyRef, messages: int) -> int:
    """Encrypt until refused; returns how many succeeded."""
    answers = await vault.transit.encrypt_many([EncryptItem(ref, b"x")] * messages, None)
    reasons = {answer.reason for answer in answers if isinstance(answer, VaultdError)}
    assert reasons <= {"MESSAGE_BUDGET_EXHAUSTED"}
    return sum(not isinstance(answer, VaultdError) for answer in answers)


async def test_a_version_encrypts_exactly_as_many_messages_as_its_budget(tmp_path):
    async with open_engine(tmp_path, **BUDGETED) as vault:
        ref = await vault.create(algorithm="AES_256_GCM")
        assert await spend(vault, version(ref, 1), LIMIT + 10) == LIMIT


async def test_calls_at_the_same_time_share_one_budget_exactly(tmp_path):
    async with open_engine(tmp_path, **BUDGETED) as vault:
        ref = version(await vault.create(algorithm="AES_256_GCM"), 1)
        answers = await asyncio.gather(
            *(vault.transit.encrypt(EncryptItem(ref, b"x"), None) for _ in range(LIMIT + 10)), return_exceptions=True
        )
        assert sum(not isinstance(answer, BaseException) for answer in answers) == LIMIT


async def test_a_key_rotates_before_its_primary_version_is_spent(tmp_path):
    async with open_engine(tmp_path, **BUDGETED) as vault:
        ref = await vault.create(algorithm="AES_256_GCM")
        assert await spend(vault, ref, LIMIT * 7 // 8) == LIMIT * 7 // 8
        await vault.tick()
        assert await vault.primary(ref) == 2


async def test_a_key_in_steady_use_never_runs_out(tmp_path):
    async with open_engine(tmp_path, **BUDGETED) as vault:
        ref = await vault.create(algorithm="AES_256_GCM")
        for _ in range(40):
            assert await spend(vault, ref, 100) == 100
            await vault.tick()


async def test_a_spent_version_that_is_not_primary_makes_no_rotation(tmp_path):
    async with open_engine(tmp_path, **BUDGETED) as vault:
        ref = await vault.create(algorithm="AES_256_GCM")
        await vault.key_versions.rotate_key(intent(), ref)
        await spend(vault, version(ref, 1), LIMIT)
        await vault.tick()
        assert (await vault.keys.get_key(ref)).newest == 2


async def test_a_lease_lost_in_a_crash_is_never_used_again(tmp_path):
    async with open_engine(tmp_path, **BUDGETED) as vault:
        ref = version(await vault.create(algorithm="AES_256_GCM"), 1)
        first = await spend(vault, ref, 1)
        await vault.crash()
    async with open_engine(tmp_path, **BUDGETED) as vault:
        assert first + await spend(vault, ref, LIMIT) == LIMIT - BLOCK + 1


async def test_a_spent_version_stays_spent_after_a_restart(tmp_path):
    async with open_engine(tmp_path, **BUDGETED) as vault:
        ref = version(await vault.create(algorithm="AES_256_GCM"), 1)
        await spend(vault, ref, LIMIT)
    async with open_engine(tmp_path, **BUDGETED) as vault:
        assert await spend(vault, ref, 1) == 0


async def test_two_engines_share_one_budget(tmp_path):
    async with open_engine(tmp_path, **BUDGETED) as one, open_engine(tmp_path, **BUDGETED) as two:
        ref = version(await one.create(algorithm="AES_256_GCM"), 1)
        spent = 0
        for _ in range(12):
            spent += await spend(one, ref, 100) + await spend(two, ref, 100)
        assert LIMIT - BLOCK <= spent <= LIMIT


async def test_decryption_costs_no_budget(tmp_path):
    async with open_engine(tmp_path, **BUDGETED) as vault:
        ref = version(await vault.create(algorithm="AES_256_GCM"), 1)
        sealed = await vault.encrypt(ref)
        await spend(vault, ref, LIMIT)
        assert await vault.decrypt(ref, sealed) == b"plaintext"


# -- counts of use ------------------------------------------------------------------------------------------------------


async def usage_of(server, name: str) -> list[tuple[int, int]]:
    response = await server.admin.keys.GetKeyUsage(keys_pb2.GetKeyUsageRequest(name=name))
    return [(entry.messages, entry.bytes) for entry in response.versions]


async def create_and_use(server, times: int) -> str:
    key = resources_pb2.Key(purpose=resources_pb2.KEY_PURPOSE_ENCRYPT_DECRYPT)
    made = await server.admin.keys.CreateKey(
        keys_pb2.CreateKeyRequest(parent="vaults/default", key_id="k", key=key, request_id="make")
    )
    for _ in range(times):
        await server.app.crypto.Encrypt(crypto_pb2.EncryptRequest(name=made.name, plaintext=b"12345"))
    return made.name


async def test_usage_counts_what_is_not_yet_written(tmp_path):
    async with running_server(tmp_path) as server:
        name = await create_and_use(server, 3)
        assert await usage_of(server, name) == [(3, 15)]


async def test_usage_counts_nothing_twice_when_it_is_written(tmp_path):
    async with running_server(tmp_path) as server:
        name = await create_and_use(server, 3)
        await server.server.engine.usage.flush()
        assert await usage_of(server, name) == [(3, 15)]


async def test_usage_is_kept_over_a_restart(tmp_path):
    async with running_server(tmp_path) as server:
        name = await create_and_use(server, 3)
    async with running_server(tmp_path) as server:
        await server.app.crypto.Encrypt(crypto_pb2.EncryptRequest(name=name, plaintext=b"12345"))
        assert await usage_of(server, name) == [(4, 20)]


async def test_usage_is_counted_for_each_version(tmp_path):
    async with running_server(tmp_path) as server:
        name = await create_and_use(server, 2)
        await server.admin.keys.RotateKey(keys_pb2.RotateKeyRequest(name=name))
        await server.app.crypto.Encrypt(crypto_pb2.EncryptRequest(name=name, plaintext=b"1"))
        assert await usage_of(server, name) == [(2, 10), (1, 1)]


async def test_two_engines_add_up_their_use(tmp_path):
    async with open_engine(tmp_path) as one, open_engine(tmp_path) as two:
        ref = await one.create()
        await one.encrypt(ref)
        await two.encrypt(ref)
        await one.engine.usage.flush()
        await two.engine.usage.flush()
        uid = (await one.keys.get_key(ref)).uid
        assert (await one.engine.usage.totals(uid))[1].messages == 2


async def test_the_last_use_is_the_later_one_of_two_engines(tmp_path):
    clock = FakeClock()
    async with open_engine(tmp_path, clock) as one, open_engine(tmp_path, clock) as two:
        ref = await one.create()
        await one.encrypt(ref)
        move_us(clock, HOUR_US)
        await two.encrypt(ref)
        await two.engine.usage.flush()
        uid = (await one.keys.get_key(ref)).uid
        assert (await one.engine.usage.totals(uid))[1] == Usage(uid, 1, 2, 18, clock.us)


async def test_a_process_that_is_killed_loses_what_it_counted_since_the_last_tick_and_no_more(tmp_path):
    clock = FakeClock()
    async with open_engine(tmp_path, clock) as opened:
        ref = await opened.create(algorithm="AES_256_GCM")
        await opened.encrypt(ref)
        await opened.tick()
        await opened.encrypt(ref)
        await opened.crash()
    async with open_engine(tmp_path, clock) as opened:
        uid = (await opened.keys.get_key(ref)).uid
        assert (await opened.engine.usage.totals(uid))[1].messages == 1
        # The budget errs on the other side: what was leased is spent.
        assert await opened.engine.budgets.messages_left(version(ref, 1), uid, 2**32) == 2**32 - 65_536
