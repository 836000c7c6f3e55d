"""What audit sinks deliver to: receivers on real sockets of 127.0.0.1 that keep what they got, and do as they are told."""

from __future__ import annotations

import asyncio
import ssl
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import grpc
import h11
from opentelemetry.proto.collector.logs.v1 import logs_service_pb2, logs_service_pb2_grpc

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path


@dataclass
class Receiver:
    """What arrived, and how the next arrivals are treated."""

    port: int = 0
    lines: list[bytes] = field(default_factory=list)
    """Of syslog whole messages, of OTLP bodies, of webhooks lines."""
    connections: int = 0
    arrived: asyncio.Condition = field(default_factory=asyncio.Condition)
    reading: asyncio.Event = field(default_factory=asyncio.Event)
    """Cleared: it hangs."""

    def __post_init__(self) -> None:
        self.reading.set()

    async def take(self, *lines: bytes) -> None:
        self.lines.extend(lines)
        async with self.arrived:
            self.arrived.notify_all()

    async def wait_for(self, count: int, within_s: float = 60) -> list[bytes]:
        """The lines, once there are so many."""
        async with asyncio.timeout(within_s), self.arrived:
            await self.arrived.wait_for(lambda: len(self.lines) >= count)
        return self.lines


def server_context(tls: Path, *, clients: bool = False) -> ssl.SSLContext:
    """TLS with the server's certificate of a development PKI; with `clients`, clients need one as well."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tls / "server.crt", tls / "server.key")
    if clients:
        context.load_verify_locations(tls / "ca.crt")
        context.verify_mode = ssl.CERT_REQUIRED
    return context


@asynccontextmanager
async def _listening(receiver: Receiver, serve: Any, context: ssl.SSLContext | None, port: int) -> AsyncIterator[None]:
    tasks: set[asyncio.Task[None]] = set()

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        receiver.connections += 1
        task = asyncio.current_task()
        tasks.add(task)
        try:
            await serve(reader, writer)
        except (OSError, asyncio.IncompleteReadError, ssl.SSLError, asyncio.CancelledError):
            return
        finally:
            tasks.discard(task)
            writer.transport.abort()

    server = await asyncio.start_server(connected, "127.0.0.1", port, ssl=context, limit=1024)
    receiver.port = server.sockets[0].getsockname()[1]
    try:
        yield
    finally:
        server.close()
        for task in list(tasks):
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


@asynccontextmanager
async def syslog_receiver(context: ssl.SSLContext | None = None, port: int = 0) -> AsyncIterator[Receiver]:
    """Octet-counted frames over TCP or TLS."""
    receiver = Receiver()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        del writer
        while True:
            await receiver.reading.wait()
            length = int(await reader.readuntil(b" "))
            await receiver.take(await reader.readexactly(length))

    async with _listening(receiver, serve, context, port):
        yield receiver


@dataclass
class WebhookReceiver(Receiver):
    """Requests too: headers and body of each."""

    requests: list[tuple[dict[str, str], bytes]] = field(default_factory=list)
    status: int = 200
    close_after_answer: bool = False


@asynccontextmanager
async def webhook_receiver(context: ssl.SSLContext | None, port: int = 0) -> AsyncIterator[WebhookReceiver]:
    """HTTP/1.1 over TLS, connections kept alive; answers with the status that it is told to."""
    receiver = WebhookReceiver()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        protocol = h11.Connection(h11.SERVER)
        headers: dict[str, str] = {}
        body = b""
        while True:
            event = protocol.next_event()
            if event is h11.NEED_DATA:
                data = await reader.read(65_536)
                await receiver.reading.wait()
                protocol.receive_data(data)
            elif isinstance(event, h11.Request):
                headers, body = {name.decode(): value.decode() for name, value in event.headers}, b""
            elif isinstance(event, h11.Data):
                body += event.data
            elif isinstance(event, h11.EndOfMessage):
                receiver.requests.append((headers, body))
                if 200 <= receiver.status < 300:
                    await receiver.take(*body.splitlines())
                answer = h11.Response(status_code=receiver.status, headers=[("Content-Length", "2")])
                writer.write(protocol.send(answer) + protocol.send(h11.Data(b"ok")) + protocol.send(h11.EndOfMessage()))
                await writer.drain()
                if receiver.close_after_answer:
                    return
                protocol.start_next_cycle()
            else:
                return

    async with _listening(receiver, serve, context, port):
        yield receiver


@dataclass
class OtlpReceiver(Receiver):
    """Requests too."""

    requests: list[Any] = field(default_factory=list)
    metadata: list[dict[str, Any]] = field(default_factory=list)
    code: Any = None
    rejects: int = 0


class _Logs(logs_service_pb2_grpc.LogsServiceServicer):
    def __init__(self, receiver: OtlpReceiver) -> None:
        self._receiver = receiver

    async def Export(self, request: Any, context: Any) -> Any:
        receiver = self._receiver
        await receiver.reading.wait()
        if receiver.code is not None:
            await context.abort(receiver.code, "as told")
        receiver.requests.append(request)
        receiver.metadata.append(dict(context.invocation_metadata()))
        records = [one for logs in request.resource_logs for scope in logs.scope_logs for one in scope.log_records]
        await receiver.take(*(record.body.string_value.encode() for record in records))
        response = logs_service_pb2.ExportLogsServiceResponse()
        response.partial_success.rejected_log_records = receiver.rejects
        return response


@asynccontextmanager
async def otlp_receiver(tls: Path | None, port: int = 0) -> AsyncIterator[OtlpReceiver]:
    """A collector of the official protos; with TLS when it is given a development PKI."""
    receiver = OtlpReceiver()
    server = grpc.aio.server(options=[("grpc.so_reuseport", 0)])
    logs_service_pb2_grpc.add_LogsServiceServicer_to_server(_Logs(receiver), server)
    address = f"127.0.0.1:{port}"
    if tls is None:
        receiver.port = server.add_insecure_port(address)
    else:
        pair = ((tls / "server.key").read_bytes(), (tls / "server.crt").read_bytes())
        receiver.port = server.add_secure_port(address, grpc.ssl_server_credentials([pair]))
    await server.start()
    try:
        yield receiver
    finally:
        await server.stop(0)
