"""A worker that does not come to serve is given up; the others serve, and it comes back when what was wrong is mended.  A
supervisor that stands still holds up no call, and Seal does not say that it was done.

python -m pytest tests/reliability/workers_given_up.py
"""

from __future__ import annotations

import signal

import grpc
import pytest

from harness import reason_of
from network.process import LIMITS, create_key, eventually
from vaultd_client.v1 import admin_pb2, crypto_pb2
from workers.fleet import Fleet, receipt_of

ENCRYPT_IT = crypto_pb2.EncryptRequest(name="vaults/default/keys/k", plaintext=b"x")


@pytest.fixture
def fleet(tmp_path):
    running = Fleet(tmp_path / "served", 2, limits=LIMITS)
    yield running
    running.kill()


async def test_a_worker_that_cannot_start_is_given_up_and_comes_back(fleet):
    await fleet.prepare()
    directory = fleet.directory / "audit/worker-1"
    directory.chmod(0o755)  # which a worker refuses at its start
    fleet.kill_worker(1)

    def events(name: str) -> int:
        return len([line for line in fleet.log() if line["event"] == name])

    assert await eventually(lambda: events("worker_given_up") == 1, 60)
    for _ in range(10):
        client = fleet.client("app")
        assert fleet.chain_ids()[(await receipt_of(client)).chain_id] == 0
        await client.channel.close()
    directory.chmod(0o700)
    fleet.popen.send_signal(signal.SIGUSR2)
    assert await eventually(lambda: events("rolling_restart_done") == 1, 60)
    for client in (await fleet.reach_each("app")).values():
        await client.channel.close()
    code, said = await fleet.verify()
    assert code == 0, said


async def test_calls_go_on_without_the_supervisor_and_seal_does_not_say_that_all_are_sealed(fleet):
    await fleet.prepare()
    apps, admins = await fleet.reach_each("app"), await fleet.reach_each("admin")
    fleet.popen.send_signal(signal.SIGSTOP)
    for app in apps.values():
        await receipt_of(app)
    await create_key(admins[0], "meanwhile")
    with pytest.raises(grpc.aio.AioRpcError) as error:
        await admins[0].admin.Seal(admin_pb2.SealRequest())
    assert reason_of(error.value) == "SEAL_INCOMPLETE"
    fleet.popen.send_signal(signal.SIGCONT)

    async def both_sealed() -> bool:
        codes = [await app.crypto.Encrypt(ENCRYPT_IT).code() for app in apps.values()]
        return codes == [grpc.StatusCode.UNAVAILABLE] * 2

    for _ in range(200):
        if await both_sealed():
            break
    assert await both_sealed()
