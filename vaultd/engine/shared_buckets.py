"""Short windows that several processes of one server count together, in memory that they share.

A bucket's state is one number, as in TokenBucket.  It stands in a table that every worker has mapped; a process takes tokens from
it in blocks, a small part of the burst, and spends them without asking anybody.  So a caller of one connection, which is one
worker's, has its whole quota, and one of many connections has it once.

How far off this is, for N processes: in any span of time they give out at most N blocks more than the window says, since each may
hold one that was taken before; a block that lay still for STALE_NS is put back before anything is spent.  What a process held
when it died counts as spent, once.

The table is a cache with a bound.  A set of slots is found by hash, and locked while one of them is changed, with a lock of the
operating system that goes with the process that holds it.  Where a set is full the count goes that is full again, which loses
nothing, or else the one that will be full first.
"""

from __future__ import annotations

import fcntl
import hashlib
import math
import struct
import time
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Final

from vaultd.engine.buckets import TokenBucket
from vaultd.engine.sealing import pack

if TYPE_CHECKING:
    import mmap
    from collections.abc import Iterator

    from vaultd.engine.buckets import Window

BLOCKS: Final = 64
"""A block is this part of the burst, and one token at least."""
MAX_BLOCK: Final = 4_096
STALE_NS: Final = 100_000_000
PATIENCE_S: Final = 0.02
"""How long a process waits for a set that another one holds; the call is then refused, to come back after as long."""
_LOOK_S: Final = 0.000_05
_SETS: Final = 8_192
_SLOTS: Final = 16
_NAME: Final = 16
_STATE: Final = 16
_SLOT: Final = struct.Struct(f"<{_NAME}s{_STATE}sqq")
"""Name of the count; when it is full, in nanoseconds times its rate; the same in nanoseconds; when it was last looked at."""
_SET_BYTES: Final = _SLOT.size * _SLOTS
TABLE_BYTES: Final = _SET_BYTES * _SETS
_FREE: Final = bytes(_NAME)
_LATEST_NS: Final = 2**63 - 1


class SharedCounts:
    """The table: `memory` is mapped from the file `fd`, TABLE_BYTES, zeroes at first, which every process has open.

    The clock of the buckets must be the same in all of them: CLOCK_MONOTONIC is, on one machine.
    """

    def __init__(self, memory: mmap.mmap, fd: int) -> None:
        if len(memory) < TABLE_BYTES:
            raise ValueError("the shared memory is too small")
        self._memory = memory
        self._fd = fd

    def bucket(self, uid: bytes, owner: str, window: Window) -> SharedBucket:
        """The count of a window of a quota; `owner` is the principal, or empty where all share it."""
        parts = pack("shared count", uid, owner, window.count, window.period_us, window.burst)
        return SharedBucket(self, hashlib.sha256(parts).digest()[:_NAME], window)

    @contextmanager
    def locked(self, name: bytes) -> Iterator[int]:
        """Hold the set of a name; gives where it begins.  Raises TimeoutError: whoever holds it stands still."""
        at = int.from_bytes(name[:4], "little") % _SETS
        until_s = 0.0
        while True:
            try:
                fcntl.lockf(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, at)
                break
            except BlockingIOError:  # for microseconds; but a process may be stopped at any moment
                now_s = time.monotonic()
                until_s = until_s or now_s + PATIENCE_S
                if now_s > until_s:
                    raise TimeoutError from None
                time.sleep(_LOOK_S)
        try:
            yield at * _SET_BYTES
        finally:
            fcntl.lockf(self._fd, fcntl.LOCK_UN, 1, at)

    def find(self, begin: int, name: bytes) -> tuple[int, int, int]:
        """Where a name stands in its set, or should, its state, and when it was last looked at; zeroes when it is not there."""
        best, best_full = begin, None
        for at in range(begin, begin + _SET_BYTES, _SLOT.size):
            found, state, full_ns, seen_ns = _SLOT.unpack_from(self._memory, at)
            if found == name:
                return at, int.from_bytes(state, "little", signed=True), seen_ns
            rank = -1 if found == _FREE else full_ns
            if best_full is None or rank < best_full:
                best, best_full = at, rank
        return best, 0, 0

    def put(self, at: int, name: bytes, full_at: int, full_ns: int, seen_ns: int) -> None:
        """Write a count where `find` said."""
        _SLOT.pack_into(self._memory, at, name, full_at.to_bytes(_STATE, "little", signed=True), full_ns, seen_ns)


class SharedBucket:
    """One process's hold on a count that is shared: `take`, `give_back` and the rest as TokenBucket has them."""

    __slots__ = ("_counts", "_name", "_stored", "_taken_ns", "_window", "block", "burst", "left_here")

    def __init__(self, counts: SharedCounts, name: bytes, window: Window) -> None:
        self._counts = counts
        self._name = name
        self._window = window
        self._stored = TokenBucket.of(window, 0)
        self.burst = window.burst
        self.block = max(1, min(window.burst // BLOCKS, MAX_BLOCK))
        self.left_here = 0
        """Tokens that this process has taken and not spent."""
        self._taken_ns = 0

    def take(self, cost: int, now_ns: int) -> float:
        """Take `cost` tokens and return 0.0, or take nothing and return the seconds until they are there."""
        left = self.left_here - cost
        if left >= 0 and now_ns - self._taken_ns < STALE_NS:
            self.left_here = left
            return 0.0
        return self._fetch(cost, now_ns)

    def _fetch(self, cost: int, now_ns: int) -> float:
        if cost > self.burst:
            return math.inf
        try:
            return self._fetch_locked(cost, now_ns)
        except TimeoutError:
            return PATIENCE_S

    def _fetch_locked(self, cost: int, now_ns: int) -> float:
        with self._counts.locked(self._name) as begin:
            at, stored, now_ns = self._load(begin, now_ns)
            if self.left_here:
                stored.give_back(self.left_here)
                self.left_here = 0
            wait_s = stored.take(cost, now_ns)
            if not wait_s:
                more = min(stored.left(now_ns), self.block - 1)
                stored.take(more, now_ns)
                self.left_here, self._taken_ns = more, now_ns
            self._save(at, now_ns)
        return wait_s

    def _load(self, begin: int, now_ns: int) -> tuple[int, TokenBucket, int]:
        """Where the count stands, and the time: not before others looked at it, while this process waited for its turn.

        A bucket that finds its clock gone back is generous, as it should be when that is true.
        """
        at, state, seen_ns = self._counts.find(begin, self._name)
        now_ns = max(now_ns, seen_ns)
        self._stored.resume(state, self._window.count, now_ns)
        return at, self._stored, now_ns

    def _save(self, at: int, now_ns: int) -> None:
        full_at = self._stored.full_at
        full_ns = min(-(-full_at // self._window.count), _LATEST_NS)  # it says no more than who is full first
        self._counts.put(at, self._name, full_at, full_ns, now_ns)

    def give_back(self, cost: int) -> None:
        """Undo a `take` of the same cost at the same time."""
        self.left_here += cost

    def release(self) -> None:
        """Put back what is left: this process forgets the bucket.  What cannot be put back now counts as spent."""
        if self.left_here:
            with suppress(TimeoutError), self._counts.locked(self._name) as begin:
                at, stored, now_ns = self._load(begin, self._taken_ns)
                stored.give_back(self.left_here)
                self._save(at, now_ns)
            self.left_here = 0

    def _now(self, now_ns: int) -> tuple[TokenBucket, int]:
        """The count as it is, or where it cannot be had, as this process saw it last."""
        stored = self._stored
        with suppress(TimeoutError), self._counts.locked(self._name) as begin:
            _, stored, now_ns = self._load(begin, now_ns)
        stored.give_back(self.left_here)
        return stored, now_ns

    def wait_s(self, cost: int, now_ns: int) -> float:
        """Return what `take` would, and take nothing."""
        try:
            with self._counts.locked(self._name) as begin:
                _, stored, now_ns = self._load(begin, now_ns)
        except TimeoutError:
            return PATIENCE_S
        stored.give_back(self.left_here)
        return stored.wait_s(cost, now_ns)

    def left(self, now_ns: int) -> int:
        """Whole tokens that can be taken now, here."""
        stored, now_ns = self._now(now_ns)
        return stored.left(now_ns)

    def full_at_ns(self, now_ns: int) -> int:
        """When it is full if nobody takes more; now, when it is."""
        stored, now_ns = self._now(now_ns)
        return stored.full_at_ns(now_ns)

    def is_full(self, now_ns: int) -> bool:
        """Whether a new bucket would be the same as this one."""
        stored, now_ns = self._now(now_ns)
        return stored.is_full(now_ns)
