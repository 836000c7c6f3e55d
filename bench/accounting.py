"""What a server has cost, as the kernel accounts it: its process and all that come from it."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Final

_TICKS: Final = os.sysconf("SC_CLK_TCK")
# The kernel's clock of the CPU time of a whole process (CPUCLOCK_SCHED), see clock_getcpuclockid(3).
_CPU_CLOCK: Final = 2
_SELF: Final = slice(11, 13)
_ENDED_CHILDREN: Final = slice(13, 15)
"""Where /proc/PID/stat has user and system time, counted from its third field; proc_pid_stat(5)."""


class Meter:
    """Reads what a process and its descendants have cost so far: an Envoy, workers, the process of a token's module."""

    def __init__(self, pid: int) -> None:
        self._pid = pid

    def cpu_s(self) -> float:
        """CPU seconds of the process, its living descendants, and those that any of them has waited for."""
        return sum(_process_cpu_s(pid) + _ended_cpu_s(pid) for pid in self.family())

    def each_cpu_s(self) -> dict[int, float]:
        """CPU seconds of the process and each of its living descendants."""
        return {pid: _process_cpu_s(pid) for pid in self.family()}

    def thread_cpu_s(self) -> dict[int, float]:
        """CPU seconds of each living thread of the process itself; the main thread has the process's own id."""
        threads = {}
        for entry in os.listdir(f"/proc/{self._pid}/task"):
            try:
                nanoseconds = int(Path(f"/proc/{self._pid}/task/{entry}/schedstat").read_text().split()[0])
            except OSError:
                continue
            threads[int(entry)] = nanoseconds / 1e9
        return threads

    def forget_peak(self) -> None:
        """Let the peak begin anew, where the kernel permits it; elsewhere it is the peak since the start."""
        for pid in self.family():
            try:
                Path(f"/proc/{pid}/clear_refs").write_text("5")
            except OSError:
                continue

    def peak_mib(self) -> float:
        """Largest resident set, summed over the processes; pages that several of them share count for each."""
        return sum(_kib(pid, "status", "VmHWM:") for pid in self.family()) / 1024

    def pss_mib(self) -> float:
        """Memory as it is now, where pages that several processes share are divided among them; 0 where it is not told."""
        return sum(_kib(pid, "smaps_rollup", "Pss:") for pid in self.family()) / 1024

    def family(self) -> list[int]:
        """The process, its children, theirs, and so on."""
        children: dict[int, list[int]] = {}
        for entry in os.listdir("/proc"):
            if entry.isdigit():
                try:
                    children.setdefault(int(_stat(int(entry))[1]), []).append(int(entry))
                except OSError:
                    continue
        family = [self._pid]
        for pid in family:
            family += children.get(pid, [])
        return family


def _stat(pid: int) -> list[str]:
    """The fields of /proc/PID/stat from the third, `state`, on: the second may hold spaces and parentheses."""
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()


def _ticks_s(pid: int, fields: slice) -> float:
    try:
        return sum(map(int, _stat(pid)[fields])) / _TICKS
    except OSError:
        return 0.0


def _ended_cpu_s(pid: int) -> float:
    return _ticks_s(pid, _ENDED_CHILDREN)


def _process_cpu_s(pid: int) -> float:
    """To the nanosecond where that clock exists: a tick of /proc/PID/stat is 10 ms, much of a short slice."""
    try:
        return time.clock_gettime((~pid << 3) | _CPU_CLOCK)
    except OSError:
        return _ticks_s(pid, _SELF)


def _kib(pid: int, file: str, field: str) -> int:
    try:
        for line in Path(f"/proc/{pid}/{file}").read_text().splitlines():
            if line.startswith(field):
                return int(line.split()[1])
    except OSError:
        return 0
    return 0
