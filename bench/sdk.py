"""Unchanged code through the SDK, with and without coalescing: `python -m bench.sdk [--rounds N] [--seconds S] [--callers N]`.

Each caller awaits an encrypt of its own, again and again.  Slices with coalescing off and on take turns against one `vaultd dev`;
a lone caller's calls take turns one by one.  CPU is the server process's own; the client shares the cores with it.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import statistics
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from bench.processes import Meter, Process
from vaultd_client import AsyncClient

if TYPE_CHECKING:
    from collections.abc import Sequence

KEY: Final = "vaults/default/keys/k"
DATA: Final = bytes(range(64))


@dataclass(frozen=True)
class Slice:
    """What one slice of load did."""

    calls: int
    elapsed_s: float
    server_cpu_s: float
    client_cpu_s: float
    p50_ms: float
    p99_ms: float

    @property
    def per_s(self) -> float:
        return self.calls / self.elapsed_s

    @property
    def server_us(self) -> float:
        return self.server_cpu_s / self.calls * 1e6


async def load(vault: AsyncClient, meter: Meter, callers: int, seconds: float) -> Slice:
    """So many callers, each in a loop; ends when the calls that began in time have ended."""
    latencies: list[float] = []
    end = time.perf_counter() + seconds

    async def caller() -> None:
        before = time.perf_counter()
        while before < end:
            await vault.encrypt(KEY, DATA)
            after = time.perf_counter()
            latencies.append(after - before)
            before = after

    began, server, client = time.perf_counter(), meter.cpu_s(), time.process_time()
    await asyncio.gather(*(caller() for _ in range(callers)))
    elapsed, client_cpu = time.perf_counter() - began, time.process_time() - client
    server_cpu = meter.cpu_s() - server
    latencies.sort()
    at = [latencies[int(len(latencies) * share)] * 1e3 for share in (0.5, 0.99)]
    return Slice(len(latencies), elapsed, server_cpu, client_cpu, *at)


async def alone(off: AsyncClient, on: AsyncClient, calls: int) -> tuple[float, float]:
    """Median latency of a lone caller without and with coalescing, call by call in turns."""
    latencies: dict[AsyncClient, list[float]] = {off: [], on: []}
    for _ in range(calls):
        for vault in (off, on):
            before = time.perf_counter()
            await vault.encrypt(KEY, DATA)
            latencies[vault].append(time.perf_counter() - before)
    return statistics.median(latencies[off]) * 1e6, statistics.median(latencies[on]) * 1e6


async def measure(address: str, tls: Path, meter: Meter, options: Any) -> dict[str, Any]:
    """Make the key, warm up, and run all rounds."""

    def client(stem: str, **more: Any) -> AsyncClient:
        return AsyncClient(address, ca=tls / "ca.crt", certificate=tls / f"{stem}.crt", key=tls / f"{stem}.key", **more)

    async with client("admin") as admin:
        key = {"purpose": "KEY_PURPOSE_ENCRYPT_DECRYPT", "algorithm": "ALGORITHM_AES_256_GCM"}
        await admin.create_key("vaults/default", "k", key)
    async with client("app", coalesce=False) as off, client("app") as on:
        for vault in (off, on):
            await load(vault, meter, options.callers, 0.5)
        rounds, lone = [], []
        for number in range(options.rounds):
            print(f"round {number + 1} of {options.rounds}", file=sys.stderr, flush=True)
            rounds.append([await load(vault, meter, options.callers, options.seconds) for vault in (off, on)])
            lone.append(await alone(off, on, options.lone_calls))
    return {"callers": options.callers, "rounds": [[asdict(each) for each in pair] for pair in rounds], "lone_us": lone}


def to_markdown(document: dict[str, Any]) -> str:
    """Medians over the rounds; ratios are of slices next to each other."""
    pairs = [[Slice(**each) for each in pair] for pair in document["rounds"]]
    lines = [
        f"| {document['callers']} callers | op/s | server CPU us/op | client CPU us/op | p50 ms | p99 ms |",
        "| --- | ---: | ---: | ---: | ---: | ---: |",
    ]
    for name, slices in zip(("coalesce=False", "coalesced"), zip(*pairs, strict=True), strict=True):
        client_us = _median([each.client_cpu_s / each.calls * 1e6 for each in slices])
        cells = [
            f"{_median([each.per_s for each in slices]):,.0f}",
            f"{_median([each.server_us for each in slices]):,.1f}",
            f"{client_us:,.1f}",
            f"{_median([each.p50_ms for each in slices]):.2f}",
            f"{_median([each.p99_ms for each in slices]):.2f}",
        ]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    cpu = [off.server_us / on.server_us for off, on in pairs]
    rate = [on.per_s / off.per_s for off, on in pairs]
    lone = [on / off for off, on in document["lone_us"]]
    off_us, on_us = (_median(each) for each in zip(*document["lone_us"], strict=True))
    return "\n".join(
        [
            *lines,
            "",
            f"server CPU per operation: 1/{_median(cpu):.1f} ({min(cpu):.1f} to {max(cpu):.1f});  "
            f"throughput: {_median(rate):.1f} x ({min(rate):.1f} to {max(rate):.1f})",
            f"a lone caller: p50 {off_us:.0f} us without, {on_us:.0f} us with coalescing: {_median(lone):.3f} x "
            f"({min(lone):.3f} to {max(lone):.3f})",
        ]
    )


def _median(values: Sequence[float]) -> float:
    return statistics.median(values)


def main() -> None:
    """Measure, and print."""
    parser = argparse.ArgumentParser(prog="python -m bench.sdk", description="Coalescing in the SDK, on and off.")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=2.0, help="length of a slice")
    parser.add_argument("--callers", type=int, default=64)
    parser.add_argument("--lone-calls", type=int, default=300, help="calls of a lone caller in a round")
    parser.add_argument("--json", type=Path, metavar="FILE")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="vaultd-bench-") as name:
        scratch = Path(name)
        command = ["vaultd", "dev", "--dir", str(scratch / "vault"), "--listen", "127.0.0.1:0"]
        process = Process("vaultd", command, scratch)
        try:
            address = process.wait_ready()
            document = asyncio.run(measure(address, scratch / "vault" / "tls", Meter(process.pid), options))
        finally:
            process.stop()
    if options.json:
        options.json.write_text(json.dumps(document, indent=1) + "\n")
    print(to_markdown(document))


if __name__ == "__main__":
    main()
