"""The ring of changes that all watchers share: what is decided, what is kept, and what a gap does."""

from __future__ import annotations

import asyncio
from contextlib import aclosing

from engines import open_engine

from harness import ADMIN
from vaultd.engine.caller import Caller
from vaultd.engine.watch import Batch, Scope
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
