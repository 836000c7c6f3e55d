"""Two servers on one SQLite file: what one writes, the other sees through the feed, and neither loses what it was told."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager

import grpc
import pytest

from engine.engines import edit, intent, open_engine, query, version
from harness import APP, DEFAULT_POLICY, reason_of, running_server
from vaultd.engine.authority import put_policy
from vaultd.engine.ledger import Intent
from vaultd.engine.policy import seed_policy
from vaultd.errors import AlreadyExists, DataLoss, FailedPrecondition, Unavailable, VaultdError
from vaultd_client.v1 import crypto_pb2, keys_pb2, resources_pb2

DENYING = {
    "bindings": [
        *DEFAULT_POLICY["bindings"],
        {"members": [APP], "role": "crypto-user", "resource": "vaults/default", "deny": True},
    ]
}


@asynccontextmanager
async def two_servers(directory):
    """The same file, root key and certificates; each has its own port and audit log."""
    second = {"audit": {"directory": directory / "audit-2"}}
    async with running_server(directory) as one, running_server(directory, **second) as two:
        yield one, two


async def create(server, key_id: str = "k"):
    key = resources_pb2.Key(purpose=resources_pb2.KEY_PURPOSE_ENCRYPT_DECRYPT)
    key.destroy_scheduled_duration.FromSeconds(0)
    request = keys_pb2.CreateKeyRequest(parent="vaults/default", key_id=key_id, key=key)
    return await server.admin.keys.CreateKey(request)


async def encrypt(server, name: str):
    return await server.app.crypto.Encrypt(crypto_pb2.EncryptRequest(name=name, plaintext=b"x"))


async def follow(server) -> None:
    await server.server.engine.feed.poll()


async def test_a_key_made_on_one_server_is_used_on_the_other(tmp_path):
    async with two_servers(tmp_path) as (one, two):
        key = await create(one)
        assert (await encrypt(two, key.name)).key_version == f"{key.name}/versions/1"


async def test_a_ciphertext_of_one_server_opens_on_the_other(tmp_path):
    async with two_servers(tmp_path) as (one, two):
        key = await create(one)
        sealed = await encrypt(one, key.name)
        request = crypto_pb2.DecryptRequest(name=key.name, ciphertext=sealed.ciphertext)
        assert (await two.app.crypto.Decrypt(request)).plaintext == b"x"


async def test_a_version_disabled_on_one_server_is_refused_on_the_other(tmp_path):
    async with two_servers(tmp_path) as (one, two):
        key = await create(one)
        await encrypt(two, key.name)
        request = keys_pb2.DisableKeyVersionRequest(name=f"{key.name}/versions/1")
        await one.admin.keys.DisableKeyVersion(request)
        await follow(two)
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await encrypt(two, key.name)
        assert reason_of(refused.value) == "KEY_VERSION_DISABLED"


async def test_a_rotation_on_one_server_is_used_on_the_other(tmp_path):
    async with two_servers(tmp_path) as (one, two):
        key = await create(one)
        await encrypt(two, key.name)
        await one.admin.keys.RotateKey(keys_pb2.RotateKeyRequest(name=key.name))
        await follow(two)
        assert (await encrypt(two, key.name)).key_version == f"{key.name}/versions/2"


async def test_a_version_destroyed_on_one_server_is_refused_on_the_other(tmp_path):
    async with two_servers(tmp_path) as (one, two):
        key = await create(one)
        await encrypt(two, key.name)
        request = keys_pb2.DestroyKeyVersionRequest(name=f"{key.name}/versions/1")
        await one.admin.keys.DestroyKeyVersion(request)
        await one.server.engine.scheduler.tick()
        await follow(two)
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await encrypt(two, key.name)
        assert reason_of(refused.value) == "KEY_VERSION_DESTROYED"


async def test_a_key_deleted_on_one_server_is_refused_on_the_other(tmp_path):
    async with two_servers(tmp_path) as (one, two):
        key = await create(one)
        await encrypt(two, key.name)
        await one.admin.keys.DeleteKey(keys_pb2.DeleteKeyRequest(name=key.name))
        await follow(two)
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await encrypt(two, key.name)
        assert reason_of(refused.value) == "KEY_DELETED"


async def test_the_background_poll_sees_a_change_without_being_called(tmp_path):
    async with two_servers(tmp_path) as (one, two):
        key = await create(one)
        await encrypt(two, key.name)
        await one.admin.keys.RotateKey(keys_pb2.RotateKeyRequest(name=key.name))

        async def rotated() -> None:
            while (await encrypt(two, key.name)).key_version != f"{key.name}/versions/2":
                pass

        await asyncio.wait_for(rotated(), 60)


async def test_a_policy_changed_on_one_server_is_in_force_on_the_other(tmp_path):
    async with open_engine(tmp_path) as one, open_engine(tmp_path) as two:
        async with one.ledger.change() as changes:
            await put_policy(changes, seed_policy(["spiffe://dev.vaultd/other"], None))
        await two.engine.feed.poll()
        assert two.engine.authority.engine.allows("spiffe://dev.vaultd/other", "keys.create", "vaults/default")


async def test_a_change_that_follows_an_unwritten_one_of_ours_is_seen(tmp_path):
    """A transaction that wrote nothing gives its revision to the next writer, who may be another process."""
    async with open_engine(tmp_path) as one, open_engine(tmp_path) as two:
        ref = await one.create()
        await two.engine.feed.poll()
        await two.encrypt(ref)
        await two.key_versions.enable_version(intent(), version(ref, 1), "")
        await one.key_versions.disable_version(intent(), version(ref, 1), "")
        assert await two.engine.feed.poll() == 1
        with pytest.raises(FailedPrecondition):
            await two.encrypt(ref)


async def test_a_server_that_missed_trimmed_changes_believes_nothing_in_memory(tmp_path):
    async with open_engine(tmp_path) as one, open_engine(tmp_path) as two:
        ref = await one.create()
        await two.engine.feed.poll()
        await two.encrypt(ref)
        await one.key_versions.disable_version(intent(), version(ref, 1), "")
        await one.create("another")
        await one.ledger.store.trim_changes(1)
        await two.engine.feed.poll()
        with pytest.raises(FailedPrecondition):
            await two.encrypt(ref)


async def test_own_changes_are_not_taken_for_foreign_ones(tmp_path):
    async with open_engine(tmp_path) as one:
        await one.create()
        assert await one.engine.feed.poll() == 0


async def test_own_revisions_are_forgotten_once_seen(tmp_path):
    async with open_engine(tmp_path) as one:
        await one.create()
        await one.engine.feed.poll()
        assert one.ledger.own_revisions == set()


async def test_a_policy_that_could_not_be_read_is_read_again_when_it_can(tmp_path):
    path = tmp_path / "vault.db"
    async with open_engine(tmp_path) as one, open_engine(tmp_path) as two:
        async with one.ledger.change() as changes:
            await put_policy(changes, seed_policy(["spiffe://dev.vaultd/other"], None))
        ((sealed,),) = query(path, "SELECT sealed FROM records WHERE kind = 'policy'")
        edit(path, ("UPDATE records SET sealed = ? WHERE kind = 'policy'", (b"damaged" * 10,)))
        with pytest.raises(DataLoss):
            await two.engine.feed.poll()
        edit(path, ("UPDATE records SET sealed = ? WHERE kind = 'policy'", (sealed,)))
        await two.engine.feed.poll()
        assert two.engine.authority.engine.allows("spiffe://dev.vaultd/other", "keys.create", "vaults/default")


async def test_a_policy_that_cannot_be_read_allows_nothing(tmp_path):
    path = tmp_path / "vault.db"
    async with open_engine(tmp_path) as one, open_engine(tmp_path) as two:
        async with one.ledger.change() as changes:
            await put_policy(changes, seed_policy(["spiffe://dev.vaultd/other"], None))
        edit(path, ("UPDATE records SET sealed = ? WHERE kind = 'policy'", (b"damaged" * 10,)))
        with pytest.raises(DataLoss):
            await two.engine.feed.poll()
        with pytest.raises(DataLoss):
            _ = two.engine.authority.engine


async def test_the_policy_in_force_stays_while_the_next_one_is_read(tmp_path):
    async with open_engine(tmp_path) as one:
        reading = asyncio.ensure_future(one.engine.authority.reload())
        await asyncio.sleep(0)
        assert one.engine.authority.engine is not None
        await reading


async def test_of_two_concurrent_creates_of_one_name_exactly_one_wins(tmp_path):
    async with open_engine(tmp_path) as one, open_engine(tmp_path) as two:
        for number in range(10):
            outcomes = await asyncio.gather(one.create(f"k{number}"), two.create(f"k{number}"), return_exceptions=True)
            assert sorted(type(outcome).__name__ for outcome in outcomes) == ["AlreadyExists", "KeyRef"]
            assert any(isinstance(outcome, AlreadyExists) for outcome in outcomes)


async def test_concurrent_retries_of_one_request_give_one_key_and_one_answer(tmp_path):
    async with open_engine(tmp_path) as one, open_engine(tmp_path) as two:
        ref = await one.create()
        request = Intent("p", "RotateKey", "same", b"body")
        first, second = await asyncio.gather(
            one.key_versions.rotate_key(request, ref), two.key_versions.rotate_key(request, ref)
        )
        assert first == second


async def test_concurrent_rotations_on_two_engines_lose_no_version(tmp_path):
    async with open_engine(tmp_path) as one, open_engine(tmp_path) as two:
        ref = await one.create()
        made = await asyncio.gather(
            *(engine.key_versions.rotate_key(intent(), ref) for engine in (one, two) for _ in range(10))
        )
        assert sorted(found.number for found in made) == list(range(2, 22))
        assert len(await one.keys.list_versions(ref)) == 21
        assert await one.ledger.check(deep=True)


async def test_both_engines_write_under_contention(tmp_path):
    async with open_engine(tmp_path) as one, open_engine(tmp_path) as two:
        creates = [engine.create(f"k{at}-{number}") for at, engine in enumerate((one, two)) for number in range(25)]
        outcomes = await asyncio.gather(*creates, return_exceptions=True)
        assert not [outcome for outcome in outcomes if isinstance(outcome, VaultdError)]
        assert len(await one.keys.list_keys("default", "", 100, deleted=False)) == 50


async def test_two_schedulers_rotate_a_due_key_once(tmp_path):
    async with open_engine(tmp_path) as one, open_engine(tmp_path) as two:
        ref = await one.create(rotation_period_us=3_600_000_000)
        for engine in (one, two):
            engine.clock.advance(3_600)
        await asyncio.gather(one.tick(), two.tick())
        assert await one.primary(ref) == 2


async def test_a_rotated_root_key_is_followed_through_the_feed(tmp_path):
    async with open_engine(tmp_path) as one, open_engine(tmp_path) as two:
        ref = await one.create()
        sealed = await one.encrypt(ref)
        await one.seal.rotate_root(intent(), None)
        await two.engine.feed.poll()
        assert two.ledger.sealer.term == 2
        assert await two.decrypt(ref, sealed) == b"plaintext"


async def test_an_engine_that_has_not_yet_followed_says_try_again_and_not_data_loss(tmp_path):
    async with open_engine(tmp_path) as one, open_engine(tmp_path) as two:
        await one.seal.rotate_root(intent(), None)
        ref = await one.create()
        with pytest.raises(Unavailable) as refused:
            await two.encrypt(ref)
        assert refused.value.reason == "KEY_RING_CHANGED"


async def test_an_engine_that_has_not_yet_followed_writes_nothing_and_says_try_again(tmp_path):
    async with open_engine(tmp_path) as one, open_engine(tmp_path) as two:
        await one.seal.rotate_root(intent(), None)
        await one.create()
        with pytest.raises(Unavailable) as refused:
            await two.create("other")
        assert refused.value.reason == "KEY_RING_CHANGED"


async def test_both_engines_write_again_once_the_other_has_followed(tmp_path):
    async with open_engine(tmp_path) as one, open_engine(tmp_path) as two:
        await one.seal.rotate_root(intent(), None)
        await two.engine.feed.poll()
        await two.create("two")
        await one.create("one")
        assert await one.ledger.check(deep=True)


async def test_of_two_engines_that_rotate_the_root_key_the_stale_one_is_refused(tmp_path):
    async with open_engine(tmp_path) as one, open_engine(tmp_path) as two:
        await one.seal.rotate_root(intent(), None)
        with pytest.raises(VaultdError) as refused:
            await two.seal.rotate_root(intent(), None)
        assert refused.value.reason == "ROOT_KEY_ROTATED"


async def test_an_engine_follows_terms_that_were_dropped(tmp_path):
    async with open_engine(tmp_path) as one, open_engine(tmp_path) as two:
        ref = await one.create()
        await two.encrypt(ref)
        await one.seal.rotate_root(intent(), None)
        for _ in range(6):
            await one.tick()
        await two.engine.feed.poll()
        assert list(two.ledger.sealer.ring.terms) == [2]
        assert await two.encrypt(ref)
