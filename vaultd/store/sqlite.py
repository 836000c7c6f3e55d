"""A store in one SQLite file: WAL, synchronous=FULL, 0600.

One connection writes and one reads, each on its own thread; a snapshot or a backup opens one more.  A mutation waits
for this process's turn (an asyncio lock), then for the file's (BEGIN IMMEDIATE, up to `busy_timeout_s`): processes may
share a file.
"""

from __future__ import annotations

import asyncio
import sqlite3
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from vaultd import failpoints
from vaultd.durable import sync_directory
from vaultd.errors import FailedPrecondition, Unavailable
from vaultd.store import files, migrations, sqlite_backup
from vaultd.store import sqlite_queries as queries
from vaultd.store.base import Row, RowKey, Snapshot
from vaultd.store.sqlite_connection import Connection, use_wal
from vaultd.store.sqlite_transaction import SqliteTransaction, begin, commit, roll_back
from vaultd.telemetry.cells import Histograms

if TYPE_CHECKING:
    import builtins
    from collections.abc import AsyncGenerator, AsyncIterator, Sequence
    from pathlib import Path

    from vaultd.store.base import Change, Digest, Replay, RingRow, Transaction, Usage

OLDEST_SQLITE = (3, 37, 0)
"""The first with STRICT tables."""
SCRUB_WAIT_MS = 100
"""How long a scrub holds up writers for a reader that is in its way."""
MAX_OPERATIONS = 50
"""Kinds of work whose times are told apart."""
_BEFORE_ALL = RowKey("", "", "", -1)


class SqliteStore:
    """Rows in one SQLite file.  See `vaultd.store.base.Store` for what each method promises."""

    def __init__(self, path: Path, *, busy_timeout_s: float = 5.0) -> None:
        if busy_timeout_s < 0:
            raise ValueError("busy_timeout_s must not be negative")
        self._path = path
        self._busy_timeout_s = busy_timeout_s
        self._turn = asyncio.Lock()
        self._writer_connection: Connection | None = None
        self._reader_connection: Connection | None = None
        self._seen = 0
        self.latency = Histograms(MAX_OPERATIONS)

    async def open(self) -> None:
        """Also creates the file, 0600, in a directory that exists."""
        if sqlite3.sqlite_version_info < OLDEST_SQLITE:
            raise FailedPrecondition("STORE_SQLITE_OLD", f"SQLite {sqlite3.sqlite_version} is too old: 3.37 or newer")
        async with self._turn:
            if self._writer_connection is not None:
                raise RuntimeError("the store is open")
            try:
                self._path = await asyncio.to_thread(_prepare, self._path)
                self._writer_connection = await self._connect()
                await self._writer_connection.run(_set_up_file, self._busy_timeout_s)
                self._reader_connection = await self._connect()
                self._seen = await self._reader_connection.run(_set_up_reader)
            except BaseException:
                await self._disconnect()
                raise

    async def close(self) -> None:
        async with self._turn:
            await self._disconnect()

    async def _disconnect(self) -> None:
        reader, self._reader_connection = self._reader_connection, None
        writer, self._writer_connection = self._writer_connection, None
        try:
            if reader is not None:
                await reader.close()
        finally:
            if writer is not None:
                await writer.close()

    async def _connect(self) -> Connection:
        return await Connection.open(self._path, self._busy_timeout_s, self.latency)

    @property
    def _writer(self) -> Connection:
        return _require_open(self._writer_connection)

    @property
    def _reader(self) -> Connection:
        return _require_open(self._reader_connection)

    @asynccontextmanager
    async def begin(self) -> AsyncIterator[Transaction]:
        """Acknowledged by leaving the context without an exception, and only after COMMIT has succeeded.

        A cancellation during COMMIT is raised after COMMIT has ended; either outcome is possible, the feed tells which.
        """
        async with self._turn:
            writer = self._writer
            transaction: SqliteTransaction | None = None
            try:
                transaction = SqliteTransaction(writer, await writer.run(begin) + 1)
                failpoints.hit("store.begin")
                yield transaction
                transaction.require_usable()
                transaction.end()
                await writer.run_to_end(commit, transaction.revision if transaction.wrote else None)
            except BaseException:
                if transaction is not None:
                    transaction.end()
                # Queued after whatever statement is still running on the thread, and awaited before the turn passes on.
                await writer.run_to_end(roll_back)
                raise

    async def get(self, key: RowKey) -> Row | None:
        return await self._reader.run(queries.get, key)

    async def versions(
        self, kind: str, scope: str, id: str, after: int = -1, limit: int | None = None
    ) -> builtins.list[Row]:
        return await self._reader.run(queries.versions, kind, scope, id, after, limit)

    async def list(
        self, kind: str, scope: str, after_id: str, limit: int, states: Sequence[str] = ()
    ) -> builtins.list[Row]:
        return await self._reader.run(queries.page, kind, scope, after_id, limit, states)

    async def due(self, now: int, limit: int, after: tuple[int, RowKey] | None = None) -> builtins.list[Row]:
        return await self._reader.run(queries.due, now, limit, after)

    @asynccontextmanager
    async def snapshot(self, batch: int = 1000) -> AsyncIterator[Snapshot]:
        """On a connection of its own.  While it lasts the journal grows and `scrub` cannot finish."""
        _require_open(self._reader_connection)
        connection = await self._connect()
        try:
            revision, digests = await connection.run(_begin_snapshot)
            rows = _rows(connection, batch)
            try:
                yield Snapshot(revision, rows, digests)
            finally:
                await rows.aclose()
        finally:
            await connection.close()

    async def older_terms(self, term: int, limit: int) -> builtins.list[RowKey]:
        return await self._reader.run(queries.older_terms, term, limit)

    async def count_older_terms(self, term: int) -> int:
        return await self._reader.run(queries.count_older_terms, term)

    async def ring(self) -> RingRow | None:
        return await self._reader.run(queries.ring)

    async def replay(self, id: bytes) -> Replay | None:
        return await self._reader.run(queries.replay, id)

    async def drop_replays(self, expired_before: int) -> int:
        async with self._turn:
            return await self._writer.run_to_end(queries.drop_replays, expired_before)

    async def trim_changes(self, keep: int) -> int:
        async with self._turn:
            return await self._writer.run_to_end(queries.trim_changes, keep)

    async def revision(self) -> int:
        return await self._reader.run(queries.revision)

    async def changed(self) -> bool:
        """Any commit counts, by this object too, usage and replays included.  One poller per store object."""
        seen = await self._reader.run(queries.data_version)
        changed, self._seen = seen != self._seen, seen
        return changed

    async def changes(self, after: int, limit: int) -> builtins.list[Change]:
        """More than `limit` only where one revision alone is longer."""
        return await self._reader.run(queries.changes, after, limit)

    async def add_usage(self, usages: Sequence[Usage]) -> None:
        """A cancelled call may have been counted; to count twice is the safe side."""
        async with self._turn:
            await self._writer.run_to_end(_add_usage, usages)

    async def usage(self, uid: bytes) -> builtins.list[Usage]:
        return await self._reader.run(queries.usage, uid)

    async def scrub(self) -> None:
        """Raises Unavailable (STORE_BUSY) while a reader still needs the journal: call again."""
        async with self._turn:
            await self._writer.run_to_end(_truncate_journal, self._busy_timeout_s)

    async def backup(self, into: Path) -> None:
        """The copy is one file that needs no journal.  Raises AlreadyExists, and leaves nothing behind on failure."""
        _require_open(self._reader_connection)
        connection = await self._connect()
        try:
            await connection.run_to_end(sqlite_backup.copy, into)
        finally:
            await connection.close()


def _require_open(connection: Connection | None) -> Connection:
    if connection is None:
        raise Unavailable("STORE_UNAVAILABLE", "the store is closed")
    return connection


def _prepare(path: Path) -> Path:
    """Create the file if need be, and check it and its companions; return where it really is."""
    path = path.resolve()
    try:
        if not path.parent.is_dir():
            raise FailedPrecondition(
                "STORE_DIRECTORY_MISSING", f"{path.parent} is not a directory: create it, mode 0700"
            )
        try:
            files.create_private(path)
            sync_directory(path.parent)
        except FileExistsError:
            files.require_private(path)
        for companion in (path.with_name(path.name + "-wal"), path.with_name(path.name + "-shm")):
            try:
                files.require_private(companion)  # SQLite makes them with the mode of the database
            except FileNotFoundError:
                continue
    except OSError as error:
        raise files.as_vaultd_error(error) from error
    return path


def _set_up_file(connection: sqlite3.Connection, busy_timeout_s: float) -> None:
    use_wal(connection, busy_timeout_s)
    migrations.migrate_sqlite(connection)


def _set_up_reader(connection: sqlite3.Connection) -> int:
    connection.execute("PRAGMA query_only=ON")
    return queries.data_version(connection)


def _add_usage(connection: sqlite3.Connection, usages: Sequence[Usage]) -> None:
    begin(connection)
    try:
        queries.add_usage(connection, usages)
    except BaseException:
        roll_back(connection)
        raise
    commit(connection, None)


def _truncate_journal(connection: sqlite3.Connection, busy_timeout_s: float) -> None:
    """Move the journal into the file and cut it to nothing; what was erased is zeros there (see `secrets`)."""
    connection.execute(f"PRAGMA busy_timeout={SCRUB_WAIT_MS:d}")
    try:
        (busy, _, _) = connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
    finally:
        connection.execute(f"PRAGMA busy_timeout={round(busy_timeout_s * 1000):d}")
    if busy:
        raise Unavailable("STORE_BUSY", "a reader still needs the journal: scrub again", retry_after_s=1)


def _begin_snapshot(connection: sqlite3.Connection) -> tuple[int, dict[str, Digest]]:
    connection.execute("PRAGMA query_only=ON")
    connection.execute("BEGIN")
    return queries.revision(connection), queries.all_digests(connection)


async def _rows(connection: Connection, batch: int) -> AsyncGenerator[list[Row], None]:
    after = _BEFORE_ALL
    while rows := await connection.run(queries.rows_after, after, batch):
        yield rows
        after = rows[-1].key
