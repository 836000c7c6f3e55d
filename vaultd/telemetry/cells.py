"""Where the hot path counts: plain numbers, read when somebody asks for metrics.

A count costs a tenth of a microsecond here and several in a synchronous instrument of an SDK (docs/performance.md), which
looks up views and attributes at each of them.  Cells are written on the event loop, or under a lock of their owner's, and read
there too.
"""

from __future__ import annotations

from bisect import bisect_left
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterator

OTHER: Final = "other"
"""The label of whatever came when there was no room for more labels."""

FAST_BOUNDS_S: Final = (
    0.0001,
    0.00025,
    0.0005,
    0.001,
    0.0025,
    0.005,
    0.01,
    0.025,
    0.05,
    0.1,
    0.25,
    0.5,
    1.0,
    2.5,
    5.0,
    10.0,
)
"""Upper bounds of buckets for what takes from a tenth of a millisecond to seconds.  The bounds that OpenTelemetry advises for
RPCs begin at 5 ms, where most calls of this server are over."""
SLOW_BOUNDS_S: Final = (0.1, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0, 900.0, 3600.0)
"""For outages."""


class Histogram:
    """Counts of values by bucket; a bucket's upper bound belongs to it."""

    __slots__ = ("bounds", "counts", "total")

    def __init__(self, bounds: tuple[float, ...] = FAST_BOUNDS_S) -> None:
        self.bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        self.total = 0.0

    def add(self, value: float, times: int = 1) -> None:
        """Count a value, so many times."""
        self.counts[bisect_left(self.bounds, value)] += times
        self.total += value * times


class Histograms:
    """One histogram for each label; at most `limit` labels, and one more for all others."""

    __slots__ = ("_bounds", "_cells", "_limit")

    def __init__(self, limit: int, bounds: tuple[float, ...] = FAST_BOUNDS_S) -> None:
        self._bounds = bounds
        self._cells: dict[str, Histogram] = {}
        self._limit = limit

    def add(self, label: str, value: float) -> None:
        """Count a value under its label."""
        cell = self._cells.get(label)
        if cell is None:
            cell = self._cells.setdefault(label if len(self._cells) < self._limit else OTHER, Histogram(self._bounds))
        cell.add(value)

    def read(self) -> Iterator[tuple[tuple[str], Histogram]]:
        """Every label and its histogram."""
        return (((label,), cell) for label, cell in list(self._cells.items()))


class Counts:
    """Counts by label, a string or a tuple of them; at most `limit` labels, and one more for all others.

    For labels that this program makes.  What callers can invent must not get a label in the first place.
    """

    __slots__ = ("_limit", "_other", "_values")

    def __init__(self, limit: int, width: int = 1) -> None:
        self._values: dict[tuple[str, ...], float] = {}
        self._limit = limit
        self._other = (OTHER,) * width

    def add(self, label: tuple[str, ...], amount: float = 1) -> None:
        """Add to the count of a label."""
        values = self._values
        if label in values:
            values[label] += amount
        elif len(values) < self._limit:
            values[label] = amount
        else:
            values[self._other] = values.get(self._other, 0) + amount

    def read(self) -> list[tuple[tuple[str, ...], float]]:
        """Every label and its count."""
        return list(self._values.items())

    def where(self, position: int, *wanted: str) -> Iterator[tuple[tuple[str, ...], float]]:
        """The counts whose label has one of these words at a position."""
        return ((label, value) for label, value in self._values.items() if label[position] in wanted)
