"""The stored ratios, and whether what is measured now is worse.  Ratios alone: times belong to one machine."""

from __future__ import annotations

import json
import statistics
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from bench.processes import ROOT

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from pathlib import Path

    from bench.figures import Better, Figure

FILE: Final = ROOT / "docs" / "performance" / "baseline.json"
TOLERANCE: Final = 0.15


@dataclass(frozen=True)
class Stored:
    """A ratio as it was."""

    ratio: float
    better: Better


@dataclass(frozen=True)
class Comparison:
    """A ratio then and now.  worse: by which share of the stored one; below zero it is better."""

    key: str
    stored: float
    now: float
    worse: float
    attempts: int

    @property
    def failed(self) -> bool:
        return self.worse > TOLERANCE

    def __str__(self) -> str:
        verdict = "WORSE" if self.failed else "ok"
        times = f", median of {self.attempts}" if self.attempts > 1 else ""
        return f"{verdict:5}  {self.key}: {self.stored:.3g} -> {self.now:.3g}, {self.worse:+.0%}{times}"


def read(file: Path = FILE) -> dict[str, Stored]:
    """Raises FileNotFoundError."""
    ratios = json.loads(file.read_text())["ratios"]
    return {key: Stored(entry["ratio"], entry["better"]) for key, entry in ratios.items()}


def write(figures: Iterable[Figure], machine: Mapping[str, Any], keep: Mapping[str, Stored], file: Path = FILE) -> None:
    """Replace what was measured; keep stored ratios that were not, such as those of a host that is not installed."""
    ratios = {key: stored for key, stored in keep.items()} | {
        figure.key: Stored(figure.spread.median, figure.better) for figure in figures if is_stored(figure)
    }
    entries = {
        key: {"ratio": float(f"{ratios[key].ratio:.4g}"), "better": ratios[key].better} for key in sorted(ratios)
    }
    about = {name: machine[name] for name in ("date", "commit", "cpu", "cores", "grpcio", "python")}
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps({"measured": about, "ratios": entries}, indent=1) + "\n")


def is_stored(figure: Figure) -> bool:
    """Ratios that were measured, none that was estimated, and no peer's: it may be another release the next time."""
    beside_peer = any(name in figure.key for name in ("OpenBao", "KES"))
    return figure.kept and figure.unit == "x" and not figure.estimated and not beside_peer


def compare(stored: Mapping[str, Stored], attempts: Sequence[Iterable[Figure]]) -> list[Comparison]:
    """Every stored ratio that was measured; of several attempts the median counts."""
    measured: dict[str, list[float]] = {}
    for figures in attempts:
        for figure in figures:
            measured.setdefault(figure.key, []).append(figure.spread.median)
    return [_compare(key, each, measured[key]) for key, each in stored.items() if key in measured]


def _compare(key: str, stored: Stored, values: Sequence[float]) -> Comparison:
    now = statistics.median(values)
    worse = now / stored.ratio - 1 if stored.better == "lower" else stored.ratio / now - 1
    return Comparison(key, stored.ratio, now, worse, len(values))
