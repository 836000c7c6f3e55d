"""The loops that read Watch: one background follower for each client, and the public iterators that go on by themselves."""

from __future__ import annotations

import asyncio
import threading
import time
from contextlib import aclosing
from datetime import timedelta
from typing import TYPE_CHECKING, Final

from vaultd_client.errors import ClientClosed, DeadlineExceeded, Refusal, VaultdError, make_error
from vaultd_client.v1 import watch_pb2
from vaultd_client.watching import HEARTBEAT_S, KINDS, Changes, WatchCourse

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable, Iterator

    from vaultd_client.v1.watch_pb2 import WatchRequest, WatchResponse

METHOD: Final = "/vaultd.v1.AdminService/Watch"
FOLLOWED: Final = watch_pb2.WatchFilter(kinds=KINDS)


def _next_request(wanted: WatchRequest, course: WatchCourse) -> WatchRequest:
    request = watch_pb2.WatchRequest(filter=wanted.filter, resume_token=course.resume_token)
    if course.after_revision is not None and not course.resume_token:
        request.after_revision = course.after_revision
    if wanted.HasField("heartbeat_interval"):
        request.heartbeat_interval.CopyFrom(wanted.heartbeat_interval)
    return request


def _course_of(request: WatchRequest, *, endless: bool = False) -> WatchCourse:
    after = request.after_revision if request.HasField("after_revision") else None
    return WatchCourse(request.resume_token, after, endless=endless)


def _left(deadline: float | None) -> float | None:
    if deadline is None:
        return None
    left = deadline - time.monotonic()
    if left <= 0:
        raise DeadlineExceeded(Refusal("DEADLINE_EXCEEDED", "the watch's time is over", "DEADLINE_EXCEEDED"), METHOD)
    return left


def _follow_request() -> WatchRequest:
    request = watch_pb2.WatchRequest(filter=FOLLOWED)
    request.heartbeat_interval.FromTimedelta(timedelta(seconds=HEARTBEAT_S))
    return request


# -- threads ------------------------------------------------------------------------------------------------------------


def watch(
    open_stream: Callable[[WatchRequest, float | None], Iterator[WatchResponse]],
    request: WatchRequest,
    timeout_s: float | None,
) -> Iterator[WatchResponse]:
    """Responses, over as many streams as it takes.  Raises VaultdError for what does not pass."""
    course = _course_of(request)
    deadline = None if timeout_s is None else time.monotonic() + timeout_s
    while True:
        error: VaultdError | None = None
        try:
            for response in open_stream(_next_request(request, course), _left(deadline)):
                course.received(response)
                yield response
        except VaultdError as failed:
            error = failed
        wait_s, left_s = course.ended(error), _left(deadline)
        time.sleep(wait_s if left_s is None else min(wait_s, left_s))


class ThreadFollower:
    """Follows for Client, in a thread of its own that ends with the client."""

    def __init__(
        self, open_stream: Callable[[WatchRequest, float | None], Iterator[WatchResponse]], changes: Changes
    ) -> None:
        self._open_stream = open_stream
        self._changes = changes
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, name="vaultd-watch", daemon=True)
        self._thread.start()

    def _run(self) -> None:
        request, changes = _follow_request(), self._changes
        course = _course_of(request, endless=True)
        while not self._stopped.is_set():
            error: VaultdError | None = None
            try:
                begun = False
                for response in self._open_stream(_next_request(request, course), None):
                    if not begun:
                        begun = True
                        changes.begun()
                    changes.received(response)
                    course.received(response)
            except VaultdError as failed:
                error = failed
            except ClientClosed:
                return
            except Exception:  # noqa: S110  # also of who gives the tokens; callers hear of it by their own calls
                pass
            changes.lost()
            wait_s = course.ended(error)
            if course.has_gap:
                changes.missed()
            self._stopped.wait(wait_s)

    def stop(self) -> None:
        """Begin nothing more.  The stream under way ends with the connection."""
        self._stopped.set()

    def join(self) -> None:
        """Wait for the end, once connections are closed."""
        if self._thread is not threading.current_thread():
            self._thread.join()
        self._changes.missed()


# -- asyncio ------------------------------------------------------------------------------------------------------------


async def watch_async(
    open_stream: Callable[[WatchRequest, float | None], AsyncGenerator[WatchResponse]],
    request: WatchRequest,
    timeout_s: float | None,
) -> AsyncGenerator[WatchResponse]:
    """Responses, over as many streams as it takes.  Raises VaultdError for what does not pass."""
    course = _course_of(request)
    deadline = None if timeout_s is None else time.monotonic() + timeout_s
    while True:
        error: VaultdError | None = None
        try:
            async with aclosing(open_stream(_next_request(request, course), _left(deadline))) as stream:
                async for response in stream:
                    course.received(response)
                    yield response
        except VaultdError as failed:
            error = failed
        except asyncio.CancelledError:
            error = _connection_closed()
        wait_s, left_s = course.ended(error), _left(deadline)
        await asyncio.sleep(wait_s if left_s is None else min(wait_s, left_s))


class TaskFollower:
    """Follows for AsyncClient, in a task of its own that ends with the client."""

    def __init__(
        self, open_stream: Callable[[WatchRequest, float | None], AsyncGenerator[WatchResponse]], changes: Changes
    ) -> None:
        self._open_stream = open_stream
        self._changes = changes
        self._task = asyncio.get_running_loop().create_task(self._run(), name="vaultd-watch")

    async def _run(self) -> None:
        request, changes = _follow_request(), self._changes
        course = _course_of(request, endless=True)
        while True:
            error: VaultdError | None = None
            try:
                begun = False
                async with aclosing(self._open_stream(_next_request(request, course), None)) as stream:
                    async for response in stream:
                        if not begun:
                            begun = True
                            changes.begun()
                        changes.received(response)
                        course.received(response)
            except VaultdError as failed:
                error = failed
            except ClientClosed:
                return
            except Exception:  # noqa: S110  # also of who gives the tokens; callers hear of it by their own calls
                pass
            except asyncio.CancelledError:
                error = _connection_closed()
            finally:
                changes.lost()
            wait_s = course.ended(error)
            if course.has_gap:
                changes.missed()
            await asyncio.sleep(wait_s)

    async def stop(self) -> None:
        """End it, and wait for the end."""
        self._task.cancel()
        try:
            await asyncio.wait({self._task})
        finally:
            self._changes.missed()


def _connection_closed() -> VaultdError:
    """What gRPC tells by a cancellation that nobody asked for.  Raises CancelledError when somebody did."""
    task = asyncio.current_task()
    if task is None or task.cancelling():
        raise asyncio.CancelledError
    return make_error(Refusal("UNAVAILABLE", "the connection was closed", "UNREACHABLE"), METHOD)
