"""Concurrent calls of one RPC and one identity, sent together.

A call that finds nobody under way goes at once, by itself and in its caller's own task: it loses nothing.  Calls that come while
one is under way wait for it, and go together when it returns; the more there are, the larger their batch.  Nothing waits for a
timer.
"""

from __future__ import annotations

import asyncio
from collections import deque
from typing import TYPE_CHECKING, Any, Final

from vaultd_client.batching import Pace, Waiting, answers, divides, take_batch, too_late
from vaultd_client.errors import ClientClosed, VaultdError
from vaultd_client.settings import BatchLimits
from vaultd_client.spans import whole_batch

if TYPE_CHECKING:
    from collections.abc import Sequence

    from vaultd_client.aio_transport import AsyncTransport
    from vaultd_client.info import CallInfo
    from vaultd_client.method import Method

MAX_UNDER_WAY: Final = 8
"""Batches at once where earlier ones are late."""


class _Waiting(Waiting):
    """A call whose caller awaits a future."""

    __slots__ = ("future",)

    def __init__(
        self, request: Any, deadline: float, info: CallInfo | None, traceparent: str | None, future: asyncio.Future[Any]
    ) -> None:
        super().__init__(request, deadline, info, traceparent)
        self.future = future


class Lane:
    """One RPC of one identity."""

    def __init__(
        self,
        transport: AsyncTransport,
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
        self._loop = asyncio.get_running_loop()
        self._pending: deque[_Waiting] = deque()
        self._under_way = 0
        self._allowed = 1
        self._flush_due = False
        self._late: asyncio.TimerHandle | None = None
        self._watchdog: asyncio.TimerHandle | None = None
        self._batches: dict[asyncio.Task[None], list[_Waiting]] = {}
        self._pace = Pace()

    @property
    def idle(self) -> bool:
        """Whether nothing waits and nothing is under way."""
        return not (self._pending or self._under_way)

    async def call(self, request: Any, deadline: float, info: CallInfo | None, traceparent: str | None) -> Any:
        """Make one call, with others where there are others."""
        if not (self._under_way or self._pending or self._flush_due):
            return await self._alone(request, deadline, info, traceparent)
        if not self._pace.leaves_time(deadline - self._loop.time()):
            return await self._transport.invoke(self._method, request, deadline, self._token, traceparent, info)
        waiting = _Waiting(request, deadline, info, traceparent, self._loop.create_future())
        self._pending.append(waiting)
        self._watch(deadline)
        if self._under_way < self._allowed:
            self._flush_soon()
        elif self._late is None:
            self._late = self._loop.call_later(self._pace.patience_s, self._no_longer_wait)
        try:
            return await waiting.future
        except asyncio.CancelledError:
            self._drop_deserted_batches()
            raise

    async def _alone(self, request: Any, deadline: float, info: CallInfo | None, traceparent: str | None) -> Any:
        self._under_way += 1
        begun = self._loop.time()
        try:
            answer = await self._transport.invoke(self._method, request, deadline, self._token, traceparent, info)
            self._pace.took(self._loop.time() - begun)
            return answer
        finally:
            self._returned(1)

    def _returned(self, items: int) -> None:
        self._under_way -= 1
        self._allowed = 1
        if self._late is not None:
            self._late.cancel()
            self._late = None
        if self._pending or items > 1:
            self._flush_soon()

    def _flush_soon(self) -> None:
        # In the loop's next turn, behind the callers that were woken just now: their next calls travel along.  After a batch also
        # when nobody waits yet, or the first of those callers would go alone and the others wait for it.
        if not self._flush_due:
            self._flush_due = True
            self._loop.call_soon(self._flush)

    def _no_longer_wait(self) -> None:
        self._late = None
        self._allowed = min(self._under_way + 1, MAX_UNDER_WAY)
        self._flush()

    def _flush(self) -> None:
        self._flush_due = False
        while self._pending and self._under_way < self._allowed:
            batch = [one for one in take_batch(self._pending, self._limits) if not one.future.done()]
            if batch:
                self._send(batch)
        if self._pending and self._late is None:
            self._late = self._loop.call_later(self._pace.patience_s, self._no_longer_wait)

    def _send(self, batch: list[_Waiting]) -> None:
        self._under_way += 1
        task = self._loop.create_task(self._deliver(batch))
        self._batches[task] = batch
        task.add_done_callback(self._delivered)

    def _delivered(self, task: asyncio.Task[None]) -> None:
        batch = self._batches.pop(task)
        if task.cancelled():
            for one in batch:  # nobody waits for ever
                one.future.cancel()

    async def _deliver(self, batch: list[_Waiting]) -> None:
        begun = self._loop.time()
        try:
            try:
                if len(batch) == 1:
                    await self._deliver_one(batch[0])
                else:
                    await self._deliver_many(batch)
            except VaultdError as error:
                self._fail(batch, error)
            except Exception as error:
                for one in batch:
                    if not one.future.done():
                        one.future.set_exception(error)
            self._pace.took(self._loop.time() - begun)
        finally:
            self._returned(len(batch))

    async def _deliver_one(self, one: _Waiting) -> None:
        invoke = self._transport.invoke
        answer = await invoke(self._method, one.request, one.deadline, self._token, one.traceparent, one.info)
        if not one.future.done():
            one.future.set_result(answer)

    async def _deliver_many(self, batch: list[_Waiting]) -> None:
        request = self._batch_method.request(items=[one.request for one in batch])
        deadline = max(one.deadline for one in batch)
        invoke, method = self._transport.invoke, self._batch_method
        with whole_batch(method, batch) as (info, traceparent):
            response = await invoke(method, request, deadline, self._token, traceparent, info)
        for one, answer in zip(batch, answers(self._method, batch, response, info), strict=True):
            if one.future.done():
                continue
            if answer is None:
                self._pending.append(one)
            elif isinstance(answer, VaultdError):
                one.future.set_exception(answer)
            else:
                one.future.set_result(answer)

    def _fail(self, batch: list[_Waiting], error: VaultdError) -> None:
        if divides(error, batch):
            if error.code == "UNIMPLEMENTED":  # an older server
                self._limits = BatchLimits(max_items=1)
            middle = len(batch) // 2
            self._send(batch[:middle])
            self._send(batch[middle:])
            return
        for one in batch:
            if not one.future.done():
                one.future.set_exception(error.again())

    # -- deadlines and cancellation -------------------------------------------------------------------------------------

    def _watch(self, deadline: float) -> None:
        """One timer for all: set for the first deadline, and again when it fires."""
        if self._watchdog is None or deadline < self._watchdog.when():
            if self._watchdog is not None:
                self._watchdog.cancel()
            self._watchdog = self._loop.call_at(deadline, self._end_late_calls)

    def _end_late_calls(self) -> None:
        self._watchdog = None
        now = self._loop.time()
        left = []
        for one in [*self._pending, *(one for batch in self._batches.values() for one in batch)]:
            if one.future.done():
                continue
            if one.deadline <= now:
                one.future.set_exception(too_late(self._method))
            else:
                left.append(one.deadline)
        self._drop_deserted_batches()
        if left:
            self._watch(min(left))

    def _drop_deserted_batches(self) -> None:
        for task, batch in self._batches.items():
            if all(one.future.done() for one in batch) and not task.done():
                task.cancel()

    async def close(self) -> None:
        """Give up what is under way."""
        for timer in (self._late, self._watchdog):
            if timer is not None:
                timer.cancel()
        tasks: Sequence[asyncio.Task[None]] = list(self._batches)
        for one in [*self._pending, *(one for batch in self._batches.values() for one in batch)]:
            if not one.future.done():
                one.future.set_exception(ClientClosed("the client was closed while the call waited"))
        self._pending.clear()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
