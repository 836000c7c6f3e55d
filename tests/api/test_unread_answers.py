"""Answers that their callers do not read: what they hold is bounded, for each caller, and given back."""

from __future__ import annotations

import asyncio
from contextlib import ExitStack

import grpc
import pytest
import pytest_asyncio
from test_crypto_stream import until
from wire import CRYPTO, GENEROUS, World

from harness import reason_of, running_server
from network.http2 import (
    DATA,
    END_STREAM,
    HEADERS,
    WINDOW_UPDATE,
    Connection,
    client_context,
    frame,
    message,
    read_block,
)
from vaultd_client.v1 import crypto_pb2 as pb

BOUND = 8 * 1024 * 1024
EACH = 65_536
ASKED = 100
LARGE = pb.GenerateRandomBytesRequest(parent="vaults/default", length_bytes=EACH)
REFUSED = grpc.StatusCode.RESOURCE_EXHAUSTED.value[0]


@pytest_asyncio.fixture
async def server(tmp_path):
    limits = {**GENEROUS["limits"], "stream_mib": 16, "stream_mib_per_principal": BOUND // 2**20}
    async with running_server(tmp_path, limits=limits) as running:
        await World(running).furnish("default")
        yield running


def ask_and_read_nothing(connection: Connection) -> int:
    """Calls whose answers have no window, until each was answered or refused; returns how many were refused."""
    connection.start(window=0)
    body = message(LARGE.SerializeToString())
    for number in range(ASKED):
        connection.open(2 * number + 1, f"{CRYPTO}GenerateRandomBytes")
        connection.send(frame(DATA, END_STREAM, 2 * number + 1, body))
    answered = refused = 0
    for got in connection.frames(20):
        if got.kind == HEADERS:
            answered += 1
            refused += int(read_block(got.payload).get(b"grpc-status", b"0")) == REFUSED
            if answered == ASKED:
                break
    assert answered == ASKED
    return refused


def take(connection: Connection) -> int:
    """Let one answer come; returns its length."""
    room = (1 << 20).to_bytes(4, "big")
    connection.send(frame(WINDOW_UPDATE, 0, 0, room) + frame(WINDOW_UPDATE, 0, 1, room))
    return len(connection.outcome(1).body)


async def test_a_caller_that_reads_no_answers_is_refused_at_its_bound_and_others_are_not(server):
    unread = server.server.chain.unread
    with ExitStack() as stack:
        context = client_context(server.directory / "tls", "app")
        connections = [stack.enter_context(Connection(server.server.port, context)) for _ in range(3)]
        refused = await asyncio.gather(*(asyncio.to_thread(ask_and_read_nothing, one) for one in connections))
        assert sum(refused) > ASKED
        assert BOUND - 2 * EACH <= unread.held <= BOUND
        with pytest.raises(grpc.aio.AioRpcError) as over:
            await server.app.crypto.GenerateRandomBytes(LARGE)
        assert reason_of(over.value) == "ANSWERS_UNREAD"
        assert len((await server.admin.crypto.GenerateRandomBytes(LARGE)).data) == EACH
    await until(lambda: unread.held == 0)
    assert len((await server.app.crypto.GenerateRandomBytes(LARGE)).data) == EACH


async def test_what_is_read_late_makes_room(server):
    unread = server.server.chain.unread
    with Connection(server.server.port, client_context(server.directory / "tls", "app")) as connection:
        assert await asyncio.to_thread(ask_and_read_nothing, connection) == 0
        before = unread.held
        assert before >= ASKED * EACH
        assert await asyncio.to_thread(take, connection) > EACH
        await until(lambda: unread.held < before)
        assert unread.held >= (ASKED - 1) * EACH
    await until(lambda: unread.held == 0)
