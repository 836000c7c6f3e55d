"""Unchanged code through the Python SDK, with coalescing and without."""

from __future__ import annotations

import base64
from typing import TYPE_CHECKING, Final

from bench.cases import DATA, key_name
from bench.contenders import Loaded, Turns, take_turns
from bench.figures import Comparison, Findings
from bench.slices import items_per_s

if TYPE_CHECKING:
    from bench.pace import Pace
    from bench.rig import Rig
    from bench.slices import Slice
    from bench.stand import Stand

CALLERS: Final = 64
_ON, _OFF = f"coalesced, {CALLERS} callers", f"coalesce=False, {CALLERS} callers"
_LONE_ON, _LONE_OFF = "coalesced, a lone caller", "coalesce=False, a lone caller"


def _p50_ms(measured: Slice) -> float:
    return measured.percentile_ms(50.0)


_BUSY: Final = (
    Comparison("SDK coalesced / not", _ON, _OFF),
    Comparison("SDK coalesced / not, operations a second", _ON, _OFF, items_per_s, "higher"),
)
_LONE: Final = (Comparison("SDK coalesced / not, p50 of a lone caller", _LONE_ON, _LONE_OFF, _p50_ms),)


def through_sdk(stand: Stand, rig: Rig, name: str, key: str, callers: int, *, coalesce: bool = True) -> Loaded:
    """A contender: callers that each await an encrypt of their own, through one client."""
    order = {
        "address": rig.vaultd.address,
        "tls": str(rig.tls),
        "name": key,
        "data": base64.b64encode(DATA).decode(),
        "in_flight": callers,
        "coalesce": coalesce,
    }
    return Loaded(
        name, rig.vaultd.meter, stand.python_client("bench.sdk_client"), lambda seconds: {**order, "seconds": seconds}
    )


def measure_sdk(stand: Stand, pace: Pace) -> Findings:
    """64 callers, and a lone one in short turns: that coalescing costs it nothing."""
    rig = stand.host("grpc")

    def sdk(name: str, callers: int, *, coalesce: bool) -> Loaded:
        return through_sdk(stand, rig, name, key_name("aes"), callers, coalesce=coalesce)

    findings = Findings()
    measured = take_turns([sdk(_OFF, CALLERS, coalesce=False), sdk(_ON, CALLERS, coalesce=True)], pace.batches)
    findings.add_rows("Python SDK, Encrypt, 64 bytes", measured)
    findings.compare(measured, _BUSY)
    lone = [sdk(_LONE_OFF, 1, coalesce=False), sdk(_LONE_ON, 1, coalesce=True)]
    measured = take_turns(lone, Turns(pace.calls.rounds * 2, 0.25))
    findings.add_rows("Python SDK, Encrypt, 64 bytes", measured)
    findings.compare(measured, _LONE)
    return findings
