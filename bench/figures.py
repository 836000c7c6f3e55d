"""What a part of a run hands over: figures with names that aims and the baseline know, rows of tables, and curves."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from bench.contenders import Summary, summarize
from bench.slices import item_cpu_us, ratio

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from bench.contenders import Measured
    from bench.slices import Slice, Spread

Better = Literal["lower", "higher"]


@dataclass(frozen=True)
class Figure:
    """One number and how far to trust it.  unit: "x" for a ratio of neighbours in time, or "us"."""

    key: str
    spread: Spread
    better: Better = "lower"
    unit: str = "x"
    estimated: bool = False
    """Against stored figures of a peer that is not there."""
    kept: bool = True
    """Whether it can be compared with another day's."""

    def as_dict(self) -> dict[str, Any]:
        about = {"key": self.key, "better": self.better, "unit": self.unit, "estimated": self.estimated}
        return {**about, **self.spread.as_dict()}


@dataclass(frozen=True)
class Point:
    """One place of a curve: where, what it was given (a rate, callers, items), and what came of it."""

    at: float
    measured: Summary


@dataclass(frozen=True)
class Curve:
    """One contender over a range of loads or sizes."""

    name: str
    points: tuple[Point, ...]

    def as_dict(self) -> dict[str, Any]:
        return {"name": self.name, "points": [{"at": point.at, **point.measured.as_dict()} for point in self.points]}


@dataclass
class Findings:
    """Of one part."""

    figures: list[Figure] = field(default_factory=list)
    rows: dict[str, list[Summary]] = field(default_factory=dict)
    """By the title of their table."""
    curves: dict[str, list[Curve]] = field(default_factory=dict)
    """By the title of their plot."""
    notes: list[str] = field(default_factory=list)
    absent: dict[str, str] = field(default_factory=dict)
    """Why a figure is not there, by its key."""

    def add_rows(self, title: str, measured: Measured) -> None:
        """A table of contenders that took turns."""
        self.rows.setdefault(title, []).extend(summarize(name, slices) for name, slices in measured.items())

    def compare(self, measured: Measured, comparisons: Iterable[Comparison]) -> None:
        """The ratios of those pairs of which both were measured."""
        for each in comparisons:
            if each.some in measured and each.other in measured:
                spread = ratio(measured[each.some], measured[each.other], each.of)
                self.figures.append(Figure(each.key, spread, each.better, kept=each.kept))

    def as_dict(self) -> dict[str, Any]:
        return {
            "figures": [figure.as_dict() for figure in self.figures],
            "rows": {title: [row.as_dict() for row in rows] for title, rows in self.rows.items()},
            "curves": {title: [curve.as_dict() for curve in curves] for title, curves in self.curves.items()},
            "notes": self.notes,
            "absent": self.absent,
        }


@dataclass(frozen=True)
class Comparison:
    """A ratio of two contenders: server CPU per operation, unless `of` says something else."""

    key: str
    some: str
    other: str
    of: Callable[[Slice], float] = item_cpu_us
    better: Better = "lower"
    kept: bool = True
