"""A server of several workers as processes of their own, and connections to each of them."""

from __future__ import annotations

import asyncio
import itertools
import os
import re
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import grpc
import orjson

from harness import Client
from network.process import ENVIRONMENT, ROOT, Process, create_key, eventually
from vaultd_client.v1 import crypto_pb2, resources_pb2

ENCRYPT = "/vaultd.v1.CryptoService/Encrypt"
PATIENT = {"PYTHONPATH": f"{Path(__file__).parent / 'patient'}:{ENVIRONMENT['PYTHONPATH']}"}
"""The environment of a fleet whose mutations wait for the other workers however long they take."""
_connections = itertools.count()


class Fleet(Process):
    """`vaultd dev --workers N`."""

    READY_S = 90

    def __init__(self, directory: Path, workers: int, *flags: str, **more: Any) -> None:
        self.workers = workers
        super().__init__(directory, flags=["--workers", str(workers), *flags], **more)

    def chain_ids(self) -> dict[bytes, int]:
        """Workers by the chains that they write."""
        paths = {at: self.directory / f"audit/worker-{at}/chain-id" for at in range(self.workers)}
        return {bytes.fromhex(path.read_text()): at for at, path in paths.items()}

    def log(self) -> list[dict[str, Any]]:
        """What supervisor and workers logged."""
        whole = self.stderr().split("\n")[:-1]
        return [orjson.loads(line) for line in whole if line.startswith("{")]

    def pids(self) -> dict[int, int]:
        """The newest process of each worker."""
        return {line["worker"]: line["pid"] for line in self.log() if line["event"] == "worker_started"}

    def elected(self) -> list[int]:
        """Who led, in order."""
        return [line["worker"] for line in self.log() if line["event"] == "scheduler_elected"]

    def kill_worker(self, index: int) -> None:
        os.kill(self.pids()[index], signal.SIGKILL)

    async def serves_again(self, index: int, former: int) -> bool:
        """Whether a worker came back after the process `former`, and seals or unseals."""

        def back() -> bool:
            lines = self.log()
            started = [
                at for at, line in enumerate(lines) if line["event"] == "worker_started" and line["worker"] == index
            ]
            states = [line for line in lines[started[-1] :] if line["event"] == "seal" and line.get("worker") == index]
            return lines[started[-1]]["pid"] != former and len(states) >= 2

        return await eventually(back)

    def client(self, stem: str) -> Client:
        """A client on a connection of its own; which worker has it the kernel decides."""
        tls = self.directory / "tls"
        credentials = grpc.ssl_channel_credentials(
            (tls / "ca.crt").read_bytes(), (tls / f"{stem}.key").read_bytes(), (tls / f"{stem}.crt").read_bytes()
        )
        options = [("grpc.use_local_subchannel_pool", 1), ("test.connection", next(_connections))]
        return Client(grpc.aio.secure_channel(f"127.0.0.1:{self.port}", credentials, options))

    async def prepare(self) -> None:
        """Make the key `k`."""
        client = self.client("admin")
        await create_key(client, "k")
        await client.channel.close()

    async def reach_each(self, stem: str) -> dict[int, Client]:
        """A client of each worker."""
        found: dict[int, Client] = {}
        workers = self.chain_ids()
        for _ in range(200):
            client = self.client(stem)
            at = workers[(await receipt_of(client)).chain_id]
            if at in found:
                await client.channel.close()
            found.setdefault(at, client)
            if len(found) == self.workers:
                return dict(sorted(found.items()))
        raise AssertionError(f"200 connections reached {sorted(found)} of {self.workers} workers only")

    async def verify(self) -> tuple[int, str]:
        """Exit code and output of `vaultd audit verify` of everything."""
        return await asyncio.to_thread(verify_audit, self.directory, self.directory / "audit")


def verify_audit(directory: Path, audit: Path) -> tuple[int, str]:
    command = [sys.executable, "-m", "vaultd", "audit", "verify", str(audit)]
    command += ["--public-key", str(directory / "audit.pub"), "--config", str(directory / "config.yaml")]
    done = subprocess.run(command, env=ENVIRONMENT, cwd=ROOT, capture_output=True, text=True)
    return done.returncode, done.stdout + done.stderr


async def receipt_of(client: Client, plaintext: bytes = b"x") -> resources_pb2.AuditReceipt:
    """The receipt of an encryption."""
    call = client.crypto.Encrypt(crypto_pb2.EncryptRequest(name="vaults/default/keys/k", plaintext=plaintext))
    await call
    trailing = {name: value for name, value in await call.trailing_metadata()}
    return resources_pb2.AuditReceipt.FromString(trailing["vaultd-receipt-bin"])


def metrics_port(fleet: Fleet) -> int:
    found = re.search(rb"metrics http://127.0.0.1:(\d+)/metrics", (fleet.directory / "stdout").read_bytes())
    assert found is not None
    return int(found[1])
