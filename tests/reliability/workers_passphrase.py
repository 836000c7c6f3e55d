"""Workers whose root key is nowhere but in their memory: whoever comes back gets it from a sibling.

python -m pytest tests/reliability/workers_passphrase.py
"""

from __future__ import annotations

import signal

import grpc
import pytest
import yaml

from harness import ADMIN, reason_of
from network.process import create_key, eventually
from vaultd.dev import create_dev_directory
from vaultd_client.v1 import admin_pb2
from workers.fleet import Fleet, receipt_of

FIRST, SECOND = b"correct horse battery", b"quite another passphrase"


class Locked(Fleet):
    """`vaultd serve`, with a passphrase, before there is a vault."""

    def command(self, directory) -> list[str]:
        return ["serve", "--config", str(directory / "config.yaml")]


@pytest.fixture
def fleet(tmp_path):
    config = create_dev_directory(tmp_path, "127.0.0.1:0")
    document = {**yaml.safe_load(config.read_text()), "root_key": {"provider": "passphrase"}, "log": {"format": "json"}}
    config.write_text(yaml.safe_dump(document))
    running = Locked(tmp_path, 2)
    yield running
    running.kill()


async def all_serve(fleet) -> None:
    for client in (await fleet.reach_each("admin")).values():
        assert (await client.admin.GetStatus(admin_pb2.GetStatusRequest())).seal_state == admin_pb2.SEAL_STATE_UNSEALED
        await client.channel.close()


async def test_a_passphrase_given_once_opens_all_and_whoever_comes_back(fleet):
    client = fleet.client("admin")
    await client.admin.Init(admin_pb2.InitRequest(admin_principals=[ADMIN], passphrase=FIRST))
    await create_key(client, "k")
    await all_serve(fleet)
    for victim in range(fleet.workers):
        former = fleet.pids()[victim]
        fleet.kill_worker(victim)
        assert await fleet.serves_again(victim, former)
        await all_serve(fleet)
    clients = await fleet.reach_each("admin")
    await clients[0].admin.RotateRootKey(admin_pb2.RotateRootKeyRequest(passphrase=SECOND))
    for client in clients.values():
        await receipt_of(client)
    await clients[1].admin.Seal(admin_pb2.SealRequest())
    with pytest.raises(grpc.aio.AioRpcError) as sealed:
        await receipt_of(clients[0])
    assert reason_of(sealed.value) == "SEALED"
    with pytest.raises(grpc.aio.AioRpcError) as wrong:
        await clients[0].admin.Unseal(admin_pb2.UnsealRequest(passphrase=FIRST))
    assert reason_of(wrong.value) == "WRONG_PASSPHRASE"
    await clients[0].admin.Unseal(admin_pb2.UnsealRequest(passphrase=SECOND))
    for client in clients.values():
        await receipt_of(client)
        await client.channel.close()
    fleet.popen.send_signal(signal.SIGUSR2)
    assert await eventually(lambda: any(line["event"] == "rolling_restart_done" for line in fleet.log()), 60)
    await all_serve(fleet)
    assert FIRST not in b"".join(path.read_bytes() for path in fleet.directory.rglob("*") if path.is_file())
