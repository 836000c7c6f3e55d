"""What is counted of the rows, and when."""

from __future__ import annotations

from dataclasses import replace

import pytest
from engines import DAY_US, HOUR_US, intent, open_engine

from vaultd.engine.census import EXPIRIES, LEAST_REST_S, expiry_of
from vaultd.errors import DataLoss


@pytest.mark.parametrize(
    ("left_us", "expiry"),
    [
        (-1, "expired"),
        (0, "expired"),
        (1, "1d"),
        (DAY_US, "1d"),
        (DAY_US + 1, "7d"),
        (7 * DAY_US, "7d"),
        (30 * DAY_US, "30d"),
        (90 * DAY_US, "90d"),
        (90 * DAY_US + 1, "later"),
        (None, "never"),
    ],
)
def test_an_expiry_is_in_the_narrowest_horizon(left_us, expiry):
    now_us = 1_800_000_000_000_000
    assert expiry_of(None if left_us is None else now_us + left_us, now_us) == expiry
    assert expiry in EXPIRIES


async def test_keys_move_through_the_horizons_and_what_is_deleted_is_not_counted(tmp_path):
    async with open_engine(tmp_path) as opened:
        now_us = opened.clock.now_us()
        await opened.create("soon", expire_us=now_us + 5 * DAY_US)
        await opened.create("for-ever")
        await opened.lifecycle.delete_key(intent(), await opened.create("gone"), "")
        census = opened.engine.census
        await census.count()
        assert counted(census) == {("key", "7d"): 1, ("key", "never"): 1}
        opened.clock.advance(6 * 86_400)
        await census.count()
        assert counted(census) == {("key", "expired"): 1, ("key", "never"): 1}


async def test_a_rotation_that_came_due_is_due_until_it_is_done(tmp_path):
    async with open_engine(tmp_path) as opened:
        await opened.create("turning", rotation_period_us=HOUR_US)
        opened.clock.advance(2 * 3600)
        census = opened.engine.census
        await census.count()
        assert dict(census.rotations_due())["key",] == 1
        await opened.tick()
        await census.count()
        assert dict(census.rotations_due())["key",] == 0


async def test_a_census_rests_between_counts_and_waits_for_the_seal(tmp_path):
    async with open_engine(tmp_path) as opened:
        census = opened.engine.census
        await census.tick()
        await opened.create("later")
        await census.tick()
        assert counted(census) == {}
        opened.clock.advance(LEAST_REST_S)
        await census.tick()
        assert counted(census) == {("key", "never"): 1}
        await opened.create("unseen")
        opened.ledger.install(None)
        opened.clock.advance(LEAST_REST_S)
        await census.tick()
        assert counted(census) == {("key", "never"): 1}


async def test_a_count_that_fails_leaves_the_last_one(tmp_path):
    async with open_engine(tmp_path) as opened:
        await opened.create("k")
        census = opened.engine.census
        await census.count()
        row = next(row for row in await opened.store.list("key", "default", "", 10))
        async with opened.store.begin() as transaction:
            await transaction.write([replace(row, sealed=bytes(64), revision=transaction.revision)], [], [])
        with pytest.raises(DataLoss):
            await census.count()
        assert counted(census) == {("key", "never"): 1}


def counted(census):
    return {label: count for label, count in census.resources() if count}
