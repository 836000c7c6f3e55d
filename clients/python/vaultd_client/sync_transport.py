"""Sends calls of Client: over which connection, how often, and until when.  Threads share it."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING, Any

import grpc

from vaultd_client.connection import CLOSE_GRACE_S, Connection
from vaultd_client.course import Course, Pilot
from vaultd_client.errors import ClientClosed, VaultdError, error_of_call
from vaultd_client.tls import Material, TlsFiles, channel_options, credentials_of
from vaultd_client.trace import call_metadata

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from vaultd_client.endpoints import Endpoint
    from vaultd_client.info import CallInfo
    from vaultd_client.method import Method
    from vaultd_client.settings import Settings


class _Connection(Connection[grpc.Channel]):
    """A channel of threads, which is mended while no call waits on it."""

    __slots__ = ("_mending",)

    def __init__(self, channel: grpc.Channel) -> None:
        super().__init__(channel)
        self._mending = False

    def mend(self) -> None:
        """After a call that found no connection: connect again behind the calls, until there is one.

        A channel of threads moves only while somebody waits on it, and a call on one that is broken does not wait.  So callers with
        pauses between their calls would find the server gone for ever.  gRPC's own thread waits, and ends with the mending.
        """
        if not self._mending:
            self._mending = True
            self.channel.subscribe(self._on_state, try_to_connect=True)

    def _on_state(self, state: grpc.ChannelConnectivity) -> None:
        if state is grpc.ChannelConnectivity.READY:
            self.channel.unsubscribe(self._on_state)
            self._mending = False


class SyncTransport:
    """Connections of one identity to all endpoints."""

    def __init__(self, settings: Settings, files: TlsFiles) -> None:
        self._files = files
        self._settings = settings
        self._lock = threading.Lock()  # of the connections; endpoints and budget are advice, and may be a little off
        self._material: Material | None = None
        self._connections: dict[str, _Connection] = {}
        self._retired: list[tuple[float, _Connection]] = []
        self._closed = False
        self.pilot = Pilot(settings.addresses)

    def invoke(
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
            now = time.monotonic()
            try:
                endpoint = course.next(now)
                callable_ = self._connection(endpoint, now).callable(method, "unary_unary")
                answer, call = callable_.with_call(request, timeout=deadline - now, metadata=metadata)
            except grpc.RpcError as failed:
                error = _error_of(failed, method)
                self._mend(error, endpoint)
            except VaultdError as refused:
                error = refused
            except ValueError:
                if self._closed:  # gRPC's word for a call on a closed channel
                    raise ClientClosed("the client was closed while the call was made") from None
                raise
            else:
                course.answered(info)
                if info is not None:
                    info.take(call.trailing_metadata())
                return answer
            if self._closed:
                raise ClientClosed("the client was closed while the call was made")
            wait_s = course.failed(error, time.monotonic(), info)
            if wait_s is None:
                raise error from None
            time.sleep(wait_s)

    def _connection(self, endpoint: Endpoint, now: float) -> _Connection:
        with self._lock:
            if self._closed:
                raise ClientClosed("the client was closed while the call was made")
            material = self._files.current(now)
            if material is not self._material:
                # Calls under way end on the old connections, which are closed once their time is over.
                self._retired += [(now + CLOSE_GRACE_S, each) for each in self._connections.values()]
                self._connections = {}
                self._material = material
            while self._retired and self._retired[0][0] <= now:
                self._retired.pop(0)[1].channel.close()
            found = self._connections.get(endpoint.address)
            if found is None:
                options = channel_options(self._settings, endpoint.address)
                channel = grpc.secure_channel(endpoint.address, credentials_of(material), options=options)
                found = self._connections[endpoint.address] = _Connection(channel)
            return found

    # -- streams: never repeated, since what was read of one cannot be taken back ------------------------------------------

    def server_stream(
        self, method: Method[Any, Any], request: Any, timeout_s: float | None, metadata: Any, info: CallInfo | None
    ) -> Iterator[Any]:
        """One request, many answers.  Raises VaultdError."""
        endpoint, connection = self._pick(method, info)
        call = connection.callable(method, "unary_stream")(request, timeout=timeout_s, metadata=metadata)
        yield from self._read(method, call, endpoint, info)

    def bidi_stream(
        self,
        method: Method[Any, Any],
        requests: Iterable[Any],
        timeout_s: float | None,
        metadata: Any,
        info: CallInfo | None,
    ) -> Iterator[Any]:
        """Many requests, many answers.  Raises VaultdError."""
        endpoint, connection = self._pick(method, info)
        call = connection.callable(method, "stream_stream")(iter(requests), timeout=timeout_s, metadata=metadata)
        yield from self._read(method, call, endpoint, info)

    def client_stream(
        self,
        method: Method[Any, Any],
        requests: Iterable[Any],
        timeout_s: float | None,
        metadata: Any,
        info: CallInfo | None,
    ) -> Any:
        """Many requests, one answer.  Raises VaultdError."""
        endpoint, connection = self._pick(method, info)
        make = connection.callable(method, "stream_unary")
        try:
            answer, call = make.with_call(iter(requests), timeout=timeout_s, metadata=metadata)
        except grpc.RpcError as failed:
            raise self._failed(method, failed, endpoint) from None
        if info is not None:
            info.take(call.trailing_metadata())
        return answer

    def _pick(self, method: Method[Any, Any], info: CallInfo | None) -> tuple[Endpoint, _Connection]:
        now = time.monotonic()
        endpoint = self.pilot.endpoints.pick(now, (), method.path)
        if info is not None:
            info.address = endpoint.address
        return endpoint, self._connection(endpoint, now)

    def _read(self, method: Method[Any, Any], call: Any, endpoint: Endpoint, info: CallInfo | None) -> Iterator[Any]:
        try:
            for answer in call:
                endpoint.answered()
                yield answer
            if info is not None:
                info.take(call.trailing_metadata())
        except grpc.RpcError as failed:
            raise self._failed(method, failed, endpoint) from None
        finally:
            call.cancel()

    def _failed(self, method: Method[Any, Any], failed: grpc.RpcError, endpoint: Endpoint) -> VaultdError:
        error = _error_of(failed, method)
        if error.code == "UNAVAILABLE" and not error.refusal.answered:
            endpoint.failed(time.monotonic())
            self._mend(error, endpoint)
        return error

    def _mend(self, error: VaultdError, endpoint: Endpoint) -> None:
        if error.code != "UNAVAILABLE" or error.refusal.answered:
            return
        with self._lock:
            connection = self._connections.get(endpoint.address)
            if connection is not None:
                connection.mend()

    def close(self) -> None:
        """Close all connections.  Calls under way end."""
        with self._lock:
            self._closed = True
            for connection in [*self._connections.values(), *(one for _, one in self._retired)]:
                connection.channel.close()
            self._connections = {}
            self._retired = []


def _error_of(failed: Any, method: Method[Any, Any]) -> VaultdError:
    return error_of_call(failed.code().name, failed.details() or "", failed.trailing_metadata(), method.path)
