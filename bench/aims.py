"""What was aimed at: each line with its figure, its limit, and the part of a run that measures it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Literal

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from bench.figures import Figure

Verdict = Literal["met", "missed", "not measured"]


@dataclass(frozen=True)
class Aim:
    """`figure` is at or below `limit`, or for what is better when it is higher, at or above it."""

    text: str
    figure: str
    limit: float
    part: str


@dataclass(frozen=True)
class Outcome:
    """An aim, and what came of it.  estimated: against another party's stored figures instead of itself in the same run."""

    aim: Aim
    verdict: Verdict
    figure: Figure | None
    why: str = ""

    @property
    def command(self) -> str:
        """What measures it again."""
        return f"python -m bench run {self.aim.part}"

    def as_dict(self) -> dict[str, Any]:
        figure = self.figure
        return {
            "text": self.aim.text,
            "figure": self.aim.figure,
            "limit": self.aim.limit,
            "better": figure.better if figure else None,
            "unit": figure.unit if figure else None,
            "got": figure.spread.median if figure else None,
            "low": figure.spread.low if figure else None,
            "high": figure.spread.high if figure else None,
            "verdict": self.verdict,
            "estimated": bool(figure and figure.estimated),
            "why": self.why,
            "command": self.command,
        }


def judge(figures: Iterable[Figure], absent: Mapping[str, str], missing: Mapping[str, str]) -> list[Outcome]:
    """Every aim.  absent: why a figure is not there, by its key or its part; missing: why a server is not."""
    by_key = {figure.key: figure for figure in figures}
    return [_judge(aim, by_key.get(aim.figure), absent, missing) for aim in AIMS]


def _lacks(aim: Aim, missing: Mapping[str, str]) -> str:
    """What is not there of that which the figure is about."""
    about = {"vaultd --host envoy": "Envoy", "vaultd on grpc.aio": "grpc.aio", "OpenBao": "OpenBao", "KES": "KES"}
    return next((why for name, why in missing.items() if name in about and about[name] in aim.figure), "")


def _judge(aim: Aim, figure: Figure | None, absent: Mapping[str, str], missing: Mapping[str, str]) -> Outcome:
    if figure is not None:
        got = figure.spread.median
        met = got <= aim.limit if figure.better == "lower" else got >= aim.limit
        return Outcome(aim, "met" if met else "missed", figure)
    if aim.figure in absent:  # measured, and refused: there is no figure because the server did not do it
        return Outcome(aim, "missed", None, absent[aim.figure])
    return Outcome(aim, "not measured", None, absent.get(aim.part) or _lacks(aim, missing))


_HALF: Final = "p99 / p50 at half of saturation on"
_BESIDE: Final = "beside batches of 10,000 and RSA-4096 keys"

_SINGLE: Final = (
    ("Encrypt: server CPU on Envoy, to grpc.aio", "Encrypt on Envoy / on grpc.aio", 0.45),
    ("Encrypt on grpc.aio: full chain, to a bare echo", "Encrypt on grpc.aio / its echo", 1.35),
    ("Encrypt on grpc.aio, to OpenBao", "Encrypt on grpc.aio / OpenBao", 0.55),
    ("Encrypt on Envoy, to OpenBao", "Encrypt on Envoy / OpenBao", 0.17),
    ("Encrypt on Envoy, to KES", "Encrypt on Envoy / KES", 2.2),
)
"""Each with 8 calls in flight, where wake-ups are part of a call, and with 64, where the server has no pause."""

_WORKERS: Final = (
    ("two workers on all cores, to one on one core", "one worker on one core"),
    ("two workers, to one, both on all cores", "one worker"),
)
_WORKER_LOADS: Final = (
    ("single calls over 8 connections", ", calls a second"),
    ("single calls of 32 callers", ", 32 callers, calls a second"),
    ("batches of 100 of 16 callers", " in batches, 16 callers, signatures a second"),
)

AIMS: Final = (
    *(
        Aim(f"{text}{load}", f"{figure}{load}", limit, "encrypt")
        for text, figure, limit in _SINGLE
        for load in ("", ", 64 in flight")
    ),
    Aim(
        "Encrypt: calls a second on Envoy, to grpc.aio",
        "Encrypt on Envoy / on grpc.aio, calls a second",
        2.2,
        "encrypt",
    ),
    Aim("an item of a batch, to one of OpenBao's batch_input", "batch item on grpc.aio / OpenBao's", 0.2, "batches"),
    Aim("RSA-2048 PSS on grpc.aio, to OpenBao", "RSA-PSS-2048 sign on grpc.aio / OpenBao", 0.75, "signatures"),
    Aim("RSA-2048 PSS on Envoy, to OpenBao", "RSA-PSS-2048 sign on Envoy / OpenBao", 0.6, "signatures"),
    Aim("SDK with 64 callers, to KES", "SDK on grpc.aio, 64 callers / KES", 0.4, "encrypt"),
    Aim("a batch of 1,000: server CPU of an item", "BatchEncrypt x1,000 on grpc.aio, an item", 5.0, "batches"),
    Aim("a batch of 1,000: XAES_256_GCM, to AES_256_GCM", "XAES / AES, batches on grpc.aio", 1.6, "batches"),
    Aim(
        "RSA-2048 in batches, to openssl speed on all cores",
        "RSA-2048 batches on grpc.aio / openssl, a second of a core",
        0.9,
        "signing",
    ),
    Aim(
        "P-256 in batches, to openssl speed on all cores",
        "P-256 batches on grpc.aio / openssl, a second of a core",
        0.5,
        "signing",
    ),
    Aim("grpc.aio: p99 at half of saturation, to p50", f"{_HALF} grpc.aio, alone", 5.0, "latency"),
    Aim(
        "grpc.aio: p99 beside batches and key generation, to the p50 without",
        f"{_HALF} grpc.aio, {_BESIDE}",
        5.0,
        "latency",
    ),
    Aim("Envoy: p99 at half of saturation, to p50", f"{_HALF} Envoy, alone", 5.0, "latency"),
    Aim(
        "Envoy: p99 beside batches and key generation, to the p50 without", f"{_HALF} Envoy, {_BESIDE}", 5.0, "latency"
    ),
    *(
        Aim(
            f"{text}: RSA-2048 signatures a second, {load}",
            f"two workers / {other}, RSA-PSS-2048 sign{figure}",
            1.7,
            "workers",
        )
        for text, other in _WORKERS
        for load, figure in _WORKER_LOADS
    ),
)
