"""`openssl speed`: what the processor can do with one process, and with one on each core."""

from __future__ import annotations

import os
import shutil
import subprocess
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from bench.slices import Slice

if TYPE_CHECKING:
    from collections.abc import Sequence

ALGORITHMS: Final = {"RSA-2048 sign": "rsa2048", "P-256 sign": "ecdsap256", "Ed25519 sign": "ed25519"}
"""What we call it, and what openssl does."""


class OpensslFailed(Exception):
    """It is not there, or said what we do not understand."""


@dataclass(frozen=True)
class Speed:
    """A contender: signatures by so many `openssl speed` at once, without any server."""

    name: str
    algorithm: str
    processes: int

    def run(self, seconds: float) -> Slice:
        """Raises OpensslFailed.  openssl counts whole seconds, and verifies for as long again."""
        whole_s = max(1, round(seconds))
        per_s = sum(map(signatures_per_s, speed(whole_s, self.processes, [self.algorithm])))
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


def speed(seconds: int, processes: int, what: Sequence[str]) -> list[str]:
    """What each of so many `openssl speed` says that run at once, in its form for machines.  Raises OpensslFailed.

    `-multi` would do the same, but counts by the clock, and so what else the machine does; each by itself counts its own CPU time.
    On a machine that does nothing else the sums agree.
    """
    found = shutil.which("openssl")
    if found is None:
        raise OpensslFailed("openssl is not on PATH")
    command = [found, "speed", "-mr", "-seconds", str(seconds), *what]
    running = [
        subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) for _ in range(processes)
    ]
    said = [process.communicate() for process in running]
    for process, (_, errors) in zip(running, said, strict=True):
        if process.returncode:
            raise OpensslFailed(f"openssl speed failed: {errors.strip()[-300:]}")
    return [output for output, _ in said]


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
