"""Quotas through a real server: refusals on the wire, delegation, what is left, restarts, and load that is shed."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from contextlib import asynccontextmanager
from pathlib import Path

import grpc
import pytest
import yaml
from google.rpc import error_details_pb2
from wire import ADMIN, CRYPTO, Outcome, call, key_of, quota_of

from harness import ADMIN as ADMIN_PRINCIPAL
from harness import APP, FakeClock, RunningServer, running_server
from vaultd.devpki import create_dev_pki
from vaultd.engine.overload import LATE_PROBES, LEAST_CAP
from vaultd_client.v1 import admin_pb2, crypto_pb2, keys_pb2, quota_pb2

SPIFFE = "spiffe://dev.vaultd"
KEY = "vaults/default/keys/k"
ENCRYPT = f"{CRYPTO}Encrypt"
RESOURCE_EXHAUSTED = grpc.StatusCode.RESOURCE_EXHAUSTED
OK = grpc.StatusCode.OK
POLICY = {
    "bindings": [
        {"members": [APP, f"{SPIFFE}/other"], "role": "crypto-user", "resource": "vaults/default"},
        {"members": [f"{SPIFFE}/tenant"], "role": "vault-operator", "resource": "vaults/default"},
    ]
}


@asynccontextmanager
async def quota_server(directory, **options):
    async with running_server(directory, policy=POLICY, **options) as server:
        server.add_identity("other", uri=f"{SPIFFE}/other")
        server.add_identity("tenant", uri=f"{SPIFFE}/tenant")
        await make_key(server, "k")
        yield server


async def make_key(server, key_id: str, purpose: str = "ENCRYPT_DECRYPT", algorithm: str | None = None) -> None:
    if not any(key.name.endswith(f"/{key_id}") for key in (await keys(server)).keys):
        request = keys_pb2.CreateKeyRequest(parent="vaults/default", key_id=key_id, key=key_of(purpose, algorithm))
        await server.admin.keys.CreateKey(request)


async def keys(server):
    return await server.admin.keys.ListKeys(keys_pb2.ListKeysRequest(parent="vaults/default"))


def quota(*windows: tuple[int, int], **fields) -> quota_pb2.Quota:
    made = quota_pb2.Quota(**{"subject": "*", "resource": "vaults/default", **fields})
    for count, period_s in windows:
        made.windows.add(count=count).period.FromSeconds(period_s)
    return made


async def create(server, made: quota_pb2.Quota, parent: str = "vaults/default", quota_id: str = "q"):
    request = quota_pb2.CreateQuotaRequest(parent=parent, quota_id=quota_id, quota=made)
    return await server.admin.admin.CreateQuota(request)


def sealed(name: str = KEY) -> crypto_pb2.EncryptRequest:
    return crypto_pb2.EncryptRequest(name=name, plaintext=b"attack at dawn")


async def encrypt(server, times: int, stem: str = "app") -> list[Outcome]:
    return [await call(server.client(stem), ENCRYPT, sealed()) for _ in range(times)]


def codes(outcomes: list[Outcome]) -> list[grpc.StatusCode]:
    return [outcome.code for outcome in outcomes]


def details(outcome: Outcome) -> dict[str, object]:
    found = {}
    for kind in (error_details_pb2.RetryInfo, error_details_pb2.QuotaFailure, error_details_pb2.ErrorInfo):
        for detail in outcome.status.details:
            message = kind()
            if detail.Unpack(message):
                found[kind.__name__] = message
    return found


# -- refusals -----------------------------------------------------------------------------------------------------------


async def test_a_refusal_names_the_quota_says_when_to_come_back_and_is_small(tmp_path):
    async with quota_server(tmp_path, clock=FakeClock()) as server:
        await create(server, quota((2, 60)))
        outcomes = await encrypt(server, 3)
    assert codes(outcomes) == [OK, OK, RESOURCE_EXHAUSTED]
    found = details(outcomes[2])
    assert outcomes[2].reason == "QUOTA_EXCEEDED"
    assert found["RetryInfo"].retry_delay.ToMilliseconds() == 30_000
    assert found["ErrorInfo"].metadata["quota"] == "vaults/default/quotas/q/per_60s"
    (violation,) = found["QuotaFailure"].violations
    assert (violation.subject, "vaults/default/quotas/q" in violation.description) == ("caller", True)
    assert len(outcomes[2].trailing["grpc-status-details-bin"]) < 2_048


async def test_who_waits_as_long_as_told_is_served(tmp_path):
    clock = FakeClock()
    async with quota_server(tmp_path, clock=clock) as server:
        await create(server, quota((2, 60)))
        await encrypt(server, 2)
        clock.advance(29.999)
        assert codes(await encrypt(server, 1)) == [RESOURCE_EXHAUSTED]
        clock.advance(0.001)
        assert codes(await encrypt(server, 2)) == [OK, RESOURCE_EXHAUSTED]


async def test_a_call_that_no_wait_admits_says_so(tmp_path):
    async with quota_server(tmp_path) as server:
        await create(server, quota((3, 60)))
        request = crypto_pb2.BatchEncryptRequest(items=[sealed()] * 4)
        results = (await call(server.app, f"{CRYPTO}BatchEncrypt", request)).message().results
    assert {result.status.code for result in results} == {RESOURCE_EXHAUSTED.value[0]}
    reasons = {detail.type_url.rpartition(".")[2] for detail in results[0].status.details}
    assert "RetryInfo" not in reasons
    assert b"COST_ABOVE_QUOTA" in results[0].status.SerializeToString()


async def test_a_flood_of_refusals_is_folded_in_the_audit_log(tmp_path):
    async with quota_server(tmp_path, clock=FakeClock()) as server:
        await create(server, quota((1, 60)))
        await encrypt(server, 60)
        records = [record for record in server.audit_records() if record.get("reason") == "QUOTA_EXCEEDED"]
    assert len(records) == 20
    assert {record["principal"] for record in records} == {APP}


async def test_items_of_a_batch_are_refused_by_key_and_the_others_served(tmp_path):
    async with quota_server(tmp_path) as server:
        await make_key(server, "l")
        await create(server, quota((1, 60), resource=KEY))
        items = [sealed(), sealed("vaults/default/keys/l"), sealed(), sealed("vaults/default/keys/l")]
        batch = crypto_pb2.BatchEncryptRequest(items=items)
        results = (await call(server.app, f"{CRYPTO}BatchEncrypt", batch)).message().results
        assert [result.WhichOneof("outcome") for result in results] == ["status", "result", "status", "result"]
        assert codes(await encrypt(server, 2)) == [OK, RESOURCE_EXHAUSTED]


async def test_each_principal_is_counted_by_itself_and_a_shared_quota_for_all(tmp_path):
    async with quota_server(tmp_path, clock=FakeClock()) as server:
        await create(server, quota((2, 60)))
        assert codes(await encrypt(server, 2) + await encrypt(server, 2, "other")) == [OK] * 4
    async with quota_server(tmp_path, clock=FakeClock()) as server:
        await create(server, quota((2, 60), subject=""), quota_id="shared")
        assert codes(await encrypt(server, 2) + await encrypt(server, 1, "other")) == [OK, OK, RESOURCE_EXHAUSTED]


async def test_who_may_not_use_a_key_cannot_spend_its_quota(tmp_path):
    async with quota_server(tmp_path, clock=FakeClock()) as server:
        await create(server, quota((2, 60), subject=""))
        for outcome in [await call(server.client("tenant"), ENCRYPT, sealed()) for _ in range(5)]:
            assert outcome.code is grpc.StatusCode.PERMISSION_DENIED
        assert codes(await encrypt(server, 2)) == [OK, OK]


async def test_an_expensive_algorithm_costs_more(tmp_path):
    async with quota_server(tmp_path, clock=FakeClock()) as server:
        await make_key(server, "rsa", "SIGN", "RSA_PSS_2048_SHA256")
        request = crypto_pb2.SignRequest(name="vaults/default/keys/rsa", message=b"a message")
        await call(server.app, f"{CRYPTO}Sign", request)  # the key is in memory from now on
        await create(server, quota((4, 60)))
        outcomes = [await call(server.app, f"{CRYPTO}Sign", request) for _ in range(3)]
    assert codes(outcomes) == [OK, OK, RESOURCE_EXHAUSTED]


async def test_making_an_rsa_key_costs_more_than_making_another(tmp_path):
    async with quota_server(tmp_path, clock=FakeClock()) as server:
        await create(server, quota((30, 60), methods=["KeysService.CreateKey"]), parent="/")
        for key_id, (purpose, algorithm), expected in (
            ("first", ("SIGN", "RSA_PSS_2048_SHA256"), OK),
            ("second", ("SIGN", "RSA_PSS_2048_SHA256"), RESOURCE_EXHAUSTED),
            ("third", ("SIGN", "ED25519"), OK),
        ):
            request = keys_pb2.CreateKeyRequest(parent="vaults/default", key_id=key_id, key=key_of(purpose, algorithm))
            assert (await call(server.admin, "/vaultd.v1.KeysService/CreateKey", request)).code is expected


# -- the API ------------------------------------------------------------------------------------------------------------


async def test_a_quota_is_made_read_listed_changed_and_deleted(tmp_path):
    async with quota_server(tmp_path, clock=FakeClock()) as server:
        api = server.admin.admin
        made = await create(server, quota((10, 60), (1_000, 86_400), subject=APP, classes=[1]))
        assert (made.name, list(made.classes)) == ("vaults/default/quotas/q", [quota_pb2.QUOTA_CLASS_SYMMETRIC])
        assert [window.durable for window in made.windows] == [False, True]
        await encrypt(server, 3)
        read = await api.GetQuota(quota_pb2.GetQuotaRequest(name=made.name))
        assert [window.left for window in read.windows] == [7, 997]
        assert read.windows[0].full_time.seconds - read.windows[1].full_time.seconds < 0
        listed = await api.ListQuotas(quota_pb2.ListQuotasRequest(parent="vaults/default"))
        assert [each.name for each in listed.quotas] == [made.name]
        assert not listed.quotas[0].windows[0].HasField("left")
        change = quota_pb2.UpdateQuotaRequest(quota=quota((1, 60), name=made.name), etag=made.etag)
        change.update_mask.paths.append("windows")
        changed = await api.UpdateQuota(change)
        assert codes(await encrypt(server, 2)) == [OK, RESOURCE_EXHAUSTED]
        await api.DeleteQuota(quota_pb2.DeleteQuotaRequest(name=made.name, etag=changed.etag))
        assert codes(await encrypt(server, 2)) == [OK, OK]


async def test_the_quotas_of_the_server_are_not_among_those_of_a_vault(tmp_path):
    async with quota_server(tmp_path) as server:
        await create(server, quota((1_000, 60), resource="/"), parent="/", quota_id="all")
        await create(server, quota((1_000, 60)), quota_id="one")
        found = {}
        for parent in ("/", "vaults/default"):
            listed = await server.admin.admin.ListQuotas(quota_pb2.ListQuotasRequest(parent=parent))
            found[parent] = [each.name for each in listed.quotas]
    assert found == {"/": ["quotas/all"], "vaults/default": ["vaults/default/quotas/one"]}


async def test_pages_of_quotas_have_each_once(tmp_path):
    async with quota_server(tmp_path) as server:
        for number in range(5):
            await create(server, quota((1_000_000, 1)), quota_id=f"q{number}")
        names, token = [], ""
        while True:
            request = quota_pb2.ListQuotasRequest(parent="vaults/default", page_size=2, page_token=token)
            page = await server.admin.admin.ListQuotas(request)
            names += [each.name.rpartition("/")[2] for each in page.quotas]
            token = page.next_page_token
            if not token:
                break
    assert names == ["q0", "q1", "q2", "q3", "q4"]


@pytest.mark.parametrize(
    ("fields", "windows", "field"),
    [
        ({"resource": "vaults/other"}, [(1, 1)], "quota.resource"),
        ({"resource": "/"}, [(1, 1)], "quota.resource"),
        ({"resource": "vaults/other/keys/k"}, [(1, 1)], "quota.resource"),
        ({"subject": "app"}, [(1, 1)], "quota.subject"),
        ({"subject": "group:ops"}, [(1, 1)], "quota.subject"),
        ({"methods": ["CryptoService.Guess"]}, [(1, 1)], "quota.methods"),
        ({"methods": ["CryptoService.BatchSign"]}, [(1, 1)], "quota.methods"),
        ({"classes": [1, 1]}, [(1, 1)], "quota.classes"),
        ({"classes": [0]}, [(1, 1)], "quota.classes"),
        ({}, [], "quota.windows"),
        ({}, [(1, 1), (2, 1)], "quota.windows"),
        ({}, [(0, 1)], "quota.windows[0].count"),
        ({}, [(1, 0)], "quota.windows[0].period"),
        ({}, [(1, 367 * 86_400)], "quota.windows[0].period"),
        ({}, [(n + 1, n + 1) for n in range(9)], "quota.windows"),
    ],
)
async def test_a_quota_that_makes_no_sense_is_refused_with_the_field_at_fault(tmp_path, fields, windows, field):
    async with quota_server(tmp_path) as server:
        request = quota_pb2.CreateQuotaRequest(parent="vaults/default", quota_id="q", quota=quota(*windows, **fields))
        outcome = await call(server.admin, f"{ADMIN}CreateQuota", request)
    assert (outcome.code, outcome.fields) == (grpc.StatusCode.INVALID_ARGUMENT, [field])


async def test_an_operator_of_one_vault_sets_quotas_of_that_vault_only(tmp_path):
    async with quota_server(tmp_path) as server:
        await server.admin.admin.CreateVault(admin_pb2.CreateVaultRequest(vault_id="other"))
        tenant = server.client("tenant")
        for parent, resource, expected in (
            ("vaults/default", "vaults/default", OK),
            ("vaults/other", "vaults/other", grpc.StatusCode.PERMISSION_DENIED),
            ("vaults/default", "vaults/other", grpc.StatusCode.INVALID_ARGUMENT),
            ("/", "vaults/default", grpc.StatusCode.PERMISSION_DENIED),
        ):
            request = quota_pb2.CreateQuotaRequest(
                parent=parent, quota_id="mine", quota=quota((1_000, 1), resource=resource)
            )
            assert (await call(tenant, f"{ADMIN}CreateQuota", request)).code is expected
        await create(server, quota((1_000, 1)), parent="/", quota_id="theirs")
        for name in ("quotas/theirs", "vaults/other/quotas/q"):
            for method in ("GetQuota", "DeleteQuota"):
                request = getattr(quota_pb2, f"{method}Request")(name=name)
                outcome = await call(tenant, f"{ADMIN}{method}", request)
                assert outcome.code is grpc.StatusCode.PERMISSION_DENIED


async def test_a_quota_of_the_server_on_a_vault_holds_whatever_the_vault_s_own_say(tmp_path):
    async with quota_server(tmp_path, clock=FakeClock()) as server:
        await create(server, quota((1, 60)), parent="/", quota_id="ceiling")
        await create(server, quota((1_000, 60)))
        assert codes(await encrypt(server, 2)) == [OK, RESOURCE_EXHAUSTED]


async def test_a_caller_sees_what_is_left_for_itself_and_nothing_of_others(tmp_path):
    async with quota_server(tmp_path, clock=FakeClock()) as server:
        await create(server, quota((10, 60), classes=[1]))
        await create(server, quota((20, 60), subject=""), quota_id="shared")
        await create(server, quota((30, 60), subject=f"{SPIFFE}/other"), quota_id="theirs")
        await encrypt(server, 3)
        await encrypt(server, 2, "other")
        request = quota_pb2.ListOwnQuotasRequest(resource=KEY, method="CryptoService.Encrypt")
        answer = (await call(server.app, f"{ADMIN}ListOwnQuotas", request)).message()
        left = {each.name: each.windows[0].left for each in answer.quotas if each.windows[0].HasField("left")}
        assert left == {"limits.symmetric": 400_000 - 3, "vaults/default/quotas/q": 7}
        assert [each.name for each in answer.quotas if each.name not in left] == ["vaults/default/quotas/shared"]
        assert b"spiffe" not in answer.SerializeToString()


async def test_who_may_read_quotas_sees_the_count_of_a_principal_that_is_named(tmp_path):
    async with quota_server(tmp_path, clock=FakeClock()) as server:
        name = (await create(server, quota((10, 60), classes=[1]))).name
        await encrypt(server, 3)
        for principal, left in ((APP, 7), (f"{SPIFFE}/other", 10), ("", 10)):
            request = quota_pb2.GetQuotaRequest(name=name, principal=principal)
            assert (await server.admin.admin.GetQuota(request)).windows[0].left == left


async def test_a_retry_with_the_same_request_id_makes_one_quota(tmp_path):
    async with quota_server(tmp_path) as server:
        request = quota_pb2.CreateQuotaRequest(
            parent="vaults/default", quota_id="q", quota=quota((10, 60)), request_id="one"
        )
        first, second = [await call(server.admin, f"{ADMIN}CreateQuota", request) for _ in range(2)]
        request.request_id = "two"
        third = await call(server.admin, f"{ADMIN}CreateQuota", request)
    assert first.message() == second.message()
    assert third.reason == "QUOTA_EXISTS"


async def test_a_quota_of_a_vault_that_does_not_exist_cannot_be_made(tmp_path):
    async with quota_server(tmp_path) as server:
        request = quota_pb2.CreateQuotaRequest(parent="vaults/none", quota_id="q", quota=quota_of("none"))
        assert (await call(server.admin, f"{ADMIN}CreateQuota", request)).reason == "VAULT_NOT_FOUND"


async def test_an_update_with_a_stale_etag_is_refused(tmp_path):
    async with quota_server(tmp_path) as server:
        made = await create(server, quota((10, 60)))
        request = quota_pb2.UpdateQuotaRequest(quota=quota((1, 60), name=made.name), etag='"1"')
        request.update_mask.paths.append("windows")
        assert (await call(server.admin, f"{ADMIN}UpdateQuota", request)).code is grpc.StatusCode.ABORTED


# -- restarts -----------------------------------------------------------------------------------------------------------


async def test_a_daily_window_survives_a_restart_and_a_short_one_begins_anew(tmp_path):
    clock = FakeClock()
    async with quota_server(tmp_path, clock=clock) as server:
        await create(server, quota((5, 60), (8, 86_400)))
        assert codes(await encrypt(server, 6)) == [OK] * 5 + [RESOURCE_EXHAUSTED]
    async with quota_server(tmp_path, clock=clock) as server:
        assert codes(await encrypt(server, 4)) == [OK] * 3 + [RESOURCE_EXHAUSTED]


async def test_two_servers_on_one_store_share_a_daily_window(tmp_path):
    clock = FakeClock()
    second = {"audit": {"directory": tmp_path / "audit-2"}}
    async with quota_server(tmp_path, clock=clock) as one, running_server(tmp_path, clock=clock, **second) as two:
        await create(one, quota((8, 86_400)))
        await two.server.engine.feed.poll()
        await two.server.engine.quotas.follow()
        outcomes = [outcome for _ in range(6) for server in (one, two) for outcome in await encrypt(server, 1)]
    assert codes(outcomes).count(OK) == 8


class Process:
    """`vaultd serve` in a process of its own, to be killed."""

    def __init__(self, directory: Path) -> None:
        root = Path(__file__).resolve().parents[2]
        environment = {**os.environ, "PYTHONPATH": f"{root}:{root / 'clients/python'}"}
        command = [sys.executable, "-m", "vaultd"]
        config = ["--config", str(directory / "config.yaml")]
        if not (directory / "vault.db").exists():
            init = [*command, "init", *config, "--admin", ADMIN_PRINCIPAL]
            subprocess.run(init, env=environment, cwd=root, check=True, capture_output=True)
        self._popen = subprocess.Popen(
            [*command, "serve", *config], env=environment, cwd=root, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
        )
        self.port = int(self._popen.stdout.readline().rpartition(b":")[2])

    def kill(self) -> None:
        self._popen.send_signal(signal.SIGKILL)
        self._popen.wait(10)
        self._popen.stdout.close()


@pytest.mark.slow
async def test_kill_9_gives_nothing_back_of_a_daily_window(tmp_path):
    create_dev_pki(tmp_path / "tls", hosts=["127.0.0.1"])
    document = {
        "listen": "127.0.0.1:0",
        "tls": {"certificate": "tls/server.crt", "key": "tls/server.key"},
        "trust_bundles": [{"name": "dev", "ca": "tls/ca.crt", "trust_domain": "dev.vaultd"}],
        "store": {"path": "vault.db"},
        "root_key": {"provider": "file", "path": "root.key"},
        "audit": {"directory": "audit"},
    }
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(document))
    count, block, admitted = 256, 256 // 64, 0
    for life in range(3):
        process = Process(tmp_path)
        server = RunningServer(process, tmp_path)
        try:
            if life == 0:
                await make_key(server, "k")
                await create(server, quota((count, 366 * 86_400)))
            outcomes = await encrypt(server, 50 if life < 2 else count, "admin")
            admitted += codes(outcomes).count(OK)
        finally:
            await server.close()
            process.kill()
    assert count - 2 * (block + block // 2) <= admitted <= count


# -- overload -----------------------------------------------------------------------------------------------------------


async def silent_calls(server, stem: str, number: int):
    """Calls that are in flight and send nothing."""
    calls = [server.client(stem).channel.stream_unary(ENCRYPT)() for _ in range(number)]
    async with asyncio.timeout(60):
        while len(server.server.chain._throttle.unary) < number:
            await server.client("other").raw("/grpc.health.v1.Health/Check")(b"")  # a turn for those before it
    return calls


async def test_an_overloaded_server_sheds_who_has_most_calls_under_way_and_nobody_else(tmp_path):
    async with quota_server(tmp_path, limits={"overload_delay_ms": 50}) as server:
        held = await silent_calls(server, "app", 4 * LEAST_CAP)
        for _ in range(LATE_PROBES + 20):
            server.server.shedder.note(1.0)
        shed = await call(server.app, ENCRYPT, sealed())
        served = await call(server.client("other"), ENCRYPT, sealed())
        health = await call_health(server)
        for _ in range(100):
            server.server.shedder.note(0.0)
        again = await call(server.app, ENCRYPT, sealed())
        for each in held:
            each.cancel()
        events = [record["event"] for record in server.audit_records() if "shedding" in record["event"]]
    assert (shed.code, shed.reason) == (RESOURCE_EXHAUSTED, "LOAD_SHED")
    assert details(shed)["RetryInfo"].retry_delay.ToMilliseconds() == 500
    assert (served.code, health, again.code) == (OK, True, OK)
    assert events == ["load_shedding_began", "load_shedding_ended"]


async def call_health(server) -> bool:
    answer = await server.app.raw("/grpc.health.v1.Health/Check")(b"")
    return answer == b"\x08\x01"


async def test_shedding_can_be_turned_off(tmp_path):
    async with quota_server(tmp_path, limits={"overload_delay_ms": 0}) as server:
        held = await silent_calls(server, "app", 4 * LEAST_CAP)
        for _ in range(LATE_PROBES + 20):
            server.server.shedder.note(1.0)
        assert (await call(server.app, ENCRYPT, sealed())).code is OK
        for each in held:
            each.cancel()
