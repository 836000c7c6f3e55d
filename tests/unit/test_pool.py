"""The pool of threads: lanes, deadlines, bounds, batches and the end, with a clock that the tests turn."""

from __future__ import annotations

import asyncio
import os
import threading

import pytest

from vaultd.backends.background import NICE
from vaultd.backends.base import Lane
from vaultd.backends.pool import Call, WorkPool
from vaultd.errors import DeadlineExceeded, InvalidArgument, ResourceExhausted, Unavailable

PATIENCE_S = 60


class FakeClock:
    """Seconds that pass when a test says so."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


class Gate:
    """A call that occupies its thread until the test lets it go."""

    def __init__(self) -> None:
        self._begun = threading.Event()
        self._open = threading.Event()

    def pass_through(self) -> str:
        self._begun.set()
        assert self._open.wait(PATIENCE_S)
        return "passed"

    async def wait_until_begun(self) -> None:
        assert await asyncio.to_thread(self._begun.wait, PATIENCE_S)

    @property
    def has_begun(self) -> bool:
        return self._begun.is_set()

    def open(self) -> None:
        self._open.set()


@pytest.fixture
def clock():
    return FakeClock()


@pytest.fixture
async def make_pool(clock):
    pools = []

    def make(threads=1, max_queued=1000):
        pool = WorkPool(threads, max_queued, clock)
        pools.append(pool)
        return pool

    yield make
    for pool in pools:
        await pool.close()


async def occupy(pool, lane=Lane.ONLINE):
    """Put a gate on one thread; return it and the future of its passing."""
    gate = Gate()
    passing = pool.submit([Call("gate", gate.pass_through, ())], None, lane)
    await gate.wait_until_begun()
    return gate, passing


async def measure(pool, clock, cost_class, seconds):
    """Let the pool see that calls of a class take this long."""

    def take_time():
        clock.now += seconds

    await pool.run(Call(cost_class, take_time, ()), None)


async def test_call_returns_what_its_function_returns(make_pool):
    assert await make_pool().run(Call("add", int.__add__, (2, 3)), None) == 5


async def test_calls_run_off_the_event_loop(make_pool):
    assert await make_pool().run(Call("ident", threading.get_ident, ()), None) != threading.get_ident()


async def test_many_calls_answer_in_order(make_pool):
    calls = [Call("square", pow, (number, 2)) for number in range(1000)]
    assert await make_pool(threads=3).submit(calls, None) == [number**2 for number in range(1000)]


async def test_no_calls_have_no_answers(make_pool):
    assert await make_pool().submit([], None) == []


async def test_vaultd_error_is_raised_by_run_and_an_outcome_of_submit(make_pool):
    refusal = InvalidArgument("REASON", "text")

    def refuse():
        raise refusal

    pool = make_pool()
    with pytest.raises(InvalidArgument) as caught:
        await pool.run(Call("refuse", refuse, ()), None)
    assert caught.value is refusal
    calls = [Call("add", int.__add__, (1, 1)), Call("refuse", refuse, ()), Call("add", int.__add__, (2, 2))]
    assert await pool.submit(calls, None) == [2, refusal, 4]


async def test_unexpected_exception_is_that_of_its_future_and_the_thread_goes_on(make_pool):
    pool = make_pool(threads=1)
    with pytest.raises(ZeroDivisionError):
        await pool.run(Call("divide", divmod, (1, 0)), None)
    assert await pool.run(Call("divide", divmod, (7, 2)), None) == (3, 1)


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit, GeneratorExit, StopIteration])
async def test_exception_that_would_stop_a_loop_is_wrapped(make_pool, error):
    def end():
        raise error

    pool = make_pool(threads=1)
    with pytest.raises(RuntimeError) as caught:
        await pool.run(Call("end", end, ()), None)
    assert isinstance(caught.value.__cause__, error)
    assert await pool.run(Call("add", int.__add__, (1, 1)), None) == 2


async def test_unexpected_exception_in_a_batch_drops_the_rest_of_it(make_pool):
    performed = []
    calls = [Call("append", performed.append, (number,)) for number in range(40)]
    calls[2] = Call("divide", divmod, (1, 0))
    pool = make_pool(threads=1)
    with pytest.raises(ZeroDivisionError):
        await pool.submit(calls, None)
    await pool.run(Call("append", performed.append, ("after",)), None, Lane.BATCH)
    assert performed == [0, 1, "after"]
    assert pool.queue_depth == 0


async def test_lanes_are_served_in_their_order(make_pool):
    pool = make_pool(threads=1)
    gate, passing = await occupy(pool)
    performed = []
    waiting = [
        pool.submit([Call("note", performed.append, (lane,))], None, lane)
        for lane in (Lane.BATCH, Lane.ONLINE, Lane.BATCH, Lane.ONLINE)
    ]
    gate.open()
    await asyncio.gather(passing, *waiting)
    assert performed == [Lane.ONLINE, Lane.ONLINE, Lane.BATCH, Lane.BATCH]


async def test_batch_gives_way_to_an_online_call_between_two_items(make_pool):
    pool = make_pool(threads=1)
    gate, performed = Gate(), []
    calls = [Call("note", performed.append, (number,)) for number in range(8)]
    calls[3] = Call("gate", gate.pass_through, ())
    batch = pool.submit(calls, None, Lane.BATCH)
    await gate.wait_until_begun()
    online = pool.submit([Call("note", performed.append, ("online",))], None, Lane.ONLINE)
    gate.open()
    await asyncio.gather(batch, online)
    assert performed == [0, 1, 2, "online", 4, 5, 6, 7]


async def test_calls_that_are_begun_together_give_way_too_and_wait_again(make_pool, clock):
    pool = make_pool(threads=1)
    await measure(pool, clock, "note", 0.001)
    gate, performed = Gate(), []
    calls = [Call("note", performed.append, (number,)) for number in range(8)]
    calls[3] = Call("note", gate.pass_through, ())
    batch = pool.submit(calls, None, Lane.BATCH)
    await gate.wait_until_begun()
    assert pool.depths()[Lane.BATCH] == 3  # five of a millisecond have begun
    seen = []
    online = pool.submit([Call("look", lambda: seen.append(pool.depths()[Lane.BATCH]), ())], None, Lane.ONLINE)
    gate.open()
    await asyncio.gather(batch, online)
    assert seen == [4]
    assert performed == [0, 1, 2, 4, 5, 6, 7]
    assert pool.queue_depth == 0


@pytest.mark.parametrize("threads", [1, 2])
async def test_key_generation_takes_no_thread_from_others(make_pool, threads):
    pool = make_pool(threads=threads)
    first, passing = await occupy(pool, Lane.KEY_GENERATION)
    second = Gate()
    waiting = pool.submit([Call("gate", second.pass_through, ())], None, Lane.KEY_GENERATION)
    for _ in range(50):
        assert await pool.run(Call("add", int.__add__, (1, 1)), None) == 2
    assert not second.has_begun
    first.open()
    await second.wait_until_begun()
    second.open()
    assert await passing == await waiting == ["passed"]


async def test_keys_are_generated_where_the_system_lets_no_thread_stand_back(make_pool, monkeypatch):
    def refuse(*_):
        raise PermissionError

    for call in ("setpriority", "sched_getscheduler"):
        monkeypatch.setattr(os, call, refuse)
    pool = make_pool(threads=2)
    assert await pool.run(Call("add", int.__add__, (1, 1)), None, Lane.KEY_GENERATION) == 2


async def test_keys_are_generated_while_all_other_threads_are_busy(make_pool):
    pool = make_pool(threads=1)
    gate, passing = await occupy(pool)
    assert await pool.run(Call("add", int.__add__, (1, 1)), None, Lane.KEY_GENERATION) == 2
    gate.open()
    assert await passing == ["passed"]


async def test_the_kernel_gives_key_generation_what_others_leave(make_pool):
    def nice():
        return os.getpriority(os.PRIO_PROCESS, threading.get_native_id())

    pool, ours = make_pool(threads=2), nice()
    assert await pool.run(Call("nice", nice, ()), None) == ours
    assert await pool.run(Call("nice", nice, ()), None, Lane.KEY_GENERATION) == min(19, ours + NICE)


async def test_batch_is_spread_over_the_threads(make_pool):
    meeting = threading.Barrier(2)
    calls = [Call("add", int.__add__, (1, 1))] * 32
    calls[0] = calls[16] = Call("meet", meeting.wait, (PATIENCE_S,))
    outcomes = await make_pool(threads=2).submit(calls, None)
    assert {outcomes[0], outcomes[16]} == {0, 1}


async def test_full_queue_refuses_at_once_and_takes_work_again_later(make_pool):
    pool = make_pool(threads=1, max_queued=3)
    gate, passing = await occupy(pool)
    waiting = pool.submit([Call("add", int.__add__, (1, 1))] * 3, None, Lane.ONLINE)
    assert pool.queue_depth == 3
    for lane in Lane:
        with pytest.raises(ResourceExhausted) as caught:
            await pool.run(Call("add", int.__add__, (1, 1)), None, lane)
        assert caught.value.reason == "OVERLOADED"
        assert caught.value.retry_after_s > 0
    gate.open()
    assert (await passing, await waiting) == (["passed"], [2, 2, 2])
    assert pool.queue_depth == 0
    assert await pool.run(Call("add", int.__add__, (1, 1)), None) == 2


async def test_batch_that_does_not_fit_leaves_nothing_in_the_queue(make_pool):
    pool = make_pool(threads=1, max_queued=10)
    with pytest.raises(ResourceExhausted):
        pool.submit([Call("add", int.__add__, (1, 1))] * 11, None)
    assert pool.queue_depth == 0
    assert await pool.submit([Call("add", int.__add__, (1, 1))] * 10, None) == [2] * 10


async def test_call_after_its_deadline_is_refused_unperformed(make_pool, clock):
    performed = []
    pool = make_pool()
    for deadline in (clock.now, clock.now - 1):
        with pytest.raises(DeadlineExceeded):
            await pool.run(Call("note", performed.append, (1,)), deadline)
    await pool.run(Call("note", performed.append, (2,)), clock.now + 1)
    assert performed == [2]


async def test_call_whose_deadline_passes_in_the_queue_is_dropped(make_pool, clock):
    pool = make_pool(threads=1)
    gate, passing = await occupy(pool)
    performed = []
    late = pool.submit([Call("note", performed.append, ("late",))], clock.now + 1, Lane.ONLINE)
    soon = pool.submit([Call("note", performed.append, ("soon",))], clock.now + 3, Lane.ONLINE)
    clock.now += 2
    gate.open()
    await passing
    (outcome,) = await late
    assert isinstance(outcome, DeadlineExceeded)
    assert await soon == [None]
    assert performed == ["soon"]


async def test_items_of_a_batch_run_until_its_deadline(make_pool, clock):
    def take_a_second():
        clock.now += 1
        return "done"

    outcomes = await make_pool(threads=1).submit([Call("second", take_a_second, ())] * 5, clock.now + 3)
    assert outcomes[:3] == ["done"] * 3
    assert [type(outcome) for outcome in outcomes[3:]] == [DeadlineExceeded] * 2


async def test_cancelled_call_is_dropped_unperformed(make_pool):
    pool = make_pool(threads=1)
    gate, passing = await occupy(pool)
    performed = []
    waiting = pool.submit([Call("note", performed.append, ("cancelled",))], None, Lane.ONLINE)
    after = pool.submit([Call("note", performed.append, ("after",))], None, Lane.ONLINE)
    waiting.cancel()
    gate.open()
    await asyncio.gather(passing, after)
    assert performed == ["after"]
    assert pool.queue_depth == 0


async def test_deadline_that_the_work_in_front_uses_up_is_refused_at_once(make_pool, clock):
    pool = make_pool(threads=1)
    await measure(pool, clock, "sign", 1.0)
    gate, passing = await occupy(pool)
    performed = []
    calls = [Call("sign", performed.append, (number,)) for number in range(3)]
    waiting = pool.submit(calls, None, Lane.ONLINE)
    with pytest.raises(ResourceExhausted) as caught:
        await pool.run(Call("sign", performed.append, ("refused",)), clock.now + 3.9)
    assert caught.value.reason == "OVERLOADED"
    assert caught.value.retry_after_s == pytest.approx(3.0)
    accepted = pool.submit([Call("sign", performed.append, ("accepted",))], clock.now + 4.1, Lane.ONLINE)
    gate.open()
    await asyncio.gather(passing, waiting, accepted)
    assert performed == [0, 1, 2, "accepted"]


async def test_work_in_front_is_shared_by_the_threads(make_pool, clock):
    pool = make_pool(threads=2)
    await measure(pool, clock, "sign", 1.0)
    gates = [await occupy(pool), await occupy(pool)]
    waiting = pool.submit([Call("sign", int, ())] * 4, None, Lane.ONLINE)
    with pytest.raises(ResourceExhausted) as caught:
        await pool.run(Call("sign", int, ()), clock.now + 2.9)
    assert caught.value.retry_after_s == pytest.approx(2.0)
    accepted = pool.submit([Call("sign", int, ())], clock.now + 3.1, Lane.ONLINE)
    for gate, _ in gates:
        gate.open()
    await asyncio.gather(waiting, accepted, *(passing for _, passing in gates))


async def test_lanes_behind_are_not_work_in_front(make_pool, clock):
    pool = make_pool(threads=1)
    await measure(pool, clock, "sign", 1.0)
    gate, passing = await occupy(pool)
    batch = pool.submit([Call("sign", int, ())] * 5, None, Lane.BATCH)
    online = pool.submit([Call("sign", int, ())], clock.now + 0.5, Lane.ONLINE)
    with pytest.raises(ResourceExhausted):
        await pool.run(Call("sign", int, ()), clock.now + 5.5, Lane.KEY_GENERATION)
    gate.open()
    await asyncio.gather(passing, batch, online)
    assert await online == [0]


async def test_estimates_follow_what_is_measured(make_pool, clock):
    pool = make_pool(threads=1)
    await measure(pool, clock, "sign", 8.0)
    for _ in range(30):
        await measure(pool, clock, "sign", 1.0)
    gate, passing = await occupy(pool)
    waiting = pool.submit([Call("sign", int, ())], None, Lane.ONLINE)
    with pytest.raises(ResourceExhausted) as caught:
        await pool.run(Call("sign", int, ()), clock.now + 1.5)
    assert caught.value.retry_after_s == pytest.approx(1.0, abs=0.02)
    gate.open()
    await asyncio.gather(passing, waiting)


async def test_one_stalled_call_hardly_moves_the_estimate(make_pool, clock):
    pool = make_pool(threads=1)
    await measure(pool, clock, "sign", 1.0)
    await measure(pool, clock, "sign", 3600.0)
    gate, passing = await occupy(pool)
    waiting = pool.submit([Call("sign", int, ())], None, Lane.ONLINE)
    with pytest.raises(ResourceExhausted) as caught:
        await pool.run(Call("sign", int, ()), clock.now + 2.0)
    assert caught.value.retry_after_s == pytest.approx(1.6)
    gate.open()
    await asyncio.gather(passing, waiting)


async def test_estimate_alone_never_refuses_a_single_call(make_pool, clock):
    pool = make_pool(threads=1)
    await measure(pool, clock, "sign", 3600.0)
    assert await pool.run(Call("sign", int.__add__, (1, 1)), clock.now + 0.1) == 2


async def test_estimate_alone_does_not_refuse_a_batch_for_ever(make_pool, clock):
    pool = make_pool(threads=1)
    await measure(pool, clock, "sign", 10.0)
    refusals = 0
    while True:
        try:
            outcomes = await pool.submit([Call("sign", int.__add__, (1, 1))] * 2, clock.now + 1)
        except ResourceExhausted:
            refusals += 1
            continue
        break
    assert outcomes == [2, 2]
    assert 0 < refusals < 30


async def test_results_that_come_together_wake_the_loop_once(make_pool, monkeypatch):
    pool = make_pool(threads=1)
    gate, passing = await occupy(pool)
    loop = asyncio.get_running_loop()
    wake_up, wake_ups = loop.call_soon_threadsafe, []

    def count_wake_up(*arguments):
        wake_ups.append(arguments)
        return wake_up(*arguments)

    monkeypatch.setattr(loop, "call_soon_threadsafe", count_wake_up)
    waiting = [pool.submit([Call("add", int.__add__, (1, 1))], None, Lane.ONLINE) for _ in range(100)]
    last = Gate()
    passing_last = pool.submit([Call("gate", last.pass_through, ())], None, Lane.BATCH)
    gate.open()
    # The loop stands still here until the one thread has announced all the others.
    assert last._begun.wait(PATIENCE_S)
    assert len(wake_ups) == 1
    last.open()
    assert await asyncio.gather(*waiting) == [[2]] * 100
    assert await passing == await passing_last == ["passed"]


async def test_a_thread_that_wakes_the_loop_keeps_nobody_from_the_queue(make_pool, monkeypatch):
    pool = make_pool(threads=1)
    loop = asyncio.get_running_loop()
    wake_up, waking, waked = loop.call_soon_threadsafe, threading.Event(), threading.Event()

    def wake_up_slowly(*arguments):
        waking.set()
        assert waked.wait(PATIENCE_S)
        return wake_up(*arguments)

    monkeypatch.setattr(loop, "call_soon_threadsafe", wake_up_slowly)
    first = pool.submit([Call("add", int.__add__, (1, 1))], None, Lane.ONLINE)
    assert waking.wait(PATIENCE_S)
    second = pool.submit([Call("add", int.__add__, (1, 2))], None, Lane.ONLINE)
    assert pool.depths()[Lane.ONLINE] == 1
    waked.set()
    assert await asyncio.gather(first, second) == [[2], [3]]


async def test_closing_fails_what_waits_and_finishes_what_has_begun(make_pool):
    pool = make_pool(threads=1)
    before = set(threading.enumerate())
    gate, passing = await occupy(pool)
    making, made = await occupy(pool, Lane.KEY_GENERATION)
    threads = {thread for thread in threading.enumerate() if thread.name.startswith("vaultd-")} - before
    assert len(threads) == 2
    performed = []
    waiting = [
        pool.submit([Call("note", performed.append, (lane,))] * 20, None, lane)
        for lane in (Lane.ONLINE, Lane.BATCH, Lane.KEY_GENERATION)
    ]
    closing = asyncio.ensure_future(pool.close())
    for future in waiting:
        with pytest.raises(Unavailable):
            await future
    assert not closing.done()
    gate.open()
    making.open()
    await closing
    assert await passing == await made == ["passed"]
    assert performed == []
    assert pool.queue_depth == 0
    assert not any(thread.is_alive() for thread in threads)


async def test_closing_stops_a_batch_between_two_items(make_pool):
    pool = make_pool(threads=1)
    gate, performed = Gate(), []
    calls = [Call("note", performed.append, (number,)) for number in range(8)]
    calls[3] = Call("gate", gate.pass_through, ())
    batch = pool.submit(calls, None)
    await gate.wait_until_begun()
    behind = pool.submit([Call("note", performed.append, ("behind",))], None)
    closing = asyncio.ensure_future(pool.close())
    with pytest.raises(Unavailable):
        await behind
    gate.open()
    await closing
    with pytest.raises(Unavailable):
        await batch
    assert performed == [0, 1, 2]


async def test_closed_pool_takes_nothing_and_closes_again(make_pool):
    pool = make_pool()
    await pool.run(Call("add", int.__add__, (1, 1)), None)
    await pool.close()
    await pool.close()
    with pytest.raises(Unavailable):
        await pool.run(Call("add", int.__add__, (1, 1)), None)


async def test_pool_that_never_worked_has_no_threads_to_close(make_pool):
    before = threading.active_count()
    pool = make_pool(threads=4)
    assert threading.active_count() == before
    await pool.close()
    with pytest.raises(Unavailable):
        await pool.run(Call("add", int.__add__, (1, 1)), None)


async def test_pool_serves_one_event_loop(make_pool):
    pool = make_pool()
    await pool.run(Call("add", int.__add__, (1, 1)), None)

    def use_from_another_loop():
        asyncio.run(pool.run(Call("add", int.__add__, (1, 1)), None))

    with pytest.raises(RuntimeError):
        await asyncio.to_thread(use_from_another_loop)


@pytest.mark.parametrize(("threads", "max_queued"), [(0, 1), (-1, 1), (1, 0)])
def test_pool_without_threads_or_room_cannot_be_made(threads, max_queued):
    with pytest.raises(ValueError, match="at least one thread"):
        WorkPool(threads, max_queued)
