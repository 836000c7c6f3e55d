"""Processes that we start, what they cost, and their certain end."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import IO

ROOT: Final = Path(__file__).resolve().parent.parent
START_TIMEOUT_S: Final = 30.0
STOP_TIMEOUT_S: Final = 10.0
_TICKS: Final = os.sysconf("SC_CLK_TCK")
# The kernel's clock of the CPU time of a whole process (CPUCLOCK_SCHED), see clock_getcpuclockid(3).
_CPU_CLOCK: Final = 2


class StartFailed(Exception):
    """A process ended, or said nothing, before it was ready."""


class Process:
    """A child that runs a module of this repository with our interpreter, and is ended by us however we end."""

    def __init__(self, name: str, arguments: Sequence[str], scratch: Path) -> None:
        self.name = name
        self._log = scratch / f"{name}.log"
        path = os.pathsep.join([str(ROOT), str(ROOT / "clients/python"), os.environ.get("PYTHONPATH", "")])
        # VAULTD_* variables override the configuration and would measure something else.
        environment = {key: value for key, value in os.environ.items() if not key.startswith("VAULTD_")}
        with self._log.open("wb") as log:
            # A session of its own: Ctrl-C reaches us alone, and we end the others in order.
            self._popen = subprocess.Popen(
                [sys.executable, "-m", *arguments],
                cwd=scratch,
                env={**environment, "PYTHONPATH": path.rstrip(os.pathsep)},
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                start_new_session=True,
            )

    @property
    def pid(self) -> int:
        return self._popen.pid

    @property
    def stdin(self) -> IO[bytes]:
        assert self._popen.stdin is not None
        return self._popen.stdin

    @property
    def stdout(self) -> IO[bytes]:
        assert self._popen.stdout is not None
        return self._popen.stdout

    def wait_ready(self) -> str:
        """Return what follows `ready ` on the line that begins so."""
        started = time.monotonic()
        while time.monotonic() - started < START_TIMEOUT_S:
            line = self.stdout.readline().decode()
            if line.startswith("ready "):
                return line.split()[1]
            if not line:
                break
        raise StartFailed(self.describe_failure())

    def describe_failure(self) -> str:
        """The end of what it said, for the one who runs the benchmark."""
        tail = self._log.read_text(errors="replace").splitlines()[-15:]
        return "\n".join([f"{self.name} (exit code {self._popen.poll()}) said:", *tail])

    def stop(self) -> None:
        """Ask it to end, then make it.  Idempotent."""
        if self._popen.poll() is None:
            self._popen.terminate()
            try:
                self._popen.wait(STOP_TIMEOUT_S)
            except subprocess.TimeoutExpired:
                self._popen.kill()
                self._popen.wait()
        for pipe in (self._popen.stdin, self._popen.stdout):
            if pipe is not None:
                try:
                    pipe.close()
                except BrokenPipeError:
                    continue


class Meter:
    """Reads what a process and its children have cost so far."""

    def __init__(self, pid: int) -> None:
        self._pid = pid

    def cpu_s(self) -> float:
        """CPU seconds of the process, its living descendants, and those it has waited for."""
        ended_ticks = sum(map(int, _stat(self._pid)[13:15]))
        return sum(map(_process_cpu_s, self._family())) + ended_ticks / _TICKS

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
        for pid in self._family():
            try:
                Path(f"/proc/{pid}/clear_refs").write_text("5")
            except OSError:
                continue

    def peak_mib(self) -> float:
        """Largest resident set, summed over the processes."""
        return sum(map(_peak_kib, self._family())) / 1024

    def _family(self) -> list[int]:
        parents: dict[int, int] = {}
        for entry in os.listdir("/proc"):
            if entry.isdigit():
                try:
                    parents[int(entry)] = int(_stat(int(entry))[1])
                except OSError:
                    continue
        family = [self._pid]
        for pid in family:
            family += [child for child, parent in parents.items() if parent == pid]
        return family


def _stat(pid: int) -> list[str]:
    """The fields of /proc/PID/stat from the third, `state`, on: the second may hold spaces and parentheses."""
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()


def _process_cpu_s(pid: int) -> float:
    """To the nanosecond where that clock exists: a tick of /proc/PID/stat is 10 ms, much of a short slice."""
    try:
        return time.clock_gettime((~pid << 3) | _CPU_CLOCK)
    except OSError:
        try:
            return sum(map(int, _stat(pid)[11:13])) / _TICKS
        except OSError:
            return 0.0


def _peak_kib(pid: int) -> int:
    try:
        for line in Path(f"/proc/{pid}/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1])
    except OSError:
        return 0
    return 0
