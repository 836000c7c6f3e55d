"""Peers as they were once measured, for a run that has none: their calls are scaled by the bare echo, RSA by the processor.

An estimate, and marked as one: the peers themselves, in the same run, are what counts.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Literal

from bench.figures import Figure
from bench.slices import Spread

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

Scale = Literal["echo", "rsa"]


@dataclass(frozen=True)
class Reference:
    """Server CPU of an operation at a peer, audit on, two virtual cores, November 2026."""

    key: str
    """The figure that it stands in for."""
    row: str
    """Our side of it."""
    cpu_us: float
    scale: Scale = "echo"


REFERENCES: Final = (
    Reference("Encrypt on grpc.aio / OpenBao", "Encrypt on grpc.aio", 855),
    Reference("Encrypt on Envoy / OpenBao", "Encrypt on Envoy", 855),
    Reference("batch item on grpc.aio / OpenBao's", "BatchEncrypt aes x400 on grpc.aio", 25),
    Reference("RSA-PSS-2048 sign on grpc.aio / OpenBao", "RSA-PSS-2048 sign on grpc.aio", 1_570, "rsa"),
    Reference("RSA-PSS-2048 sign on Envoy / OpenBao", "RSA-PSS-2048 sign on Envoy", 1_570, "rsa"),
    Reference("Encrypt on Envoy / KES", "Encrypt on Envoy", 64),
    Reference("SDK on grpc.aio, 64 callers / KES", "SDK on grpc.aio, 64 callers", 64),
)
ECHO_US: Final = {(1, 76): 200.0, (1, 85): 340.0}
"""The bare echo over TLS at the same time, by the release of grpcio: each later one counts as the one before it."""
RSA_US: Final = 267.0
"""An RSA-2048 signature in process, at the same time."""


def estimate(
    figures: Iterable[Figure], item_cpu_us: Mapping[str, float], grpcio: str, rsa_us: float | None
) -> list[Figure]:
    """The figures that are missing and can be estimated.  item_cpu_us: by the name of a row."""
    known = {figure.key for figure in figures}
    scales = {"echo": _ratio(item_cpu_us.get("echo on grpc.aio"), echo_then_us(grpcio)), "rsa": _ratio(rsa_us, RSA_US)}
    found = []
    for reference in REFERENCES:
        ours, scale = item_cpu_us.get(reference.row), scales[reference.scale]
        if reference.key not in known and ours is not None and scale is not None:
            spread = Spread.of([ours / (reference.cpu_us * scale)])
            found.append(Figure(reference.key, spread, estimated=True))
    return found


def echo_then_us(grpcio: str) -> float:
    """What the echo cost with this release, or the newest one before it."""
    release = tuple(int(part) for part in grpcio.split(".")[:2])
    older = [us for at, us in ECHO_US.items() if at <= release]
    return older[-1] if older else next(iter(ECHO_US.values()))


def _ratio(now: float | None, then: float) -> float | None:
    return None if now is None else now / then
