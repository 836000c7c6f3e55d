"""Ends calls that take too long: a caller that sends nothing, and work that nobody bounded.

One timer looks at all calls ten times a second, which is as exact as these limits need; a timer for each call would cost it
more than its encryption.  A client's own deadline is kept by the transport.
"""

from __future__ import annotations

import asyncio
from typing import Any, Final

SWEEP_S: Final = 0.1

_Task = asyncio.Task[Any]


class Deadlines(dict[_Task, float]):
    """Tasks and until when they may run, in seconds of the loop's clock.

    `watch` begins, and `pop` ends it; in between a task's time may be set anew.
    """

    def __init__(self) -> None:
        super().__init__()
        self._expired: set[_Task] = set()
        self._timer: asyncio.TimerHandle | None = None

    def watch(self, task: _Task, until: float) -> None:
        """Cancel the task once `until` has passed."""
        self[task] = until
        if self._timer is None:
            self._timer = task.get_loop().call_later(SWEEP_S, self._sweep, task.get_loop())

    def take_expired(self, task: _Task) -> bool:
        """Whether its cancellation came from here.  Taken once; the cancellation is then no longer pending."""
        if task not in self._expired:
            return False
        self._expired.discard(task)
        task.uncancel()
        return True

    def _sweep(self, loop: asyncio.AbstractEventLoop) -> None:
        now = loop.time()
        for task in [task for task, until in self.items() if until <= now]:
            del self[task]
            self._expired.add(task)
            task.cancel()
        self._timer = loop.call_later(SWEEP_S, self._sweep, loop) if self else None
