"""Calls under SIGKILL: the receipt of every answer must be in the log, and the log must verify after every kill.

    python tests/reliability/audit_receipts.py --calls 100000 --kills 40 --seed 1 --host envoy

Prints a JSON line for each kill and one at the end; exits with 1 when a receipt is not found, has another hash, cannot be proved
with nothing but the public key that was there before the first call, or when the log does not verify.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import json
import random
import subprocess
import sys
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import grpc
from processes import ENVIRONMENT, ROOT, START_TIMEOUT_S, connect, make_vault, percentile

from vaultd.audit.checkpoints import read_key_der, verify_note, write_public_keys
from vaultd.audit.reader import AuditReader
from vaultd.audit.tree import leaf_hash, verify_inclusion
from vaultd_client.v1 import audit_pb2, crypto_pb2, keys_pb2, resources_pb2

if TYPE_CHECKING:
    from processes import Server

    from harness import Client
    from vaultd.audit.checkpoints import PublicKey

FAILPOINTS = ("audit.checkpoint_written:2", "audit.checkpoint_kept:2", "audit.checkpoint_recorded:2")
"""The first checkpoint of a process is that of its unsealing."""
CALL_TIMEOUT_S = 30
PROOFS_PER_KILL = 20


class Receipts:
    """What answers promised, by sequence."""

    def __init__(self) -> None:
        self.leaves: dict[int, bytes] = {}
        self.chain_ids: set[bytes] = set()
        self.repeated = 0

    def take(self, metadata: object) -> None:
        for key, value in metadata or ():  # type: ignore[attr-defined]  # grpc's Metadata
            if key == "vaultd-receipt-bin":
                receipt = resources_pb2.AuditReceipt.FromString(value)
                self.repeated += receipt.sequence in self.leaves
                self.leaves[receipt.sequence] = receipt.leaf_hash
                self.chain_ids.add(receipt.chain_id)


async def work(client: Client, chooser: random.Random, receipts: Receipts, budget: list[int]) -> None:
    """Call until the server is gone or the budget is spent.  Refused calls have receipts, too."""
    while budget[0] > 0:
        budget[0] -= 1
        choice = chooser.random()
        name = "vaults/default/keys/k" if choice < 0.9 else "vaults/default/keys/none"
        if choice > 0.98:
            call = client.keys.RotateKey(
                keys_pb2.RotateKeyRequest(name="vaults/default/keys/r"), timeout=CALL_TIMEOUT_S
            )
        else:
            call = client.crypto.Encrypt(crypto_pb2.EncryptRequest(name=name, plaintext=b"x"), timeout=CALL_TIMEOUT_S)
        try:
            await call
            receipts.take(await call.trailing_metadata())
        except grpc.aio.AioRpcError as error:
            receipts.take(error.trailing_metadata())
            if error.code() in {grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.UNKNOWN}:
                return


async def furnish(client: Client) -> None:
    key = resources_pb2.Key(purpose=resources_pb2.KEY_PURPOSE_ENCRYPT_DECRYPT)
    for name in ("k", "r"):
        with suppress(grpc.aio.AioRpcError):  # it is there already
            await client.keys.CreateKey(
                keys_pb2.CreateKeyRequest(parent="vaults/default", key_id=name, key=key), timeout=CALL_TIMEOUT_S
            )


def in_log(directory: Path) -> dict[int, bytes]:
    """The leaf hash of every record that is on disk."""
    reader = AuditReader(directory)
    found: dict[int, bytes] = {}
    while records := reader.read(10_000):
        found.update((record.sequence, leaf_hash(record.line)) for record in records)
    reader.close()
    return found


def pin(directory: Path) -> list[PublicKey]:
    """The public keys that the log named when the vault was made, before any call."""
    reader = AuditReader(directory / "audit")
    named = next(json.loads(r.line)["keys"] for r in reader.read() if b'"event":"audit_keys"' in r.line)
    reader.close()
    keys = [read_key_der(base64.b64decode(key["public_key"])) for key in named]
    (directory / "audit.pub").write_bytes(write_public_keys(keys))
    return keys


def verify(directory: Path) -> subprocess.CompletedProcess[str]:
    """`vaultd audit verify` with the pinned key, and with the key ring for the MACs of what is not signed yet."""
    command = [
        "-m",
        "vaultd",
        "audit",
        "verify",
        str(directory / "audit"),
        "--public-key",
        str(directory / "audit.pub"),
    ]
    return subprocess.run(
        [sys.executable, *command, "--config", str(directory / "config.yaml")],
        env=ENVIRONMENT,
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )


async def count_unproved(client: Client, receipts: Receipts, chosen: list[int], keys: list[PublicKey]) -> int:
    """Receipts that the server cannot prove to somebody who has the pinned key and the receipt."""
    unproved = 0
    for sequence in chosen:
        leaf = receipts.leaves[sequence]
        proof = await client.admin.GetInclusionProof(
            audit_pb2.GetInclusionProofRequest(sequence=sequence, leaf_hash=leaf), timeout=CALL_TIMEOUT_S
        )
        head = verify_note(proof.checkpoint.note, keys)
        held = head.chain_id in receipts.chain_ids and verify_inclusion(
            leaf, sequence - head.first, head.size, list(proof.path), head.root
        )
        unproved += not held
    return unproved


async def one_kill(
    server: Server, directory: Path, number: int, failpoint: str, receipts: Receipts, arguments: argparse.Namespace
) -> dict[str, object]:
    chooser = random.Random(f"{arguments.seed}/{number}")
    before = len(receipts.leaves)
    start_s = server.start(failpoint)
    clients = [connect(directory, server.address) for _ in range(arguments.connections)]
    await furnish(clients[0])
    budget = [arguments.calls * 4 // 3 // arguments.kills]  # three quarters of it are spent before the kill, at least
    callers = [
        asyncio.ensure_future(work(clients[at % len(clients)], random.Random(f"{number}/{at}"), receipts, budget))
        for at in range(arguments.clients)
    ]
    if failpoint:
        died = await asyncio.to_thread(server.wait, START_TIMEOUT_S)
        if not died:
            server.kill()
            raise SystemExit(f"the failpoint {failpoint} was never hit")
        budget[0] = 0
    else:
        # In the middle of the load, never after it.
        least = chooser.randrange(max(1, budget[0] // 4))
        while budget[0] > least and not all(caller.done() for caller in callers):  # noqa: ASYNC110  # callers only count
            await asyncio.sleep(0.002)
        server.kill()
        budget[0] = 0
    await asyncio.gather(*callers)
    for client in clients:
        await client.channel.close()
    checked = await asyncio.to_thread(verify, directory)
    torn = (
        checked.returncode != 0 and "cut short" in checked.stderr
    )  # what recovery is for; verified after the next start
    found = await asyncio.to_thread(in_log, directory / "audit")
    missing = sum(found.get(sequence) != leaf for sequence, leaf in receipts.leaves.items())
    return {
        "kill": number,
        "at": failpoint or "random",
        "receipts": len(receipts.leaves) - before,
        "records": max(found, default=0),
        "missing": missing,
        "verifies": checked.returncode == 0 or torn,
        "problem": "" if checked.returncode == 0 else checked.stderr.strip(),
        "start_s": round(start_s, 3),
    }


async def campaign(arguments: argparse.Namespace) -> int:
    plan = [""] * arguments.kills + ([] if arguments.no_failpoints else list(FAILPOINTS))
    receipts = Receipts()
    bad = 0
    starts: list[float] = []
    with tempfile.TemporaryDirectory(prefix="vaultd-receipts-") as name:
        directory = Path(name)
        audit = {"directory": "audit", "checkpoint_interval_s": 0.5, "segment_bytes": 4_000_000, "compress_after_s": 0}
        limits = {
            name: {"per_second": 1_000_000, "burst": 10_000_000} for name in ("symmetric", "mutation", "read", "admin")
        }
        server = make_vault(directory, audit=audit, limits=limits, host=arguments.host)
        keys = pin(directory)
        for number, failpoint in enumerate(plan):
            outcome = await one_kill(server, directory, number, failpoint, receipts, arguments)
            bad += bool(outcome["missing"]) or not outcome["verifies"]
            starts.append(float(str(outcome["start_s"])))
            print(json.dumps(outcome), flush=True)
        server.start()
        client = connect(directory, server.address)
        chosen = random.Random(arguments.seed).sample(
            sorted(receipts.leaves), min(len(receipts.leaves), PROOFS_PER_KILL * len(plan))
        )
        unproved = await count_unproved(client, receipts, chosen, keys)
        await client.channel.close()
        server.stop()
        last = verify(directory)
        bad += last.returncode != 0 or unproved > 0 or receipts.repeated > 0 or len(receipts.chain_ids) != 1
        print(
            json.dumps(
                {
                    "kills": len(plan),
                    "host": arguments.host,
                    "seed": arguments.seed,
                    "receipts": len(receipts.leaves),
                    "given_twice": receipts.repeated,
                    "proved": len(chosen) - unproved,
                    "unproved": unproved,
                    "verifies": last.returncode == 0,
                    "verdict": (last.stdout or last.stderr).splitlines(),
                    "restart_p50_s": percentile(starts, 0.5),
                    "restart_max_s": max(starts),
                    "bad": bad,
                }
            )
        )
    return 1 if bad else 0


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--calls", type=int, default=100_000, help="in all")
    parser.add_argument("--kills", type=int, default=40, help="kills at random moments")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--clients", type=int, default=64, help="callers at the same time")
    parser.add_argument("--connections", type=int, default=4, help="mTLS connections that the callers share")
    parser.add_argument("--host", choices=("grpc", "envoy"), default="grpc")
    parser.add_argument("--no-failpoints", action="store_true", help="leave out one kill at each step of a checkpoint")
    return asyncio.run(campaign(parser.parse_args()))


if __name__ == "__main__":
    sys.exit(main())
