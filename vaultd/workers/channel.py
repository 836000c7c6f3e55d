"""The control socket between the supervisor and a worker: requests and notices, both ways, over a socket pair.

A frame is a msgpack list: number, kind, body.  A notice has the number 0; a request a positive one, its answer the negative of
that, with the kind `ok` or `failed`.  Both ends run the same release: a worker is started by its supervisor, and a rolling
restart to another release needs this to stay as it is.
"""

from __future__ import annotations

import asyncio
import itertools
from typing import TYPE_CHECKING, Any, Final

import msgpack

if TYPE_CHECKING:
    import socket
    from collections.abc import Awaitable, Callable

MAX_FRAME_BYTES: Final = 64 * 1024 * 1024
NOTICE: Final = 0
OK: Final = "ok"
FAILED: Final = "failed"

Body = dict[str, Any]


class ChannelClosed(Exception):
    """The other end is gone, said no, or did not answer in time."""


class Channel(asyncio.Protocol):
    """One end.  `handle` is called with each notice and request, in order of arrival, each in a task of its own.

    `on_end` is told once when the other end is gone.  One event loop.
    """

    def __init__(
        self, handle: Callable[[str, Body], Awaitable[Body | None]], on_end: Callable[[], None] = lambda: None
    ) -> None:
        self._handle = handle
        self._on_end = on_end
        self._incoming = msgpack.Unpacker(max_buffer_size=MAX_FRAME_BYTES)
        self._numbers = itertools.count(1)
        self._waiting: dict[int, asyncio.Future[Body]] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._transport: asyncio.Transport | None = None
        self.closed = False

    @classmethod
    async def attach(
        cls,
        sock: socket.socket,
        handle: Callable[[str, Body], Awaitable[Body | None]],
        on_end: Callable[[], None] = lambda: None,
    ) -> Channel:
        """Speak over a connected socket, which is the channel's from now on."""
        sock.setblocking(False)
        loop = asyncio.get_running_loop()
        _, channel = await loop.create_connection(lambda: cls(handle, on_end), sock=sock)
        return channel

    # -- sending --------------------------------------------------------------------------------------------------------

    def tell(self, kind: str, **body: Any) -> None:
        """Send a notice; one that nobody can receive any more is dropped."""
        self._send(NOTICE, kind, body)

    async def ask(self, kind: str, timeout_s: float, **body: Any) -> Body:
        """Send a request and return its answer; raises ChannelClosed."""
        if self.closed:
            raise ChannelClosed("the other end is gone")
        number = next(self._numbers)
        future: asyncio.Future[Body] = asyncio.get_running_loop().create_future()
        self._waiting[number] = future
        try:
            self._send(number, kind, body)
            async with asyncio.timeout(timeout_s):
                return await future
        except TimeoutError:
            raise ChannelClosed(f"no answer to {kind} within {timeout_s:g} s") from None
        finally:
            del self._waiting[number]

    def _send(self, number: int, kind: str, body: Body) -> None:
        if self._transport is not None and not self.closed:
            self._transport.write(msgpack.packb((number, kind, body)))

    def close(self) -> None:
        """Hang up."""
        if self._transport is not None:
            self._transport.close()

    # -- receiving ------------------------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """See asyncio.Protocol."""
        assert isinstance(transport, asyncio.Transport)  # noqa: S101  # of a stream socket it is
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        """See asyncio.Protocol."""
        self._incoming.feed(data)
        for number, kind, body in self._incoming:
            if number < 0:
                self._settle(-number, kind, body)
            else:
                task = asyncio.get_running_loop().create_task(self._serve(number, kind, body))
                self._tasks.add(task)
                task.add_done_callback(self._tasks.discard)

    def _settle(self, number: int, kind: str, body: Body) -> None:
        future = self._waiting.get(number)
        if future is None or future.done():
            return
        if kind == OK:
            future.set_result(body)
        else:
            future.set_exception(ChannelClosed(str(body.get("text", "it was refused"))))

    async def _serve(self, number: int, kind: str, body: Body) -> None:
        outcome: tuple[str, Body] = FAILED, {"text": f"{kind} failed"}
        try:
            outcome = OK, await self._handle(kind, body) or {}
        except ChannelClosed as error:
            outcome = FAILED, {"text": str(error)}
        finally:  # a fault of ours must not let the other end wait; the loop reports it
            if number:
                self._send(-number, *outcome)

    def connection_lost(self, exc: Exception | None) -> None:
        """See asyncio.Protocol."""
        del exc
        self.closed = True
        for future in self._waiting.values():
            if not future.done():
                future.set_exception(ChannelClosed("the other end is gone"))
        self._on_end()
