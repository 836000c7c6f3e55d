"""Traces as a collector gets them: a real server, a token, and the official protos on the other side."""

from __future__ import annotations

import asyncio
import os
import socket
import time

import grpc
import pytest
import pytest_asyncio
from wire import World, key_of

from collector import attributes, collecting
from harness import running_server
from scraping import scrape
from softhsm import hsm_section
from vaultd.devpki import create_dev_pki
from vaultd.interceptors.call import Call, Peer
from vaultd.interceptors.trace import Sampling, TraceStep, parent_of
from vaultd_client.v1 import crypto_pb2, keys_pb2, resources_pb2

pytestmark = pytest.mark.asyncio(loop_scope="module")

SERVER, UNSET, ERROR = 2, 0, 2


def traceparent(*, sampled: bool = True) -> tuple[str, str, tuple[str, str]]:
    """A trace id, a span id, and the header that says them."""
    trace_id, span_id = os.urandom(16).hex(), os.urandom(8).hex()
    return trace_id, span_id, ("traceparent", f"00-{trace_id}-{span_id}-{'01' if sampled else '00'}")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def traced(tmp_path_factory):
    directory = tmp_path_factory.mktemp("traces")
    async with collecting() as collector:
        otlp = {"endpoint": f"http://127.0.0.1:{collector.port}", "resource": {"deployment.environment.name": "test"}}
        metrics = {"listen": "127.0.0.1:0", "push_interval_s": 0.2}
        async with running_server(
            directory, otlp=otlp, metrics=metrics, hsm=[hsm_section(directory / "hsm")]
        ) as server:
            world = World(server)
            world.collector = collector
            yield world


async def spans_of(world, trace_id, name):
    """The spans of a trace, once the one of the call is there: it ends last."""
    found = await world.collector.wait(
        lambda: [span for span in world.collector.of_trace(trace_id) if span.name == name]
    )
    assert len(found) == 1
    return found[0], {span.name: span for span in world.collector.of_trace(trace_id) if span.name != name}


async def test_a_sampled_call_is_a_server_span_beneath_its_callers(traced):
    name = await traced.create("default", "traced", key_of("ENCRYPT_DECRYPT"))
    trace_id, span_id, header = traceparent()
    request = crypto_pb2.EncryptRequest(name=name, plaintext=b"x")
    call = traced.admin.crypto.Encrypt(request, metadata=[header, ("tracestate", "vendor=callers-own-text")])
    await call
    trailing = {key: value for key, value in await call.trailing_metadata()}
    span, _ = await spans_of(traced, trace_id, "vaultd.v1.CryptoService/Encrypt")
    assert span.parent_span_id.hex() == span_id
    assert (span.kind, span.status.code) == (SERVER, UNSET)
    assert attributes(span) == {
        "rpc.system.name": "grpc",
        "rpc.method": "vaultd.v1.CryptoService/Encrypt",
        "rpc.response.status_code": "OK",
        "vaultd.request_id": trailing["vaultd-request-id"],
    }
    assert 0 < span.end_time_unix_nano - span.start_time_unix_nano < 30e9
    assert abs(span.end_time_unix_nano - time.time_ns()) < 60e9
    assert span.trace_state == ""
    assert b"callers-own-text" not in traced.collector.received


async def test_a_mutation_shows_the_work_of_the_store(traced):
    trace_id, _, header = traceparent()
    request = keys_pb2.CreateKeyRequest(
        parent="vaults/default", key_id="traced-mutation", key=key_of("SIGN", "RSA_PSS_2048_SHA256")
    )
    await traced.admin.keys.CreateKey(request, metadata=[header])
    span, parts = await spans_of(traced, trace_id, "vaultd.v1.KeysService/CreateKey")
    assert {"store", "queue", "software work"} <= parts.keys()
    operations = {
        attributes(one).get("db.operation.name") for one in traced.collector.of_trace(trace_id) if one.name == "store"
    }
    assert {"begin", "commit"} <= operations
    for part in parts.values():
        assert part.parent_span_id == span.span_id
        assert span.start_time_unix_nano - 1e8 <= part.start_time_unix_nano <= part.end_time_unix_nano


async def test_a_key_of_a_token_shows_the_queue_and_the_tokens_work(traced):
    key = key_of("SIGN", "EC_P256_SHA256", protection_level=resources_pb2.PROTECTION_LEVEL_HSM)
    name = await traced.create("default", "traced-hsm", key)
    trace_id, _, header = traceparent()
    await traced.admin.crypto.Sign(crypto_pb2.SignRequest(name=name, message=b"m"), metadata=[header])
    _, parts = await spans_of(traced, trace_id, "vaultd.v1.CryptoService/Sign")
    assert {"queue", "hsm work"} <= parts.keys()
    assert parts["queue"].end_time_unix_nano <= parts["hsm work"].end_time_unix_nano
    assert attributes(parts["hsm work"])["vaultd.backend"] == "hsm"


async def test_a_refused_call_says_its_reason_and_nothing_of_the_exception(traced):
    trace_id, _, header = traceparent()
    with pytest.raises(grpc.aio.AioRpcError):
        await traced.server.app.crypto.Encrypt(
            crypto_pb2.EncryptRequest(name="vaults/default/keys/not-there", plaintext=b"x"), metadata=[header]
        )
    span, _ = await spans_of(traced, trace_id, "vaultd.v1.CryptoService/Encrypt")
    said = attributes(span)
    assert (said["rpc.response.status_code"], said["vaultd.reason"]) == ("PERMISSION_DENIED", "PERMISSION_DENIED")
    assert (span.status.code, span.status.message, len(span.events)) == (UNSET, "", 0)
    assert "not-there" not in str(span)


async def test_a_method_that_does_not_exist_gets_no_name_in_a_trace(traced):
    trace_id, _, header = traceparent()
    with pytest.raises(grpc.aio.AioRpcError):
        await traced.admin.raw("/vaultd.v1.CryptoService/Made-up")(b"", metadata=[header])
    span, _ = await spans_of(traced, trace_id, "grpc")
    assert (attributes(span)["rpc.method"], span.status.code) == ("_OTHER", ERROR)
    assert attributes(span)["error.type"] == "UNIMPLEMENTED"
    assert b"Made-up" not in traced.collector.received


async def test_a_call_that_is_not_sampled_leaves_no_span(traced):
    quiet, _, header = traceparent(sampled=False)
    loud, _, other = traceparent()
    request = crypto_pb2.GenerateRandomBytesRequest(parent="vaults/default", length_bytes=1)
    await traced.admin.crypto.GenerateRandomBytes(request, metadata=[header])
    await traced.admin.crypto.GenerateRandomBytes(request)
    await traced.admin.crypto.GenerateRandomBytes(request, metadata=[other])
    await spans_of(traced, loud, "vaultd.v1.CryptoService/GenerateRandomBytes")
    assert traced.collector.of_trace(quiet) == []
    records = [one for one in traced.server.audit_records() if one.get("trace_id") == quiet]
    assert len(records) == 1  # the record knows the trace all the same


async def test_calls_at_once_have_each_the_metadata_that_came_with_it(traced):
    request = crypto_pb2.GenerateRandomBytesRequest(parent="vaults/default", length_bytes=1)
    sent: dict[str, str] = {}

    async def call(number: int) -> None:
        trace_id, _, header = traceparent(sampled=False)
        made = traced.admin.crypto.GenerateRandomBytes(request, metadata=[header] if number % 3 else [])
        await made
        trailing = {key: value for key, value in await made.trailing_metadata()}
        sent[trailing["vaultd-request-id"]] = trace_id if number % 3 else ""

    await asyncio.gather(*map(call, range(120)))
    recorded = {one["id"]: one.get("trace_id", "") for one in traced.server.audit_records() if one.get("id") in sent}
    assert recorded == sent


async def test_the_resource_says_which_server_it_is(traced):
    trace_id, _, header = traceparent()
    request = crypto_pb2.GenerateRandomBytesRequest(parent="vaults/default", length_bytes=1)
    await traced.admin.crypto.GenerateRandomBytes(request, metadata=[header])
    await spans_of(traced, trace_id, "vaultd.v1.CryptoService/GenerateRandomBytes")
    said = attributes(traced.collector.traces[-1].resource)
    assert (said["service.name"], said["deployment.environment.name"]) == ("vaultd", "test")
    assert {"service.version", "service.instance.id", "host.name"} <= said.keys()


async def test_metrics_are_pushed_with_their_histograms(traced):
    request = crypto_pb2.GenerateRandomBytesRequest(parent="vaults/default", length_bytes=1)
    await traced.admin.crypto.GenerateRandomBytes(request)

    def calls():
        for resource in reversed(traced.collector.metrics):
            for scope in resource.scope_metrics:
                for metric in scope.metrics:
                    if metric.name == "rpc.server.call.duration" and metric.unit == "s":
                        return [
                            point
                            for point in metric.histogram.data_points
                            if attributes(point)["rpc.method"].endswith("GenerateRandomBytes")
                        ]
        return []

    (point,) = await traced.collector.wait(calls)
    assert point.count == sum(point.bucket_counts) >= 1
    assert len(point.bucket_counts) == len(point.explicit_bounds) + 1


async def test_spans_are_counted_by_what_became_of_them(traced):
    trace_id, _, header = traceparent()
    request = crypto_pb2.GenerateRandomBytesRequest(parent="vaults/default", length_bytes=1)
    await traced.admin.crypto.GenerateRandomBytes(request, metadata=[header])
    await spans_of(traced, trace_id, "vaultd.v1.CryptoService/GenerateRandomBytes")
    assert (await scrape(traced.server)).one("vaultd_spans_total", outcome="dropped") == 0


async def test_calls_without_a_trace_are_sampled_by_the_ratio_and_found_by_their_record(tmp_path):
    pki = tmp_path / "collector"
    create_dev_pki(pki, hosts=["127.0.0.1"])
    read = {name: (pki / name).read_bytes() for name in ("server.key", "server.crt", "ca.crt")}
    credentials = grpc.ssl_server_credentials(
        [(read["server.key"], read["server.crt"])], read["ca.crt"], require_client_auth=True
    )
    async with collecting(credentials) as collector:
        otlp = {
            "endpoint": f"https://127.0.0.1:{collector.port}",
            "ca": pki / "ca.crt",
            "certificate": pki / "app.crt",
            "key": pki / "app.key",
        }
        async with running_server(tmp_path, otlp=otlp, traces={"ratio": 1.0}) as server:
            request = crypto_pb2.GenerateRandomBytesRequest(parent="vaults/default", length_bytes=1)
            await server.app.crypto.GenerateRandomBytes(request)
            (record,) = [one for one in server.audit_records() if one.get("trace_id")]
        # The server sent what it had before it ended.
        (span,) = [one for one in collector.of_trace(record["trace_id"]) if one.kind == SERVER]
        assert attributes(span)["vaultd.request_id"] == record["id"]


async def test_a_collector_that_is_away_holds_up_neither_calls_nor_the_end(tmp_path):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # listens to nobody
        otlp = {"endpoint": f"http://127.0.0.1:{taken.getsockname()[1]}", "timeout_s": 0.5}
        traces = {"ratio": 1.0, "max_per_second": 1_000, "max_queued": 4}
        metrics = {"listen": "127.0.0.1:0", "push_interval_s": 0.1}
        async with running_server(tmp_path, otlp=otlp, traces=traces, metrics=metrics) as server:
            request = crypto_pb2.GenerateRandomBytesRequest(parent="vaults/default", length_bytes=1)
            for _ in range(20):
                await server.app.crypto.GenerateRandomBytes(request, timeout=60)
            seen = await scrape(server)
            assert seen.one("vaultd_spans_total", outcome="exported") == 0
            assert seen.one("vaultd_spans_total", outcome="dropped") > 0
            began_s = time.monotonic()
        assert time.monotonic() - began_s < 60


# -- the step by itself ---------------------------------------------------------------------------------------------------


def call_with(*metadata):
    return Call("/x", Peer("", b""), metadata, None, None, None)


@pytest.mark.parametrize(
    "header",
    [
        "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331",
        "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01-more",
        "00-0AF7651916CD43DD8448EB211C80319C-b7ad6b7169203331-01",
        "ff-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
        f"00-{'0' * 32}-b7ad6b7169203331-01",
        f"00-0af7651916cd43dd8448eb211c80319c-{'0' * 16}-01",
        "",
    ],
)
async def test_a_header_that_is_malformed_is_no_header(header):
    assert parent_of([("traceparent", header)]) is None


async def test_the_sampled_flag_is_the_lowest_bit():
    for flags, sampled in (("00", False), ("01", True), ("02", False), ("03", True), ("fe", False), ("ff", True)):
        parent = parent_of([("traceparent", f"00-{'a' * 32}-{'b' * 16}-{flags}")])
        assert parent is not None
        assert parent.sampled is sampled


async def test_callers_cannot_have_more_traced_than_the_limit():
    from opentelemetry.sdk.trace import TracerProvider

    now_s = 100.0
    step = TraceStep(Sampling(max_per_second=5), TracerProvider(shutdown_on_exit=False).get_tracer("x"), lambda: now_s)
    _, _, header = traceparent()
    assert sum(step.begin(call_with(header))[1] is not None for _ in range(50)) == 5
    now_s += 0.5
    assert sum(step.begin(call_with(header))[1] is not None for _ in range(50)) == 2


async def test_a_caller_that_is_not_followed_is_sampled_by_the_ratio():
    from opentelemetry.sdk.trace import TracerProvider

    tracer = TracerProvider(shutdown_on_exit=False).get_tracer("x")
    trace_id, _, header = traceparent()
    found, span = TraceStep(Sampling(0.0, follow_parent=False), tracer).begin(call_with(header))
    assert (found, span) == (trace_id, None)
    _, _, header = traceparent(sampled=False)
    assert TraceStep(Sampling(1.0, follow_parent=False), tracer).begin(call_with(header))[1] is not None
