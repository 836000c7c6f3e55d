"""One bounded GET: what vaultd asks of others over HTTP.  No redirects, no proxies, no compression, no cookies, no retries."""

from __future__ import annotations

import asyncio
import ipaddress
import ssl
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

import h11

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

READ_BYTES: Final = 16 * 1024
MAX_HEAD_BYTES: Final = 16 * 1024


class FetchError(Exception):
    """There is no answer that can be used.  The text says why, and holds nothing of the answer."""


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
        raise FetchError("the CA file cannot be read") from error
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    return context


async def get_json(url: str, context: Callable[[], ssl.SSLContext], limits: FetchLimits, bearer: str = "") -> bytes:
    """The body of a 200 answer; raises FetchError."""
    try:
        async with asyncio.timeout(limits.timeout_s):
            return await _get(url, context, limits.max_bytes, bearer)
    except TimeoutError:
        raise FetchError(f"no answer within {limits.timeout_s:g} s") from None
    except ssl.SSLCertVerificationError as error:
        raise FetchError("the server's certificate is not one that ca_file vouches for") from error
    except (OSError, ssl.SSLError) as error:
        raise FetchError("the connection failed") from error
    except h11.ProtocolError as error:
        raise FetchError("the answer is not HTTP/1.1") from error


async def _get(url: str, context: Callable[[], ssl.SSLContext], max_bytes: int, bearer: str) -> bytes:
    parts = urlsplit(url)
    secure = parts.scheme == "https"
    port = parts.port or (443 if secure else 80)
    reader, writer = await asyncio.open_connection(parts.hostname, port, ssl=context() if secure else None)
    try:
        protocol = h11.Connection(h11.CLIENT, max_incomplete_event_size=MAX_HEAD_BYTES)
        target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        headers = [
            ("Host", parts.netloc),
            ("Accept", "application/json"),
            ("Connection", "close"),
            ("User-Agent", "vaultd"),
        ]
        if bearer:
            headers.append(("Authorization", f"Bearer {bearer}"))
        request = protocol.send(h11.Request(method="GET", target=target, headers=headers))
        writer.write((request or b"") + (protocol.send(h11.EndOfMessage()) or b""))
        await writer.drain()
        return await _body(protocol, reader, max_bytes)
    finally:
        writer.transport.abort()  # the answer is whole or useless: a peer that will not say goodbye is not waited for


async def _body(protocol: h11.Connection, reader: asyncio.StreamReader, max_bytes: int) -> bytes:
    body = bytearray()
    while True:
        event = protocol.next_event()
        if event is h11.NEED_DATA:
            protocol.receive_data(await reader.read(READ_BYTES))
        elif isinstance(event, h11.Response):
            if event.status_code != 200:
                raise FetchError(f"the answer is HTTP {event.status_code}, not 200")
            if any(name == b"content-encoding" and value.lower() != b"identity" for name, value in event.headers):
                raise FetchError("the answer is compressed, which was not asked for")
        elif isinstance(event, h11.Data):
            body += event.data
            if len(body) > max_bytes:
                raise FetchError(f"the answer is larger than {max_bytes:,} bytes")
        elif isinstance(event, h11.EndOfMessage):
            return bytes(body)
        elif isinstance(event, h11.ConnectionClosed) or event is h11.PAUSED:
            raise FetchError("the answer ended early")
