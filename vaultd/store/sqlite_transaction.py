"""The one write transaction that a SQLite file has at a time."""

from __future__ import annotations

from typing import TYPE_CHECKING, Concatenate, ParamSpec, TypeVar

from vaultd import failpoints
from vaultd.errors import Unavailable
from vaultd.store import sqlite_queries as queries

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Callable, Sequence

    from vaultd.store.base import Change, Digest, Replay, RingRow, Row, RowKey
    from vaultd.store.sqlite_connection import Connection

P = ParamSpec("P")
T = TypeVar("T")


class SqliteTransaction:
    """A write transaction under way on the writer connection."""

    def __init__(self, writer: Connection, revision: int) -> None:
        self.revision = revision
        self.wrote = False
        self._writer = writer
        self._changes = 0
        self._usable = True

    async def get(self, key: RowKey) -> Row | None:
        return await self._run(queries.get, key)

    async def versions(self, kind: str, scope: str, id: str, limit: int | None = None) -> list[Row]:
        return await self._run(queries.versions, kind, scope, id, -1, limit)

    async def any_row(self, kind: str, scope: str, state: str) -> bool:
        return await self._run(queries.any_row, kind, scope, state)

    async def write(self, puts: Sequence[Row], deletes: Sequence[RowKey], changes: Sequence[Change]) -> None:
        """Raises ValueError for a row or a change of another revision: the feed would be out of order."""
        if not (puts or deletes or changes):
            return
        await self._run(self._write, puts, deletes, changes)
        self.wrote = True

    def _write(
        self,
        connection: sqlite3.Connection,
        puts: Sequence[Row],
        deletes: Sequence[RowKey],
        changes: Sequence[Change],
    ) -> None:
        revisions = {row.revision for row in puts} | {change.revision for change in changes}
        if revisions - {self.revision}:
            raise ValueError("a row or a change does not carry the transaction's revision")
        queries.put_rows(connection, puts)
        queries.delete_rows(connection, deletes)
        queries.append_changes(connection, changes, self._changes)
        self._changes += len(changes)

    async def digests(self, scopes: Sequence[str]) -> dict[str, Digest]:
        return await self._run(queries.digests, scopes)

    async def put_digests(self, digests: Sequence[Digest]) -> None:
        await self._run(queries.put_digests, digests)

    async def ring(self) -> RingRow | None:
        return await self._run(queries.ring)

    async def put_ring(self, ring: RingRow) -> None:
        await self._run(queries.put_ring, ring)

    async def replay(self, id: bytes) -> Replay | None:
        return await self._run(queries.replay, id)

    async def put_replay(self, replay: Replay) -> None:
        await self._run(queries.put_replay, replay)

    async def _run(self, work: Callable[Concatenate[sqlite3.Connection, P], T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Run a statement of this transaction; one that fails or is cancelled ends the transaction for good.

        SQLite rolls back by itself on some errors (a full disk): a statement after that would commit alone.
        """
        self.require_usable()
        try:
            return await self._writer.run(_within, work, *args, **kwargs)
        except BaseException:
            self._usable = False
            raise

    def require_usable(self) -> None:
        """Raise Unavailable after a failed statement, or after the end."""
        if not self._usable:
            raise Unavailable("STORE_UNAVAILABLE", "the transaction is over or a part of it failed: start again")

    def end(self) -> None:
        """Let nobody who kept this object write in the next transaction, or outside of one."""
        self._usable = False


def begin(connection: sqlite3.Connection) -> int:
    """Begin and return the newest revision."""
    roll_back(connection)  # nothing, unless a ROLLBACK failed before
    connection.execute("BEGIN IMMEDIATE")
    return queries.revision(connection)


def _within(
    connection: sqlite3.Connection,
    work: Callable[Concatenate[sqlite3.Connection, P], T],
    /,
    *args: P.args,
    **kwargs: P.kwargs,
) -> T:
    _require_transaction(connection)
    return work(connection, *args, **kwargs)


def _require_transaction(connection: sqlite3.Connection) -> None:
    """Refuse what would commit alone, because SQLite has ended the transaction by itself."""
    if not connection.in_transaction:
        raise Unavailable("STORE_UNAVAILABLE", "the transaction was rolled back: start again")


def commit(connection: sqlite3.Connection, revision: int | None) -> None:
    """Commit or roll back, in one visit of the thread: there is no third outcome to be interrupted in."""
    _require_transaction(connection)
    try:
        if revision is not None:
            queries.set_revision(connection, revision)
        failpoints.hit("store.before_commit")
        connection.execute("COMMIT")
        failpoints.hit("store.after_commit")
    except BaseException:
        roll_back(connection)
        raise


def roll_back(connection: sqlite3.Connection) -> None:
    """Leave no transaction open.  Does nothing when SQLite has rolled back by itself."""
    if connection.in_transaction:
        connection.execute("ROLLBACK")
