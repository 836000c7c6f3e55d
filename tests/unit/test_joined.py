"""Many who ask share a run that begins after all of them asked."""

import asyncio

import pytest

from vaultd.workers.joined import Joined


async def test_who_asks_while_a_run_is_under_way_gets_the_next_one_and_shares_it():
    begun, go, began = [], asyncio.Event(), asyncio.Event()

    async def act() -> None:
        begun.append(len(begun))
        began.set()
        await go.wait()

    joined = Joined(act)
    first = [asyncio.create_task(joined.run()) for _ in range(5)]
    await began.wait()
    later = [asyncio.create_task(joined.run()) for _ in range(5)]
    await asyncio.sleep(0)
    go.set()
    await asyncio.gather(*first, *later)
    assert begun == [0, 1]


async def test_a_run_that_fails_fails_for_those_who_wait_and_not_for_the_next():
    outcomes = [ValueError("first"), None]

    async def act() -> None:
        outcome = outcomes.pop(0)
        if outcome is not None:
            raise outcome

    joined = Joined(act)
    with pytest.raises(ValueError, match="first"):
        await joined.run()
    await joined.run()
