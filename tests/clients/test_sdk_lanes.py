"""What happens to batches that a server refuses, or answers in part: with one that does what vaultd does rarely, or did before."""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from concurrent.futures import ThreadPoolExecutor

import grpc
import pytest
import pytest_asyncio
from google.rpc import error_details_pb2
from sdk_rig import identity

from vaultd.devpki import create_dev_pki
from vaultd_client import (
    AsyncClient,
    BatchLimits,
    Client,
    ConfigurationError,
    InvalidArgument,
    PermissionDenied,
    VaultdError,
)
from vaultd_client.batching import Pace, Waiting, answers, take_batch
from vaultd_client.generated import table
from vaultd_client.info import CallInfo
from vaultd_client.v1 import crypto_pb2, crypto_pb2_grpc

pytestmark = pytest.mark.asyncio(loop_scope="module")

KEY = "vaults/default/keys/k"


def sealed(item: crypto_pb2.EncryptRequest) -> crypto_pb2.EncryptResponse:
    return crypto_pb2.EncryptResponse(ciphertext=b"sealed " + item.plaintext)


class StrictVault(crypto_pb2_grpc.CryptoServiceServicer):
    """Answers batches of at most `most` items and refuses larger ones with `code`; `fits` items in an answer."""

    def __init__(self) -> None:
        self.reset()

    def reset(self, most: int = 10_000, code: str = "INVALID_ARGUMENT", fits: int = 10_000) -> None:
        self.most, self.code, self.fits = most, grpc.StatusCode[code], fits
        self.sizes: list[int] = []
        self.left = asyncio.Event()
        self.arrived = asyncio.Event()
        self.hold = asyncio.Event()
        self.hold.set()

    async def _wait(self) -> None:
        self.arrived.set()
        try:
            await self.hold.wait()
        except asyncio.CancelledError:
            self.left.set()
            raise

    async def Encrypt(self, request, context):
        self.sizes.append(1)
        await self._wait()
        return sealed(request)

    async def BatchEncrypt(self, request, context):
        self.sizes.append(len(request.items))
        await self._wait()
        if len(request.items) > self.most:
            await context.abort(self.code, "not so many")
        response = crypto_pb2.BatchEncryptResponse()
        for at, item in enumerate(request.items):
            result = response.results.add()
            if at < self.fits:
                result.result.CopyFrom(sealed(item))
            else:
                result.status.code = grpc.StatusCode.RESOURCE_EXHAUSTED.value[0]
                result.status.details.add().Pack(
                    error_details_pb2.ErrorInfo(reason="ANSWER_TOO_LARGE", domain="vaultd")
                )
        return response


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def serving(tmp_path_factory):
    tls = tmp_path_factory.mktemp("strict") / "tls"
    create_dev_pki(tls, hosts=["127.0.0.1"])
    files = [(tls / name).read_bytes() for name in ("server.key", "server.crt", "ca.crt")]
    strict = StrictVault()
    server = grpc.aio.server()
    crypto_pb2_grpc.add_CryptoServiceServicer_to_server(strict, server)
    credentials = grpc.ssl_server_credentials([tuple(files[:2])], files[2], require_client_auth=True)
    port = server.add_secure_port("127.0.0.1:0", credentials)
    await server.start()
    yield strict, f"127.0.0.1:{port}", {**identity(tls, "app"), "checksums": False}
    await server.stop(None)


@pytest.fixture
def strict(serving):
    serving[0].reset()
    return serving[0]


@pytest_asyncio.fixture(loop_scope="module")
async def vault(serving):
    async with AsyncClient(serving[1], **serving[2]) as client:
        yield client


REFUSALS = [
    {"most": 3},
    {"most": 0, "code": "UNIMPLEMENTED"},
    {"most": 3, "code": "RESOURCE_EXHAUSTED"},
    {"fits": 4},
]


@pytest.mark.parametrize("refusal", REFUSALS)
async def test_a_batch_refused_for_being_one_is_divided_and_what_did_not_fit_is_asked_again(strict, vault, refusal):
    strict.reset(**refusal)
    outcomes = await asyncio.gather(*(vault.encrypt(KEY, b"%d" % n) for n in range(30)))
    assert [one.ciphertext for one in outcomes] == [b"sealed %d" % n for n in range(30)]
    assert sorted(strict.sizes[:2]) == [1, 29]


@pytest.mark.parametrize("refusal", REFUSALS)
async def test_so_is_one_of_threads(strict, serving, refusal):
    strict.reset(**refusal)
    begin = threading.Barrier(30)

    def encrypt(n: int) -> bytes:
        begin.wait()
        return vault.encrypt(KEY, b"%d" % n).ciphertext

    def all_of_them() -> list[bytes]:
        with ThreadPoolExecutor(30) as pool:
            return list(pool.map(encrypt, range(30)))

    with Client(serving[1], **serving[2]) as vault:
        assert await asyncio.to_thread(all_of_them) == [b"sealed %d" % n for n in range(30)]


async def test_a_batch_refused_for_another_reason_fails_for_each_with_an_error_of_its_own(strict, vault):
    strict.reset(most=0, code="PERMISSION_DENIED")
    outcomes = await asyncio.gather(*(vault.encrypt(KEY, b"p") for _ in range(10)), return_exceptions=True)
    assert [type(one) for one in outcomes[1:]] == [PermissionDenied] * 9
    assert len({id(one) for one in outcomes}) == 10
    assert sorted(strict.sizes) == [1, 9]


async def test_a_batch_ends_on_the_server_when_all_its_callers_are_gone(strict, vault):
    await vault.encrypt(KEY, b"p")
    strict.reset()
    strict.hold.clear()
    first = asyncio.create_task(vault.encrypt(KEY, b"p"))
    await strict.arrived.wait()
    strict.arrived.clear()
    strict.hold.set()
    callers = [asyncio.create_task(vault.encrypt(KEY, b"p")) for _ in range(5)]
    strict.hold = asyncio.Event()
    await strict.arrived.wait()
    await first
    for caller in callers:
        caller.cancel()
    await asyncio.gather(*callers, return_exceptions=True)
    async with asyncio.timeout(60):
        await strict.left.wait()
    assert strict.sizes == [1, 5]


async def test_a_call_that_is_late_does_not_hold_up_the_others_for_ever(strict, vault):
    await vault.encrypt(KEY, b"connected")
    hold = strict.hold = asyncio.Event()
    strict.arrived.clear()
    late = asyncio.create_task(vault.encrypt(KEY, b"late"))
    await strict.arrived.wait()
    strict.hold = asyncio.Event()
    strict.hold.set()
    async with asyncio.timeout(60):
        assert (await vault.encrypt(KEY, b"1")).ciphertext == b"sealed 1"
    assert not late.done()
    hold.set()
    await late


async def test_a_call_in_a_hurry_does_not_wait_for_others(strict, vault):
    await vault.encrypt(KEY, b"connected")
    (lane,) = vault._lanes.values()
    lane._pace.took(100.0)  # as if calls took seconds
    hold = strict.hold = asyncio.Event()
    strict.arrived.clear()
    late = asyncio.create_task(vault.encrypt(KEY, b"late", timeout_s=1_000))
    await strict.arrived.wait()
    strict.hold = asyncio.Event()
    strict.hold.set()
    assert (await vault.encrypt(KEY, b"1", timeout_s=60)).ciphertext == b"sealed 1"
    assert not late.done()
    hold.set()
    await late


def request(n: int, size: int = 0) -> crypto_pb2.EncryptRequest:
    return crypto_pb2.EncryptRequest(name="k", plaintext=b"%d" % n + bytes(size))


async def test_batches_are_bounded_by_items_and_bytes_and_never_empty():
    pending = deque(Waiting(request(n, 1000), 0.0, None, None) for n in range(10))
    assert len(take_batch(pending, BatchLimits(max_items=4))) == 4
    assert len(take_batch(pending, BatchLimits(max_bytes=3_100))) == 2
    assert len(take_batch(pending, BatchLimits(max_bytes=1))) == 1
    assert len(take_batch(pending, BatchLimits())) == 3
    assert not pending
    for bad in ({"max_items": 0}, {"max_items": 10_001}, {"max_bytes": 5 * 2**20}):
        with pytest.raises(ConfigurationError):
            BatchLimits(**bad)


async def test_answers_of_another_number_than_the_items_are_given_to_nobody():
    batch = [Waiting(request(n), 0.0, None, None) for n in range(3)]
    response = crypto_pb2.BatchEncryptResponse(results=[crypto_pb2.BatchEncryptResult()] * 2)
    with pytest.raises(VaultdError, match="another number"):
        list(answers(table.ENCRYPT, batch, response, CallInfo()))


async def test_a_status_of_an_item_is_an_error_with_the_request_id_of_the_batch():
    status = {"code": 3, "message": "no"}
    response = crypto_pb2.BatchEncryptResponse(results=[crypto_pb2.BatchEncryptResult(status=status)])
    (error,) = answers(table.ENCRYPT, [Waiting(request(0), 0.0, None, None)], response, CallInfo(request_id="r"))
    assert isinstance(error, InvalidArgument)
    assert (error.text, error.request_id) == ("no", "r")


async def test_patience_follows_what_calls_usually_take():
    pace = Pace()
    assert pace.patience_s == 0.02
    for _ in range(50):
        pace.took(1.0)
    assert 2.9 < pace.patience_s <= 3.0
    assert not pace.leaves_time(2.0)
    assert pace.leaves_time(10.0)
