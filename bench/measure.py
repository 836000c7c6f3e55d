"""Rounds of slices, each case between two slices of the echo, and what is said of them.

The machine may be shared and its speed may drift, so a case is compared only with the echo just before and just after it,
the order moves on by one with each round, and a figure is the median over rounds.
"""

from __future__ import annotations

import statistics
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Final

from bench.cases import DATA
from bench.clients import Pressure, Request
from bench.echo_server import METHOD as ECHO_METHOD
from bench.slices import half_quartile_distance, percentile_ms

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from bench.cases import Case
    from bench.rig import Rig
    from bench.slices import Slice

ECHO: Final = "echo unary 64 B"
ECHO_REQUEST: Final = Request(ECHO_METHOD, DATA)
CASES_PER_ECHO: Final = 4


@dataclass(frozen=True)
class Plan:
    """How long and how often."""

    rounds: int
    slice_s: float
    warm_up_s: float
    in_flight: int


@dataclass(frozen=True)
class Row:
    """The figures of one case: medians over rounds, percentiles over all calls."""

    name: str
    items: int
    in_flight: int
    calls: int
    calls_per_s: float
    items_per_s: float
    p50_ms: float | None
    p95_ms: float | None
    p99_ms: float | None
    p999_ms: float | None
    cpu_us_per_call: float
    cpu_us_per_item: float
    cpu_spread: float
    """Half the distance of the quartiles, as a share of the median: how far to trust the row."""
    to_echo: float
    server_busy: float
    """CPU seconds of the server per second.  Well below 1 when the client is what limits the rate."""
    client_cpu_us_per_call: float
    peak_mib: float
    rounds_cpu_us: list[float]
    rounds_to_echo: list[float]

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


class Series:
    """The slices of one case."""

    def __init__(self, name: str, items: int, in_flight: int) -> None:
        self._name = name
        self._items = items
        self._in_flight = in_flight
        self._slices: list[Slice] = []
        self._to_echo: list[float] = []

    def add(self, measured: Slice, echo_cpu_us: float) -> None:
        self._slices.append(measured)
        self._to_echo.append(measured.cpu_us / echo_cpu_us)

    def row(self) -> Row:
        slices, items = self._slices, self._items
        cpu_us = [measured.cpu_us for measured in slices]
        rate = statistics.median(measured.calls / measured.elapsed_s for measured in slices)
        latencies = sorted(latency for measured in slices for latency in measured.latencies_us)
        middle = statistics.median(cpu_us)
        return Row(
            name=self._name,
            items=items,
            in_flight=self._in_flight,
            calls=len(latencies),
            calls_per_s=rate,
            items_per_s=rate * items,
            p50_ms=percentile_ms(latencies, 50.0),
            p95_ms=percentile_ms(latencies, 95.0),
            p99_ms=percentile_ms(latencies, 99.0),
            p999_ms=percentile_ms(latencies, 99.9),
            cpu_us_per_call=middle,
            cpu_us_per_item=middle / items,
            cpu_spread=half_quartile_distance(cpu_us) / middle,
            to_echo=statistics.median(self._to_echo),
            server_busy=statistics.median(measured.busy for measured in slices),
            client_cpu_us_per_call=statistics.median(
                measured.client_cpu_s / measured.calls * 1e6 for measured in slices
            ),
            peak_mib=max(measured.peak_mib for measured in slices),
            rounds_cpu_us=cpu_us,
            rounds_to_echo=self._to_echo,
        )


def measure(rig: Rig, cases: Sequence[Case], plan: Plan, say: Callable[[str], None]) -> list[Row]:
    """Warm up, then run all rounds; the echo's row comes first."""
    requests = rig.api.requests(cases)

    def load(case: Case, seconds: float) -> Slice:
        return rig.load(rig.vaultd, requests[case.name], Pressure(case.in_flight or plan.in_flight), seconds)

    def load_echo(seconds: float) -> Slice:
        return rig.load(rig.echo, ECHO_REQUEST, Pressure(plan.in_flight), seconds)

    load_echo(plan.warm_up_s)
    for case in cases:
        load(case, plan.warm_up_s)
    echo = Series(ECHO, 1, plan.in_flight)
    series = {case.name: Series(case.name, case.items, case.in_flight or plan.in_flight) for case in cases}
    for number in range(plan.rounds):
        say(f"round {number + 1} of {plan.rounds}")
        at = number % len(cases) if cases else 0
        order = [*cases[at:], *cases[:at]]
        before = load_echo(plan.slice_s)
        echoes = [before]
        for start in range(0, len(order), CASES_PER_ECHO):
            group = [(case, load(case, plan.slice_s)) for case in order[start : start + CASES_PER_ECHO]]
            after = load_echo(plan.slice_s)
            for case, measured in group:
                series[case.name].add(measured, (before.cpu_us + after.cpu_us) / 2)
            before = after
            echoes.append(after)
        usual = statistics.mean(measured.cpu_us for measured in echoes)
        for measured in echoes:
            echo.add(measured, usual)
    return [echo.row(), *(one.row() for one in series.values())]
