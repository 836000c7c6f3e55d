"""Client: the SDK for threads."""

from __future__ import annotations

import os
import threading
import time
import uuid
from typing import TYPE_CHECKING, Any, Final, Self

from vaultd_client.base import ClientBase
from vaultd_client.checksums import check_answer, fill_checksums
from vaultd_client.errors import ClientClosed, ForkedClient
from vaultd_client.followers import ThreadFollower, watch
from vaultd_client.generated.sync import SyncMethods
from vaultd_client.generated.table import BATCHES, WATCH
from vaultd_client.settings import Environment, TokenProvider
from vaultd_client.spans import whole_stream
from vaultd_client.sync_lanes import SyncLane
from vaultd_client.sync_transport import SyncTransport
from vaultd_client.trace import call_metadata

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from vaultd_client.info import CallInfo
    from vaultd_client.method import Method, Request, Response
    from vaultd_client.v1.watch_pb2 import WatchRequest, WatchResponse
    from vaultd_client.watching import Changes

MAX_LANES: Final = 256
"""With tokens there is a lane for each; those of tokens that are gone are dropped beyond this."""


class Client(ClientBase[TokenProvider], SyncMethods):
    """A vault, from any number of threads, as one identity.  `with Client.from_env() as vault: ...`

    One method per RPC, each of which returns the RPC's response message and raises VaultdError.  Calls that run at the same time
    are sent together unless `coalesce=False`.  Every call has a deadline: `timeout_s` of the call, or of the client, or 10 s for
    the use of keys and 30 s for others, all attempts together.

    Nothing is connected before the first call.  The client belongs to the process of that call: after a
    fork, make another one.
    Files of certificates are read again when they change.
    """

    def _prepare(self) -> None:
        self._lock = threading.Lock()
        self._transport: SyncTransport | None = None
        self._lanes: dict[tuple[Method[Any, Any], str | None], SyncLane] = {}
        self._follower: ThreadFollower | None = None

    @staticmethod
    def _token_of(found: Environment) -> TokenProvider | None:
        return found.token()

    reencrypt = SyncMethods.re_encrypt  # as permissions and documents spell it

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def close(self) -> None:
        """End calls under way and close all connections.  Idempotent."""
        if self._closed:
            return
        self._closed = True
        if self._transport is not None and self._pid == os.getpid():
            if self._follower is not None:
                self._follower.stop()
            self._transport.close()
            if self._follower is not None:
                self._follower.join()

    def follow_changes(self) -> Changes:
        """What Watch tells of keys and secrets, for caches: one stream in a background thread, from the first call of this on until
        the client is closed.
        """
        self._connected()
        with self._lock:
            if self._follower is None:
                self._follower = ThreadFollower(self._open_watch, self._changes)
        return self._changes

    def _open_watch(self, request: WatchRequest, timeout_s: float | None) -> Iterator[WatchResponse]:
        return self._one_stream(WATCH, request, timeout_s, None)

    def _connected(self) -> SyncTransport:
        """The transport of this process; raises UsageError elsewhere."""
        if self._closed:
            raise ClientClosed("the client was closed; make another one")
        if self._transport is None:
            with self._lock:
                if self._transport is None:
                    self._pid = os.getpid()
                    self._transport = SyncTransport(self._settings, self._files)
        if self._pid != os.getpid():
            raise ForkedClient("the client made calls before this process was forked; make one in each process")
        return self._transport

    def _unary(
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
        deadline = time.monotonic() + timeout_s
        token = self._fresh_token()
        traced = None if self._tracing is None else self._tracing.begin(method, request, info)
        if traced is None:
            answer = self._send(transport, method, request, deadline, token, self._trace(), info)
            if self._checksums:
                check_answer(method, answer)
        else:
            with traced:
                answer = self._send(transport, method, request, deadline, token, traced.traceparent, traced)
                if self._checksums:
                    check_answer(method, answer)
        return answer  # type: ignore[no-any-return]  # grpc's stubs know no types of messages

    def _send(
        self,
        transport: SyncTransport,
        method: Method[Any, Any],
        request: Any,
        deadline: float,
        token: str | None,
        traceparent: str | None,
        info: CallInfo | None,
    ) -> Any:
        batch_method = BATCHES.get(method) if self._settings.coalesce else None
        if batch_method is None:
            return transport.invoke(method, request, deadline, token, traceparent, info)
        lane = self._lanes.get((method, token)) or self._new_lane(transport, method, batch_method, token)
        return lane.call(request, deadline, info, traceparent)

    def _new_lane(
        self, transport: SyncTransport, method: Method[Any, Any], batch_method: Method[Any, Any], token: str | None
    ) -> SyncLane:
        with self._lock:
            if len(self._lanes) >= MAX_LANES:
                self._lanes = {key: lane for key, lane in self._lanes.items() if not lane.idle}
            lane = SyncLane(transport, method, batch_method, self._settings.batch, token)
            return self._lanes.setdefault((method, token), lane)

    def _fresh_token(self) -> str | None:
        # Asked in the caller's thread: a provider may look at who asks, and calls of two tokens never travel together.
        return None if self._token is None else self._token()

    def _server_stream(
        self, method: Method[Request, Response], request: Request, timeout_s: float | None, info: CallInfo | None
    ) -> Iterator[Response]:
        if method is WATCH:
            message: Any = request
            responses: Any = watch(
                lambda again, left_s: self._one_stream(WATCH, again, left_s, info), message, timeout_s
            )
            return responses  # type: ignore[no-any-return]  # of WATCH, which the checker cannot tell from `is`
        return self._one_stream(method, request, timeout_s, info)

    def _one_stream(
        self, method: Method[Request, Response], request: Request, timeout_s: float | None, info: CallInfo | None
    ) -> Iterator[Response]:
        transport = self._connected()
        token = self._fresh_token()
        tracing = None if method is WATCH else self._tracing  # which has no end to tell of
        with whole_stream(tracing, method, info, self._trace) as (call, traceparent):
            yield from transport.server_stream(method, request, timeout_s, call_metadata(token, traceparent), call)

    def _bidi_stream(
        self,
        method: Method[Request, Response],
        requests: Iterable[Request],
        timeout_s: float | None,
        info: CallInfo | None,
    ) -> Iterator[Response]:
        transport = self._connected()
        token = self._fresh_token()
        with whole_stream(self._tracing, method, info, self._trace) as (call, traceparent):
            yield from transport.bidi_stream(method, requests, timeout_s, call_metadata(token, traceparent), call)

    def _client_stream(
        self,
        method: Method[Request, Response],
        requests: Iterable[Request],
        timeout_s: float | None,
        info: CallInfo | None,
    ) -> Response:
        transport = self._connected()
        token = self._fresh_token()
        with whole_stream(self._tracing, method, info, self._trace) as (call, traceparent):
            metadata = call_metadata(token, traceparent)
            answer: Response = transport.client_stream(method, requests, timeout_s, metadata, call)
        return answer
