"""A vault and its baseline while they are measured: two servers, a load client, and a scratch directory that goes with them."""

from __future__ import annotations

import socket
import ssl
import tempfile
from contextlib import ExitStack
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Final, Self

from bench.accounting import Meter
from bench.cases import Api
from bench.clients import Client, Endpoint, LoadFailed, Pressure, Request, metered, order
from bench.processes import LOADGEN, MODULE, Process

if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import TracebackType

    from bench.slices import Slice

CONNECTIONS: Final = 8
ECHOES: Final = {"grpc": "bench.echo_server", "envoy": "bench.echo_envoy"}
"""The module of each host's bare echo."""


@dataclass(frozen=True)
class Target:
    """A server under load."""

    process: Process
    address: str
    meter: Meter
    tls_version: str


@dataclass(frozen=True)
class Setup:
    """How the vault is started.  Options are added to the command as they are; cores: the only ones that it may use."""

    host: str = "grpc"
    workers: int = 1
    options: tuple[str, ...] = ()
    cores: tuple[int, ...] = ()

    @property
    def name(self) -> str:
        """What is not there when it does not start."""
        cores = ["on core", *map(str, self.cores)] if self.cores else []
        return " ".join(["vaultd", *(self.arguments() or ["on grpc.aio"]), *cores])

    @property
    def program(self) -> tuple[str, ...]:
        """What runs it."""
        return ("taskset", "-c", ",".join(map(str, self.cores)), *MODULE) if self.cores else MODULE

    def arguments(self) -> list[str]:
        """What `vaultd dev` is told; nothing of what is its default anyway."""
        host = [] if self.host == "grpc" else ["--host", self.host]
        workers = [] if self.workers == 1 else ["--workers", str(self.workers)]
        return [*host, *workers, *self.options]


class Rig:
    """A context: on leaving it every process that it started has ended and its files are gone."""

    def __init__(
        self, scratch_parent: Path | None = None, connections: int = CONNECTIONS, setup: Setup | None = None
    ) -> None:
        self._scratch_parent = scratch_parent
        self.connections = connections
        self.setup = setup or Setup()
        self._exits = ExitStack()
        self.scratch: Path
        self.vault: Path
        self.vaultd: Target
        self.client: Client
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

    @property
    def tls(self) -> Path:
        """Where the certificates are."""
        return self.vault / "tls"

    def _start(self) -> None:
        directory = tempfile.TemporaryDirectory(prefix="vaultd-bench-", dir=self._scratch_parent)
        self.scratch = Path(self._exits.enter_context(directory))
        self.vault = self.scratch / "vault"
        self.vaultd = self._target("vaultd", self.serve(), self.setup.program)
        self.client = self.start_client("loadgen", [], LOADGEN)
        self.api = Api(self.vaultd.address, self.tls)

    def serve(self) -> list[str]:
        """The module that serves the vault, and its arguments."""
        return ["vaultd", "dev", "--dir", str(self.vault), "--listen", "127.0.0.1:0", *self.setup.arguments()]

    @cached_property
    def echo(self) -> Target:
        """The bare echo on the same kind of host, started when it is first asked for."""
        return self._target("echo", [ECHOES[self.setup.host], str(self.tls)])

    def start(self, name: str, arguments: Sequence[str], program: Sequence[str] = MODULE) -> Process:
        """Start one more process, which ends with the others."""
        process = Process(name, arguments, self.scratch, program)
        self._exits.callback(process.stop)
        return process

    def start_client(self, name: str, arguments: Sequence[str], program: Sequence[str] = MODULE) -> Client:
        """Start one more load client."""
        return Client(self.start(name, arguments, program))

    def _target(self, name: str, arguments: list[str], program: Sequence[str] = MODULE) -> Target:
        process = self.start(name, arguments, program)
        address = process.wait_ready()
        return Target(process, address, Meter(process.pid), _tls_version(address, self.tls))

    def endpoint(self, target: Target, identity: str = "app") -> Endpoint:
        """One of its servers, as one of the two identities that a dev vault makes."""
        return Endpoint.of_vault(target.address, self.tls, identity)

    def load(self, target: Target, request: Request, pressure: Pressure, seconds: float) -> Slice:
        """Run one slice and meter the server around it.  Raises LoadFailed when a call failed."""
        what = order(self.endpoint(target), request, pressure, seconds, self.connections)
        try:
            return metered(target.meter, self.client, what, request.items)
        except LoadFailed as error:
            raise LoadFailed(f"{request.path}: {error}\n{target.process.describe_failure()}") from error


def _tls_version(address: str, tls: Path) -> str:
    """The version that one more client gets."""
    context = ssl.create_default_context(cafile=str(tls / "ca.crt"))
    context.load_cert_chain(tls / "app.crt", tls / "app.key")
    context.set_alpn_protocols(["h2"])
    host, _, port = address.rpartition(":")
    with socket.create_connection((host, int(port)), timeout=5) as plain:
        with context.wrap_socket(plain, server_hostname=host) as secured:
            return secured.version() or "none"
