"""AsyncClient: the SDK for asyncio."""

from __future__ import annotations

import asyncio
import inspect
import os
import uuid
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING, Any, Final, Self

from vaultd_client.aio_transport import AsyncTransport
from vaultd_client.base import ClientBase
from vaultd_client.batching import too_late
from vaultd_client.checksums import check_answer, fill_checksums
from vaultd_client.errors import ClientClosed, ForkedClient, WrongEventLoop
from vaultd_client.followers import TaskFollower, watch_async
from vaultd_client.generated.aio import AsyncMethods
from vaultd_client.generated.table import BATCHES, WATCH
from vaultd_client.lanes import Lane
from vaultd_client.settings import AsyncTokenProvider, Environment
from vaultd_client.spans import whole_stream
from vaultd_client.trace import call_metadata

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Awaitable

    from vaultd_client.info import CallInfo
    from vaultd_client.method import Method, Request, Response
    from vaultd_client.v1.watch_pb2 import WatchRequest, WatchResponse
    from vaultd_client.watching import Changes

MAX_LANES: Final = 256
"""With tokens there is a lane for each; those of tokens that are gone are dropped beyond this."""


class AsyncClient(ClientBase[AsyncTokenProvider], AsyncMethods):
    """A vault, from one event loop, as one identity.  `async with AsyncClient.from_env() as vault: ...`

    One method per RPC, each of which returns the RPC's response message and raises VaultdError.  Calls that run at the same time
    are sent together unless `coalesce=False`.  Every call has a deadline: `timeout_s` of the call, or of the client, or 10 s for
    the use of keys and 30 s for others, all attempts together.

    Nothing is connected before the first call, and the client belongs to that call's event loop and process.  Files of
    certificates are read again when they change.
    """

    def _prepare(self) -> None:
        self._loop: asyncio.AbstractEventLoop | None = None
        self._transport: AsyncTransport | None = None
        self._lanes: dict[tuple[Method[Any, Any], str | None], Lane] = {}
        self._follower: TaskFollower | None = None

    @staticmethod
    def _token_of(found: Environment) -> AsyncTokenProvider | None:
        return found.async_token()

    reencrypt = AsyncMethods.re_encrypt  # as permissions and documents spell it

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *error: object) -> None:
        await self.close()

    async def close(self) -> None:
        """End calls under way and close all connections.  Idempotent."""
        if self._closed:
            return
        self._closed = True
        if self._transport is not None and self._pid == os.getpid():
            async with AsyncExitStack() as ending:  # all of them, even when we are cancelled meanwhile
                ending.push_async_callback(self._transport.close)
                for lane in self._lanes.values():
                    ending.push_async_callback(lane.close)
                if self._follower is not None:
                    ending.push_async_callback(self._follower.stop)

    def follow_changes(self) -> Changes:
        """What Watch tells of keys and secrets, for caches: one stream in the background, from the first call of this on until
        the client is closed.
        """
        self._connected()
        if self._follower is None:
            self._follower = TaskFollower(self._open_watch, self._changes)
        return self._changes

    def _open_watch(self, request: WatchRequest, timeout_s: float | None) -> AsyncGenerator[WatchResponse]:
        return self._one_stream(WATCH, request, timeout_s, None)

    def _connected(self) -> AsyncTransport:
        """The transport of this loop and process; raises UsageError elsewhere."""
        loop = asyncio.get_running_loop()
        if self._transport is not None and loop is self._loop and self._pid == os.getpid() and not self._closed:
            return self._transport
        if self._closed:
            raise ClientClosed("the client was closed; make another one")
        if self._transport is not None and self._pid != os.getpid():
            raise ForkedClient("the client made calls before this process was forked; make one in each process")
        if self._transport is not None:
            raise WrongEventLoop("the client belongs to the event loop of its first call; make one for each loop")
        self._loop, self._pid = loop, os.getpid()
        self._transport = AsyncTransport(self._settings, self._files)
        return self._transport

    async def _unary(
        self, method: Method[Request, Response], request: Request, timeout_s: float | None, info: CallInfo | None
    ) -> Response:
        transport = self._connected()
        message: Any = request
        if method.has_request_id and not message.request_id:
            message.request_id = str(uuid.uuid4())
        if self._checksums:
            fill_checksums(method, message)
        if timeout_s is None:
            timeout_s = self._settings.timeout_s or transport.pilot.config.timeout_s(method)
        deadline = asyncio.get_running_loop().time() + timeout_s
        token = None if self._token is None else await self._token_in_time(method, deadline)
        traced = None if self._tracing is None else self._tracing.begin(method, request, info)
        if traced is None:
            answer = await self._send(transport, method, request, deadline, token, self._trace(), info)
            if self._checksums:
                check_answer(method, answer)
        else:
            with traced:
                answer = await self._send(transport, method, request, deadline, token, traced.traceparent, traced)
                if self._checksums:
                    check_answer(method, answer)
        return answer  # type: ignore[no-any-return]  # grpc's stubs know no types of messages

    def _send(
        self,
        transport: AsyncTransport,
        method: Method[Any, Any],
        request: Any,
        deadline: float,
        token: str | None,
        traceparent: str | None,
        info: CallInfo | None,
    ) -> Awaitable[Any]:
        batch_method = BATCHES.get(method) if self._settings.coalesce else None
        if batch_method is None:
            return transport.invoke(method, request, deadline, token, traceparent, info)
        lane = self._lanes.get((method, token)) or self._new_lane(method, batch_method, token)
        return lane.call(request, deadline, info, traceparent)

    def _new_lane(self, method: Method[Any, Any], batch_method: Method[Any, Any], token: str | None) -> Lane:
        if len(self._lanes) >= MAX_LANES:
            self._lanes = {key: lane for key, lane in self._lanes.items() if not lane.idle}
        lane = Lane(self._connected(), method, batch_method, self._settings.batch, token)
        self._lanes[method, token] = lane
        return lane

    async def _token_in_time(self, method: Method[Any, Any], deadline: float) -> str | None:
        found = self._token() if self._token is not None else None
        if not inspect.isawaitable(found):
            return found
        try:
            async with asyncio.timeout_at(deadline) as time_left:
                return await found
        except TimeoutError:
            if time_left.expired():
                raise too_late(method) from None
            raise

    async def _fresh_token(self) -> str | None:
        # Asked in the caller's task: a provider may look at who asks, and calls of two tokens never travel together.
        if self._token is None:
            return None
        found = self._token()
        return await found if inspect.isawaitable(found) else found

    def _server_stream(
        self, method: Method[Request, Response], request: Request, timeout_s: float | None, info: CallInfo | None
    ) -> AsyncIterator[Response]:
        if method is WATCH:
            message: Any = request
            responses: Any = watch_async(
                lambda again, left_s: self._one_stream(WATCH, again, left_s, info), message, timeout_s
            )
            return responses  # type: ignore[no-any-return]  # of WATCH, which the checker cannot tell from `is`
        return self._one_stream(method, request, timeout_s, info)

    async def _one_stream(
        self, method: Method[Request, Response], request: Request, timeout_s: float | None, info: CallInfo | None
    ) -> AsyncGenerator[Response]:
        transport = self._connected()
        token = await self._fresh_token()
        tracing = None if method is WATCH else self._tracing  # which has no end to tell of
        with whole_stream(tracing, method, info, self._trace) as (call, traceparent):
            metadata = call_metadata(token, traceparent)
            async for answer in transport.server_stream(method, request, timeout_s, metadata, call):
                yield answer

    async def _bidi_stream(
        self,
        method: Method[Request, Response],
        requests: AsyncIterable[Request],
        timeout_s: float | None,
        info: CallInfo | None,
    ) -> AsyncIterator[Response]:
        transport = self._connected()
        token = await self._fresh_token()
        with whole_stream(self._tracing, method, info, self._trace) as (call, traceparent):
            metadata = call_metadata(token, traceparent)
            async for answer in transport.bidi_stream(method, requests, timeout_s, metadata, call):
                yield answer

    async def _client_stream(
        self,
        method: Method[Request, Response],
        requests: AsyncIterable[Request],
        timeout_s: float | None,
        info: CallInfo | None,
    ) -> Response:
        transport = self._connected()
        token = await self._fresh_token()
        with whole_stream(self._tracing, method, info, self._trace) as (call, traceparent):
            metadata = call_metadata(token, traceparent)
            answer: Response = await transport.client_stream(method, requests, timeout_s, metadata, call)
        return answer
