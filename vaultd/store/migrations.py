"""Numbered migrations: `migrations/<dialect>/NNNN_name.sql`, each applied once, all in one transaction.

A released file is never edited; a change of the schema is a new file.
"""

from __future__ import annotations

import sqlite3
import time
from dataclasses import dataclass
from importlib import resources
from typing import TYPE_CHECKING

from vaultd.errors import FailedPrecondition

if TYPE_CHECKING:
    from collections.abc import Iterator


@dataclass(frozen=True, slots=True)
class Migration:
    """One step of the schema."""

    number: int
    name: str
    script: str


def load(dialect: str) -> list[Migration]:
    """Read the migrations of a dialect, ascending; no number is there twice."""
    folder = resources.files("vaultd.store").joinpath("migrations", dialect)
    names = sorted(entry.name for entry in folder.iterdir() if entry.name.endswith(".sql"))
    migrations = [
        Migration(int(name[:4]), name.removesuffix(".sql"), folder.joinpath(name).read_text(encoding="utf-8"))
        for name in names
    ]
    if len({migration.number for migration in migrations}) != len(migrations):
        raise RuntimeError(f"two migrations of {dialect} have one number")
    return migrations


def statements(script: str) -> Iterator[str]:
    """Split a script.  (`executescript` would commit first: the migrations would not be one transaction.)"""
    statement = ""
    for line in script.splitlines(keepends=True):
        statement += line
        if sqlite3.complete_statement(statement):
            yield statement
            statement = ""
    if any(line.strip() and not line.lstrip().startswith("--") for line in statement.splitlines()):
        raise RuntimeError("a migration ends within a statement")


def sqlite_schema(connection: sqlite3.Connection) -> int:
    """Return the schema number of a database, 0 for an empty one."""
    exists = connection.execute(
        "SELECT 1 FROM sqlite_schema WHERE type = 'table' AND name = 'schema_version'"
    ).fetchone()
    if exists is None:
        return 0
    (number,) = connection.execute("SELECT coalesce(max(version), 0) FROM schema_version").fetchone()
    return int(number)


def require_known(found: int, newest: int) -> None:
    """Raise FailedPrecondition for a schema that is newer than this program."""
    if found > newest:
        raise FailedPrecondition(
            "SCHEMA_NEWER",
            f"the store has schema {found}, this vaultd knows up to {newest}: run the newer vaultd",
        )


def migrate_sqlite(connection: sqlite3.Connection) -> None:
    """Bring a database to the newest schema: all of it or nothing.  Processes that start together take turns.

    Raises FailedPrecondition when the schema is newer than this program.
    """
    migrations = load("sqlite")
    newest = migrations[-1].number
    found = sqlite_schema(connection)
    require_known(found, newest)
    if found == newest:
        return
    connection.execute("BEGIN IMMEDIATE")
    try:
        found = sqlite_schema(connection)  # again: another process may have been first
        require_known(found, newest)
        connection.execute(
            "CREATE TABLE IF NOT EXISTS schema_version "
            "(version INTEGER PRIMARY KEY, name TEXT NOT NULL, applied_at INTEGER NOT NULL) STRICT"
        )
        for migration in (later for later in migrations if later.number > found):
            for statement in statements(migration.script):
                connection.execute(statement)
            connection.execute(
                "INSERT INTO schema_version (version, name, applied_at) VALUES (?, ?, ?)",
                (migration.number, migration.name, time.time_ns() // 1000),
            )
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise
