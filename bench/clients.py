"""Load clients: processes that take an order a line and answer a line, and the slice of load made of both."""

from __future__ import annotations

import base64
import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Self

from bench.processes import Process, StartFailed
from bench.slices import Slice, latencies_of

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from bench.accounting import Meter

CALL_TIMEOUT_S = 30.0


class LoadFailed(Exception):
    """Calls under load failed; figures of refusals would mislead."""


@dataclass(frozen=True)
class Endpoint:
    """Where a server is, and as whom to call it.  Without a certificate the caller is known by a header of its requests."""

    address: str
    ca: Path
    cert: Path | None = None
    key: Path | None = None

    @classmethod
    def of_vault(cls, address: str, tls: Path, identity: str = "app") -> Self:
        """A dev vault's, whose directory has certificates of two identities."""
        return cls(address, tls / "ca.crt", tls / f"{identity}.crt", tls / f"{identity}.key")


@dataclass(frozen=True)
class Request:
    """What is sent again and again.  items: operations in it."""

    path: str
    body: bytes
    items: int = 1
    grpc: bool = True
    method: str = "POST"
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Pressure:
    """How hard: so many calls under way, or, with a rate, so many a second that begin at fixed times whatever is answered.

    apart: each of those under way is a caller with a connection of its own; else all go over the same few in turn.
    """

    in_flight: int = 8
    rate: float = 0.0
    apart: bool = False


class Client:
    """One load process.  An order that was begun must be ended before the next."""

    def __init__(self, process: Process) -> None:
        self._process = process
        process.wait_ready()

    def begin(self, order: Mapping[str, Any]) -> None:
        """Give an order, and return at once."""
        self._process.stdin.write(json.dumps(order).encode() + b"\n")
        self._process.stdin.flush()

    def end(self) -> dict[str, Any]:
        """What came of it.  Raises StartFailed when the process has ended, LoadFailed when a call failed or none was made."""
        line = self._process.stdout.readline()
        if not line:
            raise StartFailed(self._process.describe_failure())
        answer: dict[str, Any] = json.loads(line)
        answer["latencies_us"] = latencies_of(answer.pop("latencies", "") or "")
        answer.setdefault("calls", len(answer["latencies_us"]))
        if answer["errors"]:
            raise LoadFailed(f"calls failed: {answer['errors']}")
        if not answer["calls"]:
            raise LoadFailed("no call ended")
        return answer


def order(endpoint: Endpoint, request: Request, pressure: Pressure, seconds: float, connections: int) -> dict[str, Any]:
    """What loadgen is told."""
    server = {
        "address": endpoint.address,
        "ca": str(endpoint.ca),
        "cert": str(endpoint.cert or ""),
        "key": str(endpoint.key or ""),
        "connections": pressure.in_flight if pressure.apart else connections,
    }
    return {
        "server": server,
        "method": request.method,
        "path": request.path,
        "headers": dict(request.headers),
        "body": base64.b64encode(request.body).decode(),
        "grpc": request.grpc,
        "in_flight": pressure.in_flight,
        "apart": pressure.apart,
        "rate": pressure.rate,
        "seconds": seconds,
        "timeout_s": CALL_TIMEOUT_S,
    }


def metered(meter: Meter, client: Client, what: Mapping[str, Any], items: int = 1) -> Slice:
    """Run one slice and meter the server around it.  Raises LoadFailed when a call failed."""
    meter.forget_peak()
    before = meter.cpu_s()
    client.begin(what)
    answer = client.end()
    return Slice(
        calls=answer["calls"],
        elapsed_s=answer["elapsed_s"],
        server_cpu_s=meter.cpu_s() - before,
        client_cpu_s=answer["client_cpu_s"],
        peak_mib=meter.peak_mib(),
        pss_mib=meter.pss_mib(),
        latencies_us=answer["latencies_us"],
        items=items,
        latest_ms=answer.get("latest_us", 0) / 1_000,
    )
