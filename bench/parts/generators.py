"""Our load generator beside another party's, on the bare echo: that its rates and what it costs a server are believed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from bench.bombardier import Bombarded
from bench.clients import Pressure, order
from bench.contenders import Loaded, take_turns
from bench.figures import Comparison, Findings
from bench.measure import ECHO_REQUEST
from bench.slices import items_per_s

if TYPE_CHECKING:
    from bench.pace import Pace
    from bench.stand import Stand

IN_FLIGHT: Final = 8
_OURS, _OTHER = "loadgen", "bombardier --http2"


def measure_generators(stand: Stand, pace: Pace) -> Findings:
    """On one connection, which is what the other one has.  Raises StartFailed where that is not installed."""
    rig = stand.host("grpc")
    endpoint, meter = rig.endpoint(rig.echo), rig.echo.meter
    other = Bombarded(_OTHER, meter, endpoint, ECHO_REQUEST, IN_FLIGHT, stand.scratch)
    ours = Loaded(
        _OURS, meter, rig.client, lambda seconds: order(endpoint, ECHO_REQUEST, Pressure(IN_FLIGHT), seconds, 1)
    )
    measured = take_turns([ours, other], pace.signatures)
    findings = Findings()
    findings.add_rows("Load generators, on the echo on grpc.aio; 8 in flight on one connection", measured)
    findings.compare(
        measured,
        [
            Comparison("loadgen / bombardier, server CPU of a call", _OURS, _OTHER),
            Comparison("loadgen / bombardier, calls a second", _OURS, _OTHER, items_per_s, "higher"),
        ],
    )
    return findings
