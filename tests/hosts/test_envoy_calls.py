"""Calls to a server inside Envoy: who calls, and what becomes of messages, deadlines and callers that go away."""

import asyncio
import gzip

import grpc
import pytest

from harness import APP, reason_of
from network.http2 import (
    DATA,
    END_HEADERS,
    END_STREAM,
    HEADERS,
    Connection,
    client_context,
    frame,
    literal,
    message,
    read_block,
)
from network.process import ENCRYPT, NAME, PATIENCE_S, SEAL_IT, eventually
from vaultd.devpki import issue_client_certificate
from vaultd_client.v1 import crypto_pb2, watch_pb2

ADMIN = "spiffe://dev.vaultd/admin"
MIB = 1024 * 1024
BODY = message(SEAL_IT.SerializeToString())


async def code_of(call) -> grpc.StatusCode:
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await call
    return refused.value.code()


async def trailing_of(call) -> dict[str, str | bytes]:
    return {name: value for name, value in await call.trailing_metadata()}


async def test_what_is_encrypted_is_decrypted_and_recorded_with_caller_and_address(server):
    call = server.app.crypto.Encrypt(SEAL_IT)
    sealed = await call
    opened = await server.app.crypto.Decrypt(crypto_pb2.DecryptRequest(name=NAME, ciphertext=sealed.ciphertext))
    assert opened.plaintext == SEAL_IT.plaintext
    trailing = await trailing_of(call)
    record = next(r for r in server.audit_records() if r.get("id") == trailing["vaultd-request-id"])
    assert (record["principal"], record["code"]) == (APP, "OK")
    assert record["peer"].startswith("ipv4:127.0.0.1:")
    assert trailing["vaultd-receipt-bin"]


@pytest.mark.parametrize(
    "name",
    [
        "x-forwarded-client-cert",
        "x-forwarded-for",
        "forwarded",
        "x-envoy-external-address",
        "x-envoy-upstream-rq-timeout-ms",
        "x-envoy-force-trace",
    ],
)
async def test_a_header_that_a_proxy_would_set_changes_nothing(server, name):
    certificate = (server.tls / "admin.crt").read_text().replace("\n", "%0A")
    forged = {
        "x-forwarded-client-cert": f'By=spiffe://x;Cert="{certificate}";Chain="{certificate}";URI={ADMIN}',
        "x-envoy-upstream-rq-timeout-ms": "1",
    }.get(name, "for=10.0.0.9")
    call = server.app.crypto.Encrypt(SEAL_IT, metadata=((name, forged),))
    await call
    request_id = (await trailing_of(call))["vaultd-request-id"]
    record = next(r for r in server.audit_records() if r.get("id") == request_id)
    assert record["principal"] == APP
    assert record["peer"].startswith("ipv4:127.0.0.1:")


async def test_a_certificate_whose_name_looks_like_two_elements_is_nobody(server):
    issue_client_certificate(server.tls, server.tls / "forger", uri=f"spiffe://dev.vaultd/x;URI={ADMIN}")
    forger = server.client("forger")
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await forger.crypto.Encrypt(SEAL_IT)
    assert refused.value.code() is grpc.StatusCode.UNAUTHENTICATED
    assert reason_of(refused.value) == "NO_ACCEPTED_IDENTITY"


async def test_a_message_of_4_mib_is_read_and_one_byte_more_is_refused(server):
    encrypt = server.app.raw(ENCRYPT)
    fits = crypto_pb2.EncryptRequest(name=NAME, plaintext=bytes(4 * MIB - 64)).SerializeToString()
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await encrypt(fits)
    assert refused.value.code() is grpc.StatusCode.INVALID_ARGUMENT  # read, and larger than Encrypt takes
    assert await code_of(encrypt(bytes(4 * MIB + 1))) is grpc.StatusCode.RESOURCE_EXHAUSTED


async def test_a_compressed_message_is_refused(server):
    def call() -> int | None:
        packed = gzip.compress(SEAL_IT.SerializeToString())
        with Connection(server.port, client_context(server.tls, "app")) as connection:
            connection.start()
            connection.open(1, ENCRYPT, (b"grpc-encoding", b"gzip"))
            body = b"\x01" + len(packed).to_bytes(4, "big") + packed
            connection.send(frame(DATA, END_STREAM, 1, body))
            return connection.outcome(1).status

    assert await asyncio.to_thread(call) == grpc.StatusCode.UNIMPLEMENTED.value[0]


async def test_a_call_that_ends_within_a_message_is_refused_and_recorded(server):
    def call() -> tuple[int, int | None]:
        with Connection(server.port, client_context(server.tls, "app")) as connection:
            connection.start()
            connection.open(1, ENCRYPT)
            connection.send(frame(DATA, END_STREAM, 1, BODY[:-1]))
            return connection.port, connection.outcome(1).status

    port, status = await asyncio.to_thread(call)
    assert status == grpc.StatusCode.INVALID_ARGUMENT.value[0]
    assert [record["reason"] for record in server.records_of(port)] == ["MESSAGE_TRUNCATED"]


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({b":method": b"GET"}, {b":status": b"405"}),
        ({b"content-type": b"application/json"}, {b":status": b"415"}),
        ({b"te": b""}, {b":status": b"200", b"grpc-status": b"3"}),
    ],
    ids=["GET", "JSON", "no trailers"],
)
async def test_what_is_not_grpc_is_refused(server, fields, expected):
    sent = {
        b":method": b"POST",
        b":scheme": b"https",
        b":path": ENCRYPT.encode(),
        b":authority": b"localhost",
        b"te": b"trailers",
        b"content-type": b"application/grpc",
        **fields,
    }

    def call() -> dict[bytes, bytes]:
        with Connection(server.port, client_context(server.tls, "app")) as connection:
            connection.start()
            block = b"".join(literal(name, value) for name, value in sent.items() if value)
            connection.send(frame(HEADERS, END_HEADERS, 1, block) + frame(DATA, END_STREAM, 1, BODY))
            return read_block(next(got for got in connection.frames(PATIENCE_S) if got.kind == HEADERS).payload)

    answer = await asyncio.to_thread(call)
    assert {name: answer.get(name) for name in expected} == expected


async def test_a_path_that_is_not_utf_8_is_refused(server):
    def call(path: bytes) -> dict[bytes, bytes]:
        with Connection(server.port, client_context(server.tls, "app")) as connection:
            connection.start()
            connection.open(1, path)
            connection.send(frame(DATA, END_STREAM, 1, BODY))
            return read_block(next(got for got in connection.frames(PATIENCE_S) if got.kind == HEADERS).payload)

    for end in (b"Encr\xffypt", b"Encr%ffypt", b"Encrypt#part"):
        answer = await asyncio.to_thread(call, b"/vaultd.v1.CryptoService/" + end)
        assert int(answer[b"grpc-status"]) == grpc.StatusCode.UNIMPLEMENTED.value[0]
        assert answer[b"grpc-message"].startswith(b"this server has no such method")
    assert "Traceback" not in server.process.stderr()


async def test_many_headers_are_refused_with_a_status(server):
    def call(count: int) -> int | None:
        with Connection(server.port, client_context(server.tls, "app")) as connection:
            connection.start()
            headers = [(b"a%d" % number, b"b") for number in range(count)]
            return connection.call(1, ENCRYPT, SEAL_IT.SerializeToString(), *headers).status

    assert await asyncio.to_thread(call, 150) == 0
    assert await asyncio.to_thread(call, 600) == grpc.StatusCode.RESOURCE_EXHAUSTED.value[0]


async def test_a_bidirectional_stream_answers_before_the_caller_is_done(server):
    stream = server.app.crypto.CryptoStream()
    for id in range(1, 4):
        request = crypto_pb2.CryptoStreamRequest(
            operations=[crypto_pb2.CryptoOperation(id=id, encrypt=crypto_pb2.EncryptRequest(name=NAME, plaintext=b"x"))]
        )
        await stream.write(request)
        answer = await asyncio.wait_for(stream.read(), PATIENCE_S)
        assert [result.id for result in answer.results] == [id]
    await stream.done_writing()
    assert await stream.code() is grpc.StatusCode.OK


def ends_of(server, method: str) -> list[str]:
    return [
        record["code"]
        for record in server.audit_records()
        if record.get("method", "").endswith(method) and "messages_out" in record and "code" in record
    ]


async def test_a_watcher_that_goes_away_is_noticed(server):
    before = len(ends_of(server, "/Watch"))
    watch = server.admin.admin.Watch(watch_pb2.WatchRequest())
    await watch.read()
    watch.cancel()
    assert await eventually(lambda: ends_of(server, "/Watch")[before:] == ["CANCELLED"])


async def test_a_deadline_ends_a_stream(server):
    before = len(ends_of(server, "/Watch"))
    watch = server.admin.admin.Watch(watch_pb2.WatchRequest(), timeout=2)
    assert await watch.code() is grpc.StatusCode.DEADLINE_EXCEEDED
    assert await eventually(lambda: len(ends_of(server, "/Watch")) > before)
    assert ends_of(server, "/Watch")[-1] in {"DEADLINE_EXCEEDED", "CANCELLED"}


async def test_a_caller_that_sends_nothing_loses_its_place(server):
    def call() -> int | None:
        with Connection(server.port, client_context(server.tls, "app")) as connection:
            connection.start()
            connection.open(1, ENCRYPT)
            return connection.outcome(1).status

    assert await asyncio.to_thread(call) == grpc.StatusCode.DEADLINE_EXCEEDED.value[0]
