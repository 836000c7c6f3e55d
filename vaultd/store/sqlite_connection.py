"""One SQLite connection with a thread of its own, and the one place where SQLite's errors become ours."""

from __future__ import annotations

import asyncio
import sqlite3
import time
from typing import TYPE_CHECKING, Concatenate, ParamSpec, TypeVar

import aiosqlite

from vaultd.errors import DataLoss, FailedPrecondition, ResourceExhausted, Unavailable, VaultdError
from vaultd.telemetry import spans

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine
    from pathlib import Path
    from typing import Any

    from vaultd.telemetry.cells import Histograms

P = ParamSpec("P")
T = TypeVar("T")

PRAGMAS = (
    "PRAGMA synchronous=FULL",  # NORMAL in WAL mode can lose an acknowledged commit on power loss
    "PRAGMA secure_delete=ON",  # erased material is overwritten, in free pages too
    "PRAGMA temp_store=MEMORY",  # no temporary file ever holds a row
    "PRAGMA foreign_keys=ON",
    "PRAGMA trusted_schema=OFF",  # a doctored file must not run functions from its schema
    "PRAGMA cell_size_check=ON",  # a corrupt page is found when it is read
)


async def to_end(work: Coroutine[Any, Any, T]) -> T:
    """Await work to its end even when we are cancelled meanwhile; the cancellation is raised after it."""
    task = asyncio.ensure_future(work)
    cancelled: asyncio.CancelledError | None = None
    while not task.done():
        try:
            await asyncio.wait([task])
        except asyncio.CancelledError as error:
            cancelled = error
    if cancelled is None:
        return task.result()
    if not task.cancelled():
        cancelled.__cause__ = task.exception()
    raise cancelled


class Connection:
    """A connection in autocommit mode.  Work runs one by one, in the order of the calls, on its own thread."""

    def __init__(self, aio: aiosqlite.Connection, latency: Histograms | None = None) -> None:
        self._aio = aio
        self._latency = latency
        self._closed = False

    @classmethod
    async def open(cls, path: Path, busy_timeout_s: float, latency: Histograms | None = None) -> Connection:
        """Open an existing file by its absolute path; never create one: SQLite would give it the umask's mode.

        `latency` takes in how long each piece of work took, with its wait for those before it.
        """

        connection = cls(
            aiosqlite.connect(f"{path.as_uri()}?mode=rw", uri=True, timeout=busy_timeout_s, isolation_level=None),
            latency,
        )
        try:
            await to_end(connection._start())
        except BaseException:
            await connection.close()
            raise
        return connection

    async def _start(self) -> None:
        try:
            await self._aio
        except sqlite3.Error as error:
            raise as_vaultd_error(error) from error
        await self.run(_set_up)

    async def run(self, work: Callable[Concatenate[sqlite3.Connection, P], T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Run work(connection, ...) after all that was asked before.

        When the caller is cancelled the work still runs to its end, unseen; whatever is asked next runs after it.
        """
        if self._closed:
            raise Unavailable("STORE_UNAVAILABLE", "the store is closed")
        started_s = time.monotonic()
        try:
            # aiosqlite's own methods take one statement a hop (97 us each); this is what all of them call.
            result: T = await self._aio._execute(work, self._aio._conn, *args, **kwargs)  # type: ignore[no-untyped-call]  # aiosqlite leaves it untyped
        except sqlite3.Error as error:
            raise as_vaultd_error(error) from error
        finally:
            self._note(started_s, _name_of(work, args))
        return result

    def _note(self, started_s: float, name: str) -> None:
        if self._latency is not None:
            self._latency.add(name, time.monotonic() - started_s)
        span = spans.current()
        if span is not None:
            span.record("store", started_s, time.monotonic(), {"db.system.name": "sqlite", "db.operation.name": name})

    async def run_to_end(
        self, work: Callable[Concatenate[sqlite3.Connection, P], T], *args: P.args, **kwargs: P.kwargs
    ) -> T:
        """Run work and learn its outcome even when the caller is cancelled meanwhile."""
        return await to_end(self.run(work, *args, **kwargs))

    async def close(self) -> None:
        """Close after all work asked before.  Idempotent."""
        if self._closed:
            return
        self._closed = True
        try:
            await to_end(self._aio.close())
        except sqlite3.Error as error:
            raise as_vaultd_error(error) from error


def _name_of(work: Callable[..., Any], args: tuple[Any, ...]) -> str:
    """What is done: of work within a transaction, the statement's own name."""
    inner = getattr(args[0], "__name__", None) if args else None
    return str(inner or getattr(work, "__name__", "work")).lstrip("_")


def _set_up(connection: sqlite3.Connection) -> None:
    for pragma in PRAGMAS:
        connection.execute(pragma)


def use_wal(connection: sqlite3.Connection, busy_timeout_s: float) -> None:
    """Switch the file to WAL, once in its life.

    SQLite does not call its busy handler for this switch, so that of two processes that start together one would fail.
    """
    deadline = time.monotonic() + busy_timeout_s
    while True:
        try:
            (mode,) = connection.execute("PRAGMA journal_mode=WAL").fetchone()
            break
        except sqlite3.OperationalError as error:
            if primary_code(error) != sqlite3.SQLITE_BUSY or time.monotonic() > deadline:
                raise
        time.sleep(0.005)
    if mode != "wal":
        raise FailedPrecondition("STORE_NO_WAL", "this file system cannot hold a WAL database: use a local disk")


def primary_code(error: sqlite3.Error) -> int:
    """SQLite's result code without its extension; 0 for errors that Python's module makes itself."""
    return getattr(error, "sqlite_errorcode", 0) & 0xFF


def as_vaultd_error(error: sqlite3.Error) -> VaultdError:
    """Say a SQLite error in our terms.  Its text stays in `__cause__`, for the log."""
    match primary_code(error):
        case sqlite3.SQLITE_BUSY | sqlite3.SQLITE_LOCKED:
            return Unavailable("STORE_BUSY", "another process is writing to the store: try again", retry_after_s=1)
        case sqlite3.SQLITE_FULL:
            return ResourceExhausted("STORE_FULL", "the store is full: free some disk space and try again")
        case sqlite3.SQLITE_CORRUPT | sqlite3.SQLITE_NOTADB:
            return DataLoss("STORE_CORRUPT", "the store's file is damaged: restore a backup")
        case _:
            return Unavailable("STORE_UNAVAILABLE", "the store cannot be read or written: see the server's log")
