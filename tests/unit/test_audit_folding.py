"""Floods of refusals become one record per principal, reason and second."""

from __future__ import annotations

from vaultd.audit.folding import MAX_KEYS, RefusalFolder

SECOND = 1_000_000
NOW = 1_764_000_000 * SECOND


def test_the_first_twenty_of_a_second_are_recorded_one_by_one():
    folder = RefusalFolder()
    assert [folder.note("alice", "DENIED", NOW + n) for n in range(25)] == [True] * 20 + [False] * 5


def test_the_rest_comes_out_as_one_record_when_the_second_is_over():
    folder = RefusalFolder()
    for n in range(1000):
        folder.note("alice", "DENIED", NOW + n)
    assert folder.drain(NOW + SECOND - 1) == []
    assert folder.drain(NOW + SECOND) == [
        {
            "event": "refusals_folded",
            "principal": "alice",
            "reason": "DENIED",
            "second": "2025-11-24T16:00:00Z",
            "folded": 980,
        }
    ]
    assert folder.drain(NOW + SECOND) == []


def test_twenty_or_fewer_leave_no_record():
    folder = RefusalFolder()
    for _ in range(20):
        folder.note("alice", "DENIED", NOW)
    assert folder.drain(NOW + SECOND) == []


def test_principals_reasons_and_seconds_count_apart():
    folder = RefusalFolder()
    for principal in ("alice", "bob"):
        for reason in ("DENIED", "THROTTLED"):
            for second in range(2):
                assert [folder.note(principal, reason, NOW + second * SECOND) for _ in range(21)] == [True] * 20 + [
                    False
                ]
    drained = folder.drain(NOW + 2 * SECOND)
    assert [(r["second"][-3:], r["principal"], r["reason"], r["folded"]) for r in drained] == [
        (f"0{second}Z", principal, reason, 1)
        for second in range(2)
        for principal in ("alice", "bob")
        for reason in ("DENIED", "THROTTLED")
    ]


def test_every_refusal_is_recorded_or_counted():
    folder = RefusalFolder(max_keys=7)
    total, single, folded = 5000, 0, 0
    for n in range(total):
        single += folder.note(f"p{n % 13}", f"r{n % 3}", NOW + n * 1000)
        if n % 100 == 0:
            folded += sum(record["folded"] for record in folder.drain(NOW + n * 1000))
    folded += sum(record["folded"] for record in folder.drain(NOW + 10 * SECOND))
    assert single + folded == total


def test_keys_are_bounded_and_the_rest_folds_under_one():
    folder = RefusalFolder()
    for n in range(MAX_KEYS):
        assert folder.note(f"p{n}", "DENIED", NOW)
    beyond = [folder.note(f"q{n}", "DENIED", NOW) for n in range(50)]
    assert beyond == [True] * 20 + [False] * 30
    assert [folder.note("p0", "DENIED", NOW) for _ in range(19)] == [True] * 19
    (record,) = folder.drain(NOW + SECOND)
    assert (record["principal"], record["reason"], record["folded"]) == ("*", "*", 30)
    assert folder.note("q0", "DENIED", NOW + SECOND)


def test_without_draining_memory_stays_bounded():
    folder = RefusalFolder(max_keys=10)
    for n in range(1000):
        folder.note(f"p{n}", "DENIED", NOW + n * SECOND)
    (record,) = folder.drain(NOW + 1000 * SECOND)
    assert record["folded"] == 1000 - 10 - 20


def test_a_clock_set_back_holds_no_count_back():
    folder = RefusalFolder()
    for _ in range(30):
        folder.note("alice", "DENIED", NOW)
    (record,) = folder.drain(NOW - 3600 * SECOND)
    assert record["folded"] == 10
