"""Defects that a review found in the chain: each test failed before its fix."""

from __future__ import annotations

import asyncio
import datetime
import os
from contextlib import contextmanager

import grpc
import orjson
import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.x509.oid import NameOID

from harness import FakeClock, reason_of, running_server
from vaultd.audit import log
from vaultd.audit.reader import AuditReader
from vaultd.errors import Unavailable
from vaultd.interceptors.call import Call, Peer
from vaultd.interceptors.certificates import TrustBundle
from vaultd_client.v1 import keys_pb2, resources_pb2

NAME = "vaults/default/keys/a"
ENCRYPT = resources_pb2.Key(purpose=resources_pb2.KEY_PURPOSE_ENCRYPT_DECRYPT)


async def refused(client, times: int) -> list[str]:
    """The reasons of calls that policy denies."""
    reasons = []
    for _ in range(times):
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await client.keys.GetKey(keys_pb2.GetKeyRequest(name=NAME))
        reasons.append(reason_of(caught.value))
    return reasons


@contextmanager
def without_audit(server):
    """The audit directory is away, and the log knows it."""
    log = server.server._audit_log
    directory, away = server.directory / "audit", server.directory / "away"
    directory.rename(away)
    log.check()
    assert not log.serving
    try:
        yield
    finally:
        away.rename(directory)
        log.check()


def counted(server, reason: str) -> int:
    """Refusals in the log, each by itself or folded."""
    records = [record for record in server.audit_records() if record.get("reason") == reason]
    return sum(record["folded"] if record["event"] == "refusals_folded" else 1 for record in records)


async def test_no_refusal_is_folded_into_a_log_that_cannot_be_written(tmp_path):
    clock = FakeClock()  # stands still: all in one second
    async with running_server(tmp_path, clock=clock) as server:
        assert set(await refused(server.app, 25)) == {"PERMISSION_DENIED"}
        with without_audit(server):
            assert set(await refused(server.app, 3)) == {"AUDIT_UNAVAILABLE"}


async def test_folded_refusals_wait_for_a_log_that_can_be_written(tmp_path):
    clock = FakeClock()
    async with running_server(tmp_path, clock=clock) as server:
        await refused(server.app, 60)
        clock.advance(2)
        with without_audit(server), pytest.raises(Unavailable):
            server.server._audit.write_folded()
        server.server._audit.write_folded()
        assert counted(server, "PERMISSION_DENIED") == 60


async def test_folded_refusals_of_the_last_second_are_written_at_stop(tmp_path):
    async with running_server(tmp_path) as server:
        await refused(server.app, 60)
    assert counted(server, "PERMISSION_DENIED") == 60


async def test_every_intent_has_an_outcome_of_its_own(tmp_path):
    async with running_server(tmp_path) as server:
        for _ in range(30):
            with pytest.raises(grpc.aio.AioRpcError):
                await server.admin.keys.CreateKey(keys_pb2.CreateKeyRequest(parent="vaults/default", key_id="a"))
        records = server.audit_records()
        intents = {record["id"] for record in records if record["event"] == "intent"}
        assert len(intents) == 30
        assert intents <= {record["id"] for record in records if record["event"] == "call"}


async def test_the_scheduler_s_acts_have_intents(tmp_path):
    clock = FakeClock()
    async with running_server(tmp_path, clock=clock) as server:
        await server.admin.keys.CreateKey(keys_pb2.CreateKeyRequest(parent="vaults/default", key_id="a", key=ENCRYPT))
        await server.admin.keys.DestroyKeyVersion(keys_pb2.DestroyKeyVersionRequest(name=f"{NAME}/versions/1"))
        clock.advance(31 * 86_400)
        await server.server.engine.scheduler.tick()
        acts = [record for record in server.audit_records() if record.get("principal") == "vaultd:scheduler"]
        assert [(record["event"], record.get("act"), record["resource"]) for record in acts] == [
            ("intent", "destroy", f"{NAME}/versions/1"),
            ("destroy", None, f"{NAME}/versions/1"),
        ]


async def test_mutations_whose_callers_gave_up_still_count_as_in_flight(tmp_path):
    limits = {"unary_in_flight": 8, "unary_in_flight_per_principal": 4}
    async with running_server(tmp_path, limits=limits) as server:
        chain, go = server.server.chain, asyncio.Event()
        create = server.server.engine.lifecycle.create_key

        async def slow(*arguments):
            await go.wait()
            return await create(*arguments)

        server.server.engine.lifecycle.create_key = slow
        for number in range(12):
            request = keys_pb2.CreateKeyRequest(parent="vaults/default", key_id=f"k{number}", key=ENCRYPT)
            with pytest.raises(grpc.aio.AioRpcError):
                await server.admin.keys.CreateKey(request, timeout=0.1)
        assert len(chain._finishing) <= 4
        go.set()
        await chain.finish()
        await server.admin.keys.CreateKey(
            keys_pb2.CreateKeyRequest(parent="vaults/default", key_id="later", key=ENCRYPT)
        )
        assert len(chain._throttle.unary) == 0


async def test_a_page_of_large_keys_fits_in_a_message(tmp_path):
    labels = {f"k{number:02d}{'x' * 60}": "v" * 63 for number in range(64)}
    large = resources_pb2.Key(purpose=resources_pb2.KEY_PURPOSE_ENCRYPT_DECRYPT, labels=labels)
    async with running_server(tmp_path) as server:
        for start in range(0, 550, 50):
            await asyncio.gather(
                *(
                    server.admin.keys.CreateKey(
                        keys_pb2.CreateKeyRequest(parent="vaults/default", key_id=f"k{number}", key=large)
                    )
                    for number in range(start, start + 50)
                )
            )
        seen, token = [], ""
        while True:
            page = await server.admin.keys.ListKeys(
                keys_pb2.ListKeysRequest(parent="vaults/default", page_size=1000, page_token=token)
            )
            seen += [key.name for key in page.keys]
            token = page.next_page_token
            if not token:
                break
        assert len(seen) == len(set(seen)) == 550


async def test_an_answer_that_no_message_holds_is_refused_and_recorded_as_such(tmp_path):
    async with running_server(tmp_path) as server:
        service = server.server.chain._routes["/vaultd.v1.KeysService/GetKeyUsage"].serve.__self__

        async def huge(ref):
            del ref
            return [created] * 120_000

        await server.admin.keys.CreateKey(keys_pb2.CreateKeyRequest(parent="vaults/default", key_id="a", key=ENCRYPT))
        (created,) = await service._keys.list_versions(_ref())
        service._keys.list_versions = huge
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await server.admin.keys.GetKeyUsage(keys_pb2.GetKeyUsageRequest(name=NAME))
        assert reason_of(caught.value) == "ANSWER_TOO_LARGE"
        (record,) = [r for r in server.audit_records() if str(r.get("method")).endswith("/GetKeyUsage")]
        assert record["code"] == "RESOURCE_EXHAUSTED"


def _ref():
    from vaultd.names import parse_key_name

    return parse_key_name(NAME)


async def test_open_calls_that_send_nothing_hold_a_bounded_number_of_places(tmp_path):
    async with running_server(tmp_path, limits={"streams": 8, "streams_per_principal": 2}) as server:
        check = server.admin.channel.stream_unary("/grpc.health.v1.Health/Check")
        calls = [check() for _ in range(6)]
        waiting = {asyncio.ensure_future(_outcome(call)) for call in calls}
        refused = set()
        while len(refused) < 4:
            done, waiting = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
            refused |= done
        assert {reason_of(task.result()) for task in refused} == {"TOO_MANY_IN_FLIGHT"}
        assert not (await asyncio.wait(waiting, timeout=0.5))[0]  # for one host
        for call in calls:
            call.cancel()
        await asyncio.gather(*waiting, return_exceptions=True)


async def _outcome(call) -> grpc.aio.AioRpcError:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    return caught.value


async def test_a_policy_that_could_not_be_read_again_is_read_at_the_next_turn(tmp_path):
    async with running_server(tmp_path) as server:
        authority = server.server.engine.authority
        read, ledger = authority._ledger.read, authority._ledger

        async def busy(key):
            raise Unavailable("STORE_BUSY", "busy")

        ledger.read = busy
        server.server.reload()
        with pytest.raises(Unavailable):
            await server.server._check_files()
        ledger.read = read
        await server.server._check_files()
        assert authority.loaded


def _certificate(name: str, key, issuer: str, issuer_key, *, ca: bool):
    now = datetime.datetime.now(datetime.UTC)
    names = [x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)]) for text in (name, issuer)]
    return (
        x509.CertificateBuilder()
        .subject_name(names[0])
        .issuer_name(names[1])
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now)
        .not_valid_after(now + datetime.timedelta(hours=1))
        .add_extension(x509.BasicConstraints(ca=ca, path_length=None), critical=True)
        .sign(issuer_key, SHA256())
    )


@pytest.mark.parametrize("ca", [True, False])
def test_a_leaf_of_a_bundle_issues_no_certificates(ca):
    root_key, middle_key, leaf_key = (ec.generate_private_key(ec.SECP256R1()) for _ in range(3))
    root = _certificate("root", root_key, "root", root_key, ca=True)
    middle = _certificate("middle", middle_key, "root", root_key, ca=ca)
    leaf = _certificate("leaf", leaf_key, "middle", middle_key, ca=False)
    assert TrustBundle("a", (root,), trust_domain="a").issued([leaf, middle]) is ca


async def test_a_record_that_cannot_be_written_costs_its_own_call_alone_and_no_place(tmp_path):
    async with running_server(tmp_path) as server:
        chain, answers = server.server.chain, []
        for at in range(3):
            call = Call("/vaultd.v1.CryptoService/Encrypt", Peer("ipv4:127.0.0.1:1", b""), [], None, None, None)
            call.answer = answers.append
            entry = chain._open(call)
            entry.route, entry.principal = chain._routes[call.method], "spiffe://dev.vaultd/app"
            entry.fields = {"name": NAME if at != 1 else object()}
            chain._throttle.unary.enter(entry.principal)
            chain._round.add(asyncio.get_running_loop(), entry, b"answer")
        await asyncio.sleep(0)
        unavailable = grpc.StatusCode.UNAVAILABLE.value[0]
        assert [(reply.code, reply.body) for reply in answers] == [(0, b"answer"), (unavailable, b""), (0, b"answer")]
        assert len(chain._throttle.unary) == 0


async def test_a_call_whose_record_stands_and_that_was_refused_has_a_later_record_that_says_so(tmp_path, monkeypatch):
    async with running_server(tmp_path) as server:
        chain, answers = server.server.chain, []
        # The disk takes the first of two lines and fails at the second.
        monkeypatch.setattr(log, "pwrite", lambda fd, data, at: os.pwrite(fd, data[: data.index(b"\n") + 9], at))
        for _ in range(2):
            call = Call("/vaultd.v1.CryptoService/Encrypt", Peer("ipv4:127.0.0.1:1", b""), [], None, None, None)
            call.answer = answers.append
            entry = chain._open(call)
            entry.route, entry.principal = chain._routes[call.method], "spiffe://dev.vaultd/app"
            chain._throttle.unary.enter(entry.principal)
            chain._round.add(asyncio.get_running_loop(), entry, b"answer")
        chain._round.end()
        monkeypatch.undo()
        assert [reply.code for reply in answers] == [grpc.StatusCode.UNAVAILABLE.value[0]] * 2
        reader = AuditReader(server.directory / "audit")  # it knows which bytes of a segment count
        records = [orjson.loads(record.line) for record in reader.read()]
        reader.close()
        said = [(r["id"], r["code"], r.get("reason")) for r in records if r["event"] == "call"]
        first, second = said[0][0], said[-1][0]
        refused = ("UNAVAILABLE", "AUDIT_UNAVAILABLE")
        assert said == [(first, "OK", None), (first, *refused), (second, *refused)]
        assert first != second
