"""`vaultd backup` and `vaultd restore`: a directory with `vault.db` and a manifest that says what must be in it.

Every key and secret in the database is sealed: a backup opens only with the root key.  It is 0600 all the same.
The manifest finds damage, not forgery: that a row is genuine is for the engine's digests to say.
"""

from __future__ import annotations

import asyncio
import dataclasses
import hashlib
import json
import os
import shutil
import sqlite3
import tempfile
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import vaultd
from vaultd import failpoints
from vaultd.durable import sync_directory
from vaultd.errors import AlreadyExists, DataLoss, FailedPrecondition, InvalidArgument
from vaultd.store import files, migrations, sqlite_backup
from vaultd.store import sqlite_queries as queries
from vaultd.store.sqlite_connection import as_vaultd_error, primary_code, to_end

if TYPE_CHECKING:
    from pathlib import Path
    from typing import BinaryIO

    from vaultd.store.base import Store

FORMAT = 1
DATABASE = "vault.db"
MANIFEST = "manifest.json"
MAX_MANIFEST_BYTES = 64 * 1024
_CHUNK_BYTES = 1024 * 1024
_FIELDS = {
    "format": int,
    "schema": int,
    "revision": int,
    "rows": dict,
    "sha256": str,
    "size_bytes": int,
    "created_at": str,
    "vaultd": str,
}


@dataclass(frozen=True, slots=True)
class Manifest:
    """What a backup holds."""

    format: int
    schema: int
    revision: int
    rows: dict[str, int]
    """How many rows of each kind."""
    sha256: str
    """Of `vault.db`, hexadecimal."""
    size_bytes: int
    created_at: str
    """RFC 3339, UTC."""
    vaultd: str
    """The version of the program that wrote it."""


async def write_backup(store: Store, into: Path) -> Manifest:
    """Write a backup of the newest committed state into a new directory, 0700, and verify it; writes go on meanwhile.

    Durable on return.  The manifest is written last: a directory without one is a backup that did not finish.
    Raises AlreadyExists when the directory exists; on failure leaves none.
    """
    await asyncio.to_thread(_make_directory, into)
    try:
        await store.backup(into / DATABASE)
        return await to_end(asyncio.to_thread(_describe, into))
    except BaseException:
        await to_end(asyncio.to_thread(shutil.rmtree, into))
        raise


def verify_backup(directory: Path) -> Manifest:
    """Return the manifest of a whole and undamaged backup.

    Raises InvalidArgument for what is no backup, or one of another format; FailedPrecondition for a newer schema;
    DataLoss for one that does not hold what its manifest says.
    """
    manifest = _read_manifest(directory / MANIFEST)
    try:
        with (directory / DATABASE).open("rb") as database:
            _require_digest(manifest, database, None)
    except FileNotFoundError as error:
        raise InvalidArgument("BACKUP_INCOMPLETE", f"{directory} has no {DATABASE}: not a backup") from error
    except OSError as error:
        raise files.as_vaultd_error(error) from error
    if _inspect(directory / DATABASE) != (manifest.schema, manifest.revision, manifest.rows):
        raise _corrupt()
    return manifest


def restore_backup(directory: Path, into: Path) -> Manifest:
    """Put the database of a verified backup at `into`, 0600: all of it or nothing, and durable on return.

    A process that is killed may leave `.NAME.restoring-*` beside it, sealed and 0600, to be removed by hand.
    Raises AlreadyExists when a database, or the journal of one, is there; the directory must exist.
    """
    manifest = verify_backup(directory)
    if not into.parent.is_dir():
        raise FailedPrecondition("STORE_DIRECTORY_MISSING", f"{into.parent} is not a directory: create it, mode 0700")
    # SQLite would replay a journal that an earlier database left behind into this one.
    for name in (into.name, f"{into.name}-wal", f"{into.name}-shm", f"{into.name}-journal"):
        if os.path.lexists(into.with_name(name)):
            raise AlreadyExists("STORE_EXISTS", f"{into.with_name(name)} exists: restore onto a blank host")
    try:
        descriptor, name = tempfile.mkstemp(prefix=f".{into.name}.restoring-", dir=into.parent)  # 0600
        try:
            with os.fdopen(descriptor, "wb") as copy, (directory / DATABASE).open("rb") as database:
                _require_digest(manifest, database, copy)
                copy.flush()
                os.fsync(copy.fileno())
            failpoints.hit("restore.copied")
            os.link(name, into)  # like rename, but never over a file that came meanwhile
        finally:
            os.unlink(name)
        sync_directory(into.parent)
    except FileExistsError as error:
        raise AlreadyExists("STORE_EXISTS", f"{into} exists: restore onto a blank host") from error
    except OSError as error:
        raise files.as_vaultd_error(error) from error
    failpoints.hit("restore.synced")
    return manifest


def _make_directory(path: Path) -> None:
    try:
        path.mkdir(mode=files.PRIVATE_DIRECTORY)
    except FileExistsError as error:
        raise AlreadyExists("BACKUP_EXISTS", f"{path} exists: choose another name") from error
    except FileNotFoundError as error:
        raise FailedPrecondition("BACKUP_DIRECTORY_MISSING", f"{path.parent} is not a directory") from error
    except OSError as error:
        raise files.as_vaultd_error(error) from error


def _describe(directory: Path) -> Manifest:
    """Write the manifest of a database that has just been written, make it durable, and verify the whole."""
    database = directory / DATABASE
    schema, revision, rows = _inspect(database)
    try:
        with database.open("rb") as content:
            digest = hashlib.file_digest(content, "sha256").hexdigest()
        manifest = Manifest(
            format=FORMAT,
            schema=schema,
            revision=revision,
            rows=rows,
            sha256=digest,
            size_bytes=database.stat().st_size,
            created_at=datetime.now(UTC).isoformat(timespec="seconds").replace("+00:00", "Z"),
            vaultd=vaultd.__version__,
        )
        unfinished = directory / f"{MANIFEST}.unfinished"
        files.create_private(unfinished)
        unfinished.write_text(json.dumps(dataclasses.asdict(manifest), indent=2) + "\n", encoding="utf-8")
        files.sync_file(unfinished)
        failpoints.hit("backup.before_manifest")
        unfinished.rename(directory / MANIFEST)
        sync_directory(directory)
        sync_directory(directory.parent)
    except OSError as error:
        raise files.as_vaultd_error(error) from error
    return verify_backup(directory)


def _inspect(database: Path) -> tuple[int, int, dict[str, int]]:
    """Check every page of a closed database; read its schema, revision and row counts.  Writes nothing beside it."""
    address = f"{database.resolve().as_uri()}?mode=ro&immutable=1"
    try:
        with closing(sqlite3.connect(address, uri=True, isolation_level=None)) as connection:
            connection.execute("PRAGMA trusted_schema=OFF")
            connection.execute("PRAGMA cell_size_check=ON")
            sqlite_backup.require_integrity(connection)
            schema = migrations.sqlite_schema(connection)
            migrations.require_known(schema, migrations.load("sqlite")[-1].number)
            return schema, queries.revision(connection), queries.count_kinds(connection)
    except sqlite3.DatabaseError as error:
        unreadable = primary_code(error) in (sqlite3.SQLITE_IOERR, sqlite3.SQLITE_CANTOPEN)
        raise as_vaultd_error(error) if unreadable else _corrupt() from error
    except DataLoss as error:
        raise _corrupt() from error


def _read_manifest(path: Path) -> Manifest:
    try:
        with path.open("rb") as file:
            text = file.read(MAX_MANIFEST_BYTES + 1)
    except (FileNotFoundError, NotADirectoryError) as error:
        raise InvalidArgument("BACKUP_INCOMPLETE", f"{path} is missing: not a backup, or not finished") from error
    except OSError as error:
        raise files.as_vaultd_error(error) from error
    if len(text) > MAX_MANIFEST_BYTES:
        raise _corrupt()
    try:
        fields = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise _corrupt() from error
    if not isinstance(fields, dict) or type(fields.get("format")) is not int:
        raise _corrupt()
    if fields["format"] != FORMAT:
        raise InvalidArgument("BACKUP_FORMAT", f"the backup has format {fields['format']}, this vaultd reads {FORMAT}")
    if fields.keys() != _FIELDS.keys() or any(type(fields[name]) is not kind for name, kind in _FIELDS.items()):
        raise _corrupt()
    return Manifest(**fields)


def _require_digest(manifest: Manifest, database: BinaryIO, copy: BinaryIO | None) -> None:
    """Read the database once, writing what is read to `copy`; raise DataLoss when it is not what the manifest says."""
    digest, size = hashlib.sha256(), 0
    while chunk := database.read(_CHUNK_BYTES):
        digest.update(chunk)
        size += len(chunk)
        if copy is not None:
            copy.write(chunk)
    if size != manifest.size_bytes or digest.hexdigest() != manifest.sha256:
        raise _corrupt()


def _corrupt() -> DataLoss:
    return DataLoss("BACKUP_CORRUPT", "the backup is damaged or was edited: use another one")
