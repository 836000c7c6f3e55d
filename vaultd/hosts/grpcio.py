"""The grpc.aio host: raw bytes in, raw bytes out.

Unary methods are registered as stream-unary without a deserializer, for two reasons that ordinary handlers cannot mend: a
malformed message would be refused before any of our code runs, and a caller that opens a call and sends nothing would hold
its place for ever.  Errors leave through `abort` only, so no exception text of ours reaches the wire.
"""

from __future__ import annotations

import asyncio
import time
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, Final

import grpc

from vaultd.hosts.transport import is_restricted
from vaultd.interceptors.call import Call, Peer, ReaderGone

if TYPE_CHECKING:
    from collections.abc import Callable

    from vaultd.interceptors.chain import Chain

MAX_MESSAGE_BYTES: Final = 4 * 1024 * 1024
MAX_RPCS: Final = 4096
EOF: Final = grpc.aio.EOF  # type: ignore[attr-defined]  # missing in the stubs
_CODES: Final = {code.value[0]: code for code in grpc.StatusCode}

OPTIONS: Final = (
    ("grpc.max_concurrent_streams", 100),  # rapid reset, fairness between connections
    # With the limit above, Core's own overload protection resets streams of honest clients that start more at once
    # than the connection may have (45 % of 200 calls); the caps of the chain do its work, and say why.
    ("grpc.http.overload_protection", 0),
    ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
    ("grpc.max_send_message_length", MAX_MESSAGE_BYTES),
    ("grpc.max_metadata_size", 8 * 1024),
    ("grpc.absolute_max_metadata_size", 16 * 1024),
    ("grpc.server_handshake_timeout_ms", 5_000),  # TCP connections that never speak
    ("grpc.max_connection_age_ms", 300_000),  # bounds the use of a certificate that expired meanwhile
    ("grpc.max_connection_age_grace_ms", 30_000),
    ("grpc.max_connection_idle_ms", 300_000),
    ("grpc.keepalive_time_ms", 60_000),
    ("grpc.keepalive_timeout_ms", 20_000),
    ("grpc.http2.min_ping_interval_without_data_ms", 30_000),
    ("grpc.http2.max_ping_strikes", 2),
    ("grpc.so_reuseport", 0),  # no other local process may share the port; with workers they do, and then it is 1
    ("grpc.enable_channelz", 0),
    ("grpc.default_compression_algorithm", 0),
    ("grpc.compression_enabled_algorithms_bitset", 1),  # identity only: no bombs, no side channel
)

TlsConfig = tuple[bytes, bytes, bytes]
"""Private key, certificate chain, client certificate authorities; each PEM."""


_metadata: Final[ContextVar[Any]] = ContextVar("metadata of the call that this task serves", default=None)


class _Handlers(grpc.GenericRpcHandler):  # type: ignore[type-arg]  # generic in the stubs only
    """Gives every method, known or not, to the chain."""

    def __init__(self, chain: Chain) -> None:
        self._chain = chain
        self._known: dict[str, Any] = {}

    def service(self, details: Any) -> Any:
        method = details.method
        # grpc has made it for this look-up, and would make it again when asked.  It looks up and serves in one task.
        _metadata.set(details.invocation_metadata)
        handler = self._known.get(method)
        if handler is None:
            handler = _stream(self._chain, method) if self._chain.streams(method) else _unary(self._chain, method)
            if self._chain.serves(method):  # what callers invent is not kept
                self._known[method] = handler
        return handler


def _stream(chain: Chain, method: str) -> Any:
    async def stream(requests: Any, context: Any) -> None:
        del requests
        _, code, text, trailing = await chain.stream(_call(method, context))
        if code:
            await context.abort(_CODES[code], text, trailing)
        context.set_trailing_metadata(trailing)

    return grpc.stream_stream_rpc_method_handler(stream)


def _unary(chain: Chain, method: str) -> Any:
    async def unary(requests: Any, context: Any) -> bytes:
        del requests
        call = _call(method, context)
        body, code, text, trailing = await chain.unary(call)
        if call.sent is not None:
            _when_sent(call.sent)
        if code:
            await context.abort(_CODES[code], text, trailing)
        context.set_trailing_metadata(trailing)
        return body

    return grpc.stream_unary_rpc_method_handler(unary)


def _when_sent(sent: Callable[[], None]) -> None:
    # The task that runs now is grpc's: it is over once Core has written the answer, or dropped it with the call.
    task = asyncio.current_task()
    assert task is not None  # noqa: S101  # a coroutine that runs is in a task
    task.add_done_callback(lambda _: sent())


def _call(method: str, context: Any) -> Call:
    remaining = context.time_remaining()
    deadline = None if remaining is None else time.monotonic() + remaining

    async def receive(on_part: Callable[[int], None] | None = None) -> bytes | None:
        del on_part  # Core keeps what is not whole, and does not tell
        message = await context.read()
        return None if message is EOF else message

    async def send(body: bytes) -> None:
        try:
            await context.write(body)
        except (grpc.aio.UsageError, grpc.aio.InternalError) as error:
            raise ReaderGone from error

    metadata = _metadata.get()
    if metadata is None:
        metadata = context.invocation_metadata()
    return Call(method, _peer(context), metadata, deadline, receive, send)


def _peer(context: Any) -> Peer:
    # auth_context, never peer_identities(): that falls back to the common name of a certificate without SANs.
    # `x509_pem_cert` is the certificate whose key the client holds.  `x509_pem_cert_chain` is whatever else it sent: public
    # certificates of others among them, so it comes behind the leaf and never in its place.
    auth = context.auth_context()
    leaf, others = auth.get("x509_pem_cert") or (b"",), auth.get("x509_pem_cert_chain") or (b"",)
    return Peer(context.peer(), leaf[0] + others[0] if leaf[0] else b"")


class GrpcHost:
    """A grpc.aio server on one mTLS listener, and perhaps one that asks for no client certificate."""

    def __init__(
        self,
        chain: Chain,
        read_tls: Callable[[], TlsConfig],
        tls_changed: Callable[[], bool],
        *,
        share_port: bool = False,
    ) -> None:
        """`read_tls` gives the files' contents; `tls_changed` is asked once per handshake and must be cheap.

        share_port: other workers listen on the same port, and the kernel deals out connections.
        """
        options = [(name, int(share_port) if name == "grpc.so_reuseport" else value) for name, value in OPTIONS]
        self._server = grpc.aio.server(options=options, maximum_concurrent_rpcs=MAX_RPCS, compression=None)
        self._server.add_generic_rpc_handlers((_Handlers(chain),))
        self._read_tls = read_tls
        self._tls_changed = tls_changed
        self._files: TlsConfig = (b"", b"", b"")

    def _bind(self, address: str, *, require_client_certificate: bool) -> int:
        if not is_restricted():
            raise RuntimeError("restrict_transport() must run before grpc is imported: TLS 1.2 would be accepted")

        def configuration(files: TlsConfig) -> Any:
            key, certificate, authorities = files
            roots = authorities if require_client_certificate else None
            return grpc.ssl_server_certificate_configuration([(key, certificate)], root_certificates=roots)

        self._files = self._read_tls()
        served = [self._files]

        def fetch() -> Any:
            # Whichever listener asks first reads the files; the other one still sees that they are not those it serves.
            if self._tls_changed():
                self._files = self._read_tls()
            if self._files is served[0]:
                return None
            served[0] = self._files
            return configuration(self._files)

        credentials = grpc.dynamic_ssl_server_credentials(
            configuration(self._files), fetch, require_client_authentication=require_client_certificate
        )
        try:
            port: int = self._server.add_secure_port(address, credentials)
        except RuntimeError as error:
            raise OSError(f"cannot listen on {address}; is another process using it?") from error
        if port == 0:
            raise OSError(f"cannot listen on {address}; is another process using it?")
        return port

    async def start(self, listen: str, listen_tls: str) -> tuple[int, int]:
        """Bind and serve; returns the ports, 0 for what is not configured.  Raises OSError when one cannot be bound.

        `listen` demands a client certificate; `listen_tls` never asks for one: its calls identify by token.
        """
        port = self._bind(listen, require_client_certificate=True)
        tls_port = self._bind(listen_tls, require_client_certificate=False) if listen_tls else 0
        await self._server.start()
        return port, tls_port

    async def refresh(self) -> None:
        """Do nothing: changed certificate files are found by the handshakes."""

    async def stop(self, grace_s: float) -> None:
        """Refuse new calls, let those under way finish within the grace, then end them."""
        await self._server.stop(grace_s)
