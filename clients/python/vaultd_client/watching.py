"""What Watch tells a client, and how far it can be relied on.  Nothing here does I/O; the loops are in followers.py.

A cache reads something, notes a Mark, and may use what it read for as long as the mark is fresh: always for `max_unwatched_s`, and
up to `max_age_s` while a watch that began before the read, and was heard lately, says nothing of the resource.
"""

from __future__ import annotations

import random
import threading
import time
from concurrent.futures import Future
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final, Protocol

from vaultd_client.v1 import watch_pb2

if TYPE_CHECKING:
    from collections.abc import Callable

    from vaultd_client.errors import VaultdError
    from vaultd_client.flows import Flow
    from vaultd_client.v1.watch_pb2 import WatchResponse

HEARTBEAT_S: Final = 3
KINDS: Final = (
    watch_pb2.RESOURCE_KIND_KEY,
    watch_pb2.RESOURCE_KIND_KEY_VERSION,
    watch_pb2.RESOURCE_KIND_SECRET,
    watch_pb2.RESOURCE_KIND_SECRET_VERSION,
)
SETTLING_S: Final = 1.0
"""For so long after a change another node of the store may still answer with what was; what is read meanwhile is kept no longer."""
REMEMBERED_S: Final = 60.0
"""How long changes are remembered; a read that takes longer is not kept."""
LONGEST_SILENCE_S: Final = 10.0
"""After a longer one the follower begins anew, and caches too: nothing old is fresh again when a watch goes on."""
BACKOFF_S: Final = (0.1, 10.0)
FIRST_ATTEMPTS: Final = 5
DENIED_S: Final = (150.0, 300.0)
"""Who may not watch asks again after minutes: each time is a refusal in the audit log."""
DENIED: Final = {"PERMISSION_DENIED", "UNAUTHENTICATED", "UNIMPLEMENTED", "INVALID_ARGUMENT"}
GOES_ON: Final = {"UNAVAILABLE", "ABORTED", "CANCELLED"}


def resource_of(name: str) -> str:
    """The key or secret that a name is of: its first four segments."""
    return "/".join(name.split("/", 4)[:4])


class Listener(Protocol):
    """Who is told.  Called from the thread, or in the task, that follows: do little, and raise nothing."""

    def changed(self, resource: str) -> None:
        """A key or secret, or one of its versions, changed."""
        ...

    def missed(self) -> None:
        """Something may have changed without our being told: forget everything."""
        ...


@dataclass(frozen=True, slots=True)
class Mark:
    """When something was read, how long it may be kept, and of which watch; 0: of none."""

    resource: str
    at: float
    watch: int
    settling: bool

    def unwatched(self) -> Mark:
        """The same for a caller whom Watch does not tell of the resource."""
        return replace(self, watch=0)


@dataclass(frozen=True, slots=True)
class Freshness:
    """How long what was read may be used, in seconds.

    max_age_s: in any case, after which it is read again.  max_unwatched_s: while Watch is silent, or does not tell us of the
    resource.
    """

    max_age_s: float = 300.0
    max_unwatched_s: float = 10.0

    def __post_init__(self) -> None:
        if not 0 <= self.max_unwatched_s <= self.max_age_s:
            raise ValueError("max_unwatched_s is at least 0 and at most max_age_s")


class Changes:
    """What the follower of one client has heard.  Threads may share it."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self.clock = clock
        self._lock = threading.Lock()
        self._watch = 0
        self._live = False
        self._heard = 0.0
        self._changed_at: dict[str, float] = {}
        self._listeners: list[Listener] = []
        self._waiting: list[Future[None]] = []

    # -- for caches -----------------------------------------------------------------------------------------------------

    def subscribe(self, listener: Listener) -> None:
        """Tell a listener from now on."""
        with self._lock:
            self._listeners.append(listener)

    def unsubscribe(self, listener: Listener) -> None:
        """Tell it no more."""
        with self._lock:
            self._listeners = [one for one in self._listeners if one is not listener]

    def mark(self, name: str) -> Mark:
        """Made before something is read."""
        resource, now = resource_of(name), self.clock()
        with self._lock:
            settling = now - self._changed_at.get(resource, -SETTLING_S) < SETTLING_S
            return Mark(resource, now, self._watch if self._live else 0, settling)

    def still(self, mark: Mark) -> bool:
        """Whether nothing was heard since the mark was made: what was read may be kept."""
        now = self.clock()
        with self._lock:
            if now - mark.at >= REMEMBERED_S or mark.watch not in (0, self._watch):
                return False
            return self._changed_at.get(mark.resource, mark.at - 1) < mark.at

    def fresh(self, mark: Mark, freshness: Freshness) -> bool:
        """Whether what was read then may be used now."""
        now = self.clock()
        age = now - mark.at
        if age >= freshness.max_age_s or (mark.settling and age >= SETTLING_S):
            return False
        if age < freshness.max_unwatched_s:
            return True
        with self._lock:
            return mark.watch == self._watch != 0 and now - self._heard < freshness.max_unwatched_s

    @property
    def live(self) -> bool:
        """Whether a watch is open now."""
        return self._live

    def when_live(self) -> Future[None]:
        """Settled once a watch is open."""
        waits: Future[None] = Future()
        waits.set_running_or_notify_cancel()
        with self._lock:
            if not self._live:
                self._waiting.append(waits)
                return waits
        waits.set_result(None)
        return waits

    # -- for the follower -----------------------------------------------------------------------------------------------

    def begun(self) -> None:
        """A watch answered.  When the one before it was lost long ago, caches begin anew."""
        with self._lock:
            now, anew = self.clock(), self._watch == 0
            if not anew and now - self._heard > LONGEST_SILENCE_S:
                anew = True
            if anew:
                self._watch += 1
            self._live, self._heard = True, now
            listeners = self._listeners if anew and self._watch > 1 else []
            waiting, self._waiting = self._waiting, []
        for listener in listeners:
            listener.missed()
        for one in waiting:
            one.set_result(None)

    def received(self, response: WatchResponse) -> None:
        """A response of the open watch."""
        if self.clock() - self._heard > LONGEST_SILENCE_S:
            self.begun()  # what comes now was late, and more of it may be under way
        now = self.clock()
        resources = {resource_of(event.name) for event in response.events}
        with self._lock:
            self._heard = now
            if len(self._changed_at) > 1_000:
                self._changed_at = {name: at for name, at in self._changed_at.items() if now - at < REMEMBERED_S}
            self._changed_at.update(dict.fromkeys(resources, now))
            listeners = self._listeners
        for resource in resources:
            for listener in listeners:
                listener.changed(resource)

    def lost(self) -> None:
        """The watch ended; the next one goes on where it was."""
        with self._lock:
            self._live = False

    def missed(self) -> None:
        """There is a gap: the feed no longer reaches back so far."""
        with self._lock:
            self._live = False
            self._watch += 1
            listeners = self._listeners
        for listener in listeners:
            listener.missed()


class Following:
    """Which changes a cache follows: those of its client, from its first fetch until it is closed."""

    def __init__(self, listener: Listener) -> None:
        self._listener = listener
        self.changes: Changes | None = None

    def begin(self) -> Flow[Changes]:
        """Those to mark a fetch by."""
        found = self.changes
        if found is None:
            begun: Changes = yield lambda client: client.follow_changes()
            begun.subscribe(self._listener)
            self.changes = found = begun
        return found

    def keeps(self, changes: Changes, mark: Mark) -> bool:
        """Whether what was fetched may be kept: nothing was told of it meanwhile, and the cache is not closed."""
        return changes is self.changes and changes.still(mark)

    def fresh(self, mark: Mark, freshness: Freshness) -> bool:
        """Whether what was fetched may be used now."""
        return self.changes is not None and self.changes.fresh(mark, freshness)

    def end(self) -> None:
        """Listen no more."""
        changes, self.changes = self.changes, None
        if changes is not None:
            changes.unsubscribe(self._listener)


class WatchCourse:
    """One watch over many streams: where the next stream begins, and when."""

    def __init__(self, resume_token: str = "", after_revision: int | None = None, *, endless: bool = False) -> None:
        """endless: no error ends it, as it may not end the follower of a client."""
        self.resume_token = resume_token
        self.after_revision = after_revision
        self.has_gap = False
        self._endless = endless
        self._answered = False
        self._failures = 0

    def received(self, response: WatchResponse) -> None:
        """A response came."""
        self._answered, self._failures = True, 0
        if response.resume_token:
            self.resume_token, self.after_revision = response.resume_token, None

    def ended(self, error: VaultdError | None) -> float:
        """The stream ended: how long to wait, in seconds, before the next one.  Raises the error when there is none."""
        self._failures += 1
        self.has_gap = False
        if error is not None and not self._goes_on(error):
            if not self._endless:
                raise error
            if error.code in DENIED:
                return random.uniform(*DENIED_S)  # noqa: S311  # spreads load
            if error.code == "OUT_OF_RANGE":
                self.resume_token, self.after_revision, self.has_gap = "", None, True
        least, most = BACKOFF_S
        wait_s = random.uniform(0, min(most, least * 2.0 ** min(self._failures, 10)))  # noqa: S311  # spreads load
        return wait_s + ((error.retry_delay_s or 0.0) if error is not None else 0.0)

    def _goes_on(self, error: VaultdError) -> bool:
        lost = error.code in GOES_ON or (error.code in {"INTERNAL", "UNKNOWN"} and not error.refusal.answered)
        return (lost or error.retry_delay_s is not None) and (self._answered or self._failures < FIRST_ATTEMPTS)
