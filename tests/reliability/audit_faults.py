"""Let the audit log's disk, or a sink that every call needs, fail again and again under load.  HARDENING section 5, tests 6 and 7.

    python tests/reliability/audit_faults.py --faults 20 --seed 1

Callers encrypt, sign and make keys over mTLS all the time.  Each kind of fault has a server of its own and happens so many
times to it, without a restart.  One JSON line per fault, one per kind and one at the end; exit code 1 when a call was answered
that must not be, when something took too long, or when an answer is not in the log afterwards.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
from contextlib import AsyncExitStack, ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

from processes import ENVIRONMENT, ROOT, STOP_TIMEOUT_S, Server, connect, make_vault, percentile

import auditfaults
from auditload import HealthWatch, Load, go_through, unrecorded
from receivers import otlp_receiver
from vaultd.devpki import create_dev_pki

if TYPE_CHECKING:
    from receivers import OtlpReceiver

KINDS = ("enospc", "eio-write", "eio-fsync", "slow-fsync", "read-only", "deleted", "replaced", "hung-sink")
TMPFS_BYTES = 64 * 1024 * 1024
MAX_LAG_S = 0.05
LAG_SERVER = ("tests/reliability/lag_server.py",)


class HungReceiver(auditfaults.Fault):
    """The receiver's process is stopped: its host still takes what fits into its buffers."""

    def __init__(self, pid: int) -> None:
        self._pid = pid

    def inject(self) -> None:
        os.kill(self._pid, signal.SIGSTOP)

    def mend(self) -> None:
        os.kill(self._pid, signal.SIGCONT)


def mount_tmpfs(directory: Path, stack: ExitStack) -> bool:
    """Make the directory a small file system of its own; False where that is not permitted."""
    directory.mkdir(mode=0o700)
    options = f"size={TMPFS_BYTES},mode=0700"
    if subprocess.run(["mount", "-t", "tmpfs", "-o", options, "none", directory], capture_output=True).returncode:
        return False
    stack.callback(subprocess.run, ["umount", directory], check=True)
    return True


def start_receiver(tls: Path, stack: ExitStack) -> tuple[int, int]:
    """A receiver in a process of its own: its pid and port."""
    command = [sys.executable, str(ROOT / "tests/reliability/audit_receiver.py"), str(tls)]
    process = subprocess.Popen(command, env=ENVIRONMENT, stdout=subprocess.PIPE, text=True)

    def end() -> None:
        process.send_signal(signal.SIGCONT)
        process.terminate()
        process.communicate(timeout=STOP_TIMEOUT_S)

    stack.callback(end)
    return process.pid, int(process.stdout.readline().split()[1])


def start_bystander(stack: ExitStack) -> subprocess.Popen[str]:
    """Whoever only sleeps: what it is late by, the server is late by, too, and not by its own fault."""
    command = [sys.executable, str(ROOT / "tests/reliability/bystander.py")]
    process = subprocess.Popen(command, env=ENVIRONMENT, stdout=subprocess.PIPE, text=True)
    stack.callback(process.kill)
    process.stdout.readline()
    return process


def make_server(
    kind: str, directory: Path, best_port: int, stack: ExitStack
) -> tuple[Server, auditfaults.Fault, str, str]:
    """A server with an initialised vault, what is to happen to it, whose health it concerns, and how it is done."""
    audit = directory / "audit"
    sinks: list[dict[str, Any]] = [{"kind": "otlp", "name": "best", "address": f"127.0.0.1:{best_port}", "tls": False}]
    pid = 0
    if kind == "hung-sink":
        create_dev_pki(directory / "tls", hosts=["127.0.0.1"])
        secret = directory / "secret"
        secret.touch(mode=0o600)
        secret.write_bytes(base64.b64encode(os.urandom(32)))
        pid, port = start_receiver(directory / "tls", stack)
        hook = {"kind": "webhook", "name": "hook", "url": f"https://127.0.0.1:{port}/", "ca_file": "tls/ca.crt"}
        sinks.append({**hook, "secret_file": "secret", "required": True, "require": "all"})
    mounted = kind == "enospc" and mount_tmpfs(audit, stack)
    # Without its low-water mark: a disk is to be full, not nearly so.
    server = make_vault(directory, LAG_SERVER, audit={"directory": "audit", "sinks": sinks, "min_free_bytes": 0})
    if kind == "hung-sink":
        return server, HungReceiver(pid), "audit:hook", "SIGSTOP"
    if mounted:
        return server, auditfaults.FullTmpfs(audit), "audit", "tmpfs"
    shim = auditfaults.Shim(directory, audit)
    server.environment = shim.environment
    by = "hand" if kind in ("deleted", "replaced") else "shim"
    return server, auditfaults.disk_faults(shim, audit)[kind], "audit", by


async def one_kind(kind: str, directory: Path, arguments: argparse.Namespace) -> dict[str, Any]:
    """All faults of one kind; returns what to print."""
    chooser = random.Random(f"{arguments.seed}/{kind}")
    bad, outcomes = 0, []
    with ExitStack() as stack:
        async with AsyncExitStack() as cleanup:
            best = await cleanup.enter_async_context(otlp_receiver(None))
            server, fault, component, by = make_server(kind, directory, best.port, stack)
            server.start()
            stack.callback(server.kill)
            bystander = start_bystander(stack)
            client = connect(directory, server.address)
            cleanup.push_async_callback(client.channel.close)
            watched = connect(directory, server.address)
            cleanup.push_async_callback(watched.channel.close)
            health = await cleanup.enter_async_context(HealthWatch().running(watched.channel, component))
            load = Load(client, kind)
            async with load.running(arguments.callers):
                for number in range(arguments.faults):
                    had = len(best.lines)
                    outcome = await go_through(kind, fault, load, health, chooser.uniform(0.2, 0.8))
                    faulty = outcome.faulty()
                    if len(best.lines) == had:
                        faulty.append("best")  # the sink that nobody waits for got nothing meanwhile
                    bad += bool(faulty)
                    outcomes.append(outcome)
                    print(json.dumps({"number": number, **outcome.as_dict(), "faulty": faulty}), flush=True)
            lost = unrecorded(directory / "audit", load.replies)
            undelivered = await missing_from(best, load)
            await client.channel.close()
            await watched.channel.close()
            samples = json.loads(await asyncio.to_thread(server.stop) or "[]")
            bystander.terminate()
            woken = json.loads((await asyncio.to_thread(bystander.communicate))[0])
            verified = verify(directory)
    answered = sum(not reply.reason for reply in load.replies)
    spans = [outcome.at_s for outcome in outcomes]
    during = [late_s for at_s, late_s in samples if any(begin <= at_s <= end for begin, end in spans)]
    machine = [late_s for at_s, late_s in woken if any(begin <= at_s <= end for begin, end in spans)]
    late = percentile(during, 0.99) > MAX_LAG_S + percentile(machine, 0.99)
    return {
        "kind": kind,
        "by": by,
        "faults": len(outcomes),
        "bad": bad + bool(lost) + bool(undelivered) + late + (not verified),
        "verified": verified,
        "answered": answered,
        "refused": len(load.replies) - answered,
        "answered_after": sum(outcome.answered_after for outcome in outcomes),
        "unrecorded": len(lost),
        "undelivered": undelivered,
        "refused_max_s": round(max(outcome.refused_s for outcome in outcomes), 3),
        "health_max_s": round(max(outcome.health_s for outcome in outcomes), 3),
        "recovered_max_s": round(max(outcome.recovered_s for outcome in outcomes), 3),
        "lag_p99_s": round(percentile(during, 0.99), 4),
        "lag_max_s": round(max(during), 4),
        "machine_lag_p99_s": round(percentile(machine, 0.99), 4),
    }


def verify(directory: Path) -> bool:
    """Whether the log verifies from its files, MACs included."""
    command = [sys.executable, "-m", "vaultd", "audit", "verify", str(directory / "audit")]
    done = subprocess.run(
        [*command, "--config", str(directory / "config.yaml")],
        env=ENVIRONMENT,
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    if done.returncode:
        print(json.dumps({"verify": done.stderr.strip()}), flush=True)
    return done.returncode == 0


async def missing_from(best: OtlpReceiver, load: Load) -> int:
    """How many answered calls the sink that nobody waits for does not have, once it had time to get them."""
    wanted = {reply.sequence for reply in load.replies if not reply.reason}
    until_s = asyncio.get_running_loop().time() + STOP_TIMEOUT_S
    while missing := wanted - {json.loads(line)["seq"] for line in best.lines}:
        if asyncio.get_running_loop().time() > until_s:
            break
        await asyncio.sleep(0.2)
    return len(missing)


async def campaign(arguments: argparse.Namespace) -> int:
    results = []
    for kind in arguments.kinds:
        with tempfile.TemporaryDirectory(prefix="vaultd-audit-") as name:
            results.append(await one_kind(kind, Path(name), arguments))
        print(json.dumps(results[-1]), flush=True)
    total = {name: sum(result[name] for result in results) for name in ("faults", "bad", "answered", "refused")}
    print(json.dumps({"seed": arguments.seed, **total, "answered_after": sum(r["answered_after"] for r in results)}))
    return 1 if total["bad"] else 0


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--faults", type=int, default=20, help="of each kind")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--callers", type=int, default=9, help="a third of them each encrypts, signs and makes keys")
    parser.add_argument("--kinds", nargs="+", choices=KINDS, default=KINDS)
    return asyncio.run(campaign(parser.parse_args()))


if __name__ == "__main__":
    sys.exit(main())
