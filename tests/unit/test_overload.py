"""The cap of calls in flight follows the delay: who uses most is shed first, and nobody below the least cap."""

from __future__ import annotations

import pytest

from vaultd.engine.overload import LATE_PROBES, LEAST_CAP, InFlight, LoadShedder
from vaultd.errors import ResourceExhausted

HEAVY = "spiffe://example.org/heavy"
LIGHT = "spiffe://example.org/light"
TARGET_S = 0.05


class Shedding:
    """A shedder over caps of calls in flight, and what it said."""

    def __init__(self, target_s: float = TARGET_S, per_principal: int = 256) -> None:
        self.in_flight = InFlight(512, per_principal)
        self.said: list[bool] = []
        self.shedder = LoadShedder(self.in_flight, target_s, self.said.append)

    def enter(self, principal: str, calls: int) -> None:
        for _ in range(calls):
            self.in_flight.enter(principal)

    def look(self, delay_s: float, times: int = 1) -> None:
        for _ in range(times):
            self.shedder.note(delay_s)


def refusal(shedding: Shedding, principal: str) -> ResourceExhausted:
    with pytest.raises(ResourceExhausted) as caught:
        shedding.in_flight.enter(principal)
    return caught.value


def test_who_has_most_calls_in_flight_is_shed_and_who_has_few_is_not() -> None:
    shedding = Shedding()
    shedding.enter(HEAVY, 200)
    shedding.enter(LIGHT, 5)
    shedding.look(0.2, LATE_PROBES)
    error = refusal(shedding, HEAVY)
    assert (error.code, error.reason, error.retry_after_s) == ("RESOURCE_EXHAUSTED", "LOAD_SHED", 0.5)
    shedding.enter(LIGHT, 50)


def test_the_cap_falls_from_what_the_busiest_has() -> None:
    shedding = Shedding()
    shedding.enter(HEAVY, 100)
    shedding.look(0.2, LATE_PROBES)
    assert shedding.in_flight.cap == 75


@pytest.mark.parametrize("late", [1, LATE_PROBES - 1])
def test_a_burst_is_no_overload(late: int) -> None:
    shedding = Shedding()
    shedding.enter(HEAVY, 200)
    for _ in range(10):
        shedding.look(10.0, late)
        shedding.look(0.0)
    assert not shedding.shedder.shedding


@pytest.mark.parametrize(("delay_s", "sheds"), [(TARGET_S, False), (TARGET_S + 1e-9, True)])
def test_a_delay_at_the_target_is_none_and_a_nanosecond_above_is_one(delay_s: float, sheds: bool) -> None:
    shedding = Shedding()
    shedding.enter(HEAVY, 200)
    shedding.look(delay_s, LATE_PROBES)
    assert shedding.shedder.shedding is sheds


def test_nobody_below_the_least_cap_is_shed_however_long_it_lasts() -> None:
    shedding = Shedding()
    shedding.enter(HEAVY, 200)
    shedding.look(10.0, 1_000)
    assert shedding.in_flight.cap == LEAST_CAP
    shedding.enter(LIGHT, LEAST_CAP)
    assert refusal(shedding, LIGHT).reason == "LOAD_SHED"


def test_a_configured_cap_below_the_least_one_stays_as_it_is() -> None:
    shedding = Shedding(per_principal=2)
    shedding.enter(HEAVY, 2)
    shedding.look(10.0, 100)
    assert refusal(shedding, HEAVY).reason == "TOO_MANY_IN_FLIGHT"
    assert shedding.said == []


def test_the_cap_comes_back_and_beginning_and_end_are_told_once() -> None:
    shedding = Shedding()
    shedding.enter(HEAVY, 200)
    shedding.look(0.2, 20)
    shedding.look(0.0, 100)
    assert shedding.in_flight.cap == 256
    assert shedding.said == [True, False]


def test_who_is_over_the_configured_cap_hears_of_that_one() -> None:
    shedding = Shedding()
    shedding.enter(HEAVY, 256)
    shedding.look(0.2, LATE_PROBES)
    assert refusal(shedding, HEAVY).reason == "TOO_MANY_IN_FLIGHT"


def test_a_target_of_nothing_turns_it_off() -> None:
    shedding = Shedding(target_s=0.0)
    shedding.enter(HEAVY, 200)
    shedding.look(60.0, 1_000)
    assert not shedding.shedder.shedding
