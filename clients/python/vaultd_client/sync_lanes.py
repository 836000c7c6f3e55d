"""Concurrent calls of one RPC and one identity from many threads, sent together.

As in lanes.py, without an event loop and without a thread of its own: of the calls that wait, the one with most time left sends
the batch of all of them in its own thread when the one under way returns.  No other may: it would be held beyond its deadline.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from typing import TYPE_CHECKING, Any

from vaultd_client.batching import Pace, Waiting, answers, divides, take_batch, too_late
from vaultd_client.errors import VaultdError
from vaultd_client.settings import BatchLimits
from vaultd_client.spans import whole_batch

if TYPE_CHECKING:
    from vaultd_client.info import CallInfo
    from vaultd_client.method import Method
    from vaultd_client.sync_transport import SyncTransport


class _Waiting(Waiting):
    """A call whose thread sleeps until it has an answer, or a batch to send."""

    __slots__ = ("answer", "batch", "error", "wake")

    def __init__(self, request: Any, deadline: float, info: CallInfo | None, traceparent: str | None) -> None:
        super().__init__(request, deadline, info, traceparent)
        self.answer: Any = None
        self.error: BaseException | None = None
        self.batch: list[_Waiting] | None = None
        self.wake = threading.Lock()
        self.wake.acquire()


class SyncLane:
    """One RPC of one identity."""

    def __init__(
        self,
        transport: SyncTransport,
        method: Method[Any, Any],
        batch_method: Method[Any, Any],
        limits: BatchLimits,
        token: str | None,
    ) -> None:
        self._transport = transport
        self._method = method
        self._batch_method = batch_method
        self._limits = limits
        self._token = token
        self._lock = threading.Lock()
        self._pending: deque[_Waiting] = deque()
        self._under_way = 0
        self._pace = Pace()

    @property
    def idle(self) -> bool:
        """Whether nothing waits and nothing is under way."""
        return not (self._pending or self._under_way)

    def call(self, request: Any, deadline: float, info: CallInfo | None, traceparent: str | None) -> Any:
        """Make one call, with others where there are others."""
        waiting = None
        with self._lock:
            alone = not self._under_way and not self._pending
            if alone:
                self._under_way += 1
            elif self._pace.leaves_time(deadline - time.monotonic()):
                waiting = _Waiting(request, deadline, info, traceparent)
                self._pending.append(waiting)
        if waiting is not None:
            return self._wait(waiting)
        begun = time.monotonic()
        try:
            answer = self._transport.invoke(self._method, request, deadline, self._token, traceparent, info)
            self._pace.took(time.monotonic() - begun)
            return answer
        finally:
            if alone:
                self._hand_on()

    def _wait(self, waiting: _Waiting) -> Any:
        patience_s = self._pace.patience_s
        while True:
            left_s = waiting.deadline - time.monotonic()
            woken = waiting.wake.acquire(timeout=max(0.0, min(left_s, patience_s)))
            batch = waiting.batch if woken else self._overtake(waiting)
            if batch is not None:
                waiting.batch = None
                self._send(batch)
            elif not woken:
                patience_s = max(left_s, 0.0)
                continue
            if waiting.error is not None:
                raise waiting.error
            return waiting.answer

    def _overtake(self, waiting: _Waiting) -> list[_Waiting] | None:
        """After its patience, or at its deadline.  A call that still waits gives up, or goes with all who wait; one that is
        under way with others stays, until its own deadline."""
        with self._lock:
            if waiting.deadline <= time.monotonic():
                if waiting in self._pending:
                    self._pending.remove(waiting)
                if waiting.answer is None and waiting.error is None and waiting.batch is None:
                    waiting.error = too_late(self._method)
                    waiting.wake.release()
                return None
            if waiting not in self._pending:
                return None
            self._pending.remove(waiting)
            self._pending.appendleft(waiting)
            self._under_way += 1
            return self._lead(take_batch(self._pending, self._limits), waiting)

    @staticmethod
    def _lead(batch: list[_Waiting], here: _Waiting | None) -> list[_Waiting] | None:
        """Have the call with most time left send a batch.  Returns the batch when that is the one of this thread."""
        leader = max(batch, key=lambda one: one.deadline)
        batch.remove(leader)
        batch.insert(0, leader)
        if leader is here:
            return batch
        leader.batch = batch
        leader.wake.release()
        return None

    def _hand_on(self) -> None:
        """One is back: those who wait go next."""
        with self._lock:
            self._under_way -= 1
            if self._pending and not self._under_way:
                self._under_way += 1
                self._lead(take_batch(self._pending, self._limits), None)

    def _send(self, batch: list[_Waiting]) -> None:
        """Send a batch in the thread of its first call, and give each its answer."""
        begun = time.monotonic()
        try:
            self._deliver(batch, batch[0])
            self._pace.took(time.monotonic() - begun)
        except BaseException as error:  # KeyboardInterrupt too: the others must not wait for a thread that is gone
            for one in batch:
                again = error.again() if isinstance(error, VaultdError) else error
                self._settle(one, None, again, batch[0])
            if not isinstance(error, Exception):
                raise
        finally:
            self._hand_on()

    def _deliver(self, batch: list[_Waiting], leader: _Waiting) -> None:
        if len(batch) == 1:
            one, invoke = batch[0], self._transport.invoke
            answer = invoke(self._method, one.request, one.deadline, self._token, one.traceparent, one.info)
            self._settle(one, answer, None, leader)
            return
        request = self._batch_method.request(items=[one.request for one in batch])
        deadline = max(one.deadline for one in batch)
        invoke, method = self._transport.invoke, self._batch_method
        try:
            with whole_batch(method, batch) as (info, traceparent):
                response = invoke(method, request, deadline, self._token, traceparent, info)
        except VaultdError as error:
            if not divides(error, batch):
                raise
            if error.code == "UNIMPLEMENTED":  # an older server
                self._limits = BatchLimits(max_items=1)
            middle = len(batch) // 2
            self._deliver_part(batch[:middle], leader)
            self._deliver_part(batch[middle:], leader)
            return
        again = []
        for one, answer in zip(batch, answers(self._method, batch, response, info), strict=True):
            if answer is None:
                again.append(one)
            elif isinstance(answer, VaultdError):
                self._settle(one, None, answer, leader)
            else:
                self._settle(one, answer, None, leader)
        if again:
            self._deliver_part(again, leader)

    def _deliver_part(self, part: list[_Waiting], leader: _Waiting) -> None:
        try:
            self._deliver(part, leader)
        except VaultdError as error:
            for one in part:
                self._settle(one, None, error.again(), leader)

    def _settle(self, one: _Waiting, answer: Any, error: BaseException | None, leader: _Waiting) -> None:
        with self._lock:
            if one.answer is not None or one.error is not None:
                return
            one.answer, one.error = answer, error
            if one is not leader:
                one.wake.release()
