"""What is measured in turns: contenders, and the rounds in which each of them has a slice."""

from __future__ import annotations

import statistics
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Protocol

from bench.clients import Client, metered
from bench.slices import Slice, half_quartile_distance, percentile_ms

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from bench.accounting import Meter


class Contender(Protocol):
    """Something that can be put under load for some seconds."""

    @property
    def name(self) -> str: ...

    def run(self, seconds: float) -> Slice: ...


@dataclass(frozen=True)
class Loaded:
    """A server under the load of a client.  order: what the client is told, for so many seconds."""

    name: str
    meter: Meter
    client: Client
    order: Callable[[float], Mapping[str, Any]]
    items: int = 1

    def run(self, seconds: float) -> Slice:
        return metered(self.meter, self.client, self.order(seconds), self.items)


@dataclass(frozen=True)
class Turns:
    """How long and how often."""

    rounds: int
    slice_s: float
    warm_up_s: float = 0.3


Measured = dict[str, list[Slice]]
"""The slices of each contender by its name, in order; those at one place are neighbours in time."""


def take_turns(contenders: Sequence[Contender], turns: Turns) -> Measured:
    """Warm all up; then rounds in which each has a slice: A B C, B C A, ..."""
    for contender in contenders:
        contender.run(turns.warm_up_s)
    measured: Measured = {contender.name: [] for contender in contenders}
    for number in range(turns.rounds):
        at = number % len(contenders) if contenders else 0
        for contender in (*contenders[at:], *contenders[:at]):
            measured[contender.name].append(contender.run(turns.slice_s))
    return measured


@dataclass(frozen=True)
class Summary:
    """What is said of a contender: medians over its slices, percentiles over all its calls."""

    name: str
    items: int
    slices: int
    calls: int
    items_per_s: float
    cpu_us: float
    item_cpu_us: float
    cpu_spread: float = 0.0
    """Half the distance of the quartiles, as a share of the median."""
    p50_ms: float | None = None
    p95_ms: float | None = None
    p99_ms: float | None = None
    p999_ms: float | None = None
    busy: float = 0.0
    """Server CPU seconds in a second of the clock.  Well below 1 when the client is what limits the rate."""
    client_cpu_us: float = 0.0
    peak_mib: float = 0.0
    pss_mib: float = 0.0

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


def summarize(name: str, slices: Sequence[Slice]) -> Summary:
    """Of at least one slice."""
    latencies = sorted(latency for measured in slices for latency in measured.latencies_us)
    cpu_us = [measured.cpu_us for measured in slices]
    middle = statistics.median(cpu_us)
    return Summary(
        name=name,
        items=slices[0].items,
        slices=len(slices),
        calls=sum(measured.calls for measured in slices),
        items_per_s=statistics.median(measured.items_per_s for measured in slices),
        cpu_us=middle,
        item_cpu_us=middle / slices[0].items,
        cpu_spread=half_quartile_distance(cpu_us) / middle if middle else 0.0,
        p50_ms=percentile_ms(latencies, 50.0),
        p95_ms=percentile_ms(latencies, 95.0),
        p99_ms=percentile_ms(latencies, 99.0),
        p999_ms=percentile_ms(latencies, 99.9),
        busy=statistics.median(measured.busy for measured in slices),
        client_cpu_us=statistics.median(measured.client_cpu_s / measured.calls * 1e6 for measured in slices),
        peak_mib=max(measured.peak_mib for measured in slices),
        pss_mib=slices[-1].pss_mib,
    )
