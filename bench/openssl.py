"""`openssl speed`: what the processor can do with one process, and with one on each core."""

from __future__ import annotations

import os
import shutil
import subprocess
from dataclasses import dataclass
from typing import Final

from bench.slices import Slice

ALGORITHMS: Final = {"RSA-2048 sign": "rsa2048", "P-256 sign": "ecdsap256", "Ed25519 sign": "ed25519"}
"""What we call it, and what openssl does."""


class OpensslFailed(Exception):
    """It is not there, or said what we do not understand."""


@dataclass(frozen=True)
class Speed:
    """A contender: signatures by `openssl speed`, without any server.  Its CPU is that of as many cores as it has processes."""

    name: str
    algorithm: str
    processes: int

    def run(self, seconds: float) -> Slice:
        """Raises OpensslFailed.  openssl counts whole seconds, and verifies for as long again."""
        whole_s = max(1, round(seconds))
        per_s = signatures_per_s(speed(whole_s, self.processes, [self.algorithm]))
        return Slice(
            calls=max(1, round(per_s * whole_s)),
            elapsed_s=whole_s,
            server_cpu_s=whole_s * self.processes,
            client_cpu_s=0.0,
            peak_mib=0.0,
            latencies_us=(),
        )


def cores() -> int:
    """Those that we may use."""
    return len(os.sched_getaffinity(0))


def version() -> str:
    """What `openssl version` says, or that there is none."""
    found = shutil.which("openssl")
    if found is None:
        return "none"
    return subprocess.run([found, "version"], capture_output=True, text=True, check=True).stdout.split(" (")[0].strip()


def speed(seconds: int, processes: int, what: list[str]) -> str:
    """What `openssl speed` says in its form for machines, counted in its own CPU time.  Raises OpensslFailed."""
    found = shutil.which("openssl")
    if found is None:
        raise OpensslFailed("openssl is not on PATH")
    many = ["-multi", str(processes)] if processes > 1 else []
    command = [found, "speed", "-mr", "-seconds", str(seconds), *many, *what]
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    if ended.returncode:
        raise OpensslFailed(f"openssl speed failed: {ended.stderr.strip()[-300:]}")
    return ended.stdout


def signatures_per_s(said: str) -> float:
    """From the last line of results: `+F2:number:bits:signatures a second:verifications a second`; +F4 ECDSA, +F6 EdDSA.

    Raises OpensslFailed.
    """
    for line in reversed(said.splitlines()):
        if line.startswith(("+F2:", "+F4:", "+F6:")):
            return float(line.split(":")[-2])
    raise OpensslFailed("openssl speed said nothing that we understand")


def bytes_per_s(said: str) -> float:
    """From `+F:number:cipher:bytes a second`.  Raises OpensslFailed."""
    for line in reversed(said.splitlines()):
        if line.startswith("+F:"):
            return float(line.split(":")[3])
    raise OpensslFailed("openssl speed said nothing that we understand")
