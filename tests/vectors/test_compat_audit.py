"""An audit directory that was written in the first format of the chain verifies, and goes on, in every later release."""

from __future__ import annotations

import shutil
from pathlib import Path

import orjson

from vaultd.audit.checkpoints import read_public_keys
from vaultd.audit.log import AuditLog
from vaultd.audit.verify import verify_directory

LOG = Path(__file__).parent / "compat" / "audit-v1"
"""Two runs, pruned up to record 11, compressed, signed with Ed25519 and ML-DSA-65; the key of the MACs is 32 times `k`."""
KEYS = read_public_keys((LOG / "audit.pub").read_bytes())


def test_the_log_verifies_with_its_keys_and_macs():
    verdict = verify_directory(LOG, keys=KEYS, mac_key=b"k" * 32)
    assert verdict.chain_id == bytes(range(16))
    assert (verdict.first, verdict.pruned, verdict.last) == (1, 11, 22)
    assert (verdict.checkpoints, verdict.newest.size, verdict.unsigned, verdict.macs) == (2, 19, 2, 10)
    assert len(verdict.keys) == 2


async def test_the_log_goes_on(tmp_path):
    directory = shutil.copytree(LOG, tmp_path / "audit")
    directory.chmod(0o700)
    log = AuditLog(directory, now=lambda: 1_800_000_000_000_000)
    await log.open()
    assert log.append({"event": "call"}).sequence == 23
    await log.close()
    assert verify_directory(directory, keys=KEYS, mac_key=b"k" * 32).last == 23
    newest = max(directory.glob("*.jsonl"), key=lambda path: path.name.rsplit("-", 1)[1])
    assert orjson.loads(newest.read_bytes())["seq"] == 23
