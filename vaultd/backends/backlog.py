"""What is queued in front of a backend's workers, and whether more of it can be done in time."""

from __future__ import annotations

import time
from collections import defaultdict
from typing import TYPE_CHECKING, Final

from vaultd.backends.base import Lane
from vaultd.errors import DeadlineExceeded, ResourceExhausted
from vaultd.telemetry.cells import Histogram

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

# Of the moving average: the weight of a new measurement, and the most that one stalled call may raise it by.
_WEIGHT: Final = 0.2
_LARGEST_STEP: Final = 4.0
# What an estimate keeps when it alone, with nothing queued, refuses a batch: a wrong one must not refuse for ever.
_DECAY: Final = 0.8
_SHORTEST_RETRY_S: Final = 0.05


class Backlog:
    """Counts queued calls by lane and cost class, and learns what a class costs.  Not safe across threads by itself.

    `workers` says how many serve each lane; a lane is served only when those before it are empty.  `clock` gives the
    seconds that deadlines are in.
    """

    def __init__(
        self, workers: Mapping[Lane, int], max_queued: int, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._workers = dict(workers)
        self._max_queued = max_queued
        self._clock = clock
        self._classes: dict[Lane, defaultdict[str, int]] = {lane: defaultdict(int) for lane in Lane}
        self._estimates: dict[str, float] = {}
        self.queued = 0
        """Calls that are waiting."""
        self.waits = {lane: Histogram() for lane in Lane}
        """How long calls waited for a worker, for metrics."""

    def admit(
        self, calls: Mapping[str, int], spread: int, deadline: float | None, lane: Lane, start_s: float = 0.0
    ) -> None:
        """Count calls in, or raise ResourceExhausted, or DeadlineExceeded when the deadline is past.

        `calls` counts them by cost class, `spread` is how many workers they can occupy at once, `start_s` a wait that
        is known besides.  A class that was never measured counts nothing.  A single call with nothing in front of it is
        let in however long it should take: no estimate, wrong perhaps, can then shut a class of calls out for good.
        """
        count = sum(calls.values())
        if self.queued + count > self._max_queued:
            raise _overloaded("too much work is queued; try again later", self.wait_s(lane) + start_s)
        if deadline is not None:
            left_s = deadline - self._clock()
            if left_s <= 0:
                raise too_late()
            wait_s = self.wait_s(lane) + start_s
            nothing_in_front = wait_s <= 0
            if not (nothing_in_front and count == 1):
                work_s = sum(self.estimate(name) * times for name, times in calls.items())
                if wait_s + work_s / min(self._workers[lane], spread) > left_s:
                    if nothing_in_front:
                        for name in calls.keys() & self._estimates.keys():
                            self._estimates[name] *= _DECAY
                    raise _overloaded("there is more work than the deadline leaves time for; try again later", wait_s)
        self.add(calls, lane)

    def add(self, calls: Mapping[str, int], lane: Lane) -> None:
        """Count calls in, whatever the deadlines say: those that were taken and come back."""
        classes = self._classes[lane]
        for cost_class, count in calls.items():
            classes[cost_class] += count
            self.queued += count

    def take(self, cost_class: str, lane: Lane, count: int = 1) -> None:
        """Count calls of a class out: a worker has them, or nobody waits for them any more."""
        self.queued -= count
        classes = self._classes[lane]
        left = classes[cost_class] - count
        if left:
            classes[cost_class] = left
        else:
            del classes[cost_class]

    def depths(self) -> dict[Lane, int]:
        """Calls that are waiting, by lane."""
        return {lane: sum(classes.values()) for lane, classes in self._classes.items()}

    def clear(self) -> None:
        """Forget what was queued."""
        self.queued = 0
        for classes in self._classes.values():
            classes.clear()

    def measure(self, cost_class: str, service_s: float) -> None:
        """Learn from a call that was done."""
        known_s = self._estimates.get(cost_class)
        if known_s is None:
            self._estimates[cost_class] = service_s
        else:
            step_s = min(service_s, known_s * _LARGEST_STEP) if known_s > 0 else service_s
            self._estimates[cost_class] = known_s + _WEIGHT * (step_s - known_s)

    def estimate(self, cost_class: str, unknown_s: float = 0.0) -> float:
        """Seconds that a call of this class takes, `unknown_s` before it was measured."""
        return self._estimates.get(cost_class, unknown_s)

    def wait_s(self, lane: Lane) -> float:
        """Seconds until the calls queued in this lane and those before it have begun."""
        if not self.queued:
            return 0.0
        work_s = 0.0
        for other, classes in self._classes.items():
            if classes and other <= lane:
                for name, count in classes.items():
                    work_s += count * self._estimates.get(name, 0.0)
        return work_s / self._workers[lane]


def too_late() -> DeadlineExceeded:
    """The error of work whose deadline passed while it waited."""
    return DeadlineExceeded("DEADLINE_EXCEEDED", "the deadline passed before the work could begin")


def _overloaded(text: str, wait_s: float) -> ResourceExhausted:
    return ResourceExhausted("OVERLOADED", text, retry_after_s=max(wait_s, _SHORTEST_RETRY_S))
