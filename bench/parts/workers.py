"""Workers: what a second process on a second core is worth."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from bench.cases import Case, encrypt_with, sign_with
from bench.clients import Pressure
from bench.contenders import take_turns
from bench.figures import Comparison, Findings
from bench.parts.batches import SIGNED, batch
from bench.rig import CONNECTIONS, Setup
from bench.slices import Spread, items_per_s
from bench.stand import served

if TYPE_CHECKING:
    from collections.abc import Mapping

    from bench.contenders import Loaded
    from bench.pace import Pace
    from bench.slices import Slice
    from bench.stand import Stand

CALLERS: Final = 32
BATCHERS: Final = 16
SETUPS: Final = {
    "one worker on one core": Setup(workers=1, cores=(min(os.sched_getaffinity(0)),)),
    "one worker": Setup(workers=1),
    "two workers": Setup(workers=2),
}
"""One worker on one core, and on all: threads that sign use all that there are."""
_SIGN: Final = Case("Sign", "Sign", sign_with("rsa2048"))
_ENCRYPT: Final = Case("Encrypt", "Encrypt", encrypt_with("aes"))


@dataclass(frozen=True)
class Load:
    """How hard, and what is sent, by the name of its lines.  counted: what figures are of, a second."""

    title: str
    pressure: Pressure
    cases: Mapping[str, Case]
    counted: str = "calls"


LOADS: Final = (
    Load(
        f"Workers, single calls; {CALLERS} in flight over {CONNECTIONS} connections",
        Pressure(CALLERS),
        {"RSA-PSS-2048 sign": _SIGN, "Encrypt": _ENCRYPT},
    ),
    Load(
        f"Workers, single calls; {CALLERS} callers, each with a connection of its own",
        Pressure(CALLERS, apart=True),
        {f"RSA-PSS-2048 sign, {CALLERS} callers": _SIGN, f"Encrypt, {CALLERS} callers": _ENCRYPT},
    ),
    Load(
        f"Workers, batches of {SIGNED} signatures; {BATCHERS} callers, each with a connection of its own",
        Pressure(BATCHERS, apart=True),
        {f"RSA-PSS-2048 sign in batches, {BATCHERS} callers": batch("rsa2048", SIGNED, "Sign")},
        "signatures",
    ),
)


@dataclass(frozen=True)
class Weighed:
    """A contender, and in each of its slices the busiest process's share of the server's CPU."""

    loaded: Loaded
    shares: list[float] = field(default_factory=list)

    @property
    def name(self) -> str:
        return self.loaded.name

    def run(self, seconds: float) -> Slice:
        before = self.loaded.meter.each_cpu_s()
        measured = self.loaded.run(seconds)
        spent = [cpu_s - before.get(pid, 0.0) for pid, cpu_s in self.loaded.meter.each_cpu_s().items()]
        self.shares.append(max(spent) / sum(spent))
        return measured


def measure_workers(stand: Stand, pace: Pace) -> Findings:
    """Each load against each of SETUPS.  Raises StartFailed where the server has no workers."""
    findings = Findings()
    for load in LOADS:
        for what, case in load.cases.items():
            contenders = [
                Weighed(_loaded(stand, setup, f"{what}, {name}", case, load)) for name, setup in SETUPS.items()
            ]
            measured = take_turns(contenders, pace.batches)
            findings.add_rows(load.title, measured)
            findings.compare(
                measured,
                [
                    Comparison(
                        f"two workers / {other}, {what}, {load.counted} a second",
                        f"{what}, two workers",
                        f"{what}, {other}",
                        items_per_s,
                        "higher",
                    )
                    for other in ("one worker", "one worker on one core")
                ],
            )
            findings.notes.append(balance(contenders[-1]))
    return findings


def balance(two: Weighed) -> str:
    """How evenly two workers shared the load, once warm: the kernel deals out connections, not calls."""
    shares = Spread.of(two.shares[1:])
    return (
        f"{two.name}: the busier one took {shares.median:.0%} of their CPU, in half of the slices "
        f"{shares.low:.0%} to {shares.high:.0%}."
    )


def _loaded(stand: Stand, setup: Setup, name: str, case: Case, load: Load) -> Loaded:
    rig = stand.rig(setup)
    return served(rig, rig.vaultd, name, rig.api.requests([case])[case.name], load.pressure)
