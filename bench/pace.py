"""How long a run takes: the same parts, with more or fewer and longer or shorter slices."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from bench.contenders import Turns
from bench.measure import Plan


@dataclass(frozen=True)
class Pace:
    """Of all parts."""

    calls: Turns
    """Unary calls of all contenders in turns."""
    batches: Turns
    signatures: Turns
    """Whole seconds: `openssl speed` counts no others."""
    latency: Turns
    """Open loops: long enough for a p99."""
    sweep_s: float
    """Each point of a curve."""
    table: Plan
    lone_table: Plan
    """The same by itself, as `python -m bench cases`."""
    floors_s: float
    caution: str = ""
    """What its reports begin with."""


FULL: Final = Pace(
    calls=Turns(7, 0.6),
    batches=Turns(6, 0.8),
    signatures=Turns(5, 1.0),
    latency=Turns(3, 3.0),
    sweep_s=1.2,
    table=Plan(rounds=5, slice_s=0.3, warm_up_s=0.15, in_flight=8),
    lone_table=Plan(rounds=8, slice_s=1.0, warm_up_s=0.5, in_flight=8),
    floors_s=0.5,
)
"""Twelve minutes."""
QUICK: Final = Pace(
    calls=Turns(3, 0.25, 0.15),
    batches=Turns(2, 0.3, 0.15),
    signatures=Turns(1, 1.0, 0.2),
    latency=Turns(1, 1.0),
    sweep_s=0.3,
    table=Plan(rounds=2, slice_s=0.2, warm_up_s=0.1, in_flight=8),
    lone_table=Plan(rounds=5, slice_s=0.25, warm_up_s=0.15, in_flight=8),
    floors_s=0.1,
    caution="A quick run, to see that every part runs: its slices are too short for its figures to be quoted.",
)
"""To see that everything runs: its figures mean little."""
