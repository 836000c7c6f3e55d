"""Token buckets, windows together, bounded memory and calls in flight, all on a clock that only the test moves."""

from __future__ import annotations

import math
import random

import pytest

from vaultd.engine.buckets import TokenBucket, Window
from vaultd.engine.overload import InFlight
from vaultd.engine.quotas import Method, RateLimiter, configured_quota
from vaultd.errors import ResourceExhausted, Unavailable

NS = 1_000_000_000
DAY_S = 86_400
APP = "spiffe://example.org/app"
OTHER = "spiffe://example.org/other"


class FakeClock:
    """A clock in whole nanoseconds."""

    def __init__(self) -> None:
        self.ns = 1_000 * NS

    def now_us(self) -> int:
        return self.ns // 1000

    def monotonic_s(self) -> float:
        return self.ns / NS


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


def window(count: int, period_s: float, burst: int = 0) -> Window:
    return Window(count, round(period_s * 1_000_000), burst)


METHODS = {name: Method(f"CryptoService.{name}", name) for name in ("crypto", "keys")}


def limiter(clock: FakeClock, *windows: Window, max_principals: int = 100_000) -> RateLimiter:
    return RateLimiter([configured_quota("crypto", windows)], METHODS, clock, max_principals=max_principals)


def named(window: str) -> dict[str, str]:
    """What a refusal by a window of the configuration says."""
    return {"quota": f"limits.crypto/{window}", "subject": "caller"}


def spend(limiter: RateLimiter, principal: str, cost_class: str = "crypto") -> int:
    """Make calls until one is refused; return how many were admitted."""
    for count in range(100_000):
        try:
            limiter.admit(principal, cost_class)
        except ResourceExhausted:
            return count
    raise AssertionError("never refused")


def refusal(limiter: RateLimiter, principal: str = APP, cost: int = 1) -> ResourceExhausted:
    with pytest.raises(ResourceExhausted) as caught:
        limiter.admit(principal, "crypto", cost)
    return caught.value


# One bucket.


def test_a_new_bucket_is_full() -> None:
    bucket = TokenBucket(10, 1.0, 10, now_ns=0)
    assert [bucket.take(1, 0) for _ in range(10)] == [0.0] * 10
    assert bucket.take(1, 0) == 0.1


@pytest.mark.parametrize(("early_ns", "admitted"), [(1, False), (0, True), (-1, True)])
@pytest.mark.parametrize("start_ns", [0, 1_000 * NS, 10**16 + 1])
def test_a_token_is_there_at_t_and_not_a_nanosecond_before(start_ns: int, early_ns: int, admitted: bool) -> None:
    bucket = TokenBucket(1_000, 1.0, 1_000, now_ns=start_ns)
    bucket.take(1_000, start_ns)
    assert (bucket.take(1, start_ns + 1_000_000 - early_ns) == 0.0) is admitted


@pytest.mark.parametrize("count", [3, 7, 1_000, 5_000_000])
def test_a_caller_that_waits_as_long_as_told_is_admitted_and_never_a_nanosecond_sooner(count: int) -> None:
    bucket = TokenBucket(count, DAY_S, count, now_ns=0)
    now_ns = 0
    bucket.take(count, now_ns)
    for _ in range(100):
        wait_ns = round(bucket.take(1, now_ns) * NS)
        assert bucket.take(1, now_ns + wait_ns - 1) > 0.0
        now_ns += wait_ns
        assert bucket.take(1, now_ns) == 0.0


def test_a_rate_that_no_nanosecond_divides_gives_every_token_when_it_is_due() -> None:
    bucket = TokenBucket(3, 1.0, 2, now_ns=0)
    bucket.take(2, 0)
    now_ns = 0
    for taken in range(1, 3_001):
        now_ns += round(bucket.take(1, now_ns) * NS)
        assert bucket.take(1, now_ns) == 0.0
        assert now_ns == -(-taken * NS // 3)


def test_a_bucket_saves_up_no_more_than_its_burst() -> None:
    bucket = TokenBucket(10, 1.0, 5, now_ns=0)
    later_ns = 1_000 * NS
    assert [bucket.take(1, later_ns) for _ in range(6)] == [0.0] * 5 + [0.1]


def test_a_refused_call_takes_nothing() -> None:
    bucket = TokenBucket(10, 1.0, 10, now_ns=0)
    bucket.take(6, 0)
    assert bucket.take(5, 0) == 0.1
    assert bucket.take(4, 0) == 0.0


def test_a_cost_of_the_whole_burst_is_admitted() -> None:
    assert TokenBucket(10, 1.0, 10, now_ns=0).take(10, 0) == 0.0


@pytest.mark.parametrize("idle_s", [0, 1, 3_600])
def test_a_cost_above_the_burst_never_is_however_long_the_bucket_was_idle(idle_s: int) -> None:
    assert TokenBucket(10, 1.0, 10, now_ns=0).take(11, idle_s * NS) == math.inf


def test_what_was_given_back_can_be_taken_again() -> None:
    bucket = TokenBucket(10, 1.0, 10, now_ns=0)
    bucket.take(10, 0)
    bucket.give_back(4)
    assert [bucket.take(4, 0), bucket.take(1, 0)] == [0.0, 0.1]


def test_random_calls_never_pass_burst_and_rate() -> None:
    seed = random.randrange(2**32)
    print("seed", seed)
    rng = random.Random(seed)
    for _ in range(100):
        count, burst, period_s = rng.randint(1, 50), rng.randint(1, 50), rng.choice([0.001, 1.0, 60.0])
        bucket = TokenBucket(count, period_s, burst, now_ns=0)
        now_ns = spent = 0
        for _ in range(200):
            now_ns += rng.randrange(round(period_s * NS / count) * 2)
            cost = rng.randint(0, burst)
            wait = bucket.take(cost, now_ns)
            allowed = burst * round(period_s * NS) + count * now_ns
            if wait == 0.0:
                spent += cost
            assert spent * round(period_s * NS) <= allowed


# The clock goes back or leaps.


@pytest.mark.parametrize("back_s", [0.5, 1.0, 1.5, 3_600.0, 10 * 365 * DAY_S])
def test_a_clock_that_goes_back_locks_nobody_out_for_longer_than_a_period(back_s: float) -> None:
    now_ns = 20 * 365 * DAY_S * NS
    bucket = TokenBucket(10, 1.0, 10, now_ns)
    bucket.take(10, now_ns)
    now_ns -= round(back_s * NS)
    for cost in (1, 10):
        wait = bucket.take(cost, now_ns)
        assert wait <= 1.0
    assert bucket.take(10, now_ns + NS) == 0.0


def test_a_clock_that_goes_back_for_ever_still_admits_once_it_runs() -> None:
    bucket = TokenBucket(10, 1.0, 10, now_ns=1_000 * NS)
    for back_s in range(100):
        bucket.take(10, (1_000 - back_s) * NS)
    assert bucket.take(10, 902 * NS) == 0.0


def test_a_clock_that_leaps_forward_gives_one_burst_and_no_more() -> None:
    bucket = TokenBucket(10, 1.0, 10, now_ns=0)
    bucket.take(10, 0)
    leap_ns = 10 * 365 * DAY_S * NS
    assert [bucket.take(10, leap_ns), bucket.take(1, leap_ns)] == [0.0, 0.1]


def test_a_frozen_clock_refills_nothing(clock: FakeClock) -> None:
    calls = limiter(clock, window(5, 1.0))
    assert spend(calls, APP) == 5
    assert spend(calls, APP) == 0


def test_a_limiter_recovers_within_a_period_when_the_clock_goes_back(clock: FakeClock) -> None:
    calls = limiter(clock, window(5, 1.0), window(60, 60.0))
    spend(calls, APP)
    clock.ns -= 900 * NS
    wait = refusal(calls, cost=5).retry_after_s
    assert wait is not None
    assert wait <= 60.0
    clock.ns += 60 * NS
    calls.admit(APP, "crypto", 5)


# The limiter.


def test_each_principal_has_its_own_quota(clock: FakeClock) -> None:
    calls = limiter(clock, window(5, 1.0))
    assert [spend(calls, APP), spend(calls, OTHER)] == [5, 5]


def test_each_class_has_its_own_quota(clock: FakeClock) -> None:
    calls = RateLimiter(
        [configured_quota("crypto", (window(5, 1.0),)), configured_quota("keys", (window(2, 1.0),))], METHODS, clock
    )
    assert [spend(calls, APP, "crypto"), spend(calls, APP, "keys")] == [5, 2]


def test_a_refusal_names_the_quota_and_says_when_to_come_back(clock: FakeClock) -> None:
    calls = limiter(clock, window(4, 1.0))
    spend(calls, APP)
    error = refusal(calls)
    assert (error.code, error.reason) == ("RESOURCE_EXHAUSTED", "QUOTA_EXCEEDED")
    assert (error.retry_after_s, error.metadata) == (0.25, named("per_1s"))


@pytest.mark.parametrize(("early_ns", "admitted"), [(1, False), (0, True), (-1, True)])
def test_the_retry_delay_is_exact(clock: FakeClock, early_ns: int, admitted: bool) -> None:
    calls = limiter(clock, window(3, 1.0))
    spend(calls, APP)
    wait = refusal(calls).retry_after_s
    assert wait is not None
    clock.ns += round(wait * NS) - early_ns
    assert spend(calls, APP) == (1 if admitted else 0)


def test_every_window_must_admit(clock: FakeClock) -> None:
    calls = limiter(clock, window(4, 1.0), window(10, DAY_S))
    admitted = 0
    for _ in range(5):
        admitted += spend(calls, APP)
        clock.ns += NS
    assert admitted == 10
    assert refusal(calls).metadata == named("per_86400s")


@pytest.mark.parametrize(
    "windows",
    [(window(10, 1.0), window(5, DAY_S)), (window(5, DAY_S), window(10, 1.0))],
)
def test_a_call_that_one_window_refuses_spends_in_none(clock: FakeClock, windows: tuple[Window, ...]) -> None:
    calls = limiter(clock, *windows)
    calls.admit(APP, "crypto", 4)
    for _ in range(100):
        refusal(calls, cost=2)
    calls.admit(APP, "crypto", 1)
    clock.ns += DAY_S * NS
    calls.admit(APP, "crypto", 5)
    assert refusal(calls).metadata == named("per_86400s")


def test_the_longest_wait_of_all_windows_is_the_one_told(clock: FakeClock) -> None:
    calls = limiter(clock, window(5, 1.0), window(5, DAY_S), window(5, 60.0))
    spend(calls, APP)
    error = refusal(calls)
    assert (error.metadata, error.retry_after_s) == (named("per_86400s"), DAY_S / 5)


def test_a_cost_that_no_wait_admits_says_so_and_names_no_delay(clock: FakeClock) -> None:
    calls = limiter(clock, window(100, 1.0), window(10, DAY_S))
    error = refusal(calls, cost=11)
    assert (error.reason, error.retry_after_s, error.metadata) == ("COST_ABOVE_QUOTA", None, named("per_86400s"))
    assert "send less" in error.text
    assert spend(calls, APP) == 10


def test_a_burst_may_be_above_or_below_the_count(clock: FakeClock) -> None:
    assert spend(limiter(clock, window(5, 1.0, burst=8)), APP) == 8
    assert spend(limiter(clock, window(5, 1.0, burst=2)), APP) == 2


def test_a_limit_without_windows_admits_everything(clock: FakeClock) -> None:
    calls = limiter(clock)
    for _ in range(100):
        calls.admit(APP, "crypto", 10**9)


def test_a_class_without_a_limit_is_not_a_free_pass(clock: FakeClock) -> None:
    with pytest.raises(KeyError):
        limiter(clock, window(5, 1.0)).admit(APP, "nonsense")


def test_a_negative_cost_cannot_refill_a_bucket(clock: FakeClock) -> None:
    with pytest.raises(ValueError, match="not negative"):
        limiter(clock, window(5, 1.0)).admit(APP, "crypto", -1)


def test_a_cost_of_nothing_is_admitted_by_an_empty_bucket(clock: FakeClock) -> None:
    calls = limiter(clock, window(5, 1.0))
    spend(calls, APP)
    calls.admit(APP, "crypto", 0)


# Memory.


def test_principals_with_full_buckets_are_dropped_as_others_come(clock: FakeClock) -> None:
    calls = limiter(clock, window(5, 1.0))
    for i in range(1_000):
        calls.admit(f"dns:a{i}", "crypto")
    assert len(calls) == 1_000
    clock.ns += NS
    for i in range(1_000):
        calls.admit(f"dns:b{i}", "crypto")
    assert len(calls) == 1_000
    for i in range(20):
        clock.ns += NS
        calls.admit(f"dns:c{i}", "crypto")
    assert len(calls) == 1_000 + 20 - 2 * 20


@pytest.mark.parametrize(("early_ns", "kept"), [(1, True), (0, False), (-1, False)])
def test_a_bucket_is_kept_until_the_nanosecond_in_which_it_is_full(clock: FakeClock, early_ns: int, kept: bool) -> None:
    calls = limiter(clock, window(5, 1.0))
    calls.admit(APP, "crypto", 5)
    clock.ns += NS - early_ns
    calls.admit(OTHER, "crypto")
    assert len(calls) == (2 if kept else 1)


def test_a_principal_with_an_empty_bucket_is_not_forgotten_below_the_cap(clock: FakeClock) -> None:
    calls = limiter(clock, window(5, DAY_S))
    spend(calls, APP)
    for i in range(1_000):
        calls.admit(f"dns:a{i}", "crypto")
    assert spend(calls, APP) == 0


def test_a_flood_of_principals_stays_within_the_cap(clock: FakeClock) -> None:
    calls = limiter(clock, window(5, DAY_S), max_principals=100)
    for i in range(1_000):
        calls.admit(f"dns:a{i}", "crypto")
        assert len(calls) <= 100


def test_a_newcomer_is_served_when_the_cap_is_reached(clock: FakeClock) -> None:
    calls = limiter(clock, window(5, DAY_S), max_principals=1)
    assert [spend(calls, APP), spend(calls, OTHER)] == [5, 5]


# What cannot be configured.


@pytest.mark.parametrize(
    ("count", "period_us", "burst"),
    [(0, 1_000, 1), (-1, 1_000, 1), (10**12 + 1, 1_000, 1), (1, 999, 1), (1, 0, 1), (1, -1, 1), (1, 1_000, -1)],
)
def test_a_window_that_makes_no_sense_cannot_exist(count: int, period_us: int, burst: int) -> None:
    with pytest.raises(ValueError, match="window"):
        Window(count, period_us, burst)


def test_a_limiter_for_no_principals_cannot_exist(clock: FakeClock) -> None:
    with pytest.raises(ValueError, match="max_principals"):
        RateLimiter([], METHODS, clock, max_principals=0)


# Calls in flight.


def test_the_caps_are_reached_and_not_passed() -> None:
    in_flight = InFlight(total=3, per_principal=2)
    in_flight.enter(APP)
    in_flight.enter(APP)
    with pytest.raises(ResourceExhausted) as caught:
        in_flight.enter(APP)
    assert (caught.value.reason, caught.value.retry_after_s) == ("TOO_MANY_IN_FLIGHT", 0.1)
    in_flight.enter(OTHER)
    assert len(in_flight) == 3


def test_a_full_server_is_unavailable() -> None:
    in_flight = InFlight(total=1, per_principal=1, retry_after_s=0.5)
    in_flight.enter(APP)
    with pytest.raises(Unavailable) as caught:
        in_flight.enter(OTHER)
    assert (caught.value.reason, caught.value.retry_after_s) == ("TOO_MANY_IN_FLIGHT", 0.5)


def test_a_caller_over_both_caps_is_told_of_its_own() -> None:
    in_flight = InFlight(total=1, per_principal=1)
    in_flight.enter(APP)
    with pytest.raises(ResourceExhausted):
        in_flight.enter(APP)


def test_a_refused_call_is_not_counted() -> None:
    in_flight = InFlight(total=2, per_principal=1)
    in_flight.enter(APP)
    for _ in range(10):
        with pytest.raises(ResourceExhausted):
            in_flight.enter(APP)
    in_flight.enter(OTHER)
    assert len(in_flight) == 2


def test_a_call_that_leaves_makes_room() -> None:
    in_flight = InFlight(total=1, per_principal=1)
    for principal in (APP, OTHER, APP):
        in_flight.enter(principal)
        in_flight.leave(principal)
    assert len(in_flight) == 0


def test_a_call_that_never_entered_cannot_leave() -> None:
    in_flight = InFlight(total=2, per_principal=2)
    in_flight.enter(APP)
    with pytest.raises(RuntimeError):
        in_flight.leave(OTHER)
    assert len(in_flight) == 1


@pytest.mark.parametrize(("total", "per_principal"), [(0, 1), (1, 0), (-1, 1)])
def test_caps_that_admit_nobody_cannot_exist(total: int, per_principal: int) -> None:
    with pytest.raises(ValueError, match="at least 1"):
        InFlight(total, per_principal)
