"""What one client does to the connection must not be felt by another, nor stay in memory."""

import asyncio
import contextlib
import json
import socket
import ssl
import time

import grpc
import pytest

from network.http2 import (
    CANCEL,
    CONTINUATION,
    DATA,
    END_HEADERS,
    END_STREAM,
    ENHANCE_YOUR_CALM,
    GOAWAY,
    HEADERS,
    PING,
    RST_STREAM,
    SETTINGS,
    Connection,
    client_context,
    frame,
    literal,
    message,
    request_block,
)
from network.process import (
    ENCRYPT,
    LIMITS,
    NAME,
    PATIENCE_S,
    POLL_S,
    SEAL_IT,
    Process,
    Remote,
    create_key,
    eventually,
    honest_client,
    principal_of,
)
from vaultd_client.v1 import crypto_pb2, keys_pb2

BODY = message(SEAL_IT.SerializeToString())
RESETS = 5_000
PER_PRINCIPAL = 256
HANDSHAKE_S = 5
SILENT = 300


@pytest.fixture
def connect(server):
    """Opens connections of the attacker; they close with the test."""
    with contextlib.ExitStack() as stack:

        def open_one(stem: str = "attacker", to: Remote = server) -> Connection:
            connection = stack.enter_context(Connection(to.port, client_context(to.tls, stem)))
            connection.start()
            return connection

        yield open_one


@pytest.fixture(scope="module")
def process_that_waits(tmp_path_factory):
    """A server that does not give calls up which send nothing: what they hold they hold for the whole of a test."""
    limits = {**LIMITS, "receive_timeout_s": 300}
    running = Process(tmp_path_factory.mktemp("waiting") / "served", limits=limits)
    yield running
    running.kill()


@pytest.fixture
async def patient(process_that_waits):
    """Its clients; it has the key `k`."""
    remote = Remote(process_that_waits)
    with contextlib.suppress(grpc.aio.AioRpcError):  # an earlier test made it
        await create_key(remote.admin, "k")
    yield remote
    await remote.close()


def rapid_reset(connection: Connection) -> None:
    block, cancel = request_block(ENCRYPT), CANCEL.to_bytes(4, "big")
    calls = (
        frame(HEADERS, END_HEADERS, stream, block)
        + frame(DATA, END_STREAM, stream, BODY)
        + frame(RST_STREAM, 0, stream, cancel)
        for stream in range(1, 2 * RESETS, 2)
    )
    connection.send_until_refused(b"".join(calls))
    echo = b"all read"
    connection.send_until_refused(frame(PING, 0, 0, echo))
    for got in connection.frames(PATIENCE_S):
        if got.kind == GOAWAY or (got.kind == PING and got.payload == echo):
            return


# -- rapid reset ----------------------------------------------------------------------------------------------------------


async def test_rapid_reset_costs_an_honest_client_nothing_and_the_server_no_memory(server, connect):
    attacker = connect()
    async with honest_client(server, at_least=100) as honest:
        await asyncio.to_thread(rapid_reset, attacker)
    figures = {"answers": honest.answers, "growth_mib": honest.growth_mib, "slowest_s": honest.slowest_s}
    print(json.dumps({"rapid_reset": figures}))
    assert honest.failures == []
    assert honest.growth_mib < 40


async def test_250_calls_at_once_on_one_channel_all_succeed(server):
    for _ in range(3):
        answers = await asyncio.gather(*(server.app.crypto.Encrypt(SEAL_IT) for _ in range(250)))
        assert len({answer.ciphertext for answer in answers}) == 250


async def test_250_calls_at_once_all_succeed_during_rapid_reset(server, connect):
    await server.app.crypto.Encrypt(SEAL_IT)
    attack = asyncio.create_task(asyncio.to_thread(rapid_reset, connect()))
    while not attack.done():
        await asyncio.gather(*(server.app.crypto.Encrypt(SEAL_IT) for _ in range(250)))
    await attack
    assert server.process.popen.poll() is None


# -- calls and connections that say nothing -------------------------------------------------------------------------------


@pytest.fixture
def holder(holders):
    """A caller that holds all its places for the first time."""
    return next(holders)


def hold_places(connect, holder: str, server: Remote, connections: int = 4) -> list[Connection]:
    """Open as many calls as one caller may have, and send nothing of them.  Returns once the server has read all."""
    each = PER_PRINCIPAL // connections
    held = [connect(holder, server) for _ in range(connections)]
    for connection in held:
        for number in range(each):
            connection.open(2 * number + 1, ENCRYPT)
        connection.send(frame(PING, 0, 0, b"all read"))
        assert any(got.kind == PING and got.payload == b"all read" for got in connection.frames(PATIENCE_S))
    return held


async def code_of_a_call(client) -> grpc.StatusCode:
    try:
        await client.crypto.Encrypt(SEAL_IT)
    except grpc.aio.AioRpcError as error:
        return error.code()
    return grpc.StatusCode.OK


async def becomes(client, code: grpc.StatusCode) -> bool:
    """Whether calls come to end so.  Only the server knows when it takes and gives places: it is asked again."""
    until = time.monotonic() + PATIENCE_S
    while await code_of_a_call(client) is not code:
        if time.monotonic() > until:
            return False
        await asyncio.sleep(POLL_S)
    return True


async def test_calls_without_a_body_hold_up_nobody_but_use_up_the_places_of_their_own_caller(patient, connect, holder):
    async with honest_client(patient, at_least=50) as honest:
        await asyncio.to_thread(hold_places, connect, holder, patient)
        assert await becomes(patient.client(holder), grpc.StatusCode.RESOURCE_EXHAUSTED)
        before = honest.answers
        assert await eventually(lambda: honest.answers >= before + 50)
        assert await code_of_a_call(patient.client(holder)) is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert honest.failures == []


async def test_every_call_without_a_body_is_recorded_and_gives_its_place_back_after_the_receive_timeout(
    server, connect, holder
):
    begun = time.monotonic()
    held = await asyncio.to_thread(hold_places, connect, holder, server)

    def recorded() -> bool:
        records = [record for connection in held for record in server.records_of(connection.port)]
        return [(r["principal"], r["code"]) for r in records] == [
            (principal_of(holder), "DEADLINE_EXCEEDED")
        ] * PER_PRINCIPAL

    assert await eventually(recorded)
    assert time.monotonic() - begun >= LIMITS["receive_timeout_s"]
    assert await becomes(server.client(holder), grpc.StatusCode.OK)


@pytest.fixture
async def silent(server):
    """Connections that never speak, most of them silent before TLS and some after it, and since when each is there."""
    context = client_context(server.tls, "attacker")
    with contextlib.ExitStack() as stack:
        opened: dict[socket.socket, float] = {}
        for number in range(SILENT + 20):
            begun = time.monotonic()
            if number < SILENT:
                one = stack.enter_context(contextlib.closing(socket.create_connection(("127.0.0.1", server.port))))
            else:
                one = stack.enter_context(Connection(server.port, context)).socket
            opened[one] = begun
        yield opened


def gone(connection: socket.socket) -> bool:
    """Whether the server closed it."""
    connection.setblocking(False)
    try:
        while connection.recv(4096):
            pass
    except (BlockingIOError, ssl.SSLWantReadError):
        return False
    except OSError:
        return True
    return True


async def test_silent_connections_are_dropped_after_the_handshake_timeout_while_others_are_served(server, silent):
    there, lasted_s = dict(silent), []

    def all_gone() -> bool:
        for connection in [one for one in there if gone(one)]:
            lasted_s.append(time.monotonic() - there.pop(connection))
        return not there

    async with honest_client(server) as honest:
        assert await eventually(all_gone)
    assert min(lasted_s) > HANDSHAKE_S - 0.5
    assert honest.failures == []


# -- sizes ----------------------------------------------------------------------------------------------------------------


async def test_a_message_over_4_mib_is_refused(server):
    big = crypto_pb2.EncryptRequest(name=NAME, plaintext=bytes(4 * 1024 * 1024 + 1)).SerializeToString()
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await server.app.raw(ENCRYPT)(big)
    assert refused.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED


async def test_metadata_over_the_limit_is_refused(server):
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await server.app.crypto.Encrypt(SEAL_IT, metadata=(("x-note", "y" * 17_000),))
    assert refused.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED


async def test_a_compressed_message_never_reaches_a_service(server):
    key = keys_pb2.CreateKeyRequest(parent="vaults/default", key_id="compressed-key" * 4)
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await server.admin.keys.CreateKey(key, compression=grpc.Compression.Gzip)
    assert refused.value.code() in {grpc.StatusCode.UNIMPLEMENTED, grpc.StatusCode.INTERNAL}
    await create_key(server.admin, key.key_id)  # it was not created, and the server lives


# -- frames ---------------------------------------------------------------------------------------------------------------


async def test_a_flood_of_pings_ends_its_connection(connect):
    attacker = connect()
    attacker.send_until_refused(b"".join(frame(PING, 0, 0, number.to_bytes(8, "big")) for number in range(200)))
    goaway = next(got for got in attacker.frames(PATIENCE_S) if got.kind == GOAWAY)
    assert int.from_bytes(goaway.payload[4:8], "big") == ENHANCE_YOUR_CALM


async def test_a_flood_of_settings_neither_ends_the_server_nor_fills_it(server, connect):
    attacker = connect()
    async with honest_client(server) as honest:
        await asyncio.to_thread(attacker.send_until_refused, frame(SETTINGS, 0, 0) * 20_000)
    assert honest.failures == []
    assert honest.growth_mib < 40


async def test_a_message_in_frames_of_one_byte_is_answered_in_bounded_memory(server, connect):
    body = message(crypto_pb2.EncryptRequest(name=NAME, plaintext=bytes(40_000)).SerializeToString())
    last = len(body) - 1
    attacker = connect()
    attacker.open(1, ENCRYPT)
    frames = (frame(DATA, END_STREAM if at == last else 0, 1, body[at : at + 1]) for at in range(len(body)))
    async with honest_client(server) as honest:
        await asyncio.to_thread(attacker.send_until_refused, b"".join(frames))
        outcome = await asyncio.to_thread(attacker.outcome, 1)
    assert outcome.status == 0
    assert honest.failures == []
    assert honest.growth_mib < 40


@pytest.mark.parametrize("piece", [b"", literal(b"x-note", b"y" * 1000)], ids=["empty", "full"])
async def test_continuation_without_end_is_cut_off_in_bounded_memory(server, connect, piece):
    flood = frame(HEADERS, 0, 1, request_block(ENCRYPT)) + frame(CONTINUATION, 0, 1, piece) * 4_000
    attacker = connect()
    async with honest_client(server) as honest:
        await asyncio.to_thread(attacker.send_until_refused, flood)
        outcome = await asyncio.to_thread(attacker.outcome, 1)
    assert outcome.status != 0
    assert honest.failures == []
    assert honest.growth_mib < 40
