"""Who is served next in a token's worker."""

from __future__ import annotations

import threading

from vaultd.backends.base import Lane
from vaultd.backends.pkcs11.worker import Turns


def taken(turns: Turns, count: int) -> str:
    return "".join(turns.take()[1][0][0] for _ in range(count))


class Clock:
    now_s = 0.0

    def __call__(self) -> float:
        return self.now_s


def filled(waiting: str, clock: Clock | None = None) -> Turns:
    """Upper case is a batch's, lower case is online."""
    turns = Turns(clock or Clock())
    for name in waiting:
        turns.put(Lane.BATCH if name.isupper() else Lane.ONLINE, [[name]])
    return turns


def test_each_kind_is_served_in_its_order():
    assert taken(filled("ABC"), 3) == "ABC"
    assert taken(filled("abc"), 3) == "abc"


def test_what_is_online_overtakes_batches():
    turns = filled("ABC")
    assert taken(turns, 1) == "A"
    turns.put(Lane.ONLINE, [["a"]])
    assert taken(turns, 3) == "aBC"


def test_a_batch_that_has_waited_for_long_overtakes_what_is_online():
    clock = Clock()
    turns = filled("A", clock)
    clock.now_s = 1.0
    for name in "Bcd":
        turns.put(Lane.BATCH if name.isupper() else Lane.ONLINE, [[name]])
    assert taken(turns, 4) == "AcdB"


def test_a_list_that_was_taken_between_others_is_not_waited_for_again():
    turns = filled("aA")
    assert turns.take_online() == [["a"]]
    assert turns.take_online() == []
    assert turns.take() == (False, [["A"]])
    turns.put(Lane.ONLINE, [["b"]])
    assert turns.take() == (True, [["b"]])


def test_every_list_is_taken_once_by_whatever_thread():
    turns, got, lock = Turns(), [], threading.Lock()

    def take() -> None:
        for _ in range(500):
            requests = turns.take_online() or turns.take()[1]
            with lock:
                got.append(requests[0])

    threads = [threading.Thread(target=take) for _ in range(4)]
    for thread in threads:
        thread.start()
    for number in range(2_000):
        turns.put(Lane(number % 2), [number])
    for thread in threads:
        thread.join(60)
    assert sorted(got) == list(range(2_000))
