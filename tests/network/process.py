"""`python -m vaultd dev` as a process of its own: what is set for a whole process is then as it is in production."""

from __future__ import annotations

import asyncio
import os
import re
import subprocess
import sys
import time
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import grpc
import orjson
import yaml

from harness import APP, Client, RunningServer
from vaultd.devpki import create_dev_pki, issue_client_certificate
from vaultd_client.v1 import crypto_pb2, keys_pb2, resources_pb2

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Sequence

ROOT = Path(__file__).resolve().parents[2]
ENVIRONMENT = {
    **{name: value for name, value in os.environ.items() if not name.startswith(("GRPC_", "VAULTD_TEST_"))},
    "PYTHONPATH": f"{ROOT}:{ROOT / 'clients/python'}",
}
HOST = os.environ.get("VAULTD_TEST_HOST", "grpc")
ATTACKER = "spiffe://dev.vaultd/attacker"
HOLDERS = [f"holder-{number}" for number in range(1, 9)]
"""Callers that fill their own places, one for each test that does it: places are given back a moment after a connection ends."""
NAME = "vaults/default/keys/k"
ENCRYPT = "/vaultd.v1.CryptoService/Encrypt"
SEAL_IT = crypto_pb2.EncryptRequest(name=NAME, plaintext=b"attack at dawn")
LIMITS = {
    "receive_timeout_s": 3.0,
    "overload_delay_ms": 0,
    "symmetric": {"per_second": 1_000_000, "burst": 10_000_000},
    "read": {"per_second": 1_000_000, "burst": 10_000_000},
    "mutation": {"per_second": 1_000_000, "burst": 10_000_000},
}
"""Nobody is refused because the machine does much else, or stands still for a moment."""
POLL_S = 0.02
PATIENCE_S = 60.0
"""After which what is waited for does not come any more, however slow the machine is."""


def principal_of(stem: str) -> str:
    """Whom the client certificate `tls/{stem}.crt` is of."""
    return f"spiffe://dev.vaultd/{stem}"


class Process:
    """A server that runs; what it printed is in files."""

    READY_S = 60
    """How long it may take until it serves, on a machine that does much else."""

    def __init__(
        self,
        directory: Path,
        *,
        environment: dict[str, str] | None = None,
        flags: Sequence[str] = (),
        policy: dict[str, Any] | None = None,
        **overrides: Any,
    ) -> None:
        self.directory = directory
        directory.mkdir(exist_ok=True)
        if not (directory / "config.yaml").exists():
            create_dev_pki(directory / "tls", hosts=["127.0.0.1"])
            members = [APP, ATTACKER, *map(principal_of, HOLDERS)]
            for stem in ("attacker", *HOLDERS):
                issue_client_certificate(directory / "tls", directory / "tls" / stem, uri=principal_of(stem))
            config = {"host": HOST, "limits": LIMITS, "drain_grace_s": 2.5, "log": {"format": "json"}, **overrides}
            (directory / "config.yaml").write_text(yaml.safe_dump(config))
            policy = policy or {"bindings": [{"members": members, "role": "crypto-user", "resource": "vaults/default"}]}
            (directory / "policy.yaml").write_text(yaml.safe_dump(policy))
        command = [sys.executable, "-m", "vaultd", *self.command(directory), *flags]
        with (directory / "stdout").open("wb") as out, (directory / "stderr").open("wb") as err:
            self.popen = subprocess.Popen(
                command, env={**ENVIRONMENT, **(environment or {})}, cwd=ROOT, stdout=out, stderr=err
            )
        self.pid = self.server_pid = self.popen.pid
        try:
            self.port = self._ready()
            if overrides.get("host", HOST) == "envoy":
                children = Path(f"/proc/{self.pid}/task/{self.pid}/children").read_text()
                self.server_pid = int(children)  # where the server is
        except BaseException:
            self.kill()
            raise

    def command(self, directory: Path) -> list[str]:
        return ["dev", "--dir", str(directory), "--listen", "127.0.0.1:0"]

    def _ready(self) -> int:
        until = time.monotonic() + self.READY_S
        while time.monotonic() < until and self.popen.poll() is None:
            ready = re.match(rb"ready \S+:(\d+)\n", (self.directory / "stdout").read_bytes())
            if ready:
                return int(ready[1])
            time.sleep(POLL_S)  # a process can only be asked again
        raise AssertionError(f"the server did not start: {self.stderr()}")

    def stderr(self) -> str:
        return (self.directory / "stderr").read_text()

    def rss_mib(self) -> float:
        """Resident memory, of the whole process."""
        status = Path(f"/proc/{self.server_pid}/status").read_text()
        return int(re.search(r"VmRSS:\s+(\d+) kB", status)[1]) / 1024

    def kill(self) -> None:
        """End it, whatever it does."""
        if self.popen.poll() is None:
            self.popen.terminate()
            try:
                self.popen.wait(PATIENCE_S)
            except subprocess.TimeoutExpired:
                self.popen.kill()
        self.popen.wait(PATIENCE_S)


class Remote(RunningServer):
    """The clients of the harness, for a server in another process."""

    def __init__(self, process: Process) -> None:
        super().__init__(process, process.directory)  # all that it asks of a server is its port
        self.process = process
        self.port = process.port
        self.tls = process.directory / "tls"

    def _lines(self) -> list[bytes]:
        """Every whole line of the audit log; the last one may be on its way."""
        paths = sorted((self.directory / "audit").glob("*.jsonl"))
        return b"".join(path.read_bytes() for path in paths).split(b"\n")[:-1]

    def records_of(self, port: int) -> list[dict[str, Any]]:
        """The audit records of the connection that came from a local port."""
        peer = f'"ipv4:127.0.0.1:{port}"'.encode()
        return [orjson.loads(line) for line in self._lines() if peer in line]

    def last_record(self) -> dict[str, Any]:
        """Of a call; the server writes others by itself, whenever it is time for them."""
        return next(record for record in reversed(self.audit_records()) if record["event"] == "call")

    def audit_records(self) -> list[dict[str, Any]]:
        return [orjson.loads(line) for line in self._lines()]


async def create_key(client: Client, key_id: str) -> None:
    key = resources_pb2.Key(purpose=resources_pb2.KEY_PURPOSE_ENCRYPT_DECRYPT)
    await client.keys.CreateKey(keys_pb2.CreateKeyRequest(parent="vaults/default", key_id=key_id, key=key))


async def eventually(holds: Callable[[], bool], within_s: float = PATIENCE_S) -> bool:
    """Whether it holds within the time.  Another process cannot tell us when: it is asked again and again."""
    until = time.monotonic() + within_s
    while not holds():
        if time.monotonic() > until:
            return False
        await asyncio.sleep(POLL_S)
    return True


class Watch:
    """What an honest client saw, and the most memory that the server had meanwhile."""

    def __init__(self, rss_mib: float) -> None:
        self.answers = 0
        self.failures: list[str] = []
        self.slowest_s = 0.0
        self.base_mib = rss_mib
        self.peak_mib = rss_mib

    @property
    def growth_mib(self) -> float:
        return self.peak_mib - self.base_mib


@asynccontextmanager
async def honest_client(server: Remote, at_least: int = 5) -> AsyncIterator[Watch]:
    """Calls one after the other, from before the block until after it; has at least so many answers at the end."""
    process = server.process
    await server.app.crypto.Encrypt(SEAL_IT)  # connected before memory is looked at
    watch = Watch(process.rss_mib())
    over = asyncio.Event()

    async def ask() -> None:
        while not over.is_set() or watch.answers + len(watch.failures) < at_least:
            begun = time.monotonic()
            try:
                await server.app.crypto.Encrypt(SEAL_IT, timeout=PATIENCE_S)
                watch.answers += 1
            except grpc.aio.AioRpcError as error:
                watch.failures.append(f"{error.code()} {error.details()}")
            watch.slowest_s = max(watch.slowest_s, time.monotonic() - begun)
            watch.peak_mib = max(watch.peak_mib, process.rss_mib())

    asking = asyncio.create_task(ask())
    try:
        yield watch
    finally:
        over.set()
        await asking
