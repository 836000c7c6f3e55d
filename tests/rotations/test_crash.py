"""A process that rotates is killed at each boundary of a stage: what the next one finds, and makes of it."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import orjson
import pytest

from engine.engines import move_us
from postgres import USERS, Postgres
from rotations.world import LIMITS, RotatingEngine, S, rotating_engine
from vaultd.engine.model import SecretVersionState
from vaultd.engine.rotation_model import RotationState, Stage

ONCE = Path(__file__).with_name("rotate_once.py")
STAGES = ("create", "set", "test", "promote", "retire")
BOUNDARIES = [f"rotation.{stage}.{edge}" for stage in STAGES for edge in ("acted", "recorded")]


@pytest.fixture(scope="module")
def victims():
    command = [sys.executable, str(ONCE)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as running:
        yield running
        running.stdin.close()


def die_at(victims: subprocess.Popen[str], directory: Path, failpoint: str, now_us: int) -> None:
    """Rotate in a process that dies there."""
    victims.stdin.write(f"{failpoint} {now_us} {directory}\n")
    victims.stdin.flush()
    assert victims.stdout.readline() == f"{-signal.SIGKILL.value}\n"


async def prepared(server: Postgres, directory: Path) -> int:
    """A vault whose secret was rotated once; returns the time that it is there."""
    target = server.target(directory)
    (directory / "target.json").write_bytes(orjson.dumps(target))
    for user in USERS:
        server.sql(f"ALTER ROLE {user} LOGIN PASSWORD NULL")
    async with rotating_engine(directory, target) as vault:
        await vault.make_secret()
        await vault.set_policy()
        await vault.rotate()
        assert (await vault.login())[0] == USERS[0]
        return vault.clock.us


async def one_good_password(server: Postgres, vault: RotatingEngine) -> None:
    """What the vault serves logs in; the other role has no password; and only one version is given out."""
    user, password = await vault.login()
    assert await server.logs_in(user, password)
    assert not server.has_password(USERS[1 - USERS.index(user)])
    versions = await vault.engine.secrets.list_versions(vault.ref)
    assert [version.number for version in versions if version.state is SecretVersionState.ENABLED] == [
        versions[-1].number
    ]


@pytest.mark.parametrize("failpoint", BOUNDARIES)
async def test_after_a_kill_the_rotation_goes_on_where_it_was(server, victims, tmp_path, failpoint):
    now_us = await prepared(server, tmp_path)
    die_at(victims, tmp_path, failpoint, now_us)
    target = orjson.loads((tmp_path / "target.json").read_bytes())
    async with rotating_engine(tmp_path, target) as vault:
        move_us(vault.clock, now_us - vault.clock.us)
        # Whatever was under way: clients that ask at this moment get something that works.
        assert await server.logs_in(*await vault.login())
        before = await vault.rotations.get(vault.ref)
        move_us(vault.clock, LIMITS["lease_s"] * S)
        after = await vault.run_out() if before.state is not RotationState.IDLE else before
        assert (after.state, after.failure, after.run, after.new) == (RotationState.IDLE, None, 2, 2)
        assert (await vault.login())[0] == USERS[1]
        await one_good_password(server, vault)


@pytest.mark.parametrize(
    "failpoint", ["rotation.test.recorded", "rotation.roll_back.acted", "rotation.roll_back.recorded"]
)
async def test_after_a_kill_a_failed_rotation_is_undone(server, victims, tmp_path, failpoint):
    now_us = await prepared(server, tmp_path)
    server.sql(f"ALTER ROLE {USERS[1]} NOLOGIN")
    die_at(victims, tmp_path, failpoint, now_us)
    target = orjson.loads((tmp_path / "target.json").read_bytes())
    async with rotating_engine(tmp_path, target) as vault:
        move_us(vault.clock, now_us - vault.clock.us + LIMITS["lease_s"] * S)
        before = await vault.rotations.get(vault.ref)
        after = before if before.state is RotationState.FAILED else await vault.run_out()
        assert (after.state, after.failure.stage, after.new) == (RotationState.FAILED, Stage.TEST, 0)
        assert (await vault.login())[0] == USERS[0]
        await one_good_password(server, vault)
