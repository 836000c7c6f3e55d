"""A worker that crashes again and again is given up; the others serve, and it comes back when what was wrong is mended.

python -m pytest tests/reliability/workers_given_up.py
"""

from __future__ import annotations

import signal

import pytest

from network.process import LIMITS, eventually
from workers.fleet import Fleet, receipt_of


@pytest.fixture
def fleet(tmp_path):
    running = Fleet(tmp_path / "served", 2, limits=LIMITS)
    yield running
    running.kill()


async def test_a_worker_that_cannot_start_is_given_up_and_comes_back(fleet):
    await fleet.prepare()
    directory = fleet.directory / "audit/worker-1"
    directory.chmod(0o755)  # which a worker refuses at its start
    fleet.kill_worker(1)

    def events(name: str) -> int:
        return len([line for line in fleet.log() if line["event"] == name])

    assert await eventually(lambda: events("worker_given_up") == 1, 60)
    for _ in range(10):
        client = fleet.client("app")
        assert fleet.chain_ids()[(await receipt_of(client)).chain_id] == 0
        await client.channel.close()
    directory.chmod(0o700)
    fleet.popen.send_signal(signal.SIGUSR2)
    assert await eventually(lambda: events("rolling_restart_done") == 1, 60)
    for client in (await fleet.reach_each("app")).values():
        await client.channel.close()
    code, said = await fleet.verify()
    assert code == 0, said
