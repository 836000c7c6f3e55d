"""Turns to try the PIN of a token: who gave up gets none, and nobody tries a PIN without one."""

from __future__ import annotations

import asyncio
import socket
from contextlib import asynccontextmanager

import pytest

from network.process import eventually
from vaultd.errors import Unavailable
from vaultd.workers import siblings as siblings_module
from vaultd.workers.channel import Channel
from vaultd.workers.siblings import Siblings
from vaultd.workers.supervisor import Supervisor, Worker


class Rig:
    """A supervisor, and the ends of the control sockets of three workers that have no processes."""

    def __init__(self) -> None:
        self.supervisor = Supervisor([], 3, "", "", 0, lambda address, keys: None, counts_fd=-1)
        self.siblings: list[Siblings] = []

    async def join(self, index):
        here, there = socket.socketpair()
        worker = self.supervisor._workers[index] = Worker(index, None)

        async def ask_supervisor(kind, body):
            return await self.supervisor._handle(worker, kind, body)

        async def ask_worker(kind, body):
            pass

        worker.channel = await Channel.attach(here, ask_supervisor)
        hello = {"count": 3, "sealed": False, "seals": 0}
        self.siblings.append(Siblings(await Channel.attach(there, ask_worker), hello))

    @property
    def turns(self):
        return self.supervisor._logins["main"]

    def crash(self, index):
        self.supervisor._release_logins(self.supervisor._workers.pop(index))


@asynccontextmanager
async def rig():
    made = Rig()
    for index in range(3):
        await made.join(index)
    yield made
    for sibling in made.siblings:
        sibling._channel.close()
    for worker in made.supervisor._workers.values():
        worker.channel.close()


async def refused_of(sibling):
    """What a worker is told in its turn."""
    async with asyncio.timeout(60):
        async with sibling.login("main") as turn:
            return turn.refused


async def test_who_gave_up_gets_no_turn_and_makes_no_attempt(monkeypatch):
    async with rig() as made:
        first, second, third = made.siblings
        async with first.login("main") as turn:
            monkeypatch.setattr(siblings_module, "LOGIN_S", 0.05)
            with pytest.raises(Unavailable):
                async with second.login("main"):
                    raise AssertionError("it has no turn")
            monkeypatch.undo()
            turn.refused = b"digest"
        assert await refused_of(third) == b"digest"
        assert await refused_of(second) == b"digest"
        assert await refused_of(first) == b"digest"


async def test_a_turn_that_came_when_nobody_waited_any_more_is_given_back_and_forgets_no_refusal(monkeypatch):
    async with rig() as made:
        first, second, third = made.siblings
        async with first.login("main") as turn:
            turn.refused = b"digest"
        assert await refused_of(third) == b"digest"  # and so the supervisor has heard of it
        await made.turns.take(made.supervisor._workers[1])  # the answer is under way when the worker gives up
        second._channel.tell("no_login", slot="main")
        assert await refused_of(third) == b"digest"


async def test_turns_come_in_order_and_skip_who_ended():
    async with rig() as made:
        first, second, third = made.siblings
        order = []

        async def log_in(sibling, name):
            async with sibling.login("main"):
                order.append(name)

        async with first.login("main"):
            waiting = [asyncio.create_task(log_in(second, "second"))]
            assert await eventually(lambda: len(made.turns.waiting) == 1)
            waiting.append(asyncio.create_task(log_in(third, "third")))
            assert await eventually(lambda: len(made.turns.waiting) == 2)
            made.crash(1)
        ended = await asyncio.gather(*waiting, return_exceptions=True)
        assert order == ["third"]
        assert isinstance(ended[0], Unavailable)


async def test_the_turn_of_who_crashed_goes_to_the_next():
    async with rig() as made:
        first, second, _ = made.siblings
        holding = first.login("main")
        await holding.__aenter__()
        waiting = asyncio.create_task(refused_of(second))
        assert await eventually(lambda: len(made.turns.waiting) == 1)
        made.crash(0)
        assert await waiting == b""
        await holding.__aexit__(None, None, None)
