"""Everything that runs during a measurement: two servers, load clients, and a scratch directory that goes with them."""

from __future__ import annotations

import base64
import json
import socket
import ssl
import tempfile
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Self

from bench.cases import Api
from bench.processes import Meter, Process, StartFailed

if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import TracebackType


@dataclass(frozen=True)
class Target:
    """A server under load."""

    process: Process
    address: str
    meter: Meter
    tls_version: str


@dataclass(frozen=True)
class Slice:
    """What came of one slice of load."""

    calls: int
    elapsed_s: float
    server_cpu_s: float
    client_cpu_s: float
    peak_mib: float
    latencies_us: list[int]

    @property
    def cpu_us(self) -> float:
        """Server CPU per call."""
        return self.server_cpu_s / self.calls * 1e6


class LoadFailed(Exception):
    """Calls under load failed; figures of refusals would mislead."""


class Rig:
    """A context: on leaving it every process that it started has ended and its files are gone."""

    def __init__(
        self, scratch_parent: Path | None, clients: int, connections: int, vaultd_options: Sequence[str] = ()
    ) -> None:
        self._scratch_parent = scratch_parent
        self._client_count = clients
        self._connections = connections
        self._vaultd_options = vaultd_options
        self._exits = ExitStack()
        self._clients: list[Process] = []
        self.scratch: Path
        self.vault: Path
        self.vaultd: Target
        self.echo: Target
        self.api: Api

    def __enter__(self) -> Self:
        try:
            self._start()
        except BaseException:
            self._exits.close()
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._exits.close()

    def _start(self) -> None:
        directory = tempfile.TemporaryDirectory(prefix="vaultd-bench-", dir=self._scratch_parent)
        self.scratch = Path(self._exits.enter_context(directory))
        self.vault = self.scratch / "vault"
        tls = self.vault / "tls"
        serve = ["vaultd", "dev", "--dir", str(self.vault), "--listen", "127.0.0.1:0", *self._vaultd_options]
        self.vaultd = self._target("vaultd", serve, tls)
        self.echo = self._target("echo", ["bench.echo_server", str(tls)], tls)
        for number in range(self._client_count):
            arguments = ["bench.load_client", str(tls), str(self._connections)]
            client = self.start(f"client-{number}", arguments)
            client.wait_ready()
            self._clients.append(client)
        self.api = Api(self.vaultd.address, tls)

    def start(self, name: str, arguments: list[str]) -> Process:
        """Start one more process, which ends with the others."""
        process = Process(name, arguments, self.scratch)
        self._exits.callback(process.stop)
        return process

    def _target(self, name: str, arguments: list[str], tls: Path) -> Target:
        process = self.start(name, arguments)
        address = process.wait_ready()
        return Target(process, address, Meter(process.pid), _tls_version(address, tls))

    def load(self, target: Target, method: str, body: bytes, seconds: float, in_flight: int) -> Slice:
        """Run one slice and meter the server around it.  Raises LoadFailed when a call failed."""
        share = max(1, in_flight // len(self._clients))
        order = {
            "address": target.address,
            "method": method,
            "body": base64.b64encode(body).decode(),
            "seconds": seconds,
            "concurrency": share,
        }
        line = json.dumps(order).encode() + b"\n"
        target.meter.forget_peak()
        before = target.meter.cpu_s()
        for client in self._clients:
            client.stdin.write(line)
            client.stdin.flush()
        answers = [read_answer(client) for client in self._clients]
        server_cpu_s = target.meter.cpu_s() - before
        errors = [answer["errors"] for answer in answers if answer["errors"]]
        latencies = [latency for answer in answers for latency in answer["latencies_us"]]
        if errors or not latencies:
            raise LoadFailed(f"{method}: {errors or 'no call ended'}\n{target.process.describe_failure()}")
        return Slice(
            calls=len(latencies),
            elapsed_s=max(answer["elapsed_s"] for answer in answers),
            server_cpu_s=server_cpu_s,
            client_cpu_s=sum(answer["client_cpu_s"] for answer in answers),
            peak_mib=target.meter.peak_mib(),
            latencies_us=latencies,
        )


def read_answer(process: Process) -> dict:
    """The next line of JSON that a process says.  Raises StartFailed when it has ended."""
    line = process.stdout.readline()
    if not line:
        raise StartFailed(process.describe_failure())
    return json.loads(line)


def _tls_version(address: str, tls: Path) -> str:
    """The version that one more client gets; both servers and all clients have the same library."""
    context = ssl.create_default_context(cafile=str(tls / "ca.crt"))
    context.load_cert_chain(tls / "app.crt", tls / "app.key")
    context.set_alpn_protocols(["h2"])
    host, _, port = address.rpartition(":")
    with socket.create_connection((host, int(port)), timeout=5) as plain:
        with context.wrap_socket(plain, server_hostname=host) as secured:
            return secured.version() or "none"
