"""CryptoStream: every operation as its single call, in any order, recorded before it is answered."""

from __future__ import annotations

import asyncio
import random
from dataclasses import replace
from typing import TYPE_CHECKING

import grpc
import pytest
import pytest_asyncio
from test_review_chain import without_audit
from wire import CRYPTO, GENEROUS, World, key_of, reason_in, response_class

from harness import error_info, reason_of, running_server
from vaultd.interceptors.routes import RouteMissing, build_routes
from vaultd.interceptors.rules import RULES
from vaultd.services.crypto import CryptoService
from vaultd.services.crypto_stream import CryptoSession, answer_bytes
from vaultd_client.v1 import crypto_pb2 as pb
from vaultd_client.v1 import identity_pb2, policy_pb2

if TYPE_CHECKING:
    from collections.abc import Callable

pytestmark = pytest.mark.asyncio(loop_scope="module")

SPIFFE = "spiffe://dev.vaultd"
KINDS = {field.name: field for field in pb.CryptoOperation.DESCRIPTOR.oneofs_by_name["request"].fields}
ENC = "vaults/default/keys/enc"
POLICY = {
    "bindings": [
        {"members": [f"{SPIFFE}/app", f"{SPIFFE}/fired"], "role": "crypto-user", "resource": "vaults/default"},
        {"members": [f"{SPIFFE}/leaver"], "role": "crypto-user", "resource": "vaults/default/keys/enc"},
    ],
    "denies": [{"members": [f"{SPIFFE}/app"], "permissions": ["crypto.sign"], "resource": "vaults/default/keys/sign"}],
}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def world(tmp_path_factory):
    async with running_server(tmp_path_factory.mktemp("stream"), policy=POLICY, **GENEROUS) as server:
        made = World(server)
        await made.furnish("default")
        for stem in ("fired", "leaver"):
            server.add_identity(stem, uri=f"{SPIFFE}/{stem}")
        yield made


def operation(id: int, **request) -> pb.CryptoOperation:
    return pb.CryptoOperation(id=id, **request)


def encrypt(id: int, name: str = ENC, data: bytes = b"x") -> pb.CryptoOperation:
    return operation(id, encrypt=pb.EncryptRequest(name=name, plaintext=data))


class Stream:
    """An open CryptoStream."""

    def __init__(self, client) -> None:
        self.call = client.crypto.CryptoStream()

    async def send(self, *operations, receipts: bool = False) -> None:
        await self.call.write(pb.CryptoStreamRequest(operations=operations, receipts=receipts))

    async def results(self, count: int) -> dict[int, pb.CryptoResult]:
        """The next results, by id."""
        found: dict[int, pb.CryptoResult] = {}
        while len(found) < count:
            response = await asyncio.wait_for(self.call.read(), 60)
            assert response is not grpc.aio.EOF, found.keys()
            for result in response.results:
                assert result.id not in found
                found[result.id] = result
        return found

    async def end(self) -> grpc.aio.AioRpcError:
        """The status with which the server ends it."""
        try:
            while await asyncio.wait_for(self.call.read(), 60) is not grpc.aio.EOF:
                pass
        except grpc.aio.AioRpcError as error:
            return error
        raise AssertionError("it ended well")


async def ask(client, *operations, **options) -> list[pb.CryptoResult]:
    """One message on a stream of its own, its results in order of ids, and a good end."""
    stream = Stream(client)
    await stream.send(*operations, **options)
    await stream.call.done_writing()
    found = await stream.results(len(operations))
    assert await stream.call.read() is grpc.aio.EOF
    assert await stream.call.code() is grpc.StatusCode.OK
    return [found[id] for id in sorted(found)]


async def until(happened: Callable[[], bool]) -> None:
    """Return once something that tells nobody has happened."""
    async with asyncio.timeout(60):
        while True:
            if happened():
                return
            await asyncio.sleep(0.01)


def records_of(world) -> list[dict[str, object]]:
    return [r for r in world.server.audit_records() if r["event"] == "call" and "stream" in r]


async def test_the_operations_are_the_single_calls_of_the_service():
    singles = {
        method.name
        for method in pb.DESCRIPTOR.services_by_name["CryptoService"].methods
        if not (method.name.startswith("Batch") or method.client_streaming)
    }
    assert {field.message_type.name.removesuffix("Request") for field in KINDS.values()} == singles
    outcomes = {
        field.name: field.message_type.name for field in pb.CryptoResult.DESCRIPTOR.oneofs_by_name["outcome"].fields
    }
    assert outcomes == {
        **{name: field.message_type.name.replace("Request", "Response") for name, field in KINDS.items()},
        "status": "Status",
    }


@pytest.mark.parametrize("kind", KINDS)
async def test_each_kind_of_operation_answers_and_is_recorded_as_its_single_call(world, kind):
    name = KINDS[kind].message_type.name.removesuffix("Request")
    request = world.crypto_request(name)
    before = len(world.server.audit_records())
    (result,) = await ask(world.admin, operation(7, **{kind: request}), receipts=True)
    assert result.WhichOneof("outcome") == kind, result.status
    answer = await world.admin.channel.unary_unary(CRYPTO + name)(request.SerializeToString())
    single = response_class(CRYPTO + name).FromString(answer)
    streamed = getattr(result, kind)
    assert {field.name for field, _ in streamed.ListFields()} == {field.name for field, _ in single.ListFields()}
    calls = [r for r in world.server.audit_records()[before:] if r["event"] == "call" and r["method"] == CRYPTO + name]
    assert len(calls) == 2
    assert calls[0].keys() - {"stream"} == calls[1].keys()
    same = ("principal", "peer", "code", "key_version", "name", "parent", "source_name")
    assert [calls[0].get(field) for field in same] == [calls[1].get(field) for field in same]
    assert calls[0]["id"] == f"{calls[0]['stream']}-7"
    assert result.receipt.sequence == calls[0]["seq"]


async def test_many_operations_in_any_order_come_back_with_their_ids(world):
    chooser = random.Random(20_261_126)
    sent: dict[int, bytes] = {}
    stream = Stream(world.server.app)
    found: dict[int, pb.CryptoResult] = {}

    async def read() -> None:
        while len(found) < 10_000:
            response = await stream.call.read()
            found.update((result.id, result) for result in response.results)

    reading = asyncio.ensure_future(read())
    ids = list(range(10_000))
    chooser.shuffle(ids)
    at = 0
    while at < len(ids):
        size = chooser.choice((1, 7, 100, 1_000))
        some = ids[at : at + size]
        at += size
        operations = []
        for id in some:
            if id % 50 == 0:
                operations.append(
                    operation(id, generate_mac=pb.GenerateMacRequest(name="vaults/default/keys/mac", data=b"%d" % id))
                )
            else:
                sent[id] = b"plain %d" % id
                operations.append(encrypt(id, data=sent[id]))
        await stream.send(*operations)
    await stream.call.done_writing()
    await reading
    assert found.keys() == set(ids)
    chosen = chooser.sample(sorted(sent), 900)
    opened = await ask(
        world.server.app,
        *(operation(id, decrypt=pb.DecryptRequest(name=ENC, ciphertext=found[id].encrypt.ciphertext)) for id in chosen),
    )
    assert {result.id: result.decrypt.plaintext for result in opened} == {id: sent[id] for id in chosen}


async def test_a_slow_operation_does_not_hold_up_quick_ones(world):
    slow = await world.create("default", "slow", key_of("SIGN", "RSA_PSS_4096_SHA512"))
    sign = [operation(id, sign=pb.SignRequest(name=slow, message=b"m")) for id in range(40)]
    stream = Stream(world.admin)
    await stream.send(*sign, *(encrypt(id) for id in range(100, 110)))
    first = await stream.call.read()
    assert {result.id for result in first.results} == set(range(100, 110))
    assert (await stream.results(40)).keys() == set(range(40))
    stream.call.cancel()


async def test_each_operation_is_authorised_by_itself(world):
    results = await ask(
        world.server.app,
        encrypt(1),
        operation(2, sign=pb.SignRequest(name="vaults/default/keys/sign", message=b"m")),
        encrypt(3, "vaults/other/keys/enc"),
        encrypt(4, "not a name"),
        encrypt(5, "vaults/default/keys/missing"),
        operation(6),
        operation(7, decrypt=pb.DecryptRequest(name=ENC, ciphertext=b"nothing")),
    )
    reasons = [reason_in(result.status) if result.HasField("status") else "" for result in results]
    assert reasons == [
        *("", "PERMISSION_DENIED", "PERMISSION_DENIED", "INVALID_NAME", "PERMISSION_DENIED", "OPERATION_MISSING"),
        "DECRYPTION_FAILED",
    ]
    single = world.server.app.crypto.Decrypt
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await single(pb.DecryptRequest(name=ENC, ciphertext=b"nothing"))
    assert results[6].status.message == refused.value.details()


async def test_every_operation_is_recorded_once_with_its_outcome(world):
    before = len(records_of(world))
    await ask(world.server.app, *(encrypt(id) for id in range(600)), encrypt(600, "vaults/other/keys/enc"))
    made = records_of(world)[before:]
    assert [record["code"] for record in made].count("OK") == 600
    assert sorted(int(record["id"].rpartition("-")[2]) for record in made) == list(range(601))
    (end,) = [r for r in world.server.audit_records() if r["event"] == "call" and r["id"] == made[0]["stream"]]
    assert (end["method"], end["code"], end["messages_in"]) == (CRYPTO + "CryptoStream", "OK", 1)
    opened = [r for r in world.server.audit_records() if r["event"] == "open" and r["id"] == end["id"]]
    assert opened[0]["seq"] < made[0]["seq"] < end["seq"]


async def test_a_grant_is_spent_for_each_operation(world):
    from vaultd_client.v1 import grant_pb2

    world.server.add_identity("grantee", uri=f"{SPIFFE}/grantee")
    create = grant_pb2.CreateGrantRequest(parent="vaults/default/keys/mac")
    create.grant.grantee, create.grant.max_uses = f"{SPIFFE}/grantee", 3
    create.grant.permissions.append("crypto.generate_mac")
    grant = await world.admin.keys.CreateGrant(create)
    mac = pb.GenerateMacRequest(name="vaults/default/keys/mac", data=b"d")
    results = await ask(world.server.client("grantee"), *(operation(id, generate_mac=mac) for id in range(5)))
    assert [result.WhichOneof("outcome") for result in results] == ["generate_mac"] * 3 + ["status"] * 2
    assert [record.get("grant") for record in records_of(world)[-5:]][:3] == [grant.name] * 3


async def test_a_throttled_operation_fails_by_itself_and_the_stream_goes_on(tmp_path):
    limits = {"symmetric": {"per_second": 5, "burst": 5}}
    async with running_server(tmp_path, limits=limits) as server:
        made = World(server)
        await made.create("default", "enc", key_of("ENCRYPT_DECRYPT"))
        stream = Stream(server.app)
        await stream.send(*(encrypt(id) for id in range(10)))
        results = await stream.results(10)
        codes = [result.status.code for _, result in sorted(results.items())]
        assert codes == [0] * 4 + [grpc.StatusCode.RESOURCE_EXHAUSTED.value[0]] * 6  # one was for opening the stream
        assert reason_in(results[9].status) == "QUOTA_EXCEEDED"
        await stream.send(encrypt(11))  # read once the wait is over that the refusal named
        assert (await stream.results(1))[11].encrypt.ciphertext
        stream.call.cancel()


async def test_an_operation_that_asks_for_nothing_passes_the_throttle(tmp_path):
    async with running_server(tmp_path, limits={"symmetric": {"per_second": 5, "burst": 5}}) as server:
        stream = Stream(server.app)
        await stream.send(*(operation(id) for id in range(10)))
        results = await stream.results(10)
        reasons = [reason_in(result.status) for _, result in sorted(results.items())]
        assert reasons == ["OPERATION_MISSING"] * 4 + ["QUOTA_EXCEEDED"] * 6
        stream.call.cancel()


async def test_a_half_closed_stream_is_answered_to_the_end(world):
    stream = Stream(world.server.app)
    await stream.send(*(encrypt(id) for id in range(1_000)))
    await stream.call.done_writing()
    assert len(await stream.results(1_000)) == 1_000
    assert await stream.call.read() is grpc.aio.EOF
    assert await stream.call.code() is grpc.StatusCode.OK
    assert {key for key, _ in await stream.call.trailing_metadata()} >= {"vaultd-request-id", "vaultd-receipt-bin"}


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (b"\xff", "REQUEST_MALFORMED"),
        (b"", "BATCH_SIZE"),
        (pb.CryptoStreamRequest(operations=[encrypt(1)] * 1_001).SerializeToString(), "BATCH_SIZE"),
    ],
)
async def test_a_message_that_makes_no_sense_ends_the_stream_after_what_came_before(world, body, reason):
    call = world.server.app.channel.stream_stream(CRYPTO + "CryptoStream")()
    await call.write(pb.CryptoStreamRequest(operations=[encrypt(1)]).SerializeToString())
    await call.write(body)
    assert pb.CryptoStreamResponse.FromString(await call.read()).results[0].encrypt.ciphertext
    with pytest.raises(grpc.aio.AioRpcError) as ended:
        await call.read()
    assert reason_of(ended.value) == reason


async def test_a_stream_without_a_message_is_refused(world):
    call = world.server.app.channel.stream_stream(CRYPTO + "CryptoStream")()
    await call.done_writing()
    with pytest.raises(grpc.aio.AioRpcError) as ended:
        await call.read()
    assert reason_of(ended.value) == "REQUEST_MISSING"


async def test_who_does_not_read_answers_is_not_read_from(world):
    tls = world.server.directory / "tls"
    files = [(tls / name).read_bytes() for name in ("ca.crt", "app.key", "app.crt")]
    options = [("grpc.http2.bdp_probe", 0), ("grpc.use_local_subchannel_pool", 1)]
    async with grpc.aio.secure_channel(world.server.address, grpc.ssl_channel_credentials(*files), options) as channel:
        call = channel.stream_stream(CRYPTO + "CryptoStream")()
        body = pb.CryptoStreamRequest(operations=[encrypt(1, data=bytes(4096))] * 200).SerializeToString()

        async def flood() -> None:
            for _ in range(200):
                await call.write(body)

        flooding = asyncio.ensure_future(flood())
        streams = world.server.server.chain._open_streams._streams

        def opened() -> list:
            return [one for one in streams if one.route.path.endswith("CryptoStream") and one.received]

        await until(opened)
        done, _ = await asyncio.wait([flooding], timeout=1.0)
        assert not done
        (open_stream,) = opened()
        assert open_stream.unanswered_bytes < 6 * 1024 * 1024
        assert open_stream.received < 20
        await call.read()
        flooding.cancel()
        call.cancel()
        await asyncio.gather(flooding, return_exceptions=True)


def random_bytes(id: int) -> pb.CryptoOperation:
    request = pb.GenerateRandomBytesRequest(parent="vaults/default", length_bytes=65_536)
    return operation(id, generate_random_bytes=request)


async def test_answers_that_fit_into_no_message_come_in_several(world):
    results = await ask(world.server.app, *(random_bytes(id) for id in range(250)))
    assert {len(result.generate_random_bytes.data) for result in results} == {65_536}


async def test_nothing_is_begun_for_who_does_not_take_its_answers(world):
    before = len(records_of(world))
    call = world.server.app.channel.stream_stream(CRYPTO + "CryptoStream")()
    await call.write(pb.CryptoStreamRequest(operations=map(random_bytes, range(1_000))).SerializeToString())
    streams = world.server.server.chain._open_streams._streams
    async with asyncio.timeout(60):
        full = []
        while not full or full[0].tasks:
            await asyncio.sleep(0.01)
            full = [one for one in streams if one.route.path.endswith("CryptoStream") and one.unanswered_bytes > 2**22]
    assert sum(len(body) for body, _ in full[0].out) < 6 * 1024 * 1024
    assert 0 < len(records_of(world)) - before < 300
    call.cancel()


async def test_all_streams_of_a_principal_that_nobody_reads_hold_no_more_than_their_bound(tmp_path):
    bound = 8 * 1024 * 1024
    limits = {**GENEROUS["limits"], "stream_mib": 8, "stream_mib_per_principal": 8}
    async with running_server(tmp_path, limits=limits) as server:
        await World(server).furnish("default")
        held = server.server.chain._items._held
        operations = [random_bytes(id) for id in range(250)]  # four streams could hold it all
        streams = [Stream(server.app) for _ in range(12)]
        for stream in streams:
            await stream.send(*operations)
            await stream.call.done_writing()
        open_streams = server.server.chain._open_streams._streams
        await until(lambda: held.held >= bound and not any(one.tasks for one in open_streams))
        assert held.held < bound + 2 * 1024 * 1024
        (other,) = await ask(server.admin, encrypt(1))
        assert other.encrypt.ciphertext
        for found in await asyncio.gather(*(stream.results(250) for stream in streams)):
            assert len(found) == 250
        for stream in streams:
            assert await stream.call.code() is grpc.StatusCode.OK
        assert held.held == 0


async def test_what_comes_on_all_streams_at_once_beyond_twice_the_bound_is_refused(tmp_path):
    limits = {**GENEROUS["limits"], "stream_mib": 8, "stream_mib_per_principal": 8}
    async with running_server(tmp_path, limits=limits) as server:
        await World(server).furnish("default")
        large = [encrypt(id, data=bytes(60_000)) for id in range(60)]  # 3.5 MiB
        streams = [Stream(server.app) for _ in range(12)]
        await asyncio.gather(*(stream.send(*large) for stream in streams), return_exceptions=True)
        await until(lambda: any(stream.call.done() for stream in streams))
        over = next(stream for stream in streams if stream.call.done())
        assert reason_of(await over.end()) == "STREAM_BYTES_EXCEEDED"
        for stream in streams:
            stream.call.cancel()
        held = server.server.chain._items._held
        await until(lambda: held.held == 0)
        assert (await ask(server.app, encrypt(1)))[0].encrypt.ciphertext


@pytest.mark.parametrize(
    ("request_", "at_least", "at_most"),
    [
        (pb.GenerateRandomBytesRequest(length_bytes=65_536), 65_536, 70_000),
        (pb.GenerateRandomBytesRequest(length_bytes=-(2**31)), 0, 5_000),
        (pb.GenerateRandomBytesRequest(length_bytes=2**31 - 1), 65_536, 70_000),
        (pb.GenerateDataKeyRequest(count=100, length_bytes=1024), 200 * 1024, 250 * 1024),
        (pb.GenerateDataKeyRequest(count=2**31 - 1, length_bytes=2**31 - 1), 200 * 1024, 250 * 1024),
        (pb.GenerateDataKeyRequest(), 64, 5_000),
        (pb.EncryptRequest(plaintext=bytes(65_536)), 65_536, 70_000),
    ],
)
async def test_how_large_an_answer_can_be_is_known_before(request_, at_least, at_most):
    assert at_least <= answer_bytes(request_, request_.ByteSize()) <= at_most


async def test_a_revoked_identity_loses_its_stream(world):
    stream = Stream(world.server.client("fired"))
    await stream.send(encrypt(1))
    await stream.results(1)
    await world.admin.admin.RevokeIdentity(identity_pb2.RevokeIdentityRequest(principal=f"{SPIFFE}/fired"))
    ended = await stream.end()
    assert reason_of(ended) == "IDENTITY_REVOKED"


async def test_a_changed_policy_decides_about_the_next_operation(world):
    stream = Stream(world.server.client("leaver"))
    await stream.send(encrypt(1))
    assert (await stream.results(1))[1].encrypt.ciphertext
    current = await world.admin.admin.GetPolicy(policy_pb2.GetPolicyRequest(resource="/"))
    for binding in current.policy.bindings:
        if f"{SPIFFE}/leaver" in binding.members:
            binding.members.remove(f"{SPIFFE}/leaver")
            binding.members.append(f"{SPIFFE}/heir")
    await world.admin.admin.SetPolicy(policy_pb2.SetPolicyRequest(resource="/", policy=current.policy))
    await stream.send(encrypt(2))
    assert reason_in((await stream.results(1))[2].status) == "PERMISSION_DENIED"
    stream.call.cancel()


async def test_a_cancelled_stream_is_recorded_and_leaves_nothing_behind(world):
    slow = await world.create("default", "slower", key_of("SIGN", "RSA_PSS_4096_SHA512"))
    stream = Stream(world.admin)
    await stream.send(
        encrypt(1), *(operation(id, sign=pb.SignRequest(name=slow, message=b"m")) for id in range(2, 200))
    )
    await stream.results(1)
    mine = records_of(world)[-1]["stream"]
    stream.call.cancel()
    async with asyncio.timeout(60):
        ended: list[dict[str, object]] = []
        while not ended:
            await asyncio.sleep(0.02)
            ended = [r for r in world.server.audit_records() if r["event"] == "call" and r["id"] == mine]
    assert ended[0]["code"] == "CANCELLED"
    items = [r for r in records_of(world) if r["stream"] == mine]
    assert sorted(int(r["id"].rpartition("-")[2]) for r in items) == list(range(1, 200))
    assert {r["code"] for r in items} == {"OK", "CANCELLED"}


async def test_a_stopping_server_answers_what_it_read_and_says_to_go_on_elsewhere(tmp_path):
    async with running_server(tmp_path) as server:
        made = World(server)
        slow = await made.create("default", "slow", key_of("SIGN", "RSA_PSS_2048_SHA256"))
        await made.create("default", "enc", key_of("ENCRYPT_DECRYPT"))
        stream = Stream(server.admin)
        await stream.send(
            encrypt(1), *(operation(id, sign=pb.SignRequest(name=slow, message=b"m")) for id in range(2, 50))
        )
        got = (await stream.results(1)).keys()
        server.server.chain.drain_streams()
        rest = await stream.results(49 - len(got))
        assert all(result.HasField("sign") for result in rest.values())
        ended = await stream.end()
        assert (ended.code(), reason_of(ended)) == (grpc.StatusCode.UNAVAILABLE, "SERVER_DRAINING")
        late = await Stream(server.admin).end()
        assert reason_of(late) == "SERVER_DRAINING"


async def test_no_result_leaves_that_cannot_be_recorded(tmp_path):
    async with running_server(tmp_path) as server:
        made = World(server)
        await made.create("default", "enc", key_of("ENCRYPT_DECRYPT"))
        stream = Stream(server.app)
        await stream.send(encrypt(1))
        assert (await stream.results(1))[1].encrypt.ciphertext
        with without_audit(server):
            await stream.send(encrypt(2), encrypt(3, "vaults/other/keys/enc"))
            results = await stream.results(2)
            assert {reason_in(result.status) for result in results.values()} == {"AUDIT_UNAVAILABLE"}
            late = Stream(server.app)
            await late.send(encrypt(1))
            assert reason_of(await late.end()) == "AUDIT_UNAVAILABLE"
        await stream.send(encrypt(4))
        assert (await stream.results(1))[4].encrypt.ciphertext
        stream.call.cancel()


async def test_a_fault_of_ours_ends_the_stream_with_its_incident(world, monkeypatch):
    def fault(self, response, ended) -> None:
        raise RuntimeError("secret words")

    monkeypatch.setattr(CryptoSession, "finish", fault)
    stream = Stream(world.server.app)
    await stream.send(encrypt(1))
    ended = await stream.end()
    assert (ended.code(), ended.details()) == (grpc.StatusCode.INTERNAL, "internal error")
    assert error_info(ended).metadata["incident"]


@pytest.mark.parametrize("name", ["CryptoStream", "ReEncryptStream"])
async def test_a_method_that_takes_a_stream_needs_a_rule_that_says_so(name):
    services = {pb.DESCRIPTOR.services_by_name["CryptoService"]: CryptoService(None, None, {})}
    assert build_routes(services, RULES)[CRYPTO + name].streaming
    rules = [replace(rule, each=False, named=True) if rule.method == CRYPTO + name else rule for rule in RULES]
    with pytest.raises(RouteMissing, match="what is asked of each"):
        build_routes(services, rules)


# -- ReEncryptStream ----------------------------------------------------------------------------------------------------


async def test_ciphertexts_are_moved_to_the_newest_version_and_the_report_says_what_is_left(world):
    from vaultd_client.v1 import keys_pb2

    key = await world.create("default", "moving", key_of("ENCRYPT_DECRYPT"))
    texts = {}
    for version in (1, 2, 3):
        for at in range(10):
            aad = b"row %d" % at
            sealed = await world.admin.crypto.Encrypt(
                pb.EncryptRequest(name=key, plaintext=b"%d of %d" % (at, version), associated_data=aad)
            )
            texts[version * 100 + at] = (sealed.ciphertext, aad, b"%d of %d" % (at, version))
        if version < 3:
            await world.admin.keys.RotateKey(keys_pb2.RotateKeyRequest(name=key))
    await world.admin.keys.DisableKeyVersion(keys_pb2.DisableKeyVersionRequest(name=f"{key}/versions/2"))
    items = [
        pb.ReEncryptStreamItem(id=id, ciphertext=text, associated_data=aad) for id, (text, aad, _) in texts.items()
    ]
    items.append(pb.ReEncryptStreamItem(id=900, ciphertext=b"of somebody else"))

    async def move(items):
        call = world.admin.crypto.ReEncryptStream()
        await call.write(pb.ReEncryptStreamRequest(source_name=key, items=items[:7]))
        if items[7:]:
            await call.write(pb.ReEncryptStreamRequest(items=items[7:]))
        await call.done_writing()
        results, report, done = {}, None, False
        async for response in call:
            results.update((result.id, result) for result in response.results)
            report, done = response.report, response.done
        assert done
        return results, report

    results, report = await move(items)
    assert results.keys() == {item.id for item in items}
    assert (report.moved, report.unchanged, report.failed) == (10, 10, 11)
    assert dict(report.moved_from) == {f"{key}/versions/1": 10}
    assert dict(report.left) == {f"{key}/versions/2": 10}
    assert dict(report.failures) == {"KEY_VERSION_DISABLED": 10, "DECRYPTION_FAILED": 1}
    for id, (_, aad, plaintext) in texts.items():
        if id < 200:
            moved = results[id].result
            assert moved.key_version == f"{key}/versions/3"
            opened = await world.admin.crypto.Decrypt(
                pb.DecryptRequest(name=key, ciphertext=moved.ciphertext, associated_data=aad)
            )
            assert opened.plaintext == plaintext
        elif id >= 300:
            assert results[id].unchanged
            assert not results[id].result.ciphertext
    again = [
        pb.ReEncryptStreamItem(id=id, ciphertext=results[id].result.ciphertext or text, associated_data=aad)
        for id, (text, aad, _) in texts.items()
    ]
    _, report = await move(again)
    assert (report.moved, report.unchanged, report.failed) == (0, 20, 10)


async def test_a_stream_of_ciphertexts_needs_a_key_and_both_permissions(world):
    call = world.admin.crypto.ReEncryptStream()
    await call.write(pb.ReEncryptStreamRequest(items=[pb.ReEncryptStreamItem(id=1, ciphertext=b"?")]))
    with pytest.raises(grpc.aio.AioRpcError) as ended:
        await call.read()
    assert reason_of(ended.value) == "SOURCE_MISSING"


@pytest.mark.parametrize("field", ["source_name", "destination_name"])
async def test_a_name_that_is_none_ends_the_stream_before_it_is_copied_into_every_item(world, field):
    items = [pb.ReEncryptStreamItem(id=id, ciphertext=b"?") for id in range(1_000)]
    names = {"source_name": ENC, field: "n" * 1_000_000}
    recorded = len(records_of(world))
    call = world.admin.crypto.ReEncryptStream()
    await call.write(pb.ReEncryptStreamRequest(items=items, **names))
    with pytest.raises(grpc.aio.AioRpcError) as ended:
        await call.read()
    assert reason_of(ended.value) == "INVALID_NAME"
    assert len(records_of(world)) == recorded
