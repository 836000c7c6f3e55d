"""Backups: what is written comes back, and nothing damaged does."""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import signal
import sqlite3
import sys
from contextlib import closing
from typing import TYPE_CHECKING

import pytest

from contract.store import key, put, read_all, row
from vaultd import __version__
from vaultd.errors import AlreadyExists, DataLoss, FailedPrecondition, InvalidArgument
from vaultd.store import archive
from vaultd.store.base import Digest, RingRow
from vaultd.store.sqlite import SqliteStore

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[SqliteStore]:
    store = SqliteStore(tmp_path / "vault.db")
    await store.open()
    await put(store, row(key("a"), 0), row(key("a", 1, "key_version"), 0, secret=b"s"), row(key("b"), 0))
    async with store.begin() as transaction:
        await transaction.put_ring(RingRow("root", 1, b"wrapped"))
        await transaction.put_digests([Digest("pay", 1, 1, b"digest")])
    yield store
    await store.close()


@pytest.fixture
async def backup(store: SqliteStore, tmp_path: Path) -> Path:
    await archive.write_backup(store, tmp_path / "backup")
    return tmp_path / "backup"


@pytest.fixture
def host(tmp_path: Path) -> Path:
    (tmp_path / "host").mkdir()
    return tmp_path / "host" / "vault.db"


def modes(directory: Path) -> dict[str, int]:
    return {file.name: file.stat().st_mode & 0o777 for file in directory.iterdir()}


def edit_manifest(backup: Path, **fields: object) -> None:
    manifest = json.loads((backup / "manifest.json").read_text())
    (backup / "manifest.json").write_text(json.dumps({**manifest, **fields}))


def edit_database(backup: Path, statement: str) -> None:
    """Change the database and make digest and size of the manifest fit, as an intruder would."""
    with closing(sqlite3.connect(backup / "vault.db")) as connection, connection:
        connection.execute(statement)
    content = (backup / "vault.db").read_bytes()
    edit_manifest(backup, sha256=hashlib.sha256(content).hexdigest(), size_bytes=len(content))


async def test_backup_is_private_and_says_what_it_holds(store: SqliteStore, tmp_path: Path):
    manifest = await archive.write_backup(store, tmp_path / "backup")
    assert modes(tmp_path / "backup") == {"vault.db": 0o600, "manifest.json": 0o600}
    assert modes(tmp_path)["backup"] == 0o700
    assert (manifest.format, manifest.schema, manifest.revision, manifest.vaultd) == (1, 1, 1, __version__)
    assert manifest.rows == {"key": 2, "key_version": 1}
    assert manifest.size_bytes == (tmp_path / "backup" / "vault.db").stat().st_size
    assert archive.verify_backup(tmp_path / "backup") == manifest


async def test_restored_store_is_the_store(store: SqliteStore, backup: Path, host: Path):
    before = await read_all(store)
    await put(store, row(key("later"), 0))
    manifest = await asyncio.to_thread(archive.restore_backup, backup, host)
    assert modes(host.parent) == {"vault.db": 0o600}
    restored = SqliteStore(host)
    await restored.open()
    assert await read_all(restored) == before
    assert await restored.ring() == await store.ring()
    assert await restored.revision() == manifest.revision == 1
    assert (await put(restored, row(key("new"), 0)))[0].revision == 2
    await restored.close()
    assert archive.verify_backup(backup) == manifest


async def test_backup_goes_into_a_new_directory(store: SqliteStore, backup: Path, tmp_path: Path):
    with pytest.raises(AlreadyExists):
        await archive.write_backup(store, backup)
    archive.verify_backup(backup)
    with pytest.raises(FailedPrecondition):
        await archive.write_backup(store, tmp_path / "none" / "backup")


async def test_backup_that_fails_leaves_no_directory(store: SqliteStore, tmp_path: Path):
    await store.close()
    with pytest.raises(Exception, match="closed"):
        await archive.write_backup(store, tmp_path / "backup")
    assert not (tmp_path / "backup").exists()


@pytest.mark.parametrize("name", ["vault.db", "vault.db-wal", "vault.db-shm", "vault.db-journal"])
def test_restore_overwrites_nothing(backup: Path, host: Path, name: str):
    (host.parent / name).write_bytes(b"precious")
    with pytest.raises(AlreadyExists):
        archive.restore_backup(backup, host)
    assert [(file.name, file.read_bytes()) for file in host.parent.iterdir()] == [(name, b"precious")]


def test_restore_needs_a_directory(backup: Path, tmp_path: Path):
    with pytest.raises(FailedPrecondition):
        archive.restore_backup(backup, tmp_path / "none" / "vault.db")


def test_any_changed_byte_of_the_database_is_found(backup: Path, host: Path):
    content = (backup / "vault.db").read_bytes()
    for at in range(0, len(content), 997):
        (backup / "vault.db").write_bytes(content[:at] + bytes([content[at] ^ 1]) + content[at + 1 :])
        with pytest.raises(DataLoss, match="damaged"):
            archive.restore_backup(backup, host)
    assert not host.exists()


@pytest.mark.parametrize("length", [0, 1, -1, -4096])
def test_shortened_database_is_found(backup: Path, length: int):
    content = (backup / "vault.db").read_bytes()
    (backup / "vault.db").write_bytes(content[:length])
    with pytest.raises(DataLoss):
        archive.verify_backup(backup)


def test_lengthened_database_is_found(backup: Path):
    with (backup / "vault.db").open("ab") as file:
        file.write(b"\0")
    with pytest.raises(DataLoss):
        archive.verify_backup(backup)


@pytest.mark.parametrize(
    "fields",
    [
        {"sha256": "0" * 64},
        {"size_bytes": 1},
        {"revision": 2},
        {"schema": 0},
        {"rows": {"key": 2}},
        {"rows": {"key": 2, "key_version": 2}},
        {"rows": []},
        {"revision": "1"},
        {"revision": True},
        {"format": "1"},
        {"surprise": 1},
    ],
)
def test_manifest_that_does_not_fit_is_found(backup: Path, fields: dict[str, object]):
    edit_manifest(backup, **fields)
    with pytest.raises(DataLoss) as damaged:
        archive.verify_backup(backup)
    assert damaged.value.reason == "BACKUP_CORRUPT"


@pytest.mark.parametrize("text", ["", "{", "[]", "null", "{}", "[" * 60_000, " " * 70_000, '{"format": 1}', "\xff"])
def test_manifest_that_is_none_is_found(backup: Path, text: str):
    (backup / "manifest.json").write_text(text, encoding="latin-1")
    with pytest.raises(DataLoss):
        archive.verify_backup(backup)


@pytest.mark.parametrize(
    "statement",
    [
        "DELETE FROM records WHERE version = 1",
        "UPDATE meta SET revision = 7",
        "UPDATE schema_version SET version = 0",
        "DROP TABLE meta",
        "DELETE FROM meta",
    ],
)
def test_database_that_does_not_fit_its_manifest_is_found(backup: Path, statement: str):
    edit_database(backup, statement)
    with pytest.raises(DataLoss):
        archive.verify_backup(backup)


def test_damaged_page_with_a_fitting_digest_is_found(backup: Path):
    with closing(sqlite3.connect(backup / "vault.db")) as connection:
        (page,) = connection.execute("SELECT rootpage FROM sqlite_schema WHERE name = 'records'").fetchone()
    with (backup / "vault.db").open("r+b") as file:
        file.seek((page - 1) * 4096)
        file.write(b"\xa5" * 4096)
    content = (backup / "vault.db").read_bytes()
    edit_manifest(backup, sha256=hashlib.sha256(content).hexdigest())
    with pytest.raises(DataLoss) as damaged:
        archive.verify_backup(backup)
    assert damaged.value.reason == "BACKUP_CORRUPT"


def test_newer_schema_is_refused(backup: Path):
    edit_database(backup, "INSERT INTO schema_version VALUES (99, 'from the future', 0)")
    with pytest.raises(FailedPrecondition, match="99"):
        archive.verify_backup(backup)


def test_other_format_is_refused(backup: Path):
    edit_manifest(backup, format=2)
    with pytest.raises(InvalidArgument, match="format 2"):
        archive.verify_backup(backup)


@pytest.mark.parametrize("name", ["vault.db", "manifest.json"])
def test_incomplete_backup_is_refused(backup: Path, name: str):
    (backup / name).unlink()
    with pytest.raises(InvalidArgument, match=name):
        archive.verify_backup(backup)


def test_missing_backup_is_refused(tmp_path: Path):
    with pytest.raises(InvalidArgument):
        archive.verify_backup(tmp_path / "none")
    with pytest.raises(InvalidArgument):
        archive.verify_backup(tmp_path / "vault.db")


CHILD = """
import asyncio, sys
from pathlib import Path
from vaultd.store import archive
from vaultd.store.sqlite import SqliteStore

async def backup(path, into):
    store = SqliteStore(path)
    await store.open()
    await archive.write_backup(store, into)

paths = [Path(path) for path in sys.argv[2:]]
if sys.argv[1] == "backup":
    asyncio.run(backup(*paths))
else:
    archive.restore_backup(*paths)
"""


async def killed_at(failpoint: str, *arguments: str) -> None:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path)), "VAULTD_FAILPOINT": failpoint}
    child = await asyncio.create_subprocess_exec(sys.executable, "-c", CHILD, *arguments, env=environment)
    assert await child.wait() == -signal.SIGKILL


@pytest.mark.parametrize("failpoint", ["backup.copied", "backup.synced", "backup.before_manifest"])
async def test_backup_that_was_killed_is_refused(store: SqliteStore, tmp_path: Path, failpoint: str):
    await killed_at(failpoint, "backup", str(tmp_path / "vault.db"), str(tmp_path / "backup"))
    with pytest.raises(InvalidArgument, match="not finished"):
        archive.verify_backup(tmp_path / "backup")
    await archive.write_backup(store, tmp_path / "again")


@pytest.mark.parametrize(("failpoint", "there"), [("restore.copied", False), ("restore.synced", True)])
async def test_restore_that_was_killed_is_all_or_nothing(backup: Path, host: Path, failpoint: str, there: bool):
    await killed_at(failpoint, "restore", str(backup), str(host))
    assert ("vault.db" in modes(host.parent)) is there
    if not there:
        await asyncio.to_thread(archive.restore_backup, backup, host)
    restored = SqliteStore(host)
    await restored.open()
    assert len(await read_all(restored)) == 3
    await restored.close()
