"""The plaintext listener: metrics for Prometheus, and health for those who cannot ask over gRPC.  Nothing of keys or callers' data.

    GET /metrics   the text that the scraper accepts
    GET /healthz   200 as long as the process answers
    GET /readyz    200 while the server serves, else 503: what `grpc.health.v1` says of the whole

One request per connection.  Whoever may connect is not known here, so that connections, their bytes and their time are bounded.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final, NamedTuple

import h11

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

MAX_CONNECTIONS: Final = 32
MAX_REQUEST_BYTES: Final = 8 * 1024
REQUEST_TIMEOUT_S: Final = 5.0
ANSWER_TIMEOUT_S: Final = 15.0
CLOSE_TIMEOUT_S: Final = 5.0
"""How long what was answered may be on its way to somebody who does not read it."""
TEXT: Final = "text/plain; charset=utf-8"


class Page(NamedTuple):
    """What is answered."""

    status: int
    content_type: str
    body: bytes


class PlainHost:
    """Serves a few pages over HTTP/1.1.  A page is asked for with the request's `Accept`."""

    def __init__(self, pages: Mapping[str, Callable[[str], Awaitable[Page]]]) -> None:
        self._pages = dict(pages)
        self._server: asyncio.Server | None = None
        self._open: set[asyncio.Task[None]] = set()

    async def listen(self, address: str) -> int:
        """Bind and serve; returns the port.  Raises OSError when it cannot be bound."""
        host, _, port = address.rpartition(":")
        self._server = await asyncio.start_server(
            self._accept, host.strip("[]"), int(port), limit=MAX_REQUEST_BYTES, backlog=MAX_CONNECTIONS
        )
        bound: int = self._server.sockets[0].getsockname()[1]
        return bound

    async def close(self) -> None:
        """Stop accepting, and end what is open."""
        if self._server is not None:
            self._server.close()
            for task in self._open:
                task.cancel()
            await asyncio.gather(*self._open, return_exceptions=True)
            await self._server.wait_closed()

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None  # noqa: S101  # a coroutine that runs is in a task
        try:
            if len(self._open) < MAX_CONNECTIONS:
                self._open.add(task)
                await self._serve(reader, writer)
        except (OSError, TimeoutError, asyncio.CancelledError):
            writer.transport.abort()  # gone, too slow, or the server stops
        finally:
            writer.close()
            try:
                async with asyncio.timeout(CLOSE_TIMEOUT_S):
                    await writer.wait_closed()
            except (OSError, TimeoutError, asyncio.CancelledError):
                writer.transport.abort()
            finally:
                self._open.discard(task)  # not before: it is open as long as bytes of it are kept

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connection = h11.Connection(h11.SERVER, max_incomplete_event_size=MAX_REQUEST_BYTES)
        try:
            async with asyncio.timeout(REQUEST_TIMEOUT_S):
                request = await _request(connection, reader)
            if request is None:
                return
            async with asyncio.timeout(ANSWER_TIMEOUT_S):
                page = await self._page(request)
                await _send(connection, writer, page, with_body=request.method != b"HEAD")
        except h11.RemoteProtocolError as error:
            if connection.our_state in {h11.IDLE, h11.SEND_RESPONSE}:
                async with asyncio.timeout(ANSWER_TIMEOUT_S):
                    page = Page(error.error_status_hint, TEXT, b"malformed request\n")
                    await _send(connection, writer, page, with_body=True)

    async def _page(self, request: h11.Request) -> Page:
        path = request.target.partition(b"?")[0].decode("ascii", "replace")
        make = self._pages.get(path)
        if make is None:
            return Page(404, TEXT, f"there are {', '.join(self._pages)}\n".encode())
        if request.method not in {b"GET", b"HEAD"}:
            return Page(405, TEXT, b"only GET and HEAD\n")
        accept = next((value for name, value in request.headers if name == b"accept"), b"")
        return await make(accept.decode("latin-1"))


async def _request(connection: h11.Connection, reader: asyncio.StreamReader) -> h11.Request | None:
    while True:
        event = connection.next_event()
        if event is h11.NEED_DATA:
            connection.receive_data(await reader.read(MAX_REQUEST_BYTES))
        elif isinstance(event, h11.Request):
            return event
        else:
            return None  # the connection closed without a request


async def _send(connection: h11.Connection, writer: asyncio.StreamWriter, page: Page, *, with_body: bool) -> None:
    headers = [
        ("content-type", page.content_type),
        ("content-length", str(len(page.body))),
        ("cache-control", "no-store"),
        ("x-content-type-options", "nosniff"),
        ("connection", "close"),
    ]
    writer.write(connection.send(h11.Response(status_code=page.status, headers=headers)) or b"")
    if with_body:
        writer.write(connection.send(h11.Data(data=page.body)) or b"")
    await writer.drain()
