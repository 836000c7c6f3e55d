"""The process of an Envoy with a server in it: what is in it, how it ends, and what it leaves."""

import os
import re
import signal
import socket
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import pytest

from network.process import ENVIRONMENT, POLL_S, ROOT, SEAL_IT, Process, Remote, create_key, eventually


def directory_of(process: Process) -> Path:
    """The private directory of its Envoy."""
    words = Path(f"/proc/{process.server_pid}/cmdline").read_bytes().split(b"\0")
    return Path(words[words.index(b"--config-path") + 1].decode()).parent


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def envoy_of(pid: int) -> int:
    """The Envoy that a process has started; 0 while there is none.  Before it, others come and go: they make the vault."""
    for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split():
        with suppress(FileNotFoundError, ProcessLookupError):
            if b"--config-path" in Path(f"/proc/{child}/cmdline").read_bytes():
                return int(child)
    return 0


def catches(pid: int, number: int) -> bool:
    status = Path(f"/proc/{pid}/status").read_text()
    return bool(int(re.search(r"SigCgt:\s+(\w+)", status)[1], 16) >> (number - 1) & 1)


@pytest.fixture
def own(tmp_path):
    """A server for one test, which ends it."""
    running = Process(tmp_path / "served", host="envoy")
    yield running
    running.kill()


def test_it_has_no_grpc_and_its_memory_is_its_own(process):
    maps = Path(f"/proc/{process.server_pid}/maps").read_text()
    assert "cygrpc" not in maps
    assert "_pyvoy" in maps
    limits = Path(f"/proc/{process.server_pid}/limits").read_text()
    assert re.search(r"Max core file size +0 +0 ", limits)
    assert Path(f"/proc/{process.server_pid}/mem").stat().st_uid == 0  # of nobody's: not dumpable


def test_its_threads_do_not_interrupt_each_other(process):
    threads = [int(thread) for thread in os.listdir(f"/proc/{process.server_pid}/task")]
    assert len(threads) > 4
    assert {os.sched_getscheduler(thread) for thread in threads} == {os.SCHED_BATCH}


def test_its_directory_is_private_and_has_no_key(process):
    directory = directory_of(process)
    paths = [directory, *directory.rglob("*")]
    assert all(path.stat().st_mode & 0o077 == 0 for path in paths if path.name != "bootstrap.json")
    assert not any(b"PRIVATE KEY" in path.read_bytes() for path in paths if path.is_file())


def test_its_parent_says_why_it_does_not_start(tmp_path):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        command = [sys.executable, "-m", "vaultd", "dev", "--dir", str(tmp_path / "d"), "--listen", address]
        done = subprocess.run([*command, "--host", "envoy"], env=ENVIRONMENT, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 1
    assert f"cannot listen on {address}" in done.stderr
    assert "Traceback" not in done.stderr


def test_sigterm_ends_a_start_that_hangs(tmp_path):
    command = [
        sys.executable,
        "-m",
        "vaultd",
        "dev",
        "--dir",
        str(tmp_path / "d"),
        "--listen",
        "127.0.0.1:0",
        "--host",
        "envoy",
    ]
    with subprocess.Popen(command, env=ENVIRONMENT, cwd=ROOT, stdout=subprocess.PIPE) as parent:
        until = time.monotonic() + 60
        # Once it has become Envoy the parent listens to signals, or is about to.
        while not (envoy := envoy_of(parent.pid)):
            assert time.monotonic() < until
            time.sleep(POLL_S)
        os.kill(envoy, signal.SIGSTOP)
        while not catches(parent.pid, signal.SIGTERM):
            assert time.monotonic() < until
            time.sleep(POLL_S)
        parent.send_signal(signal.SIGTERM)
        assert parent.wait(10) == 0
        assert parent.stdout.read() == b""
        assert not alive(envoy)


async def test_sigterm_drains_and_leaves_nothing_behind(own):
    server = Remote(own)
    await create_key(server.admin, "k")
    directory = directory_of(own)
    own.popen.send_signal(signal.SIGTERM)
    assert await eventually(lambda: own.popen.poll() is not None)
    await server.close()
    assert own.popen.returncode == 0
    assert not alive(own.server_pid)
    assert not directory.exists()


async def test_a_service_manager_that_stops_every_process_gets_a_drain(own):
    server = Remote(own)
    await create_key(server.admin, "k")
    for pid in (own.server_pid, own.pid):
        os.kill(pid, signal.SIGTERM)
    assert await eventually(lambda: own.popen.poll() is not None)
    await server.close()
    assert own.popen.returncode == 0
    assert any(record.get("event") == "checkpoint" or "signature" in record for record in server.audit_records())


async def test_envoy_ends_when_its_parent_is_killed(own):
    directory = directory_of(own)
    own.popen.kill()
    assert await eventually(lambda: not alive(own.server_pid))
    assert not directory.exists()


async def test_the_parent_ends_when_envoy_is_killed_and_says_so(own):
    directory = directory_of(own)
    os.kill(own.server_pid, signal.SIGKILL)
    assert await eventually(lambda: own.popen.poll() is not None)
    assert own.popen.returncode == 1
    assert "Envoy ended with signal 9" in own.stderr()
    assert not directory.exists()


async def test_calls_go_on_through_a_reload(own):
    server = Remote(own)
    await create_key(server.admin, "k")
    for _ in range(3):
        own.popen.send_signal(signal.SIGHUP)
        await server.admin.crypto.Encrypt(SEAL_IT)
    await server.close()
