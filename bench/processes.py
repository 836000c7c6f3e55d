"""Processes that we start, and their certain end."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import IO

ROOT: Final = Path(__file__).resolve().parent.parent
START_TIMEOUT_S: Final = 30.0
STOP_TIMEOUT_S: Final = 10.0
MODULE: Final = (sys.executable, "-m")
"""What runs a module of this repository with our interpreter."""
LOADGEN: Final = ("nice", "-n", "-10", str(ROOT / ".bin" / "loadgen"))
"""The load generator, ahead of what it loads where that is permitted: a client on another machine would not wait for the server's
cores, and time that it waits is in the latencies."""


class StartFailed(Exception):
    """A process ended, or said nothing, before it was ready."""


class Process:
    """A child that is ended by us however we end."""

    def __init__(
        self,
        name: str,
        arguments: Sequence[str],
        scratch: Path,
        program: Sequence[str] = MODULE,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        """environment: what is added to ours.  Raises StartFailed when the program is not there."""
        for needed in map(Path, program):
            if needed.is_absolute() and not needed.exists():
                raise StartFailed(f"{needed} is not there: make .bin/{needed.name}")
        self.name = name
        self._log = scratch / f"{name}.log"
        path = os.pathsep.join([str(ROOT), str(ROOT / "clients/python"), os.environ.get("PYTHONPATH", "")])
        # VAULTD_* variables override the configuration and would measure something else.
        ours = {key: value for key, value in os.environ.items() if not key.startswith("VAULTD_")}
        with self._log.open("wb") as log:
            # A session of its own: Ctrl-C reaches us alone, and we end the others in order.
            self._popen = subprocess.Popen(
                [*program, *arguments],
                cwd=scratch,
                env={**ours, "PYTHONPATH": path.rstrip(os.pathsep), **(environment or {})},
                stdin=subprocess.PIPE,
                stdout=self._standard_output(log),
                stderr=log,
                start_new_session=True,
            )

    def _standard_output(self, log: IO[bytes]) -> IO[bytes] | int:
        """Where it goes: to us."""
        del log
        return subprocess.PIPE

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

    def runs(self) -> bool:
        """Whether it has not ended."""
        return self._popen.poll() is None

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


class Talker(Process):
    """A child whose standard output nobody reads: it goes to the log."""

    def _standard_output(self, log: IO[bytes]) -> IO[bytes] | int:
        return log
