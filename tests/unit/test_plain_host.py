"""The plaintext listener by itself: connections of those who do not read."""

from __future__ import annotations

import asyncio
import socket

from vaultd.hosts import plain
from vaultd.hosts.plain import Page, PlainHost

BODY = b"x" * 60_000
"""More than the sockets below hold, and less than what makes a writer wait."""


async def until(condition) -> None:
    async with asyncio.timeout(60):
        met = False
        while not met:
            await asyncio.sleep(0.01)
            met = condition()


async def test_who_does_not_read_the_end_of_an_answer_keeps_its_place_and_is_cut_off(monkeypatch):
    monkeypatch.setattr(plain, "CLOSE_TIMEOUT_S", 0.3)

    async def page(accept: str) -> Page:
        return Page(200, plain.TEXT, BODY)

    host = PlainHost({"/": page})
    port = await host.listen("127.0.0.1:0")
    host._server.sockets[0].setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
    loop = asyncio.get_running_loop()
    with socket.socket() as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2048)
        client.setblocking(False)
        await loop.sock_connect(client, ("127.0.0.1", port))
        await loop.sock_sendall(client, b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        await until(lambda: host._open)
        await until(lambda: not host._open)
        got = 0
        while part := await loop.sock_recv(client, 65_536):
            got += len(part)
        assert got < len(BODY)
    await host.close()
