"""Keys announce their rotation and their expiry, once each, and the announcement is no change of the key."""

from __future__ import annotations

import pytest

from engine.engines import DAY_US, HOUR_US, intent, move_us, open_engine
from vaultd.engine.algorithms import Purpose
from vaultd.engine.key_specs import KeySpec, KeyUpdate
from vaultd.engine.watched import event_of
from vaultd.errors import InvalidArgument

NAME = "vaults/default/keys/k"


@pytest.fixture
async def vault(tmp_path):
    async with open_engine(tmp_path) as opened:
        yield opened


def notices(vault) -> list[str]:
    return [event for event, resource, _ in vault.events if event.endswith("_notice") and resource == NAME]


def told(vault) -> list[tuple[str, str, str]]:
    """What watchers hear of from now on."""
    heard: list[tuple[str, str, str]] = []
    vault.ledger.subscribe(
        lambda changes: heard.extend((e.name, e.event, e.etag) for e in map(event_of, changes) if e is not None)
    )
    return heard


async def after(vault, us: int) -> list[str]:
    move_us(vault.clock, us)
    await vault.tick()
    return notices(vault)


async def test_a_rotation_is_announced_once_and_so_is_the_next(vault):
    ref = await vault.create(rotation_period_us=DAY_US, notice_us=HOUR_US)
    etag = (await vault.keys.get_key(ref)).etag
    shown = told(vault)
    assert await after(vault, 23 * HOUR_US - 1) == []
    assert await after(vault, 1) == ["key_rotation_notice"]
    assert (await vault.keys.get_key(ref)).etag == etag
    assert shown[-1] == (NAME, "update", "")
    assert await after(vault, HOUR_US - 1) == ["key_rotation_notice"]
    assert await vault.primary(ref) == 1
    await after(vault, 1)
    assert await vault.primary(ref) == 2
    assert await after(vault, 23 * HOUR_US) == ["key_rotation_notice"] * 2
    assert vault.intents == [("rotate", NAME)]


async def test_an_expiry_is_announced_beside_rotations(vault):
    ref = await vault.create(expire_us=vault.clock.us + 36 * HOUR_US, rotation_period_us=DAY_US, notice_us=HOUR_US)
    assert await after(vault, 23 * HOUR_US) == ["key_rotation_notice"]
    assert await after(vault, 12 * HOUR_US) == ["key_rotation_notice", "key_expiry_notice"]
    assert await after(vault, HOUR_US) == ["key_rotation_notice", "key_expiry_notice"]
    assert await vault.primary(ref) == 2


async def test_an_expiry_that_is_moved_is_announced_again(vault):
    ref = await vault.create(expire_us=vault.clock.us + 2 * HOUR_US, notice_us=HOUR_US)
    assert await after(vault, HOUR_US) == ["key_expiry_notice"]
    sooner = KeyUpdate({"expire_us": vault.clock.us + HOUR_US // 2})
    await vault.lifecycle.update_key(intent(), ref, sooner)
    assert await after(vault, 1) == ["key_expiry_notice"] * 2


async def test_a_key_without_the_wish_announces_nothing(vault):
    await vault.create(expire_us=vault.clock.us + 2 * HOUR_US, rotation_period_us=HOUR_US)
    assert await after(vault, 3 * HOUR_US) == []


@pytest.mark.parametrize("notice_us", [0, DAY_US + 1])
async def test_a_notice_longer_than_the_period_is_refused(vault, notice_us):
    spec = KeySpec(Purpose.ENCRYPT_DECRYPT, rotation_period_us=DAY_US, notice_us=notice_us)
    with pytest.raises(InvalidArgument) as caught:
        await vault.lifecycle.create_key(intent(), "default", "k", spec)
    assert caught.value.reason == "ROTATION_NOTICE_RANGE"
