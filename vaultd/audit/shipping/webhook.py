"""HTTP webhook: a POST of one record a line (NDJSON) for each batch, signed as Standard Webhooks says.

    webhook-id: {chain id}-{first sequence}-{last sequence}        the same when the batch is sent again
    webhook-timestamp: {unix seconds}
    webhook-signature: v1,{base64 of HMAC-SHA-256 over "{id}.{timestamp}.{body}"}

Acknowledged means any answer of 200 to 299.  No redirects, no proxies, no compression.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
import ssl
from typing import TYPE_CHECKING, Final, NamedTuple
from urllib.parse import urlsplit

import h11

from vaultd.audit.shipping.base import DeliveryFailed
from vaultd.audit.shipping.credentials import read_secret, read_token
from vaultd.audit.shipping.transport import Connection

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from vaultd.audit.shipping.base import Origin, Record
    from vaultd.audit.shipping.transport import TlsFiles
    from vaultd.engine.clock import Clock
    from vaultd.secret import Secret

MAX_ANSWER_BYTES: Final = 64 * 1024
_READ_BYTES: Final = 16 * 1024


class Delivery(NamedTuple):
    """One POST."""

    headers: list[tuple[str, str]]
    body: bytes


class WebhookSink:
    """One connection, kept alive as long as the receiver likes."""

    def __init__(
        self,
        url: str,
        tls: TlsFiles,
        secret_file: Path,
        token_file: Path | None,
        format_record: Callable[[Record], bytes],
        origin: Origin,
        clock: Clock,
    ) -> None:
        parts = urlsplit(url)
        secure = parts.scheme == "https"
        self._connection = Connection(
            parts.hostname or "", parts.port or (443 if secure else 80), tls if secure else None
        )
        self._host = parts.netloc
        self._target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        self._secret_file = secret_file
        self._token_file = token_file
        self._format = format_record
        self._chain_id = origin.chain_id
        self._clock = clock
        self._protocol: h11.Connection | None = None

    def encode(self, records: Sequence[Record]) -> Delivery:
        name = f"{self._chain_id}-{records[0].sequence}-{records[-1].sequence}"
        body = b"".join(self._format(record) + b"\n" for record in records)
        return Delivery(self._headers(name, body), body)

    async def deliver(self, batch: Delivery) -> int:
        try:
            status = await self._post(batch.headers, batch.body)
        except (OSError, ssl.SSLError) as error:
            await self.close()
            raise DeliveryFailed("connection", "the connection broke") from error
        except h11.ProtocolError as error:
            await self.close()
            raise DeliveryFailed("refused", "the answer is not HTTP/1.1, or too large") from error
        except (asyncio.CancelledError, DeliveryFailed):
            await self.close()
            raise
        if not 200 <= status <= 299:
            raise DeliveryFailed("refused", f"the receiver answered HTTP {status}")
        return 0

    def _headers(self, name: str, body: bytes) -> list[tuple[str, str]]:
        timestamp = str(self._clock.now_us() // 1_000_000)
        headers = [
            ("Host", self._host),
            ("User-Agent", "vaultd"),
            ("Content-Type", "application/x-ndjson"),
            ("Content-Length", str(len(body))),
            ("webhook-id", name),
            ("webhook-timestamp", timestamp),
            ("webhook-signature", sign(read_secret(self._secret_file), name, timestamp, body)),
        ]
        if self._token_file is not None:
            token = read_token(self._token_file).expose("webhook").decode()
            headers.append(("Authorization", f"Bearer {token}"))
        return headers

    async def _post(self, headers: list[tuple[str, str]], body: bytes) -> int:
        if not self._connection.open:
            self._protocol = None
        reader, writer = await self._connection.streams()
        protocol = self._protocol
        if protocol is None or protocol.our_state is not h11.IDLE:
            protocol = self._protocol = h11.Connection(h11.CLIENT)
        request = protocol.send(h11.Request(method="POST", target=self._target, headers=headers)) or b""
        data = protocol.send(h11.Data(data=body)) or b""
        writer.write(request + data + (protocol.send(h11.EndOfMessage()) or b""))
        await writer.drain()
        status = await _status(protocol, reader)
        if protocol.our_state is h11.DONE and protocol.their_state is h11.DONE:
            protocol.start_next_cycle()
        else:
            await self.close()
        return status

    async def close(self) -> None:
        self._protocol = None
        self._connection.drop()


async def _status(protocol: h11.Connection, reader: asyncio.StreamReader) -> int:
    """Read one answer to its end; its body is of no interest, and bounded."""
    status, size = 0, 0
    while True:
        event = protocol.next_event()
        if event is h11.NEED_DATA:
            protocol.receive_data(await reader.read(_READ_BYTES))
        elif isinstance(event, h11.Response):
            status = event.status_code
        elif isinstance(event, h11.Data):
            size += len(event.data)
            if size > MAX_ANSWER_BYTES:
                raise DeliveryFailed("refused", "the answer is too large")
        elif isinstance(event, h11.EndOfMessage):
            return status
        elif isinstance(event, h11.ConnectionClosed) or event is h11.PAUSED:
            raise DeliveryFailed("connection", "the receiver ended the connection before its answer")


def sign(secret: Secret, name: str, timestamp: str, body: bytes) -> str:
    """The value of `webhook-signature` (Standard Webhooks, symmetric)."""
    message = f"{name}.{timestamp}.".encode() + body
    code = hmac.new(secret.expose("webhook signature"), message, hashlib.sha256).digest()
    return f"v1,{base64.b64encode(code).decode()}"
