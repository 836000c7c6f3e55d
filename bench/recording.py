"""What recording costs: audit, metrics and unsampled traces together.  `python -m bench.recording [--rounds N] [--seconds S]`.

Twice: in process, through the whole chain without a transport, where little else is in the figure; and over mTLS, as callers see
it, in CPU of the server.  Both switch recording on and off in one process, slice by slice, and compare neighbours.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import signal
import statistics
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from bench.cases import CASES, KEYS
from bench.clients import Pressure
from bench.recording_server import Switch, make_settings
from bench.rig import Rig
from bench.slices import half_quartile_distance
from vaultd.hosts.transport import restrict_transport

if TYPE_CHECKING:
    from collections.abc import Callable

CASE: Final = "Encrypt AES-256-GCM 64 B"
CALLS: Final = 2_000
UNSAMPLED: Final = ("traceparent", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00")


class RecordingRig(Rig):
    """A server that can be told to record nothing."""

    def serve(self) -> list[str]:
        """The module that serves the vault, and its arguments."""
        return ["bench.recording_server", str(self.vault)]


def paired(rounds: int, measure: Callable[[bool], float]) -> tuple[float, float, list[float]]:
    """Medians with and without, and the differences of neighbours; the order changes each round."""
    on: list[float] = []
    off: list[float] = []
    for number in range(rounds):
        for recording in (True, False) if number % 2 else (False, True):
            (on if recording else off).append(measure(recording))
    differences = [a - b for a, b in zip(on, off, strict=True)]
    return statistics.median(on), statistics.median(off), differences


def over_the_wire(rounds: int, seconds: float) -> tuple[float, float, list[float]]:
    """CPU microseconds of the server per call."""
    case = next(case for case in CASES if case.name == CASE)
    with RecordingRig() as rig:
        rig.api.create_keys(KEYS)
        request = rig.api.requests([case])[case.name]

        def measure(recording: bool) -> float:
            os.kill(rig.vaultd.process.pid, signal.SIGUSR2 if recording else signal.SIGUSR1)
            return rig.load(rig.vaultd, request, Pressure(), seconds).cpu_us

        measure(True)
        return paired(rounds, measure)


async def _in_process(directory: Path, rounds: int) -> tuple[float, float, list[float]]:
    from vaultd.interceptors.call import Call, Peer
    from vaultd.wiring import Server
    from vaultd_client.v1 import crypto_pb2, keys_pb2, resources_pb2

    async with Server(await make_settings(directory)).running() as server:
        switch = Switch(server.chain)
        admin, app = (
            Peer("ipv4:127.0.0.1:50000", (directory / f"tls/{name}.crt").read_bytes()) for name in ("admin", "app")
        )

        async def call(peer: Peer, method: str, body: bytes, *metadata: tuple[str, str]) -> Any:
            async def receive() -> bytes:
                return body

            async def send(message: bytes) -> None:
                del message

            return await server.chain.unary(Call(method, peer, metadata, None, receive, send))

        purpose = resources_pb2.KEY_PURPOSE_ENCRYPT_DECRYPT
        key = resources_pb2.Key(purpose=purpose, algorithm=resources_pb2.ALGORITHM_AES_256_GCM)
        create = keys_pb2.CreateKeyRequest(parent="vaults/default", key_id="k", key=key)
        made = await call(admin, "/vaultd.v1.KeysService/CreateKey", create.SerializeToString())
        assert made.code == 0, made
        body = crypto_pb2.EncryptRequest(name="vaults/default/keys/k", plaintext=bytes(64)).SerializeToString()

        async def measure(recording: bool) -> float:
            if recording:
                switch.on()
            else:
                switch.off()
            began_s = time.thread_time()
            for _ in range(CALLS):
                reply = await call(app, "/vaultd.v1.CryptoService/Encrypt", body, UNSAMPLED)
            used_s = time.thread_time() - began_s
            assert reply.code == 0, reply
            return used_s / CALLS * 1e6

        await measure(True)
        on: list[float] = []
        off: list[float] = []
        for number in range(rounds):
            for recording in (True, False) if number % 2 else (False, True):
                (on if recording else off).append(await measure(recording))
        return statistics.median(on), statistics.median(off), [a - b for a, b in zip(on, off, strict=True)]


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="python -m bench.recording", description=__doc__)
    parser.add_argument("--rounds", type=int, default=20, metavar="N")
    parser.add_argument("--seconds", type=float, default=0.5, metavar="S", help="length of a slice over the wire")
    options = parser.parse_args()
    restrict_transport()
    print("| CPU us a call | recording | without | difference, median | half of the rounds within |")
    print("| --- | ---: | ---: | ---: | ---: |")
    with tempfile.TemporaryDirectory(prefix="vaultd-bench-") as directory:
        _print("the chain, in process", asyncio.run(_in_process(Path(directory) / "vault", options.rounds)))
    _print("the server, over mTLS", over_the_wire(options.rounds, options.seconds))


def _print(name: str, measured: tuple[float, float, list[float]]) -> None:
    on, off, differences = measured
    spread = half_quartile_distance(differences)
    print(f"| {name} | {on:.1f} | {off:.1f} | {statistics.median(differences):.1f} | ± {spread:.1f} |", flush=True)


if __name__ == "__main__":
    main()
