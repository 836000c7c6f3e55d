"""Chains side by side: what one says of the others, and that one that is gone, cut off or another is missed."""

from __future__ import annotations

import asyncio
import shutil
from contextlib import AsyncExitStack

import orjson
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from test_audit_log import Clock, audit_log, segment_paths
from test_audit_verify import PUBLIC, SIGNER

from vaultd.audit import heads, upkeep
from vaultd.audit.checkpoints import Signer
from vaultd.audit.ties import OWN, chains_in, missing, newest_ties, root_of, siblings_of, ties_at, to_record
from vaultd.audit.verify import verify_chains
from vaultd.audit.walk import BadRecord

NAMES = (OWN, "worker-0", "worker-1")


async def write(root, rounds=3, names=NAMES, signer=SIGNER):
    """Some records in each chain, and checkpoints that name the others."""
    async with AsyncExitStack() as stack:
        logs = [
            await stack.enter_async_context(
                audit_log(root if name == OWN else root / name, now=Clock(), max_segment_bytes=900)
            )
            for name in names
        ]
        for n in range(rounds):
            for log in logs:
                for at in range(5):
                    log.append({"event": "call", "n": n * 10 + at})
                ties = newest_ties(log.directory, signer.public_keys)
                await log.keep(log.checkpoint(signer, 7, b"s" * 16, 0, to_record(ties) if ties else None))
    return root


@pytest.fixture(scope="module")
def original(tmp_path_factory):
    return asyncio.run(write(tmp_path_factory.mktemp("ties") / "audit"))


@pytest.fixture
def audit(original, tmp_path):
    return shutil.copytree(original, tmp_path / "audit")


def test_every_chain_of_a_directory_is_found_from_any_of_them(audit):
    assert list(chains_in(audit)) == list(NAMES)
    assert root_of(audit / "worker-1") == root_of(audit) == audit
    assert list(siblings_of(audit / "worker-0")) == [OWN, "worker-1"]


def test_all_of_them_verify_and_each_names_the_others(audit):
    verdicts = verify_chains(audit, keys=PUBLIC)
    assert list(verdicts) == list(NAMES)
    for name, verdict in verdicts.items():
        assert {tie.directory for tie in verdict.ties} == set(NAMES) - {name}
        assert {tie.chain_id for tie in verdict.ties} == {v.chain_id for n, v in verdicts.items() if n != name}


def test_what_is_said_of_others_stands_under_the_newest_checkpoint(audit):
    directory = audit / "worker-1"
    newest = heads.read_newest(directory)
    assert {tie.directory for tie in ties_at(directory, newest)} == {OWN, "worker-0"}
    assert missing(directory, ties_at(directory, newest)) == ""


@pytest.mark.parametrize("name", ["worker-0", "worker-1"])
def test_a_chain_that_is_taken_away_is_missed(audit, name):
    shutil.rmtree(audit / name)
    with pytest.raises(BadRecord, match=f"in {name}, is gone"):
        verify_chains(audit, keys=PUBLIC)


def test_the_chain_of_the_directory_itself_is_missed(audit):
    for path in audit.iterdir():
        if path.is_file():
            path.unlink()
    with pytest.raises(BadRecord, match=r"worker-0, record .*, in \., is gone"):
        verify_chains(audit, keys=PUBLIC)


def test_a_chain_that_was_put_back_to_an_earlier_checkpoint_is_missed(tmp_path):
    early = asyncio.run(write(tmp_path / "audit", rounds=1))
    kept = shutil.copytree(early / "worker-1", tmp_path / "kept")
    asyncio.run(write(early, rounds=2))
    verify_chains(early, keys=PUBLIC)
    shutil.rmtree(early / "worker-1")
    shutil.copytree(kept, early / "worker-1")
    with pytest.raises(BadRecord, match="in worker-1 was cut off"):
        verify_chains(early, keys=PUBLIC)


def test_another_chain_in_its_place_is_missed(audit, tmp_path):
    other = asyncio.run(write(tmp_path / "other", rounds=9))
    shutil.rmtree(audit / "worker-1")
    shutil.copytree(other / "worker-1", audit / "worker-1")
    with pytest.raises(BadRecord, match="is gone"):
        verify_chains(audit, keys=PUBLIC)


def test_a_bad_record_is_named_with_its_chain(audit):
    path = next(path for path in segment_paths(audit / "worker-0") if b'"n":12' in path.read_bytes())
    path.write_bytes(path.read_bytes().replace(b'"n":12', b'"n":13', 1))
    with pytest.raises(BadRecord, match=r"^worker-0/audit-.*does not fit its chain hash"):
        verify_chains(audit, keys=PUBLIC)


def test_a_chain_of_another_server_is_not_named(audit):
    other = Signer([Ed25519PrivateKey.generate()])
    asyncio.run(write(audit, names=("worker-7",), signer=other))
    assert {tie.directory for tie in newest_ties(audit, PUBLIC)} == {"worker-0", "worker-1"}


def test_a_chain_whose_older_records_were_pruned_is_not_missed(audit):
    directory = audit / "worker-1"
    newest = heads.read_newest(directory)
    removal = upkeep.plan_removal(directory, newest.head.chain_id, 2**62, SIGNER, newest.head, 2**62)
    upkeep.remove(directory, removal, SIGNER)
    assert heads.read_pruned(directory) is not None
    verify_chains(audit, keys=PUBLIC)


def test_more_or_fewer_workers_later_are_named_all_the_same(tmp_path):
    root = tmp_path / "audit"
    for names in ((OWN,), ("worker-0", "worker-1", "worker-2"), ("worker-0", "worker-1"), (OWN,)):
        asyncio.run(write(root, rounds=1, names=names))
    verdicts = verify_chains(root, keys=PUBLIC)
    assert set(verdicts) == {OWN, "worker-0", "worker-1", "worker-2"}
    shutil.rmtree(root / "worker-2")
    with pytest.raises(BadRecord, match="in worker-2, is gone"):
        verify_chains(root, keys=PUBLIC)


def test_a_record_of_ties_without_a_mac_is_none_that_a_server_wrote(tmp_path):
    from vaultd.audit.verify import verify_directory

    async def forge():
        async with audit_log(tmp_path / "audit", now=Clock()) as log:
            log.append({"event": "sibling_heads", "heads": []})

    asyncio.run(forge())
    with pytest.raises(BadRecord, match="a sealed server cannot do"):
        verify_directory(tmp_path / "audit", mac_key=b"k" * 32)
    assert orjson.loads(segment_paths(tmp_path / "audit")[0].read_bytes().splitlines()[0])["event"] == "sibling_heads"
