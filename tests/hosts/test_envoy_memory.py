"""What callers of a server inside Envoy make it hold: parts of messages, and answers that they do not take."""

import asyncio
import threading
from contextlib import ExitStack

import grpc
import pytest

from network.http2 import (
    DATA,
    END_STREAM,
    HEADERS,
    PING,
    RST_STREAM,
    WINDOW_UPDATE,
    Connection,
    client_context,
    frame,
    message,
    read_block,
)
from network.process import ENCRYPT, LIMITS, NAME, PATIENCE_S, SEAL_IT, Process, Remote
from vaultd_client.v1 import crypto_pb2, keys_pb2

MIB = 1024 * 1024
STREAM = "/vaultd.v1.CryptoService/CryptoStream"
BEGUN = b"\0" + (4 * MIB - 16).to_bytes(4, "big")
EXHAUSTED, LATE = (code.value[0] for code in (grpc.StatusCode.RESOURCE_EXHAUSTED, grpc.StatusCode.DEADLINE_EXCEEDED))
ONE = crypto_pb2.CryptoStreamRequest(
    operations=[crypto_pb2.CryptoOperation(id=1, encrypt=crypto_pb2.EncryptRequest(name=NAME, plaintext=b"x"))]
)


async def test_a_message_that_has_begun_must_become_whole(server):
    def call() -> int | None:
        with Connection(server.port, client_context(server.tls, "app")) as connection:
            connection.start()
            connection.open(1, STREAM)
            connection.send(frame(DATA, 0, 1, message(ONE.SerializeToString())))
            assert any(got.kind == DATA for got in connection.frames(PATIENCE_S))
            connection.send(frame(DATA, 0, 1, BEGUN + bytes(1000)))
            return connection.outcome(1).status

    assert await asyncio.to_thread(call) == LATE


async def test_a_stream_may_be_silent_between_messages(server):
    stream = server.app.crypto.CryptoStream()
    await stream.write(ONE)
    await asyncio.wait_for(stream.read(), PATIENCE_S)
    answer = asyncio.create_task(stream.read())
    done, _ = await asyncio.wait({answer}, timeout=LIMITS["receive_timeout_s"] + 0.5)
    assert not done
    await stream.write(ONE)
    assert [result.id for result in (await asyncio.wait_for(answer, PATIENCE_S)).results] == [1]
    stream.cancel()


@pytest.fixture
def narrow(tmp_path):
    limits = {**LIMITS, "receive_timeout_s": 60.0, "stream_mib": 8, "stream_mib_per_principal": 8}
    running = Process(tmp_path / "narrow", host="envoy", limits=limits)
    yield running
    running.kill()


async def test_parts_of_messages_count_as_messages_do(narrow):
    each, streams = 1_000_000, 7  # no more than what may come on a connection at once

    def begin(connection: Connection) -> None:
        connection.start()
        assert any(got.kind == WINDOW_UPDATE for got in connection.frames(PATIENCE_S))
        for number in range(streams):
            connection.open(2 * number + 1, STREAM)
        connection.send(frame(PING, 0, 0, b"all read"))
        assert any(got.kind == PING for got in connection.frames(PATIENCE_S))

    def send(connection: Connection) -> None:
        for number in range(streams):
            body = BEGUN + bytes(each)
            for at in range(0, len(body), 16_384):
                connection.send(frame(DATA, 0, 2 * number + 1, body[at : at + 16_384]))

    least, refused, enough = 4 * streams - 2 * 8 * MIB // each, [], threading.Event()

    def count_refused(connection: Connection) -> None:
        """Until so many were refused that the others fit in."""
        while not enough.is_set():
            for got in connection.frames(0.1):
                if got.kind == HEADERS and int(read_block(got.payload).get(b"grpc-status", b"0")) == EXHAUSTED:
                    refused.append(got.stream)
            if len(refused) >= least:
                enough.set()

    with ExitStack() as stack:
        context = client_context(narrow.directory / "tls", "app")
        connections = [stack.enter_context(Connection(narrow.port, context)) for _ in range(4)]
        for step in (begin, send):
            for connection in connections:
                await asyncio.to_thread(step, connection)
        await asyncio.gather(*(asyncio.to_thread(count_refused, one) for one in connections))
        assert least <= len(refused) < 4 * streams
        remote = Remote(narrow)
        await remote.admin.keys.ListKeys(keys_pb2.ListKeysRequest(parent="vaults/default"))
        await remote.close()


async def test_an_answer_of_which_nothing_is_taken_is_dropped(server):
    def call() -> int | None:
        with Connection(server.port, client_context(server.tls, "app")) as connection:
            connection.start(window=0)
            connection.open(1, ENCRYPT)
            connection.send(frame(DATA, END_STREAM, 1, message(SEAL_IT.SerializeToString())))
            return next((got.stream for got in connection.frames(PATIENCE_S) if got.kind == RST_STREAM), None)

    assert await asyncio.to_thread(call) == 1
