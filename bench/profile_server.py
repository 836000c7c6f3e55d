"""Where the vaultd server spends its time under one case of load, sampled from outside by py-spy.

The sampler sees Python frames and cannot tell a thread that waits in C from one that works in C.  So how much each thread
uses is taken from the kernel, without the sampler, and the samples only say how a thread's own share is divided.  Lines that
give up the GIL (urandom, write, select) are seen more often than they cost: try a change, and measure, before believing them.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Final

from bench.clients import Pressure
from bench.processes import ROOT

if TYPE_CHECKING:
    from collections.abc import Iterable

    from bench.cases import Case
    from bench.measure import Plan
    from bench.rig import Rig

SAMPLES_PER_S: Final = 500
TOP: Final = 40
PACKAGE: Final = "vaultd/"
LOOP: Final = "BaseEventLoop._run_once (asyncio/base_events.py"
"""In every stack of the event loop's thread."""
POOL: Final = "WorkPool._do_chunk (vaultd/backends/pool.py"
"""In every stack of a pool's thread that works, and in no stack of one that waits."""
WORKER: Final = "Worker._answer (vaultd/backends/pkcs11/worker.py"
"""The same of the process that a token's module is in."""

_PREFIX: Final = re.compile(rf"\((?:{re.escape(str(ROOT))}/|/.*/site-packages/|/.*/lib/python3\.\d+/)")


class ProfilerMissing(Exception):
    """py-spy is not there, or may not look into the server."""


def find_profiler() -> str:
    """The path of py-spy: on PATH, or beside the interpreter."""
    beside = Path(sys.executable).with_name("py-spy")
    found = shutil.which("py-spy") or (str(beside) if beside.exists() else None)
    if found is None:
        raise ProfilerMissing("py-spy is not on PATH: pip install py-spy")
    return found


def profile(rig: Rig, case: Case, plan: Plan, seconds: float, *, native: bool) -> str:
    """Load the case while py-spy samples; the tables as Markdown."""
    profiler = find_profiler()
    request = rig.api.requests([case])[case.name]
    pressure = Pressure(case.in_flight or plan.in_flight)
    rig.load(rig.vaultd, request, pressure, plan.warm_up_s)
    before = rig.vaultd.meter.thread_cpu_s()
    plain = rig.load(rig.vaultd, request, pressure, max(2.0, seconds / 3))
    after = rig.vaultd.meter.thread_cpu_s()
    threads_us = {tid: (cpu_s - before.get(tid, 0.0)) / plain.calls * 1e6 for tid, cpu_s in after.items()}
    raw = rig.scratch / "profile.raw"
    command = [profiler, "record", "--pid", str(rig.vaultd.process.pid), "--duration", str(int(seconds))]
    command += ["--rate", str(SAMPLES_PER_S), "--format", "raw", "--full-filenames", "--subprocesses"]
    command += ["--output", str(raw)]
    command += ["--native"] if native else []
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE) as sampler:
        try:
            rig.load(rig.vaultd, request, pressure, seconds + 1.0)
            errors = sampler.communicate(timeout=30)[1].decode(errors="replace")
        finally:
            if sampler.poll() is None:
                sampler.kill()
    if sampler.returncode or not raw.exists():
        raise ProfilerMissing(f"py-spy failed: {errors[-500:]}")
    loop_us = threads_us.pop(rig.vaultd.process.pid)
    items = f", {case.items} items" if case.items > 1 else ""
    stacks = [_read(line) for line in raw.read_text().splitlines()]
    return "\n".join(
        [
            f"## {case.name}: {plain.cpu_us:,.0f} us of server CPU a call{items}, measured without the profiler",
            "",
            f"Event loop {loop_us:,.1f} us; other threads (grpc's poller and core, SQLite, audit sync, crypto pool), "
            f"most first: {', '.join(f'{used:,.1f}' for used in sorted(threads_us.values(), reverse=True)[:6])} us.",
            *_tables("event loop", [stack for stack in stacks if any(LOOP in frame for frame in stack[0])], loop_us),
            *_tables("crypto pool", [stack for stack in stacks if any(POOL in frame for frame in stack[0])], None),
            *_tables("token worker", [stack for stack in stacks if any(WORKER in frame for frame in stack[0])], None),
            "",
        ]
    )


def _read(line: str) -> tuple[list[str], int]:
    stack, _, count = line.rpartition(" ")
    return [_shorten(frame) for frame in stack.split(";")], int(count)


def _shorten(frame: str) -> str:
    """The frame with its file's path as it is imported."""
    return _PREFIX.sub("(", frame)


def _tables(thread: str, stacks: list[tuple[list[str], int]], cpu_us: float | None) -> Iterable[str]:
    own: Counter[str] = Counter()
    lines: Counter[str] = Counter()
    within: Counter[str] = Counter()
    for frames, count in stacks:
        own[_function(frames[-1])] += count
        for function in {_function(frame) for frame in frames if f"({PACKAGE}" in frame}:
            within[function] += count
        ours = [frame for frame in frames if f"({PACKAGE}" in frame]
        if ours:
            lines[ours[-1]] += count
    total = sum(own.values())
    if not total:
        return []
    return [
        *_table(f"{thread}: own time ({total} samples)", own, total, cpu_us),
        *_table(f"{thread}: functions of vaultd with all that they call", within, total, cpu_us),
        *_table(f"{thread}: lines of vaultd with what they call outside of it", lines, total, cpu_us),
    ]


def _table(title: str, counts: Counter[str], total: int, cpu_us: float | None) -> list[str]:
    rows = []
    for name, count in counts.most_common(TOP):
        used = "" if cpu_us is None else f"{count / total * cpu_us:,.1f}"
        rows.append(f"| {name} | {count / total:.1%} | {used} |")
    return ["", f"| {title} | share | us/call |", "| --- | ---: | ---: |", *rows]


def _function(frame: str) -> str:
    """`name (file:line)` without its line."""
    name, colon, line = frame.rstrip(")").rpartition(":")
    return f"{name})" if colon and line.isdigit() else frame
