"""CryptoStream beside unary Encrypt: as many operations in flight on both sides, on one server."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from bench.cases import DATA, key_name
from bench.clients import Pressure
from bench.contenders import Loaded, take_turns
from bench.figures import Comparison, Findings
from bench.parts.calls import ENCRYPT, ON
from bench.rig import CONNECTIONS
from bench.stand import UNAVAILABLE, served

if TYPE_CHECKING:
    from bench.pace import Pace
    from bench.rig import Rig
    from bench.stand import Stand

IN_FLIGHT: Final = (8, 64)


def measure_streams(stand: Stand, pace: Pace) -> Findings:
    """Operations go out one a message, and then together: what became free at once in one message, as a client does that
    coalesces."""
    findings = Findings()
    for host in ON:
        try:
            rig = stand.host(host)
        except UNAVAILABLE:
            continue
        for in_flight in IN_FLIGHT:
            _measure(stand, rig, f"on {ON[host]}, {in_flight} in flight", in_flight, pace, findings)
    return findings


def _measure(stand: Stand, rig: Rig, where: str, in_flight: int, pace: Pace, findings: Findings) -> None:
    unary, alone, together = (f"{kind} {where}" for kind in ("unary", "stream, one a message", "stream, together"))
    contenders = [
        served(rig, rig.vaultd, unary, ENCRYPT, Pressure(in_flight)),
        _streamed(stand, rig, alone, in_flight, together=False),
        _streamed(stand, rig, together, in_flight, together=True),
    ]
    measured = take_turns(contenders, pace.batches)
    findings.add_rows("CryptoStream beside unary Encrypt, 64 bytes", measured)
    findings.compare(
        measured,
        [
            Comparison(f"CryptoStream / unary {where}", alone, unary),
            Comparison(f"CryptoStream together / unary {where}", together, unary),
        ],
    )


def _streamed(stand: Stand, rig: Rig, name: str, in_flight: int, *, together: bool) -> Loaded:
    order = {
        "address": rig.vaultd.address,
        "tls": str(rig.tls),
        "streams": min(CONNECTIONS, in_flight),
        "in_flight": in_flight,
        "together": together,
        "name": key_name("aes"),
        "bytes": len(DATA),
    }
    client = stand.python_client("bench.stream_client")
    return Loaded(name, rig.vaultd.meter, client, lambda seconds: {**order, "seconds": seconds})
