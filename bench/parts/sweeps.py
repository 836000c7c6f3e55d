"""Curves: latency against load, against callers, and what an item costs against the size of its batch."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from bench.clients import Pressure
from bench.contenders import Loaded, summarize
from bench.figures import Curve, Findings, Point
from bench.parts.batches import batch
from bench.parts.calls import ENCRYPT, ON
from bench.stand import Stand, available, peer, served

if TYPE_CHECKING:
    from collections.abc import Callable

    from bench.pace import Pace
    from bench.peers import Kes, OpenBao

SHARES: Final = (0.1, 0.3, 0.5, 0.7, 0.8, 0.9)
"""Of what a contender can do in a closed loop."""
CALLERS: Final = (1, 2, 4, 8, 16, 32, 64, 128)
SIZES: Final = (1, 10, 100, 1_000, 10_000)
BAO_SIZES: Final = (1, 10, 100, 400)
"""OpenBao refuses a request with more than some hundreds of strings in it."""
SATURATING: Final = Pressure(64)


def _unary(stand: Stand) -> list[Callable[[Pressure], Loaded]]:
    """Encrypt at each server that is there."""

    def vault(host: str) -> Callable[[Pressure], Loaded]:
        rig = stand.host(host)
        return lambda pressure: served(rig, rig.vaultd, f"vaultd on {ON[host]}", ENCRYPT, pressure)

    def other(server: OpenBao | Kes) -> Callable[[Pressure], Loaded]:
        return lambda pressure: peer(stand, server, server.name, server.encrypt(), pressure)

    return available(
        [lambda: vault("grpc"), lambda: vault("envoy"), lambda: other(stand.openbao), lambda: other(stand.kes)]
    )


def sweep_load(stand: Stand, pace: Pace) -> Findings:
    """Open loops at shares of each server's saturation."""
    findings = Findings()
    for make in _unary(stand):
        make(SATURATING).run(pace.sweep_s / 2)
        most = make(SATURATING).run(pace.sweep_s)
        points = []
        for share in SHARES:
            contender = make(Pressure(rate=most.items_per_s * share))
            points.append(Point(most.items_per_s * share, summarize(contender.name, [contender.run(pace.sweep_s)])))
        findings.curves.setdefault("latency against load", []).append(Curve(contender.name, tuple(points)))
    return findings


def sweep_callers(stand: Stand, pace: Pace) -> Findings:
    """Closed loops with ever more calls in flight."""
    findings = Findings()
    for make in _unary(stand):
        make(Pressure()).run(pace.sweep_s / 2)
        points = []
        for callers in CALLERS:
            contender = make(Pressure(callers))
            points.append(Point(callers, summarize(contender.name, [contender.run(pace.sweep_s / 2)])))
        findings.curves.setdefault("calls in flight", []).append(Curve(contender.name, tuple(points)))
    return findings


def sweep_sizes(stand: Stand, pace: Pace) -> Findings:
    """Batches of encryptions from 1 to the limit."""

    def vault(host: str, key: str) -> Callable[[int], Loaded]:
        rig = stand.host(host)

        def make(items: int) -> Loaded:
            case = batch(key, items)
            request = rig.api.requests([case])[case.name]
            algorithm = {"aes": "AES-256-GCM", "xaes": "XAES-256-GCM"}[key]
            return served(rig, rig.vaultd, f"{algorithm} on {ON[host]}", request, Pressure(2))

        return make

    def openbao() -> Callable[[int], Loaded]:
        server = stand.openbao
        return lambda items: peer(stand, server, "OpenBao batch_input", server.encrypt_batch(items), Pressure(2))

    findings = Findings()
    for make, sizes in available(
        [
            lambda: (vault("grpc", "aes"), SIZES),
            lambda: (vault("grpc", "xaes"), SIZES),
            lambda: (vault("envoy", "aes"), SIZES),
            lambda: (openbao(), BAO_SIZES),
        ]
    ):
        points = []
        for items in sizes:
            contender = make(items)
            contender.run(pace.sweep_s / 3)
            points.append(Point(items, summarize(contender.name, [contender.run(pace.sweep_s)])))
        findings.curves.setdefault("size of a batch", []).append(Curve(contender.name, tuple(points)))
    return findings
