"""Counts that several processes share: exact where there is one, off by a block for each where there are more."""

from __future__ import annotations

import mmap
import multiprocessing
import os
import random
import signal
import tempfile
import time
from contextlib import contextmanager

import pytest

from vaultd.engine import shared_buckets
from vaultd.engine.buckets import TokenBucket, Window
from vaultd.engine.shared_buckets import STALE_NS, TABLE_BYTES, SharedCounts

SECOND = 1_000_000_000
UID = b"u" * 16
START = 10_000 * SECOND


def _seed() -> int:
    seed = random.randrange(2**32)
    print(f"seed {seed}")
    return seed


@contextmanager
def table():
    with tempfile.TemporaryFile() as file:
        file.truncate(TABLE_BYTES)
        with mmap.mmap(file.fileno(), 0) as memory:
            yield SharedCounts(memory, file.fileno())


@pytest.fixture
def counts():
    with table() as made:
        yield made


@pytest.mark.parametrize("window", [Window(10, 1_000_000), Window(1, 60_000_000, 5), Window(200, 1_000_000, 100)])
def test_one_process_gets_what_an_ordinary_bucket_gives(counts, window):
    chance = random.Random(_seed())
    shared, ordinary = counts.bucket(UID, "p", window), TokenBucket.of(window, 0)
    assert shared.block == 1  # with more, up to a block beside it
    now = START
    for _ in range(3_000):
        now += chance.choice([0, 0, 1_000, 10_000_000, STALE_NS, 3 * SECOND])
        cost = chance.choice([1, 1, 1, 2, window.burst // 3 + 1, window.burst, window.burst + 1])
        assert shared.take(cost, now) == pytest.approx(ordinary.take(cost, now), abs=1e-6)
        assert shared.left(now) == ordinary.left(now)


def test_what_is_left_is_off_by_a_block_at_most(counts):
    chance = random.Random(_seed())
    window = Window(200_000, 1_000_000, 400_000)
    shared, ordinary = counts.bucket(UID, "p", window), TokenBucket.of(window, 0)
    now = START
    for _ in range(3_000):
        now += chance.choice([0, 0, 1_000, 10_000_000, STALE_NS, 3 * SECOND])
        cost = chance.choice([1, 1, 1, 100, 10_000])
        if not ordinary.take(cost, now):
            assert not shared.take(cost, now)
        assert 0 <= shared.left(now) - ordinary.left(now) <= shared.block


def test_two_processes_together_give_no_more_than_the_window_and_a_block_each(counts):
    window = Window(1_000, 1_000_000)
    buckets = [counts.bucket(UID, "p", window) for _ in range(2)]
    chance = random.Random(_seed())
    times: list[int] = []
    now = START
    for _ in range(15_000):
        now += chance.choice([0, 100_000, 700_000, 2_000_000])
        if not chance.choice(buckets).take(1, now):
            times.append(now)
    for span in (SECOND // 10, SECOND, 5 * SECOND):
        allowed = window.burst + window.count * span / SECOND + 2 * buckets[0].block
        begin = 0
        for end, at in enumerate(times):
            while times[begin] < at - span:
                begin += 1
            assert end - begin + 1 <= allowed


def test_who_has_one_connection_gets_everything_although_another_process_was_asked_before(counts):
    window = Window(1_000, 1_000_000)
    other, mine = counts.bucket(UID, "p", window), counts.bucket(UID, "p", window)
    assert other.take(1, START) == 0
    taken = sum(not mine.take(1, START + at) for at in range(2_000))
    assert 1_000 - other.block <= taken <= 1_000
    assert sum(not mine.take(1, START + SECOND + at) for at in range(2_000)) >= 990


def test_what_lay_still_is_put_back_for_everybody(counts):
    window = Window(640, 1_000_000)
    one, two = counts.bucket(UID, "p", window), counts.bucket(UID, "p", window)
    assert one.take(1, START) == 0
    assert one.left_here == one.block - 1 == 9
    now = START + 10 * SECOND
    assert two.take(640, now) == 0
    assert one.take(10, now) > 0
    assert one.left_here == 0
    assert two.take(9, now) == 0
    assert one.take(1, now) > 0


def test_a_refusal_says_when_to_come_back(counts):
    window = Window(10, 1_000_000)
    one, two = counts.bucket(UID, "p", window), counts.bucket(UID, "p", window)
    for _ in range(10):
        assert one.take(1, START) == 0
    wait_s = two.take(1, START)
    assert wait_s == pytest.approx(0.1)
    assert two.take(1, START + int(wait_s * SECOND) - 2) > 0
    assert two.take(1, START + int(wait_s * SECOND)) == 0
    assert two.take(11, START) == float("inf")


def test_counts_of_others_are_others(counts):
    window = Window(1, 1_000_000)
    assert counts.bucket(UID, "p", window).take(1, START) == 0
    for uid, owner, other in ((UID, "q", window), (b"v" * 16, "p", window), (UID, "p", Window(1, 2_000_000))):
        assert counts.bucket(uid, owner, other).take(1, START) == 0
    assert counts.bucket(UID, "p", window).take(1, START) > 0


def test_what_is_released_is_everybodys_again(counts):
    window = Window(6_400, 1_000_000)
    one, two = counts.bucket(UID, "p", window), counts.bucket(UID, "p", window)
    assert one.take(1, START) == 0
    assert two.take(6_399, START) > 0
    one.release()
    assert two.take(6_399, START) == 0


def test_a_full_set_gives_up_the_count_that_is_full_or_will_be_first(counts, monkeypatch):
    monkeypatch.setattr(shared_buckets, "_SETS", 1)
    window = Window(10, 60_000_000, 10)
    buckets = [counts.bucket(UID, f"p{at}", window) for at in range(17)]
    for at, bucket in enumerate(buckets):
        assert bucket.take(at % 10 + 1, START) == 0
    assert [bucket.left(START) == 10 for bucket in buckets].count(True) == 1
    assert buckets[16].left(START) == 10 - 7


def _spend(fd: int, seconds: float, answers) -> None:
    """Take for some time, and until the quota is used up."""
    counts = SharedCounts(mmap.mmap(fd, 0), fd)
    bucket = counts.bucket(UID, "p", Window(1_000, 1_000_000))
    admitted, used_up, until = 0, False, time.monotonic() + seconds
    while not used_up or time.monotonic() < until:
        wait_s = bucket.take(1, time.monotonic_ns())
        admitted += not wait_s
        used_up = used_up or 0 < wait_s != shared_buckets.PATIENCE_S
    answers.put(admitted)


def test_four_processes_on_one_clock_share_one_quota():
    context = multiprocessing.get_context("fork")
    with tempfile.TemporaryFile() as file:
        file.truncate(TABLE_BYTES)
        answers = context.Queue()
        began = time.monotonic()
        workers = [context.Process(target=_spend, args=(file.fileno(), 0.4, answers)) for _ in range(4)]
        for worker in workers:
            worker.start()
        admitted = sum(answers.get(timeout=60) for _ in workers)
        took = time.monotonic() - began
        for worker in workers:
            worker.join()
    assert 900 <= admitted <= 1_000 + 1_000 * took + 4 * 15


def test_a_process_that_stands_still_with_the_lock_holds_nobody_up():
    with table() as counts:
        bucket = counts.bucket(UID, "p", Window(1_000, 1_000_000))
        read, write = os.pipe()
        pid = os.fork()
        if not pid:
            with counts.locked(bucket._name):
                os.write(write, b"x")
                signal.pause()
        os.read(read, 1)
        assert bucket.take(1, START) == shared_buckets.PATIENCE_S
        assert bucket.left(START) == 1_000
        bucket.release()
        assert os.waitpid(pid, os.WNOHANG) == (0, 0)  # it has the lock still
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        os.close(read)
        os.close(write)
        assert bucket.take(1, START) == 0


def test_the_lock_of_a_process_that_was_killed_is_nobodys():
    with table() as counts:
        bucket = counts.bucket(UID, "p", Window(1_000, 1_000_000))
        assert bucket.take(1, START) == 0
        read, write = os.pipe()
        pid = os.fork()
        if not pid:
            with counts.locked(bucket._name):
                os.write(write, b"x")
                time.sleep(60)
        os.read(read, 1)
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        os.close(read)
        os.close(write)
        assert counts.bucket(UID, "p", Window(1_000, 1_000_000)).take(900, START) == 0


def test_a_burst_that_takes_centuries_to_fill_is_counted(counts):
    window = Window(1, 3_599_000_000, 10**12)
    bucket = counts.bucket(UID, "p", window)
    assert bucket.take(10**12, START) == 0
    assert bucket.left(START) == 0
    assert bucket.take(1, START) == pytest.approx(3_599)
    bucket.release()
    assert counts.bucket(UID, "p", window).left(START + 2 * 3_599 * SECOND) == 2
