"""Workers that are killed, replaced and left alone: nobody else's calls notice, and nothing that was acknowledged is lost."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal

import grpc
import pytest
import pytest_asyncio

from network.process import LIMITS, PATIENCE_S, eventually
from vaultd_client.v1 import keys_pb2, resources_pb2, watch_pb2
from workers.fleet import Fleet, receipt_of, verify_audit
from workers.load import all_keys, load

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest.fixture(scope="module")
def fleet(tmp_path_factory):
    running = Fleet(
        tmp_path_factory.mktemp("workers") / "served",
        2,
        limits={**LIMITS, "receive_timeout_s": PATIENCE_S},
        audit={"directory": "audit", "checkpoint_interval_s": 0.5},
        lifecycle={"scheduler_interval_ms": 100, "min_destroy_delay_s": 0},
    )
    yield running
    running.kill()


@pytest_asyncio.fixture(scope="module", loop_scope="module", autouse=True)
async def prepared(fleet):
    await fleet.prepare()


async def test_a_worker_that_is_killed_takes_only_its_own_connections_along(fleet):
    former = fleet.pids()[1]
    async with load(fleet, retrying=False) as running:
        # A killed worker's single calls may all be between two; a watch is always under way.
        watches = {at: client.admin.Watch(watch_pb2.WatchRequest()) for at, client in running.clients.items()}
        for watch in watches.values():
            await watch.read()
        answered = running.answered[0]
        fleet.kill_worker(1)
        assert await fleet.serves_again(1, former)
        assert await eventually(lambda: running.answered[0] > answered + 20)
        assert await watches[1].code() is grpc.StatusCode.UNAVAILABLE
        assert not watches[0].done()
        watches[0].cancel()
    assert running.failed[0] == []
    assert set(running.failed[1]) <= {grpc.StatusCode.UNAVAILABLE}
    assert running.created <= await all_keys(fleet)
    code, said = await fleet.verify()
    assert code == 0, said


async def test_another_worker_takes_the_scheduler_over_from_one_that_is_killed(fleet):
    leader, elections = fleet.elected()[-1], len(fleet.elected())
    former = fleet.pids()[leader]
    client = fleet.client("admin")
    key = keys_pb2.CreateKeyRequest(parent="vaults/default", key_id="passing")
    key.key.purpose = resources_pb2.KEY_PURPOSE_ENCRYPT_DECRYPT
    key.key.destroy_scheduled_duration.FromSeconds(0)
    await client.keys.CreateKey(key)
    await client.channel.close()
    fleet.kill_worker(leader)
    assert await eventually(lambda: len(fleet.elected()) > elections)
    assert await fleet.serves_again(leader, former)
    version = "vaults/default/keys/passing/versions/1"
    admins = await fleet.reach_each("admin")
    # Asked of the one that does not lead: it tells the one that does.
    await admins[leader].keys.DestroyKeyVersion(keys_pb2.DestroyKeyVersionRequest(name=version))

    def destroyers() -> list[int]:
        """Who destroyed it, by their own logs."""
        return [line["worker"] for line in fleet.log() if line["event"] == "destroy" and line["resource"] == version]

    assert await eventually(lambda: bool(destroyers()))
    assert destroyers() == [fleet.elected()[-1]] != [leader]
    for client in admins.values():
        await client.channel.close()


async def test_a_rolling_restart_under_load_fails_no_call_of_who_tries_again(fleet):
    before = fleet.pids()
    async with load(fleet, retrying=True) as running:
        fleet.popen.send_signal(signal.SIGUSR2)
        assert await eventually(lambda: any(line["event"] == "rolling_restart_done" for line in fleet.log()))
    assert set(fleet.pids().values()).isdisjoint(before.values())
    assert running.lost == []
    assert running.created <= await all_keys(fleet)
    lines = [line for line in fleet.log() if line["event"] == "worker_ended"]
    assert all(line["code"] == -signal.SIGKILL for line in lines)
    print(f"{running.retried} attempts were repeated, of {sum(running.answered.values())} calls of each kind")


async def test_a_chain_that_is_taken_away_is_missed(fleet, tmp_path):
    for client in (await fleet.reach_each("app")).values():
        await receipt_of(client)
        await client.channel.close()

    def is_named() -> bool:
        """Whether a checkpoint of worker 0 covers what it says of worker 1."""
        segments = sorted((fleet.directory / "audit/worker-0").glob("*.jsonl"))
        log = b"".join(path.read_bytes() for path in segments)
        at = log.find(b'"worker-1"')
        return at >= 0 and b'"event":"checkpoint"' in log[at:]

    assert await eventually(is_named)
    copy = tmp_path / "audit"
    being_written = shutil.ignore_patterns("*.tmp")
    await asyncio.to_thread(shutil.copytree, fleet.directory / "audit", copy, ignore=being_written)
    shutil.rmtree(copy / "worker-1")
    code, said = await asyncio.to_thread(verify_audit, fleet.directory, copy)
    assert (code, "is gone" in said) == (1, True), said


async def test_the_workers_drain_when_their_supervisor_is_killed(fleet):
    pids = fleet.pids()
    fleet.popen.kill()

    def gone(pid: int) -> bool:
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            return True
        return False

    assert await eventually(lambda: all(map(gone, pids.values())))
    code, said = await fleet.verify()
    assert code == 0, said
