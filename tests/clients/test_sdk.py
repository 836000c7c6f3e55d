"""AsyncClient against a real server: every RPC has its method, calls travel together, and errors say what they are."""

from __future__ import annotations

import asyncio
import inspect
import pkgutil
import re
from importlib import import_module

import pytest
import pytest_asyncio
from sdk_rig import AEAD, CRYPTO, MAC, PATIENT, SIGNER, VAULT, WRAP, Audit, async_client, create_keys, wire_to

from harness import running_server
from vaultd_client import (
    AsyncClient,
    BatchLimits,
    CallInfo,
    ChecksumMismatch,
    Client,
    ClientClosed,
    DeadlineExceeded,
    DecryptionFailed,
    InvalidArgument,
    NotFound,
    PermissionDenied,
    VaultdError,
    WrongEventLoop,
    v1,
)
from vaultd_client.checksums import check_answer
from vaultd_client.generated import table
from vaultd_client.v1 import crypto_pb2

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def server(tmp_path_factory):
    async with running_server(tmp_path_factory.mktemp("sdk"), **PATIENT) as server:
        await create_keys(server)
        yield server


@pytest_asyncio.fixture(loop_scope="module")
async def vault(server):
    async with async_client(server) as client:
        yield client


# -- the methods ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("client", [AsyncClient, Client])
async def test_every_rpc_has_a_method_in_snake_case_with_its_fields_as_arguments(client):
    modules = [import_module(f"vaultd_client.v1.{each.name}") for each in pkgutil.iter_modules(v1.__path__)]
    files = [module.DESCRIPTOR for module in modules if hasattr(module, "DESCRIPTOR")]
    rpcs = [rpc for file in files for service in file.services_by_name.values() for rpc in service.methods]
    assert len(rpcs) > 50
    for rpc in rpcs:
        snake = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", rpc.name).lower()
        arguments = set(inspect.signature(getattr(client, snake)).parameters)
        fields = {field.name for field in rpc.input_type.fields if not field.name.endswith("_crc32c")}
        assert arguments == {"self", *({"requests"} if rpc.client_streaming else fields), "timeout_s", "info"}


async def test_what_is_used_together_travels_together_in_every_method_that_has_a_batch(server):
    async with async_client(server) as vault:
        aad = [f"row {n}".encode() for n in range(20)]
        audit = Audit(server)
        sealed = await asyncio.gather(*(vault.encrypt(AEAD, b"p%d" % n, aad[n]) for n in range(20)))
        moved = await asyncio.gather(
            *(vault.re_encrypt(AEAD, one.ciphertext, AEAD, a) for one, a in zip(sealed, aad, strict=True))
        )
        opened = await asyncio.gather(*(vault.decrypt(AEAD, one.ciphertext) for one in moved))
        assert [one.plaintext for one in opened] == [b"p%d" % n for n in range(20)]
        signed = await asyncio.gather(*(vault.sign(SIGNER, b"m%d" % n) for n in range(20)))
        good = await asyncio.gather(*(vault.verify(SIGNER, b"m%d" % n, one.signature) for n, one in enumerate(signed)))
        wrong = await asyncio.gather(*(vault.verify(SIGNER, b"other", one.signature) for one in signed))
        assert [one.valid for one in (*good, *wrong)] == [True] * 20 + [False] * 20
        macs = await asyncio.gather(*(vault.generate_mac(MAC, b"d%d" % n) for n in range(20)))
        valid = await asyncio.gather(*(vault.verify_mac(MAC, b"d%d" % n, one.mac) for n, one in enumerate(macs)))
        assert all(one.valid for one in valid)
        wrapped = await asyncio.gather(*(vault.wrap_key(WRAP, bytes([n]) * 32) for n in range(20)))
        keys = await asyncio.gather(*(vault.unwrap_key(WRAP, one.wrapped_key) for one in wrapped))
        assert [one.key_material for one in keys] == [bytes([n]) * 32 for n in range(20)]
    async with async_client(server, "admin") as admin:
        secret = await admin.create_secret(VAULT, "together", payload=b"a payload")
        read = await asyncio.gather(*(admin.access_secret_version(secret.name) for _ in range(20)))
        assert [one.payload for one in read] == [b"a payload"] * 20
    names = {method.path.rpartition("/")[2] for method in table.BATCHES}
    batches = {method.path.rpartition("/")[2] for method in table.BATCHES.values()}
    assert set(audit.methods()) - {"CreateSecret"} == names | batches
    assert sorted(audit.items()) == [1] * 12 + [19] * 11, "verify was gathered twice, and CreateSecret is one"


async def test_a_digest_is_signed_and_exactly_one_input_is_taken(vault):
    import hashlib

    digest = hashlib.sha256(b"m").digest()
    signed = await vault.sign(SIGNER, digest=digest)
    assert (await vault.verify(SIGNER, b"m", signed.signature)).valid
    with pytest.raises(TypeError, match="exactly one"):
        await vault.sign(SIGNER)
    with pytest.raises(TypeError, match="exactly one"):
        await vault.sign(SIGNER, b"m", digest=digest)
    with pytest.raises(TypeError, match="signature"):
        await vault.verify(SIGNER, b"m")


# -- coalescing -----------------------------------------------------------------------------------------------------------


async def test_a_lone_call_is_a_single_call(server, vault):
    audit = Audit(server)
    for _ in range(3):
        await vault.encrypt(AEAD, b"alone")
    assert audit.methods() == ["Encrypt"] * 3


async def test_coalesce_false_sends_each_call_by_itself(server):
    async with async_client(server, coalesce=False) as vault:
        audit = Audit(server)
        await asyncio.gather(*(vault.encrypt(AEAD, b"p") for _ in range(20)))
    assert audit.methods() == ["Encrypt"] * 20


async def test_callers_in_loops_travel_together_again_and_again(server, vault):
    async def caller(n: int) -> None:
        for turn in range(10):
            plaintext = b"%d/%d" % (n, turn)
            sealed = await vault.encrypt(AEAD, plaintext)
            assert (await vault.decrypt(AEAD, sealed.ciphertext)).plaintext == plaintext

    audit = Audit(server)
    await asyncio.gather(*(caller(n) for n in range(64)))
    assert sum(audit.items()) == 64 * 10 * 2
    assert len(audit.items()) < 64 * 10 * 2 / 8


async def test_batches_keep_to_their_bounds(server):
    async with async_client(server, batch=BatchLimits(max_items=10)) as vault:
        audit = Audit(server)
        await asyncio.gather(*(vault.encrypt(AEAD, b"p") for _ in range(64)))
    assert sum(audit.items()) == 64
    assert max(audit.items()) == 10
    async with async_client(server) as vault:
        audit = Audit(server)
        plaintexts = [bytes([n]) * 65_536 for n in range(150)]  # 9.8 MB
        sealed = await asyncio.gather(*(vault.encrypt(AEAD, each) for each in plaintexts))
        opened = await asyncio.gather(*(vault.decrypt(AEAD, one.ciphertext) for one in sealed))
    assert [one.plaintext for one in opened] == plaintexts
    assert set(audit.methods()) == {"Encrypt", "BatchEncrypt", "Decrypt", "BatchDecrypt"}
    assert max(audit.items()) < 65


async def test_an_item_fails_by_itself(server, vault):
    sealed = (await vault.encrypt(AEAD, b"good")).ciphertext
    audit = Audit(server)
    calls = [vault.decrypt(AEAD, sealed if n % 4 else b"no ciphertext") for n in range(20)]
    calls += [
        vault.decrypt(f"{VAULT}/keys/nowhere", sealed),
        vault.decrypt(SIGNER, sealed),
        vault.decrypt("keys", sealed),
    ]
    outcomes = await asyncio.gather(*calls, return_exceptions=True)
    assert [type(one) for one in outcomes[:20:4]] == [DecryptionFailed] * 5
    assert [one.plaintext for at, one in enumerate(outcomes[:20]) if at % 4] == [b"good"] * 15
    assert [type(one).__name__ for one in outcomes[20:]] == [
        "PermissionDenied",
        "FailedPrecondition",
        "InvalidArgument",
    ]
    batch = audit.calls()[-1]
    assert {one.request_id for one in outcomes[4:] if isinstance(one, VaultdError)} == {batch["id"]}
    assert len({id(one) for one in outcomes if isinstance(one, VaultdError)}) == 8


async def test_a_cancelled_caller_leaves_the_others_alone(server, vault):
    async with wire_to(server.address) as wire, async_client(server, address=wire.address) as vault:
        await vault.encrypt(AEAD, b"connected")
        wire.open.clear()
        first = asyncio.create_task(vault.encrypt(AEAD, b"under way"))
        await wire.waiting.wait()
        callers = [asyncio.create_task(vault.encrypt(AEAD, b"%d" % n)) for n in range(10)]
        await asyncio.sleep(0)
        for caller in callers[::2]:
            caller.cancel()
        wire.open.set()
        await first
        outcomes = await asyncio.gather(*callers, return_exceptions=True)
    assert [isinstance(one, asyncio.CancelledError) for one in outcomes] == [True, False] * 5


async def test_each_call_has_its_own_deadline_and_the_others_get_their_answers(server):
    async with wire_to(server.address) as wire, async_client(server, address=wire.address) as vault:
        await vault.encrypt(AEAD, b"connected")
        wire.open.clear()
        callers = [asyncio.create_task(vault.encrypt(AEAD, b"p", timeout_s=0.1 if n % 2 else 30)) for n in range(10)]
        with pytest.raises(DeadlineExceeded) as raised:
            await callers[1]
        assert raised.value.reason == "DEADLINE_EXCEEDED"
        wire.open.set()
        outcomes = await asyncio.gather(*callers, return_exceptions=True)
    assert [type(one).__name__ for one in outcomes] == ["EncryptResponse", "DeadlineExceeded"] * 5


async def test_who_waits_when_the_client_is_closed_is_told(server):
    async with wire_to(server.address) as wire:
        vault = async_client(server, address=wire.address)
        await vault.encrypt(AEAD, b"connected")
        wire.open.clear()
        callers = [asyncio.create_task(vault.encrypt(AEAD, b"p")) for _ in range(5)]
        await wire.waiting.wait()
        await vault.close()
        outcomes = await asyncio.gather(*callers, return_exceptions=True)
    assert [type(one) for one in outcomes] == [ClientClosed] * 5
    with pytest.raises(ClientClosed):
        await vault.encrypt(AEAD, b"p")


# -- errors, receipts, traces, checksums ----------------------------------------------------------------------------------


async def test_errors_have_code_reason_fields_and_the_servers_request_id(server, vault):
    with pytest.raises(InvalidArgument) as raised:
        await vault.encrypt(f"{VAULT}/keys/NOT-A-NAME", b"")
    error = raised.value
    assert (error.code, error.reason) == ("INVALID_ARGUMENT", "INVALID_NAME")
    assert [one.field for one in error.field_violations] == ["name"]
    refused = [record for record in server.audit_records() if record.get("reason") == "INVALID_NAME"]
    assert error.request_id == refused[-1]["id"]
    assert error.request_id in str(error)
    assert error.retry_delay_s is None
    with pytest.raises(PermissionDenied):
        await vault.create_key(VAULT, "k", {"purpose": "KEY_PURPOSE_SIGN"})
    async with async_client(server, "admin") as admin:
        with pytest.raises(NotFound, match="KEY_NOT_FOUND"):
            await admin.get_key(f"{VAULT}/keys/nowhere")


async def test_a_receipt_names_the_audit_record_of_a_call_and_of_all_that_travelled_with_it(server, vault):
    alone, together = CallInfo(), [CallInfo() for _ in range(5)]
    await vault.encrypt(AEAD, b"p", info=alone)
    record = next(one for one in server.audit_records() if one.get("id") == alone.request_id)
    assert alone.receipt.sequence == record["seq"]
    assert (alone.items, alone.attempts, alone.address) == (1, 1, server.address)
    await asyncio.gather(*(vault.encrypt(AEAD, b"p", info=info) for info in together))
    assert [info.items for info in together] == [1, 4, 4, 4, 4]
    assert len({info.receipt.sequence for info in together}) == 2


async def test_the_trace_context_reaches_the_audit_log(server):
    trace = "0af7651916cd43dd8448eb211c80319c"
    async with async_client(server, trace=lambda: f"00-{trace}-b7ad6b7169203331-01") as vault:
        audit = Audit(server)
        await asyncio.gather(*(vault.encrypt(AEAD, b"p") for _ in range(3)))
    assert [one["trace_id"] for one in audit.calls()] == [trace, trace]


async def test_the_current_span_of_opentelemetry_is_the_trace_context(server, vault):
    from opentelemetry import trace
    from opentelemetry.trace import NonRecordingSpan, SpanContext

    audit = Audit(server)
    with trace.use_span(NonRecordingSpan(SpanContext(0xABC, 0xDEF, is_remote=False))):
        await vault.encrypt(AEAD, b"p")
    assert [one["trace_id"] for one in audit.calls()] == [f"{0xABC:032x}"]


async def test_answers_carry_checksums_and_a_wrong_one_is_not_handed_out(vault):
    sealed = await vault.encrypt(AEAD, b"p")
    assert sealed.HasField("ciphertext_crc32c")
    check_answer(table.ENCRYPT, sealed)
    sealed.ciphertext = bytes([sealed.ciphertext[0] ^ 1]) + sealed.ciphertext[1:]
    with pytest.raises(ChecksumMismatch) as raised:
        check_answer(table.ENCRYPT, sealed)
    assert raised.value.reason == "ANSWER_CHECKSUM_MISMATCH"
    batch = crypto_pb2.BatchEncryptResponse(results=[crypto_pb2.BatchEncryptResult(result=sealed)])
    with pytest.raises(ChecksumMismatch):
        check_answer(table.BATCH_ENCRYPT, batch)


async def test_explicit_batches_get_checksums_too(vault):
    items = [crypto_pb2.EncryptRequest(name=AEAD, plaintext=b"%d" % n) for n in range(3)]
    answer = await vault.batch_encrypt(items)
    assert all(one.result.HasField("ciphertext_crc32c") for one in answer.results)


async def test_without_checksums_none_are_sent(server):
    async with async_client(server, checksums=False) as vault:
        assert not (await vault.encrypt(AEAD, b"p")).HasField("ciphertext_crc32c")


# -- mutations ------------------------------------------------------------------------------------------------------------


async def test_a_mutation_whose_answer_was_lost_is_sent_again_and_happens_once(server):
    async with wire_to(server.address) as wire, async_client(server, "admin", wire.address) as admin:
        before = await admin.list_key_versions(MAC)
        wire.lose_answers = True
        info = CallInfo()
        version = await admin.rotate_key(MAC, info=info)
        after = await admin.list_key_versions(MAC)
    assert (wire.lost, info.attempts) == (1, 2)
    assert len(after.key_versions) == len(before.key_versions) + 1
    assert after.key_versions[-1].name == version.name


async def test_what_may_not_happen_twice_is_not_sent_twice(server):
    async with wire_to(server.address) as wire, async_client(server, "admin", wire.address) as admin:
        await admin.get_status()
        wire.lose_answers = True
        info = CallInfo()
        with pytest.raises(VaultdError) as raised:
            await admin.init(["spiffe://dev.vaultd/admin"], info=info)
    assert (raised.value.code, raised.value.reason) == ("UNAVAILABLE", "UNREACHABLE")
    assert info.attempts == 1


async def test_a_request_id_of_the_callers_own_is_left_as_it_is(server):
    async with async_client(server, "admin") as admin:
        first = await admin.rotate_key(WRAP, request_id="mine-1")
        again = await admin.rotate_key(WRAP, request_id="mine-1")
    assert first.name == again.name


# -- loops ----------------------------------------------------------------------------------------------------------------


async def test_another_event_loop_is_told_so(server, vault):
    await vault.encrypt(AEAD, b"p")
    with pytest.raises(WrongEventLoop, match="one for each loop"):
        await asyncio.to_thread(asyncio.run, vault.encrypt(AEAD, b"p"))


async def test_changes_are_watched_and_a_watch_goes_on_where_it_ended(server):
    async with async_client(server, "admin") as admin:
        watch = admin.watch()
        assert not (await anext(watch)).events
        first = await admin.create_key(VAULT, "watched-1", {"purpose": "KEY_PURPOSE_MAC"})
        seen = await anext(watch)
        assert first.name in {event.name for event in seen.events}
        await watch.aclose()
        second = await admin.create_key(VAULT, "watched-2", {"purpose": "KEY_PURPOSE_MAC"})
        names: set[str] = set()
        async for response in admin.watch(resume_token=seen.resume_token):
            names |= {event.name for event in response.events}
            if second.name in names:
                break
        assert first.name not in names


async def test_operations_go_through_a_stream_and_their_results_come_back_by_id(vault):
    async def requests():
        for n in range(3):
            operation = {"id": n, "encrypt": {"name": AEAD, "plaintext": b"%d" % n}}
            yield crypto_pb2.CryptoStreamRequest(operations=[operation])

    results = {one.id: one async for response in vault.crypto_stream(requests()) for one in response.results}
    assert sorted(results) == [0, 1, 2]
    for n, one in results.items():
        assert (await vault.decrypt(AEAD, one.encrypt.ciphertext)).plaintext == b"%d" % n


async def test_health_can_be_watched_through_the_streams_that_generated_methods_stand_on(server, vault):
    from grpc_health.v1 import health_pb2

    from vaultd_client.method import Method

    watch = Method(
        "/grpc.health.v1.Health/Watch", health_pb2.HealthCheckRequest, health_pb2.HealthCheckResponse, repeatable=False
    )
    stream = vault._server_stream(watch, health_pb2.HealthCheckRequest(), None, None)
    assert (await anext(stream)).status == health_pb2.HealthCheckResponse.SERVING
    await stream.aclose()
    unknown = Method(
        f"{CRYPTO}Nothing", health_pb2.HealthCheckRequest, health_pb2.HealthCheckResponse, repeatable=False
    )
    with pytest.raises(VaultdError) as raised:
        await anext(vault._server_stream(unknown, health_pb2.HealthCheckRequest(), 5, None))
    assert raised.value.reason == "METHOD_UNKNOWN"
