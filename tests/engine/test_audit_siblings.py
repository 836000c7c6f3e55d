"""Two servers whose logs lie side by side, as workers' do: each signs what it saw of the other, and will not serve without it."""

from __future__ import annotations

import asyncio
import shutil
from contextlib import asynccontextmanager

import orjson
import pytest

from harness import make_settings, running_server
from vaultd.audit.verify import verify_chains
from vaultd.engine.ledger import Intent
from vaultd.engine.seal import SealState
from vaultd.wiring import Server


@asynccontextmanager
async def worker(directory, index, *, accept_restore=False, **audit):
    values = {"directory": directory / f"audit/worker-{index}", "checkpoint_interval_s": 3_600, **audit}
    if accept_restore:
        async with Server(make_settings(directory, audit=values), accept_restore=True).running() as server:
            yield server
        return
    async with running_server(directory, audit=values) as server:
        yield server.server


async def settled(*servers):
    """A checkpoint of each that names the newest one of the other."""
    for server in (*servers, *servers):
        await server.witness.checkpoint()


def records(server):
    paths = sorted(server.audit_log.directory.glob("*.jsonl"))
    return [orjson.loads(line) for path in paths for line in path.read_bytes().splitlines()]


async def test_both_chains_verify_and_name_each_other(tmp_path):
    async with worker(tmp_path, 0) as zero, worker(tmp_path, 1) as one:
        await settled(zero, one)
        keys = zero.witness.public_keys
    verdicts = verify_chains(tmp_path / "audit", keys=keys)
    assert set(verdicts) == {"worker-0", "worker-1"}
    assert [tie.directory for tie in verdicts["worker-0"].ties] == ["worker-1"]


async def test_a_vault_stays_sealed_while_a_chain_is_gone_and_opens_when_it_is_back(tmp_path):
    async with worker(tmp_path, 0) as zero, worker(tmp_path, 1) as one:
        await settled(zero, one)
    shutil.move(tmp_path / "audit/worker-1", tmp_path / "away")
    async with worker(tmp_path, 0) as zero:
        assert zero.engine.seal.state is SealState.SEALED
        failed = next(record for record in reversed(records(zero)) if record.get("event") == "unseal_failed")
        assert failed["reason"] == "AUDIT_ROLLED_BACK"
    shutil.move(tmp_path / "away", tmp_path / "audit/worker-1")
    async with worker(tmp_path, 0) as zero:
        assert zero.engine.seal.state is SealState.UNSEALED


async def both_refuse(directory) -> list[str]:
    """Why each of two workers is sealed."""
    reasons = []
    for index in (0, 1):
        async with worker(directory, index) as server:
            assert server.engine.seal.state is SealState.SEALED
            failed = next(record for record in reversed(records(server)) if record.get("event") == "unseal_failed")
            reasons.append(failed["reason"])
    return reasons


@pytest.mark.parametrize("hidden", [False, True])
async def test_no_worker_unseals_where_one_chain_was_taken_away(tmp_path, hidden):
    async with worker(tmp_path, 0) as zero, worker(tmp_path, 1) as one:
        await settled(zero, one)
    shutil.rmtree(tmp_path / "audit/worker-1")
    if hidden:
        (tmp_path / "audit/worker-0/checkpoint").unlink()
    assert await both_refuse(tmp_path) == ["AUDIT_ROLLED_BACK"] * 2


async def test_no_worker_unseals_where_one_chain_and_what_the_other_said_of_it_were_cut_off(tmp_path):
    async with worker(tmp_path, 0) as zero, worker(tmp_path, 1) as one:
        await settled(zero, one)
    kept = tmp_path / "kept"
    shutil.copytree(tmp_path / "audit/worker-1", kept)
    async with worker(tmp_path, 1) as one:
        await one.witness.checkpoint()
    shutil.rmtree(tmp_path / "audit/worker-1")
    shutil.move(kept, tmp_path / "audit/worker-1")
    assert await both_refuse(tmp_path) == ["AUDIT_ROLLED_BACK"] * 2


async def test_what_is_signed_at_seal_names_the_others_too(tmp_path):
    async with worker(tmp_path, 0) as zero, worker(tmp_path, 1) as one:
        await settled(zero, one)
        await zero.engine.seal.seal()
    events = [record["event"] for record in records(zero)]
    last = len(events) - 1 - events[::-1].index("checkpoint")
    assert events[last - 1] == "sibling_heads"


async def test_an_audit_directory_that_was_set_aside_as_a_whole_is_begun_anew(tmp_path):
    async with worker(tmp_path, 0) as zero, worker(tmp_path, 1) as one:
        await settled(zero, one)
    shutil.move(tmp_path / "audit", tmp_path / "aside")
    for index in (0, 1):
        async with worker(tmp_path, index) as server:
            assert server.engine.seal.state is SealState.UNSEALED


async def test_a_store_that_was_put_back_is_found_by_the_log_that_saw_nothing_of_it(tmp_path):
    async with worker(tmp_path, 0) as zero, worker(tmp_path, 1) as one:
        await settled(zero, one)
    kept = {path: path.read_bytes() for path in tmp_path.glob("vault.db*")}
    async with worker(tmp_path, 0) as zero:
        for number in range(5):
            await zero.engine.vaults.create(Intent("p", "m"), f"v{number}", "", {})
    for path in tmp_path.glob("vault.db*"):
        path.unlink()
    for path, content in kept.items():
        path.write_bytes(content)
        path.chmod(0o600)
    async with worker(tmp_path, 1) as one:
        assert one.engine.seal.state is SealState.SEALED
        failed = next(record for record in reversed(records(one)) if record.get("event") == "unseal_failed")
        assert failed["reason"] == "STORE_ROLLED_BACK"
    for index in (1, 0):
        async with worker(tmp_path, index, accept_restore=True) as accepting:
            assert accepting.engine.seal.state is SealState.UNSEALED
            assert any(record.get("event") == "restore_accepted" for record in records(accepting))
    for index in (0, 1, 2):  # and a new one, which was not there
        async with worker(tmp_path, index) as again:
            assert again.engine.seal.state is SealState.UNSEALED


async def test_a_chain_that_goes_while_another_is_written_is_an_alarm_once(tmp_path):
    async with worker(tmp_path, 0) as zero:
        async with worker(tmp_path, 1) as one:
            await settled(zero, one)
        await asyncio.to_thread(shutil.move, tmp_path / "audit/worker-1", tmp_path / "away")
        await zero.witness.checkpoint()
        await zero.witness.checkpoint()
        lost = [record for record in records(zero) if record.get("event") == "audit_chain_lost"]
        assert len(lost) == 1
        assert "worker-1, is gone" in lost[0]["problem"]
        assert zero.observing.data_losses == 1


async def test_idle_logs_do_not_have_each_other_go_on_for_ever(tmp_path):
    async with (
        worker(tmp_path, 0, checkpoint_interval_s=0.1) as zero,
        worker(tmp_path, 1, checkpoint_interval_s=0.1) as one,
    ):
        for _ in range(4):
            for server in (zero, one):
                server.witness._signed_us = 0
                await server.witness.tick()
        sizes = zero.audit_log.sequence, one.audit_log.sequence
        for _ in range(4):
            for server in (zero, one):
                server.witness._signed_us = 0
                await server.witness.tick()
        assert (zero.audit_log.sequence, one.audit_log.sequence) == sizes
