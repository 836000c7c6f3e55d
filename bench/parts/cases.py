"""The table of all RPCs that are measured, beside the bare echo, on each host."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from bench.cases import CASES
from bench.contenders import Summary
from bench.figures import Figure, Findings
from bench.measure import ECHO, measure
from bench.parts.calls import ON
from bench.slices import Spread
from bench.stand import UNAVAILABLE

if TYPE_CHECKING:
    from bench.measure import Row
    from bench.pace import Pace
    from bench.stand import Stand

TITLE: Final = "All cases on"


def measure_cases(stand: Stand, pace: Pace) -> Findings:
    """Each host that is there."""
    findings = Findings()
    for host, name in ON.items():
        try:
            rig = stand.host(host)
        except UNAVAILABLE:
            continue
        rows = measure(rig, CASES, pace.table, lambda text: None)
        findings.rows[f"{TITLE} {name}"] = [_summary(row) for row in rows]
        findings.figures += [
            Figure(f"{row.name} on {name} / its echo, in the table", Spread.of(row.rounds_to_echo))
            for row in rows
            if row.name != ECHO
        ]
    return findings


def _summary(row: Row) -> Summary:
    return Summary(
        name=row.name,
        items=row.items,
        slices=len(row.rounds_cpu_us),
        calls=row.calls,
        items_per_s=row.items_per_s,
        cpu_us=row.cpu_us_per_call,
        item_cpu_us=row.cpu_us_per_item,
        cpu_spread=row.cpu_spread,
        p50_ms=row.p50_ms,
        p95_ms=row.p95_ms,
        p99_ms=row.p99_ms,
        p999_ms=row.p999_ms,
        busy=row.server_busy,
        client_cpu_us=row.client_cpu_us_per_call,
        peak_mib=row.peak_mib,
    )
