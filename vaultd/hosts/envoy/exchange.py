"""One call, as ASGI shows it: its messages, its answers, and whether its caller is still there."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final

from vaultd.hosts.envoy.wire import CONTENT_TYPE, Event, Messages, frame, only_message, status_headers
from vaultd.interceptors.call import ReaderGone

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable

    from vaultd.interceptors.call import Reply

_HEADERS: Final = [(b"content-type", CONTENT_TYPE), (b"grpc-accept-encoding", b"identity")]
_START: Final = {"type": "http.response.start", "status": 200, "headers": _HEADERS, "trailers": True}
BODY: Final = "http.response.body"
TRAILERS: Final = "http.response.trailers"
HEAR_OUT_S: Final = 0.05


class Exchange:
    """What `Call.receive` and `Call.send` do on this host.

    pyvoy acts when `send` is called; what it returns has to be awaited only for the reader's pace.
    """

    _messages: Messages | None = None
    """None while what comes is one whole message each time."""
    _over = _heard = _started = _asked = False
    deadline: float | None = None
    gone = late = False
    sent: Callable[[], None] | None = None
    """What to call once the answer is on the wire; None where nobody counts it."""

    def __init__(
        self,
        receive: Callable[[], asyncio.Future[Event]],
        send: Callable[[Event], Awaitable[None]],
        task: asyncio.Task[None],
        since: float,
    ) -> None:
        self._asgi_receive = receive
        self._asgi_send = send
        self.task = task
        self.since = since

    async def receive(self, on_part: Callable[[int], None] | None = None) -> bytes | None:
        """The next message, None at the end of the request.  Raises VaultdError for what is no message of ours."""
        messages = self._messages
        while True:
            if messages is not None:
                message = messages.take()
                if message is not None:
                    return message
                if self._over:
                    messages.require_whole()
                    return None
                if on_part is not None and messages.held:
                    on_part(messages.held)
            elif self._over:
                return None
            event = await self._asgi_receive()
            if event["type"] != "http.request":
                self._lost()
                raise asyncio.CancelledError
            self._heard = True
            if not event["more_body"]:
                self._over = True
            body = event["body"]
            if messages is None:
                message = only_message(body)
                if message is not None:
                    return message
                messages = self._messages = Messages()
            messages.feed(body)

    def _lost(self) -> None:
        self.gone = True
        if asyncio.current_task() is not self.task:
            self.task.cancel()

    async def send(self, body: bytes) -> None:
        """Send one of many messages; returns when Envoy takes more.  Raises ReaderGone."""
        if not self._started:
            self._started = True
            self._asgi_send(_START)
        try:
            await self._asgi_send({"type": BODY, "body": frame(body), "more_body": True})
        except OSError as error:  # pyvoy's ClientDisconnectedError
            self.gone = True
            raise ReaderGone from error

    def finish(self, reply: Reply) -> None:
        """Send how a unary call ended: one message, or a status alone."""
        if reply.code:
            self.end(reply.code, reply.text, reply.trailing)
            return
        # All is made before anything is sent: Envoy's thread then finds it together, and writes it at once.
        body = {"type": BODY, "body": frame(reply.body)}
        trailers = {"type": TRAILERS, "headers": status_headers(0, "", reply.trailing)}
        send = self._asgi_send
        send(_START)
        send(body)
        send(trailers)

    def end(self, code: int, text: str, trailing: Iterable[tuple[str, str | bytes]] = ()) -> None:
        """Send a status: behind the messages that were sent, or alone."""
        headers = status_headers(code, text, trailing)
        if self._started:
            self._asgi_send({"type": BODY, "body": b""})
            self._asgi_send({"type": TRAILERS, "headers": headers})
        else:
            self._asgi_send({"type": "http.response.start", "status": 200, "headers": [*_HEADERS, *headers]})
            self._asgi_send({"type": BODY, "body": b""})

    async def hear_out(self) -> None:
        """Before a stream is refused: let what the caller sends first arrive, for a moment.

        Envoy resets a request that is answered before its end, and clients whose message is on its way then report that.
        """
        if not (self._heard or self._over or self._started or self.gone):
            await asyncio.wait({asyncio.ensure_future(self._asgi_receive())}, timeout=HEAR_OUT_S)

    def refuse(self, status: int, text: str) -> None:
        """Answer what is not gRPC, over HTTP."""
        headers = [(b"content-type", b"text/plain; charset=utf-8")]
        self._asgi_send({"type": "http.response.start", "status": status, "headers": headers})
        self._asgi_send({"type": BODY, "body": text.encode()})

    def look(self) -> None:
        """Find out whether the caller is still there, when nobody waits to hear of it: cancels the call when it is not.

        Of a request that is read to its end, pyvoy tells only who asks.
        """
        if not self._over or self.gone:
            return
        answered = self._asgi_receive()
        if isinstance(
            answered, asyncio.Future
        ):  # else the request ended with its headers, and pyvoy has nothing to tell
            answered.add_done_callback(self._looked)

    def end_late(self) -> None:
        """Its deadline has passed.  Once: what cleans up behind it is not to be disturbed again."""
        if not self.late:
            self.late = True
            self.task.cancel()

    def look_whether_sent(self) -> None:
        """Find out whether the answer is on the wire, or was dropped: `sent` is called and forgotten then.

        A request is at its end for pyvoy when Envoy has nothing of its answer any more.
        """
        if not self._asked:
            answered = self._asgi_receive()
            self._asked = isinstance(answered, asyncio.Future)
            if self._asked:
                answered.add_done_callback(self._told)
            else:
                self._is_sent()

    def _told(self, answered: asyncio.Future[Event]) -> None:
        self._asked = False
        if answered.cancelled() or answered.result()["type"] == "http.disconnect":
            self._is_sent()

    def _is_sent(self) -> None:
        sent, self.sent = self.sent, None
        if sent is not None:
            sent()

    def _looked(self, answered: asyncio.Future[Event]) -> None:
        if not answered.cancelled() and answered.result()["type"] == "http.disconnect" and not self.gone:
            self.gone = True
            self.task.cancel()
