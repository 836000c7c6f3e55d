"""Every call leaves exactly one record before its reply, and nothing is answered that cannot be recorded."""

from __future__ import annotations

import asyncio
import hashlib
import re
import shutil

import orjson
import pytest
import pytest_asyncio
from grpc_health.v1 import health_pb2, health_pb2_grpc
from wire import (
    ADMIN,
    BATCHES,
    CRYPTO,
    ENDLESS,
    GENEROUS,
    KEYS,
    METHODS,
    MUTATIONS,
    NOT_FOUND,
    OK,
    SECRETS,
    STREAMS,
    UNAVAILABLE,
    World,
    call,
    request_class,
    short,
    single_of,
)

from harness import FakeClock, running_server
from vaultd_client.v1 import crypto_pb2, keys_pb2, resources_pb2

pytestmark = pytest.mark.asyncio(loop_scope="module")

ANY = sorted(METHODS)
SERVING = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def world(tmp_path_factory):
    async with running_server(tmp_path_factory.mktemp("audit"), **GENEROUS) as server:
        made = World(server)
        await made.furnish("default")
        server.add_identity("stranger", uri="spiffe://dev.vaultd/stranger")
        server.add_identity("nobody")
        yield made


def lines(server) -> list[bytes]:
    """Every line of the log, in order."""
    paths = sorted((server.directory / "audit").glob("*.jsonl"))
    return [line for path in paths for line in path.read_bytes().splitlines()]


def records_of(server, outcome) -> list[dict]:
    """What the log says of one call."""
    return [record for record in server.audit_records() if record.get("id") == outcome.request_id]


@pytest.mark.parametrize("path", [path for path in ANY if path not in {f"{ADMIN}Seal", *ENDLESS}], ids=short)
async def test_a_call_has_its_one_outcome_recorded_when_the_reply_arrives(world, path):
    outcome = await call(world.admin, path, await world.request(path))
    records = records_of(world.server, outcome)
    outcomes = [record for record in records if record["event"] == "call"]
    assert [record["method"] for record in outcomes] == [path]
    assert outcomes[0]["code"] == outcome.code.name
    assert outcomes[0]["principal"] == "spiffe://dev.vaultd/admin"
    assert outcomes[0]["peer"].startswith("ipv4:127.0.0.1:")
    assert outcomes[0]["latency_us"] >= 0


@pytest.mark.parametrize("path", [path for path in ANY if path not in {f"{ADMIN}Seal", *ENDLESS}], ids=short)
async def test_a_mutation_has_its_intent_recorded_before_its_outcome_and_a_read_has_none(world, path):
    outcome = await call(world.admin, path, await world.request(path))
    events = [record["event"] for record in records_of(world.server, outcome)]
    begun = ["intent"] if path in MUTATIONS else ["open"] if path in STREAMS else []
    assert events == [*begun, "call"]


@pytest.mark.parametrize("path", [path for path in ANY if path not in {f"{ADMIN}Seal", *ENDLESS}], ids=short)
async def test_a_receipt_names_the_record_by_its_number_and_its_hash(world, path):
    outcome = await call(world.admin, path, await world.request(path))
    receipt = resources_pb2.AuditReceipt.FromString(outcome.trailing["vaultd-receipt-bin"])
    (line,) = [line for line in lines(world.server) if orjson.loads(line)["seq"] == receipt.sequence]
    assert orjson.loads(line)["id"] == outcome.request_id
    assert receipt.leaf_hash == hashlib.sha256(b"\x00" + line).digest()
    chain_id = bytes.fromhex((world.server.directory / "audit/chain-id").read_text().strip())
    assert receipt.chain_id == chain_id


async def test_request_ids_differ(world):
    request = world.crypto_request("Encrypt")
    ids = {(await call(world.admin, f"{CRYPTO}Encrypt", request)).request_id for _ in range(20)}
    assert len(ids) == 20


async def test_records_are_numbered_without_gaps(world):
    await call(world.admin, f"{CRYPTO}Encrypt", world.crypto_request("Encrypt"))
    numbers = [orjson.loads(line)["seq"] for line in lines(world.server)]
    assert numbers == list(range(1, len(numbers) + 1))


REFUSALS = {
    "denied": ("stranger", f"{CRYPTO}Encrypt", None, "PERMISSION_DENIED", "PERMISSION_DENIED"),
    "unauthenticated": ("nobody", f"{CRYPTO}Encrypt", None, "UNAUTHENTICATED", "NO_ACCEPTED_IDENTITY"),
    "malformed": ("admin", f"{CRYPTO}Encrypt", b"\xff\xff", "INVALID_ARGUMENT", "REQUEST_MALFORMED"),
    "invalid": ("admin", f"{KEYS}GetKey", keys_pb2.GetKeyRequest(name="X"), "INVALID_ARGUMENT", "INVALID_NAME"),
    "not-found": (
        "admin",
        f"{KEYS}GetKey",
        keys_pb2.GetKeyRequest(name="vaults/default/keys/none"),
        "NOT_FOUND",
        "KEY_NOT_FOUND",
    ),
    "wrong-purpose": (
        "admin",
        f"{CRYPTO}Encrypt",
        crypto_pb2.EncryptRequest(name="vaults/default/keys/mac"),
        "FAILED_PRECONDITION",
        "WRONG_PURPOSE",
    ),
    "unopened": (
        "admin",
        f"{CRYPTO}Decrypt",
        crypto_pb2.DecryptRequest(name="vaults/default/keys/enc", ciphertext=b"x"),
        "INVALID_ARGUMENT",
        "DECRYPTION_FAILED",
    ),
    "unknown-method": ("admin", f"{CRYPTO}Guess", b"", "UNIMPLEMENTED", "METHOD_UNKNOWN"),
}


@pytest.mark.parametrize("case", REFUSALS)
async def test_a_refused_call_is_recorded_with_its_reason_and_has_a_receipt(world, case):
    stem, path, body, code, reason = REFUSALS[case]
    request = world.crypto_request("Encrypt") if body is None else body
    outcome = await call(world.server.client(stem), path, request)
    (record,) = records_of(world.server, outcome)
    assert (record["event"], record["code"], record["reason"]) == ("call", code, reason)
    receipt = resources_pb2.AuditReceipt.FromString(outcome.trailing["vaultd-receipt-bin"])
    assert receipt.sequence == record["seq"]


async def test_a_refused_mutation_that_was_never_begun_has_no_intent(world):
    request = await world.request(f"{KEYS}CreateKey")
    outcome = await call(world.server.client("stranger"), f"{KEYS}CreateKey", request)
    assert [record["event"] for record in records_of(world.server, outcome)] == ["call"]


async def test_a_record_carries_names_and_the_version_used_and_no_payload(world):
    request = crypto_pb2.EncryptRequest(name="vaults/default/keys/enc", plaintext=b"p" * 40)
    outcome = await call(world.admin, f"{CRYPTO}Encrypt", request)
    (record,) = records_of(world.server, outcome)
    assert record["name"] == "vaults/default/keys/enc"
    assert record["key_version"] == "vaults/default/keys/enc/versions/1"
    assert record["bytes_in"] == len(request.SerializeToString())
    assert record["bytes_out"] == len(outcome.body)
    assert "pppp" not in str(record)


async def test_a_record_carries_the_trace_that_the_caller_named(world):
    trace = "4bf92f3577b34da6a3ce929d0e0e4736"
    metadata = [("traceparent", f"00-{trace}-00f067aa0ba902b7-01")]
    outcome = await call(world.admin, f"{CRYPTO}Encrypt", world.crypto_request("Encrypt"), metadata=metadata)
    (record,) = records_of(world.server, outcome)
    assert record["trace_id"] == trace


@pytest.mark.parametrize("trace", ["nonsense", "00-XYZ-00f067aa0ba902b7-01", "canary"])
async def test_a_malformed_trace_is_not_recorded(world, trace):
    metadata = [("traceparent", trace)]
    outcome = await call(world.admin, f"{CRYPTO}Encrypt", world.crypto_request("Encrypt"), metadata=metadata)
    (record,) = records_of(world.server, outcome)
    assert "trace_id" not in record


@pytest.mark.parametrize("path", BATCHES, ids=short)
async def test_a_batch_is_one_record_with_its_count_and_every_failure(world, path):
    kind, reason, used = ("keys", "KEY_NOT_FOUND", "key_version")
    if path.startswith(SECRETS):
        kind, reason, used = ("secrets", "SECRET_NOT_FOUND", "version")
    good = await world.request(single_of(path))
    bad, missing = type(good)(), type(good)()
    missing.CopyFrom(good)
    for field in ("name", "source_name"):
        if field in good.DESCRIPTOR.fields_by_name:
            setattr(missing, field, f"vaults/default/{kind}/missing")
    outcome = await call(world.admin, path, request_class(path)(items=[good, bad, good, missing, bad]))
    (record,) = records_of(world.server, outcome)
    assert (record["code"], record["items"]) == ("OK", 5)
    assert record["failures"] == {"INVALID_NAME": [1, 4], reason: [3]}
    assert sum(record[used].values()) == 2


async def test_a_record_says_what_decided(world):
    outcome = await call(world.admin, f"{CRYPTO}Encrypt", world.crypto_request("Encrypt"))
    (record,) = records_of(world.server, outcome)
    assert record["decision"] == "allowed"
    assert re.fullmatch(r"bindings\[\d+\] gives admin on /", record["binding"])
    outcome = await call(world.server.client("stranger"), f"{CRYPTO}Encrypt", world.crypto_request("Encrypt"))
    (record,) = records_of(world.server, outcome)
    assert (record["decision"], record["binding"]) == ("denied", "no binding")
    assert "no binding" not in outcome.text
    outcome = await call(world.server.client("nobody"), f"{CRYPTO}Encrypt", world.crypto_request("Encrypt"))
    (record,) = records_of(world.server, outcome)
    assert "decision" not in record


async def test_a_record_of_a_batch_counts_what_decided(world):
    good = world.crypto_request("Encrypt")
    request = crypto_pb2.BatchEncryptRequest(items=[good, good, crypto_pb2.EncryptRequest()])
    (record,) = records_of(world.server, await call(world.admin, f"{CRYPTO}BatchEncrypt", request))
    ((binding, count),) = record["bindings"].items()
    assert (binding.endswith("gives admin on /"), count) == (True, 2)


async def test_the_retry_of_a_mutation_is_recognised_and_its_request_id_is_not_in_the_log(world):
    request = await world.request(f"{KEYS}CreateKey")
    request.request_id = "canary-of-a-retry"
    macs = []
    for _ in range(2):
        records = records_of(world.server, await call(world.admin, f"{KEYS}CreateKey", request))
        macs += [record["request_id_hmac"] for record in records]
    assert len(macs) == 4
    assert len(set(macs)) == 1
    other = await world.request(f"{KEYS}CreateKey")
    other.request_id = "another"
    records = records_of(world.server, await call(world.admin, f"{KEYS}CreateKey", other))
    assert {record["request_id_hmac"] for record in records}.isdisjoint(macs)
    assert b"canary-of-a-retry" not in b"".join(lines(world.server))


async def test_each_item_of_a_batch_is_recorded_where_that_is_asked_for_and_records_wait_for_the_disk(tmp_path):
    audit = {"directory": tmp_path / "audit", "batch_items": True, "sync": ["mutation", "symmetric"]}
    async with running_server(tmp_path, audit=audit, **GENEROUS) as server:
        world = World(server)
        await world.furnish("default")
        good, missing = world.crypto_request("Encrypt"), world.crypto_request("Encrypt")
        missing.name = "vaults/default/keys/missing"
        request = crypto_pb2.BatchEncryptRequest(items=[good, crypto_pb2.EncryptRequest(name="X"), missing, good])
        outcome = await call(server.admin, f"{CRYPTO}BatchEncrypt", request)
        *items, batch = records_of(server, outcome)
        assert server.server._audit_log._segment.synced == server.server._audit_log._segment.size
    assert (batch["event"], batch["items"]) == ("call", 4)
    version = f"{good.name}/versions/1"
    found = [(r["item"], r.get("name"), r.get("key_version"), r["code"], r.get("reason")) for r in items]
    assert found == [
        (0, good.name, version, "OK", None),
        (1, None, None, "INVALID_ARGUMENT", "INVALID_NAME"),
        (2, missing.name, None, "NOT_FOUND", "KEY_NOT_FOUND"),
        (3, good.name, version, "OK", None),
    ]


async def test_calls_are_refused_and_recorded_before_the_disk_is_full(tmp_path):
    everything = 2**50
    async with running_server(tmp_path, **GENEROUS) as server:
        world = World(server)
        await world.furnish("default")
        log = server.server._audit_log
        log._min_free_bytes = everything
        log.check()
        outcome = await call(server.admin, f"{CRYPTO}Encrypt", world.crypto_request("Encrypt"))
        assert (outcome.code, outcome.reason, outcome.body) == (UNAVAILABLE, "AUDIT_DISK_LOW", b"")
        assert [r["reason"] for r in records_of(server, outcome)] == ["AUDIT_DISK_LOW"]
        await Outage(server).becomes(NOT_SERVING)
        log._min_free_bytes = 1
        log.check()
        assert (await call(server.admin, f"{CRYPTO}Encrypt", world.crypto_request("Encrypt"))).code is OK


async def test_a_flood_of_refusals_is_folded_and_no_refusal_is_lost(tmp_path):
    clock = FakeClock()  # all in one second, however long they take
    async with running_server(tmp_path, clock=clock, **GENEROUS) as server:
        client = server.add_identity("stranger", uri="spiffe://dev.vaultd/stranger")
        for _ in range(120):
            await call(client, f"{CRYPTO}Encrypt", World(server).crypto_request("Encrypt"))
        clock.advance(2)

        def counted() -> int:
            records = [r for r in server.audit_records() if r.get("principal") == "spiffe://dev.vaultd/stranger"]
            return sum(record.get("folded", 1) for record in records)

        async with asyncio.timeout(60):
            while counted() < 120:  # noqa: ASYNC110  # the condition is in a file of the server's
                await asyncio.sleep(0.05)  # the server writes folded records by itself, once their second is over
        total, alone = counted(), [record for record in server.audit_records() if record["event"] == "call"]
    assert total == 120
    assert len(alone) < 120


# -- a log that cannot be written ---------------------------------------------------------------------------------------


class Outage:
    """Puts a file where the audit directory was, and puts it right again."""

    def __init__(self, server) -> None:
        self.server = server
        self.directory = server.directory / "audit"
        self.away = server.directory / "audit.away"
        self.health = health_pb2_grpc.HealthStub(server.admin.channel)

    def begin(self) -> None:
        self.directory.rename(self.away)
        for segment in self.away.glob("*.jsonl"):
            shutil.move(segment, segment.with_suffix(".gone"))
        self.directory.write_bytes(b"")

    def end(self) -> None:
        self.directory.unlink()
        for segment in self.away.glob("*.gone"):
            shutil.move(segment, segment.with_suffix(".jsonl"))
        self.away.rename(self.directory)

    async def status(self, name: str) -> int:
        return (await self.health.Check(health_pb2.HealthCheckRequest(service=name))).status

    async def becomes(self, wanted: int) -> None:
        """Follow the component over the wire until it is as wanted."""
        async with asyncio.timeout(60):
            watch = self.health.Watch(health_pb2.HealthCheckRequest(service="audit"))
            async for answer in watch:
                if answer.status == wanted:
                    watch.cancel()
                    return


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def dark(tmp_path_factory):
    """A server whose audit log cannot be written any more."""
    async with running_server(tmp_path_factory.mktemp("dark"), **GENEROUS) as server:
        made = World(server)
        await made.furnish("default")
        for path in ANY:
            await made.kept_request(path)
        outage = Outage(server)
        outage.begin()
        await outage.becomes(NOT_SERVING)
        yield made, outage
        outage.end()
        await outage.becomes(SERVING)


@pytest.mark.parametrize("path", ANY, ids=short)
async def test_without_its_log_the_server_answers_no_call(dark, path):
    world, _ = dark
    outcome = await call(world.admin, path, await world.kept_request(path))
    assert (outcome.code, outcome.reason, outcome.body) == (UNAVAILABLE, "AUDIT_UNAVAILABLE", b"")
    assert "vaultd-receipt-bin" not in outcome.trailing
    assert any("RetryInfo" in detail.type_url for detail in outcome.status.details)


async def test_without_its_log_the_server_gives_no_reason_for_a_refusal_either(dark):
    world, _ = dark
    outcome = await call(world.admin, f"{CRYPTO}Encrypt", b"\xff\xff")
    assert (outcome.code, outcome.reason) == (UNAVAILABLE, "AUDIT_UNAVAILABLE")


@pytest.mark.parametrize("name", ["audit", "", "vaultd.v1.CryptoService"])
async def test_without_its_log_the_server_is_not_serving(dark, name):
    assert await dark[1].status(name) == NOT_SERVING


@pytest.mark.parametrize("name", ["storage", "seal"])
async def test_other_components_serve_while_the_log_cannot_be_written(dark, name):
    assert await dark[1].status(name) == SERVING


async def test_a_mutation_that_cannot_be_recorded_is_not_done_and_the_server_recovers(tmp_path):
    async with running_server(tmp_path, **GENEROUS) as server:
        world, outage = World(server), Outage(server)
        request = await world.request(f"{KEYS}CreateKey")
        name = f"vaults/default/keys/{request.key_id}"
        outage.begin()
        await outage.becomes(NOT_SERVING)
        refused = await call(server.admin, f"{KEYS}CreateKey", request)
        outage.end()
        await outage.becomes(SERVING)
        absent = await call(server.admin, f"{KEYS}GetKey", keys_pb2.GetKeyRequest(name=name))
        created = await call(server.admin, f"{KEYS}CreateKey", request)
        events = [record["event"] for record in server.audit_records()]
    assert refused.code is UNAVAILABLE
    assert absent.code is NOT_FOUND
    assert created.code is OK
    assert "segment_abandoned" in events


async def test_the_reply_to_a_mutation_is_withheld_as_soon_as_its_segment_is_deleted(tmp_path):
    async with running_server(tmp_path, **GENEROUS) as server:
        world = World(server)
        await world.fresh_key()  # the server has looked at its log once, and looks again in half a second
        request = await world.request(f"{KEYS}CreateKey")
        for segment in (tmp_path / "audit").glob("*.jsonl"):
            segment.unlink()
        outcome = await call(server.admin, f"{KEYS}CreateKey", request)
        again = await call(server.admin, f"{KEYS}CreateKey", request)
    assert (outcome.code, outcome.reason) == (UNAVAILABLE, "AUDIT_UNAVAILABLE")
    assert again.code is OK
