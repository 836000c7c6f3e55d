"""Metrics as a scraper sees them: a real server, real calls, and the plaintext listener."""

from __future__ import annotations

import asyncio

import grpc
import pytest
import pytest_asyncio

from harness import running_server
from scraping import get, http, scrape
from vaultd.hosts.plain import MAX_CONNECTIONS, MAX_REQUEST_BYTES
from vaultd.telemetry.metrics import METRICS, Kind
from vaultd_client.v1 import admin_pb2, crypto_pb2, keys_pb2, resources_pb2, secrets_pb2

pytestmark = pytest.mark.asyncio(loop_scope="module")

KEY = "vaults/default/keys/metered"
ENCRYPT = "vaultd.v1.CryptoService/Encrypt"
LATER = {
    "vaultd.audit.sink.failures",
    "vaultd.spans",
    "vaultd.crl.next_update",
    *(name for name in METRICS if name.startswith("vaultd.hsm.")),
}
"""Not here: of parts that this server does not have."""


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def server(tmp_path_factory):
    metrics = {"listen": "127.0.0.1:0", "max_vaults": 2, "max_principals": 1}
    async with running_server(tmp_path_factory.mktemp("metrics"), metrics=metrics) as running:
        key = resources_pb2.Key(purpose=resources_pb2.KEY_PURPOSE_ENCRYPT_DECRYPT)
        await running.admin.keys.CreateKey(
            keys_pb2.CreateKeyRequest(parent="vaults/default", key_id="metered", key=key)
        )
        yield running


async def encrypt(client, name=KEY):
    return await client.crypto.Encrypt(crypto_pb2.EncryptRequest(name=name, plaintext=b"x"))


async def test_a_call_is_counted_once_by_method_and_status(server):
    labels = {"rpc_method": ENCRYPT, "rpc_system_name": "grpc", "rpc_response_status_code": "OK"}
    before = await scrape(server)
    for _ in range(3):
        await encrypt(server.app)
    after = await scrape(server)
    name = "rpc_server_call_duration_seconds"
    assert after.one(f"{name}_count", **labels) - before.one(f"{name}_count", **labels) == 3
    assert after.one(f"{name}_bucket", **labels, le="+Inf") == after.one(f"{name}_count", **labels)
    assert 0 < after.one(f"{name}_sum", **labels) < 30
    counts = [sample.value for sample in after.all(f"{name}_bucket", **labels)]
    assert counts == sorted(counts)


async def test_a_mutation_is_counted_once(server):
    labels = {"rpc_method": "vaultd.v1.KeysService/RotateKey", "rpc_response_status_code": "OK"}
    before = (await scrape(server)).one("rpc_server_call_duration_seconds_count", **labels)
    await server.admin.keys.RotateKey(keys_pb2.RotateKeyRequest(name=KEY))
    assert (await scrape(server)).one("rpc_server_call_duration_seconds_count", **labels) == before + 1


async def test_refusals_are_counted_by_reason_and_strangers_get_no_labels(server):
    for name in ("vaults/nobody-has-this/keys/k", "not a name"):
        with pytest.raises(grpc.aio.AioRpcError):
            await encrypt(server.app, name)
    with pytest.raises(grpc.aio.AioRpcError):
        await server.app.raw("/vaultd.v1.CryptoService/Invented")(b"")
    seen = await scrape(server)
    assert seen.one("vaultd_refusals_total", code="PERMISSION_DENIED", reason="PERMISSION_DENIED") >= 1
    assert seen.one("vaultd_refusals_total", code="UNIMPLEMENTED", reason="METHOD_UNKNOWN") >= 1
    assert seen.one("rpc_server_call_duration_seconds_count", rpc_method="_OTHER") >= 1
    assert seen.one("vaultd_vault_operations_total", vault="other", outcome="refused") >= 1
    assert "nobody-has-this" not in seen.text
    assert "Invented" not in seen.text


async def test_vaults_beyond_the_limit_share_a_label(server):
    for vault in ("one", "two", "three"):
        await server.admin.admin.CreateVault(admin_pb2.CreateVaultRequest(vault_id=vault))
        await server.admin.admin.GetVault(admin_pb2.GetVaultRequest(name=f"vaults/{vault}"))
    await encrypt(server.app)
    vaults = {s.labels["vault"] for s in (await scrape(server)).all("vaultd_vault_operations_total")}
    assert len(vaults - {"other"}) == 2
    assert "other" in vaults


async def test_principals_beyond_the_limit_share_a_label(server):
    for _ in range(5):
        await encrypt(server.app)
    await scrape(server)
    await encrypt(server.app)
    await encrypt(server.admin)
    seen = await scrape(server)
    names = {s.labels["principal"] for s in seen.all("vaultd_principal_calls_total")}
    assert len(names - {"other"}) == 1
    assert seen.one("vaultd_principal_calls_total", principal="other", outcome="ok") >= 1


async def test_items_of_a_batch_are_counted_by_outcome(server):
    items = [crypto_pb2.EncryptRequest(name=KEY, plaintext=b"x"), crypto_pb2.EncryptRequest(name="bad", plaintext=b"x")]
    before = await scrape(server)
    await server.app.crypto.BatchEncrypt(crypto_pb2.BatchEncryptRequest(items=items))
    after = await scrape(server)
    for outcome in ("ok", "failed"):
        name, labels = "vaultd_batch_items_total", {"outcome": outcome}
        assert after.one(name, **labels) - before.one(name, **labels) == 1


async def test_probes_of_health_are_counted_as_calls_and_as_nobodys(server):
    labels = {"rpc_method": "grpc.health.v1.Health/Check", "rpc_response_status_code": "OK"}
    before = await scrape(server)
    await server.app.raw("/grpc.health.v1.Health/Check")(b"")
    after = await scrape(server)
    name = "rpc_server_call_duration_seconds_count"
    assert after.one(name, **labels) == before.one(name, **labels) + 1


async def test_every_metric_of_the_table_is_there_under_the_name_that_the_docs_say(server):
    await encrypt(server.app)
    names = (await scrape(server)).names
    for metric in METRICS.values():
        if metric.name in LATER or metric.name in {"vaultd.recovery.duration", "vaultd.auth.failures"}:
            continue
        expected = f"{metric.prometheus}_count" if metric.kind is Kind.HISTOGRAM else metric.prometheus
        if metric.name not in {"vaultd.scheduler.events"}:
            assert expected in names, metric.name


async def test_the_state_of_components_and_how_long_one_was_away(server):
    board = server.server.board
    assert (await scrape(server)).one("vaultd_component_serving", component="seal") == 1
    board.set("seal", False)
    status, _, body = await get(server, "/readyz")
    assert (status, b'"seal":false' in body) == (503, True)
    board.set("seal", True)
    seen = await scrape(server)
    assert seen.one("vaultd_recovery_duration_seconds_count", component="seal") == 1
    status, _, _ = await get(server, "/readyz")
    assert status == 200


async def test_open_metrics_are_spoken_to_who_asks(server):
    status, headers, body = await get(server, "/metrics", "application/openmetrics-text; version=1.0.0")
    assert status == 200
    assert headers["content-type"].startswith("application/openmetrics-text")
    assert body.endswith(b"# EOF\n")


async def test_scrapes_at_once_all_get_an_answer(server):
    answers = await asyncio.gather(*(get(server, "/metrics") for _ in range(8)))
    assert {status for status, _, _ in answers} == {200}


@pytest.mark.parametrize(
    ("request_bytes", "status"),
    [
        (b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n", 200),
        (b"GET /healthz?verbose HTTP/1.1\r\nHost: x\r\n\r\n", 200),
        (b"HEAD /metrics HTTP/1.1\r\nHost: x\r\n\r\n", 200),
        (b"GET /nothing HTTP/1.1\r\nHost: x\r\n\r\n", 404),
        (b"POST /metrics HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n", 405),
        (b"GET /metrics HTTP/1.1\r\n\r\n", 400),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: x\r\nX: " + b"y" * (3 * MAX_REQUEST_BYTES) + b"\r\n\r\n", 431),
    ],
)
async def test_what_else_arrives_at_the_plaintext_listener(server, request_bytes, status):
    got, headers, body = await http(server.server.observing.port, request_bytes)
    assert got == status
    assert headers["connection"] == "close"
    assert (body == b"") == request_bytes.startswith(b"HEAD")


async def test_connections_that_say_nothing_are_bounded_and_keep_nobody_out_for_long(server, monkeypatch):
    monkeypatch.setattr("vaultd.hosts.plain.REQUEST_TIMEOUT_S", 3.0)  # more than it takes to open them
    port = server.server.observing.port
    silent = [await asyncio.open_connection("127.0.0.1", port) for _ in range(MAX_CONNECTIONS)]
    refused, _, _ = await http(port, b"")
    assert refused == 0
    for reader, writer in silent:
        with pytest.raises((ConnectionError, asyncio.IncompleteReadError)):
            await asyncio.wait_for(reader.readexactly(1), 60)
        writer.close()
    status, _, _ = await get(server, "/healthz")
    assert status == 200


async def test_resources_are_counted_by_when_they_expire(server):
    key = resources_pb2.Key(purpose=resources_pb2.KEY_PURPOSE_ENCRYPT_DECRYPT)
    key.expire_time.FromMicroseconds(server.server.engine.clock.now_us() + 3 * 86_400_000_000)
    request = keys_pb2.CreateKeyRequest(parent="vaults/default", key_id="expiring", key=key)
    await server.admin.keys.CreateKey(request)
    await server.server.engine.census.count()
    seen = await scrape(server)
    assert seen.one("vaultd_resources", type="key", expires="7d") == 1
    assert seen.one("vaultd_resources", type="key", expires="never") == 1
    assert sum(sample.value for sample in seen.all("vaultd_resources", type="certificate")) == 2
    assert seen.one("vaultd_rotations_due", type="key") == 0


async def test_a_server_without_metrics_has_no_listener_and_no_census(tmp_path):
    async with running_server(tmp_path) as quiet:
        assert quiet.server.observing.port == 0
        assert not quiet.server.observing.active
        assert list(quiet.server.engine.census.resources()) == []


async def test_secrets_and_sinks_have_their_figures(server):
    secret = secrets_pb2.CreateSecretRequest(parent="vaults/default", secret_id="metered")
    await server.admin.secrets.CreateSecret(secret)
    await server.admin.secrets.AddSecretVersion(
        secrets_pb2.AddSecretVersionRequest(parent="vaults/default/secrets/metered", payload=b"a secret")
    )
    access = secrets_pb2.AccessSecretVersionRequest(name="vaults/default/secrets/metered")
    for _ in range(3):
        await server.admin.secrets.AccessSecretVersion(access)
    await server.server.engine.census.count()
    seen = await scrape(server)
    assert seen.one("vaultd_cache_requests_total", cache="secrets", outcome="miss") == 1
    assert seen.one("vaultd_cache_requests_total", cache="secrets", outcome="hit") == 2
    assert seen.one("vaultd_resources", type="secret", expires="never") == 1
    assert seen.one("vaultd_rotations_due", type="secret") == 0
    expected = seen.one("vaultd_audit_sink_expected_total", sink="file")
    assert expected == seen.one("vaultd_audit_sink_delivered_total", sink="file") > 0
