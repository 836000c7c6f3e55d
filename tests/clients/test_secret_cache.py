"""Secrets that are kept: read once, dropped when they change, and given while the vault is away only where that was asked for."""

from __future__ import annotations

import asyncio
import datetime
from itertools import count

import pytest
import pytest_asyncio
from sdk_rig import PATIENT, VAULT, Audit, async_client, sync_client, wire_to
from test_envelope import Told, live

from harness import APP, running_server
from vaultd_client import AsyncSecretCache, FailedPrecondition, NotFound, PermissionDenied, SecretCache, Unavailable

pytestmark = pytest.mark.asyncio(loop_scope="module")
NAMES = count()
NO_READER = "spiffe://dev.vaultd/no-reader"


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def server(tmp_path_factory):
    policy = {
        "roles": [{"name": "access-only", "permissions": ["secrets.access"]}],
        "bindings": [
            {"members": [APP], "role": "secret-reader", "resource": VAULT},
            {"members": [NO_READER], "role": "access-only", "resource": VAULT},
        ],
    }
    async with running_server(tmp_path_factory.mktemp("secrets"), policy=policy, **PATIENT) as server:
        server.add_identity("no-reader", uri=NO_READER)
        yield server


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def admin(server):
    async with async_client(server, "admin") as client:
        yield client


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def app(server):
    async with async_client(server) as client:
        await live(client)
        yield client


@pytest_asyncio.fixture(loop_scope="module")
async def secret(admin):
    return (await admin.create_secret(VAULT, f"cached-{next(NAMES)}", payload=b"one")).name


@pytest_asyncio.fixture(loop_scope="module")
async def cache(app):
    async with AsyncSecretCache(app) as cache:
        yield cache


def accesses(audit: Audit) -> int:
    return sum(audit.items()[at] for at, method in enumerate(audit.methods()) if "AccessSecretVersion" in method)


async def told_of(client, secret: str, change) -> None:
    told = Told(client.follow_changes(), secret)
    await change
    await told.wait()


async def test_a_secret_is_read_once_by_however_many(server, cache, secret):
    audit = Audit(server)
    values = await asyncio.gather(*(cache.get(secret) for _ in range(200)))
    assert {value.payload for value in values} == {b"one"}
    assert values[0].version == f"{secret}/versions/1"
    assert "b'one'" not in repr(values[0])
    assert accesses(audit) == 1
    assert (await cache.get(f"{secret}/versions/latest")).payload == b"one"
    assert accesses(audit) == 2


async def test_threads_share_one_too(server, secret):
    from concurrent.futures import ThreadPoolExecutor

    def blocking() -> set[bytes]:
        with sync_client(server) as client, SecretCache(client) as cache, ThreadPoolExecutor(16) as pool:
            found = {value.payload for value in pool.map(lambda _: cache.get(secret), range(100))}
            with pytest.raises(NotFound):
                cache.get(f"{VAULT}/secrets/nowhere")
            return found

    audit = Audit(server)
    assert await asyncio.to_thread(blocking) == {b"one"}
    assert accesses(audit) == 2  # of them one for what is not there


async def test_a_new_version_and_a_moved_alias_are_given_as_soon_as_watch_tells(admin, app, cache, secret):
    previous = f"{secret}/versions/previous"
    assert (await cache.get(secret)).payload == b"one"
    await told_of(app, secret, admin.add_secret_version(secret, b"two"))
    assert (await cache.get(secret)).payload == b"two"
    assert (await cache.get(previous)).payload == b"one"
    await told_of(app, secret, admin.set_alias(secret, "current", f"{secret}/versions/1"))
    assert ((await cache.get(secret)).payload, (await cache.get(previous)).payload) == (b"one", b"two")


@pytest.mark.parametrize("change", ["disable", "destroy", "delete"])
async def test_what_is_taken_away_is_gone_at_once(admin, app, secret, change):
    async with AsyncSecretCache(app, stale_while_unavailable_s=1_000) as cache:
        await cache.get(secret)
        version = f"{secret}/versions/1"
        acts = {"disable": admin.disable_secret_version, "destroy": admin.destroy_secret_version}
        await told_of(app, secret, admin.delete_secret(secret) if change == "delete" else acts[change](version))
        with pytest.raises(FailedPrecondition):
            await cache.get(secret)


async def test_after_its_time_a_secret_is_asked_for_without_its_payload(server, app, secret):
    async with async_client(server) as client, AsyncSecretCache(client, ttl_s=100) as cache:
        await live(client)
        changes = client.follow_changes()
        value, at = await cache.get(secret), changes.clock()
        audit = Audit(server)
        changes.clock = lambda: at + 99
        changes._heard = at + 99
        await cache.get(secret)
        assert accesses(audit) == 0
        changes.clock = lambda: at + 101
        assert await cache.get(secret) is value  # not modified: the payload did not travel
        assert accesses(audit) == 1
        await cache.get(secret)
        assert accesses(audit) == 1


async def test_without_watch_the_vault_is_asked_after_a_moment(server, secret):
    for stem in ("app", "no-reader"):
        async with async_client(server, stem) as client, AsyncSecretCache(client) as cache:
            changes = client.follow_changes()
            if stem == "app":
                await live(client)
            await cache.get(secret)
            audit, at = Audit(server), changes.clock()
            changes.clock = lambda at=at: at + 11
            changes._heard = at + (0 if stem == "app" else 11)
            await cache.get(secret)
            assert accesses(audit) == 1
            assert audit.methods().count("GetSecret") == 0  # asked before, and for `ttl_s`


async def test_a_version_is_not_given_after_its_end(server, admin):
    end = datetime.datetime.now(datetime.UTC) + datetime.timedelta(seconds=500)
    secret = (await admin.create_secret(VAULT, f"cached-{next(NAMES)}", payload=b"brief", expire_time=end)).name
    async with async_client(server) as client, AsyncSecretCache(client) as cache:  # not told of what was before it
        await live(client)
        value = await cache.get(secret)
        assert value.expire_time == pytest.approx(end.timestamp())
        audit = Audit(server)
        cache._secrets._wall_clock = lambda: end.timestamp() - 1
        await cache.get(secret)
        assert accesses(audit) == 0
        cache._secrets._wall_clock = lambda: value.expire_time  # as it was read: two roundings may differ
        await cache.get(secret)  # the vault, whose clock it is by, is asked
        await cache.get(secret)
        assert accesses(audit) == 2


async def test_entries_are_bounded(server, admin):
    secrets = [(await admin.create_secret(VAULT, f"cached-{next(NAMES)}", payload=b"m")).name for _ in range(3)]
    async with async_client(server) as client, AsyncSecretCache(client, max_entries=2) as cache:
        await live(client)
        audit = Audit(server)
        for at in (0, 1, 0, 2, 0, 1):
            await cache.get(secrets[at])
        assert accesses(audit) == 4


async def test_while_the_vault_is_away_old_payloads_are_given_where_that_was_asked_for(server, secret):
    async with wire_to(server.address) as wire, async_client(server, address=wire.address) as client:
        plain = AsyncSecretCache(client, ttl_s=100)
        lenient = AsyncSecretCache(client, ttl_s=100, stale_while_unavailable_s=50)
        await live(client)
        changes = client.follow_changes()
        for cache in (plain, lenient):
            await cache.get(secret)
        at = changes.clock()
        wire.refuse = True
        wire.cut()
        changes.clock = lambda: at + 149
        with pytest.raises(Unavailable):
            await plain.get(secret)
        assert (await lenient.get(secret)).payload == b"one"
        assert lenient._secrets._rest_until == at + 150
        assert (await lenient.get(secret)).payload == b"one"  # without asking again
        changes.clock = lambda: at + 151
        with pytest.raises(Unavailable):
            await lenient.get(secret)


async def test_an_answer_ends_what_is_stale(server, admin):
    secret = (await admin.create_secret(VAULT, f"cached-{next(NAMES)}", payload=b"m")).name
    async with (
        async_client(server, "no-reader") as client,
        AsyncSecretCache(client, stale_while_unavailable_s=1_000) as cache,
    ):
        changes = client.follow_changes()
        await cache.get(secret)
        await admin.disable_secret_version(f"{secret}/versions/1")
        at = changes.clock()
        changes.clock = lambda: at + 11
        with pytest.raises(FailedPrecondition):
            await cache.get(secret)
        assert cache._secrets._look_up(secret) is None


async def test_a_closed_cache_has_forgotten(app, secret):
    cache = AsyncSecretCache(app)
    await cache.get(secret)
    cache.close()
    assert cache._secrets._kept == {}
    with pytest.raises(ValueError, match="max_entries"):
        AsyncSecretCache(app, max_entries=0)


async def test_who_may_not_access_is_told_so_each_time(server, admin, cache):
    for _ in range(2):
        with pytest.raises((NotFound, PermissionDenied)):
            await cache.get(f"{VAULT}/secrets/nowhere")
