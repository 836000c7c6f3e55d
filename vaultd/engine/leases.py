"""Windows that survive a restart: what they counted is a row of the store, and tokens are leased from it in blocks.

A block is durable before its first token is spent, so a crash never gives anything back.  What it had leased and not spent
counts as spent: at most a block and a half of each bucket (the next block is fetched when half of one is left).  Processes
on one store lease from the same row and cannot overspend together.  A bucket that was idle for a minute, and every bucket of
a server that stops, puts back what it did not spend.

These buckets go by the wall clock, which outlives the process.  One that goes back waits for no longer than an empty bucket
takes to fill; one that leaps forward gives one burst.
"""

from __future__ import annotations

import asyncio
import hashlib
import math
from typing import TYPE_CHECKING, Final

from vaultd.engine.buckets import TokenBucket
from vaultd.engine.sealing import pack
from vaultd.store.base import RowKey

if TYPE_CHECKING:
    from vaultd.engine.buckets import Window
    from vaultd.engine.clock import Clock
    from vaultd.engine.ledger import Changes, Ledger

KIND: Final = "quota_state"
BLOCKS: Final = 64
"""A block is this part of the burst."""
LEASE: Final = -1.0
"""What `take` answers when tokens must be leased first."""
IDLE_NS: Final = 60 * 1_000_000_000
RETRY_NS: Final = 100_000_000
"""A bucket that the store could not fill is not asked for again sooner, however often callers come."""


class LeasedBucket:
    """The tokens of one durable window that this process has leased."""

    __slots__ = (
        "_book",
        "_low",
        "block",
        "burst",
        "left",
        "retry_ns",
        "row",
        "stored",
        "stored_ns",
        "used_ns",
        "window",
    )

    def __init__(self, book: LeaseBook, row: RowKey, window: Window, now_ns: int) -> None:
        self._book = book
        self.row = row
        self.window = window
        self.burst = window.burst
        self.block = max(1, window.burst // BLOCKS)
        self._low = self.block // 2
        self.left = 0
        self.used_ns = now_ns
        self.retry_ns = 0
        self.stored: TokenBucket | None = None
        """The bucket of the store after our last lease: what others took since is not in it."""
        self.stored_ns = 0

    def take(self, cost: int, now_ns: int) -> float:
        """Like TokenBucket.take; or LEASE: nothing was taken, and tokens must be leased first."""
        left = self.left - cost
        if left >= 0:
            self.left = left
            self.used_ns = now_ns
            if left < self._low and now_ns >= self.retry_ns:
                self._book.prefetch(self)
            return 0.0
        return self._missing(cost, now_ns)

    def _missing(self, cost: int, now_ns: int) -> float:
        if cost > self.burst:
            return math.inf
        if self.stored is None:
            return LEASE if self._book.open else 0.0  # a sealed server has no counts, and refuses what needs a key
        wall_ns = self._book.wall_ns()
        if wall_ns < self.stored_ns:
            return LEASE  # the clock went back, which must be written down, or the wait would begin anew each time
        wait_s = self.stored.wait_s(cost - self.left, wall_ns)
        pause_ns = self.retry_ns - now_ns
        if 0 < pause_ns <= RETRY_NS:  # more than that: the clock went back
            return max(wait_s, pause_ns / 1e9)
        return wait_s or LEASE

    def needs_lease(self, cost: int, now_ns: int) -> bool:
        """Whether the store may have `cost` tokens that are not here."""
        return self._missing(cost, now_ns) == LEASE

    def wait_s(self, cost: int, now_ns: int) -> float:
        """Seconds until `cost` tokens are there, as far as is known; infinity when they never will be."""
        return 0.0 if self.left >= cost else max(self._missing(cost, now_ns), 0.0)

    def give_back(self, cost: int) -> None:
        """Undo a `take` of the same cost."""
        self.left += cost

    def is_full(self, now_ns: int) -> bool:
        """Whether dropping it loses nothing that matters."""
        return now_ns - self.used_ns > IDLE_NS

    def release(self) -> None:
        """Put back what is left, with the next turn of the book."""
        self._book.put_back(self)


class LeaseBook:
    """Leases of durable windows: many buckets in one transaction."""

    def __init__(self, ledger: Ledger, clock: Clock) -> None:
        self._ledger = ledger
        self._clock = clock
        self._held: dict[RowKey, LeasedBucket] = {}
        self._wanted: dict[LeasedBucket, tuple[int, asyncio.Future[None]]] = {}
        self._returns: dict[RowKey, tuple[Window, int]] = {}
        self._work: asyncio.Task[None] | None = None

    @property
    def open(self) -> bool:
        """Whether the key ring is open, so that there are counts."""
        return self._ledger.unsealed

    def _monotonic_ns(self) -> int:
        return int(self._clock.monotonic_s() * 1e9 + 0.5)

    def wall_ns(self) -> int:
        """Nanoseconds since the Unix epoch."""
        return self._clock.now_us() * 1000

    def bucket(self, uid: bytes, principal: str, window: Window) -> LeasedBucket:
        """A bucket of a quota, with nothing leased yet.  `principal` is empty where all share."""
        return LeasedBucket(self, state_row(uid, principal, window), window, self._monotonic_ns())

    def prefetch(self, bucket: LeasedBucket) -> None:
        """Lease the next block while there is still something left."""
        if bucket not in self._wanted:
            self.request(bucket, 0)

    def request(self, bucket: LeasedBucket, need: int) -> asyncio.Future[None]:
        """Lease a block, or as much as `need` takes.  Shared by all who wait: shield it.  Ends when the lease is durable."""
        wanted = self._wanted.get(bucket)
        if wanted is None:
            future = asyncio.get_running_loop().create_future()
            future.add_done_callback(_retrieve)
        else:
            future = wanted[1]
        self._wanted[bucket] = (max(need, wanted[0] if wanted else 0), future)
        if self._work is None:
            self._work = asyncio.get_running_loop().create_task(self._serve())
        return future

    async def _serve(self) -> None:
        try:
            while self._wanted:
                wanted, self._wanted = self._wanted, {}
                try:
                    await self._lease({bucket: need for bucket, (need, _) in wanted.items()})
                except Exception as error:  # whatever it is, those who wait must hear of it
                    retry_ns = self._monotonic_ns() + RETRY_NS
                    for bucket, (_, future) in wanted.items():
                        bucket.retry_ns = retry_ns
                        future.set_exception(error)
                else:
                    for _, future in wanted.values():
                        future.set_result(None)
        finally:
            self._work = None

    async def _lease(self, wanted: dict[LeasedBucket, int]) -> None:
        taken: list[tuple[LeasedBucket, int, TokenBucket]] = []
        rows: dict[RowKey, TokenBucket] = {}  # a bucket that was dropped and made anew may be here twice
        now_ns = self.wall_ns()
        async with self._ledger.change() as changes:
            for bucket, need in wanted.items():
                stored = rows.get(bucket.row) or await _stored(changes, bucket.row, bucket.window, now_ns)
                rows[bucket.row] = stored
                tokens = min(stored.left(now_ns), max(need - bucket.left, bucket.block))
                if tokens:
                    stored.take(tokens, now_ns)
                    await _put(changes, bucket.row, bucket.window, stored)
                taken.append((bucket, tokens, stored))
        monotonic_ns = self._monotonic_ns()
        for bucket, tokens, stored in taken:
            bucket.left += tokens
            bucket.stored, bucket.stored_ns = stored, now_ns
            bucket.used_ns = monotonic_ns
            bucket.retry_ns = monotonic_ns + RETRY_NS if tokens < bucket.block else 0
            self._held[bucket.row] = bucket

    def put_back(self, bucket: LeasedBucket) -> None:
        """Take what a bucket has left; the next `settle` writes it."""
        if bucket.left:
            before = self._returns.get(bucket.row, (bucket.window, 0))[1]
            self._returns[bucket.row] = (bucket.window, before + bucket.left)
            bucket.left = 0
        bucket.stored = None
        if self._held.get(bucket.row) is bucket:
            del self._held[bucket.row]

    async def settle(self) -> None:
        """Write back what idle and dropped buckets did not spend: once a tick of the scheduler, in one transaction."""
        now_ns = self._monotonic_ns()
        for bucket in [bucket for bucket in self._held.values() if bucket.is_full(now_ns)]:
            self.put_back(bucket)
        returns, self._returns = self._returns, {}
        if not returns:
            return
        try:
            async with self._ledger.change() as changes:
                for row, (window, tokens) in returns.items():
                    stored = await _stored(changes, row, window, self.wall_ns())
                    stored.give_back(tokens)
                    await _put(changes, row, window, stored)
        except BaseException:
            for row, (window, tokens) in returns.items():
                self._returns[row] = (window, self._returns.get(row, (window, 0))[1] + tokens)
            raise

    async def close(self) -> None:
        """Wait for leases under way, and put everything back.  A sealed server can put nothing back."""
        while self._work is not None:
            await asyncio.wait([self._work])
        for bucket in list(self._held.values()):
            self.put_back(bucket)
        if self.open:
            await self.settle()

    def forget(self) -> None:
        """At seal: what was leased counts as spent, for it cannot be written any more."""
        for bucket in self._held.values():
            bucket.left = 0
            bucket.stored = None
        self._held.clear()
        self._returns.clear()

    async def count(self, uid: bytes, principal: str, window: Window) -> TokenBucket:
        """A copy of a bucket as it is now: of the store, with what this process has leased and not spent."""
        row = state_row(uid, principal, window)
        if self._work is not None:  # a lease that is half done is neither here nor there
            await asyncio.wait([self._work], timeout=1)
        now_ns = self.wall_ns()
        found = await self._ledger.read(row)
        bucket = TokenBucket.of(window, now_ns)
        if found is not None:
            bucket.resume(int(found.values["full_at"]), found.values["count"], now_ns)
        held = self._held.get(row)
        if held is not None:
            bucket.give_back(held.left)
        return bucket

    async def drop_if_full(self, row: RowKey) -> None:
        """Delete the row of a bucket that is full again: no row means the same."""
        async with self._ledger.change() as changes:
            found = await changes.get(row)
            if found is not None and found.row.due_at is not None and found.row.due_at <= changes.now_us:
                await changes.delete(row)


def state_row(uid: bytes, principal: str, window: Window) -> RowKey:
    """Where the count of a window is.  Its count and burst are not in the name: what was spent stays spent under new ones."""
    digest = hashlib.sha256(pack("quota state", uid, principal, window.period_us)).hexdigest()[:40]
    return RowKey(KIND, "", digest, 0)


async def _stored(changes: Changes, row: RowKey, window: Window, now_ns: int) -> TokenBucket:
    bucket = TokenBucket.of(window, now_ns)
    found = await changes.get(row)
    if found is not None:
        bucket.resume(int(found.values["full_at"]), found.values["count"], now_ns)
        ahead = bucket.full_at
        bucket.wait_s(1, now_ns)
        if bucket.full_at != ahead:  # the clock went back: full no later than an empty bucket would be, from now on
            await _put(changes, row, window, bucket)
    return bucket


async def _put(changes: Changes, row: RowKey, window: Window, bucket: TokenBucket) -> None:
    # As text: 2^64 does not hold it, and JSON of the store has no larger numbers.
    values = {"full_at": str(bucket.full_at), "count": window.count}
    due_us = -(-bucket.full_at // (window.count * 1000))
    await changes.put(row, bytes.fromhex(row.id[:32]), "LEASED", due_us, values)


def _retrieve(future: asyncio.Future[None]) -> None:
    if not future.cancelled():
        future.exception()
