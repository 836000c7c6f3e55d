"""Client spans of the SDK: one for each call of a program that has a provider of OpenTelemetry, and none for others."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import pytest
import pytest_asyncio
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF
from opentelemetry.trace import SpanKind, StatusCode
from sdk_rig import AEAD, PATIENT, SIGNER, VAULT, Audit, async_client, create_keys, sync_client

from harness import running_server
from ports import free_port
from vaultd_client import CallInfo, PermissionDenied, VaultdError
from vaultd_client.generated import table
from vaultd_client.spans import Tracing
from vaultd_client.v1 import crypto_pb2

pytestmark = pytest.mark.asyncio(loop_scope="module")

CRYPTO = "vaultd.v1.CryptoService"


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def server(tmp_path_factory):
    async with running_server(tmp_path_factory.mktemp("spans"), **PATIENT) as server:
        await create_keys(server)
        yield server


@pytest.fixture
def spans(monkeypatch):
    """The spans that ended.  A process can set its provider once only, and this one is of many tests."""
    exporter = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    monkeypatch.setattr(trace, "_TRACER_PROVIDER", provider)
    yield exporter.get_finished_spans
    provider.shutdown()


def attributes(span) -> dict[str, object]:
    return dict(span.attributes)


async def test_a_call_has_a_span_below_the_current_one_and_the_servers_record_is_of_its_trace(server, spans):
    audit, info = Audit(server), CallInfo()
    async with async_client(server) as vault:
        with trace.get_tracer("program").start_as_current_span("work") as above:
            await vault.encrypt(AEAD, b"p", info=info)
    span, work = spans()
    host, _, port = server.address.rpartition(":")
    assert (span.name, span.kind, span.status.status_code) == (f"{CRYPTO}/Encrypt", SpanKind.CLIENT, StatusCode.UNSET)
    assert attributes(span) == {
        "rpc.system.name": "grpc",
        "rpc.method": f"{CRYPTO}/Encrypt",
        "rpc.response.status_code": "OK",
        "server.address": host,
        "server.port": int(port),
        "vaultd.request_id": info.request_id,
    }
    assert span.parent.span_id == above.get_span_context().span_id == work.context.span_id
    (record,) = audit.calls()
    assert record["trace_id"] == f"{span.context.trace_id:032x}"
    assert (info.items, info.attempts, info.address) == (1, 1, server.address)
    assert info.receipt.sequence == record["seq"]


async def test_the_server_is_told_of_the_span_of_the_call_and_not_of_the_one_above(spans):
    with trace.get_tracer("program").start_as_current_span("work") as above:
        call = Tracing().begin(table.ENCRYPT, crypto_pb2.EncryptRequest(), None)
        with call:
            sent = call.traceparent
    span = spans()[0]
    version, trace_id, span_id, flags = sent.split("-")
    assert (version, int(trace_id, 16), int(span_id, 16)) == ("00", span.context.trace_id, span.context.span_id)
    assert int(flags, 16) & 1
    assert span.context.span_id != above.get_span_context().span_id


async def test_calls_that_travel_together_are_linked_from_the_span_of_their_batch(server, spans):
    infos = [CallInfo() for _ in range(6)]
    async with async_client(server) as vault:
        await asyncio.gather(*(vault.encrypt(AEAD, b"p", info=info) for info in infos))
    ended = spans()
    batches = [span for span in ended if span.name == f"{CRYPTO}/BatchEncrypt"]
    calls = [span for span in ended if span.name == f"{CRYPTO}/Encrypt"]
    (batch,) = batches
    assert [attributes(span).get("vaultd.items") for span in calls].count(5) == 5
    assert attributes(batch)["vaultd.items"] == 5
    together = {span.context.span_id for span in calls if "vaultd.items" in attributes(span)}
    assert {link.context.span_id for link in batch.links} == together
    assert batch.parent.span_id in together
    assert len({attributes(span)["vaultd.request_id"] for span in calls}) == 2
    assert attributes(batch)["vaultd.request_id"] == infos[-1].request_id
    assert [info.items for info in infos] == [1, 5, 5, 5, 5, 5]


async def test_threads_that_travel_together_are_linked_as_well(server, spans):
    def work() -> None:
        with sync_client(server) as vault, ThreadPoolExecutor(16) as threads:
            list(threads.map(lambda n: vault.sign(SIGNER, b"m%d" % n), range(200)))

    await asyncio.to_thread(work)
    ended = spans()
    calls = [span for span in ended if span.name == f"{CRYPTO}/Sign"]
    batches = [span for span in ended if span.name == f"{CRYPTO}/BatchSign"]
    assert len(calls) == 200
    assert batches
    assert all(len(span.links) == attributes(span)["vaultd.items"] for span in batches)
    linked = [link.context.span_id for span in batches for link in span.links]
    assert len(linked) == len(set(linked)) == sum("vaultd.items" in attributes(span) for span in calls)


async def test_a_batch_of_the_callers_own_says_how_many_items_it_has(server, spans):
    async with async_client(server) as vault:
        await vault.batch_encrypt([{"name": AEAD, "plaintext": b"p"}] * 7)
    (span,) = spans()
    assert (span.name, attributes(span)["vaultd.items"]) == (f"{CRYPTO}/BatchEncrypt", 7)


async def test_what_failed_says_status_and_reason(server, spans):
    async with async_client(server) as vault:
        with pytest.raises(PermissionDenied) as refused:
            await vault.create_key(VAULT, "k", {"purpose": "KEY_PURPOSE_SIGN"})
    (span,) = spans()
    found = attributes(span)
    assert (found["rpc.response.status_code"], found["error.type"]) == ("PERMISSION_DENIED", "PERMISSION_DENIED")
    assert (found["vaultd.reason"], found["vaultd.request_id"]) == (refused.value.reason, refused.value.request_id)
    assert span.status.status_code is StatusCode.ERROR
    assert not span.events


async def test_each_repeat_is_an_event(server, spans):
    async with async_client(server, address=[f"127.0.0.1:{free_port()}", server.address]) as vault:
        for _ in range(2):  # the endpoints take turns
            await vault.encrypt(AEAD, b"p")
    repeated = [span for span in spans() if span.events]
    assert repeated
    (event,) = repeated[0].events
    assert event.name == "retry"
    assert event.attributes["rpc.response.status_code"] == "UNAVAILABLE"
    assert event.attributes["vaultd.attempt"] == 1
    assert attributes(repeated[0])["vaultd.attempts"] == 2
    assert attributes(repeated[0])["server.port"] == int(server.address.rpartition(":")[2])


async def test_a_call_that_nobody_answers_and_one_that_is_cancelled_say_so(server, spans):
    async with async_client(server, address=f"127.0.0.1:{free_port()}") as vault:
        with pytest.raises(VaultdError):
            await vault.get_key(AEAD, timeout_s=0.2)
        task = asyncio.create_task(vault.get_key(AEAD, timeout_s=20))
        await asyncio.sleep(0)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
    nobody, cancelled = spans()
    assert attributes(nobody)["rpc.response.status_code"] in {"UNAVAILABLE", "DEADLINE_EXCEEDED"}
    assert attributes(cancelled)["rpc.response.status_code"] == "CANCELLED"
    assert cancelled.status.status_code is StatusCode.ERROR


async def test_a_stream_has_a_span_from_its_opening_to_its_end(server, spans):
    async def requests():
        for n in range(2):
            operation = crypto_pb2.CryptoOperation(id=n, encrypt=crypto_pb2.EncryptRequest(name=AEAD, plaintext=b"p"))
            yield crypto_pb2.CryptoStreamRequest(operations=[operation])

    async with async_client(server) as vault:
        assert [len(each.results) async for each in vault.crypto_stream(requests())]
    (span,) = spans()
    found = attributes(span)
    assert (span.name, found["rpc.response.status_code"]) == (f"{CRYPTO}/CryptoStream", "OK")
    assert found["server.address"] == server.address.rpartition(":")[0]


async def test_nothing_of_a_request_and_no_name_gets_into_a_span(server, spans):
    async with async_client(server) as vault:
        sealed = await vault.encrypt(AEAD, b"canary-plaintext", b"canary-associated")
        await asyncio.gather(*(vault.decrypt(AEAD, sealed.ciphertext, b"canary-associated") for _ in range(3)))
        for name in (f"{VAULT}/keys/canary-name", f"{VAULT}/keys/CANARY"):
            with pytest.raises(VaultdError):
                await vault.encrypt(name, b"canary-plaintext")
    assert len(spans()) >= 6
    text = "".join(span.to_json() for span in spans())
    for secret in ("canary", "CANARY", "aead", VAULT):
        assert secret not in text


async def test_a_span_that_is_not_sampled_says_so_to_the_server(server, monkeypatch):
    exporter, provider = InMemorySpanExporter(), TracerProvider(sampler=ALWAYS_OFF)
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    monkeypatch.setattr(trace, "_TRACER_PROVIDER", provider)
    call = Tracing().begin(table.ENCRYPT, crypto_pb2.EncryptRequest(), None)
    with call:
        assert not int(call.traceparent.rpartition("-")[2], 16) & 1
    async with async_client(server) as vault:
        assert (await vault.encrypt(AEAD, b"p")).ciphertext
    assert not exporter.get_finished_spans()
    provider.shutdown()


async def test_who_gives_the_trace_context_has_no_spans(server, spans):
    own = "0af7651916cd43dd8448eb211c80319c"
    audit = Audit(server)
    async with async_client(server, trace=lambda: f"00-{own}-b7ad6b7169203331-01") as vault:
        await vault.encrypt(AEAD, b"p")
    assert not spans()
    assert [one["trace_id"] for one in audit.calls()] == [own]


async def test_without_a_provider_no_span_is_begun_and_the_provider_of_later_is_found(spans, monkeypatch):
    now_s = [0.0]
    tracing = Tracing(lambda: now_s[0])
    with monkeypatch.context() as none_yet:
        none_yet.setattr(trace, "_TRACER_PROVIDER", None)
        assert tracing.begin(table.ENCRYPT, None, None) is None
    now_s[0] = 1.0
    with tracing.begin(table.ENCRYPT, None, None):
        pass
    assert len(spans()) == 1


async def test_the_sdk_imports_nothing_of_opentelemetry():
    program = "import sys, vaultd_client; from vaultd_client import Client; print('opentelemetry' in sys.modules)"
    done = await asyncio.to_thread(
        subprocess.run, [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "False"
