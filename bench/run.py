"""One run: its parts in order, what came of each, and the document that all reports are made of."""

from __future__ import annotations

import time
from dataclasses import asdict
from typing import TYPE_CHECKING, Any, Final

from bench.aims import AIMS, judge
from bench.machine import describe_machine
from bench.openssl import OpensslFailed
from bench.parts import batches, calls, cases, floors, generators, latency, sdk, streams, sweeps, token, workers
from bench.references import estimate
from bench.stand import UNAVAILABLE

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from bench.aims import Outcome
    from bench.figures import Figure, Findings
    from bench.pace import Pace
    from bench.stand import Stand

SCHEMA: Final = 1
PARTS: Final[Mapping[str, Callable[[Stand, Pace], Findings]]] = {
    "floors": floors.measure,
    "encrypt": calls.measure_encrypt,
    "signatures": calls.measure_signatures,
    "batches": batches.measure_batches,
    "signing": batches.measure_signing,
    "latency": latency.measure_latency,
    "workers": workers.measure_workers,
    "streams": streams.measure_streams,
    "sdk": sdk.measure_sdk,
    "load": sweeps.sweep_load,
    "callers": sweeps.sweep_callers,
    "sizes": sweeps.sweep_sizes,
    "cases": cases.measure_cases,
    "token": token.measure,
    "generators": generators.measure_generators,
}
JUDGED: Final = ("floors", *dict.fromkeys(aim.part for aim in AIMS))
"""The parts that aims need."""
CHECKED: Final = ("encrypt", "batches", "signing", "streams", "sdk")
"""The parts that the stored ratios are compared with."""


class Run:
    """What has been measured so far.  A part that cannot run says why and does not stop the others."""

    def __init__(self, stand: Stand, pace: Pace, say: Callable[[str], None]) -> None:
        self._stand = stand
        self._pace = pace
        self._say = say
        self._began = time.monotonic()
        self.machine = describe_machine()
        self.findings: dict[str, Findings] = {}
        self.failures: dict[str, str] = {}

    def measure(self, names: Sequence[str]) -> None:
        """Those parts, one after the other."""
        for name in names:
            began = time.monotonic()
            try:
                self.findings[name] = PARTS[name](self._stand, self._pace)
                self.failures.pop(name, None)
            except (*UNAVAILABLE, OpensslFailed, ValueError) as error:
                self.failures[name] = str(error)
                self.findings.pop(name, None)  # of an earlier attempt
                self._say(f"bench: {name} was not measured: {error}")
            else:
                self._say(f"bench: {name}, {time.monotonic() - began:.0f} s")

    def figures(self) -> list[Figure]:
        """Of all parts, with estimates where a peer is missing."""
        measured = [figure for findings in self.findings.values() for figure in findings.figures]
        rows = {row.name: row for findings in self.findings.values() for each in findings.rows.values() for row in each}
        rsa = rows.get("RSA-PSS-2048 sign")
        item_cpu_us = {name: row.item_cpu_us for name, row in rows.items()}
        return [
            *measured,
            *estimate(measured, item_cpu_us, self.machine["grpcio"], rsa.item_cpu_us if rsa else None),
        ]

    def outcomes(self) -> list[Outcome]:
        """Every aim of the parts that were tried."""
        tried = {*self.findings, *self.failures}
        absent = {key: why for findings in self.findings.values() for key, why in findings.absent.items()}
        judged = judge(self.figures(), {**absent, **self.failures}, self._stand.missing)
        return [each for each in judged if each.aim.part in tried]

    def document(self) -> dict[str, Any]:
        """All of it, for JSON."""
        return {
            "schema": SCHEMA,
            "machine": self.machine,
            "took_s": round(time.monotonic() - self._began, 1),
            "pace": asdict(self._pace),
            "missing": dict(self._stand.missing),
            "failures": self.failures,
            "aims": [outcome.as_dict() for outcome in self.outcomes()],
            "figures": [figure.as_dict() for figure in self.figures()],
            "parts": {name: findings.as_dict() for name, findings in self.findings.items()},
        }
