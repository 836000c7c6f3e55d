"""Each fault of the disk under the audit log, once, to a server that runs.  The campaign is `make reliability-audit`."""

from __future__ import annotations

import pytest

import auditfaults
from auditload import PATIENCE_S, HealthWatch, Load, go_through, unrecorded
from network.process import Process, Remote

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def faulty(tmp_path_factory):
    """A server whose disk fails as it is told to, its shim, and its audit directory."""
    work = tmp_path_factory.mktemp("faulty")
    directory = work / "served"
    shim = auditfaults.Shim(work, directory / "audit")
    process = Process(directory, environment=shim.environment)
    try:
        yield process, shim, directory / "audit"
    finally:
        process.kill()


@pytest.mark.parametrize("name", ["enospc", "eio-write", "eio-fsync", "slow-fsync", "read-only", "deleted", "replaced"])
async def test_while_the_disk_fails_no_call_is_answered_and_then_all_are(faulty, name):
    process, shim, directory = faulty
    remote = Remote(process)
    fault = auditfaults.disk_faults(shim, directory)[name]
    load = Load(remote.admin, name)
    try:
        async with HealthWatch().running(remote.channel("admin"), "audit") as health, load.running(6):
            outcome = await go_through(name, fault, load, health, hold_s=0.2)
    finally:
        await remote.close()
    assert outcome.faulty(PATIENCE_S) == []  # how soon is what the campaign measures
    assert outcome.refusals > 0 or fault.heals_itself
    assert unrecorded(directory, load.replies) == []
