"""Watches that go on by themselves, and what caches may conclude from them."""

from __future__ import annotations

import asyncio
import threading

import pytest
import pytest_asyncio
from sdk_rig import PATIENT, VAULT, async_client, sync_client, wire_to

from harness import APP, running_server
from vaultd_client import (
    ClientClosed,
    ConfigurationError,
    DeadlineExceeded,
    Freshness,
    OutOfRange,
    PermissionDenied,
    Unavailable,
)
from vaultd_client.errors import Refusal, make_error
from vaultd_client.v1 import watch_pb2
from vaultd_client.watching import Changes, WatchCourse, resource_of

pytestmark = pytest.mark.asyncio(loop_scope="module")
KEY = f"{VAULT}/keys/k"
MAC = {"purpose": "KEY_PURPOSE_MAC"}
ONLY_KEYS = {"kinds": ["RESOURCE_KIND_KEY"]}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def server(tmp_path_factory):
    policy = {"bindings": [{"members": [APP], "role": "crypto-user", "resource": VAULT}]}
    async with running_server(tmp_path_factory.mktemp("watching"), policy=policy, **PATIENT) as server:
        yield server


# -- iterators ----------------------------------------------------------------------------------------------------------


async def read_names(changes, count: int) -> list[str]:
    names: list[str] = []
    while len(names) < count:
        names += [event.name.rpartition("/")[2] for event in (await anext(changes)).events]
    return names


async def test_a_watch_goes_on_over_connections_that_break_and_tells_each_change_once(server):
    async with async_client(server, "admin") as admin, wire_to(server.address) as wire:
        async with async_client(server, "admin", wire.address) as watcher:
            changes = watcher.watch(filter=ONLY_KEYS)
            await anext(changes)
            told: list[str] = []
            for n in range(4):
                await admin.create_key(VAULT, f"aio-{n}", MAC)
                told += await read_names(changes, 1)
                wire.cut()
                await admin.create_key(VAULT, f"aio-{n}-away", MAC)
                told += await read_names(changes, 1)
            await changes.aclose()
    assert told == [name for n in range(4) for name in (f"aio-{n}", f"aio-{n}-away")]


async def test_a_watch_of_threads_goes_on_too(server):
    def watch(watcher, begun: threading.Event, seen: threading.Event) -> list[str]:
        names: list[str] = []
        for response in watcher.watch(filter=ONLY_KEYS, timeout_s=30):
            begun.set()
            names += [event.name.rpartition("/")[2] for event in response.events]
            if names:
                seen.set()
            if len(names) == 2:
                return names
        raise AssertionError("it ended")

    async with async_client(server, "admin") as admin, wire_to(server.address) as wire:
        with sync_client(server, "admin", wire.address) as watcher:
            begun, seen = threading.Event(), threading.Event()
            watching = asyncio.create_task(asyncio.to_thread(watch, watcher, begun, seen))
            await asyncio.to_thread(begun.wait)
            await admin.create_key(VAULT, "sync-1", MAC)
            await asyncio.to_thread(seen.wait)
            wire.cut()
            await admin.create_key(VAULT, "sync-2", MAC)
            assert await watching == ["sync-1", "sync-2"]


async def test_what_does_not_pass_is_raised(server):
    async with async_client(server, "admin") as admin:
        with pytest.raises(OutOfRange) as raised:
            await anext(admin.watch(after_revision=1_000_000_000))
        assert raised.value.reason == "REVISION_IN_FUTURE"
        with pytest.raises(DeadlineExceeded):
            _ = [change async for change in admin.watch(timeout_s=0.2, filter={"kinds": ["RESOURCE_KIND_QUOTA"]})]
    async with async_client(server) as app:
        with pytest.raises(PermissionDenied):
            await anext(app.watch())
    async with async_client(server, "admin", "127.0.0.1:1") as nowhere:
        with pytest.raises(Unavailable):
            await anext(nowhere.watch())


# -- the follower -------------------------------------------------------------------------------------------------------


class Heard:
    """Keeps what it is told."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self.told: asyncio.Queue[str] = asyncio.Queue()

    def changed(self, resource: str) -> None:
        self._loop.call_soon_threadsafe(self.told.put_nowait, resource)

    def missed(self) -> None:
        self.changed("missed")

    async def next(self) -> str:
        return await asyncio.wait_for(self.told.get(), 60)


async def live(changes: Changes) -> None:
    await asyncio.wait_for(asyncio.wrap_future(changes.when_live()), 60)


@pytest.mark.parametrize("kind", ["aio", "sync"])
async def test_a_client_follows_over_broken_connections_until_it_is_closed(server, kind):
    heard = Heard()
    async with async_client(server, "admin") as admin, wire_to(server.address) as wire:
        make = async_client if kind == "aio" else sync_client
        client = make(server, "admin", wire.address)
        changes = client.follow_changes()
        changes.subscribe(heard)
        await live(changes)
        mark = changes.mark(f"{VAULT}/keys/followed-{kind}-1/versions/1")
        assert changes.still(mark)
        for n in (1, 2):
            key = await admin.create_key(VAULT, f"followed-{kind}-{n}", MAC)
            while await heard.next() != key.name:
                pass
            wire.cut()
        assert not changes.still(mark)
        secret = await admin.create_secret(VAULT, f"followed-{kind}", payload=b"m")
        while await heard.next() != secret.name:
            pass
        assert client.follow_changes() is changes
        if kind == "aio":
            await client.close()
        else:
            await asyncio.to_thread(client.close)
        while await heard.next() != "missed":
            pass
        assert not changes.live
        with pytest.raises(ClientClosed):
            client.follow_changes()
    assert not [thread for thread in threading.enumerate() if thread.name == "vaultd-watch"]
    assert not [task for task in asyncio.all_tasks() if task.get_name() == "vaultd-watch"]


async def test_a_follower_that_may_not_watch_is_never_live(server):
    async with async_client(server) as app:
        changes = app.follow_changes()
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(asyncio.wrap_future(changes.when_live()), 0.2)
        assert changes.mark(KEY).watch == 0


@pytest.mark.parametrize("kind", ["aio", "sync"])
@pytest.mark.parametrize(
    "error", [ConfigurationError("an empty file"), OSError("nobody answers"), RuntimeError("else")]
)
async def test_a_follower_outlives_a_provider_of_tokens_that_fails(server, kind, error):
    failures = [error] * 2

    def token() -> str | None:
        if failures:
            raise failures.pop()
        return None  # the certificate says who it is

    client = (async_client if kind == "aio" else sync_client)(server, "admin", token=token)
    await live(client.follow_changes())
    assert failures == []
    if kind == "aio":
        await client.close()
    else:
        await asyncio.to_thread(client.close)


async def test_who_is_cancelled_while_closing_a_client_is_cancelled_and_the_connections_are_closed(server):
    client = async_client(server, "admin")
    await live(client.follow_changes())
    closing = asyncio.create_task(client.close())
    await asyncio.sleep(0)
    closing.cancel()
    with pytest.raises(asyncio.CancelledError):
        await closing
    assert client._transport._connections == {}
    assert not [task for task in asyncio.all_tasks() if task.get_name() == "vaultd-watch"]


# -- what follows from it -----------------------------------------------------------------------------------------------


class Rig:
    """Changes with a clock of its own."""

    def __init__(self) -> None:
        self.now = 1_000.0
        self.changes = Changes(lambda: self.now)
        self.freshness = Freshness(max_age_s=300, max_unwatched_s=10)
        self.misses = 0
        self.changes.subscribe(self)

    def changed(self, resource: str) -> None:
        pass

    def missed(self) -> None:
        self.misses += 1

    def tell(self, *names: str) -> None:
        self.changes.received(watch_pb2.WatchResponse(events=[watch_pb2.WatchEvent(name=name) for name in names]))

    def pass_time(self, seconds: float, *, heard: bool) -> None:
        """Let time go by, with heartbeats or without."""
        end = self.now + seconds
        while heard and self.now + 3 < end:
            self.now += 3
            self.tell()
        self.now = end

    def fresh(self, mark) -> bool:
        return self.changes.fresh(mark, self.freshness)


@pytest.fixture
def rig() -> Rig:
    return Rig()


async def test_without_a_watch_a_read_is_good_for_a_moment(rig):
    mark = rig.changes.mark(KEY)
    rig.pass_time(9.9, heard=False)
    assert rig.fresh(mark)
    rig.changes.begun()  # a watch that begins later does not vouch for what was read before
    rig.pass_time(0.1, heard=True)
    assert not rig.fresh(mark)


async def test_while_a_watch_is_heard_a_read_is_good_until_it_is_old(rig):
    rig.changes.begun()
    mark, unwatched = rig.changes.mark(KEY), rig.changes.mark(KEY).unwatched()
    rig.pass_time(299, heard=True)
    assert rig.fresh(mark)
    assert not rig.fresh(unwatched)
    rig.pass_time(1, heard=True)
    assert not rig.fresh(mark)


async def test_a_watch_that_falls_silent_vouches_for_a_moment_and_begins_anew_when_it_is_heard_again(rig):
    rig.changes.begun()
    mark = rig.changes.mark(KEY)
    rig.pass_time(50, heard=True)
    rig.pass_time(7, heard=False)
    assert rig.fresh(mark)
    rig.pass_time(4, heard=False)
    assert not rig.fresh(mark)
    rig.tell()
    assert not rig.fresh(mark)
    assert rig.misses == 1


async def test_a_watch_that_is_back_soon_vouches_on(rig):
    rig.changes.begun()
    mark = rig.changes.mark(KEY)
    rig.pass_time(50, heard=True)
    rig.changes.lost()
    rig.pass_time(5, heard=False)
    rig.changes.begun()
    assert rig.fresh(mark)
    assert rig.misses == 0


async def test_after_a_gap_nothing_from_before_is_fresh(rig):
    rig.changes.begun()
    mark = rig.changes.mark(KEY)
    rig.pass_time(50, heard=True)
    rig.changes.missed()
    rig.changes.begun()
    assert not rig.fresh(mark)
    assert not rig.changes.still(mark)
    assert rig.misses == 1


async def test_what_is_read_while_a_change_is_told_is_not_kept(rig):
    rig.changes.begun()
    mark, other = rig.changes.mark(f"{KEY}/versions/1"), rig.changes.mark(f"{KEY}k")
    rig.now += 0.1
    rig.tell(f"{KEY}/versions/2")
    assert not rig.changes.still(mark)
    assert rig.changes.still(other)


async def test_what_is_read_right_after_a_change_is_kept_for_a_moment_only(rig):
    rig.changes.begun()
    rig.tell(KEY)
    rig.now += 0.5
    mark = rig.changes.mark(KEY)
    assert rig.changes.still(mark)
    rig.now += 0.9
    assert rig.fresh(mark)
    rig.now += 0.2
    assert not rig.fresh(mark)
    assert not rig.changes.mark(KEY).settling


async def test_a_read_that_took_too_long_is_not_kept_and_old_changes_are_forgotten(rig):
    rig.changes.begun()
    mark = rig.changes.mark(KEY)
    rig.tell(*(f"{VAULT}/keys/k{n}" for n in range(1_001)))
    rig.pass_time(61, heard=True)
    rig.tell(KEY)
    assert not rig.changes.still(mark)
    assert len(rig.changes._changed_at) == 1


async def test_names_of_versions_are_of_their_key_or_secret():
    assert resource_of(f"{KEY}/versions/3") == resource_of(KEY) == KEY
    assert resource_of(f"{VAULT}/secrets/s/versions/current") == f"{VAULT}/secrets/s"
    assert resource_of("policy") == "policy"


def error(code: str, *, answered: bool = True, retry_delay_s: float | None = None):
    return make_error(Refusal(code, "", answered=answered, retry_delay_s=retry_delay_s), "")


async def test_which_ends_of_a_stream_are_followed_by_another():
    course = WatchCourse("w1.5")
    course.received(watch_pb2.WatchResponse(resume_token="w1.6"))
    course.received(watch_pb2.WatchResponse())
    assert course.resume_token == "w1.6"
    for passing in (None, error("UNAVAILABLE"), error("ABORTED"), error("INTERNAL", answered=False)):
        assert 0 <= course.ended(passing) <= 10
    assert course.ended(error("RESOURCE_EXHAUSTED", retry_delay_s=7)) >= 7
    for final in ("OUT_OF_RANGE", "PERMISSION_DENIED", "UNAUTHENTICATED", "INTERNAL", "DEADLINE_EXCEEDED"):
        with pytest.raises(type(error(final))):
            course.ended(error(final))


async def test_who_never_was_answered_gives_up_after_some_attempts_and_a_follower_does_not():
    course, follower = WatchCourse(), WatchCourse(endless=True)
    for _ in range(4):
        course.ended(error("UNAVAILABLE"))
    with pytest.raises(Unavailable):
        course.ended(error("UNAVAILABLE"))
    for _ in range(50):
        assert 0 <= follower.ended(error("UNAVAILABLE")) <= 10
        assert 150 <= follower.ended(error("PERMISSION_DENIED")) <= 300
        assert not follower.has_gap
    follower.received(watch_pb2.WatchResponse(resume_token="w1.6"))
    follower.ended(error("OUT_OF_RANGE"))
    assert (follower.resume_token, follower.has_gap) == ("", True)
