"""One slice of load, and what is said of many."""

from __future__ import annotations

import base64
import statistics
import sys
from array import array
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

LEAST_SAMPLES: Final = {50.0: 10, 95.0: 40, 99.0: 200, 99.9: 2_000}
"""Fewer latencies than that say nothing of the percentile."""


@dataclass(frozen=True)
class Slice:
    """What came of one slice of load.  latencies_us is exact, of every call, and empty where a client has none."""

    calls: int
    elapsed_s: float
    server_cpu_s: float
    client_cpu_s: float
    peak_mib: float
    latencies_us: Sequence[int]
    pss_mib: float = 0.0
    items: int = 1
    """Operations in a call."""
    latest_ms: float = 0.0
    """Open loop: by how much the latest call was begun after its time.  It is in the latencies."""

    @property
    def cpu_us(self) -> float:
        """Server CPU per call."""
        return self.server_cpu_s / self.calls * 1e6

    @property
    def item_cpu_us(self) -> float:
        """Server CPU per operation."""
        return self.cpu_us / self.items

    @property
    def items_per_s(self) -> float:
        """Operations a second of the clock."""
        return self.calls * self.items / self.elapsed_s

    @property
    def items_per_cpu_s(self) -> float:
        """Operations a second of server CPU."""
        return self.calls * self.items / self.server_cpu_s

    @property
    def busy(self) -> float:
        """Server CPU seconds in a second of the clock."""
        return self.server_cpu_s / self.elapsed_s

    def percentile_ms(self, percent: float) -> float:
        """Raises ValueError when the slice has too few calls for it."""
        found = percentile_ms(sorted(self.latencies_us), percent)
        if found is None:
            raise ValueError(f"{len(self.latencies_us)} calls say nothing of their p{percent:g}")
        return found


@dataclass(frozen=True)
class Spread:
    """A median, and the quartiles around it: half of the values lie between them."""

    median: float
    low: float
    high: float
    values: tuple[float, ...]

    @classmethod
    def of(cls, values: Iterable[float]) -> Spread:
        """Of at least one value."""
        every = tuple(values)
        low, high = (every[0], every[0]) if len(every) == 1 else _quartiles(every)
        return cls(statistics.median(every), low, high, every)

    def as_dict(self) -> dict[str, Any]:
        return {"median": self.median, "low": self.low, "high": self.high, "values": list(self.values)}


def item_cpu_us(measured: Slice) -> float:
    """For `ratio`: server CPU per operation."""
    return measured.item_cpu_us


def items_per_s(measured: Slice) -> float:
    """For `ratio`: operations a second."""
    return measured.items_per_s


def ratio(some: Sequence[Slice], others: Sequence[Slice], of: Callable[[Slice], float] = item_cpu_us) -> Spread:
    """One ratio for each pair of slices that were neighbours in time, so that a machine that drifts drifts in both."""
    return Spread.of(of(a) / of(b) for a, b in zip(some, others, strict=True))


def latencies_of(text: str) -> array[int]:
    """What a load client says: base64 of 32-bit little-endian microseconds."""
    found = array("I")
    found.frombytes(base64.b64decode(text))
    if sys.byteorder == "big":
        found.byteswap()
    return found


def percentile_ms(latencies_us: Sequence[int], percent: float) -> float | None:
    """Of sorted latencies; None when there are too few of them."""
    if len(latencies_us) < LEAST_SAMPLES[percent]:
        return None
    return latencies_us[min(len(latencies_us) - 1, int(len(latencies_us) * percent / 100))] / 1_000


def half_quartile_distance(values: Sequence[float]) -> float:
    """How far apart values are: half of them lie within about this much of the median."""
    if len(values) < 2:
        return 0.0
    low, high = _quartiles(values)
    return (high - low) / 2


def _quartiles(values: Sequence[float]) -> tuple[float, float]:
    low, _, high = statistics.quantiles(values, n=4, method="inclusive")
    return low, high
