"""One bounded request: what vaultd asks of others over HTTP.  No redirects, no proxies, no compression, no cookies, no retries."""

from __future__ import annotations

import asyncio
import ipaddress
import ssl
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

import h11

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

READ_BYTES: Final = 16 * 1024
MAX_HEAD_BYTES: Final = 16 * 1024


class FetchError(Exception):
    """There is no answer that can be used.  The text says why, and holds nothing of the answer.

    sent: whether anything of the request may have reached the server.
    """

    def __init__(self, text: str, *, sent: bool = True) -> None:
        super().__init__(text)
        self.text = text
        self.sent = sent


@dataclass(frozen=True, slots=True)
class FetchLimits:
    """How long a fetch may take in all, and how large the answer may be."""

    timeout_s: float
    max_bytes: int


def is_loopback(host: str) -> bool:
    """Whether a host is this machine, by its name or address alone."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def check_url(url: str, *, allow_http: bool) -> None:
    """Raise ValueError unless the URL is `https://host/...`, or `http://` of this machine where that is allowed."""
    parts = urlsplit(url)
    _ = parts.port  # raises ValueError
    if not parts.hostname or parts.username or parts.password or parts.fragment or not url.isascii() or " " in url:
        raise ValueError("it must be a URL of a host, without user, password and fragment")
    if parts.scheme != "https" and not (parts.scheme == "http" and allow_http and is_loopback(parts.hostname)):
        raise ValueError("it must be https; http is for this machine only, and only with allow_http")


def client_context(ca_file: Path | None) -> ssl.SSLContext:
    """Verifies servers against the authorities of a file, or of the system; raises FetchError."""
    try:
        context = ssl.create_default_context(cafile=str(ca_file) if ca_file is not None else None)
    except (OSError, ssl.SSLError) as error:
        raise FetchError("the CA file cannot be read", sent=False) from error
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    return context


async def get_json(url: str, context: Callable[[], ssl.SSLContext], limits: FetchLimits, bearer: str = "") -> bytes:
    """The body of a 200 answer; raises FetchError."""
    headers = [("Accept", "application/json")]
    if bearer:
        headers.append(("Authorization", f"Bearer {bearer}"))
    status, body = await _bounded("GET", url, context, limits, headers, b"")
    if status != 200:
        raise FetchError(f"the answer is HTTP {status}, not 200")
    return body


async def post(
    url: str,
    context: Callable[[], ssl.SSLContext],
    limits: FetchLimits,
    headers: Sequence[tuple[str, str]],
    body: bytes,
) -> tuple[int, bytes]:
    """Status and body of whatever is answered; raises FetchError."""
    return await _bounded("POST", url, context, limits, [*headers, ("Content-Length", str(len(body)))], body)


async def _bounded(
    method: str,
    url: str,
    context: Callable[[], ssl.SSLContext],
    limits: FetchLimits,
    headers: Sequence[tuple[str, str]],
    body: bytes,
) -> tuple[int, bytes]:
    connected = False

    def on_connect() -> None:
        nonlocal connected
        connected = True

    try:
        async with asyncio.timeout(limits.timeout_s):
            return await _ask(method, url, context, limits.max_bytes, headers, body, on_connect)
    except TimeoutError:
        raise FetchError(f"no answer within {limits.timeout_s:g} s", sent=connected) from None
    except ssl.SSLCertVerificationError as error:
        raise FetchError("the server's certificate is not one that ca_file vouches for", sent=connected) from error
    except (OSError, ssl.SSLError) as error:
        raise FetchError("the connection failed", sent=connected) from error
    except h11.ProtocolError as error:
        raise FetchError("the answer is not HTTP/1.1") from error


async def _ask(
    method: str,
    url: str,
    context: Callable[[], ssl.SSLContext],
    max_bytes: int,
    headers: Sequence[tuple[str, str]],
    body: bytes,
    on_connect: Callable[[], None],
) -> tuple[int, bytes]:
    parts = urlsplit(url)
    secure = parts.scheme == "https"
    port = parts.port or (443 if secure else 80)
    reader, writer = await asyncio.open_connection(parts.hostname, port, ssl=context() if secure else None)
    on_connect()
    try:
        protocol = h11.Connection(h11.CLIENT, max_incomplete_event_size=MAX_HEAD_BYTES)
        own = [("Host", parts.netloc), ("Connection", "close"), ("User-Agent", "vaultd")]
        request = protocol.send(h11.Request(method=method, target=request_target(url), headers=[*own, *headers]))
        content = protocol.send(h11.Data(data=body)) if body else b""
        writer.write((request or b"") + (content or b"") + (protocol.send(h11.EndOfMessage()) or b""))
        await writer.drain()
        return await _answer(protocol, reader, max_bytes)
    finally:
        writer.transport.abort()  # the answer is whole or useless: a peer that will not say goodbye is not waited for


def request_target(url: str) -> str:
    """Path and query, as the request's first line has them."""
    parts = urlsplit(url)
    return (parts.path or "/") + (f"?{parts.query}" if parts.query else "")


async def _answer(protocol: h11.Connection, reader: asyncio.StreamReader, max_bytes: int) -> tuple[int, bytes]:
    status, body = 0, bytearray()
    while True:
        event = protocol.next_event()
        if event is h11.NEED_DATA:
            protocol.receive_data(await reader.read(READ_BYTES))
        elif isinstance(event, h11.Response):
            status = event.status_code
            if any(name == b"content-encoding" and value.lower() != b"identity" for name, value in event.headers):
                raise FetchError("the answer is compressed, which was not asked for")
        elif isinstance(event, h11.Data):
            body += event.data
            if len(body) > max_bytes:
                raise FetchError(f"the answer is larger than {max_bytes:,} bytes")
        elif isinstance(event, h11.EndOfMessage):
            return status, bytes(body)
        elif isinstance(event, h11.ConnectionClosed) or event is h11.PAUSED:
            raise FetchError("the answer ended early")
