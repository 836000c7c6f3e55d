"""Callers at work while workers come and go."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import grpc

from network.process import create_key, eventually
from vaultd_client.v1 import crypto_pb2, keys_pb2, resources_pb2

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from harness import Client
    from workers.fleet import Fleet

K = "vaults/default/keys/k"
RETRIABLE = {grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED}
"""CANCELLED is what gRPC's core makes of calls that it had read and not handed over when a server stops: they were not begun."""


class Load:
    """Callers on connections of their own, each bound to the worker that it found first."""

    def __init__(self, fleet: Fleet, clients: dict[int, Client]) -> None:
        self._fleet = fleet
        self.clients = clients
        self._over = asyncio.Event()
        self.answered = {at: 0 for at in range(fleet.workers)}
        self.failed: dict[int, list[grpc.StatusCode]] = {at: [] for at in range(fleet.workers)}
        self.created: set[str] = set()
        self.retried = 0
        self.lost: list[str] = []

    async def bound(self, at: int, client: Client, caller: int) -> None:
        """Encrypt and create keys over one connection, and take every failure down."""
        number = 0
        while not self._over.is_set():
            number += 1
            key_id = f"w{at}-{caller}-{number}"
            try:
                await create_key(client, key_id)
                self.created.add(key_id)
                await client.crypto.Encrypt(crypto_pb2.EncryptRequest(name=K, plaintext=b"x"))
                self.answered[at] += 1
            except grpc.aio.AioRpcError as error:
                self.failed[at].append(error.code())
                await asyncio.sleep(0.05)

    async def retrying(self, client: Client, caller: int) -> None:
        """Like a client that sends a call again that was not begun."""
        number = 0
        while not self._over.is_set():
            number += 1
            request = keys_pb2.CreateKeyRequest(parent="vaults/default", key_id=f"r{caller}-{number}")
            request.key.purpose = resources_pb2.KEY_PURPOSE_ENCRYPT_DECRYPT
            request.request_id = f"r{caller}-{number}-0000000000"
            for send, message in (
                (client.keys.CreateKey, request),
                (client.crypto.Encrypt, crypto_pb2.EncryptRequest(name=K, plaintext=b"x")),
            ):
                for _ in range(1_000):
                    call = send(message)
                    code = await call.code()
                    if code is grpc.StatusCode.OK:
                        break
                    if code not in RETRIABLE:
                        self.lost.append(f"{code} {await call.details()}")
                        break
                    self.retried += 1
                    await asyncio.sleep(0.05)
                else:
                    self.lost.append("a thousand attempts")
            self.created.add(request.key_id)
            self.answered[caller % self._fleet.workers] += 1

    def end(self) -> None:
        self._over.set()


@asynccontextmanager
async def load(fleet: Fleet, *, retrying: bool, callers: int = 3) -> AsyncIterator[Load]:
    """Callers at work; all their connections are of one worker each."""
    clients = await fleet.reach_each("admin")
    running = Load(fleet, clients)
    if retrying:
        work = [running.retrying(clients[caller % fleet.workers], caller) for caller in range(callers * fleet.workers)]
    else:
        work = [running.bound(at, client, caller) for at, client in clients.items() for caller in range(callers)]
    tasks = [asyncio.create_task(one) for one in work]
    assert await eventually(lambda: all(count >= 5 for count in running.answered.values()))
    try:
        yield running
    finally:
        running.end()
        await asyncio.gather(*tasks)
        for client in clients.values():
            await client.channel.close()


async def all_keys(fleet: Fleet) -> set[str]:
    client = fleet.client("admin")
    names: set[str] = set()
    request = keys_pb2.ListKeysRequest(parent="vaults/default", page_size=1000)
    while True:
        page = await client.keys.ListKeys(request)
        names |= {key.name.rpartition("/")[2] for key in page.keys}
        request.page_token = page.next_page_token
        if not page.next_page_token:
            await client.channel.close()
            return names
