"""Long work on the event loop goes in turns: one a round, in the order of asking, and never a round without others.

Single calls come first, and cannot keep long work away for ever.
"""

from __future__ import annotations

import asyncio
from itertools import pairwise
from typing import Any

import pytest

from vaultd.engine.turns import (
    CALL_S,
    FREED_PER_LOOK,
    LEAST_PART,
    LONGEST_PAUSE_S,
    RECENT_S,
    ROUNDS_BETWEEN,
    SHORT_TURN_S,
    TURN_S,
    BulkLane,
)

ROUND_S = 0.000_01


class Work:
    """Lists that are worked through with a clock of their own, which also moves a little with each round of the loop."""

    def __init__(self) -> None:
        self.now_s = 100.0
        self.lane = BulkLane(lambda: self.now_s)
        self.done: list[str] = []
        self.rounds: list[int] = []
        self.round = 0
        self.piece_s = TURN_S / 3
        self.turns: list[tuple[float, float]] = []
        """When each began, and how long it was."""
        self.calls_s = 0.0
        """A single call comes each time that so much has passed."""
        self.call_work_s = 0.0
        """What the loop does for it."""
        self._called_s = self.now_s

    async def count_rounds(self) -> None:
        while True:
            self.round += 1
            self.now_s += ROUND_S
            if self.calls_s and self.now_s - self._called_s >= self.calls_s:
                self._called_s = self.now_s
                self.lane.single(self.now_s)
                self.now_s += self.call_work_s
            await asyncio.sleep(0)

    async def through(self, name: str, pieces: int) -> None:
        last = -1
        for _ in range(pieces):
            if self.lane.over():
                await self.lane.next_turn()
            if self.round != last:
                last = self.round
                self.turns.append((self.now_s, 0.0))
            self.now_s += self.piece_s
            began, length = self.turns[-1]
            self.turns[-1] = (began, length + self.piece_s)
            self.done.append(name)
            self.rounds.append(self.round)

    async def run(self, **pieces: int) -> None:
        counting = asyncio.create_task(self.count_rounds())
        await asyncio.gather(*(self.through(name, count) for name, count in pieces.items()))
        counting.cancel()

    def share(self) -> float:
        """The part of the time that turns had, from the second to the last."""
        (first, _), (last, _) = self.turns[1], self.turns[-1]
        return sum(length for _, length in self.turns[1:-1]) / (last - first)

    def pauses(self) -> list[float]:
        return [later - (began + length) for (began, length), (later, _) in pairwise(self.turns)]


@pytest.fixture
def work(monkeypatch: pytest.MonkeyPatch) -> Work:
    """Timers of the loop go by the clock of the work, so that nothing waits in earnest."""
    made = Work()

    def call_later(loop: Any, delay_s: float, callback: Any, *arguments: Any) -> None:
        due_s = made.now_s + delay_s

        def look() -> None:
            if made.now_s >= due_s:
                callback(*arguments)
            else:
                loop.call_soon(look)

        loop.call_soon(look)

    monkeypatch.setattr(asyncio.BaseEventLoop, "call_later", call_later)
    return made


async def test_a_short_list_never_waits(work):
    await work.run(a=3)
    assert work.rounds == [work.rounds[0]] * 3


async def test_all_lists_together_have_one_turn_a_round_and_others_have_rounds_between(work):
    await work.run(a=12, b=12, c=12)
    by_round = {number: work.rounds.count(number) for number in set(work.rounds)}
    assert max(by_round.values()) <= 4  # a turn, and the piece within which it ended
    apart = sorted(by_round)
    assert all(later - earlier > ROUNDS_BETWEEN for earlier, later in pairwise(apart[1:]))


async def test_lists_of_one_length_end_together(work):
    await work.run(a=60, b=60, c=60)
    ends = [max(at for at, name in enumerate(work.done) if name == which) for which in "abc"]
    assert max(ends) - min(ends) <= 12  # a turn of each


async def test_a_short_list_overtakes_long_ones(work):
    await work.run(a=300, b=300, c=5)
    assert max(at for at, name in enumerate(work.done) if name == "c") < 40


async def test_who_is_cancelled_while_it_waits_holds_up_nobody(work):
    first = asyncio.create_task(work.through("a", 30))
    second = asyncio.create_task(work.through("b", 30))
    third = asyncio.create_task(work.through("c", 30))
    while work.done.count("b") < 5:  # noqa: ASYNC110  # rounds of the loop are what is tested
        await asyncio.sleep(0)
    second.cancel()
    await asyncio.gather(first, third)
    assert (work.done.count("a"), work.done.count("c")) == (30, 30)
    assert work.done.count("b") < 30


async def test_nobody_waits_longer_than_a_few_rounds_where_no_single_call_comes(work):
    await work.run(a=300)
    assert max(work.pauses()) < 10 * ROUND_S
    assert work.share() > 0.9


async def test_turns_are_short_while_single_calls_come_and_long_again_after_them(work):
    work.piece_s = SHORT_TURN_S / 2
    work.lane.single(work.now_s)
    await work.run(a=200)
    lengths = [length for began, length in work.turns[1:-1] if began < 100.0 + RECENT_S]
    assert max(lengths) <= SHORT_TURN_S + work.piece_s
    assert max(length for _, length in work.turns) >= TURN_S


async def test_each_single_call_puts_the_next_turn_off_and_no_further_than_the_longest_pause(work):
    work.piece_s = SHORT_TURN_S
    for calls in (1, 3, 20):
        work.turns.clear()
        for _ in range(calls):
            work.lane.single(work.now_s)
        await work.run(a=4)
        assert max(work.pauses()) >= min(calls * CALL_S, LONGEST_PAUSE_S) - 2 * SHORT_TURN_S
        assert max(work.pauses()) <= LONGEST_PAUSE_S + 3 * ROUND_S
        work.now_s += 1


async def test_calls_that_came_in_crowds_are_forgotten_soon_after_the_last(work):
    for _ in range(100_000):
        work.lane.single(work.now_s)
    work.now_s += LONGEST_PAUSE_S
    await work.run(a=300)
    assert max(work.pauses()) < 10 * ROUND_S


async def test_long_work_has_its_part_of_a_loop_that_single_calls_would_fill(work):
    work.piece_s = SHORT_TURN_S / 4
    work.calls_s = work.call_work_s = 0.000_4
    await work.run(a=600)
    assert 0.05 < work.share() < 0.12


async def test_a_turn_is_longer_where_each_round_of_the_loop_is_long(work):
    work.piece_s = SHORT_TURN_S / 4
    work.calls_s = work.call_work_s = 0.010  # as with many calls in flight
    await work.run(a=200)
    late = [length for (_, length), pause in zip(work.turns[1:-1], work.pauses(), strict=False) if pause > 0.006]
    assert late
    assert all(length >= min(TURN_S, 0.006 / LEAST_PART) for length in late)
    assert max(late) < TURN_S + 3 * work.piece_s


async def test_few_single_calls_take_no_more_than_their_part(work):
    work.piece_s = SHORT_TURN_S / 4
    work.calls_s, work.call_work_s = 0.020, 0.000_4
    await work.run(a=4_000)
    assert work.share() > 0.7


async def test_who_is_cancelled_in_a_pause_leaves_the_lane_as_it_was(work):
    counting = asyncio.create_task(work.count_rounds())
    work.lane.single(work.now_s)
    alone = asyncio.create_task(work.lane.next_turn())
    await asyncio.sleep(0)
    alone.cancel()
    await asyncio.sleep(0)
    await work.lane.next_turn()
    await work.lane.next_turn()
    counting.cancel()
    assert not work.lane._waiting


async def test_long_lists_are_let_go_in_turns(work):
    lists = [list(range(10_000)), list(range(1_300)), [1]]
    counting = asyncio.create_task(work.count_rounds())
    await work.lane.let_go(*lists)
    counting.cancel()
    assert max(map(len, lists)) <= FREED_PER_LOOK
