"""Curves: latency against load, against callers, and what an item costs against the size of its batch."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, TypeVar

from bench.clients import LoadFailed, Pressure
from bench.contenders import Loaded, summarize
from bench.figures import Curve, Findings, Point
from bench.parts.batches import batch
from bench.parts.calls import ENCRYPT, ON
from bench.stand import Stand, available, peer, served

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from bench.pace import Pace
    from bench.peers import Kes, OpenBao

T = TypeVar("T", int, float)
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


def _curve(title: str, ats: Sequence[T], make: Callable[[T], Loaded], seconds: float, findings: Findings) -> None:
    """A point at each place, until calls fail: a server that refuses some has no latency to speak of there."""
    points: list[Point] = []
    name = ""
    for at in ats:
        contender = make(at)
        name = contender.name
        try:
            points.append(Point(at, summarize(name, [contender.run(seconds)])))
        except LoadFailed as error:
            findings.notes.append(f"{title}: {name} at {at:,.0f}: {error.args[0].splitlines()[0]}")
            break
    if points:
        findings.curves.setdefault(title, []).append(Curve(name, tuple(points)))


def _at_rate(make: Callable[[Pressure], Loaded]) -> Callable[[float], Loaded]:
    return lambda rate: make(Pressure(rate=rate))


def _in_flight(make: Callable[[Pressure], Loaded]) -> Callable[[int], Loaded]:
    return lambda callers: make(Pressure(callers))


def sweep_load(stand: Stand, pace: Pace) -> Findings:
    """Open loops at shares of each server's saturation."""
    findings = Findings()
    for make in _unary(stand):
        make(SATURATING).run(pace.sweep_s / 2)
        most = make(SATURATING).run(pace.sweep_s).items_per_s
        rates = [most * share for share in SHARES]
        _curve("latency against load", rates, _at_rate(make), pace.sweep_s, findings)
    return findings


def sweep_callers(stand: Stand, pace: Pace) -> Findings:
    """Closed loops with ever more calls in flight."""
    findings = Findings()
    for make in _unary(stand):
        make(Pressure()).run(pace.sweep_s / 2)
        _curve("calls in flight", CALLERS, _in_flight(make), pace.sweep_s / 2, findings)
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
        make(sizes[0]).run(pace.sweep_s / 2)
        _curve("size of a batch", sizes, make, pace.sweep_s, findings)
    return findings
