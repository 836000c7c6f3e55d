"""Who does what is done once for all workers: one that has the keys for it."""

from __future__ import annotations

import asyncio
import socket
from contextlib import asynccontextmanager

from engine.engines import POLICY
from harness import make_settings
from vaultd.engine.seal import SealState
from vaultd.wiring import Server
from vaultd.workers.channel import Channel
from vaultd.workers.siblings import Siblings


@asynccontextmanager
async def worker(directory, index):
    """A worker without a host; whatever it asks of its supervisor, nobody else is there."""
    here, there = socket.socketpair()

    async def answer(kind, body):
        return {}

    supervisor = await Channel.attach(here, answer)
    siblings = Siblings(await Channel.attach(there, answer), {"count": 2, "sealed": False, "seals": 0})
    settings = make_settings(directory, audit={"directory": directory / f"audit/worker-{index}"})
    async with Server(settings, siblings=siblings).offline() as server:
        server._election.open()
        try:
            yield server
        finally:
            server._election.close()
            supervisor.close()


async def test_a_worker_that_is_sealed_lets_another_one_lead(tmp_path):
    async with worker(tmp_path, 0) as zero, worker(tmp_path, 1) as one:
        await zero.engine.seal.init(POLICY, None)
        await one.engine.seal.unseal(None)
        for server in (zero, one):
            await server.follow()
        assert (zero._election.leads, one._election.leads) == (True, False)
        await zero.engine.seal.seal_here()
        for server in (zero, one):
            await server.follow()
        assert (zero._election.leads, one._election.leads) == (False, True)
        await zero.engine.seal.unseal(None)
        await one.engine.seal.seal_here()
        await zero.follow()
        assert zero._election.leads


async def test_a_worker_that_starts_sealed_does_not_lead(tmp_path):
    async with worker(tmp_path, 0) as zero, worker(tmp_path, 1) as one:
        await one.engine.seal.init(POLICY, None)
        assert zero.engine.seal.state is not SealState.UNSEALED
        await asyncio.gather(zero.follow(), one.follow())
        assert (zero._election.leads, one._election.leads) == (False, True)
