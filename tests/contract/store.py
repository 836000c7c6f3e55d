"""What every store must do.  A store's own test is a subclass that makes one and reopens it."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from vaultd.errors import Unavailable
from vaultd.store.base import Change, Digest, Replay, RingRow, Row, RowKey, Usage

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from vaultd.store.base import Store, Transaction

NOW = 1_764_000_000_000_000


def key(id: str, version: int = 0, kind: str = "key", scope: str = "pay") -> RowKey:
    return RowKey(kind, scope, id, version)


def row(
    at: RowKey,
    revision: int,
    *,
    state: str = "ACTIVE",
    due_at: int | None = None,
    term: int = 1,
    secret: bytes | None = None,
) -> Row:
    return Row(
        at, at.id.encode().ljust(16, b"\0")[:16], state, due_at, revision, term, b"sealed " + at.id.encode(), secret
    )


async def put(store: Store, *rows: Row) -> list[Row]:
    """Write rows in one transaction, as of its revision, and return them as written."""
    async with store.begin() as transaction:
        written = [replace(item, revision=transaction.revision) for item in rows]
        await transaction.write(written, [], [Change(transaction.revision, item.key, "create", NOW) for item in rows])
    return written


async def put_id(store: Store, id: str) -> Row:
    (written,) = await put(store, row(key(id), 0))
    return written


async def read_all(store: Store, batch: int = 1000) -> list[Row]:
    async with store.snapshot(batch) as snapshot:
        return [item async for rows in snapshot.rows for item in rows]


class StoreContract:
    """Subclass it as `Test...` and give it the two methods."""

    async def make_store(self, tmp_path: Path) -> Store:
        """An open store, empty."""
        raise NotImplementedError

    async def reopen(self, tmp_path: Path) -> Store:
        """Another open store on the data of `make_store`."""
        raise NotImplementedError

    @pytest.fixture
    async def store(self, tmp_path: Path) -> AsyncIterator[Store]:
        store = await self.make_store(tmp_path)
        yield store
        await store.close()

    @pytest.fixture
    async def other(self, store: Store, tmp_path: Path) -> AsyncIterator[Store]:
        other = await self.reopen(tmp_path)
        yield other
        await other.close()

    # Rows

    async def test_empty_store_has_nothing(self, store: Store):
        assert await store.revision() == 0
        assert await store.get(key("a")) is None
        assert await store.versions("key", "pay", "a") == []
        assert await store.list("key", "pay", "", 10) == []
        assert await store.due(2**62, 10) == []
        assert await store.ring() is None
        assert await store.replay(bytes(32)) is None
        assert await store.changes(0, 10) == []
        assert await store.usage(bytes(16)) == []
        assert await store.older_terms(2**31, 10) == []
        assert await store.count_older_terms(2**31) == 0
        assert await read_all(store) == []

    async def test_row_comes_back_as_it_was_written(self, store: Store):
        full = Row(key("a", 7, "key_version"), bytes(range(16)), "ENABLED", NOW, 0, 3, b"\0sealed\xff", b"\0secret\xff")
        bare = Row(key("b", 0, "policy", ""), bytes(16), "", None, 0, 0, b"", None)
        empty = Row(key("c"), bytes(16), "\u00e9\u20ac", -1, 0, 2**40, b"x" * 70_000, b"")
        written = await put(store, full, bare, empty)
        assert [await store.get(item.key) for item in written] == written
        async with store.begin() as transaction:
            assert [await transaction.get(item.key) for item in written] == written
            assert await transaction.get(key("missing")) is None

    async def test_write_replaces_and_deletes(self, store: Store):
        await put(store, row(key("a"), 0, secret=b"old"), row(key("b"), 0), row(key("c"), 0, secret=b"gone"))
        async with store.begin() as transaction:
            new = row(key("a"), transaction.revision, state="DELETED", secret=b"longer than before")
            await transaction.write([new], [key("c"), key("missing")], [])
            assert await transaction.get(key("a")) == new
            assert await transaction.get(key("c")) is None
        assert await store.get(key("a")) == new
        assert await store.get(key("c")) is None
        assert len(await read_all(store)) == 2

    @pytest.mark.parametrize(
        "secrets", [(b"aaa", b"bbb"), (b"aaa", None, b"cc"), (None, b"a" * 9000, b"b" * 9000, b"")]
    )
    async def test_secret_of_a_row_is_the_newest_and_its_own(self, store: Store, secrets: tuple[bytes | None, ...]):
        (neighbour,) = await put(store, row(key("neighbour"), 0, secret=b"mine"))
        for secret in secrets:
            (written,) = await put(store, row(key("a"), 0, secret=secret))
            assert await store.get(key("a")) == written
        async with store.begin() as transaction:
            await transaction.write([], [key("a")], [])
        await put(store, row(key("b"), 0, secret=b"aaa"), row(key("c"), 0, secret=b"bbb"))
        assert await store.get(key("neighbour")) == neighbour
        assert [item.secret for item in await read_all(store)] == [b"aaa", b"bbb", b"mine"]

    async def test_versions_ascend_and_belong_to_one_id(self, store: Store):
        written = await put(
            store,
            *(row(key("a", version, "key_version"), 0) for version in (10, 2, 1)),
            row(key("ab", 1, "key_version"), 0),
        )
        expected = sorted(written[:3], key=lambda item: item.key)
        assert await store.versions("key_version", "pay", "a") == expected
        async with store.begin() as transaction:
            assert await transaction.versions("key_version", "pay", "a") == expected

    async def test_list_pages_by_id_within_kind_and_scope(self, store: Store):
        await put(
            store,
            *(row(key(id), 0) for id in ("c", "a", "b", "d")),
            row(key("a", 1), 0),
            row(key("x", scope="other"), 0),
            row(key("y", kind="policy"), 0),
        )
        assert [item.key for item in await store.list("key", "pay", "", 3)] == [key("a"), key("b"), key("c")]
        assert [item.key for item in await store.list("key", "pay", "c", 3)] == [key("d")]
        assert await store.list("key", "pay", "d", 3) == []

    async def test_list_filters_states_before_the_limit(self, store: Store):
        states = {"a": "ACTIVE", "b": "DELETED", "c": "PENDING", "d": "DELETED", "e": 'odd "state"'}
        await put(store, *(row(key(id), 0, state=state) for id, state in states.items()))
        assert [item.key.id for item in await store.list("key", "pay", "", 2, ["DELETED", "PENDING"])] == ["b", "c"]
        assert [item.key.id for item in await store.list("key", "pay", "b", 2, ["DELETED"])] == ["d"]
        assert [item.key.id for item in await store.list("key", "pay", "", 2, ['odd "state"'])] == ["e"]
        assert await store.list("key", "pay", "", 2, ["NONE"]) == []

    async def test_any_row_asks_kind_scope_and_state(self, store: Store):
        await put(store, row(key("a"), 0, state="DELETED"))
        async with store.begin() as transaction:
            assert await transaction.any_row("key", "pay", "DELETED")
            assert not await transaction.any_row("key", "pay", "ACTIVE")
            assert not await transaction.any_row("key", "other", "DELETED")
            assert not await transaction.any_row("policy", "pay", "DELETED")

    async def test_due_is_oldest_first_and_inclusive(self, store: Store):
        dues = {"a": NOW + 1, "b": NOW - 5, "c": NOW, "d": None, "e": NOW - 5}
        await put(store, *(row(key(id), 0, due_at=due) for id, due in dues.items()))
        assert [item.key.id for item in await store.due(NOW, 10)] == ["b", "e", "c"]
        assert [item.key.id for item in await store.due(NOW, 2)] == ["b", "e"]
        assert await store.due(NOW - 6, 10) == []
        assert [item.key.id for item in await store.due(NOW, 10, (NOW - 5, key("b")))] == ["e", "c"]
        assert [item.key.id for item in await store.due(NOW, 1, (NOW - 5, key("e")))] == ["c"]
        assert await store.due(NOW, 10, (NOW, key("c"))) == []
        await put(store, row(key("b"), 0, due_at=None))
        assert [item.key.id for item in await store.due(NOW, 10)] == ["e", "c"]

    async def test_older_terms_are_named_and_counted(self, store: Store):
        await put(store, *(row(key(f"k{term}"), 0, term=term) for term in (1, 2, 2, 3)), row(key("z"), 0, term=2))
        async with store.begin() as transaction:
            await transaction.put_digests([Digest("pay", 1, 2, b"d"), Digest("*", 1, 3, b"d")])
            await transaction.put_replay(Replay(bytes(32), b"h", NOW, 1, 1, b"s"))
        assert set(await store.older_terms(3, 10)) == {key("k1"), key("k2"), key("z")}
        assert len(await store.older_terms(3, 2)) == 2
        assert await store.older_terms(1, 10) == []
        assert await store.count_older_terms(3) == 5
        assert await store.count_older_terms(1) == 0

    # Transactions

    async def test_exception_rolls_everything_back(self, store: Store):
        await put_id(store, "before")

        async def fail() -> None:
            async with store.begin() as transaction:
                await transaction.write([row(key("a"), transaction.revision)], [key("before")], [])
                await transaction.put_ring(RingRow("root", 1, b"w"))
                await transaction.put_replay(Replay(bytes(32), b"h", NOW, 1, 1, b"s"))
                await transaction.put_digests([Digest("pay", 2, 1, b"d")])
                raise LookupError

        with pytest.raises(LookupError):
            await fail()
        assert [item.key for item in await read_all(store)] == [key("before")]
        assert await store.ring() is None
        assert await store.replay(bytes(32)) is None
        assert await store.revision() == 1
        assert (await put_id(store, "after")).revision == 2

    async def test_transaction_is_seen_by_itself_and_by_others_only_after_commit(self, store: Store, other: Store):
        async with store.begin() as transaction:
            await transaction.write([row(key("a"), transaction.revision)], [], [])
            assert await transaction.get(key("a")) is not None
            assert await store.get(key("a")) is None
            assert await other.get(key("a")) is None
        assert await store.get(key("a")) is not None
        assert await other.get(key("a")) is not None

    async def test_revision_rises_with_writes_only(self, store: Store):
        async with store.begin() as transaction:
            assert transaction.revision == 1
        async with store.begin() as transaction:
            assert transaction.revision == 1
            await transaction.write([], [], [])
            await transaction.put_replay(Replay(bytes(32), b"h", NOW, 1, 1, b"s"))
        assert await store.revision() == 0
        assert (await put_id(store, "a")).revision == 1
        async with store.begin() as transaction:
            await transaction.write([], [key("a")], [])
        assert await store.revision() == 2

    async def test_row_of_another_revision_is_refused(self, store: Store):
        async def write(*rows: Row, changes: tuple[Change, ...] = ()) -> None:
            async with store.begin() as transaction:
                await transaction.write(rows, [], changes)

        with pytest.raises(ValueError, match="revision"):
            await write(row(key("a"), 9))
        with pytest.raises(ValueError, match="revision"):
            await write(changes=(Change(9, key("a"), "create", NOW),))
        assert await read_all(store) == []

    async def test_finished_transaction_can_do_nothing_more(self, store: Store):
        async with store.begin() as transaction:
            kept = transaction
        with pytest.raises(Unavailable):
            await kept.write([row(key("a"), 1)], [], [])
        with pytest.raises(Unavailable):
            await kept.get(key("a"))
        assert await read_all(store) == []

    async def test_failure_that_the_caller_swallows_is_not_committed(self, store: Store):
        async def swallow() -> None:
            async with store.begin() as transaction:
                await transaction.write([row(key("a"), transaction.revision)], [], [])
                with pytest.raises(ValueError, match="revision"):
                    await transaction.write([row(key("b"), 9)], [], [])

        with pytest.raises(Unavailable):
            await swallow()
        assert await read_all(store) == []

    async def test_cancellation_in_the_body_rolls_back(self, store: Store):
        written, never = asyncio.Event(), asyncio.Event()

        async def write() -> None:
            async with store.begin() as transaction:
                await transaction.write([row(key("a"), transaction.revision)], [], [])
                written.set()
                await never.wait()

        task = asyncio.create_task(write())
        await written.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert await store.get(key("a")) is None
        assert (await put_id(store, "b")).revision == 1

    async def test_cancellation_at_any_moment_leaves_all_or_nothing(self, store: Store):
        async def write(id: str) -> None:
            async with store.begin() as transaction:
                await transaction.get(key(id))
                await transaction.write([row(key(id), transaction.revision)], [], [])
                await transaction.write([row(key(id, 1), transaction.revision)], [], [])

        async def turns_of_the_loop(count: int) -> None:
            for _ in range(count):
                await asyncio.sleep(0)

        for turn in range(80):
            task = asyncio.create_task(write(f"k{turn}"))
            await turns_of_the_loop(turn)
            task.cancel()
            await asyncio.wait([task])
            assert len(await store.versions("key", "pay", f"k{turn}")) in ((2,) if not task.cancelled() else (0, 2))
        await put_id(store, "last")
        assert await store.revision() == 1 + sum(item.key.version for item in await read_all(store))

    async def test_waiting_writer_that_is_cancelled_does_not_block_the_next(self, store: Store):
        async with store.begin() as transaction:
            waiting = asyncio.create_task(put_id(store, "waiting"))
            await asyncio.sleep(0)
            waiting.cancel()
            await transaction.write([row(key("a"), transaction.revision)], [], [])
        with pytest.raises(asyncio.CancelledError):
            await waiting
        await put_id(store, "next")
        assert [item.key.id for item in await read_all(store)] == ["a", "next"]

    async def test_concurrent_writers_lose_no_update(self, store: Store, other: Store):
        async def increment(through: Store) -> None:
            async with through.begin() as transaction:
                old = await transaction.get(key("counter"))
                count = int(old.sealed) if old else 0
                new = replace(row(key("counter"), transaction.revision), sealed=b"%d" % (count + 1))
                await transaction.write([new], [], [])

        await asyncio.gather(*(increment(through) for through in (store, other) * 25))
        counter = await store.get(key("counter"))
        assert counter is not None
        assert (counter.sealed, counter.revision, await other.revision()) == (b"50", 50, 50)

    async def test_everything_is_there_after_reopening(self, store: Store, tmp_path: Path):
        written = await put(store, row(key("a"), 0, secret=b"s"), row(key("b"), 0, due_at=NOW))
        digest, ring = Digest("pay", 1, 1, b"d"), RingRow("root", 2, b"w")
        replay, usage = Replay(bytes(32), b"h", NOW, 1, 1, b"s"), Usage(bytes(16), 1, 2, 3, NOW)
        async with store.begin() as transaction:
            await transaction.put_digests([digest])
            await transaction.put_ring(ring)
            await transaction.put_replay(replay)
        await store.add_usage([usage])
        feed = await store.changes(0, 10)
        await store.close()

        reopened = await self.reopen(tmp_path)
        assert await read_all(reopened) == written
        assert await reopened.ring() == ring
        assert await reopened.replay(bytes(32)) == replay
        assert await reopened.usage(bytes(16)) == [usage]
        assert await reopened.changes(0, 10) == feed
        assert await reopened.revision() == 1
        async with reopened.begin() as transaction:
            assert await transaction.digests(["pay"]) == {"pay": digest}
            assert transaction.revision == 2
        await reopened.close()

    # The feed

    async def test_feed_keeps_the_order_of_writes(self, store: Store):
        async with store.begin() as transaction:
            first = [Change(1, key(id), "create", NOW) for id in ("z", "a")]
            second = [Change(1, key("z"), "update", NOW + 1)]
            await transaction.write([], [], first)
            await transaction.write([], [], second)
        await put_id(store, "b")
        assert await store.changes(0, 10) == [*first, *second, Change(2, key("b"), "create", NOW)]
        assert await store.changes(1, 10) == [Change(2, key("b"), "create", NOW)]
        assert await store.changes(2, 10) == []

    async def test_trimming_the_feed_keeps_the_newest_revisions(self, store: Store):
        for id in ("a", "b", "c"):
            await put_id(store, id)
        assert await store.trim_changes(3) == 0
        assert await store.trim_changes(1) == 2
        assert [change.revision for change in await store.changes(0, 10)] == [3]
        assert await store.revision() == 3

    async def test_feed_never_splits_a_revision(self, store: Store):
        for size in (1, 3, 1, 5):
            await put(store, *(row(key(f"k{n}"), 0) for n in range(size)))

        async def pages(limit: int) -> list[list[int]]:
            after, found = 0, []
            while page := await store.changes(after, limit):
                after = page[-1].revision
                found.append([change.revision for change in page])
            return found

        assert await pages(1) == [[1], [2, 2, 2], [3], [4] * 5]
        assert await pages(3) == [[1], [2, 2, 2], [3], [4] * 5]
        assert await pages(4) == [[1, 2, 2, 2], [3], [4] * 5]
        assert await pages(10) == [[1, 2, 2, 2, 3, 4, 4, 4, 4, 4]]

    async def test_changed_tells_of_own_writes_and_of_others(self, store: Store, other: Store):
        await asyncio.gather(store.changed(), other.changed())
        assert not await store.changed()
        await put_id(store, "mine")
        assert await store.changed()
        assert await other.changed()
        assert not await store.changed()
        assert not await other.changed()
        await put_id(other, "theirs")
        assert await store.changed()
        assert [change.key.id for change in await store.changes(1, 10)] == ["theirs"]

    async def test_write_before_a_read_does_not_hide_from_changed(self, store: Store, other: Store):
        await store.changed()
        await put_id(other, "a")
        assert await store.get(key("a")) is not None
        assert await store.changed()

    # Digests, ring, replays, usage

    async def test_digests_are_replaced_and_missing_ones_left_out(self, store: Store):
        async with store.begin() as transaction:
            await transaction.put_digests([Digest("pay", 1, 1, b"old"), Digest("*", 1, 1, b"all")])
            await transaction.put_digests([Digest("pay", 1, 2, b"new")])
            assert await transaction.digests(["pay", "none"]) == {"pay": Digest("pay", 1, 2, b"new")}
        async with store.begin() as transaction:
            assert (await transaction.digests(["*", "pay"])).keys() == {"*", "pay"}
            assert await transaction.digests([]) == {}

    async def test_ring_is_one_and_replaced(self, store: Store):
        for generation in (1, 2):
            ring = RingRow("root", generation, b"wrapped %d" % generation)
            async with store.begin() as transaction:
                await transaction.put_ring(ring)
                assert await transaction.ring() == ring
            assert await store.ring() == ring

    async def test_replays_are_kept_until_they_expire(self, store: Store):
        replays = [Replay(bytes([n]) * 32, b"hash", NOW + n, 1, 1, b"answer") for n in range(4)]
        async with store.begin() as transaction:
            for replay in replays:
                await transaction.put_replay(replay)
            await transaction.put_replay(replace(replays[3], sealed=b"newer"))
            assert await transaction.replay(replays[0].id) == replays[0]
            assert await transaction.replay(b"\xff" * 32) is None
        assert await store.replay(replays[3].id) == replace(replays[3], sealed=b"newer")
        assert await store.drop_replays(NOW) == 0
        assert await store.drop_replays(NOW + 2) == 2
        assert await store.replay(replays[1].id) is None
        assert await store.replay(replays[2].id) == replays[2]

    async def test_usage_adds_up(self, store: Store, other: Store):
        uid = bytes(range(16))
        await store.add_usage([Usage(uid, 2, 1, 100, NOW + 5), Usage(uid, 1, 1, 1, NOW), Usage(uid, 2, 1, 10, NOW)])
        await asyncio.gather(*(through.add_usage([Usage(uid, 1, 1, 2, NOW + 1)]) for through in (store, other) * 10))
        await store.add_usage([])
        assert await store.usage(uid) == [Usage(uid, 1, 21, 41, NOW + 1), Usage(uid, 2, 2, 110, NOW + 5)]
        assert await store.usage(bytes(16)) == []
        assert await store.revision() == 0

    # Snapshots, life cycle

    async def test_snapshot_is_of_one_moment_while_writes_go_on(self, store: Store, other: Store):
        before = await put(store, *(row(key(f"k{n}"), 0) for n in range(5)))
        async with store.begin() as transaction:
            await transaction.put_digests([Digest("pay", 1, 1, b"then")])
        seen = []
        async with store.snapshot(batch=2) as snapshot:
            async for rows in snapshot.rows:
                assert 1 <= len(rows) <= 2
                seen += rows
                for through in (store, other):
                    async with through.begin() as transaction:
                        new = row(key(f"k{len(seen) + 1}"), transaction.revision, state="LATER")
                        await transaction.write([new], [key("k4")], [])
                        await transaction.put_digests([Digest("pay", 2, 1, b"now"), Digest("new", 2, 1, b"now")])
        assert seen == before
        assert snapshot.revision == 1
        assert snapshot.digests == {"pay": Digest("pay", 1, 1, b"then")}
        assert await store.get(key("k4")) is None

    async def test_snapshot_may_be_left_early(self, store: Store):
        await put(store, *(row(key(f"k{n}"), 0) for n in range(5)))

        async def leave() -> None:
            async with store.snapshot(batch=2) as snapshot:
                async for _ in snapshot.rows:
                    raise LookupError

        with pytest.raises(LookupError):
            await leave()
        await store.scrub()

    async def test_snapshot_is_in_the_order_of_keys(self, store: Store):
        keys = [key("a", 2), key("b"), key("a"), key("a", kind="budget"), key("a", scope=""), key("a", 10)]
        await put(store, *(row(at, 0) for at in keys))
        for batch in (1, 2, 6, 7):
            assert [item.key for item in await read_all(store, batch)] == sorted(keys)

    async def test_close_waits_for_the_transaction_and_then_nothing_works(self, store: Store, tmp_path: Path):
        async def write(transaction: Transaction) -> None:
            await transaction.write([row(key("a"), transaction.revision)], [], [])

        async with store.begin() as transaction:
            closing = asyncio.create_task(store.close())
            await asyncio.sleep(0)
            await write(transaction)
        await closing
        await store.close()
        with pytest.raises(Unavailable):
            await store.get(key("a"))
        with pytest.raises(Unavailable):
            await put_id(store, "b")
        with pytest.raises(Unavailable):
            await read_all(store)
        reopened = await self.reopen(tmp_path)
        assert [item.key.id for item in await read_all(reopened)] == ["a"]
        await reopened.close()

    async def test_closed_store_opens_again(self, store: Store):
        await put_id(store, "a")
        await store.close()
        await store.open()
        assert await store.get(key("a")) is not None
