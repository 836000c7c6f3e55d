"""Work of several calls, written once for Client and AsyncClient.

A flow is a generator that yields steps and is handed what they give: a function of the client, which makes one call of it, or a
Future that somebody else settles.  The flow itself does no I/O and never blocks, so what it decides is the same for both clients.
"""

from __future__ import annotations

import asyncio
import inspect
import threading
from collections.abc import Callable, Generator
from concurrent.futures import Future
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from vaultd_client.errors import VaultdError

if TYPE_CHECKING:
    from collections.abc import Hashable

T = TypeVar("T")
Step = Callable[[Any], Any] | Future[Any]
Flow = Generator[Step, Any, T]


def run(flow: Flow[T], client: Any) -> T:
    """Run a flow with Client, in the caller's thread.  Raises what the flow does."""
    resume: Callable[[Any], Step] = flow.send
    value: Any = None
    try:
        while True:
            step = resume(value)
            try:
                value = step.result() if isinstance(step, Future) else step(client)
                resume = flow.send
            except BaseException as error:
                value, resume = error, flow.throw
    except StopIteration as done:
        return done.value  # type: ignore[no-any-return]


async def run_async(flow: Flow[T], client: Any) -> T:
    """Run a flow with AsyncClient, in the caller's task.  Raises what the flow does."""
    resume: Callable[[Any], Step] = flow.send
    value: Any = None
    try:
        while True:
            step = resume(value)
            try:
                if isinstance(step, Future):
                    value = await asyncio.wrap_future(step)
                else:
                    value = step(client)
                    if inspect.isawaitable(value):
                        value = await value
                resume = flow.send
            except BaseException as error:
                value, resume = error, flow.throw
    except StopIteration as done:
        return done.value  # type: ignore[no-any-return]


class SingleFlight(Generic[T]):
    """Callers who want the same thing at the same time wait for one fetch of it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._flights: dict[Hashable, Future[T | VaultdError | None]] = {}

    def fetch(self, key: Hashable, fetch: Callable[[], Flow[T]]) -> Flow[T]:
        """What `fetch` gives: ours, or that of whoever began before.  An error is everybody's; one who is cancelled is replaced."""
        while True:
            with self._lock:
                flight = self._flights.get(key)
                if flight is None:
                    mine = self._flights[key] = Future()
                    mine.set_running_or_notify_cancel()  # a waiter who is cancelled does not cancel it for the others
                    break
            landed = yield flight
            if isinstance(landed, VaultdError):
                raise landed.again()
            if landed is not None:
                return landed  # type: ignore[no-any-return]
        outcome: T | VaultdError | None = None
        try:
            outcome = yield from fetch()
            return outcome
        except VaultdError as error:
            outcome = error
            raise
        finally:
            with self._lock:
                del self._flights[key]
            mine.set_result(outcome)
