"""SIGTERM while clients are at work."""

import asyncio
import signal
from contextlib import asynccontextmanager, contextmanager

import grpc
import pytest
from grpc_health.v1 import health_pb2

from network.http2 import (
    DATA,
    END_STREAM,
    GOAWAY,
    HEADERS,
    PING,
    Connection,
    client_context,
    frame,
    message,
    read_block,
)
from network.process import ENCRYPT, LIMITS, PATIENCE_S, SEAL_IT, Process, Remote, create_key, eventually
from vaultd_client.v1 import keys_pb2

SERVING, NOT_SERVING = health_pb2.HealthCheckResponse.SERVING, health_pb2.HealthCheckResponse.NOT_SERVING
WORKERS = 20
LONG_S = 2 * PATIENCE_S
"""Longer than is waited for anything here: who ends sooner did not wait for it."""


@asynccontextmanager
async def started(directory, **overrides):
    process = await asyncio.to_thread(Process, directory, **overrides)
    server = Remote(process)
    try:
        yield server
    finally:
        await server.close()
        await asyncio.to_thread(process.kill)


@pytest.fixture
async def server(tmp_path):
    """A server for one test, which ends it."""
    limits = {**LIMITS, "receive_timeout_s": LONG_S}
    async with started(tmp_path / "served", limits=limits, drain_grace_s=LONG_S) as remote:
        await create_key(remote.admin, "k")
        yield remote


def health_watch(server: Remote) -> grpc.aio.UnaryStreamCall:
    watch = server.app.channel.unary_stream(
        "/grpc.health.v1.Health/Watch", response_deserializer=health_pb2.HealthCheckResponse.FromString
    )
    return watch(health_pb2.HealthCheckRequest().SerializeToString())


def ended(server: Remote) -> bool:
    return server.process.popen.poll() is not None


class Load:
    """Clients that make keys and encrypt until the server is gone."""

    def __init__(self, server: Remote) -> None:
        self._server = server
        self.created: set[str] = set()
        self.sealed = 0
        self.codes: set[grpc.StatusCode] = set()

    async def work(self, worker: int) -> None:
        number = 0
        while not ended(self._server):
            number += 1
            key_id = f"w{worker}-{number}"
            try:
                await create_key(self._server.admin, key_id)
                self.created.add(key_id)
                await self._server.app.crypto.Encrypt(SEAL_IT)
                self.sealed += 1
            except grpc.aio.AioRpcError as error:
                self.codes.add(error.code())
                await asyncio.sleep(0.01)  # a client that was refused waits before it tries again


async def loaded(server: Remote) -> Load:
    """SIGTERM in the midst of work; returns when all is over."""
    load = Load(server)
    workers = [asyncio.create_task(load.work(worker)) for worker in range(WORKERS)]
    assert await eventually(lambda: len(load.created) > 100)
    server.process.popen.send_signal(signal.SIGTERM)
    assert await eventually(lambda: ended(server))
    await asyncio.gather(*workers)
    return load


async def test_sigterm_under_load_ends_with_exit_code_0_and_calls_only_fail_as_not_begun(server):
    load = await loaded(server)
    assert server.process.popen.returncode == 0
    # gRPC's core ends what it had read but not handed to us as CANCELLED; the next test proves that none of it was done.
    assert load.codes <= {grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED}


async def test_sigterm_under_load_drops_no_answer_of_what_was_done(server):
    load = await loaded(server)
    records = server.audit_records()
    done = {r["key_id"] for r in records if r.get("code") == "OK" and r["method"].endswith("/CreateKey")}
    assert done - {"k"} == load.created
    assert sum(r.get("code") == "OK" and r["method"] == ENCRYPT for r in records) == load.sealed


async def test_every_key_that_was_acknowledged_under_load_is_there_after_the_restart(server):
    load = await loaded(server)
    async with started(server.directory) as again:
        names = set()
        request = keys_pb2.ListKeysRequest(parent="vaults/default", page_size=1000)
        while True:
            page = await again.admin.keys.ListKeys(request)
            names |= {key.name.rpartition("/")[2] for key in page.keys}
            request.page_token = page.next_page_token
            if not page.next_page_token:
                break
    assert load.created <= names


@contextmanager
def a_call_in_flight(server: Remote):
    """A connection with a call of which the server has read all but the body."""
    with Connection(server.port, client_context(server.tls, "app")) as connection:
        connection.start()
        connection.open(1, ENCRYPT)
        connection.send(frame(PING, 0, 0, b"all read"))
        assert any(got.kind == PING and got.payload == b"all read" for got in connection.frames(PATIENCE_S))
        yield connection


async def test_a_health_watcher_is_told_not_serving_while_the_server_still_drains(server):
    watch = health_watch(server)
    assert (await watch.read()).status == SERVING
    with a_call_in_flight(server):
        server.process.popen.send_signal(signal.SIGTERM)
        assert (await asyncio.wait_for(watch.read(), PATIENCE_S)).status == NOT_SERVING
        assert not ended(server)
    watch.cancel()


async def test_a_call_in_flight_at_sigterm_is_finished(server):
    with a_call_in_flight(server) as connection:
        server.process.popen.send_signal(signal.SIGTERM)
        assert any(got.kind == GOAWAY for got in connection.frames(PATIENCE_S))
        connection.send(frame(DATA, END_STREAM, 1, message(SEAL_IT.SerializeToString())))
        status = next(
            int(fields[b"grpc-status"])
            for got in connection.frames(PATIENCE_S)
            if got.kind == HEADERS and b"grpc-status" in (fields := read_block(got.payload))
        )
    assert status == 0
    assert await eventually(lambda: ended(server))
    assert server.process.popen.returncode == 0


async def test_a_health_watcher_does_not_keep_a_server_from_ending(server):
    watch = health_watch(server)
    assert (await watch.read()).status == SERVING
    server.process.popen.send_signal(signal.SIGTERM)
    assert await eventually(lambda: ended(server))
    assert server.process.popen.returncode == 0
