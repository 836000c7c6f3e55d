"""What supervisor and workers say to each other, and the port that is held for them."""

from __future__ import annotations

import asyncio
import socket

import pytest

from vaultd.workers.channel import Channel, ChannelClosed
from vaultd.workers.election import Election
from vaultd.workers.ports import HeldPort


async def pair(handle, on_end=lambda: None):
    """Two ends; the second one handles."""

    async def nothing(kind, body):
        del kind, body

    here, there = socket.socketpair()
    return await Channel.attach(here, nothing), await Channel.attach(there, handle, on_end)


async def test_a_request_is_answered_by_its_own_answer_and_a_notice_by_none():
    heard = []

    async def handle(kind, body):
        heard.append(kind)
        await asyncio.sleep(0 if body.get("n") else 0.01)
        return {"twice": body["n"] * 2} if "n" in body else None

    one, two = await pair(handle)
    one.tell("notice")
    answers = await asyncio.gather(*(one.ask("double", 5, n=n) for n in range(20)))
    assert [answer["twice"] for answer in answers] == [2 * n for n in range(20)]
    assert heard == ["notice", *["double"] * 20]
    assert await one.ask("nothing", 5) == {}
    one.close()
    two.close()


async def test_large_secrets_arrive_as_they_were_sent():
    async def handle(kind, body):
        del kind
        return {"keys": body["keys"]}

    one, two = await pair(handle)
    keys = {f"ref-{n}": bytes([n]) * 100_000 for n in range(20)}
    assert (await one.ask("keys", 10, keys=keys))["keys"] == keys
    one.close()
    two.close()


async def test_who_is_refused_too_late_or_alone_is_told_so():
    async def handle(kind, body):
        del body
        if kind == "refused":
            raise ChannelClosed("nobody writes it")
        await asyncio.sleep(60)

    ended = asyncio.Event()
    one, two = await pair(handle, ended.set)
    with pytest.raises(ChannelClosed, match="nobody writes it"):
        await one.ask("refused", 5)
    with pytest.raises(ChannelClosed, match="no answer to slow"):
        await one.ask("slow", 0.01)
    waiting = asyncio.create_task(one.ask("slow", 5))
    await asyncio.sleep(0)
    two.close()
    with pytest.raises(ChannelClosed, match="gone"):
        await waiting
    with pytest.raises(ChannelClosed, match="gone"):
        await one.ask("anything", 5)
    await ended.wait()
    one.tell("a notice that nobody hears")


def listen(port: int, *, shared: bool) -> socket.socket:
    sock = socket.socket()
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    if shared:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    try:
        sock.bind(("127.0.0.1", port))
        sock.listen()
    except OSError:
        sock.close()
        raise
    return sock


def test_a_held_port_is_chosen_once_and_only_who_shares_it_gets_in():
    held = HeldPort("127.0.0.1:0")
    assert held.address == f"127.0.0.1:{held.port}"
    with pytest.raises(OSError, match="cannot listen"):
        HeldPort(held.address)
    with pytest.raises(OSError, match="in use"):
        listen(held.port, shared=False)
    with listen(held.port, shared=True), socket.create_connection(("127.0.0.1", held.port), 5):
        pass
    held.close()


@pytest.mark.parametrize("shared", [False, True])
def test_a_port_that_somebody_listens_on_is_not_held(shared):
    with listen(0, shared=shared) as other, pytest.raises(OSError, match="cannot listen"):
        HeldPort(f"127.0.0.1:{other.getsockname()[1]}")


def test_one_candidate_leads_until_it_goes(tmp_path):
    one, two = (Election(tmp_path / "vault.db.scheduler") for _ in range(2))
    one.open()
    two.open()
    assert (one.look(), two.look()) == (True, False)
    assert (one.look(), one.leads, two.leads) == (False, True, False)
    one.close()
    assert (two.look(), two.leads, one.leads) == (True, True, False)
    assert (tmp_path / "vault.db.scheduler").stat().st_mode & 0o777 == 0o600
    two.close()
