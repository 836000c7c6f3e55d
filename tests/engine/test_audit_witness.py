"""Store and audit log vouch for each other: whichever is put back from the past, cut or rewritten is found at unseal."""

from __future__ import annotations

import asyncio
import re
import shutil
import subprocess
import sys
from contextlib import asynccontextmanager

import orjson
import pytest
import yaml
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from engines import intent

from harness import ADMIN, DEFAULT_POLICY, FakeClock, make_settings, running_server
from vaultd.audit import heads
from vaultd.audit.checkpoints import Signer, read_public_keys
from vaultd.audit.lines import first_chain, link, take_apart
from vaultd.audit.verify import verify_directory
from vaultd.engine.algorithms import Purpose
from vaultd.engine.audit_chains import log_row
from vaultd.engine.audit_proofs import AuditProofs
from vaultd.engine.audit_witness import mac_key
from vaultd.engine.key_specs import KeySpec
from vaultd.engine.policy import seed_policy
from vaultd.engine.seal import SealState
from vaultd.errors import DataLoss, FailedPrecondition, Unavailable
from vaultd.wiring import Server
from vaultd_client.v1 import admin_pb2, keys_pb2, resources_pb2

POLICY = seed_policy([ADMIN], DEFAULT_POLICY)


@asynccontextmanager
async def open_server(directory, *, accept_restore=False, unseal=True, clock=None, **audit):
    """A server without a host: its audit log and store, unsealed, initialised when it is new."""
    settings = make_settings(directory, audit={"directory": directory / "audit", **audit})
    new = not settings.store.path.exists()
    async with Server(settings, clock, accept_restore=accept_restore).offline() as server:
        if new:
            await server.engine.seal.init(POLICY, None)
        elif unseal:
            await server.engine.seal.unseal(None)
        yield server


async def refusal(directory, **options):
    with pytest.raises((DataLoss, FailedPrecondition)) as error:
        async with open_server(directory, **options):
            pass
    return error.value.reason


async def create(server, key_id):
    await server.engine.lifecycle.create_key(intent(), "default", key_id, KeySpec(purpose=Purpose.ENCRYPT_DECRYPT))


def records(directory):
    lines = b"".join(path.read_bytes() for path in sorted((directory / "audit").glob("*.jsonl")))
    return [orjson.loads(line) for line in lines.splitlines()]


def events(directory):
    return [record["event"] for record in records(directory)]


def put_back(directory, name, copy):
    """A file or directory as it was, and nothing that is newer."""
    for path in (directory / name, directory / f"{name}-wal", directory / f"{name}-shm"):
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)
    (shutil.copytree if copy.is_dir() else shutil.copy2)(copy, directory / name)


async def test_each_unsealing_names_the_keys_and_signs_and_so_does_the_end(tmp_path):
    async with open_server(tmp_path) as server:
        keys, pem = server.witness.public_keys, server.witness.public_pem
    assert events(tmp_path) == ["audit_keys", "checkpoint", "checkpoint"]
    async with open_server(tmp_path) as server:
        assert server.witness.public_keys == keys == read_public_keys(pem)
    verdict = verify_directory(tmp_path / "audit", keys=keys)
    assert (verdict.checkpoints, verdict.unsigned) == (4, 0)
    first = records(tmp_path)[0]
    assert "mac" in first
    assert first["keys"][0]["algorithm"] == "ED25519"


async def test_a_checkpoint_comes_with_time_and_only_for_something_new(tmp_path):
    clock = FakeClock()
    async with open_server(tmp_path, clock=clock, checkpoint_interval_s=10) as server:
        before = server.witness.newest
        clock.advance(60)
        await server.witness.tick()
        assert server.witness.newest == before
        server._audit_log.append({"event": "call"})
        await server.witness.tick()
        after = server.witness.newest
        assert after.head.last == after.sequence - 1 > before.sequence
        server._audit_log.append({"event": "call"})
        await server.witness.tick()
        assert server.witness.newest == after
        clock.advance(9.9)
        await server.witness.tick()
        assert server.witness.newest == after
        clock.advance(0.1)
        await server.witness.tick()
        assert server.witness.newest.head.size > after.head.size
        revision = await server.engine.store.revision()
        clock.advance(299)
        server._audit_log.append({"event": "call"})
        await server.witness.tick()
        told = await server.engine.ledger.read(log_row(server.witness.chain_id))
        assert told.values["size"] == server.witness.newest.head.size  # told again: five minutes are over
        assert await server.engine.store.revision() == revision + 1


async def test_a_store_that_was_put_back_is_found_and_served_only_when_that_is_accepted(tmp_path):
    async with open_server(tmp_path) as server:
        await create(server, "first")
    shutil.copy2(tmp_path / "vault.db", tmp_path / "old.db")
    async with open_server(tmp_path) as server:
        await create(server, "second")
    put_back(tmp_path, "vault.db", tmp_path / "old.db")
    assert await refusal(tmp_path) == "STORE_ROLLED_BACK"
    assert await refusal(tmp_path) == "STORE_ROLLED_BACK"
    async with open_server(tmp_path, accept_restore=True) as server:
        assert server.engine.seal.state is SealState.UNSEALED
        await create(server, "second")
    accepted = [record for record in records(tmp_path) if record["event"] == "restore_accepted"]
    assert [record["store_revision"] < record["was"] for record in accepted] == [True]
    async with open_server(tmp_path) as server:
        keys = server.witness.public_keys
    assert verify_directory(tmp_path / "audit", keys=keys).unsigned == 0


async def test_a_store_that_was_put_back_and_went_on_elsewhere_is_found(tmp_path):
    async with open_server(tmp_path) as server:
        await create(server, "first")
    shutil.copytree(tmp_path, tmp_path / "elsewhere", ignore=lambda d, n: [m for m in n if m in {"audit", "elsewhere"}])
    async with open_server(tmp_path):
        pass
    async with open_server(tmp_path / "elsewhere") as server:
        for n in range(20):
            await create(server, f"k{n}")
    put_back(tmp_path, "vault.db", tmp_path / "elsewhere" / "vault.db")
    assert await refusal(tmp_path) == "STORE_ROLLED_BACK"


async def test_a_store_that_was_put_back_to_before_one_acknowledged_mutation_is_found_without_a_checkpoint(tmp_path):
    """The server dies right after it acknowledged; the newest checkpoint knows nothing of it, the record does."""
    stage = tmp_path / "stage"
    key = resources_pb2.Key(purpose=resources_pb2.KEY_PURPOSE_ENCRYPT_DECRYPT)
    create_key = lambda id: keys_pb2.CreateKeyRequest(parent="vaults/default", key_id=id, key=key)  # noqa: E731
    async with running_server(stage) as server:
        await server.admin.keys.CreateKey(create_key("first"))
        async with server.server.engine.store.snapshot():
            await server.server.engine.store.backup(tmp_path / "old.db")
        await server.admin.keys.CreateKey(create_key("second"))
        shutil.copytree(stage, tmp_path / "died")
    async with open_server(tmp_path / "died"):
        pass
    shutil.rmtree(tmp_path / "died" / "audit")
    shutil.copytree(stage / "audit", tmp_path / "died" / "audit")
    put_back(tmp_path / "died", "vault.db", tmp_path / "old.db")
    assert await refusal(tmp_path / "died") == "STORE_ROLLED_BACK"


async def test_a_log_that_was_put_back_is_found_by_the_store(tmp_path):
    async with open_server(tmp_path):
        pass
    shutil.copytree(tmp_path / "audit", tmp_path / "old")
    async with open_server(tmp_path):
        pass
    put_back(tmp_path, "audit", tmp_path / "old")
    assert await refusal(tmp_path) == "AUDIT_ROLLED_BACK"
    assert await refusal(tmp_path, accept_restore=True) == "AUDIT_ROLLED_BACK"
    shutil.rmtree(tmp_path / "audit")
    async with open_server(tmp_path) as server:
        assert server.engine.seal.state is SealState.UNSEALED


async def test_a_log_stripped_of_its_hashes_is_found_by_the_store(tmp_path):
    async with open_server(tmp_path):
        pass
    for path in (tmp_path / "audit").glob("*.jsonl"):
        stripped = [take_apart(line).content + b"}\n" for line in path.read_bytes().splitlines()]
        path.write_bytes(b"".join(line for line in stripped if b"checkpoint" not in line))
    (tmp_path / "audit" / heads.CHECKPOINT_FILE).unlink()
    assert await refusal(tmp_path) == "AUDIT_ROLLED_BACK"


@pytest.mark.parametrize("keep_macs", [True, False])
async def test_a_tail_that_was_rewritten_without_the_key_ring_is_found_before_anything_is_signed(tmp_path, keep_macs):
    async with open_server(tmp_path) as server:
        server._audit_log.append({"event": "call", "code": "OK", "n": 1})
        server._audit_log.append({"event": "call", "code": "OK", "n": 2})
        shutil.copytree(tmp_path, tmp_path / "died")
    died = tmp_path / "died"
    before = first_chain(bytes.fromhex((died / "audit/chain-id").read_text()))
    for path in sorted((died / "audit").glob("*.jsonl")):
        lines = []
        for line in path.read_bytes().splitlines():
            parts = take_apart(line)
            content = parts.content.replace(b'"n":1', b'"n":7')
            made, before = link(before, content, None)
            keep = keep_macs or content == parts.content
            lines.append((made[:-2] + b'","mac":"' + parts.mac.encode() + b'"}' if keep else made) + b"\n")
        path.write_bytes(b"".join(lines))
    count = len(records(died))
    assert await refusal(died) == "AUDIT_TAMPERED"
    assert "checkpoint" not in events(died)[count:]


def rewritten(directory, change):
    """Compute hashes anew after a change of (event, line) of records behind the newest checkpoint, without the key ring.

    `change` returns a record's new content, and whether it keeps its MAC; or None for a record that goes.
    """
    newest = heads.read_newest(directory / "audit")
    before = None
    for path in sorted((directory / "audit").glob("*.jsonl")):
        lines = []
        for line in path.read_bytes().splitlines():
            parts = take_apart(line)
            if orjson.loads(line)["seq"] > newest.sequence:
                content, keep = change(parts.content)
                line, before = link(before, content, None)
                if keep and parts.mac:
                    line = line[:-2] + b'","mac":"' + parts.mac.encode() + b'"}'
            else:
                before = parts.chain
            lines.append(line + b"\n")
        path.write_bytes(b"".join(lines))


FORGED = [
    b'"event":"call","method":"/vaultd.v1.AdminService/SetPolicy","code":"OK"',
    b'"event":"call","method":"/vaultd.v1.AdminService/GetStatus","code":"OK"',
    b'"event":"call","code":"UNAVAILABLE"',
    b'"event":"restore_accepted","store_revision":1,"was":9',
]


@pytest.mark.parametrize("own_segment", [False, True])
@pytest.mark.parametrize("forged", FORGED)
async def test_no_record_of_an_unsealed_server_becomes_one_of_a_sealed_one(tmp_path, forged, own_segment):
    async with open_server(tmp_path) as server:
        server._audit_log.append({"event": "call", "code": "OK", "n": 1})
        shutil.copytree(tmp_path, tmp_path / "died")
    died = tmp_path / "died"
    rewritten(died, lambda content: (content[: content.index(b'"event"')] + forged, False))
    if own_segment:
        last = max((died / "audit").glob("*.jsonl"))
        lines = last.read_bytes().splitlines(keepends=True)
        last.write_bytes(b"".join(lines[:-1]))
        last.with_name(last.name.replace("-00000001", "-00000002")).write_bytes(lines[-1])
    if own_segment and (b"GetStatus" in forged or b"UNAVAILABLE" in forged):
        async with open_server(died):
            pass  # as if the end was cut off, which is not promised to be found, and a sealed server had gone on
    else:
        assert await refusal(died) == "AUDIT_TAMPERED"


async def test_what_was_accepted_has_a_mac_and_is_accepted_once(tmp_path):
    async with open_server(tmp_path) as server:
        await create(server, "first")
    shutil.copy2(tmp_path / "vault.db", tmp_path / "old.db")
    async with open_server(tmp_path) as server:
        await create(server, "second")
    newer = shutil.copy2(tmp_path / "vault.db", tmp_path / "newer.db")
    async with open_server(tmp_path, accept_restore=True) as server:
        await server.engine.seal.seal()
        assert not server.witness._accept_restore
    put_back(tmp_path, "vault.db", tmp_path / "old.db")
    async with open_server(tmp_path, accept_restore=True):
        pass
    found = records(tmp_path)
    at = [record["event"] for record in found].index("restore_accepted")
    assert found[at - 1]["event"] == "audit_keys"
    assert "mac" in found[at]
    put_back(tmp_path, "vault.db", newer)
    assert await refusal(tmp_path) == "STORE_ROLLED_BACK"


async def test_files_that_were_swapped_between_start_and_unseal_are_found(tmp_path):
    async with open_server(tmp_path):
        pass
    async with open_server(tmp_path, unseal=False) as server:
        server._audit_log.append({"event": "call", "code": "UNAVAILABLE", "n": 1})
        kept = {path: path.read_bytes() for path in (tmp_path / "audit").glob("*.jsonl")}
        rewritten(tmp_path, lambda content: (content.replace(b'"n":1', b'"n":2'), True))
        with pytest.raises(DataLoss) as error:
            await server.engine.seal.unseal(None)
        assert error.value.reason == "AUDIT_TAMPERED"
        for path, content in kept.items():
            path.write_bytes(content)


async def test_no_call_is_served_before_the_log_goes_on_with_macs(tmp_path, monkeypatch):
    """While the log is verified there is a key ring, and no policy: what is refused may be recorded without a MAC."""
    async with open_server(tmp_path):
        pass
    async with open_server(tmp_path, unseal=False) as server:
        loaded = []
        opened = server.witness.open

        async def open_witness():
            loaded.append(server.engine.authority.loaded)
            await opened()

        monkeypatch.setattr(server.witness, "open", open_witness)
        await server.engine.seal.unseal(None)
        assert loaded == [False]
        assert server.engine.authority.loaded


async def test_records_of_a_sealed_server_are_covered_by_what_comes_after(tmp_path):
    async with open_server(tmp_path) as server:
        await server.engine.seal.seal()
        server._audit_log.append({"event": "call", "code": "UNAVAILABLE"})
        assert await server.witness.checkpoint() is None
        await server.engine.seal.unseal(None)
        keys, key = server.witness.public_keys, server.witness.mac_key()
    async with open_server(tmp_path, unseal=False) as server:
        server._audit_log.append({"event": "call", "code": "UNAVAILABLE"})
    async with open_server(tmp_path):
        pass
    verdict = verify_directory(tmp_path / "audit", keys=keys, mac_key=key)
    assert verdict.unsigned == 0
    found = records(tmp_path)
    assert [r["event"] for r in found[:5]] == ["audit_keys", "checkpoint", "checkpoint", "audit_sealed", "call"]
    assert [r["event"] for r in found if "mac" not in r] == ["call"]
    assert verdict.macs == len(found) - 1


async def test_macs_and_signatures_outlive_a_rotation_of_the_root_key(tmp_path):
    async with open_server(tmp_path) as server:
        keys, key = server.witness.public_keys, server.witness.mac_key()
        await server.engine.seal.rotate_root(intent(), None)
        for _ in range(5):
            await server.engine.scheduler.tick()
    async with open_server(tmp_path) as server:
        assert server.witness.public_keys == keys
        assert server.witness.mac_key() == key == mac_key(server.engine.ledger.sealer, server._audit_log.chain_id)
    assert verify_directory(tmp_path / "audit", keys=keys, mac_key=key).unsigned == 0


async def test_a_second_signature_can_be_switched_on(tmp_path):
    async with open_server(tmp_path):
        pass
    async with open_server(tmp_path, post_quantum=True) as server:
        keys = server.witness.public_keys
    async with open_server(tmp_path) as server:
        assert server.witness.public_keys == keys  # what was begun goes on
    assert len(keys) == 2
    assert verify_directory(tmp_path / "audit", keys=keys).checkpoints == 6


async def test_the_log_of_another_store_is_refused_and_nothing_is_lost(tmp_path):
    async with open_server(tmp_path):
        pass
    (tmp_path / "vault.db").unlink()
    (tmp_path / "root.key").unlink()
    assert await refusal(tmp_path) == "AUDIT_OF_ANOTHER_STORE"
    assert await refusal(tmp_path) == "AUDIT_OF_ANOTHER_STORE"
    (tmp_path / "audit").rename(tmp_path / "audit.other")
    async with open_server(tmp_path) as server:
        assert server.engine.seal.state is SealState.UNSEALED


async def test_upkeep_compresses_and_prunes_behind_a_checkpoint(tmp_path):
    clock = FakeClock()
    async with open_server(tmp_path, clock=clock, segment_bytes=2_000) as server:
        for n in range(20):
            server._audit_log.append({"event": "call", "n": n, "text": "x" * 200})
        await server.witness.checkpoint()
        clock.advance(3 * 86_400)
        server._audit_log.append({"event": "call"})
        await server.witness.checkpoint()
        keys = server.witness.public_keys
        await server.witness.keep_up(compress_after_s=0, retention_s=0)
        assert len(list((tmp_path / "audit").glob("*.jsonl"))) == 1
        server.witness.needed = lambda: 5
        await server.witness.keep_up(compress_after_s=0, retention_s=2 * 86_400)
        assert verify_directory(tmp_path / "audit", keys=keys).pruned < 5
        server.witness.needed = lambda: None
        clock.jump_wall(3_601)
        await server.witness.keep_up(compress_after_s=0, retention_s=2 * 86_400)
        assert verify_directory(tmp_path / "audit", keys=keys).pruned < 5
        clock.jump_wall(-3_601)
        await server.witness.keep_up(compress_after_s=0, retention_s=2 * 86_400)
    verdict = verify_directory(tmp_path / "audit", keys=keys)
    assert verdict.pruned > 10
    assert verdict.unsigned == 0
    async with open_server(tmp_path):
        pass
    assert verify_directory(tmp_path / "audit", keys=keys).last > verdict.last


async def test_a_beginning_that_was_signed_by_another_key_is_found_before_anything_is_signed(tmp_path):
    clock = FakeClock()
    async with open_server(tmp_path, clock=clock, segment_bytes=2_000) as server:
        for n in range(20):
            server._audit_log.append({"event": "call", "n": n, "text": "x" * 200})
        await server.witness.checkpoint()
        clock.advance(3 * 86_400)
        server._audit_log.append({"event": "call"})
        await server.witness.checkpoint()
        await server.witness.keep_up(compress_after_s=None, retention_s=2 * 86_400)
        proofs = AuditProofs(server._audit_log, server.witness)
        assert (await proofs.verify(1, 100)).bad is None
        pruned = heads.read_pruned(tmp_path / "audit")
        other = Signer([Ed25519PrivateKey.generate()])
        heads.write_pruned(
            tmp_path / "audit", other.sign(pruned.head), pruned.peaks, other.public_keys, pruned.segments
        )
        with pytest.raises(DataLoss):
            await proofs.verify(1, 100)
    count = len(records(tmp_path))
    assert await refusal(tmp_path) == "AUDIT_TAMPERED"
    assert "checkpoint" not in events(tmp_path)[count:]


async def test_a_store_that_cannot_be_written_does_not_stop_checkpoints(tmp_path, monkeypatch):
    async with open_server(tmp_path) as server:

        async def refuse(head):
            raise Unavailable("STORE_UNAVAILABLE", "no")

        monkeypatch.setattr(server.witness, "_tell_store", refuse)
        server._audit_log.append({"event": "call"})
        before = server.witness.newest
        server.witness._told_us = 0
        assert (await server.witness.checkpoint()).head.size > before.head.size
    assert "checkpoint_not_recorded" in events(tmp_path)
    async with open_server(tmp_path):
        pass


# -- commands -----------------------------------------------------------------------------------------------------------


def vaultd(*arguments):
    return subprocess.run(
        [sys.executable, "-m", "vaultd", *map(str, arguments)], capture_output=True, text=True, check=False, timeout=60
    )


async def test_the_command_verifies_a_log_that_is_being_written_and_names_what_is_wrong(tmp_path):
    async with running_server(tmp_path) as server:
        await server.admin.admin.GetStatus(admin_pb2.GetStatusRequest())
        (tmp_path / "audit.pub").write_bytes(server.server.witness.public_pem)
        settings = {
            "tls": {"certificate": "tls/server.crt", "key": "tls/server.key"},
            "trust_bundles": [{"name": "dev", "ca": "tls/ca.crt", "trust_domain": "dev.vaultd"}],
            "store": {"path": "vault.db"},
            "root_key": {"provider": "file", "path": "root.key"},
            "audit": {"directory": "audit"},
        }
        (tmp_path / "config.yaml").write_text(yaml.safe_dump(settings))
        verify = ("audit", "verify", tmp_path / "audit", "--public-key", tmp_path / "audit.pub")
        good = await asyncio.to_thread(vaultd, *verify, "--config", tmp_path / "config.yaml")
        own = await asyncio.to_thread(vaultd, *verify[:3], "--config", tmp_path / "config.yaml")
    assert own.returncode == 0, own.stderr
    assert "pin it" not in own.stdout  # the store has the keys
    assert good.returncode == 0, good.stderr
    assert good.stdout.startswith("ok: chain ")
    assert re.search(r"^MACs: [1-9]\d* verified$", good.stdout, re.MULTILINE)
    path = sorted((tmp_path / "audit").glob("*.jsonl"))[-1]
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join([*lines[:2], lines[2].replace(b"a", b"b", 1), *lines[3:]]))
    bad = await asyncio.to_thread(vaultd, *verify)
    number = orjson.loads(lines[2])["seq"]
    assert (bad.returncode, bad.stdout) == (1, "")
    assert bad.stderr.startswith(f"vaultd: bad record: {path.name} line 3, record {number}: ")
