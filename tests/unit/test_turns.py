"""Long work on the event loop goes in turns: one a round, in the order of asking, and never a round without others."""

from __future__ import annotations

import asyncio
from itertools import pairwise

from vaultd.engine.turns import ROUNDS_BETWEEN, BulkLane

TURN_S = 1.0


class Work:
    """Lists that are worked through with a clock of their own: each piece takes a third of a turn."""

    def __init__(self) -> None:
        self.now_s = 0.0
        self.lane = BulkLane(TURN_S, lambda: self.now_s)
        self.done: list[str] = []
        self.rounds: list[int] = []
        self.round = 0

    async def count_rounds(self) -> None:
        while True:
            self.round += 1
            await asyncio.sleep(0)

    async def through(self, name: str, pieces: int) -> None:
        for _ in range(pieces):
            if self.lane.over():
                await self.lane.next_turn()
            self.now_s += TURN_S / 3
            self.done.append(name)
            self.rounds.append(self.round)

    async def run(self, **pieces: int) -> None:
        counting = asyncio.create_task(self.count_rounds())
        await asyncio.gather(*(self.through(name, count) for name, count in pieces.items()))
        counting.cancel()


async def test_a_short_list_never_waits():
    work = Work()
    await work.run(a=3)
    assert work.rounds == [work.rounds[0]] * 3


async def test_all_lists_together_have_one_turn_a_round_and_others_have_rounds_between():
    work = Work()
    await work.run(a=12, b=12, c=12)
    by_round = {number: work.rounds.count(number) for number in set(work.rounds)}
    assert max(by_round.values()) <= 4  # a turn, and the piece within which it ended
    apart = sorted(by_round)
    assert all(later - earlier > ROUNDS_BETWEEN for earlier, later in pairwise(apart[1:]))


async def test_lists_of_one_length_end_together():
    work = Work()
    await work.run(a=60, b=60, c=60)
    ends = [max(at for at, name in enumerate(work.done) if name == which) for which in "abc"]
    assert max(ends) - min(ends) <= 8


async def test_a_short_list_overtakes_long_ones():
    work = Work()
    await work.run(a=300, b=300, c=5)
    assert max(at for at, name in enumerate(work.done) if name == "c") < 40


async def test_who_is_cancelled_while_it_waits_holds_up_nobody():
    work = Work()
    first = asyncio.create_task(work.through("a", 30))
    second = asyncio.create_task(work.through("b", 30))
    third = asyncio.create_task(work.through("c", 30))
    while work.done.count("b") < 5:  # noqa: ASYNC110  # rounds of the loop are what is tested
        await asyncio.sleep(0)
    second.cancel()
    await asyncio.gather(first, third)
    assert (work.done.count("a"), work.done.count("c")) == (30, 30)
    assert work.done.count("b") < 30
