"""A token that several workers use: its sessions are shared, and a wrong PIN is tried once for all of them."""

from __future__ import annotations

import signal

import pytest
import pytest_asyncio

from network.process import eventually
from scraping import Scrape, http
from vaultd_client.v1 import crypto_pb2, keys_pb2, resources_pb2
from workers.fleet import Fleet, metrics_port

pytestmark = pytest.mark.asyncio(loop_scope="module")
NAME = "vaults/default/keys/in-token"


@pytest.fixture(scope="module")
def fleet(tmp_path_factory):
    running = Fleet(tmp_path_factory.mktemp("workers") / "served", 2, "--hsm", "--metrics", "127.0.0.1:0")
    yield running
    running.kill()


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def admins(fleet):
    await fleet.prepare()
    found = await fleet.reach_each("admin")
    yield found
    for client in found.values():
        await client.channel.close()


async def token(fleet: Fleet, name: str) -> list[float]:
    """A number of the token, of each worker that says it."""
    _, _, body = await http(metrics_port(fleet), b"GET /metrics HTTP/1.1\r\nhost: x\r\n\r\n")
    return [sample.value for sample in Scrape(body.decode()).all(f"vaultd_hsm_{name}")]


async def test_a_key_that_one_worker_made_in_the_token_is_used_by_the_other(fleet, admins):
    request = keys_pb2.CreateKeyRequest(parent="vaults/default", key_id="in-token")
    request.key.purpose = resources_pb2.KEY_PURPOSE_SIGN
    request.key.algorithm = resources_pb2.ALGORITHM_EC_P256_SHA256
    request.key.protection_level = resources_pb2.PROTECTION_LEVEL_HSM
    await admins[0].keys.CreateKey(request)
    for client in admins.values():
        signed = await client.crypto.Sign(crypto_pb2.SignRequest(name=NAME, message=b"x"))
        verify = crypto_pb2.VerifyRequest(name=NAME, message=b"x", signature=signed.signature)
        assert (await client.crypto.Verify(verify)).valid


async def test_the_workers_share_the_sessions_of_the_token(fleet, admins):
    assert await token(fleet, "sessions") == [1, 1]  # as many as there are processors, in all: two, where tests run


async def test_a_wrong_pin_is_tried_once_and_once_more_when_an_operator_says_so(fleet, admins):
    pin = fleet.directory / "hsm/pin"
    right = pin.read_bytes()
    pin.write_bytes(b"not the pin\n")
    fleet.popen.send_signal(signal.SIGUSR2)
    assert await eventually(lambda: any(line["event"] == "rolling_restart_done" for line in fleet.log()), 40)

    def down() -> list[int]:
        return [line["worker"] for line in fleet.log() if line["event"] == "hsm_down"]

    assert await eventually(lambda: sorted(down()) == [0, 1], 10)
    assert sum(await token(fleet, "logins_total")) == 1
    assert await token(fleet, "serving") == [0, 0]
    fleet.popen.send_signal(signal.SIGHUP)
    for _ in range(100):
        if sum(await token(fleet, "logins_total")) > 1:
            break
    assert sum(await token(fleet, "logins_total")) == 2
    pin.write_bytes(right)
    for _ in range(500):
        if await token(fleet, "serving") == [1, 1]:
            break
    assert await token(fleet, "serving") == [1, 1]
    assert sum(await token(fleet, "logins_total")) == 4
