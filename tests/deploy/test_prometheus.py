"""A real Prometheus scrapes a real server, evaluates the rules, and answers every query of the dashboards."""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import socket
import time
import urllib.parse
from contextlib import asynccontextmanager

import grpc
import pytest
import pytest_asyncio
import yaml
from test_operations_kit import ALERTS, DASHBOARDS, PROMETHEUS, RECORDED, expressions

from collector import collecting
from harness import running_server
from pki import Authority
from ports import free_port
from scraping import http
from softhsm import hsm_section
from vaultd.devpki import create_dev_pki
from vaultd.engine.clock import SystemClock
from vaultd_client.v1 import crypto_pb2, keys_pb2, resources_pb2

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.slow]


class Prometheus:
    """A running Prometheus."""

    def __init__(self, port: int) -> None:
        self._port = port

    async def api(self, path: str, **parameters: str) -> dict:
        target = f"/api/v1/{path}?{urllib.parse.urlencode(parameters)}"
        request = f"GET {target} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
        status, headers, body = await http(self._port, request.encode())
        if headers.get("Transfer-Encoding") == "chunked":
            body = re.sub(rb"(?:^|\r\n)[0-9a-f]+\r\n", b"", body)
        assert status == 200, (path, parameters, body)
        return json.loads(body)["data"]

    async def query(self, expression: str) -> list[dict]:
        return (await self.api("query", query=expression))["result"]

    async def until(self, expression: str) -> list[dict]:
        """Ask until there is an answer."""
        async with asyncio.timeout(60):
            while not (found := await self.query(expression)):  # noqa: ASYNC110  # another process's doing
                await asyncio.sleep(0.2)
        return found


@asynccontextmanager
async def prometheus_of(directory, target_port):
    """Prometheus with the kit's rules, but scrapes and evaluations each half second."""
    document = yaml.safe_load((PROMETHEUS / "prometheus.yml").read_text())
    document["global"] = {"scrape_interval": "500ms", "evaluation_interval": "500ms"}
    document["rule_files"] = [str(PROMETHEUS / path) for path in document["rule_files"]]
    document["scrape_configs"][0]["static_configs"] = [{"targets": [f"127.0.0.1:{target_port}"]}]
    del document["alerting"]
    directory.mkdir()
    config = directory / "prometheus.yml"
    config.write_text(yaml.safe_dump(document))
    port = free_port()
    with (directory / "log").open("wb") as log:
        process = await asyncio.create_subprocess_exec(
            "prometheus",
            f"--config.file={config}",
            f"--storage.tsdb.path={directory / 'data'}",
            f"--web.listen-address=127.0.0.1:{port}",
            stdout=log,
            stderr=log,
        )
    try:
        async with asyncio.timeout(60):
            while True:
                try:
                    status, _, _ = await http(port, b"GET /-/ready HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
                    if status == 200:
                        break
                except ConnectionError:
                    assert process.returncode is None, (directory / "log").read_text()
                await asyncio.sleep(0.1)
        yield Prometheus(port)
    finally:
        os.kill(process.pid, signal.SIGTERM)
        await process.wait()


async def some_of_everything(server) -> None:
    """Calls of many kinds: answered, refused, batched, in a token, by nobody that is known."""
    for key_id, level in (("soft", "SOFTWARE"), ("hard", "HSM")):
        key = resources_pb2.Key(
            purpose=resources_pb2.KEY_PURPOSE_SIGN,
            algorithm=resources_pb2.ALGORITHM_RSA_PSS_2048_SHA256,
            protection_level=resources_pb2.ProtectionLevel.Value(f"PROTECTION_LEVEL_{level}"),
        )
        request = keys_pb2.CreateKeyRequest(parent="vaults/default", key_id=key_id, key=key)
        await server.admin.keys.CreateKey(request)
    item = crypto_pb2.SignRequest(name="vaults/default/keys/soft", message=b"m")
    for _ in range(3):
        await server.app.crypto.Sign(item)
        await server.app.crypto.Sign(crypto_pb2.SignRequest(name="vaults/default/keys/hard", message=b"m"))
        await server.app.crypto.BatchSign(crypto_pb2.BatchSignRequest(items=[item, crypto_pb2.SignRequest(name="x")]))
    stranger = server.add_identity("stranger", dns="stranger.example.org")
    for client in (stranger, server.app):
        with pytest.raises(grpc.aio.AioRpcError):
            await client.keys.GetKey(keys_pb2.GetKeyRequest(name="vaults/default/keys/nothing"))
    server.server.board.set("storage", False)
    server.server.board.set("storage", True)
    server.server._on_event("rotate", "vaults/default/keys/soft", "")
    await server.server.engine.census.count()


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def watched(tmp_path_factory):
    directory = tmp_path_factory.mktemp("prometheus")
    authority = Authority()
    create_dev_pki(directory / "tls", hosts=["127.0.0.1"])
    (directory / "other.ca").write_bytes(authority.pem())
    (directory / "other.crl").write_bytes(authority.crl(now_us=SystemClock().now_us()))
    bundles = [
        {"name": "dev", "ca": directory / "tls/ca.crt", "trust_domain": "dev.vaultd"},
        {
            "name": "other",
            "ca": directory / "other.ca",
            "crl": directory / "other.crl",
            "trust_domain": "other.example",
        },
    ]
    closed = socket.socket()
    closed.bind(("127.0.0.1", 0))  # listens to nobody: a sink that fails
    sink = {"name": "siem", "kind": "syslog", "tls": False, "address": f"127.0.0.1:{closed.getsockname()[1]}"}
    async with (
        collecting() as collector,
        running_server(
            directory,
            audit={"directory": directory / "audit", "sinks": [sink]},
            trust_bundles=bundles,
            hsm=[hsm_section(directory / "hsm")],
            metrics={"listen": "127.0.0.1:0"},
            otlp={"endpoint": f"http://127.0.0.1:{collector.port}"},
        ) as server,
    ):
        await some_of_everything(server)
        async with prometheus_of(directory / "prometheus", server.server.observing.port) as prometheus:
            await prometheus.until("rate(vaultd_audit_records_total[5m])")
            for _ in range(3):  # counters of failures begin to count when they are seen for a second time
                await some_calls(server)
            await prometheus.until('vaultd:calls:rate5m{job="vaultd"} > 0')
            await prometheus.until("vaultd:availability:ratio_30d")
            yield prometheus
    closed.close()


async def some_calls(server) -> None:
    item = crypto_pb2.SignRequest(name="vaults/default/keys/soft", message=b"m")
    await server.app.crypto.Sign(item)
    with pytest.raises(grpc.aio.AioRpcError):
        await server.client("stranger").crypto.Sign(item)


async def test_the_server_is_scraped_without_a_complaint(watched):
    async with asyncio.timeout(60):
        (target,) = (await watched.api("targets"))["activeTargets"]
        while (
            "deadline exceeded" in target["lastError"]
        ):  # half a second is little on a busy machine: the next one counts
            await asyncio.sleep(0.1)
            (target,) = (await watched.api("targets"))["activeTargets"]
    assert (target["health"], target["lastError"]) == ("up", "")
    assert await watched.until('up{job="vaultd"} == 1')


async def test_every_rule_is_evaluated_without_an_error(watched):
    groups = (await watched.api("rules"))["groups"]
    rules = [rule for group in groups for rule in group["rules"]]
    assert len(rules) == len(ALERTS) + len(RECORDED)
    await watched.until("vaultd:call_errors:ratio_rate3d")
    assert [rule for rule in rules if rule["health"] == "err"] == []


async def test_every_indicator_has_a_value(watched):
    for record in sorted(RECORDED):
        assert await watched.until(record), record


async def test_a_server_that_is_well_alerts_nobody(watched):
    firing = {found["metric"]["alertname"] for found in await watched.query('ALERTS{alertstate="firing"}')}
    assert firing == set()


@pytest.mark.parametrize("path", DASHBOARDS, ids=lambda path: path.stem)
async def test_every_query_of_a_dashboard_has_data(watched, path):
    asked = 0
    for expression in expressions(path):
        given = expression.replace("$job", "vaultd").replace("$instance", ".*").replace("$__rate_interval", "1m")
        assert "$" not in given
        assert await watched.until(given), expression
        asked += 1
    assert asked > 10


async def test_the_metadata_says_what_each_metric_is(watched):
    metadata = await watched.api("metadata")
    assert metadata["rpc_server_call_duration_seconds"][0]["type"] == "histogram"
    assert metadata["vaultd_audit_records"][0]["type"] == "counter"
    assert time.time() - float((await watched.query("vaultd_start_time_seconds"))[0]["value"][1]) < 600
