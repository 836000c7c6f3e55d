"""What an Exchange makes of pyvoy's events: parts of messages are told while more is waited for."""

from __future__ import annotations

import asyncio

import pytest

from vaultd.errors import ResourceExhausted
from vaultd.hosts.envoy.app import Calls
from vaultd.hosts.envoy.exchange import Exchange
from vaultd.hosts.envoy.wire import frame
from vaultd.interceptors.unread_answers import UnreadAnswers


class Request:
    """The body of a request, in pieces; each is asked for and comes at once."""

    def __init__(self, *pieces: bytes) -> None:
        self.pieces = list(pieces)
        self.sent: list[dict[str, object]] = []

    def receive(self) -> asyncio.Future[dict[str, object]]:
        coming = asyncio.get_running_loop().create_future()
        if self.pieces:
            piece = self.pieces.pop(0)
            coming.set_result({"type": "http.request", "body": piece, "more_body": bool(self.pieces)})
        else:
            coming.set_result({"type": "http.disconnect"})
        return coming

    async def send(self, event: dict[str, object]) -> None:
        self.sent.append(event)


def exchange_of(request: Request) -> Exchange:
    task = asyncio.current_task()
    assert task is not None
    return Exchange(request.receive, request.send, task, asyncio.get_running_loop().time())


async def test_what_has_come_of_a_message_is_told_while_more_is_waited_for():
    first, second = frame(b"1" * 10), frame(b"2" * 20)
    exchange = exchange_of(Request(first, second[:3], second[3:7], second[7:]))
    told: list[int] = []
    assert await exchange.receive(told.append) == b"1" * 10
    assert told == []
    assert await exchange.receive(told.append) == b"2" * 20
    assert told == [3, 7]


async def test_a_request_that_is_one_message_is_over_behind_it():
    exchange = exchange_of(Request(frame(b"whole")))
    assert [await exchange.receive(), await exchange.receive(), await exchange.receive()] == [b"whole", None, None]


async def test_messages_that_come_one_by_one_and_in_parts_are_all_taken():
    exchange = exchange_of(
        Request(frame(b"1"), frame(b"2"), frame(b"3")[:2], frame(b"3")[2:] + frame(b"4"), frame(b"5"))
    )
    taken = []
    while (message := await exchange.receive()) is not None:
        taken.append(message)
    assert taken == [b"1", b"2", b"3", b"4", b"5"]


async def test_whoever_is_told_may_refuse_the_rest():
    def refuse(length: int) -> None:
        raise ResourceExhausted("STREAM_BYTES_EXCEEDED", "too much", retry_after_s=1)

    request = Request(frame(bytes(100))[:50], bytes(55))
    with pytest.raises(ResourceExhausted):
        await exchange_of(request).receive(refuse)
    assert len(request.pieces) == 1


async def test_a_call_that_is_late_is_ended_once_however_long_its_end_takes():
    calls, cancelled = Calls(), 0

    async def serve() -> None:
        nonlocal cancelled
        exchange = exchange_of(Request())
        exchange.deadline = exchange.since - 1
        calls.enter(exchange)
        for _ in range(2):
            try:
                await asyncio.Event().wait() if not cancelled else await asyncio.sleep(0)
            except asyncio.CancelledError:
                cancelled += 1
                calls._sweep()
        calls.leave(exchange)

    task = asyncio.create_task(serve())
    await asyncio.sleep(0)
    calls._sweep()
    await task
    assert cancelled == 1
    await calls.drain(0)


def test_the_bound_is_of_each_principal_and_an_even_part_of_the_whole():
    unread = UnreadAnswers(per_principal=100, total=150)
    give_back = unread.hold("a", 90)
    unread.require_room("a")
    unread.require_room("a", 9)
    for more in (10, 1_000):
        with pytest.raises(ResourceExhausted) as refused:
            unread.require_room("a", more)
        assert refused.value.reason == "ANSWERS_UNREAD"
    unread.require_room("b", 1_000)  # whoever holds nothing gets one answer
    others = [unread.hold("b", 60), unread.hold("c", 1)]
    with pytest.raises(ResourceExhausted):
        unread.require_room("a")
    with pytest.raises(ResourceExhausted):
        unread.require_room("b")
    unread.require_room("c", 10)
    for one in (give_back, *others):
        one()
    assert (unread.held, unread._of) == (0, {})
