"""Sends calls of AsyncClient: over which connection, how often, and until when."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import grpc

from vaultd_client.connection import CLOSE_GRACE_S, Connection
from vaultd_client.course import Course, Pilot
from vaultd_client.errors import ClientClosed, Refusal, VaultdError, error_of_call, make_error
from vaultd_client.tls import Material, TlsFiles, channel_options, credentials_of
from vaultd_client.trace import call_metadata

if TYPE_CHECKING:
    from collections.abc import AsyncIterable, AsyncIterator

    from vaultd_client.endpoints import Endpoint
    from vaultd_client.info import CallInfo
    from vaultd_client.method import Method
    from vaultd_client.settings import Settings


def _error_of(failed: grpc.aio.AioRpcError, method: Method[Any, Any]) -> VaultdError:
    trailing: Any = failed.trailing_metadata()
    return error_of_call(failed.code().name, failed.details() or "", trailing, method.path)


class AsyncTransport:
    """Connections of one identity to all endpoints.  Belongs to the event loop that runs when it is made."""

    def __init__(self, settings: Settings, files: TlsFiles) -> None:
        self._files = files
        self._settings = settings
        self.pilot = Pilot(settings.addresses)
        self._clock = asyncio.get_running_loop().time
        self._material: Material | None = None
        self._connections: dict[str, Connection[grpc.aio.Channel]] = {}
        self._closed = False
        self._closing: set[asyncio.Task[None]] = set()

    async def invoke(
        self,
        method: Method[Any, Any],
        request: Any,
        deadline: float,
        token: str | None,
        traceparent: str | None,
        info: CallInfo | None,
    ) -> Any:
        """Make a unary call, as often as it takes and is allowed.  Raises VaultdError."""
        metadata = call_metadata(token, traceparent)
        course = Course(self.pilot, method, deadline)
        while True:
            now = self._clock()
            try:
                endpoint = course.next(now)
                callable_ = self._connection(endpoint, now).callable(method, "unary_unary")
                call = callable_(request, timeout=deadline - now, metadata=metadata)
                answer = await call
            except grpc.aio.AioRpcError as failed:
                error = _error_of(failed, method)
            except VaultdError as refused:
                error = refused
            except asyncio.CancelledError:
                task = asyncio.current_task()
                if task is None or task.cancelling():
                    raise
                # Nobody cancelled us: gRPC says so when a connection is closed under a call.
                error = make_error(Refusal("UNAVAILABLE", "the connection was closed", "UNREACHABLE"), method.path)
            else:
                course.answered(info)
                if info is not None:
                    info.take(await call.trailing_metadata())
                return answer
            if self._closed:
                raise ClientClosed("the client was closed while the call was made")
            wait_s = course.failed(error, self._clock(), info)
            if wait_s is None:
                await asyncio.sleep(0)  # callers who ask again and again while nothing is sent leave a turn to others
                raise error from None
            await asyncio.sleep(wait_s)

    def _connection(self, endpoint: Endpoint, now: float) -> Connection[grpc.aio.Channel]:
        material = self._files.current(now)
        if material is not self._material:
            for old in self._connections.values():
                self._retire(old)
            self._connections = {}
            self._material = material
        found = self._connections.get(endpoint.address)
        if found is None:
            options = channel_options(self._settings, endpoint.address)
            channel = grpc.aio.secure_channel(endpoint.address, credentials_of(material), options=options)
            found = self._connections[endpoint.address] = Connection(channel)
        return found

    def _retire(self, connection: Connection[grpc.aio.Channel]) -> None:
        """Let calls under way end; the next ones go over a new connection with the new files."""
        task = asyncio.get_running_loop().create_task(connection.channel.close(CLOSE_GRACE_S))
        self._closing.add(task)
        task.add_done_callback(self._closing.discard)

    # -- streams: never repeated, since what was read of one cannot be taken back ------------------------------------------

    async def server_stream(
        self, method: Method[Any, Any], request: Any, timeout_s: float | None, metadata: Any, info: CallInfo | None
    ) -> AsyncIterator[Any]:
        """One request, many answers.  Raises VaultdError."""
        endpoint, connection = self._pick(method, info)
        call = connection.callable(method, "unary_stream")(request, timeout=timeout_s, metadata=metadata)
        async for answer in self._read(method, call, endpoint, info):
            yield answer

    async def bidi_stream(
        self,
        method: Method[Any, Any],
        requests: AsyncIterable[Any],
        timeout_s: float | None,
        metadata: Any,
        info: CallInfo | None,
    ) -> AsyncIterator[Any]:
        """Many requests, many answers.  Raises VaultdError."""
        endpoint, connection = self._pick(method, info)
        call = connection.callable(method, "stream_stream")(requests, timeout=timeout_s, metadata=metadata)
        async for answer in self._read(method, call, endpoint, info):
            yield answer

    async def client_stream(
        self,
        method: Method[Any, Any],
        requests: AsyncIterable[Any],
        timeout_s: float | None,
        metadata: Any,
        info: CallInfo | None,
    ) -> Any:
        """Many requests, one answer.  Raises VaultdError."""
        endpoint, connection = self._pick(method, info)
        call = connection.callable(method, "stream_unary")(requests, timeout=timeout_s, metadata=metadata)
        try:
            answer = await call
        except grpc.aio.AioRpcError as failed:
            raise self._failed(method, failed, endpoint) from None
        if info is not None:
            info.take(await call.trailing_metadata())
        return answer

    def _pick(self, method: Method[Any, Any], info: CallInfo | None) -> tuple[Endpoint, Connection[grpc.aio.Channel]]:
        now = self._clock()
        endpoint = self.pilot.endpoints.pick(now, (), method.path)
        if info is not None:
            info.address = endpoint.address
        return endpoint, self._connection(endpoint, now)

    async def _read(
        self, method: Method[Any, Any], call: Any, endpoint: Endpoint, info: CallInfo | None
    ) -> AsyncIterator[Any]:
        try:
            async for answer in call:
                endpoint.answered()
                yield answer
            if info is not None:
                info.take(await call.trailing_metadata())
        except grpc.aio.AioRpcError as failed:
            raise self._failed(method, failed, endpoint) from None
        finally:
            call.cancel()

    def _failed(self, method: Method[Any, Any], failed: grpc.aio.AioRpcError, endpoint: Endpoint) -> VaultdError:
        error = _error_of(failed, method)
        if error.code == "UNAVAILABLE" and not error.refusal.answered:
            endpoint.failed(self._clock())
        return error

    async def close(self) -> None:
        """Close all connections.  Calls under way end."""
        self._closed = True
        for connection in self._connections.values():
            await connection.channel.close(None)
        self._connections = {}
        for task in list(self._closing):
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task
