"""Engines over a real SQLite file and a root key file, without a host: what the tests of the engine share."""

from __future__ import annotations

import sqlite3
from contextlib import asynccontextmanager, closing
from itertools import count
from typing import TYPE_CHECKING, Any

from harness import ADMIN, DEFAULT_POLICY, FakeClock
from vaultd.config import Settings
from vaultd.engine.algorithms import Purpose
from vaultd.engine.key_specs import KeySpec
from vaultd.engine.ledger import Intent
from vaultd.engine.neighbours import ALONE
from vaultd.engine.policy import seed_policy
from vaultd.engine.seal import SealState
from vaultd.engine.transit import DecryptItem, EncryptItem
from vaultd.names import KeyRef
from vaultd.wiring import Engine, build_engine, open_root_key, open_store

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from vaultd.engine.neighbours import Neighbours
    from vaultd.secret import Secret

HOUR_US = 3_600_000_000
DAY_US = 24 * HOUR_US
POLICY = seed_policy([ADMIN], DEFAULT_POLICY)
_ids = count(1)


def engine_settings(directory: Path, **overrides: Any) -> Settings:
    """Settings of an engine; certificates are named and not made, for no host reads them."""
    values: dict[str, Any] = {
        "tls": {"certificate": directory / "tls/server.crt", "key": directory / "tls/server.key"},
        "trust_bundles": [{"name": "dev", "ca": directory / "tls/ca.crt", "trust_domain": "dev.vaultd"}],
        "operators": [ADMIN],
        "store": {"path": directory / "vault.db"},
        "root_key": {"provider": "file", "path": directory / "root.key"},
        "audit": {"directory": directory / "audit"},
        "lifecycle": {"min_destroy_delay_s": 0, "deletion_retention_s": 30 * 86_400},
        "software": {"threads": 1},
    }
    return Settings(**{**values, **overrides})


class OpenEngine:
    """An engine whose store is open, and what it said of itself."""

    def __init__(self, settings: Settings, clock: FakeClock, neighbours: Neighbours = ALONE) -> None:
        self.settings = settings
        self.clock = clock
        self.seal_states: list[SealState] = []
        self.events: list[tuple[str, str, str]] = []
        self.intents: list[tuple[str, str]] = []
        self.faults: list[BaseException] = []
        self.engine: Engine = build_engine(
            settings,
            open_store(settings),
            open_root_key(settings.root_key),
            clock,
            self.seal_states.append,
            self._intend,
            lambda *event: self.events.append(event),
            on_fault=self.faults.append,
            neighbours=neighbours,
        )
        self.seal = self.engine.seal
        self.keys = self.engine.keys
        self.lifecycle = self.engine.lifecycle
        self.key_versions = self.engine.key_versions
        self.transit = self.engine.transit
        self.ledger = self.engine.ledger
        self.store = self.engine.store
        self.crashed = False

    async def _intend(self, event: str, resource: str) -> None:
        self.intents.append((event, resource))

    async def start(self, passphrase: Secret | None = None) -> None:
        """Open the store; initialise it once; unseal."""
        await self.open()
        if await self.store.ring() is None:
            await self.seal.init(POLICY, passphrase)
        else:
            await self.seal.start()

    async def open(self) -> None:
        await self.store.open()
        await self.engine.feed.start()

    async def stop(self) -> None:
        """Close as a server does."""
        if self.crashed:
            return
        if self.seal.state is SealState.UNSEALED:
            await self.engine.usage.flush()
        await self.crash()

    async def crash(self) -> None:
        """Close what holds threads; nothing that is only in memory is written."""
        self.crashed = True
        await self.engine.rotation_runner.abandon()
        for backend in self.engine.backends.values():
            await backend.close()
        await self.store.close()

    async def tick(self) -> None:
        await self.engine.scheduler.tick()

    async def create(self, key_id: str = "k", vault: str = "default", **spec: Any) -> KeyRef:
        """Create a key and name it."""
        await self.lifecycle.create_key(
            intent(), vault, key_id, KeySpec(**{"purpose": Purpose.ENCRYPT_DECRYPT, **spec})
        )
        return KeyRef(vault, key_id, 0)

    async def encrypt(self, ref: KeyRef, plaintext: bytes = b"plaintext") -> bytes:
        return (await self.transit.encrypt(EncryptItem(ref, plaintext), None))[0]

    async def decrypt(self, ref: KeyRef, ciphertext: bytes) -> bytes:
        return (await self.transit.decrypt(DecryptItem(ref, ciphertext), None))[0]

    async def primary(self, ref: KeyRef) -> int:
        return (await self.keys.get_key(ref)).primary

    async def state(self, ref: KeyRef, number: int) -> str:
        return (await self.keys.get_version(version(ref, number))).state.value


def intent(request_id: str = "", *, principal: str = ADMIN, method: str = "test", body: bytes = b"body") -> Intent:
    """A caller's intent; without a request id it is never answered from the store."""
    return Intent(principal, method, request_id, body)


def version(ref: KeyRef, number: int) -> KeyRef:
    return KeyRef(ref.vault, ref.key, number)


@asynccontextmanager
async def open_engine(
    directory: Path, clock: FakeClock | None = None, *, passphrase: Secret | None = None, **overrides: Any
) -> AsyncIterator[OpenEngine]:
    """An unsealed engine over `directory`, initialised when it is new."""
    opened = OpenEngine(engine_settings(directory, **overrides), clock or FakeClock())
    try:
        await opened.start(passphrase)
        yield opened
    finally:
        await opened.stop()


@asynccontextmanager
async def closed_engine(directory: Path, clock: FakeClock | None = None, **overrides: Any) -> AsyncIterator[OpenEngine]:
    """An engine with an open store, sealed: the test starts it."""
    opened = OpenEngine(engine_settings(directory, **overrides), clock or FakeClock())
    try:
        await opened.open()
        yield opened
    finally:
        await opened.stop()


def move_us(clock: FakeClock, us: int) -> None:
    """Move wall and monotonic time by whole microseconds."""
    clock.us += us
    clock.mono_s += us / 1_000_000


def move_to(clock: FakeClock, us: int) -> None:
    """Move time to a moment."""
    move_us(clock, us - clock.us)


def edit(path: Path, *statements: tuple[str, tuple[Any, ...]]) -> None:
    """Change a database behind vaultd's back."""
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("PRAGMA foreign_keys=OFF")
        for sql, values in statements:
            connection.execute(sql, values)


def query(path: Path, sql: str, values: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    with closing(sqlite3.connect(path)) as connection:
        return connection.execute(sql, values).fetchall()
