"""Client, which blocks: as AsyncClient, from many threads."""

from __future__ import annotations

import asyncio
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
import pytest_asyncio
from sdk_rig import AEAD, MAC, PATIENT, SIGNER, VAULT, Audit, create_keys, sync_client, wire_to

from harness import running_server
from vaultd_client import (
    BatchLimits,
    CallInfo,
    Client,
    ClientClosed,
    DecryptionFailed,
    NotFound,
    VaultdError,
)
from vaultd_client.v1 import crypto_pb2

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def server(tmp_path_factory):
    async with running_server(tmp_path_factory.mktemp("sdk"), **PATIENT) as server:
        await create_keys(server)
        yield server


async def together(act, count: int, threads: int = 64) -> list:
    """What `act(n)` gives in many threads, begun at the same moment; exceptions are values."""
    begin = threading.Barrier(min(count, threads))

    def one(n: int):
        if n < begin.parties:
            begin.wait()
        try:
            return act(n)
        except VaultdError as error:
            return error

    def all_of_them() -> list:
        with ThreadPoolExecutor(threads) as pool:
            return list(pool.map(one, range(count)))

    return await asyncio.to_thread(all_of_them)


async def test_threads_travel_together_and_each_gets_its_own_answer(server):
    with sync_client(server) as vault:

        def there_and_back(n: int) -> bytes:
            sealed = vault.encrypt(AEAD, b"%d" % n, b"aad")
            return vault.decrypt(AEAD, sealed.ciphertext, b"aad").plaintext

        audit = Audit(server)
        assert await together(there_and_back, 640) == [b"%d" % n for n in range(640)]
    assert sum(audit.items()) == 1280
    assert len(audit.items()) < 640
    assert max(audit.items()) <= 64


async def test_a_lone_call_is_a_single_call_and_coalesce_false_keeps_all_apart(server):
    with sync_client(server) as vault:
        audit = Audit(server)
        info = CallInfo()
        signed = await asyncio.to_thread(vault.sign, SIGNER, b"m", info=info)
        assert (await asyncio.to_thread(vault.verify, SIGNER, b"m", signed.signature)).valid
    assert audit.methods() == ["Sign", "Verify"]
    assert info.receipt.sequence > 0
    with sync_client(server, coalesce=False) as vault:
        audit = Audit(server)
        await together(lambda n: vault.generate_mac(MAC, b"%d" % n), 20)
    assert audit.methods() == ["GenerateMac"] * 20


async def test_an_item_fails_by_itself(server):
    with sync_client(server) as vault:
        sealed = (await asyncio.to_thread(vault.encrypt, AEAD, b"good")).ciphertext
        outcomes = await together(lambda n: vault.decrypt(AEAD, sealed if n % 4 else b"none"), 40)
    assert [type(one) for one in outcomes[::4]] == [DecryptionFailed] * 10
    assert [one.plaintext for at, one in enumerate(outcomes) if at % 4] == [b"good"] * 30


async def test_batches_keep_to_their_bounds(server):
    with sync_client(server, batch=BatchLimits(max_items=5)) as vault:
        audit = Audit(server)
        await together(lambda n: vault.encrypt(AEAD, b"%d" % n), 64)
    assert sum(audit.items()) == 64
    assert max(audit.items()) <= 5


async def test_each_call_has_its_own_deadline_and_the_others_get_their_answers(server):
    async with wire_to(server.address) as wire:
        with sync_client(server, address=wire.address) as vault:
            await asyncio.to_thread(vault.encrypt, AEAD, b"connected")
            wire.open.clear()
            patient = asyncio.create_task(together(lambda n: vault.encrypt(AEAD, b"%d" % n, timeout_s=30), 5, 5))
            await wire.waiting.wait()
            hurried = await together(lambda n: vault.encrypt(AEAD, b"%d" % n, timeout_s=0.1), 5, 5)
            wire.open.set()
            outcomes = [*hurried, *await patient]
    assert [type(one).__name__ for one in outcomes] == ["DeadlineExceeded"] * 5 + ["EncryptResponse"] * 5


async def test_a_thread_in_a_hurry_is_not_held_by_a_batch_with_those_who_have_time(server):
    begun = threading.Barrier(9)

    def encrypt(timeout_s: float):
        begun.wait()
        return vault.encrypt(AEAD, b"m", timeout_s=timeout_s)

    async with wire_to(server.address) as wire:
        with sync_client(server, address=wire.address) as vault:
            await asyncio.to_thread(vault.encrypt, AEAD, b"connected")
            wire.open.clear()
            first = asyncio.create_task(asyncio.to_thread(vault.encrypt, AEAD, b"first", timeout_s=60))
            await wire.waiting.wait()
            hurried = asyncio.create_task(together(lambda n: encrypt(2), 7, 7))
            patient = asyncio.create_task(asyncio.to_thread(encrypt, 60))
            await asyncio.to_thread(begun.wait)
            wire.open.set()
            wire.open.clear()  # what waits passes, and no batch that is sent next
            async with asyncio.timeout(60):
                outcomes = await hurried
            wire.open.set()
            assert (await first).ciphertext
            assert (await patient).ciphertext
    assert {type(one).__name__ for one in outcomes} <= {"DeadlineExceeded", "EncryptResponse"}


async def test_a_mutation_whose_answer_was_lost_is_sent_again_and_happens_once(server):
    async with wire_to(server.address) as wire:
        with sync_client(server, "admin", wire.address) as admin:
            before = await asyncio.to_thread(admin.list_key_versions, AEAD)
            wire.lose_answers = True
            await asyncio.to_thread(admin.rotate_key, AEAD)
            after = await asyncio.to_thread(admin.list_key_versions, AEAD)
    assert wire.lost == 1
    assert len(after.key_versions) == len(before.key_versions) + 1


async def test_operations_go_through_a_stream_and_changes_are_watched(server):
    operations = [{"id": n, "encrypt": {"name": AEAD, "plaintext": b"%d" % n}} for n in range(3)]
    requests = [crypto_pb2.CryptoStreamRequest(operations=[one]) for one in operations]

    def stream() -> set[int]:
        return {one.id for response in admin.crypto_stream(requests, timeout_s=10) for one in response.results}

    def watch() -> set[str]:
        changes = admin.watch(timeout_s=10)
        next(changes)
        admin.create_key(VAULT, "watched", {"purpose": "KEY_PURPOSE_MAC"})
        names = {event.name for event in next(changes).events}
        changes.close()
        return names

    with sync_client(server, "admin") as admin:
        assert await asyncio.to_thread(stream) == {0, 1, 2}
        assert f"{VAULT}/keys/watched" in await asyncio.to_thread(watch)


async def test_errors_are_typed_and_a_closed_client_says_so(server):
    vault: Client = sync_client(server, "admin")
    with pytest.raises(NotFound) as raised:
        await asyncio.to_thread(vault.get_key, f"{VAULT}/keys/nowhere")
    assert (raised.value.code, raised.value.reason) == ("NOT_FOUND", "KEY_NOT_FOUND")
    assert raised.value.request_id
    vault.close()
    with pytest.raises(ClientClosed):
        vault.get_key(f"{VAULT}/keys/nowhere")


async def test_who_waits_when_the_client_is_closed_is_told(server):
    async with wire_to(server.address) as wire:
        vault = sync_client(server, address=wire.address)
        await asyncio.to_thread(vault.encrypt, AEAD, b"connected")
        wire.open.clear()

        def ask(n: int):
            with pytest.raises(ClientClosed):
                vault.encrypt(AEAD, b"%d" % n)

        asked = asyncio.create_task(together(ask, 5, 5))
        await wire.waiting.wait()
        await asyncio.to_thread(vault.close)
        assert await asked == [None] * 5
