"""A client as applications should be: it follows Watch, and logs in to PostgreSQL with what the vault served last."""

from __future__ import annotations

import asyncio
import time
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import asyncpg
import orjson

from vaultd_client.v1 import rotation_pb2, secrets_pb2, watch_pb2

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from harness import Client
    from postgres import Postgres

NAME = "vaults/default/secrets/orders-db"
IDLE = rotation_pb2.ROTATION_STATE_IDLE
PATIENCE_S = 60


class Follower:
    """Counts logins and lists those that failed."""

    def __init__(self, client: Client, server: Postgres) -> None:
        self._client = client
        self._server = server
        self.login: tuple[str, str] = ("", "")
        self.logins = 0
        self.users: list[str] = []
        self.failures: list[str] = []
        self.slowest_s = 0.0
        self.over = False
        self._changed = asyncio.Event()

    async def _read(self) -> None:
        answer = await self._client.secrets.AccessSecretVersion(secrets_pb2.AccessSecretVersionRequest(name=NAME))
        members = orjson.loads(answer.payload)
        login = (members["username"], members["password"])
        if login != self.login:
            self.login = login
            self.users.append(login[0])

    async def follow(self, ready: asyncio.Event) -> None:
        """Watch the secret, and read it whenever it changed."""
        kinds = [watch_pb2.RESOURCE_KIND_SECRET, watch_pb2.RESOURCE_KIND_ROTATION]
        scope = watch_pb2.WatchFilter(resource_prefix=NAME, kinds=kinds)
        async for response in self._client.admin.Watch(watch_pb2.WatchRequest(filter=scope)):
            if any(event.kind == kinds[0] for event in response.events):
                await self._read()
            ready.set()
            self._changed.set()

    async def keep_logging_in(self) -> None:
        while not self.over:
            user, password = self.login
            begun = time.monotonic()
            try:
                connection = await self._server.connect(user, password)
                assert await connection.fetchval("SELECT session_user::text") == user
                await connection.close()
                self.logins += 1
                self.slowest_s = max(self.slowest_s, time.monotonic() - begun)
            except (asyncpg.PostgresError, OSError, TimeoutError) as error:
                took_s = time.monotonic() - begun
                self.failures.append(f"{user}: {type(error).__name__} {error}, {took_s:.3f} s after it was asked for")

    async def rotated(self, run: int) -> Any:
        """Wait until a run, each of which adds one version, is over; the watch says when it is worth another look."""
        until = time.monotonic() + PATIENCE_S
        while True:
            self._changed.clear()
            rotation = await self._client.secrets.GetRotation(rotation_pb2.GetRotationRequest(name=NAME))
            if rotation.new_version == f"{NAME}/versions/{run}" and rotation.state == IDLE:
                return rotation
            assert time.monotonic() < until, rotation
            await asyncio.wait_for(self._changed.wait(), PATIENCE_S)


@asynccontextmanager
async def following(client: Client, server: Postgres, workers: int) -> AsyncIterator[Follower]:
    """A follower that logs in all the time, `workers` times at once.  The secret gets its first version from it."""
    follower = Follower(client, server)
    ready = asyncio.Event()
    watching = asyncio.create_task(follower.follow(ready))
    await asyncio.wait_for(ready.wait(), PATIENCE_S)
    await rotate(client)
    await follower.rotated(1)
    working = [asyncio.create_task(follower.keep_logging_in()) for _ in range(workers)]
    try:
        yield follower
    finally:
        follower.over = True
        await asyncio.gather(*working)
        watching.cancel()
        await asyncio.wait([watching])


async def set_up(client: Client, overlap_ms: int) -> None:
    """A secret that rotates, and its first version."""
    await client.secrets.CreateSecret(
        secrets_pb2.CreateSecretRequest(parent="vaults/default", secret_id=NAME.rpartition("/")[2])
    )
    policy = rotation_pb2.RotationPolicy(target="orders-db")
    policy.overlap.FromMilliseconds(overlap_ms)
    await client.secrets.SetRotationPolicy(rotation_pb2.SetRotationPolicyRequest(name=NAME, policy=policy))


async def rotate(client: Client) -> Any:
    return await client.secrets.RotateSecret(rotation_pb2.RotateSecretRequest(name=NAME))
