"""Durable windows: leased in blocks from the store, so that no crash and no second process gives anything twice."""

from __future__ import annotations

import asyncio

import pytest

from engine.engines import engine_settings, intent, move_us, open_engine, query
from harness import APP, FakeClock
from vaultd.engine.buckets import Window
from vaultd.engine.leases import BLOCKS, KIND
from vaultd.engine.quota_store import QuotaSpec
from vaultd.errors import NotFound, ResourceExhausted
from vaultd.interceptors.throttle import spend

DAY_US = 86_400_000_000
SIGN = "/vaultd.v1.CryptoService/Sign"
COUNT = 1_280
BLOCK = COUNT // BLOCKS
MOST_LEASED = BLOCK + BLOCK // 2


def spec(count: int = COUNT, subject: str = "*", resource: str = "vaults/default") -> QuotaSpec:
    return QuotaSpec(subject, resource, (), (), (Window(count, DAY_US),))


async def use(opened, uses: int = 1, principal: str = APP) -> None:
    """Spend as the chain does: with as many leases as it takes."""

    def admit():
        return opened.engine.limiter.admit_use(principal, SIGN, [("default", "k")], uses, 1, uses, 0)

    lease = admit()
    if lease is not None:
        await spend(lease, admit)


async def spend_all(opened, principal: str = APP) -> int:
    """Use until it is refused; return how often it was not."""
    for used in range(100_000):
        try:
            await use(opened, principal=principal)
        except ResourceExhausted:
            return used
    raise AssertionError("never refused")


async def left(opened, principal: str = APP) -> int:
    quota = await opened.engine.quotas.get("default", "q")
    return (await opened.engine.quotas.left_of(quota, principal))[0].left


async def create(opened, **fields):
    return await opened.engine.quotas.create(intent(), "default", "q", spec(**fields))


async def test_exactly_the_count_is_given_out(tmp_path):
    async with open_engine(tmp_path) as opened:
        await create(opened)
        assert await spend_all(opened) == COUNT


async def test_a_clean_restart_keeps_the_count(tmp_path):
    clock = FakeClock()
    async with open_engine(tmp_path, clock) as opened:
        await create(opened)
        await use(opened, 5)
        await opened.engine.leases.close()
    async with open_engine(tmp_path, clock) as opened:
        assert await left(opened) == COUNT - 5
        assert await spend_all(opened) == COUNT - 5


@pytest.mark.parametrize("used", [0, 1, BLOCK - 1, BLOCK, BLOCK + 1, COUNT // 2])
async def test_a_crash_gives_nothing_back_and_takes_at_most_a_block_and_a_half(tmp_path, used):
    clock = FakeClock()
    async with open_engine(tmp_path, clock) as opened:
        await create(opened)
        for _ in range(used):
            await use(opened)
        await opened.crash()
    async with open_engine(tmp_path, clock) as opened:
        again = await spend_all(opened)
    assert COUNT - used - MOST_LEASED <= again <= COUNT - used


async def test_two_processes_on_one_store_cannot_spend_more_than_one(tmp_path):
    clock = FakeClock()
    async with open_engine(tmp_path, clock) as one, open_engine(tmp_path, clock) as two:
        await create(one)
        await two.engine.quotas.reload()
        spent = 0
        for _ in range(COUNT):
            for opened in (one, two):
                try:
                    await use(opened)
                    spent += 1
                except ResourceExhausted:
                    continue
        assert COUNT - 2 * MOST_LEASED <= spent <= COUNT


async def test_what_an_idle_process_has_leased_comes_back_after_a_minute(tmp_path):
    clock = FakeClock()
    async with open_engine(tmp_path, clock) as one, open_engine(tmp_path, clock) as two:
        await create(one)
        await two.engine.quotas.reload()
        await use(one)
        move_us(clock, 60_000_001)
        await one.tick()
        assert await spend_all(two) >= COUNT - 1


@pytest.mark.parametrize(("early_us", "admitted"), [(1, False), (0, True), (-1, True)])
async def test_a_token_is_there_when_it_is_due_and_not_before(tmp_path, early_us, admitted):
    clock = FakeClock()
    async with open_engine(tmp_path, clock) as opened:
        await create(opened)
        await spend_all(opened)
        with pytest.raises(ResourceExhausted) as caught:
            await use(opened)
        wait_us = round(caught.value.retry_after_s * 1_000_000)
        assert wait_us == DAY_US // COUNT
        move_us(clock, wait_us - early_us)
        assert await spend_all(opened) == (1 if admitted else 0)


async def test_a_clock_that_goes_back_locks_nobody_out_for_longer_than_a_period(tmp_path):
    clock = FakeClock()
    async with open_engine(tmp_path, clock) as opened:
        await create(opened)
        await spend_all(opened)
        move_us(clock, -10 * 365 * DAY_US)
        with pytest.raises(ResourceExhausted) as caught:
            await use(opened)
        assert caught.value.retry_after_s <= 86_400
        move_us(clock, 2 * DAY_US)
        await use(opened, COUNT - MOST_LEASED)


async def test_a_leap_of_the_clock_gives_one_burst(tmp_path):
    clock = FakeClock()
    async with open_engine(tmp_path, clock) as opened:
        await create(opened)
        await spend_all(opened)
        move_us(clock, 1_000 * DAY_US)
        assert await spend_all(opened) == COUNT


async def test_a_flood_that_is_refused_writes_nothing(tmp_path):
    async with open_engine(tmp_path) as opened:
        await create(opened)
        await spend_all(opened)
        before = await opened.store.revision()
        for _ in range(1_000):
            with pytest.raises(ResourceExhausted):
                await use(opened)
        assert await opened.store.revision() == before


async def test_many_who_come_at_once_share_a_transaction(tmp_path):
    async with open_engine(tmp_path) as opened:
        await create(opened)
        before = await opened.store.revision()
        await asyncio.gather(*(use(opened, principal=f"dns:h{n}.example.org") for n in range(200)))
        assert await opened.store.revision() - before <= 3


async def test_a_cost_above_a_block_is_leased_at_once(tmp_path):
    async with open_engine(tmp_path) as opened:
        await create(opened)
        await use(opened, 10 * BLOCK)
        assert await left(opened) == COUNT - 10 * BLOCK


async def test_a_cost_above_the_burst_never_is(tmp_path):
    async with open_engine(tmp_path) as opened:
        await create(opened)
        with pytest.raises(ResourceExhausted) as caught:
            await use(opened, COUNT + 1)
        assert (caught.value.reason, caught.value.retry_after_s) == ("COST_ABOVE_QUOTA", None)


@pytest.mark.parametrize("count", [COUNT // 2, COUNT * 2])
async def test_what_was_spent_stays_spent_under_another_count(tmp_path, count):
    async with open_engine(tmp_path) as opened:
        await create(opened)
        await use(opened, 100)
        quota = await opened.engine.quotas.get("default", "q")
        fields = {"windows": (Window(count, DAY_US),)}
        await opened.engine.quotas.update(intent(), "default", "q", fields, quota.etag)
        await opened.tick()  # what was leased under the old count is put back
        assert await left(opened) == count - 100


async def test_a_shared_count_is_one_for_all(tmp_path):
    async with open_engine(tmp_path) as opened:
        await create(opened, subject="")
        for n in range(10):
            await use(opened, COUNT // 10, f"dns:h{n}.example.org")
        with pytest.raises(ResourceExhausted):
            await use(opened, principal="dns:late.example.org")


async def test_a_count_that_is_full_again_leaves_no_row(tmp_path):
    clock = FakeClock()
    async with open_engine(tmp_path, clock) as opened:
        await create(opened)
        await use(opened, 10)
        move_us(clock, 61_000_000)
        await opened.tick()
        assert query(tmp_path / "vault.db", "SELECT count(*) FROM records WHERE kind = ?", (KIND,)) == [(1,)]
        move_us(clock, DAY_US)
        await opened.tick()
        assert query(tmp_path / "vault.db", "SELECT count(*) FROM records WHERE kind = ?", (KIND,)) == [(0,)]
        await opened.ledger.check(deep=True)


async def test_a_sealed_server_counts_nothing_and_counts_again_when_it_is_unsealed(tmp_path):
    async with open_engine(tmp_path) as opened:
        await create(opened)
        await use(opened, 10)
        await opened.seal.seal()
        await use(opened, 5)
        await opened.seal.unseal(None)
        assert COUNT - 10 - MOST_LEASED <= await left(opened) <= COUNT - 10


async def test_quotas_are_in_force_after_a_restart(tmp_path):
    clock = FakeClock()
    async with open_engine(tmp_path, clock) as opened:
        await create(opened, count=3)
    async with open_engine(tmp_path, clock) as opened:
        assert await spend_all(opened) == 3


async def test_another_process_puts_a_quota_in_force_with_its_next_poll(tmp_path):
    async with open_engine(tmp_path) as one, open_engine(tmp_path) as two:
        await create(one, count=1)
        await two.engine.feed.poll()
        await two.engine.quotas.follow()
        assert await spend_all(two) == 1


async def test_quotas_of_a_deleted_vault_are_swept(tmp_path):
    clock = FakeClock()
    async with open_engine(tmp_path, clock) as opened:
        await opened.engine.vaults.create(intent(), "team", "", {})
        await opened.engine.quotas.create(intent(), "team", "q", spec(resource="vaults/team"))
        await opened.engine.vaults.delete(intent(), "team", "")
        move_us(clock, 3_600_000_001)
        await opened.tick()
        with pytest.raises(NotFound):
            await opened.engine.quotas.get("team", "q")
        assert ("team", "") not in opened.engine.limiter.places


async def test_explain_tells_what_is_left_in_each_quota_that_applies(tmp_path):
    async with open_engine(tmp_path) as opened:
        await create(opened)
        await use(opened, 7)
        found = await opened.engine.quotas.explain(APP, SIGN, ("default", "k"))
        names = [quota.name if quota.revision else quota.id for quota, _ in found]
        assert names == ["limits.asymmetric", "vaults/default/quotas/q"]
        assert found[1][1][0].left == COUNT - 7
        assert await opened.engine.quotas.explain(APP, SIGN, ("other", "")) == found[:1]


async def test_a_durable_window_of_the_configuration_survives_a_restart(tmp_path):
    limits = {"asymmetric": {"per_second": 100, "burst": 100, "windows": [{"count": 64, "period_s": 86_400}]}}
    clock = FakeClock()

    async def ask(opened) -> int:
        for asked in range(200):
            try:
                lease = opened.engine.limiter.admit(APP, SIGN, 1)
                if lease is not None:
                    await spend(lease, lambda: opened.engine.limiter.admit(APP, SIGN, 1))
            except ResourceExhausted:
                return asked
        raise AssertionError("never refused")

    async with open_engine(tmp_path, clock, limits=limits) as opened:
        assert await ask(opened) == 64
        await opened.engine.leases.close()
    async with open_engine(tmp_path, clock, limits=limits) as opened:
        assert await ask(opened) == 0


@pytest.mark.parametrize("period_s", [1, 60])
def test_windows_of_the_configuration_have_different_periods(tmp_path, period_s):
    windows = [{"count": 5, "period_s": period_s}, {"count": 6, "period_s": period_s}]
    with pytest.raises(ValueError, match="period of its own"):
        engine_settings(tmp_path, limits={"read": {"per_second": 5, "burst": 5, "windows": windows}})
