"""Engines of one server whose processes speak through the supervisor: Seal and Unseal at once leave all of them in one state."""

from __future__ import annotations

import asyncio
import random
import socket
from contextlib import asynccontextmanager

import pytest

from engine.engines import POLICY, OpenEngine, engine_settings
from harness import FakeClock
from network.process import eventually
from vaultd.engine.seal import SealState
from vaultd.errors import Aborted
from vaultd.workers.channel import Channel
from vaultd.workers.siblings import Siblings, hidden
from vaultd.workers.supervisor import Supervisor, Worker


async def join(supervisor, index, settings):
    """A worker with an engine and its end of a control socket; it has no process of its own."""
    here, there = socket.socketpair()
    worker = supervisor._workers[index] = Worker(index, None, serving=True)
    engine: OpenEngine

    async def ask_supervisor(kind, body):
        return await supervisor._handle(worker, kind, body)

    async def ask_worker(kind, body):
        if kind in {"seal", "unseal"}:
            siblings.heard(kind, body)
        if kind == "seal":
            await engine.seal.seal_here()
        elif kind == "unseal":
            await engine.seal.unseal_with(hidden(body))

    worker.channel = await Channel.attach(here, ask_supervisor)
    siblings = Siblings(await Channel.attach(there, ask_worker), {"count": 3, "sealed": False, "seals": 0})
    engine = OpenEngine(settings, FakeClock(), siblings)
    await engine.open()
    await engine.seal.start()
    return engine


@asynccontextmanager
async def three(directory):
    supervisor = Supervisor([], 3, "", "", 0, lambda address, keys: None, counts_fd=-1)
    settings = engine_settings(directory)
    engines = [await join(supervisor, index, settings) for index in range(3)]
    await engines[0].seal.init(POLICY, None)
    try:
        yield engines
    finally:
        for engine in engines:
            await engine.stop()
        for worker in supervisor._workers.values():
            worker.channel.close()


def states(engines):
    return {engine.seal.state for engine in engines}


async def test_an_unseal_that_began_before_a_seal_opens_nothing(tmp_path):
    async with three(tmp_path) as engines:
        await engines[0].seal.seal()
        async with engines[1].seal._turn:
            opening = asyncio.create_task(engines[1].seal.unseal(None))
            await asyncio.sleep(0)
            sealing = asyncio.create_task(engines[2].seal.seal())
            assert await eventually(lambda: engines[1].ledger.neighbours.seals == 2)
        await sealing
        with pytest.raises(Aborted) as error:
            await opening
        assert error.value.reason == "SEALED_MEANWHILE"
        assert states(engines) == {SealState.SEALED}
        await engines[1].seal.unseal(None)
        assert states(engines) == {SealState.UNSEALED}


async def test_a_seal_that_an_unseal_overtook_seals_the_one_that_was_asked_as_well(tmp_path):
    async with three(tmp_path) as engines:
        await engines[0].seal.seal()
        await engines[0].seal.seal_here()
        await engines[1].seal.unseal(None)  # which opens the one that had begun to seal
        await engines[0].ledger.neighbours.seal()
        assert states(engines) == {SealState.SEALED}


@pytest.mark.parametrize("seed", range(4))
async def test_seal_and_unseal_at_once_leave_all_in_one_state(tmp_path, seed):
    chance = random.Random(seed)
    async with three(tmp_path) as engines:
        for _ in range(15):
            acts = [engine.seal.seal() for engine in chance.sample(engines, 2)]
            acts += [engine.seal.unseal(None) for engine in chance.sample(engines, 2)]
            chance.shuffle(acts)
            tasks = []
            for act in acts:
                tasks.append(asyncio.create_task(act))
                for _ in range(chance.randrange(40)):
                    await asyncio.sleep(0)
            ended = await asyncio.gather(*tasks, return_exceptions=True)
            assert [error for error in ended if error is not None and not isinstance(error, Aborted)] == []
            assert len(states(engines)) == 1, ended
