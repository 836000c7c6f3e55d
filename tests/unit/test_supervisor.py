"""Who keeps the workers, with a stand-in for them that only says it serves."""

from __future__ import annotations

import asyncio
import sys
from contextlib import asynccontextmanager

import structlog

from network.process import eventually
from vaultd.workers.supervisor import MAX_FAILED, Supervisor, shared_file

SERVES = f"""#!{sys.executable}
import asyncio, socket, sys
from vaultd.workers.channel import Channel

async def serve():
    async def heard(kind, body):
        pass
    control = socket.socket(fileno=int(sys.argv[-1].partition("=")[2]))
    gone = asyncio.Event()
    channel = await Channel.attach(control, heard, gone.set)
    channel.tell("ready", chain_id=b"", audit_keys=b"")
    await gone.wait()

asyncio.run(serve())
"""


def supervisor_of(command) -> Supervisor:
    return Supervisor(command, 2, "127.0.0.1:0", "", 1, lambda address, keys: None, counts_fd=shared_file(8))


@asynccontextmanager
async def running(supervisor):
    task = asyncio.create_task(supervisor.run())
    try:
        yield task
    finally:
        supervisor._end()
        await task


async def test_a_start_ends_when_no_worker_can_be_started(tmp_path):
    supervisor = supervisor_of([str(tmp_path / "nothing")])
    with structlog.testing.capture_logs() as logs:
        async with asyncio.timeout(60):
            assert await supervisor.run() is False
    assert [(line["event"], line["why"]) for line in logs] == [("worker_not_started", "No such file or directory")]


async def test_a_worker_that_cannot_be_started_for_a_while_comes_back(tmp_path):
    program, away = tmp_path / "worker", tmp_path / "away"
    program.write_text(SERVES)
    program.chmod(0o700)
    supervisor = supervisor_of([str(program)])
    with structlog.testing.capture_logs() as logs:

        def said(event: str) -> int:
            return len([line for line in logs if line["event"] == event])

        async with running(supervisor):
            assert await eventually(lambda: supervisor._announced)
            program.rename(away)
            supervisor._workers[1].process.kill()
            assert await eventually(lambda: said("worker_not_started") >= 1)
            away.rename(program)
            assert await eventually(lambda: supervisor._serves(1))
        assert said("worker_given_up") == 0


async def test_a_worker_that_served_is_not_given_up_however_often_it_is_killed(tmp_path, monkeypatch):
    monkeypatch.setattr("vaultd.workers.supervisor.BACKOFF_S", (0.0,))
    program = tmp_path / "worker"
    program.write_text(SERVES)
    program.chmod(0o700)
    supervisor = supervisor_of([str(program)])
    async with running(supervisor):
        assert await eventually(lambda: supervisor._announced)
        for _ in range(MAX_FAILED + 1):
            before = supervisor._workers[1]
            before.process.kill()
            assert await eventually(lambda: supervisor._workers.get(1) not in {None, before})  # noqa: B023  # at once
            assert await eventually(lambda: supervisor._serves(1))


async def test_a_fault_of_a_keeper_ends_the_server_and_not_one_worker_only(tmp_path, monkeypatch):
    program = tmp_path / "worker"
    program.write_text(SERVES)
    program.chmod(0o700)
    supervisor = supervisor_of([str(program)])
    with structlog.testing.capture_logs() as logs:
        async with running(supervisor) as task:
            assert await eventually(lambda: supervisor._announced)
            monkeypatch.setattr(supervisor, "_release_logins", lambda worker: 1 // 0)
            supervisor._workers[1].process.kill()
            async with asyncio.timeout(60):
                assert await task is False
    assert [line["event"] for line in logs if line["log_level"] == "critical"][:1] == ["supervisor_failed"]
