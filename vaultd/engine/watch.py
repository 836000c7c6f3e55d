"""Sends changes to whoever watches: in order, without gap or duplicate, and only what the watcher may see.

Everything is read from the feed of the store, whoever wrote it: what this process commits and what it finds that others
committed only wakes the hub.  Batches of changes are kept in one ring for all watchers, and a watcher is a place in it: so a
thousand of them cost the memory of one, and what many may see is encoded once.  A watcher that begins in the past reads the
store until it has come up to the ring.
"""

from __future__ import annotations

import asyncio
from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, NamedTuple

from vaultd.engine.policy import Decision
from vaultd.engine.watched import Event, event_of
from vaultd.errors import Aborted, OutOfRange, VaultdError

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable, Iterable, Sequence

    from vaultd.engine.authority import Authority
    from vaultd.engine.caller import Caller
    from vaultd.engine.clock import Clock
    from vaultd.engine.decider import Decider
    from vaultd.engine.ledger import Ledger
    from vaultd.engine.policy import PolicyEngine
    from vaultd.store.base import Change

PAGE: Final = 1_000
"""Changes that one read of the feed takes."""
RING_EVENTS: Final = 16_384
"""How far a watcher may fall behind, in changes that somebody may see."""
EVENTS_PER_DELIVERY: Final = 4_000
LONGEST_REST_S: Final = 0.05
WATCHERS_PER_TURN: Final = 32
"""Watchers that are woken between two turns of the event loop."""
SHARED_BATCHES: Final = 64
"""Of so many newest batches it is kept who sees what, and how that is encoded; the rest of the ring is for stragglers."""

SHARED_MASKS: Final = 128
"""For so many views a batch keeps what they see of it, and how that is encoded; the others have it decided for each by itself."""
SHARED_BYTES: Final = 1024 * 1024
"""So much of what is encoded a batch keeps."""


@dataclass(frozen=True, slots=True)
class Scope:
    """What a watcher wants: `prefix` is a resource or `/`, `kinds` is empty for all of them."""

    prefix: str
    kinds: frozenset[str]

    def wants(self, event: Event) -> bool:
        """Whether an event is in the scope; by whole segments."""
        prefix, name = self.prefix, event.name
        if self.kinds and event.kind not in self.kinds:
            return False
        return prefix == "/" or name == prefix or (name.startswith(prefix) and name[len(prefix)] == "/")


class Batch:
    """Changes that were read together, whole revisions of them."""

    __slots__ = ("_encoded", "_kept_bytes", "_masks", "events", "last")

    def __init__(self, changes: Sequence[Change]) -> None:
        self.events = tuple(event for event in map(event_of, changes) if event is not None)
        self.last = changes[-1].revision
        self._masks: dict[object, int] | None = {}
        self._encoded: dict[int, list[bytes]] = {}
        self._kept_bytes = 0

    def mask_of(self, view: object) -> int | None:
        """Which events a view sees, as bits; None when that was not decided."""
        return None if self._masks is None else self._masks.get(view)

    def keep(self, view: object, mask: int) -> None:
        """Remember a decision, while the batch is new and there are few of them."""
        if self._masks is not None and len(self._masks) < SHARED_MASKS:
            self._masks[view] = mask

    def encoded(self, mask: int, encode: Callable[[Iterable[Event]], list[bytes]]) -> list[bytes]:
        """Some of the events as bytes, in parts that fit into a message; made once for all who see the same, while it is new.

        Only what a kept decision lets see is kept: not what is left of it for one watcher that had a part before.
        """
        found = self._encoded.get(mask)
        if found is None:
            found = encode(event for at, event in enumerate(self.events) if mask >> at & 1)
            if self._masks is not None and mask in self._masks.values():
                self._kept_bytes += sum(map(len, found))
                if self._kept_bytes <= SHARED_BYTES:
                    self._encoded[mask] = found
        return found

    def settle(self) -> None:
        """Keep the events only."""
        self._masks = None
        self._encoded = {}


class Delivery(NamedTuple):
    """What a watcher gets at once: batches, each with the events of it that it sees, and how far they reach."""

    batches: list[tuple[Batch, int]]
    revision: int


class _Watcher:
    __slots__ = ("caller", "due_s", "every_s", "method", "scope", "wake")

    def __init__(self, caller: Caller, method: str, scope: Scope, every_s: float, now_s: float) -> None:
        self.caller = caller
        self.method = method
        self.scope = scope
        self.every_s = every_s
        self.due_s = now_s + every_s
        self.wake: asyncio.Future[None] | None = None

    def notify(self) -> None:
        if self.wake is not None and not self.wake.done():
            self.wake.set_result(None)


class WatchHub:
    """All watchers of this process.  `run` and `tick` must be running for anything to be delivered."""

    def __init__(
        self,
        ledger: Ledger,
        authority: Authority,
        decider: Decider,
        clock: Clock,
        ring_events: int = RING_EVENTS,
    ) -> None:
        self.ring_events = ring_events
        self._ledger = ledger
        self._authority = authority
        self._decider = decider
        self._clock = clock
        self._watchers: set[_Watcher] = set()
        self._batches: deque[Batch] = deque()
        self._first = 0
        """Number of the oldest batch in the ring; they are numbered without gaps."""
        self._gap = 0
        """Whoever is at a place before this number missed changes that are gone."""
        self._awake_to = 0
        """Watchers were woken for batches before this number."""
        self._events = 0
        self._floor = 0
        """The ring has everything after this revision."""
        self._revision = 0
        self._turn = asyncio.Lock()
        self._news = asyncio.Event()
        self._stopped = False
        self._policy: PolicyEngine | None = None
        self._policies = 0
        ledger.subscribe(self._note)

    def __len__(self) -> int:
        """Return the number of watchers."""
        return len(self._watchers)

    # -- what comes in --------------------------------------------------------------------------------------------------

    def _note(self, changes: Iterable[Change]) -> None:
        del changes  # they may come out of order; the feed does not
        self._news.set()

    async def run(self) -> None:
        """Deliver until `stop`.  A store that cannot be read is asked again at the next change or tick."""
        while not self._stopped:
            await self._news.wait()
            self._news.clear()
            try:
                await self.pump()
            except VaultdError:  # told by health and by the feed's follower; watchers wait
                continue

    def stop(self) -> None:
        """End `run`."""
        self._stopped = True
        self._news.set()

    async def tick(self) -> None:
        """Wake those whose heartbeat is due, and look for what a failed read left.  Called about twice a second."""
        if self._watchers:
            self._news.set()
        now_s = self._clock.monotonic_s()
        for watcher in [watcher for watcher in self._watchers if watcher.due_s <= now_s]:
            watcher.notify()

    async def pump(self) -> None:
        """Read what is new in the feed into the ring, and wake the watchers.

        After a round through many watchers it rests as long as that took: other calls get half of the time, and changes that
        come in a storm go out together.
        """
        while self._watchers:
            began_s = asyncio.get_running_loop().time()
            if not await self._read_page():
                return
            await self._wake_all()
            if len(self._watchers) > WATCHERS_PER_TURN:
                await asyncio.sleep(min(LONGEST_REST_S, asyncio.get_running_loop().time() - began_s))

    async def _read_page(self) -> bool:
        """Take a page of the feed into the ring; whether there was one."""
        async with self._turn:
            changes = await self._ledger.store.changes(self._revision, PAGE)
            if not changes:
                return False
            if changes[0].revision != self._revision + 1:
                # Trimmed while this process stood still: every place in the ring is before a gap, also the one behind its end.
                self._clear()
                self._first += 1
                self._gap = self._first
                self._floor = changes[0].revision - 1
            batch = Batch(changes)
            self._revision = batch.last
            if batch.events:
                self._append(batch)
            return True

    def _append(self, batch: Batch) -> None:
        self._batches.append(batch)
        self._events += len(batch.events)
        if len(self._batches) > SHARED_BATCHES:
            self._batches[-SHARED_BATCHES - 1].settle()
        while self._events > self.ring_events and len(self._batches) > 1:
            gone = self._batches.popleft()
            self._first += 1
            self._events -= len(gone.events)
            self._floor = gone.last

    def _clear(self) -> None:
        self._first += len(self._batches)
        self._batches.clear()
        self._events = 0

    async def _wake_all(self) -> None:
        if self._awake_to == self._first + len(self._batches):
            return  # nothing that anybody could see
        self._awake_to = self._first + len(self._batches)
        for at, watcher in enumerate(list(self._watchers), start=1):
            watcher.notify()
            if at % WATCHERS_PER_TURN == 0:
                await asyncio.sleep(0)

    # -- what goes out --------------------------------------------------------------------------------------------------

    async def follow(
        self, caller: Caller, method: str, scope: Scope, after: int | None, heartbeat_s: float
    ) -> AsyncGenerator[Delivery, None]:
        """Yield what changes after a revision (None: from now on); first of all, where the watch begins.

        A yield lasts as long as the reader takes.  Raises OutOfRange, reason COMPACTED, when the feed does not reach back so
        far, and REVISION_IN_FUTURE when it never came so far; Aborted, reason WATCHER_TOO_SLOW, when the reader fell out of the
        ring; and what reading the store and the policy raise.
        """
        watcher = _Watcher(caller, method, scope, heartbeat_s, self._clock.monotonic_s())
        try:
            await self._join(watcher)
            at = self._revision if after is None else after
            if at > self._revision and at > await self._ledger.store.revision():
                raise _in_future()
            if at < self._floor:
                await self._reaches_back_to(at)
            yield Delivery([], at)
            while at < self._floor:
                batch = await self._history(at)
                at = batch.last
                mask = await self._mask(batch, watcher)
                if mask or self._due(watcher):
                    yield Delivery([(batch, mask)], at)
            number = self._first + sum(1 for batch in self._batches if batch.last <= at)
            held = at
            """Events up to here were sent: the first batch may have some of them."""
            while True:
                if number < self._first:
                    raise await self._compacted() if number < self._gap else _too_slow(self.ring_events)
                batches, number, reached = self._take(number)
                at = max(at, reached)
                seen = []
                for batch in batches:
                    known = self._known(batch, watcher, held)
                    mask = await self._mask(batch, watcher, held) if known is None else known
                    if known is None:
                        await asyncio.sleep(0)  # to decide about a whole ring takes as long as hundreds of calls
                    if mask:
                        seen.append((batch, mask))
                if seen or self._due(watcher):
                    yield Delivery(seen, at)
                elif number == self._first + len(self._batches):
                    await self._sleep(watcher)
        finally:
            self._watchers.discard(watcher)
            if not self._watchers:
                self._clear()

    async def _join(self, watcher: _Watcher) -> None:
        async with self._turn:
            if not self._watchers:
                self._clear()
                self._revision = self._floor = await self._ledger.store.revision()
            self._watchers.add(watcher)

    def _take(self, number: int) -> tuple[list[Batch], int, int]:
        """Batches from a number on, the number after them, and the revision that they reach."""
        taken: list[Batch] = []
        events = 0
        place, end = number - self._first, len(self._batches)
        while place < end and (not taken or events < EVENTS_PER_DELIVERY):
            batch = self._batches[place]  # of a deque, quick near its ends
            taken.append(batch)
            events += len(batch.events)
            place += 1
        return taken, self._first + place, self._revision if place == end else taken[-1].last

    async def _history(self, after: int) -> Batch:
        changes = await self._ledger.store.changes(after, PAGE)
        if not changes or changes[0].revision != after + 1:
            raise await self._compacted()
        return Batch(changes)

    async def _reaches_back_to(self, after: int) -> None:
        """Raise OutOfRange at once, and not after a first answer, when the feed does not."""
        changes = await self._ledger.store.changes(after, 1)
        if not changes or changes[0].revision != after + 1:
            raise await self._compacted()

    async def _compacted(self) -> OutOfRange:
        oldest = await self._ledger.store.changes(0, 1)
        since = oldest[0].revision - 1 if oldest else await self._ledger.store.revision()
        return OutOfRange(
            "COMPACTED",
            "the feed no longer has the changes after this revision: read the resources anew, and watch from now on",
            metadata={"oldest_revision": str(since)},
        )

    def _due(self, watcher: _Watcher) -> bool:
        now_s = self._clock.monotonic_s()
        if now_s < watcher.due_s:
            return False
        watcher.due_s = now_s + watcher.every_s
        return True

    async def _sleep(self, watcher: _Watcher) -> None:
        watcher.wake = asyncio.get_running_loop().create_future()
        try:
            await watcher.wake
        finally:
            watcher.wake = None

    def _view(self, watcher: _Watcher) -> tuple[object, ...]:
        """For whom a decision may be kept: who has the same caller and scope, until the policy changes."""
        engine = self._authority.engine
        if engine is not self._policy:
            self._policy = engine
            self._policies += 1
        return watcher.caller, watcher.scope, self._policies

    def _known(self, batch: Batch, watcher: _Watcher, after: int) -> int | None:
        """Which events of a batch that is wholly after a revision a watcher sees, if that was decided."""
        view = self._view(watcher)
        return batch.mask_of(view) if not batch.events or batch.events[0].revision > after else None

    async def _mask(self, batch: Batch, watcher: _Watcher, after: int = 0) -> int:
        """Which events of a batch a watcher wants and may see, by the policy of now.

        What no condition had a say in is kept for others.
        """
        view = self._view(watcher)
        mask = batch.mask_of(view)
        if mask is None:
            mask, certain = await self._decide(batch, watcher, self._authority.engine)
            if certain:
                batch.keep(view, mask)
        if mask and batch.events[0].revision <= after:
            for at, event in enumerate(batch.events):
                if event.revision <= after:
                    mask &= ~(1 << at)
        return mask

    async def _decide(self, batch: Batch, watcher: _Watcher, engine: PolicyEngine) -> tuple[int, bool]:
        mask, certain = 0, True
        caller, wants, look_up = watcher.caller, watcher.scope.wants, engine.look_up
        for at, event in enumerate(batch.events):
            if not wants(event):
                continue
            found = look_up(caller.principal, event.permission, event.on)
            if not isinstance(found, Decision):
                certain = False
                found = await self._decider.settle(found, caller, watcher.method)
            if found.allowed:
                mask |= 1 << at
        return mask, certain


def _in_future() -> OutOfRange:
    return OutOfRange(
        "REVISION_IN_FUTURE",
        "the store has not come to this revision; was it restored from a backup? read the resources anew, and watch from now on",
    )


def _too_slow(ring_events: int) -> Aborted:
    return Aborted(
        "WATCHER_TOO_SLOW",
        f"the reader is more than {ring_events:,} changes behind; watch again with the resume_token in the details, read faster",
    )
