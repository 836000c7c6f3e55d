"""A whole server with sinks: who waits for which of them, and what happens when one hangs."""

from __future__ import annotations

import asyncio
import base64
from contextlib import AsyncExitStack

import grpc
import orjson
import pytest
import pytest_asyncio
from grpc_health.v1 import health_pb2, health_pb2_grpc
from wire import reason_in

from harness import make_settings, reason_of, running_server
from receivers import otlp_receiver, server_context, syslog_receiver, webhook_receiver
from vaultd.audit.shipping.shipper import WAIT_S
from vaultd.devpki import create_dev_pki
from vaultd.interceptors import audit
from vaultd_client.v1 import crypto_pb2, keys_pb2, resources_pb2

NAME = "vaults/default/keys/k"
ENCRYPT = crypto_pb2.EncryptRequest(name=NAME, plaintext=b"attack at dawn")


def create(key_id):
    key = resources_pb2.Key(purpose=resources_pb2.KEY_PURPOSE_ENCRYPT_DECRYPT)
    return keys_pb2.CreateKeyRequest(parent="vaults/default", key_id=key_id, key=key, request_id=key_id)


class World:
    """A server with four sinks: what every call needs, what mutations need, and two that nobody waits for."""

    async def health(self, name):
        stub = health_pb2_grpc.HealthStub(self.server.admin.channel)
        answer = await stub.Check(health_pb2.HealthCheckRequest(service=name))
        return answer.status == health_pb2.HealthCheckResponse.SERVING

    async def until(self, name, serving):
        stub = health_pb2_grpc.HealthStub(self.server.admin.channel)
        async with asyncio.timeout(60):
            watching = stub.Watch(health_pb2.HealthCheckRequest(service=name))
            async for answer in watching:
                if (answer.status == health_pb2.HealthCheckResponse.SERVING) is serving:
                    watching.cancel()
                    return

    def figures(self, name):
        return next(one for one in self.server.server.shipper.figures() if one.name == name)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def world(tmp_path_factory):
    directory = tmp_path_factory.mktemp("sinks")
    tls = directory / "tls"
    create_dev_pki(tls, hosts=["127.0.0.1"])
    secret = directory / "secret"
    secret.write_bytes(base64.b64encode(b"k" * 32))
    secret.chmod(0o600)
    it = World()
    async with AsyncExitStack() as stack:
        it.all = await stack.enter_async_context(webhook_receiver(server_context(tls)))
        it.mutations = await stack.enter_async_context(otlp_receiver(tls))
        it.siem = await stack.enter_async_context(syslog_receiver(server_context(tls)))
        it.best = await stack.enter_async_context(otlp_receiver(None))
        ca = {"ca_file": tls / "ca.crt", "required": True}
        url = f"https://127.0.0.1:{it.all.port}/audit"
        otlp = {"kind": "otlp", "name": "collector", "address": f"127.0.0.1:{it.mutations.port}"}
        syslog = {"kind": "syslog", "name": "siem", "format": "ocsf", "address": f"127.0.0.1:{it.siem.port}"}
        sinks = [
            {"kind": "webhook", "name": "hook", "url": url, "secret_file": secret, "require": "all", **ca},
            {**otlp, **ca},
            {**syslog, "ca_file": tls / "ca.crt"},
            {"kind": "otlp", "name": "best", "address": f"127.0.0.1:{it.best.port}", "tls": False},
        ]
        it.server = await stack.enter_async_context(
            running_server(directory, audit={"directory": directory / "audit", "sinks": sinks})
        )
        await it.server.admin.keys.CreateKey(create("k"))
        yield it


pytestmark = pytest.mark.asyncio(loop_scope="module")


async def test_an_answer_is_released_once_the_sink_that_every_call_needs_has_its_record(world):
    before = len(world.all.lines)
    call = world.server.app.crypto.Encrypt(ENCRYPT)
    await call
    trailing = {key: value for key, value in await call.trailing_metadata()}
    receipt = resources_pb2.AuditReceipt.FromString(trailing["vaultd-receipt-bin"])
    got = [orjson.loads(line)["seq"] for line in world.all.lines[before:]]
    assert receipt.sequence in got


async def test_every_sink_has_every_record(world):
    await world.server.app.crypto.Encrypt(ENCRYPT)
    count = world.server.audit_records()[-1]["seq"]
    for receiver in (world.all, world.mutations, world.siem, world.best):
        await receiver.wait_for(count)
    numbered = [orjson.loads(line)["seq"] for line in world.best.lines]
    assert numbered == list(range(1, len(numbered) + 1))
    events = [orjson.loads(line.split(b"] ", 1)[1]) for line in world.siem.lines]
    assert (6003, "Encrypt") in [(event["class_uid"], event["api"]["operation"]) for event in events]
    assert await world.health("")
    figures = world.server.server.sink_figures()
    assert [one.name for one in figures] == ["hook", "collector", "siem", "best"]
    assert all(one.delivered + one.lag_records == one.expected >= count for one in figures)


async def test_a_hung_sink_that_mutations_need_refuses_them_after_two_seconds_and_nothing_else(world, monkeypatch):
    world.mutations.reading.clear()
    loop = asyncio.get_running_loop()
    began = loop.time()

    async def refused_mutation():
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await world.server.admin.keys.CreateKey(create("hung"))
        return refused, loop.time() - began

    mutation = asyncio.create_task(refused_mutation())
    answered_meanwhile = 0
    while not mutation.done():
        await world.server.app.crypto.Encrypt(ENCRYPT)
        answered_meanwhile += not mutation.done()
    refused, waited_s = await mutation
    assert (refused.value.code(), reason_of(refused.value)) == (
        grpc.StatusCode.UNAVAILABLE,
        "AUDIT_SINK_UNAVAILABLE",
    )
    assert waited_s > WAIT_S - 0.1
    assert answered_meanwhile > 0
    assert world.server.server.witness.needed() <= world.server.audit_records()[-1]["seq"]  # nothing of it is pruned
    assert not await world.health("audit:collector")
    assert await world.health("audit:hook")
    assert await world.health("")  # most calls are answered
    # Nothing is begun any more, and nobody waits again.
    monkeypatch.setattr(audit.Entry, "patience_s", 3_600.0)
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await world.server.admin.keys.CreateKey(create("refused"))
    assert reason_of(refused.value) == "AUDIT_SINK_UNAVAILABLE"
    monkeypatch.undo()
    assert world.figures("collector").failures["timeout"] >= 1
    world.mutations.reading.set()
    await world.until("audit:collector", serving=True)
    with pytest.raises(grpc.aio.AioRpcError) as absent:
        await world.server.admin.keys.GetKey(keys_pb2.GetKeyRequest(name="vaults/default/keys/refused"))
    assert absent.value.code() is grpc.StatusCode.NOT_FOUND
    made = await world.server.admin.keys.CreateKey(create("hung"))
    assert made.name == "vaults/default/keys/hung"


async def test_a_hung_sink_that_every_call_needs_refuses_every_call_and_recovers(world):
    world.all.reading.clear()
    loop = asyncio.get_running_loop()
    began = loop.time()
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await world.server.app.crypto.Encrypt(ENCRYPT)
    assert loop.time() - began > WAIT_S - 0.1
    assert (refused.value.code(), reason_of(refused.value)) == (
        grpc.StatusCode.UNAVAILABLE,
        "AUDIT_SINK_UNAVAILABLE",
    )
    batch = crypto_pb2.BatchEncryptRequest(items=[ENCRYPT])
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await world.server.app.crypto.BatchEncrypt(batch)
    assert reason_of(refused.value) == "AUDIT_SINK_UNAVAILABLE"
    assert not await world.health("audit:hook")
    assert not await world.health("")
    assert await world.health("audit")
    records = world.server.audit_records()
    codes = [record["code"] for record in records if "code" in record and "CryptoService" in record["method"]]
    # The first was done, and withheld: the log says both.  The second was not begun any more.
    assert codes[-3:] == ["OK", "UNAVAILABLE", "UNAVAILABLE"]
    world.all.reading.set()
    await world.until("", serving=True)
    await world.server.app.crypto.Encrypt(ENCRYPT)


async def test_a_hung_sink_that_every_call_needs_refuses_the_operations_of_a_stream(world):
    stream = world.server.app.crypto.CryptoStream()

    async def outcome(id):
        await stream.write(
            crypto_pb2.CryptoStreamRequest(operations=[crypto_pb2.CryptoOperation(id=id, encrypt=ENCRYPT)])
        )
        (result,) = (await stream.read()).results
        records = world.server.audit_records()
        codes = [record["code"] for record in records if "stream" in record and record["id"].endswith(f"-{id}")]
        return (reason_in(result.status) if result.HasField("status") else "OK"), codes

    def counted():
        durations = world.server.server.observing.step.meter.durations()
        by_code = {code: sum(cell.counts) for (_, method, code), cell in durations if method.endswith("/Encrypt")}
        return by_code.get("OK", 0), by_code.get("UNAVAILABLE", 0)

    served, withheld = counted()
    assert await outcome(1) == ("OK", ["OK"])
    world.all.reading.clear()
    assert await outcome(2) == ("AUDIT_SINK_UNAVAILABLE", ["OK", "UNAVAILABLE"])
    assert await outcome(3) == ("AUDIT_SINK_UNAVAILABLE", ["UNAVAILABLE"])
    world.all.reading.set()
    await world.until("", serving=True)
    assert await outcome(4) == ("OK", ["OK"])
    assert counted() == (served + 2, withheld + 2), "by what their caller was told"
    stream.cancel()


async def test_a_refused_call_is_not_held_back(world):
    world.all.reading.clear()
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await world.server.app.keys.CreateKey(create("never"))
    assert refused.value.code() is grpc.StatusCode.PERMISSION_DENIED
    world.all.reading.set()
    await world.until("audit:hook", serving=True)


async def test_what_happens_to_a_sink_is_on_the_record(world):
    world.mutations.reading.clear()
    with pytest.raises(grpc.aio.AioRpcError):
        await world.server.admin.keys.CreateKey(create("recorded"))
    world.mutations.reading.set()
    await world.until("audit:collector", serving=True)
    told = [one["event"] for one in world.server.audit_records() if one.get("resource") == "audit:collector"]
    assert told[-2:] == ["audit_sink_not_serving", "audit_sink_serving"]


async def test_the_start_of_a_server_says_where_its_records_go(world):
    first = next(record for record in world.server.audit_records() if record["event"] == "audit_sinks")
    assert first["sinks"] == "hook collector siem best"


@pytest.mark.parametrize(
    ("sink", "says"),
    [
        ({"kind": "syslog", "name": "a", "address": "siem.example.org:514", "tls": False}, "allow_plaintext"),
        ({"kind": "otlp", "name": "a", "address": "127.0.0.1:0"}, "port"),
        ({"kind": "stdout", "name": "a", "require": "all"}, "required"),
        ({"kind": "stdout", "name": "A"}, "pattern"),
        ({"kind": "stdout", "name": "file"}, "own files"),
        ({"kind": "webhook", "name": "a", "url": "http://example.org/", "secret_file": "s"}, "https"),
        ({"kind": "file", "name": "a"}, "tag"),
        ({"kind": "stdout", "name": "a", "path": "x"}, "Extra"),
        ({"kind": "syslog", "name": "a", "address": "127.0.0.1:514", "certificate": "c"}, "go together"),
    ],
)
async def test_a_sink_that_makes_no_sense_stops_the_configuration(tmp_path, sink, says):
    with pytest.raises(ValueError, match=says):
        make_settings(tmp_path, audit={"directory": tmp_path / "audit", "sinks": [sink]})
