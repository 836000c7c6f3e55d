"""Batches, item by item: what a single call would say is what its item gets, whatever else is in the batch."""

from __future__ import annotations

import asyncio
import random

import grpc
import pytest
import pytest_asyncio
from wire import reason_in

from harness import reason_of, running_server
from vaultd.engine.transit import SignItem
from vaultd.errors import VaultdError
from vaultd.names import parse_key_or_version_name
from vaultd_client.v1 import crypto_pb2, keys_pb2, resources_pb2

pytestmark = pytest.mark.asyncio(loop_scope="module")

KEYS = {
    "gcm": ("ENCRYPT_DECRYPT", "AES_256_GCM"),
    "xaes": ("ENCRYPT_DECRYPT", "XAES_256_GCM"),
    "siv": ("DETERMINISTIC", "AES_256_SIV"),
    "oaep": ("ASYMMETRIC_DECRYPT", "RSA_OAEP_2048_SHA256"),
    "off": ("ENCRYPT_DECRYPT", "AES_256_GCM"),
    "mac": ("MAC", "HMAC_SHA256"),
}
SIGNERS = {
    "p256": ("SIGN", "EC_P256_SHA256"),
    "ed25519": ("SIGN", "ED25519"),
    "pss": ("SIGN", "RSA_PSS_2048_SHA256"),
    "signs-no-more": ("SIGN", "EC_P256_SHA256"),
}


def name_of(key: str) -> str:
    return f"vaults/default/keys/{key}"


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def server(tmp_path_factory):
    async with running_server(tmp_path_factory.mktemp("batches")) as running:
        for key, (purpose, algorithm) in {**KEYS, **SIGNERS}.items():
            made = resources_pb2.Key(purpose=f"KEY_PURPOSE_{purpose}", algorithm=f"ALGORITHM_{algorithm}")
            await running.admin.keys.CreateKey(keys_pb2.CreateKeyRequest(parent="vaults/default", key_id=key, key=made))
        for key in ("off", "signs-no-more"):
            await running.admin.keys.DisableKeyVersion(
                keys_pb2.DisableKeyVersionRequest(name=f"{name_of(key)}/versions/1")
            )
        yield running


async def single(server, request) -> str:
    method = server.app.crypto.Sign if isinstance(request, crypto_pb2.SignRequest) else server.app.crypto.Encrypt
    try:
        await method(request)
    except grpc.aio.AioRpcError as error:
        return reason_of(error)
    return ""


def record_of(server, method: str) -> dict:
    """The newest record of a call of a method."""
    return next(one for one in reversed(server.audit_records()) if str(one.get("method")).endswith(f"/{method}"))


async def test_each_item_gets_what_the_single_call_says(server):
    seed = random.randrange(2**32)
    print("seed", seed)
    chosen = random.Random(seed)
    names = [*map(name_of, [*KEYS, "missing"]), f"{name_of('gcm')}/versions/1", f"{name_of('gcm')}/versions/7", "gcm"]
    requests = [crypto_pb2.EncryptRequest(name=name, plaintext=b"x") for name in names]
    while len(requests) < 400:
        name = chosen.choice(names)
        for _ in range(chosen.choice([1, 1, 2, 70])):  # runs, and items that stand alone
            size = chosen.choice([0, 1, 64, 300])
            more = chosen.choice([b"", b"more"]) if name != name_of("oaep") else b""
            request = crypto_pb2.EncryptRequest(name=name, plaintext=bytes(size), associated_data=more)
            if chosen.random() < 0.1:
                request.plaintext_crc32c = 1  # of nothing that is sent here
            requests.append(request)
    alike: dict[tuple[str, int, bytes, bool], str] = {}
    expected = []
    for request in requests:
        kind = (request.name, len(request.plaintext), request.associated_data, request.HasField("plaintext_crc32c"))
        if kind not in alike:
            alike[kind] = await single(server, request)
        expected.append(alike[kind])
    answer = await server.app.crypto.BatchEncrypt(crypto_pb2.BatchEncryptRequest(items=requests))
    got = [reason_in(result.status) if result.HasField("status") else "" for result in answer.results]
    assert got == expected
    assert {"", "PERMISSION_DENIED", "KEY_VERSION_DISABLED", "WRONG_PURPOSE", "CHECKSUM_MISMATCH"} <= set(got)
    opening = [
        crypto_pb2.DecryptRequest(
            name=result.result.key_version, ciphertext=result.result.ciphertext, associated_data=request.associated_data
        )
        for request, result in zip(requests, answer.results, strict=True)
        if result.HasField("result")
    ]
    opened = await server.app.crypto.BatchDecrypt(crypto_pb2.BatchDecryptRequest(items=opening))
    plaintexts = [request.plaintext for request, reason in zip(requests, got, strict=True) if not reason]
    assert [result.result.plaintext for result in opened.results] == plaintexts
    record = record_of(server, "BatchEncrypt")
    assert (record["items"], sum(record["key_version"].values())) == (len(requests), len(plaintexts))
    assert sum(map(len, record["failures"].values())) == len(requests) - len(plaintexts)


async def test_a_key_that_is_not_there_is_looked_for_once_a_batch(server):
    item = crypto_pb2.EncryptRequest(name=name_of("nowhere"), plaintext=b"x")
    catalog = server.server.engine.catalog
    before = catalog.misses
    answer = await server.app.crypto.BatchEncrypt(crypto_pb2.BatchEncryptRequest(items=[item] * 500))
    assert {reason_in(result.status) for result in answer.results} == {"PERMISSION_DENIED"}
    assert catalog.misses - before == 1


async def beside_three_who_never_pause(send, call, calls=5):
    """Make single calls while three callers send one batch after the other; returns the answers to the batches."""
    answered = asyncio.Event()

    async def keep_sending():
        answers = [await send()]
        while not answered.is_set():
            answers.append(await send())
        return answers

    callers = [asyncio.ensure_future(keep_sending()) for _ in range(3)]
    for _ in range(calls):  # for ever, where batches go first: then the test takes too long
        await call()
    answered.set()
    return [answer for answers in await asyncio.gather(*callers) for answer in answers]


async def test_single_calls_are_answered_while_long_batches_are_under_way(server):
    item = crypto_pb2.EncryptRequest(name=name_of("gcm"), plaintext=bytes(64))
    long = crypto_pb2.BatchEncryptRequest(items=[item] * 10_000)
    answers = await beside_three_who_never_pause(
        lambda: server.admin.crypto.BatchEncrypt(long), lambda: server.app.crypto.Encrypt(item)
    )
    for answer in answers:
        assert len({result.result.ciphertext for result in answer.results}) == 10_000


def a_signature(chosen, name) -> crypto_pb2.SignRequest:
    request = crypto_pb2.SignRequest(name=name)
    what = chosen.choice(["message"] * 6 + ["digest", "short digest", "nothing", "p1363", "no encoding", "wrong sum"])
    if what == "digest":
        request.digest = bytes(32)
    elif what == "short digest":
        request.digest = bytes(8)
    elif what != "nothing":
        request.message = bytes(chosen.choice([0, 64, 300]))
    if what == "p1363":
        request.signature_encoding = resources_pb2.SIGNATURE_ENCODING_P1363
    elif what == "no encoding":
        request.signature_encoding = 77
    elif what == "wrong sum":
        request.input_crc32c = 1  # of nothing that is sent here
    return request


async def test_each_signature_is_what_the_single_call_gives(server):
    seed = random.randrange(2**32)
    print("seed", seed)
    chosen = random.Random(seed)
    names = [*map(name_of, [*SIGNERS, "gcm", "missing"]), f"{name_of('p256')}/versions/7"]
    requests = [crypto_pb2.SignRequest(name=name, message=b"x") for name in names]
    requests += [crypto_pb2.SignRequest(name=name_of("p256"), message=b"x", input_crc32c=1)]
    while len(requests) < 300:
        name, alone = chosen.choice(names), chosen.random() < 0.5
        requests += [a_signature(chosen, name)] if alone else [crypto_pb2.SignRequest(name=name, message=b"y")] * 20
    alike: dict[bytes, str] = {}
    for request in requests:
        kind = request.SerializeToString(deterministic=True)
        if kind not in alike:
            alike[kind] = await single(server, request)
    answer = await server.app.crypto.BatchSign(crypto_pb2.BatchSignRequest(items=requests))
    got = [reason_in(result.status) if result.HasField("status") else "" for result in answer.results]
    assert got == [alike[request.SerializeToString(deterministic=True)] for request in requests]
    assert {"", "PERMISSION_DENIED", "KEY_VERSION_DISABLED", "WRONG_PURPOSE", "CHECKSUM_MISMATCH"} <= set(got)
    checks, signed = [], 0
    for request, result in zip(requests, answer.results, strict=True):
        if result.HasField("result"):
            signed += 1
            check = crypto_pb2.VerifyRequest(name=request.name, signature=result.result.signature)
            check.signature_encoding = request.signature_encoding
            if request.HasField("digest"):
                check.digest = request.digest
            else:
                check.message = request.message
            checks.append(check)
    verdicts = await server.app.crypto.BatchVerify(crypto_pb2.BatchVerifyRequest(items=checks))
    assert all(result.result.valid for result in verdicts.results)
    record = record_of(server, "BatchSign")
    assert (record["items"], sum(record["key_version"].values())) == (len(requests), signed)


@pytest.mark.parametrize("algorithm", ["RSA_PSS_2048_SHA256", "EC_P256_SHA256"])
async def test_a_key_that_is_disabled_between_two_turns_signs_no_more(server, monkeypatch, algorithm):
    made = resources_pb2.Key(purpose="KEY_PURPOSE_SIGN", algorithm=f"ALGORITHM_{algorithm}")
    key_id = f"until-{algorithm.lower().replace('_', '-')}"
    await server.admin.keys.CreateKey(keys_pb2.CreateKeyRequest(parent="vaults/default", key_id=key_id, key=made))
    message = crypto_pb2.SignRequest(name=name_of(key_id), message=b"x")
    await server.app.crypto.Sign(message)  # its key is in memory from now on
    engine = server.server.engine
    item = SignItem(parse_key_or_version_name(name_of(key_id)), b"x", is_digest=False, p1363=False)

    async def disable_it():
        monkeypatch.undo()
        version = keys_pb2.DisableKeyVersionRequest(name=f"{name_of(key_id)}/versions/1")
        await server.admin.keys.DisableKeyVersion(version)

    monkeypatch.setattr(engine.lane, "over", lambda: True)
    monkeypatch.setattr(engine.lane, "next_turn", disable_it)
    answers = await engine.transit.sign_many([item] * 200, None)
    refused = [answer.reason for answer in answers if isinstance(answer, VaultdError)]
    assert set(refused) == {"KEY_VERSION_DISABLED"}
    assert len(refused) >= 100  # what was begun before may end


@pytest.mark.parametrize(("key", "count"), [("p256", 2_000), ("pss", 300)])
async def test_single_calls_are_answered_while_long_batches_of_signatures_are_under_way(server, key, count):
    item = crypto_pb2.SignRequest(name=name_of(key), message=bytes(64))
    long = crypto_pb2.BatchSignRequest(items=[item] * count)
    single_call = crypto_pb2.EncryptRequest(name=name_of("gcm"), plaintext=bytes(64))
    answers = await beside_three_who_never_pause(
        lambda: server.admin.crypto.BatchSign(long), lambda: server.app.crypto.Encrypt(single_call)
    )
    for answer in answers:
        assert all(result.HasField("result") for result in answer.results)
