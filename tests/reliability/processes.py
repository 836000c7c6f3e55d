"""The servers that campaigns start, and how they are reached.  Importing it makes the checkout importable."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "clients/python"), str(ROOT / "tests")]

import grpc  # noqa: E402  # needs the path above
import yaml  # noqa: E402  # as above

from harness import ADMIN, Client  # noqa: E402  # as above
from vaultd.devpki import create_dev_pki  # noqa: E402  # as above

ENVIRONMENT = {**os.environ, "PYTHONPATH": f"{ROOT}:{ROOT / 'clients/python'}"}
START_TIMEOUT_S = 30
STOP_TIMEOUT_S = 30


def descendants(pid: int) -> list[int]:
    """Processes that a process started, and those that these started."""
    try:
        children = [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except FileNotFoundError:
        return []
    return children + [other for child in children for other in descendants(child)]


def is_there(pid: int) -> bool:
    """Whether a process has not ended; one that nobody waited for has."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


class Server:
    """`vaultd serve`, or another command that says `ready ADDRESS`, in a process of its own."""

    def __init__(self, directory: Path, command: Sequence[str] = ("-m", "vaultd", "serve", "--config")) -> None:
        self._directory = directory
        self._config = directory / "config.yaml"
        self._command = [sys.executable, *command, str(self._config)]
        self._process: subprocess.Popen[str] | None = None
        self.log = directory / "server.log"
        self.address = ""
        self.environment: dict[str, str] = {}
        """Variables for the server only."""

    @property
    def pid(self) -> int:
        """Of the process; 0 before it was started."""
        return self._process.pid if self._process is not None else 0

    @property
    def running(self) -> bool:
        """Whether the process is there."""
        return self._process is not None and self._process.poll() is None

    def start(self, failpoint: str = "") -> float:
        """Start and wait until it serves; returns the seconds that took."""
        began = time.monotonic()
        environment = {**ENVIRONMENT, **self.environment, **({"VAULTD_FAILPOINT": failpoint} if failpoint else {})}
        with self.log.open("a") as log:
            self._process = subprocess.Popen(
                self._command,
                env=environment,
                cwd=ROOT,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
            )
        line = self._process.stdout.readline().split() if self._process.stdout else []
        if line[:1] != ["ready"]:
            self.kill()
            raise SystemExit(f"the server did not start:\n{self.log.read_text()[-4_000:]}")
        self.address = line[1]
        return time.monotonic() - began

    def kill(self) -> None:
        """SIGKILL, the processes that it started first, and wait for the end of all."""
        if self._process is None or self._process.poll() is not None:
            self.wait(STOP_TIMEOUT_S)
            return
        started = descendants(self.pid)
        for pid in (*started, self.pid):
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self.wait(STOP_TIMEOUT_S)
        until = time.monotonic() + STOP_TIMEOUT_S
        while any(map(is_there, started)) and time.monotonic() < until:
            time.sleep(0.01)

    def stop(self) -> str:
        """SIGTERM; returns what it printed on its way out.  One that does not end is killed."""
        if self._process is None:
            return ""
        self._process.terminate()
        try:
            return self._process.communicate(timeout=STOP_TIMEOUT_S)[0]
        except subprocess.TimeoutExpired:
            self.kill()
            return ""

    def wait(self, timeout_s: float) -> bool:
        """Whether the process has ended within the time."""
        if self._process is None:
            return True
        try:
            self._process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            return False
        if self._process.stdout:
            self._process.stdout.close()
        return True

    def vaultd(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run a command on the same configuration."""
        return subprocess.run(
            [sys.executable, "-m", "vaultd", arguments[0], "--config", str(self._config), *arguments[1:]],
            env=ENVIRONMENT,
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=False,
        )


def make_vault(directory: Path, command: Sequence[str] | None = None, **sections: Any) -> Server:
    """Certificates, a configuration and an initialised store in a directory; `sections` are added to the configuration."""
    create_dev_pki(directory / "tls", hosts=["127.0.0.1"])
    document = {
        "listen": "127.0.0.1:0",
        "tls": {"certificate": "tls/server.crt", "key": "tls/server.key"},
        "trust_bundles": [{"name": "dev", "ca": "tls/ca.crt", "trust_domain": "dev.vaultd"}],
        "operators": [ADMIN],
        "store": {"path": "vault.db"},
        "root_key": {"provider": "file", "path": "root.key"},
        "audit": {"directory": "audit"},
        "log": {"level": "warning"},
        **sections,
    }
    (directory / "config.yaml").write_text(yaml.safe_dump(document))
    server = Server(directory, command) if command else Server(directory)
    done = server.vaultd("init", "--admin", ADMIN)
    if done.returncode:
        raise SystemExit(done.stderr)
    return server


def connect(directory: Path, address: str) -> Client:
    """A client with the administrator's certificate, on a connection of its own."""
    tls = directory / "tls"
    credentials = grpc.ssl_channel_credentials(
        (tls / "ca.crt").read_bytes(), (tls / "admin.key").read_bytes(), (tls / "admin.crt").read_bytes()
    )
    # A channel of its own, never one that still backs off from the server before.
    return Client(grpc.aio.secure_channel(address, credentials, options=[("grpc.use_local_subchannel_pool", 1)]))


def percentile(values: list[float], share: float) -> float:
    """The value that this share of the others is not above."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]
