"""The ASGI application: every request of a listener becomes a Call of the chain, and its Reply an answer."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Any, Final

from vaultd.hosts.envoy.exchange import Exchange
from vaultd.hosts.envoy.wire import CONTENT_TYPE, decode_binary, is_grpc, parse_timeout
from vaultd.interceptors.call import Call, Peer
from vaultd.interceptors.rounds import HELD

if TYPE_CHECKING:
    from vaultd.hosts.envoy.peers import Certificates
    from vaultd.interceptors.chain import Chain

MAX_CALLS: Final = 4096
MAX_METADATA_BYTES: Final = 16 * 1024
HEADER_OVERHEAD_BYTES: Final = 32
"""What each header counts beside name and value (RFC 9113, section 6.5.2)."""
LOOK_S: Final = 0.1
"""How often calls are looked at whose callers may be gone."""
MOST_BETWEEN_LOOKS_S: Final = 0.25
LATE_S: Final = 0.001
"""A deadline has passed when the clock of the loop, which counts milliseconds, is past it for sure."""
CANCELLED, INVALID_ARGUMENT, DEADLINE_EXCEEDED, RESOURCE_EXHAUSTED, UNAVAILABLE = 1, 3, 4, 8, 14
_CERTIFICATE, _CONTENT, _TIMEOUT, _TE = b"x-forwarded-client-cert", b"content-type", b"grpc-timeout", b"te"
_NO_METADATA: Final = frozenset(
    {
        _CERTIFICATE,
        _CONTENT,
        _TIMEOUT,
        _TE,
        b"host",
        b"user-agent",
        b"accept-encoding",
        b"grpc-encoding",
        b"grpc-accept-encoding",
        b"content-length",
        b"forwarded",
        b"x-forwarded-for",
        b"x-forwarded-proto",
        b"x-request-id",
    }
)
"""Headers that become something else than metadata.  What proxies write says nothing here, since there is none."""
_new_peer: Final = tuple.__new__  # half the price of Peer(...)


class Calls:
    """The calls under way of all listeners of a host."""

    def __init__(self) -> None:
        self._open: dict[Exchange, float] = {}
        self._unsent: dict[Exchange, float] = {}
        self._timer: asyncio.TimerHandle | None = None
        self.closing = False

    def __len__(self) -> int:
        """Return how many there are."""
        return len(self._open)

    def enter(self, exchange: Exchange) -> bool:
        """A call begins, unless the host is closing or has as many as it may."""
        if self.closing or len(self._open) >= MAX_CALLS:
            return False
        self._open[exchange] = exchange.since + LOOK_S
        if self._timer is None:
            self._timer = exchange.task.get_loop().call_later(LOOK_S, self._sweep)
        return True

    def leave(self, exchange: Exchange) -> None:
        """A call is over."""
        del self._open[exchange]
        if exchange.sent is not None:  # its answer is on its way, and its reader may be slow
            self._unsent[exchange] = 0.0

    def _sweep(self) -> None:
        # One timer for all: most calls are over before it sees them.  The longer one lasts, the less often it is looked at.
        loop = asyncio.get_running_loop()
        now = loop.time()
        try:
            for exchange, due in self._open.items():
                if exchange.deadline is not None and now > exchange.deadline + LATE_S:
                    exchange.end_late()
                elif now >= due:
                    self._open[exchange] = now + min(MOST_BETWEEN_LOOKS_S, now - exchange.since)
                    exchange.look()
            for exchange in [one for one, due in self._unsent.items() if now >= due]:
                if exchange.sent is None:
                    del self._unsent[exchange]
                else:
                    self._unsent[exchange] = now + min(MOST_BETWEEN_LOOKS_S, now - exchange.since)
                    exchange.look_whether_sent()
        finally:
            self._timer = loop.call_later(LOOK_S, self._sweep) if self._open or self._unsent else None

    async def drain(self, grace_s: float) -> None:
        """Take no more; let those under way finish within the grace, then end them, and wait until they have."""
        self.closing = True
        until = asyncio.get_running_loop().time() + grace_s
        while self._open and (left := until - asyncio.get_running_loop().time()) > 0:
            await asyncio.wait({exchange.task for exchange in self._open}, timeout=left)
        for exchange in list(self._open):
            exchange.task.cancel()
        while self._open:
            await asyncio.wait({exchange.task for exchange in self._open})
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None


class GrpcApp:
    """One listener's application.  `certificates` is None where clients show none, and nobody may say so in a header."""

    def __init__(self, chain: Chain, calls: Calls, certificates: Certificates | None) -> None:
        self._chain = chain
        self._calls = calls
        self._certificates = certificates

    async def __call__(self, scope: dict[str, Any], receive: Any, send: Any) -> None:
        """Serve a request.  Raises nothing: pyvoy would write it to standard error."""
        task = asyncio.current_task()
        assert task is not None  # noqa: S101  # a coroutine that runs is in a task
        now = time.monotonic()
        exchange = Exchange(receive, send, task, now)
        calls = self._calls
        call = self._call(scope, exchange, now)
        if call is None:
            return
        if not calls.enter(exchange):
            if calls.closing:
                exchange.end(UNAVAILABLE, "the server is stopping; call another one, or again in a moment")
            else:
                exchange.end(RESOURCE_EXHAUSTED, "too many calls are under way; call again in a moment")
            return
        try:
            if self._chain.streams(call.method):
                exchange.deadline = call.deadline
                reply = await self._chain.stream(call)
                if reply.code:
                    await exchange.hear_out()
                exchange.end(reply.code, reply.text, reply.trailing)
            else:
                call.answer = exchange.finish
                reply = await self._chain.unary(call)
                if reply is not HELD:
                    exchange.sent = call.sent
                    exchange.finish(reply)
        except asyncio.CancelledError:
            if not exchange.gone:
                late = exchange.deadline is not None and time.monotonic() >= exchange.deadline
                code, text = (DEADLINE_EXCEEDED, "deadline exceeded") if late else (CANCELLED, "the call was ended")
                exchange.end(UNAVAILABLE if calls.closing else code, "the server stopped" if calls.closing else text)
        finally:
            calls.leave(exchange)

    def _call(self, scope: dict[str, Any], exchange: Exchange, now: float) -> Call | None:
        """The call that a request is, or None when it was refused as no gRPC."""
        headers = scope["headers"]
        known = dict(headers)  # of what is there twice, and is no metadata, the last one
        metadata: list[tuple[str, str | bytes]] = []
        size = 0
        if not _NO_METADATA.issuperset(known):
            for name, value in headers:
                if name not in _NO_METADATA:
                    size += len(name) + len(value) + HEADER_OVERHEAD_BYTES
                    _add(metadata, name, value)
        if scope["method"] != "POST":
            exchange.refuse(405, "only POST: this is a gRPC server\n")
            return None
        content = known.get(_CONTENT, b"")
        if content != CONTENT_TYPE and not is_grpc(content):
            exchange.refuse(415, "this is a gRPC server\n")
            return None
        if known.get(_TE) != b"trailers":
            exchange.end(
                INVALID_ARGUMENT, "the header `te: trailers` is missing; the client or a proxy does not speak gRPC"
            )
            return None
        if size > MAX_METADATA_BYTES:
            exchange.end(RESOURCE_EXHAUSTED, "the metadata is larger than 16 KiB")
            return None
        timeout = known.get(_TIMEOUT)
        seconds = None if timeout is None else parse_timeout(timeout)
        certificates = b""
        if self._certificates is not None and (shown := known.get(_CERTIFICATE)) is not None:
            certificates = self._certificates.of(shown)
        path, query = scope["raw_path"], scope["query_string"]
        method = (path + b"?" + query if query else path).decode("latin-1")
        address, port = scope["client"] or ("", 0)
        peer = f"ipv6:[{address}]:{port}" if ":" in address else f"ipv4:{address}:{port}"
        deadline = None if seconds is None else now + seconds
        return Call(method, _new_peer(Peer, (peer, certificates)), metadata, deadline, exchange.receive, exchange.send)


def _add(metadata: list[tuple[str, str | bytes]], name: bytes, value: bytes) -> None:
    if name.startswith((b"x-envoy-", b":")):
        return
    if name == b"authorization":
        # Envoy joins what was there twice.  No credential has a comma: it stays two.
        metadata += [("authorization", part.strip().decode("latin-1")) for part in value.split(b",")]
    elif name.endswith(b"-bin"):
        decoded = decode_binary(value)
        if decoded is not None:
            metadata.append((name.decode("latin-1"), decoded))
    else:
        metadata.append((name.decode("latin-1"), value.decode("latin-1")))
