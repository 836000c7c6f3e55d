"""Many watchers and many changes: every watcher sees every change once, in order, and the server's memory comes back.

    python tests/reliability/watch.py --watchers 1000 --changes 10000

One server, a few client processes with many watches each over some connections, all with real certificates.  First changes at a
pace, for the latency from commit to watcher; then as many as go.  The expected revisions are those that the server acknowledged.
One JSON line per phase; exit code 1 when a watcher missed, repeated or reordered a change, or memory stayed.
"""

from __future__ import annotations

import argparse
import asyncio
import hashlib
import json
import os
import subprocess
import sys
import tempfile
import time
from array import array
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

import grpc
from processes import ENVIRONMENT, Server, connect, make_vault, percentile

from vaultd.devpki import issue_client_certificate
from vaultd_client.v1 import keys_pb2, policy_pb2, resources_pb2

if TYPE_CHECKING:
    from harness import Client

KEYS = 64
PACED_CHANGES = 40
PACE_S = 0.25
WRITERS = 64
PROCESSES = 4
"""Each is an identity of its own."""
KEPT_MIB = 32
"""What may stay: arenas of the allocator, and the caches that 10,000 changes fill."""
SETTLE_S = 60
TRY_AGAIN = {grpc.StatusCode.RESOURCE_EXHAUSTED, grpc.StatusCode.UNAVAILABLE}
GENEROUS = {"limits": {"mutation": {"per_second": 1_000_000, "burst": 1_000_000}}}


def memory_mib(pid: int, field: str) -> float:
    """A line of /proc/PID/status in MiB."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith(field + ":"):
            return int(line.split()[1]) / 1024
    raise SystemExit(f"no {field} of process {pid}")


def cpu_s(pid: int) -> float:
    """CPU time of a process, in user mode and in the kernel."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


class Watchers:
    """The client processes."""

    def __init__(self, server: Server, tls: Path, count: int) -> None:
        shares = [count // PROCESSES + (at < count % PROCESSES) for at in range(PROCESSES)]
        script = Path(__file__).with_name("watch_clients.py")
        self._processes = [
            subprocess.Popen(
                [sys.executable, str(script), server.address, str(tls), f"watcher-{at}", str(share)],
                env=ENVIRONMENT,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
            )
            for at, share in enumerate(shares)
            if share
        ]
        for process in self._processes:
            if process.stdout.readline().strip() != "ready":
                raise SystemExit("a client did not start")

    def expect(self, changes: int) -> None:
        """Tell them how many changes will come."""
        for process in self._processes:
            process.stdin.write(f"{changes}\n")
            process.stdin.flush()

    def answers(self) -> list[dict[str, Any]]:
        """What each has seen, once it has seen all of it."""
        return [json.loads(process.stdout.readline()) for process in self._processes]

    def close(self) -> None:
        """End the processes and with them the watches."""
        for process in self._processes:
            if not process.stdin.closed:
                process.stdin.close()
        for process in self._processes:
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:  # it still waits for changes that will not come
                process.kill()
                process.wait()
            process.stdout.close()


async def prepare(admin: Client, watchers: int) -> list[str]:
    """Let the watchers see keys, and make some."""
    current = await admin.admin.GetPolicy(policy_pb2.GetPolicyRequest(resource="/"))
    members = [f"spiffe://dev.vaultd/watcher-{at}" for at in range(PROCESSES)]
    current.policy.bindings.add(members=members, role="auditor", resource="/")
    await admin.admin.SetPolicy(policy_pb2.SetPolicyRequest(resource="/", policy=current.policy))
    key = resources_pb2.Key(purpose=resources_pb2.KEY_PURPOSE_MAC)
    names = []
    for at in range(KEYS):
        request = keys_pb2.CreateKeyRequest(parent="vaults/default", key_id=f"k{at}", key=key)
        names.append((await admin.keys.CreateKey(request)).name)
    return names


async def update(admin: Client, request: keys_pb2.UpdateKeyRequest) -> resources_pb2.Key:
    """The changed key.  What says `try again` is obeyed; the request id makes that safe, whether or not it was done."""
    while True:
        try:
            return await admin.keys.UpdateKey(request, timeout=60)
        except grpc.aio.AioRpcError as error:
            if error.code() not in TRY_AGAIN:
                raise
        await asyncio.sleep(0.2)


async def change(admin: Client, names: list[str], count: int, writers: int, pace_s: float) -> list[int]:
    """Change labels of keys; returns the revisions that were acknowledged."""
    revisions: list[int] = []
    numbers = iter(range(count))

    async def write(name: str) -> None:
        for number in numbers:
            request = keys_pb2.UpdateKeyRequest(key=resources_pb2.Key(name=name, labels={"n": str(number)}))
            request.update_mask.paths.append("labels")
            request.request_id = f"{name.rpartition('/')[2]}-{time.monotonic_ns()}"
            changed = await update(admin, request)
            revisions.append(int(changed.etag.strip('"')))
            await asyncio.sleep(pace_s)

    await asyncio.gather(*(write(name) for name in names[:writers]))
    return sorted(revisions)


def judge(
    phase: str, revisions: list[int], answers: list[dict[str, Any]], elapsed_s: float, server_cpu_s: float
) -> bool:
    """Compare what was seen with what was acknowledged, and say so."""
    expected = hashlib.sha256(array("q", revisions).tobytes()).hexdigest()
    watchers = [watcher for answer in answers for watcher in answer["watchers"]]
    wrong = [w for w in watchers if w["failed"] or w["seen"] != len(revisions) or w["digest"] != expected]
    responses = sum(watcher["responses"] for watcher in watchers)
    latencies = [latency / 1000 for answer in answers for latency in answer["latencies_us"]]
    print(
        json.dumps(
            {
                "phase": phase,
                "watchers": len(watchers),
                "changes": len(revisions),
                "wrong": len(wrong),
                "resumed": sum(watcher["resumed"] for watcher in watchers),
                "seconds": round(elapsed_s, 1),
                "events_per_response": round(len(revisions) * len(watchers) / responses, 1),
                "server_cpu_us_per_response": round(server_cpu_s / responses * 1e6),
                "latency_ms_p50": round(percentile(latencies, 0.5), 1),
                "latency_ms_p99": round(percentile(latencies, 0.99), 1),
                "latency_ms_max": round(max(latencies), 1),
            }
        ),
        flush=True,
    )
    return not wrong


async def run(directory: Path, watchers: int, changes: int) -> bool:
    server = make_vault(directory, **GENEROUS)
    for at in range(PROCESSES):
        stem = f"watcher-{at}"
        issue_client_certificate(directory / "tls", directory / "tls" / stem, uri=f"spiffe://dev.vaultd/{stem}")
    server.start()
    closing = ExitStack()
    try:
        admin = connect(directory, server.address)
        names = await prepare(admin, watchers)
        await change(admin, names, 200, WRITERS, 0)  # what a server that has worked keeps belongs to the base
        fresh = memory_mib(server.pid, "VmRSS")
        # What the allocator keeps of a first crowd stays with the process; what a second one adds would be a leak.
        first = await asyncio.to_thread(Watchers, server, directory / "tls", watchers)
        await asyncio.to_thread(first.close)
        before = memory_mib(server.pid, "VmRSS")
        clients = await asyncio.to_thread(Watchers, server, directory / "tls", watchers)
        closing.callback(clients.close)
        open_mib = memory_mib(server.pid, "VmRSS")
        good = True
        for phase, count, writers, pace_s in (("paced", PACED_CHANGES, 1, PACE_S), ("flood", changes, WRITERS, 0.0)):
            began, cpu_before = time.monotonic(), cpu_s(server.pid)
            clients.expect(count)
            revisions = await change(admin, names, count, writers, pace_s)
            answers = await asyncio.to_thread(clients.answers)
            good &= judge(phase, revisions, answers, time.monotonic() - began, cpu_s(server.pid) - cpu_before)
        peak = memory_mib(server.pid, "VmHWM")
        await asyncio.to_thread(clients.close)
        after = memory_mib(server.pid, "VmRSS")
        until = time.monotonic() + SETTLE_S
        while after > before + KEPT_MIB and time.monotonic() < until:
            await change(admin, names, 10, 1, 0)
            await asyncio.sleep(1)
            after = memory_mib(server.pid, "VmRSS")
        memory = {"fresh": fresh, "before": before, "watchers_open": open_mib, "peak": peak, "after": after}
        print(json.dumps({"memory_mib": {name: round(mib, 1) for name, mib in memory.items()}}), flush=True)
        await admin.channel.close()
        return good and after <= before + KEPT_MIB
    finally:
        closing.close()
        server.stop()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--watchers", type=int, default=1_000)
    parser.add_argument("--changes", type=int, default=10_000)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="vaultd-watch-") as directory:
        good = asyncio.run(run(Path(directory), options.watchers, options.changes))
    print("every watcher saw every change once, in order, and memory came back" if good else "FAILED", flush=True)
    return 0 if good else 1


if __name__ == "__main__":
    raise SystemExit(main())
