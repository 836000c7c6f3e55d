"""What receipts promise can be proved, the log can be verified by its node, and followed as it is written."""

from __future__ import annotations

import asyncio
import threading

import grpc
import orjson
import pytest
import pytest_asyncio
from wire import ADMIN, CRYPTO, GENEROUS, World, call

from harness import error_info, reason_of, running_server
from vaultd.audit.blocks import NAMES
from vaultd.audit.checkpoints import read_public_keys, verify_note
from vaultd.audit.tree import leaf_hash, verify_consistency, verify_inclusion
from vaultd.engine import audit_proofs
from vaultd.engine.audit_proofs import AuditProofs
from vaultd_client.v1 import audit_pb2, crypto_pb2, resources_pb2

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def world(tmp_path_factory):
    async with running_server(tmp_path_factory.mktemp("proofs"), **GENEROUS) as server:
        made = World(server)
        await made.furnish("default")
        server.add_identity("stranger", uri="spiffe://dev.vaultd/stranger")
        yield made


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def receipts(world):
    """Of six hundred answers, from several callers at once."""
    request = crypto_pb2.EncryptRequest(name="vaults/default/keys/enc", plaintext=b"x")
    outcomes = await asyncio.gather(*(call(world.admin, f"{CRYPTO}Encrypt", request) for _ in range(600)))
    return [resources_pb2.AuditReceipt.FromString(outcome.trailing["vaultd-receipt-bin"]) for outcome in outcomes]


async def prove(world, receipt):
    request = audit_pb2.GetInclusionProofRequest(
        sequence=receipt.sequence, chain_id=receipt.chain_id, leaf_hash=receipt.leaf_hash
    )
    return await world.admin.admin.GetInclusionProof(request)


def holds(proof, receipt):
    """Whether a caller who knows nothing but its receipt may believe a proof."""
    head = verify_note(proof.checkpoint.note, read_public_keys(proof.public_keys.encode()))
    index = receipt.sequence - head.first
    return head.chain_id == receipt.chain_id and verify_inclusion(
        receipt.leaf_hash, index, head.size, list(proof.path), head.root
    )


async def test_every_receipt_is_proved_to_who_has_nothing_else(world, receipts):
    for receipt in receipts[::40]:
        proof = await prove(world, receipt)
        assert holds(proof, receipt)
        other = resources_pb2.AuditReceipt(chain_id=receipt.chain_id, sequence=receipt.sequence, leaf_hash=b"x" * 32)
        assert not holds(proof, other)
        assert proof.checkpoint.tree_size > proof.leaf_index
        assert proof.checkpoint.sign_time.seconds > 0


async def test_the_answer_of_this_moment_is_covered_by_a_checkpoint_that_is_made_for_it(world):
    outcome = await call(world.admin, f"{CRYPTO}Encrypt", world.crypto_request("Encrypt"))
    receipt = resources_pb2.AuditReceipt.FromString(outcome.trailing["vaultd-receipt-bin"])
    assert holds(await prove(world, receipt), receipt)


@pytest.mark.parametrize("change", [{"sequence": 10**9}, {"chain_id": b"x" * 16}, {"leaf_hash": b"x" * 32}])
async def test_what_is_not_in_the_log_is_not_proved(world, receipts, change):
    receipt = receipts[0]
    fields = {"sequence": receipt.sequence, "chain_id": receipt.chain_id, "leaf_hash": receipt.leaf_hash, **change}
    with pytest.raises(grpc.aio.AioRpcError) as error:
        await world.admin.admin.GetInclusionProof(audit_pb2.GetInclusionProofRequest(**fields))
    assert (error.value.code().name, reason_of(error.value)) == ("NOT_FOUND", "AUDIT_RECORD_NOT_FOUND")


async def test_proofs_hold_after_the_stored_hashes_were_damaged(world, receipts):
    audit = world.server.directory / "audit"
    assert holds(await prove(world, receipts[10]), receipts[10])  # the first one stores them
    for damage in (lambda path: path.unlink(), lambda path: path.write_bytes(b"\0" * path.stat().st_size)):
        path = audit / NAMES[8]
        assert path.stat().st_size >= 64
        damage(path)
        assert holds(await prove(world, receipts[10]), receipts[10])
        assert path.stat().st_size >= 64
        assert path.read_bytes().count(b"\0" * 32) == 0


async def test_a_later_tree_is_proved_to_begin_with_an_earlier_one(world, receipts):
    early = (await prove(world, receipts[0])).checkpoint
    await call(world.admin, f"{CRYPTO}Encrypt", world.crypto_request("Encrypt"))
    await world.server.server.witness.checkpoint()
    request = audit_pb2.GetConsistencyProofRequest(tree_size=early.tree_size, chain_id=early.chain_id)
    proof = await world.admin.admin.GetConsistencyProof(request)
    late = proof.checkpoint
    assert late.tree_size > early.tree_size
    assert verify_consistency(early.tree_size, late.tree_size, list(proof.path), early.root_hash, late.root_hash)
    with pytest.raises(grpc.aio.AioRpcError) as error:
        await world.admin.admin.GetConsistencyProof(audit_pb2.GetConsistencyProofRequest(tree_size=10**9))
    assert reason_of(error.value) == "AUDIT_RECORD_NOT_FOUND"


LIMITS = {
    "GetInclusionProof.sequence": (1, 2**62),
    "GetConsistencyProof.tree_size": (1, 2**62),
    "VerifyAudit.first_sequence": (0, 2**62),
    "VerifyAudit.max_records": (0, 1_000_000),
    "TailAudit.after_sequence": (0, 2**62),
}


@pytest.mark.parametrize("full", LIMITS)
async def test_a_number_within_its_range_passes_and_one_beyond_does_not(world, full):
    method, field = full.split(".")
    least, most = LIMITS[full]
    reasons = []
    for value in (least - 1, least, most, most + 1):
        request = await world.request(f"{ADMIN}{method}")
        setattr(request, field, value)
        reasons.append((await call(world.admin, f"{ADMIN}{method}", request)).reason == "FIELD_RANGE")
    assert reasons == [True, False, False, True]


# -- VerifyAudit --------------------------------------------------------------------------------------------------------


async def verify(world, **request):
    return await world.admin.admin.VerifyAudit(audit_pb2.VerifyAuditRequest(**request))


async def test_the_node_verifies_its_log_whole_and_in_parts(world, receipts):
    whole = await verify(world)
    assert (whole.intact, whole.first_sequence, whole.next_sequence) == (True, 1, 0)
    assert whole.checkpoints >= 2
    assert whole.last_sequence >= max(receipt.sequence for receipt in receipts)
    await world.server.server.witness.checkpoint()
    part = await verify(world, max_records=100)
    assert (part.intact, part.last_sequence, part.next_sequence) == (True, 100, 101)
    rest = await verify(world, first_sequence=part.next_sequence)
    assert rest.intact
    assert 0 < rest.first_sequence <= 101
    assert rest.next_sequence == 0
    last = await verify(world, first_sequence=whole.last_sequence)
    assert last.intact
    assert last.first_sequence > 101


async def test_a_verification_that_nobody_waits_for_stops_and_the_next_begins_after_it(world, monkeypatch):
    proofs = AuditProofs(world.server.server._audit_log, world.server.server.witness)
    begun = threading.Event()
    happened = []

    def endless(directory, walk, until, pause) -> None:
        begun.set()
        try:
            for _ in range(2_000):
                pause()
            happened.append("went on")
        finally:
            happened.append("ended")

    prove = audit_proofs._consistency
    monkeypatch.setattr(audit_proofs, "walk_segments", endless)
    monkeypatch.setattr(audit_proofs, "_consistency", lambda *of: happened.append("next") or prove(*of))
    first = asyncio.ensure_future(proofs.verify(1, 10))
    await asyncio.to_thread(begun.wait)
    second = asyncio.ensure_future(proofs.consistency(1))
    first.cancel()
    await second
    assert happened == ["ended", "next"]


async def test_a_bad_record_is_an_answer(tmp_path):
    async with running_server(tmp_path, **GENEROUS) as server:
        world = World(server)
        for _ in range(5):
            await world.fresh_key()
        path = max((tmp_path / "audit").glob("*.jsonl"))
        lines = path.read_bytes().splitlines(keepends=True)
        path.write_bytes(b"".join([*lines[:3], lines[3].replace(b"a", b"b", 1), *lines[4:]]))
        found = await verify(world)
    assert not found.intact
    number = orjson.loads(lines[3])["seq"]
    assert (found.bad_segment, found.bad_line, found.bad_sequence) == (path.name, 4, number)
    assert found.last_sequence == number - 1
    assert "chain hash" in found.problem


# -- TailAudit ----------------------------------------------------------------------------------------------------------


async def tail(world, **request):
    """Everything that a tail with an end sends."""
    stream = world.admin.admin.TailAudit(audit_pb2.TailAuditRequest(stop_at_end=True, **request))
    records = []
    async for response in stream:
        records += response.records
    return records


async def test_a_tail_sends_every_record_as_it_is_in_the_log(world, receipts):
    records = await tail(world, after_sequence=0)
    assert [record.sequence for record in records] == list(range(1, len(records) + 1))
    leaves = {record.sequence: leaf_hash(record.line) for record in records}
    assert all(leaves[receipt.sequence] == receipt.leaf_hash for receipt in receipts)
    again = await tail(world, after_sequence=records[-3].sequence)
    assert again[:2] == records[-2:]


async def test_a_filter_takes_what_it_names(world, receipts):
    def of(records):
        return [orjson.loads(record.line) for record in records]

    everything = of(await tail(world, after_sequence=0))
    encrypt = await tail(
        world, after_sequence=0, filter=audit_pb2.AuditFilter(methods=[f"{CRYPTO}Encrypt"], events=["call"])
    )
    assert of(encrypt) == [r for r in everything if r.get("method") == f"{CRYPTO}Encrypt" and r["event"] == "call"]
    assert len(encrypt) >= len(receipts)
    key = "vaults/default/keys/enc"
    named = of(await tail(world, after_sequence=0, filter=audit_pb2.AuditFilter(resource_prefix=key)))
    assert named
    assert all(key in orjson.dumps(record).decode() for record in named)
    await call(world.server.client("stranger"), f"{CRYPTO}Encrypt", world.crypto_request("Encrypt"))
    refused = of(
        await tail(
            world,
            after_sequence=0,
            filter=audit_pb2.AuditFilter(principals=["spiffe://dev.vaultd/stranger"], codes=["PERMISSION_DENIED"]),
        )
    )
    assert [record["reason"] for record in refused] == ["PERMISSION_DENIED"]


async def test_a_tail_goes_on_with_what_is_written(world):
    stream = world.admin.admin.TailAudit(
        audit_pb2.TailAuditRequest(filter=audit_pb2.AuditFilter(methods=[f"{CRYPTO}GenerateMac"]))
    )
    first = await stream.read()
    assert not first.records
    assert len(first.chain_id) == 16
    outcome = await call(world.admin, f"{CRYPTO}GenerateMac", world.crypto_request("GenerateMac"))
    async with asyncio.timeout(60):
        response = await stream.read()
        while not response.records:
            response = await stream.read()
    stream.cancel()
    (record,) = response.records
    assert orjson.loads(record.line)["id"] == outcome.request_id
    assert response.sequence >= record.sequence


async def test_a_tail_begins_at_a_time(world):
    records = await tail(world, after_sequence=0)
    request = audit_pb2.TailAuditRequest(stop_at_end=True)
    request.start_time.FromJsonString(orjson.loads(records[20].line)["time"])
    found = []
    async for response in world.admin.admin.TailAudit(request):
        found += response.records
    assert found[0].sequence in {records[20].sequence, records[19].sequence}
    assert len(found) >= len(records) - 21
    request.after_sequence = 1
    with pytest.raises(grpc.aio.AioRpcError) as error:
        await world.admin.admin.TailAudit(request).read()
    assert reason_of(error.value) == "TWO_STARTS"


async def test_what_was_removed_is_said_to_be(tmp_path):
    async with running_server(
        tmp_path, audit={"directory": tmp_path / "audit", "segment_bytes": 2_000}, **GENEROUS
    ) as server:
        world = World(server)
        for _ in range(10):
            await world.fresh_key()
        await server.server.witness.checkpoint()
        oldest = min((tmp_path / "audit").glob("*.jsonl"))
        oldest.unlink()
        with pytest.raises(grpc.aio.AioRpcError) as error:
            async for _ in world.admin.admin.TailAudit(audit_pb2.TailAuditRequest(after_sequence=0)):
                pass
        assert reason_of(error.value) == "AUDIT_PRUNED"
        begin = int(error_info(error.value).metadata["oldest_sequence"])
        records = await tail(world, after_sequence=begin - 1)
    assert begin > 1
    assert records[0].sequence == begin
