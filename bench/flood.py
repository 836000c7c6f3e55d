"""A flood by one identity, and what another one feels.  `python -m bench.flood [--rounds N] [--quota N]`.

Three kinds of slices take turns: the victim alone; beside a caller who asks at ten times its quota, at fixed times whatever
it is answered; and beside a closed loop of many calls in flight without a quota.  Each process is on its own, but the cores
are shared: part of what the victim feels is the flood's own client.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import statistics
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any, Final

import grpc

from bench.accounting import Meter
from bench.processes import Process
from vaultd_client.v1 import admin_pb2_grpc, crypto_pb2, keys_pb2, keys_pb2_grpc, quota_pb2, resources_pb2

KEY: Final = "vaults/default/keys/k"
FLOODER: Final = "spiffe://dev.vaultd/admin"
TIMES_QUOTA: Final = 10
IN_FLIGHT: Final = 200
VICTIM_PER_S: Final = 100
ENCRYPT: Final = "/vaultd.v1.CryptoService/Encrypt"
BODY: Final = crypto_pb2.EncryptRequest(name=KEY, plaintext=bytes(64)).SerializeToString()
_OPTIONS: Final = (("grpc.use_local_subchannel_pool", 1),)


def _credentials(tls: Path, identity: str) -> Any:
    files = ("ca.crt", f"{identity}.key", f"{identity}.crt")
    return grpc.ssl_channel_credentials(*((tls / file).read_bytes() for file in files))


class Load:
    """One client process: `rate` calls a second at fixed times, or `in_flight` calls in a closed loop."""

    def __init__(self, address: str, tls: Path, identity: str) -> None:
        credentials = _credentials(tls, identity)
        self._channels: list[Any] = [grpc.aio.secure_channel(address, credentials, options=_OPTIONS) for _ in range(4)]
        self._calls: list[Any] = [channel.unary_unary(ENCRYPT) for channel in self._channels]

    async def ready(self) -> None:
        await asyncio.gather(*(channel.channel_ready() for channel in self._channels))

    async def run(self, order: dict[str, Any]) -> dict[str, Any]:
        """Load for some seconds; latencies count from when a call was due."""
        latencies: list[float] = []
        codes: Counter[str] = Counter()
        began = time.perf_counter()

        async def one(number: int, due: float) -> None:
            try:
                await self._calls[number % 4](BODY, timeout=30)
                codes["OK"] += 1
            except grpc.aio.AioRpcError as error:
                codes[error.code().name] += 1
            latencies.append(time.perf_counter() - due)

        if order["rate"]:
            tasks = []
            for number in range(int(order["rate"] * order["seconds"])):
                due = began + number / order["rate"]
                await asyncio.sleep(max(0.0, due - time.perf_counter()))
                tasks.append(asyncio.create_task(one(number, due)))
            await asyncio.gather(*tasks)
        else:

            async def loop(number: int) -> None:
                while time.perf_counter() - began < order["seconds"]:
                    await one(number, time.perf_counter())

            await asyncio.gather(*(loop(number) for number in range(order["in_flight"])))
        return {"latencies": latencies, "codes": codes}


async def _client(address: str, tls: Path, identity: str) -> None:
    load = Load(address, tls, identity)
    await load.ready()
    print("ready -", flush=True)
    loop = asyncio.get_running_loop()
    while line := await loop.run_in_executor(None, sys.stdin.readline):
        print(json.dumps(await load.run(json.loads(line))), flush=True)


def _send(client: Process, **order: Any) -> None:
    client.stdin.write(json.dumps(order).encode() + b"\n")
    client.stdin.flush()


def _prepare(address: str, tls: Path) -> None:
    with grpc.secure_channel(address, _credentials(tls, "admin")) as channel:
        key = resources_pb2.Key(purpose=resources_pb2.KEY_PURPOSE_ENCRYPT_DECRYPT)
        request = keys_pb2.CreateKeyRequest(parent="vaults/default", key_id="k", key=key)
        keys_pb2_grpc.KeysServiceStub(channel).CreateKey(request)


def _set_quota(address: str, tls: Path, count: int) -> None:
    """Make the flooder's quota, or take it away with 0."""
    with grpc.secure_channel(address, _credentials(tls, "admin")) as channel:
        stub = admin_pb2_grpc.AdminServiceStub(channel)
        if not count:
            stub.DeleteQuota(quota_pb2.DeleteQuotaRequest(name="quotas/flood"))
            return
        quota = quota_pb2.Quota(subject=FLOODER, resource="/", methods=["CryptoService.Encrypt"])
        quota.windows.add(count=count).period.FromSeconds(1)
        stub.CreateQuota(quota_pb2.CreateQuotaRequest(parent="/", quota_id="flood", quota=quota))


def _percentile(values: list[float], share: float) -> float:
    return sorted(values)[min(len(values) - 1, int(len(values) * share))] * 1e3


def _slice(kind: str, victim: Process, flood: Process, seconds: float, quota: int) -> tuple[list[float], Counter[str]]:
    if kind == "ten times its quota":
        _send(flood, rate=quota * TIMES_QUOTA, seconds=seconds + 0.4)
    elif kind != "alone":
        _send(flood, rate=0, in_flight=IN_FLIGHT, seconds=seconds + 0.4)
    time.sleep(0.2)  # the flood is under way
    _send(victim, rate=VICTIM_PER_S, seconds=seconds)
    latencies = json.loads(victim.stdout.readline())["latencies"]
    codes = Counter() if kind == "alone" else Counter(json.loads(flood.stdout.readline())["codes"])
    return latencies, codes


def measure(rounds: int, seconds: float, quota: int) -> None:
    """Run and print."""
    kinds = ("alone", "ten times its quota", f"{IN_FLIGHT} in flight, no quota")
    with tempfile.TemporaryDirectory(prefix="vaultd-flood-") as scratch:
        directory = Path(scratch)
        tls = directory / "vault/tls"
        serve = ["vaultd", "dev", "--dir", str(directory / "vault"), "--listen", "127.0.0.1:0"]
        processes = [Process("vaultd", serve, directory)]
        try:
            address = processes[0].wait_ready()
            _prepare(address, tls)
            meter = Meter(processes[0].pid)
            for identity in ("app", "admin"):
                processes.append(Process(identity, ["bench.flood", "--client", address, str(tls), identity], directory))
                processes[-1].wait_ready()
            _, victim, flood = processes
            felt: dict[str, list[list[float]]] = {kind: [] for kind in kinds}
            answers: dict[str, Counter[str]] = {kind: Counter() for kind in kinds}
            cpu: dict[str, list[float]] = {kind: [] for kind in kinds}
            _slice("alone", victim, flood, 1.0, quota)
            for _ in range(rounds):
                for kind in kinds:
                    if kind == kinds[1]:
                        _set_quota(address, tls, quota)
                    before, began = meter.cpu_s(), time.perf_counter()
                    latencies, codes = _slice(kind, victim, flood, seconds, quota)
                    cpu[kind].append((meter.cpu_s() - before) / (time.perf_counter() - began))
                    felt[kind].append(latencies)
                    answers[kind] += codes
                    if kind == kinds[1]:
                        _set_quota(address, tls, 0)
        finally:
            for process in reversed(processes):
                process.stop()
    print("| beside the victim | p50 ms | p99 ms | x alone, p99, median of rounds | server busy % | flood's answers |")
    print("| --- | ---: | ---: | ---: | ---: | --- |")
    for kind in kinds:
        every = [latency for latencies in felt[kind] for latency in latencies]
        ratios = [
            _percentile(some, 0.99) / _percentile(alone, 0.99)
            for some, alone in zip(felt[kind], felt["alone"], strict=True)
        ]
        said = ", ".join(f"{code} {number:,}" for code, number in sorted(answers[kind].items()))
        print(
            f"| {kind} | {_percentile(every, 0.5):.2f} | {_percentile(every, 0.99):.2f} | {statistics.median(ratios):.2f} "
            f"| {statistics.median(cpu[kind]) * 100:.0f} | {said} |"
        )


def main() -> None:
    """Read the command line."""
    parser = argparse.ArgumentParser(prog="python -m bench.flood", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rounds", type=int, default=8)
    parser.add_argument("--seconds", type=float, default=3.0)
    parser.add_argument("--quota", type=int, default=50, help="calls a second that the flooder may make")
    parser.add_argument("--client", nargs=3, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.client:
        asyncio.run(_client(options.client[0], Path(options.client[1]), options.client[2]))
    else:
        measure(options.rounds, options.seconds, options.quota)


if __name__ == "__main__":
    main()
