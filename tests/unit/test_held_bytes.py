"""What streams of operations hold together: bounds, turns, and even parts."""

from __future__ import annotations

import asyncio
import random
from contextlib import ExitStack

import pytest

from vaultd.errors import ResourceExhausted
from vaultd.interceptors.held_bytes import HeldBytes


async def woken(*waiting: asyncio.Task[None]) -> int:
    """How many of these go on, once nobody else will."""
    await asyncio.sleep(0)
    return sum(task.done() for task in waiting)


async def test_at_its_bound_a_principal_waits_and_others_do_not():
    held = HeldBytes(per_principal=10, total=100)
    with held.share("a") as a, held.share("b") as b:
        a.add(10)
        assert not a.may_read
        assert not a.may_begin
        assert b.may_read
        waiter = asyncio.create_task(a.turn())
        assert await woken(waiter) == 0
        a.add(-1)
        await waiter
        assert a.may_read
        a.add(-9)


async def test_when_the_whole_is_used_up_who_has_less_than_an_even_part_goes_on():
    held = HeldBytes(per_principal=100, total=100)
    with held.share("a") as a, held.share("b") as b, held.share("c") as c:
        a.add(70)
        b.add(30)
        assert [share.may_read for share in (a, b, c)] == [False, True, True]
        b.add(4)
        assert [share.may_read for share in (a, b, c)] == [False, False, True]
        a.add(-40)
        assert [share.may_read for share in (a, b, c)] == [True, True, True]
        for share in (a, b, c):
            share.add(-share.held)


async def test_what_was_read_may_begin_however_much_of_it_waits():
    held = HeldBytes(per_principal=10, total=10)
    with held.share("a") as a, held.share("b") as b:
        a.add_message(15)
        b.add_message(15)
        assert not a.may_read
        assert a.may_begin
        assert b.may_begin
        for share in (a, b):
            share.add_message(-15)


async def test_what_is_given_back_lets_one_stream_of_each_principal_on_and_then_the_next():
    held = HeldBytes(per_principal=100, total=10)
    with held.share("a") as a, held.share("b") as b:
        a.add(5)
        b.add(5)
        of_a = [asyncio.create_task(a.turn()) for _ in range(3)]
        of_b = [asyncio.create_task(b.turn()) for _ in range(3)]
        assert await woken(*of_a, *of_b) == 0
        of_a[0].cancel()
        await asyncio.gather(of_a[0], return_exceptions=True)
        a.add(-1)
        assert (await woken(*of_a[1:]), await woken(*of_b)) == (1, 1)
        await asyncio.gather(*of_a[1:], *of_b)  # nothing more is given back: there is room still
        assert not held.waiting
        a.add(-4)
        b.add(-5)


async def test_what_is_twice_a_bound_is_refused_to_who_has_more_than_an_even_part():
    held = HeldBytes(per_principal=10, total=30)
    with ExitStack() as stack:
        shares = [stack.enter_context(held.share(str(n))) for n in range(7)]
        shares[0].add_message(20)
        shares[0].check()
        shares[0].add_message(1)
        with pytest.raises(ResourceExhausted):
            shares[0].check()
        shares[0].add_message(-21)
        for share in shares[:6]:
            share.add(11)
        with pytest.raises(ResourceExhausted):
            shares[0].check()
        shares[6].add(4)
        shares[6].check()
        for share in shares:
            share.add(-share.held)
    assert held.held == held.unread == 0


@pytest.mark.parametrize("seed", range(5))
async def test_everybody_comes_to_an_end_and_nothing_stays(seed):
    chooser = random.Random(seed)
    held = HeldBytes(per_principal=20, total=40)
    most = 0

    async def stream(principal: str) -> None:
        nonlocal most
        with held.share(principal) as share:
            for _ in range(20):
                while not share.may_read:
                    await share.turn()
                size = chooser.randint(1, 5)
                share.add_message(size)
                while not share.may_begin:
                    await share.turn()
                share.add(size)
                most = max(most, held.held)
                share.add_message(-size)
                await asyncio.sleep(0)
                share.add(-size)

    async with asyncio.timeout(60):
        await asyncio.gather(*(stream(f"p{n % 5}") for n in range(60)))
    assert held.held == held.unread == 0
    assert not held.waiting
    assert most < 60 * 10
