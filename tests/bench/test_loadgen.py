"""The load generator: what an open loop counts, and what it does with failures.  A real echo, over mTLS."""

import asyncio
import os
import shutil
import subprocess
import time
from collections import Counter
from collections.abc import Callable
from contextlib import asynccontextmanager
from pathlib import Path

import grpc
import pytest

from bench.accounting import Meter
from bench.clients import Client, Endpoint, LoadFailed, Pressure, Request, metered, order
from bench.processes import LOADGEN, ROOT, Process
from vaultd.devpki import create_dev_pki

ECHO = Request("/bench.Echo/Echo", b"ping")
STALL_S = 0.5
SLOW_US = 100_000


@asynccontextmanager
async def echo(directory: Path, handler: Callable[[bytes, object], object], *options: tuple[str, int]):
    """A grpc.aio server with one method, and an endpoint with the caller's certificate."""
    tls = directory / "tls"
    create_dev_pki(tls, hosts=["127.0.0.1"])
    server = grpc.aio.server(options=options)
    method = grpc.unary_unary_rpc_method_handler(handler)
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("bench.Echo", {"Echo": method}),))
    pair = ((tls / "server.key").read_bytes(), (tls / "server.crt").read_bytes())
    credentials = grpc.ssl_server_credentials([pair], (tls / "ca.crt").read_bytes(), require_client_auth=True)
    port = server.add_secure_port("127.0.0.1:0", credentials)
    await server.start()
    try:
        yield Endpoint.of_vault(f"127.0.0.1:{port}", tls)
    finally:
        await server.stop(0)


@pytest.fixture
def client(tmp_path):
    process = Process("loadgen", [], tmp_path, LOADGEN)
    yield Client(process)
    process.stop()


class Stalling:
    """Answers at once, but once blocks the whole server."""

    def __init__(self, at: int) -> None:
        self._left = at

    async def answer(self, request: bytes, context: object) -> bytes:
        self._left -= 1
        if self._left == 0:
            time.sleep(STALL_S)  # noqa: ASYNC251 - on purpose: nothing else is answered meanwhile
        return request


async def answer(request: bytes, context: object) -> bytes:
    return request


async def latencies_us(
    client: Client, endpoint: Endpoint, pressure: Pressure, seconds: float, request: Request = ECHO
) -> list[int]:
    client.begin(order(endpoint, request, pressure, seconds, connections=2))
    return list((await asyncio.to_thread(client.end))["latencies_us"])


async def test_an_open_loop_counts_the_time_that_a_stalled_server_makes_calls_wait(tmp_path, client):
    async with echo(tmp_path, Stalling(at=50).answer) as endpoint:
        found = await latencies_us(client, endpoint, Pressure(rate=200), 1.5)
    assert len(found) == 300  # every call that was due was made
    slow = [latency for latency in found if latency > SLOW_US]
    # 100 calls were due during the stall, and those of its first 400 ms waited for more than 100 ms.
    assert len(slow) >= 70
    assert max(found) >= STALL_S * 0.9e6


async def test_a_closed_loop_does_not_see_what_it_did_not_ask_meanwhile(tmp_path, client):
    async with echo(tmp_path, Stalling(at=5).answer) as endpoint:
        found = await latencies_us(client, endpoint, Pressure(in_flight=1), 1.5)
    assert max(found) >= STALL_S * 0.9e6
    # One call after the other: all of them together took no longer than the slice, and the last one may end after it.
    assert sum(found[:-1]) <= 1.5e6


@pytest.mark.parametrize(("apart", "connections"), [(False, 2), (True, 6)])
async def test_callers_share_connections_or_have_one_each(tmp_path, client, apart, connections):
    callers: Counter[str] = Counter()
    together: Counter[int] = Counter()

    async def look(request: bytes, context: grpc.aio.ServicerContext) -> bytes:
        callers[context.peer()] += 1
        together[callers[context.peer()]] += 1
        await asyncio.sleep(0)
        callers[context.peer()] -= 1
        return request

    async with echo(tmp_path, look) as endpoint:
        found = await latencies_us(client, endpoint, Pressure(6, apart=apart), 0.1)
    assert len(callers) == connections
    assert together.total() == len(found)
    if apart:  # a caller asks again when it was answered
        assert set(together) == {1}


async def test_a_call_that_failed_fails_the_slice_and_says_how(tmp_path, client):
    async def refuse(request: bytes, context: grpc.aio.ServicerContext) -> bytes:
        await context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, "enough")

    async with echo(tmp_path, refuse) as endpoint:
        with pytest.raises(LoadFailed, match="gRPC status 8 enough"):
            await latencies_us(client, endpoint, Pressure(in_flight=2), 0.05)


async def test_bodies_larger_than_the_servers_windows_go_both_ways_at_once(tmp_path, client):
    large = Request(ECHO.path, bytes(1_000_000))
    async with echo(tmp_path, answer) as endpoint:
        found = await latencies_us(client, endpoint, Pressure(in_flight=6), 0.3, large)
    assert len(found) >= 6


async def test_connections_that_the_server_ends_by_age_cost_no_call(tmp_path, client):
    ages = ("grpc.max_connection_age_ms", 100), ("grpc.max_connection_age_grace_ms", 10_000)
    async with echo(tmp_path, answer, *ages) as endpoint:
        found = await latencies_us(client, endpoint, Pressure(rate=300), 1.0)
    assert len(found) == 300


async def test_a_call_that_is_refused_before_all_of_it_was_sent_ends(tmp_path, client):
    limit = ("grpc.max_receive_message_length", 1_000)
    async with echo(tmp_path, answer, limit) as endpoint:
        with pytest.raises(LoadFailed, match="gRPC status 8"):
            await latencies_us(client, endpoint, Pressure(in_flight=2), 0.05, Request(ECHO.path, bytes(1_000_000)))


async def test_a_slice_counts_the_servers_cpu_and_the_items_of_a_call(tmp_path, client):
    async with echo(tmp_path, answer) as endpoint:
        what = order(endpoint, ECHO, Pressure(), 0.3, connections=2)
        meter = Meter(os.getpid())
        measured = await asyncio.to_thread(metered, meter, client, what, 10)
    assert measured.calls == len(measured.latencies_us) > 0
    assert 0 < measured.server_cpu_s <= measured.elapsed_s * 64
    assert measured.items_per_s == pytest.approx(10 * measured.calls / measured.elapsed_s)


@pytest.mark.slow
def test_the_generators_own_tests_pass():
    command = [shutil.which("go"), "test", "./..."]
    ended = subprocess.run(command, cwd=ROOT / "bench" / "loadgen", capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stdout + ended.stderr
