"""What tests of the SDK share: its client for an identity of a running server, and a wire between them that can be cut."""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, contextmanager
from typing import TYPE_CHECKING, Any

from harness import running_server
from vaultd_client import AsyncClient, Client

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Coroutine, Iterator
    from pathlib import Path

VAULT = "vaults/default"
AEAD, SIGNER, MAC, WRAP = (f"{VAULT}/keys/{key}" for key in ("aead", "signer", "mac", "wrap"))
PURPOSES = {"aead": "ENCRYPT_DECRYPT", "signer": "SIGN", "mac": "MAC", "wrap": "WRAP"}
CRYPTO = "/vaultd.v1.CryptoService/"
PATIENT = {"limits": {"overload_delay_ms": 0}}
"""Server and client share an event loop here, so a busy machine makes it late, and calls would be shed for that."""


def identity(tls: Path, stem: str) -> dict[str, Any]:
    """Arguments of a client with the certificate `tls/{stem}.crt`."""
    return {"ca": tls / "ca.crt", "certificate": tls / f"{stem}.crt", "key": tls / f"{stem}.key"}


def async_client(server: Any, stem: str = "app", address: Any = None, **options: Any) -> AsyncClient:
    return AsyncClient(address or server.address, **identity(server.directory / "tls", stem), **options)


def sync_client(server: Any, stem: str = "app", address: Any = None, **options: Any) -> Client:
    return Client(address or server.address, **identity(server.directory / "tls", stem), **options)


async def create_keys(server: Any) -> None:
    """One key of each purpose that batches know."""
    async with async_client(server, "admin") as admin:
        for key_id, purpose in PURPOSES.items():
            await admin.create_key(VAULT, key_id, {"purpose": f"KEY_PURPOSE_{purpose}"})


class Audit:
    """The records of crypto calls from here on."""

    def __init__(self, server: Any) -> None:
        self._server = server
        self._from = len(server.audit_records())

    def calls(self) -> list[dict[str, Any]]:
        records = self._server.audit_records()[self._from :]
        return [one for one in records if one["event"] == "call" and one["method"].startswith("/vaultd.v1.")]

    def methods(self) -> list[str]:
        return [one["method"].rpartition("/")[2] for one in self.calls()]

    def items(self) -> list[int]:
        """How many items each call had; a single call has none in its record."""
        return [one.get("items", 1) for one in self.calls()]


class Wire:
    """Carries the bytes between client and server, or does not."""

    def __init__(self, target: str) -> None:
        self._host, _, port = target.rpartition(":")
        self._port = int(port)
        self.open = asyncio.Event()  # towards the server
        self.open.set()
        self.lose_answers = False
        self.refuse = False
        self.lost = 0
        self.broken = 0
        self.waiting = asyncio.Event()  # somebody's bytes do not pass
        self.writers: set[asyncio.StreamWriter] = set()
        self.address = ""

    async def carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Carry one connection, until it ends."""
        back = None
        try:
            if not self.refuse:
                onward, back = await asyncio.open_connection(self._host, self._port)
                self.writers.add(back)
                async with asyncio.TaskGroup() as both:
                    both.create_task(self._forth(reader, back))
                    both.create_task(self._back(onward, writer))
        except* OSError:
            self.broken += 1  # by one of the ends, or by us
        finally:
            for each in filter(None, (writer, back)):
                each.transport.abort()
                self.writers.discard(each)

    async def _forth(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(65_536):
            if not self.open.is_set():
                self.waiting.set()
                await self.open.wait()
            writer.write(data)
            await writer.drain()
        writer.close()

    async def _back(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(65_536):
            if self.lose_answers and len(data) > 100:  # no acknowledgement of HTTP/2: an answer
                self.lose_answers = False
                self.lost += 1
                self.cut()
                return
            writer.write(data)
            await writer.drain()
        writer.close()

    def cut(self) -> None:
        """End every connection, with a reset."""
        for writer in self.writers:
            writer.transport.abort()
        self.writers.clear()


@asynccontextmanager
async def wire_to(address: str) -> AsyncIterator[Wire]:
    """A wire to a server, on an address of its own."""
    wire = Wire(address)
    tasks: set[asyncio.Task[None]] = set()

    def carry(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if not listener.is_serving():  # it came while we were closing
            writer.transport.abort()
            return
        wire.writers.add(writer)  # here, since a task that is cancelled before its first turn closes nothing
        task = asyncio.get_running_loop().create_task(wire.carry(reader, writer))
        tasks.add(task)
        task.add_done_callback(tasks.discard)

    listener = await asyncio.start_server(carry, "127.0.0.1", 0)
    wire.address = f"127.0.0.1:{listener.sockets[0].getsockname()[1]}"
    try:
        yield wire
    finally:
        wire.open.set()
        listener.close()
        while tasks:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
        wire.cut()
        await asyncio.sleep(0)  # transports that were aborted close their sockets in the loop's next turn


@contextmanager
def server_in_a_thread(directory: Path, **settings: Any) -> Iterator[Any]:
    """A running server on an event loop of its own, for tests that block as their libraries do."""
    with asyncio.Runner() as runner, ThreadPoolExecutor(1) as thread:
        serving = running_server(directory, **{**PATIENT, **settings})
        loop = thread.submit(runner.get_loop).result()
        thread.submit(loop.run_forever)

        def on_loop(step: Coroutine[Any, Any, Any]) -> Any:
            return asyncio.run_coroutine_threadsafe(step, loop).result(30)

        try:
            server = on_loop(serving.__aenter__())
            try:
                yield server
            finally:
                on_loop(serving.__aexit__(None, None, None))
        finally:
            loop.call_soon_threadsafe(loop.stop)
