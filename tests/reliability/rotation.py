"""Rotate the passwords of a real PostgreSQL: under load, and with the server killed at each boundary of a stage.

    python tests/reliability/rotation.py load --rotations 50 --workers 8
    python tests/reliability/rotation.py kills --rounds 3 --seed 1

`load`: clients that follow Watch log in all the time; no login may fail.  The overlap must be longer than a login takes on the
machine.  `kills`: vaultd dies by SIGKILL at a failpoint, or at a
random moment of a run; whenever it is there, what it serves must log in, and when the run is over the other role must have no
password.  One JSON line per rotation or kill and one at the end; exit code 1 when anything failed.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import sys
import tempfile
import time
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import grpc
import orjson
from processes import Server, connect, make_vault, percentile

from postgres import USERS, Postgres
from rotations.follower import IDLE, NAME, following, rotate, set_up
from vaultd_client.v1 import rotation_pb2, secrets_pb2

if TYPE_CHECKING:
    from harness import Client

STAGES = ("create", "set", "test", "promote", "retire")
FAILPOINTS = [f"rotation.{stage}.{edge}" for stage in STAGES for edge in ("acted", "recorded")]
UNDOING = ["rotation.test.recorded", "rotation.roll_back.acted", "rotation.roll_back.recorded"]
LEASE_S = 2
OVER = {IDLE, rotation_pb2.ROTATION_STATE_FAILED}
PATIENCE_S = 60
LONGEST_RUN_S = 0.3


def make_server(postgres: Postgres, directory: Path) -> Server:
    rotation = {
        "targets": [postgres.target(directory, timeout_s=LEASE_S / 2)],
        "lease_s": LEASE_S,
        "retry_s": 3_600,
        "max_retry_s": 3_600,
    }
    return make_vault(directory, rotation=rotation, lifecycle={"scheduler_interval_ms": 50})


async def load(postgres: Postgres, directory: Path, arguments: argparse.Namespace) -> bool:
    server = make_server(postgres, directory)
    server.start()
    client = connect(directory, server.address)
    took: list[float] = []
    try:
        await set_up(client, arguments.overlap_ms)
        async with following(client, postgres, arguments.workers) as follower:
            for run in range(2, arguments.rotations + 2):
                begun = time.monotonic()
                await rotate(client)
                await follower.rotated(run)
                took.append(time.monotonic() - begun)
                print(json.dumps({"rotation": run - 1, "s": round(took[-1], 3), "logins": follower.logins}), flush=True)
        user, password = follower.login
        good = await postgres.logs_in(user, password) and not postgres.has_password(other(user))
    finally:
        await client.channel.close()
        server.stop()
    print(
        json.dumps(
            {
                "rotations": len(took),
                "logins": follower.logins,
                "failed_logins": len(follower.failures),
                "failures": follower.failures[:5],
                "slowest_login_s": round(follower.slowest_s, 3),
                "passwords_seen": len(follower.users),
                "rotation_s_p50": round(percentile(took, 0.5), 3),
                "one_good_password": good,
            }
        )
    )
    return good and not follower.failures and len(follower.users) == len(took) + 1


def other(user: str) -> str:
    return USERS[1 - USERS.index(user)]


async def served(client: Client) -> tuple[str, str]:
    answer = await client.secrets.AccessSecretVersion(secrets_pb2.AccessSecretVersionRequest(name=NAME))
    members = orjson.loads(answer.payload)
    return members["username"], members["password"]


async def rotation_of(client: Client) -> Any:
    return await client.secrets.GetRotation(rotation_pb2.GetRotationRequest(name=NAME))


async def over(client: Client) -> Any:
    until = time.monotonic() + PATIENCE_S
    while (rotation := await rotation_of(client)).state not in OVER:
        if time.monotonic() > until:
            raise SystemExit(f"the run does not end:\n{rotation}")
        await asyncio.sleep(0.02)  # a process can only be asked again
    return rotation


async def one_kill(
    postgres: Postgres, directory: Path, server: Server, failpoint: str, delay_s: float
) -> dict[str, Any]:
    """Kill the server in a run, and look at what the next one makes of it."""
    server.start(failpoint)
    client = connect(directory, server.address)
    with suppress(grpc.aio.AioRpcError):
        await rotate(client)
        if not failpoint:
            await asyncio.sleep(delay_s)
    await client.channel.close()
    if not failpoint:
        server.kill()
    if not await asyncio.to_thread(server.wait, PATIENCE_S):
        raise SystemExit(f"the server did not die at {failpoint}")
    server.start()
    client = connect(directory, server.address)
    try:
        at_once = await postgres.logs_in(*await served(client))
        found = rotation_pb2.RotationStage.Name((await rotation_of(client)).stage)
        begun = time.monotonic()
        rotation = await over(client)
        user, password = await served(client)
        good = await postgres.logs_in(user, password) and not postgres.has_password(other(user))
    finally:
        await client.channel.close()
        server.stop()
    return {
        "kill": failpoint or f"after {delay_s:.3f} s",
        "found_at": found.removeprefix("ROTATION_STAGE_"),
        "served_logs_in_at_once": at_once,
        "ended": rotation_pb2.RotationState.Name(rotation.state).removeprefix("ROTATION_STATE_"),
        "ended_after_s": round(time.monotonic() - begun, 2),
        "one_good_password": good,
    }


async def kills(postgres: Postgres, directory: Path, arguments: argparse.Namespace) -> bool:
    chance = random.Random(arguments.seed)
    server = make_server(postgres, directory)
    server.start()
    client = connect(directory, server.address)
    await set_up(client, 0)
    await rotate(client)
    await over(client)
    await client.channel.close()
    server.stop()
    plan = [(failpoint, 0.0, False) for failpoint in FAILPOINTS]
    plan += [(failpoint, 0.0, True) for failpoint in UNDOING]
    plan += [("", chance.uniform(0, LONGEST_RUN_S), False) for _ in FAILPOINTS]
    outcomes = []
    for _ in range(arguments.rounds):
        for failpoint, delay_s, fails in plan:
            if fails:  # neither may log in: the new password's test fails, and so the run is undone
                user = postgres.sql(
                    "SELECT rolname FROM pg_authid WHERE rolpassword IS NULL AND rolname LIKE 'orders_%'"
                )
                postgres.sql(f"ALTER ROLE {user} NOLOGIN")
            outcome = await one_kill(postgres, directory, server, failpoint, delay_s)
            for user in USERS:
                postgres.sql(f"ALTER ROLE {user} LOGIN")
            outcomes.append(outcome)
            print(json.dumps(outcome), flush=True)
    checked = server.vaultd("check-store")
    good = [outcome["served_logs_in_at_once"] and outcome["one_good_password"] for outcome in outcomes]
    summary = {"kills": len(outcomes), "good": sum(good), "check_store": checked.returncode, "seed": arguments.seed}
    print(json.dumps(summary))
    return all(good) and checked.returncode == 0


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    loading = commands.add_parser("load")
    loading.add_argument("--rotations", type=int, default=50)
    loading.add_argument("--workers", type=int, default=8)
    loading.add_argument("--overlap-ms", type=int, default=2_000)
    killing = commands.add_parser("kills")
    killing.add_argument("--rounds", type=int, default=1)
    killing.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    campaign = {"load": load, "kills": kills}[arguments.command]
    with tempfile.TemporaryDirectory() as directory, Postgres() as postgres:
        return 0 if asyncio.run(campaign(postgres, Path(directory), arguments)) else 1


if __name__ == "__main__":
    sys.exit(main())
