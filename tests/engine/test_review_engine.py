"""Defects that a review found in the engine: each test failed before its fix."""

from __future__ import annotations

import asyncio

import pytest

from engine.engines import DAY_US, intent, move_us, open_engine, version
from vaultd.engine.catalog import ROWS_PER_TURN
from vaultd.engine.seal import SealState
from vaultd.engine.transit import DecryptItem
from vaultd.errors import DataLoss, DecryptionFailed, Unavailable
from vaultd.secret import Secret

PASSPHRASE = Secret(b"correct horse battery staple")
BY_PASSPHRASE = {"root_key": {"provider": "passphrase"}}


@pytest.fixture
async def vault(tmp_path):
    async with open_engine(tmp_path) as opened:
        yield opened


async def _unavailable(*_: object) -> None:
    raise Unavailable("AUDIT_UNAVAILABLE", "no")


async def test_the_scheduler_destroys_nothing_that_it_cannot_announce(vault):
    ref = await vault.create()
    await vault.key_versions.destroy_version(intent(), version(ref, 1), "")
    move_us(vault.clock, 31 * DAY_US)
    vault.engine.scheduler._on_intent = _unavailable
    await vault.tick()
    assert await vault.state(ref, 1) == "DESTROY_SCHEDULED"
    assert ("destroy_failed", f"{ref}/versions/1", "AUDIT_UNAVAILABLE") in vault.events


async def test_the_scheduler_announces_what_it_does(vault):
    ref = await vault.create()
    await vault.key_versions.destroy_version(intent(), version(ref, 1), "")
    move_us(vault.clock, 31 * DAY_US)
    await vault.tick()
    assert vault.intents == [("destroy", f"{ref}/versions/1")]


async def test_the_scheduler_rotates_nothing_that_it_cannot_announce(vault):
    ref = await vault.create(rotation_period_us=DAY_US)
    move_us(vault.clock, 2 * DAY_US)
    vault.engine.scheduler._on_intent = _unavailable
    await vault.tick()
    assert await vault.primary(ref) == 1


async def test_a_rotation_that_cannot_be_read_back_is_not_the_last(vault):
    provider = vault.seal._provider
    unwrap, provider.unwrap = provider.unwrap, _unavailable
    with pytest.raises(Unavailable):
        await vault.seal.rotate_root(intent(), None)
    provider.unwrap = unwrap
    ref = await vault.create()
    ciphertext = await vault.encrypt(ref)
    await vault.seal.rotate_root(intent(), None)
    await vault.seal.seal()
    await vault.seal.unseal(None)
    assert await vault.decrypt(ref, ciphertext) == b"plaintext"


async def test_an_unsealing_that_fails_leaves_no_root_key_in_memory(tmp_path):
    async with open_engine(tmp_path, passphrase=PASSPHRASE, **BY_PASSPHRASE) as vault:
        await vault.seal.seal()

        async def damaged() -> None:
            raise DataLoss("ROWS_ROLLED_BACK", "edited")

        vault.ledger.check = damaged
        with pytest.raises(DataLoss):
            await vault.seal.unseal(PASSPHRASE)
        assert vault.seal.state is SealState.SEALED
        assert vault.seal._provider._keys == {}


async def test_a_policy_that_is_not_read_yet_is_no_data_loss(vault):
    await vault.seal.seal()
    under_check, checked = asyncio.Event(), asyncio.Event()
    check = vault.ledger.check

    async def slow_check() -> int:
        under_check.set()
        await checked.wait()
        return await check()

    vault.ledger.check = slow_check
    unsealing = asyncio.create_task(vault.seal.unseal(None))
    await under_check.wait()
    with pytest.raises(Unavailable, match="sealed"):
        vault.engine.authority.engine  # noqa: B018  # raises
    checked.set()
    await unsealing
    assert vault.engine.authority.loaded


async def test_a_key_of_many_versions_is_loaded_in_turns(vault):
    ref = await vault.create()
    for _ in range(2 * ROWS_PER_TURN):
        await vault.key_versions.rotate_key(intent(), ref)
    turns = 0

    async def others() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    rows = await vault.store.versions("key_version", "default", "k")
    task = asyncio.create_task(others())
    await vault.ledger._open_all(rows)
    task.cancel()
    assert turns >= 2


async def test_a_page_of_versions_reads_no_others(vault):
    ref = await vault.create()
    for _ in range(5):
        await vault.key_versions.rotate_key(intent(), ref)
    assert [found.number for found in await vault.keys.list_versions(ref, 2, 3)] == [3, 4, 5]
    assert [found.number for found in await vault.keys.list_versions(ref)] == [1, 2, 3, 4, 5, 6]
    assert [row.key.version for row in await vault.store.versions("key", "default", "k")] == [0]


async def test_failed_items_keep_no_frames_alive(vault):
    ref = await vault.create()
    damaged = (await vault.encrypt(ref))[:-1]
    (outcome,) = await vault.transit.decrypt_many([DecryptItem(ref, damaged)], None)
    assert isinstance(outcome, DecryptionFailed)
    assert outcome.__traceback__ is None
    assert outcome.__context__ is None
