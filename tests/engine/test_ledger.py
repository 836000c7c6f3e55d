"""The ledger: atomic changes, answers that are replayed for a day, and listeners that hear before the caller does."""

from __future__ import annotations

import asyncio

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.engines import DAY_US, edit, intent, move_us, open_engine, query, version
from harness import FakeClock
from vaultd.engine.ledger import REPLAY_WINDOW_US, replay_id
from vaultd.engine.sealing import KeyRing, Sealer
from vaultd.errors import AlreadyExists, DataLoss, FailedPrecondition
from vaultd.store.base import RowKey

AT = RowKey("vault", "", "fresh", 0)
UID = bytes(16)


@pytest.fixture
def clock():
    return FakeClock()


@pytest.fixture
async def vault(tmp_path, clock):
    async with open_engine(tmp_path, clock) as opened:
        yield opened


def image(directory) -> list[list[tuple]]:
    """All that the store holds."""
    tables = ("records", "secrets", "digests", "changes", "replays", "key_ring", "meta")
    return [query(directory / "vault.db", f"SELECT * FROM {table}") for table in tables]  # noqa: S608  # constants


# -- atomic changes -----------------------------------------------------------------------------------------------------


class Interrupted(Exception):
    """What a test raises in the middle of a change."""


async def change_and_fail(vault) -> None:
    async with vault.ledger.change() as changes:
        await changes.put(AT, UID, "ACTIVE", None, {"a": 1})
        await changes.remember(intent("once"), None)
        raise Interrupted


async def test_a_body_that_fails_writes_nothing(tmp_path, vault):
    before = image(tmp_path)
    with pytest.raises(Interrupted):
        await change_and_fail(vault)
    assert image(tmp_path) == before


async def test_a_body_that_fails_tells_no_listener(vault):
    heard = []
    vault.ledger.subscribe(heard.extend)
    with pytest.raises(Interrupted):
        await change_and_fail(vault)
    assert heard == []


async def test_a_cancelled_body_writes_nothing(tmp_path, vault):
    before = image(tmp_path)
    written = asyncio.Event()

    async def change() -> None:
        async with vault.ledger.change() as changes:
            await changes.put(AT, UID, "ACTIVE", None, {"a": 1})
            written.set()
            await asyncio.Event().wait()

    task = asyncio.ensure_future(change())
    await written.wait()
    task.cancel()
    await asyncio.wait([task])
    assert image(tmp_path) == before


async def test_a_refused_mutation_stores_no_answer(tmp_path, vault):
    ref = await vault.create()
    with pytest.raises(FailedPrecondition):
        await vault.lifecycle.purge_key(intent("once"), ref, "")
    assert query(tmp_path / "vault.db", "SELECT * FROM replays") == []


async def test_a_change_without_a_write_takes_no_revision(vault):
    ref = await vault.create()
    before = await vault.store.revision()
    await vault.key_versions.enable_version(intent(), version(ref, 1), "")
    assert await vault.store.revision() == before


async def test_a_change_that_fails_leaves_the_digests_right(vault):
    with pytest.raises(Interrupted):
        await change_and_fail(vault)
    await vault.create()
    assert await vault.ledger.check(deep=True)


async def test_listeners_hear_before_the_caller_goes_on(vault):
    heard = []
    vault.ledger.subscribe(lambda changes: heard.extend(change.key for change in changes))
    async with vault.ledger.change() as changes:
        await changes.put(AT, UID, "ACTIVE", None, {"a": 1})
        assert heard == []
    assert heard == [AT]


async def test_listeners_hear_of_what_is_already_durable(tmp_path, vault):
    seen = []
    path = tmp_path / "vault.db"
    sql = "SELECT state FROM records WHERE id = 'fresh'"
    vault.ledger.subscribe(lambda changes: seen.append(query(path, sql)) if list(changes) else None)
    async with vault.ledger.change() as changes:
        await changes.put(AT, UID, "ACTIVE", None, {"a": 1})
    assert seen == [[("ACTIVE",)]]


async def test_a_row_put_and_deleted_in_one_change_is_gone(vault):
    async with vault.ledger.change() as changes:
        await changes.put(AT, UID, "ACTIVE", None, {"a": 1})
        await changes.delete(AT)
    assert await vault.ledger.read(AT) is None
    assert await vault.ledger.check(deep=True)


async def test_a_row_put_twice_in_one_change_counts_once(vault):
    async with vault.ledger.change() as changes:
        await changes.put(AT, UID, "ACTIVE", None, {"a": 1})
        await changes.put(AT, UID, "GONE", None, {"a": 2})
    assert (await vault.ledger.read(AT)).values == {"a": 2}
    assert await vault.ledger.check(deep=True)


# -- answers that are replayed --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("offset_us", "newest"), [(-1, 2), (0, 3), (1, 3)])
async def test_an_answer_is_replayed_for_a_day_and_not_longer(vault, clock, offset_us, newest):
    ref = await vault.create()
    await vault.key_versions.rotate_key(intent("once"), ref)
    move_us(clock, REPLAY_WINDOW_US + offset_us)
    await vault.key_versions.rotate_key(intent("once"), ref)
    assert (await vault.keys.get_key(ref)).newest == newest


async def test_a_replayed_answer_is_the_one_of_then(vault):
    ref = await vault.create()
    first = await vault.key_versions.disable_version(intent("once"), version(ref, 1), "")
    await vault.key_versions.enable_version(intent(), version(ref, 1), "")
    assert await vault.key_versions.disable_version(intent("once"), version(ref, 1), "") == first
    assert await vault.state(ref, 1) == "ENABLED"


async def test_an_answer_is_replayed_after_a_restart(tmp_path, clock):
    async with open_engine(tmp_path, clock) as vault:
        ref = await vault.create()
        first = await vault.key_versions.rotate_key(intent("once"), ref)
    async with open_engine(tmp_path, clock) as vault:
        assert await vault.key_versions.rotate_key(intent("once"), ref) == first


async def test_an_answer_is_replayed_after_the_root_key_was_rotated(vault):
    ref = await vault.create()
    first = await vault.key_versions.rotate_key(intent("once"), ref)
    await vault.seal.rotate_root(intent(), None)
    for _ in range(5):
        await vault.tick()
    assert await vault.key_versions.rotate_key(intent("once"), ref) == first


async def test_the_same_id_with_another_body_is_refused(vault):
    ref = await vault.create()
    await vault.key_versions.rotate_key(intent("once"), ref)
    with pytest.raises(AlreadyExists) as refused:
        await vault.key_versions.rotate_key(intent("once", body=b"other"), ref)
    assert refused.value.reason == "REQUEST_ID_REUSED"


@pytest.mark.parametrize("other", [{"principal": "spiffe://dev.vaultd/app"}, {"method": "other"}])
async def test_the_same_id_of_another_caller_or_method_is_another_request(vault, other):
    ref = await vault.create()
    await vault.key_versions.rotate_key(intent("once"), ref)
    assert (await vault.key_versions.rotate_key(intent("once", **other), ref)).number == 3


async def test_the_stored_hash_of_a_request_is_keyed(tmp_path, vault):
    ref = await vault.create()
    await vault.key_versions.rotate_key(intent("once", body=b"a passphrase"), ref)
    ((stored,),) = query(tmp_path / "vault.db", "SELECT request_hash FROM replays")
    assert stored == vault.ledger.sealer.token_mac("request", b"a passphrase")
    assert stored != Sealer(KeyRing.create()).token_mac("request", b"a passphrase")


async def test_expired_answers_are_dropped(tmp_path, vault, clock):
    ref = await vault.create()
    await vault.key_versions.rotate_key(intent("once"), ref)
    move_us(clock, REPLAY_WINDOW_US + 1)
    await vault.tick()
    assert query(tmp_path / "vault.db", "SELECT * FROM replays") == []


async def test_answers_in_their_window_are_not_dropped(tmp_path, vault, clock):
    ref = await vault.create()
    await vault.key_versions.rotate_key(intent("once"), ref)
    move_us(clock, DAY_US - 1)
    await vault.tick()
    assert len(query(tmp_path / "vault.db", "SELECT * FROM replays")) == 1


@settings(derandomize=True, database=None, deadline=None)
@given(st.tuples(st.text(max_size=5), st.text(max_size=5)), st.tuples(st.text(max_size=5), st.text(max_size=5)))
def test_no_two_callers_share_the_name_of_an_answer(one, two):
    first, second = (intent("id", principal=principal, method=method) for principal, method in (one, two))
    assert (replay_id(first) == replay_id(second)) == (one == two)


@pytest.mark.parametrize(
    "change",
    [
        "UPDATE replays SET sealed = zeroblob(length(sealed))",
        "UPDATE replays SET expires_at = expires_at + 1",
        "UPDATE replays SET term = 99",
        "UPDATE replays SET term = 0",
    ],
)
async def test_an_edited_answer_is_not_replayed(tmp_path, vault, change):
    ref = await vault.create()
    await vault.key_versions.rotate_key(intent("once"), ref)
    edit(tmp_path / "vault.db", (change, ()))
    with pytest.raises(DataLoss):
        await vault.key_versions.rotate_key(intent("once"), ref)


async def test_an_answer_with_an_edited_request_hash_is_refused(tmp_path, vault):
    ref = await vault.create()
    await vault.key_versions.rotate_key(intent("once"), ref)
    edit(tmp_path / "vault.db", ("UPDATE replays SET request_hash = zeroblob(16)", ()))
    with pytest.raises(AlreadyExists):
        await vault.key_versions.rotate_key(intent("once"), ref)


async def test_an_answer_copied_under_another_request_is_not_replayed(tmp_path, vault):
    ref = await vault.create()
    await vault.key_versions.rotate_key(intent("once"), ref)
    other = replay_id(intent("twice"))
    edit(tmp_path / "vault.db", ("UPDATE replays SET id = ?", (other,)))
    with pytest.raises(DataLoss):
        await vault.key_versions.rotate_key(intent("twice"), ref)


# -- the catalog --------------------------------------------------------------------------------------------------------


async def test_a_load_that_races_with_a_mutation_leaves_no_stale_entry(vault):
    ref = await vault.create()
    for number in range(1, 21):
        vault.engine.catalog.forget_all()
        loading = asyncio.ensure_future(vault.engine.catalog.load(ref))
        for _ in range(number % 4):
            await asyncio.sleep(0)
        rotated = await vault.key_versions.rotate_key(intent(), ref)
        await loading
        assert (await vault.engine.catalog.load(ref)).key.primary == rotated.number == number + 1


async def test_uses_that_race_with_a_disable_stop_when_it_returns(vault):
    ref = await vault.create()
    stop = asyncio.Event()

    async def use() -> None:
        while not stop.is_set():
            vault.engine.catalog.forget_all()
            try:
                await vault.encrypt(ref)
            except FailedPrecondition:
                return

    users = [asyncio.ensure_future(use()) for _ in range(8)]
    await vault.key_versions.disable_version(intent(), version(ref, 1), "")
    with pytest.raises(FailedPrecondition):
        await vault.encrypt(ref)
    stop.set()
    await asyncio.gather(*users)


async def test_concurrent_loads_read_the_store_once(vault):
    ref = await vault.create()
    vault.engine.catalog.forget_all()
    loaded = await asyncio.gather(*(vault.engine.catalog.load(ref) for _ in range(20)))
    assert len({id(key) for key in loaded}) == 1


async def test_a_catalog_holds_no_more_keys_than_it_may(tmp_path):
    async with open_engine(tmp_path, software={"threads": 1, "max_cached_keys": 2}) as vault:
        refs = [await vault.create(f"k{number}") for number in range(4)]
        for ref in refs:
            await vault.encrypt(ref)
        assert [vault.engine.catalog.cached(ref) is not None for ref in refs] == [False, False, True, True]
