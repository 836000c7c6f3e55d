"""Plain HTTP against the plaintext listener, and what its metrics say."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from prometheus_client.parser import text_string_to_metric_families

if TYPE_CHECKING:
    from harness import RunningServer


async def http(port: int, request: bytes) -> tuple[int, dict[str, str], bytes]:
    """Send raw bytes and read until the server closes: status, headers, body."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        writer.write(request)
        answer = await asyncio.wait_for(reader.read(), 60)
    finally:
        writer.close()
        await writer.wait_closed()
    head, _, body = answer.partition(b"\r\n\r\n")
    lines = head.decode().split("\r\n")
    headers = dict(line.split(": ", 1) for line in lines[1:])
    return int(lines[0].split()[1]) if answer else 0, headers, body


async def get(server: RunningServer, path: str, accept: str = "text/plain") -> tuple[int, dict[str, str], bytes]:
    """GET a page."""
    request = f"GET {path} HTTP/1.1\r\nHost: localhost\r\nAccept: {accept}\r\n\r\n"
    return await http(server.server.observing.port, request.encode())


class Scrape:
    """Samples of one scrape."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.samples = [sample for family in text_string_to_metric_families(text) for sample in family.samples]

    @property
    def names(self) -> set[str]:
        return {sample.name for sample in self.samples}

    def all(self, name: str, **labels: str) -> list[Any]:
        """The samples of a name whose labels include these."""
        return [s for s in self.samples if s.name == name and labels.items() <= s.labels.items()]

    def one(self, name: str, **labels: str) -> float:
        """The value of the one sample; 0 when there is none."""
        found = self.all(name, **labels)
        assert len(found) <= 1, found
        return found[0].value if found else 0.0


async def scrape(server: RunningServer) -> Scrape:
    """What the server's metrics say now."""
    status, _, body = await get(server, "/metrics")
    assert status == 200
    return Scrape(body.decode())
