"""A real server for tests: certificates, a SQLite file, an audit log and a grpc.aio listener on 127.0.0.1."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import grpc
import orjson
from google.rpc import error_details_pb2, status_pb2

from vaultd.config import Settings
from vaultd.devpki import create_dev_pki, issue_client_certificate
from vaultd.engine.policy import seed_policy
from vaultd.wiring import Server
from vaultd_client.v1 import admin_pb2_grpc, crypto_pb2_grpc, keys_pb2_grpc, secrets_pb2_grpc

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

HOST = "grpc"
"""`envoy` in tests that run inside an Envoy, which tests/envoy_inside.py says, and not in processes that they start."""
ADMIN = "spiffe://dev.vaultd/admin"
APP = "spiffe://dev.vaultd/app"
DEFAULT_POLICY = {"bindings": [{"members": [APP], "role": "crypto-user", "resource": "vaults/default"}]}


class FakeClock:
    """Time that tests move.  Wall and monotonic time move together unless told otherwise."""

    def __init__(self, now_us: int = 1_800_000_000_000_000) -> None:
        self.us = now_us
        self.mono_s = 1000.0

    def now_us(self) -> int:
        return self.us

    def monotonic_s(self) -> float:
        return self.mono_s

    def advance(self, seconds: float) -> None:
        self.us += int(seconds * 1_000_000)
        self.mono_s += seconds

    def jump_wall(self, seconds: float) -> None:
        self.us += int(seconds * 1_000_000)


def make_settings(directory: Path, **overrides: Any) -> Settings:
    """Settings over a directory; makes its certificates.  Overrides replace top-level keys.

    Nothing is shed: a busy machine makes the event loop late, and calls would be refused for that.
    """
    create_dev_pki(directory / "tls", hosts=["127.0.0.1"])
    values: dict[str, Any] = {
        "host": HOST,
        "listen": "127.0.0.1:0",
        "tls": {"certificate": directory / "tls/server.crt", "key": directory / "tls/server.key"},
        "trust_bundles": [{"name": "dev", "ca": directory / "tls/ca.crt", "trust_domain": "dev.vaultd"}],
        "operators": [ADMIN],
        "store": {"path": directory / "vault.db", "feed_poll_ms": 20},
        "root_key": {"provider": "file", "path": directory / "root.key"},
        "audit": {"directory": directory / "audit"},
        "lifecycle": {"min_destroy_delay_s": 0, "scheduler_interval_ms": 60_000},
        "reflection": True,
        "drain_grace_s": 1.0,
        **overrides,
    }
    values["limits"] = {"overload_delay_ms": 0, **values.get("limits", {})}
    return Settings(**values)


class Client:
    """Stubs of one identity."""

    def __init__(self, channel: grpc.aio.Channel) -> None:
        self.channel = channel
        self.crypto = crypto_pb2_grpc.CryptoServiceStub(channel)
        self.keys = keys_pb2_grpc.KeysServiceStub(channel)
        self.secrets = secrets_pb2_grpc.SecretsServiceStub(channel)
        self.admin = admin_pb2_grpc.AdminServiceStub(channel)

    def raw(self, method: str) -> Any:
        """A unary call of raw bytes, for messages that no stub would send."""
        return self.channel.unary_unary(method)


class RunningServer:
    """A server under test and its clients."""

    def __init__(self, server: Server, directory: Path) -> None:
        self.server = server
        self.directory = directory
        self.address = f"127.0.0.1:{server.port}"
        self._clients: dict[str, Client] = {}

    @property
    def admin(self) -> Client:
        return self.client("admin")

    @property
    def app(self) -> Client:
        return self.client("app")

    def client(self, stem: str) -> Client:
        """The client whose certificate is `tls/{stem}.crt`."""
        if stem not in self._clients:
            self._clients[stem] = Client(self.channel(stem))
        return self._clients[stem]

    def channel(self, stem: str | None) -> grpc.aio.Channel:
        """A fresh channel; None presents no certificate."""
        tls = self.directory / "tls"
        key = (tls / f"{stem}.key").read_bytes() if stem else None
        certificate = (tls / f"{stem}.crt").read_bytes() if stem else None
        credentials = grpc.ssl_channel_credentials((tls / "ca.crt").read_bytes(), key, certificate)
        return grpc.aio.secure_channel(self.address, credentials)

    @property
    def without_certificate(self) -> Client:
        """A client of the listener that asks for no certificate."""
        if "" not in self._clients:
            credentials = grpc.ssl_channel_credentials((self.directory / "tls/ca.crt").read_bytes())
            address = f"127.0.0.1:{self.server.tls_port}"
            self._clients[""] = Client(grpc.aio.secure_channel(address, credentials))
        return self._clients[""]

    def add_identity(self, stem: str, **names: Any) -> Client:
        """Issue a client certificate (uri=..., dns=...) and return its client."""
        issue_client_certificate(self.directory / "tls", self.directory / "tls" / stem, **names)
        return self.client(stem)

    def audit_records(self) -> list[dict[str, Any]]:
        """Every record of the audit log, in order."""
        lines = b"".join(path.read_bytes() for path in sorted((self.directory / "audit").glob("*.jsonl")))
        return [orjson.loads(line) for line in lines.splitlines()]

    async def close(self) -> None:
        for client in self._clients.values():
            await client.channel.close()


@asynccontextmanager
async def running_server(
    directory: Path, *, clock: Any = None, policy: Any = None, initialize: bool = True, **overrides: Any
) -> AsyncIterator[RunningServer]:
    """Initialise (once) and serve on a free port; on exit drain and close."""
    settings = make_settings(directory, **overrides)
    if initialize and not settings.store.path.exists():
        async with Server(settings, clock).offline() as offline:
            await offline.engine.seal.init(seed_policy([ADMIN], policy or DEFAULT_POLICY), None)
    async with Server(settings, clock).running() as server:
        running = RunningServer(server, directory)
        try:
            yield running
        finally:
            await running.close()


def reason_of(error: grpc.aio.AioRpcError) -> str:
    """The stable reason of a refused call."""
    return error_info(error).reason


def error_info(error: grpc.aio.AioRpcError) -> error_details_pb2.ErrorInfo:
    """The ErrorInfo of a refused call."""
    status = status_of(error)
    for detail in status.details:
        if detail.Is(error_details_pb2.ErrorInfo.DESCRIPTOR):
            info = error_details_pb2.ErrorInfo()
            detail.Unpack(info)
            return info
    raise AssertionError("no ErrorInfo in the status")


def status_of(error: grpc.aio.AioRpcError) -> status_pb2.Status:
    """The google.rpc.Status of a refused call."""
    for key, value in error.trailing_metadata() or ():
        if key == "grpc-status-details-bin":
            return status_pb2.Status.FromString(value)
    raise AssertionError("no status details in the trailing metadata")
