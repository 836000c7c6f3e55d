"""Keys in a SoftHSM token, beside a bare loop on one session of the same token."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bench.contenders import Summary
from bench.figures import Figure, Findings
from bench.processes import StartFailed
from bench.rig import Rig, Setup
from bench.slices import Spread
from bench.token import TOKEN_CASES, Loop, create_token_keys, measure_token, what_is_missing

if TYPE_CHECKING:
    from bench.pace import Pace
    from bench.stand import Stand
    from bench.token import TokenRow


def measure(stand: Stand, pace: Pace) -> Findings:
    """Raises StartFailed where there is no SoftHSM.  A vault of its own: the worker's process would be in every other figure."""
    if missing := what_is_missing():
        raise StartFailed(missing)
    with Rig(stand.scratch, setup=Setup(options=("--hsm",))) as rig:
        create_token_keys(rig.api)
        rows = measure_token(rig, Loop(rig), list(TOKEN_CASES), pace.table, lambda text: None)
    return Findings(
        figures=[
            Figure(f"{row.name} / a bare loop, a second", Spread.of(row.rounds_to_loop), "higher") for row in rows
        ],
        rows={"Keys in a SoftHSM token": [_summary(row) for row in rows]},
    )


def _summary(row: TokenRow) -> Summary:
    return Summary(
        name=f"{row.name}, {row.in_flight} in flight",
        items=row.items,
        slices=len(row.rounds_to_loop),
        calls=row.calls,
        items_per_s=row.items_per_s,
        cpu_us=row.cpu_us_per_item * row.items,
        item_cpu_us=row.cpu_us_per_item,
        p50_ms=row.p50_ms,
        p99_ms=row.p99_ms,
        busy=row.busy,
    )
