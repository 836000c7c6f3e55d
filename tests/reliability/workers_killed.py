"""Kill, stop and replace workers under load, again and again, and count what was lost.

    python tests/reliability/workers_killed.py --faults 30 --seed 1

Callers create keys and encrypt, and try again what was not begun.  Meanwhile a worker dies by SIGKILL, the elected one does, one
stands still for a while, or all are replaced one by one.  In the end every key that was acknowledged must be there, every chain of
the audit log must verify, and every receipt must be proved by a worker of the day.  One JSON line per fault and one at the end;
exit code 1 when anything was lost.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import signal
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import processes  # noqa: F401  # makes the checkout importable

from network.process import LIMITS, eventually
from vaultd_client.v1 import audit_pb2
from workers.fleet import Fleet, receipt_of
from workers.load import all_keys, load

if TYPE_CHECKING:
    from vaultd_client.v1 import resources_pb2

FAULTS = ("worker", "elected", "stands_still", "rolling_restart")
STILL_S = 1.0


async def replaced(fleet: Fleet) -> bool:
    done = len([line for line in fleet.log() if line["event"] == "rolling_restart_done"])
    fleet.popen.send_signal(signal.SIGUSR2)
    return await eventually(
        lambda: len([line for line in fleet.log() if line["event"] == "rolling_restart_done"]) > done, 60
    )


async def injure(fleet: Fleet, fault: str, chooser: random.Random) -> bool:
    """Do it, and wait until all serve again."""
    pids = fleet.pids()
    at = fleet.elected()[-1] if fault == "elected" else chooser.randrange(fleet.workers)
    if fault == "rolling_restart":
        return await replaced(fleet)
    if fault == "stands_still":
        os.kill(pids[at], signal.SIGSTOP)
        await asyncio.sleep(STILL_S)
        os.kill(pids[at], signal.SIGCONT)
        return True
    os.kill(pids[at], signal.SIGKILL)
    return await fleet.serves_again(at, pids[at])


async def campaign(fleet: Fleet, faults: int, chooser: random.Random) -> dict[str, Any]:
    lost: list[str] = []
    created: set[str] = set()
    receipts: list[resources_pb2.AuditReceipt] = []
    calls = repeated = 0
    for number in range(faults):
        fault = chooser.choice(FAULTS)
        began = time.monotonic()
        async with load(fleet, retrying=True) as running:
            for client in (await fleet.reach_each("app")).values():
                receipts.append(await receipt_of(client))
                await client.channel.close()
            back = await injure(fleet, fault, chooser)
        created |= running.created
        lost += [*running.lost, *([] if back else [f"{fault}: not all serve again"])]
        calls += sum(running.answered.values())
        repeated += running.retried
        told = {"fault": number, "kind": fault, "seconds": round(time.monotonic() - began, 1), "lost": len(lost)}
        print(json.dumps(told), flush=True)
    missing = created - await all_keys(fleet)
    admin = fleet.client("admin")
    for receipt in receipts:
        await admin.admin.GetInclusionProof(
            audit_pb2.GetInclusionProofRequest(
                sequence=receipt.sequence, chain_id=receipt.chain_id, leaf_hash=receipt.leaf_hash
            )
        )
    await admin.channel.close()
    code, said = await fleet.verify()
    return {
        "faults": faults,
        "calls": calls,
        "repeated": repeated,
        "keys": len(created),
        "missing": len(missing),
        "receipts": len(receipts),
        "lost": lost,
        "audit": said.splitlines()[-1] if not code else said,
        "ok": not (lost or missing or code),
    }


async def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--faults", type=int, default=30)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--seed", type=int, default=random.randrange(2**32))
    options = parser.parse_args()
    print(json.dumps({"seed": options.seed}), flush=True)
    with tempfile.TemporaryDirectory(prefix="vaultd-workers-") as scratch:
        fleet = await asyncio.to_thread(Fleet, Path(scratch) / "served", options.workers, limits=LIMITS)
        try:
            await fleet.prepare()
            found = await campaign(fleet, options.faults, random.Random(options.seed))
        finally:
            await asyncio.to_thread(fleet.kill)
    print(json.dumps(found), flush=True)
    return 0 if found["ok"] else 1


if __name__ == "__main__":
    sys.exit(asyncio.run(main()))
