"""The ring of changes that all watchers share: what is decided, what is kept, and what a gap does."""

from __future__ import annotations

import asyncio
from contextlib import aclosing

import pytest
from engines import open_engine

from harness import ADMIN
from vaultd.engine import watch
from vaultd.engine.caller import Caller
from vaultd.engine.watch import Batch, Scope
from vaultd.errors import OutOfRange
from vaultd.store.base import Change, RowKey

EVERYTHING = Scope("/", frozenset())


async def note(engine, tag: str, count: int = 1) -> None:
    async with engine.ledger.change() as changes:
        for number in range(count):
            changes.note(RowKey("key", "default", f"{tag}-{number}", 0), "update")


def follow(engine, after: int | None = None):
    return aclosing(engine.engine.watch.follow(Caller(ADMIN), "test", EVERYTHING, after, 60.0))


def batch_of(count: int) -> Batch:
    return Batch([Change(1, RowKey("key", "default", f"k-{number}", 0), "update", 1) for number in range(count)])


async def test_a_watch_from_now_on_decides_nothing_of_what_is_in_the_ring(tmp_path, monkeypatch):
    async with open_engine(tmp_path) as engine, follow(engine) as first:
        hub = engine.engine.watch
        await anext(first)
        for number in range(5):
            await note(engine, f"old-{number}")
            await hub.pump()
        decided = []
        decide = hub._decide
        monkeypatch.setattr(hub, "_decide", lambda batch, *rest: decided.append(batch.last) or decide(batch, *rest))
        async with follow(engine) as second:
            start = (await anext(second)).revision
            await note(engine, "new")
            await hub.pump()
            assert (await anext(second)).revision == start + 1
        assert decided == [start + 1]


async def test_others_have_a_turn_between_batches_that_are_decided(tmp_path, monkeypatch):
    async with open_engine(tmp_path) as engine, follow(engine) as first:
        hub = engine.engine.watch
        start = (await anext(first)).revision
        for number in range(5):
            await note(engine, f"k-{number}")
            await hub.pump()
        decided, turns = [], []
        decide = hub._decide

        async def noted(batch, *rest):
            decided.append(batch.last)
            asyncio.get_running_loop().call_soon(lambda: turns.append(len(decided)))
            return await decide(batch, *rest)

        monkeypatch.setattr(hub, "_decide", noted)
        async with follow(engine, start) as second:
            await anext(second)
            await anext(second)
        assert turns == [1, 2, 3, 4, 5]


async def test_a_gap_in_the_feed_is_told_to_a_watcher_that_had_everything_before_it(tmp_path):
    async with open_engine(tmp_path) as engine, follow(engine) as watching:
        hub = engine.engine.watch
        await anext(watching)
        await note(engine, "before")
        await hub.pump()
        start = (await anext(watching)).revision  # it has all there is in the ring
        for number in range(4):
            await note(engine, f"k-{number}")
        await engine.store.trim_changes(2)
        await hub.pump()
        with pytest.raises(OutOfRange) as gap:
            await anext(watching)
        assert gap.value.reason == "COMPACTED"
        assert gap.value.metadata["oldest_revision"] == str(start + 2)


def test_what_a_batch_keeps_is_bounded():
    batch = batch_of(200)
    for view in range(200):
        batch.keep(view, 1 << view)
    masks = [view for view in range(200) if batch.mask_of(view) is not None]
    assert len(masks) == watch.SHARED_MASKS
    made = []

    def encode(events) -> list[bytes]:
        made.append(names := [event.name for event in events])
        return [names[0].encode()]

    for _ in range(2):
        assert batch.encoded(1 << masks[0], encode) == [batch_of(1).events[0].name.encode()]
    assert len(made) == 1
    for _ in range(2):
        batch.encoded(0b11, encode)  # nobody's whole view: of a watcher that had the first events before
    assert len(made) == 3
