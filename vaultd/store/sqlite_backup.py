"""Copying a live SQLite store into one closed, complete, private file.  Blocking: for a connection's thread."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from typing import TYPE_CHECKING

from vaultd import failpoints
from vaultd.durable import sync_directory
from vaultd.errors import AlreadyExists, DataLoss
from vaultd.store import files

if TYPE_CHECKING:
    from pathlib import Path


def copy(source: sqlite3.Connection, into: Path) -> None:
    """Copy the newest committed state, check the copy, and make it durable; on failure leave nothing at `into`.

    One step of the backup API is one read transaction: writers go on, and the copy is of one moment.
    """
    try:
        files.create_private(into)
    except FileExistsError as error:
        raise AlreadyExists("BACKUP_EXISTS", f"{into} exists: choose another name") from error
    except OSError as error:
        raise files.as_vaultd_error(error) from error
    try:
        with closing(sqlite3.connect(f"{into.resolve().as_uri()}?mode=rw", uri=True, isolation_level=None)) as target:
            source.backup(target)
            failpoints.hit("backup.copied")
            # The copy says WAL in its header; a closed single file must not need companions.
            target.execute("PRAGMA journal_mode=DELETE").fetchone()
            require_integrity(target)
        files.sync_file(into)
        sync_directory(into.parent)
        failpoints.hit("backup.synced")
    except OSError as error:
        into.unlink(missing_ok=True)
        raise files.as_vaultd_error(error) from error
    except BaseException:
        into.unlink(missing_ok=True)
        raise


def require_integrity(connection: sqlite3.Connection) -> None:
    """Raise DataLoss unless every page, index and CHECK of the file holds."""
    if connection.execute("PRAGMA integrity_check(1)").fetchall() != [("ok",)]:
        raise DataLoss("STORE_CORRUPT", "the store's file is damaged: restore a backup")
