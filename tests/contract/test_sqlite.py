"""The contract on SQLite, and what only a file can get wrong."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sqlite3
import sys
import threading
from contextlib import closing
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from contract.store import StoreContract, key, put, put_id, read_all, row
from vaultd.errors import AlreadyExists, DataLoss, FailedPrecondition, ResourceExhausted, Unavailable
from vaultd.store.base import Replay, Row, Usage
from vaultd.store.files import create_private
from vaultd.store.sqlite import SqliteStore

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

CANARY = b"CANARY--"


class TestSqlite(StoreContract):
    async def make_store(self, tmp_path: Path) -> SqliteStore:
        return await self.reopen(tmp_path)

    async def reopen(self, tmp_path: Path) -> SqliteStore:
        store = SqliteStore(tmp_path / "vault.db")
        await store.open()
        return store


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "vault.db"


@pytest.fixture
async def store(path: Path) -> AsyncIterator[SqliteStore]:
    store = SqliteStore(path)
    await store.open()
    yield store
    await store.close()


async def open_and_close(path: Path) -> None:
    store = SqliteStore(path)
    await store.open()
    await store.close()


def modes(directory: Path) -> dict[str, int]:
    return {file.name: file.stat().st_mode & 0o777 for file in directory.iterdir()}


# Files


@pytest.fixture
def _open_umask():
    before = os.umask(0)
    yield
    os.umask(before)


@pytest.mark.usefixtures("_open_umask")
async def test_files_are_private_whatever_the_umask(path: Path):
    store = SqliteStore(path)
    await store.open()
    await put_id(store, "a")
    await store.backup(path.with_name("copy.db"))
    found = modes(path.parent)
    await store.close()
    assert found == dict.fromkeys(("vault.db", "vault.db-wal", "vault.db-shm", "copy.db"), 0o600)


@pytest.mark.parametrize("extra", [0o040, 0o004, 0o020, 0o002, 0o010])
@pytest.mark.parametrize("suffix", ["", "-wal", "-shm"])
async def test_file_open_to_others_is_refused(path: Path, extra: int, suffix: str):
    await open_and_close(path)
    file = path.with_name(path.name + suffix)
    file.touch(mode=0o600)
    file.chmod(0o600 | extra)
    with pytest.raises(FailedPrecondition, match="chmod 600") as refused:
        await open_and_close(path)
    assert refused.value.reason == "STORE_FILE_MODE"
    file.chmod(0o600)
    await open_and_close(path)


async def test_file_of_another_user_is_refused(path: Path, monkeypatch: pytest.MonkeyPatch):
    await open_and_close(path)
    monkeypatch.setattr(os, "geteuid", lambda: os.getuid() + 1)
    with pytest.raises(FailedPrecondition, match="another user"):
        await open_and_close(path)


async def test_directory_must_exist_and_a_directory_is_no_store(tmp_path: Path):
    with pytest.raises(FailedPrecondition, match="not a directory"):
        await open_and_close(tmp_path / "none" / "vault.db")
    with pytest.raises(FailedPrecondition, match="regular file"):
        await open_and_close(tmp_path)


async def test_connections_are_set_for_durability_and_erasure(store: SqliteStore):
    def pragmas(connection: sqlite3.Connection) -> list[object]:
        names = ("journal_mode", "synchronous", "secure_delete", "foreign_keys", "trusted_schema", "cell_size_check")
        return [connection.execute(f"PRAGMA {name}").fetchone()[0] for name in names]  # constants

    for connection in (store._writer, store._reader):
        assert await connection.run(pragmas) == ["wal", 2, 1, 1, 0, 1]


# Schema


async def test_newer_schema_is_refused_naming_both_numbers(path: Path):
    await open_and_close(path)
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("INSERT INTO schema_version VALUES (99, 'from the future', 0)")
    with pytest.raises(FailedPrecondition, match="schema 99, this vaultd knows up to 1") as refused:
        await open_and_close(path)
    assert refused.value.reason == "SCHEMA_NEWER"


MIGRATE = """
import asyncio, sys
from contract.store import put_id
from vaultd.store.sqlite import SqliteStore
from pathlib import Path

async def main():
    store = SqliteStore(Path(sys.argv[1]), busy_timeout_s=60)
    print("ready", flush=True)
    sys.stdin.readline()
    await store.open()
    for n in range(20):
        await put_id(store, f"{sys.argv[2]}-{n}")
    await store.close()

asyncio.run(main())
"""


async def start(script: str, *arguments: str, **environment: str) -> asyncio.subprocess.Process:
    paths = os.pathsep.join(path for path in sys.path if path)
    return await asyncio.create_subprocess_exec(
        sys.executable,
        "-c",
        script,
        *arguments,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": paths, **environment},
    )


async def test_processes_that_start_together_migrate_once_and_all_write(path: Path):
    children = [await start(MIGRATE, str(path), f"child{n}") for n in range(4)]
    for child in children:
        assert child.stdout is not None
        assert await child.stdout.readline() == b"ready\n"
    for child in children:
        assert child.stdin is not None
        child.stdin.write(b"go\n")
    await asyncio.gather(*(child.communicate() for child in children))
    assert [child.returncode for child in children] == [0] * 4
    store = SqliteStore(path)
    await store.open()
    assert len(await read_all(store)) == 80
    assert await store.revision() == 80
    await store.close()
    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute("SELECT version, name FROM schema_version").fetchall() == [(1, "0001_initial")]


# Crashes

WRITE_FOR_EVER = """
import asyncio, os, sys
from contract.store import key, put, row
from vaultd.store.sqlite import SqliteStore
from pathlib import Path

async def main():
    store = SqliteStore(Path(sys.argv[1]))
    await store.open()
    for n in range(1000):
        await put(store, row(key(f"k{n:04}"), 0), row(key(f"k{n:04}", 1), 0, secret=os.urandom(3000)))
        os.write(1, b"%d\\n" % n)

asyncio.run(main())
"""


@pytest.mark.parametrize("nth", [1, 7, 300])
@pytest.mark.parametrize(
    ("failpoint", "unacknowledged"), [("store.begin", 0), ("store.before_commit", 0), ("store.after_commit", 1)]
)
async def test_kill_loses_no_acknowledged_write(path: Path, failpoint: str, unacknowledged: int, nth: int):
    child = await start(WRITE_FOR_EVER, str(path), VAULTD_FAILPOINT=f"{failpoint}:{nth}")
    output, _ = await child.communicate()
    assert child.returncode == -signal.SIGKILL
    acknowledged = len(output.splitlines())
    assert acknowledged == nth - 1
    store = SqliteStore(path)
    await store.open()
    committed = acknowledged + unacknowledged
    expected = [key(f"k{n:04}", version) for n in range(committed) for version in (0, 1)]
    assert [item.key for item in await read_all(store)] == expected
    assert await store.revision() == committed
    assert [change.key for change in await store.changes(0, 10_000)] == expected
    assert (await put_id(store, "after")).revision == committed + 1
    await store.close()


FAIL_COMMIT = """
import asyncio, json, os, resource, sys
from contract.store import put, key, row, read_all
from vaultd.errors import VaultdError
from vaultd.store.sqlite import SqliteStore
from pathlib import Path

async def main():
    path = Path(sys.argv[1])
    store = SqliteStore(path)
    await store.open()
    await put(store, row(key("before"), 0))
    _, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (os.stat(f"{path}-wal").st_size + 5000, hard))
    try:
        await put(store, row(key("lost"), 0, secret=bytes(50_000)))
        reason = "acknowledged"
    except VaultdError as error:
        reason = error.reason
    resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
    await put(store, row(key("after"), 0))
    print(json.dumps([reason, [item.key.id for item in await read_all(store)], await store.revision()]))
    await store.close()

asyncio.run(main())
"""


async def test_commit_that_the_disk_refuses_is_not_acknowledged(path: Path):
    child = await start(FAIL_COMMIT, str(path))
    output, _ = await child.communicate()
    assert json.loads(output) == ["STORE_UNAVAILABLE", ["after", "before"], 2]


# Cancellation while the thread is busy


async def test_cancelled_commit_is_awaited_before_the_next_writer(store: SqliteStore):
    held = threading.Event()
    body_done = asyncio.Event()
    blocked: list[asyncio.Task[bool]] = []

    async def write() -> None:
        async with store.begin() as transaction:
            await transaction.write([row(key("a"), transaction.revision)], [], [])
            blocked.append(asyncio.create_task(store._writer.run(lambda _: held.wait())))
            await asyncio.sleep(0)  # the thread is now busy; COMMIT will queue behind
            body_done.set()

    task = asyncio.create_task(write())
    await body_done.wait()
    following = asyncio.create_task(put_id(store, "b"))
    for _ in range(10):
        task.cancel()
        await asyncio.sleep(0)
    assert not task.done()
    assert not following.done()
    held.set()
    with pytest.raises(asyncio.CancelledError):
        await task
    await asyncio.gather(following, *blocked)
    assert [item.key.id for item in await read_all(store)] == ["a", "b"]
    assert await store.revision() == 2


async def test_cancelled_begin_that_waits_for_another_process_leaves_no_transaction(store: SqliteStore, path: Path):
    with closing(sqlite3.connect(path, isolation_level=None)) as stranger:
        stranger.execute("BEGIN IMMEDIATE")
        task = asyncio.create_task(put_id(store, "a"))
        for _ in range(10):
            await asyncio.sleep(0)
            task.cancel()
        assert not task.done()
        stranger.execute("ROLLBACK")
        with pytest.raises(asyncio.CancelledError):
            await task
    await put_id(store, "b")
    assert [item.key.id for item in await read_all(store)] == ["b"]


# Errors of SQLite


async def test_busy_past_the_timeout_is_unavailable_and_reads_go_on(path: Path):
    store = SqliteStore(path, busy_timeout_s=0.02)
    await store.open()
    await put_id(store, "a")
    with closing(sqlite3.connect(path, isolation_level=None)) as stranger:
        stranger.execute("BEGIN IMMEDIATE")
        with pytest.raises(Unavailable) as busy:
            await put_id(store, "b")
        with pytest.raises(Unavailable):
            await store.add_usage([Usage(bytes(16), 1, 1, 1, 1)])
        assert (busy.value.reason, busy.value.retry_after_s) == ("STORE_BUSY", 1)
        assert await store.get(key("a")) is not None
    await put_id(store, "b")
    await store.close()


async def test_full_store_is_resource_exhausted_and_recovers(store: SqliteStore):
    def limit(connection: sqlite3.Connection, pages: int) -> int:
        return int(connection.execute(f"PRAGMA max_page_count={pages:d}").fetchone()[0])

    await put_id(store, "a")
    await store._writer.run(limit, 1)  # no more than there are now
    with pytest.raises(ResourceExhausted) as full:
        await put(store, row(key("small"), 0), row(key("big"), 0, secret=bytes(100_000)))
    assert full.value.reason == "STORE_FULL"

    async def swallow() -> None:
        async with store.begin() as transaction:
            with pytest.raises(ResourceExhausted):
                await transaction.write([row(key("big"), transaction.revision, secret=bytes(100_000))], [], [])
            with pytest.raises(Unavailable):
                await transaction.write([row(key("small"), transaction.revision)], [], [])

    with pytest.raises(Unavailable):
        await swallow()
    assert [item.key.id for item in await read_all(store)] == ["a"]
    await store._writer.run(limit, 1_000_000)
    await put(store, row(key("big"), 0, secret=bytes(100_000)))
    assert await store.revision() == 2
    assert await store._reader.run(lambda c: c.execute("PRAGMA integrity_check").fetchall()) == [("ok",)]


@pytest.mark.parametrize("table", [None, "records", "schema_version"])
async def test_damaged_file_is_data_loss(path: Path, table: str | None):
    store = SqliteStore(path)
    await store.open()
    await put(store, *(row(key(f"k{n}"), 0) for n in range(200)))
    await store.close()
    with closing(sqlite3.connect(path)) as connection:
        pages = dict(connection.execute("SELECT name, rootpage FROM sqlite_schema").fetchall())
    with path.open("r+b") as file:
        file.seek(0 if table is None else (pages[table] - 1) * 4096)
        file.write(b"\xa5" * 4096)

    async def read() -> None:
        store = SqliteStore(path)
        await store.open()
        try:
            await read_all(store)
        finally:
            await store.close()

    with pytest.raises(DataLoss) as damaged:
        await read()
    assert damaged.value.reason == "STORE_CORRUPT"


async def test_empty_file_of_a_start_that_was_killed_is_a_new_store(path: Path):
    create_private(path)
    await open_and_close(path)


# Erasing


def occurrences(path: Path) -> dict[str, int]:
    return {file.name: file.read_bytes().count(CANARY) for file in path.parent.iterdir()}


async def test_scrub_leaves_no_copy_of_erased_material(store: SqliteStore, path: Path):
    def item(n: int, size: int, material: bytes) -> Row:
        return replace(row(key(f"k{n * 7919 % 900:04}"), 0, secret=material * size), sealed=bytes(30 + n % 170))

    # Neighbours that stay, in sizes that make pages split and merge: SQLite leaves copies in their gaps.
    for batch in range(0, 2700, 45):
        rows = {
            made.key: made for n in range(batch, batch + 45) for made in [item(n, (2, 6, 20, 60, 700)[n % 5], CANARY)]
        }
        await put(store, *rows.values())
        async with store.begin() as transaction:
            await transaction.write([], sorted(rows)[::7], [])
    assert occurrences(path)["vault.db-wal"] > 0
    held = sorted(await read_all(store), key=lambda made: made.key)
    async with store.begin() as transaction:
        gone = held[::2]
        stay = [replace(made, revision=transaction.revision, secret=b"INSTEAD-") for made in held[1::4]]
        others = [replace(made, revision=transaction.revision, secret=None) for made in held[3::4]]
        await transaction.write([*stay, *others], [made.key for made in gone], [])
    await store.scrub()
    assert path.with_name("vault.db-wal").stat().st_size == 0
    assert set(occurrences(path).values()) == {0}
    await store.backup(path.with_name("copy.db"))
    assert set(occurrences(path).values()) == {0}
    assert sum(made.secret == b"INSTEAD-" for made in await read_all(store)) == len(stay)


async def test_place_of_erased_material_is_used_again(store: SqliteStore):
    def places(connection: sqlite3.Connection) -> int:
        return int(connection.execute("SELECT count(*) FROM secrets").fetchone()[0])

    for n in range(10):
        await put(store, row(key(f"k{n}"), 0, secret=bytes([n]) * 48), row(key("same"), 0, secret=bytes([n]) * 48))
        async with store.begin() as transaction:
            await transaction.write([], [key(f"k{n}")], [])
    assert await store._reader.run(places) == 2


async def test_scrub_says_when_a_reader_is_in_the_way(store: SqliteStore, path: Path):
    await put_id(store, "a")
    async with store.snapshot():
        await put_id(store, "b")
        with pytest.raises(Unavailable) as busy:
            await store.scrub()
        assert busy.value.reason == "STORE_BUSY"
    await store.scrub()
    assert path.with_name("vault.db-wal").stat().st_size == 0


# Copies


async def test_backup_is_one_complete_file_of_what_is_committed(store: SqliteStore, tmp_path: Path):
    written = await put(store, row(key("a"), 0, secret=b"s"))
    (tmp_path / "copies").mkdir()
    copy = tmp_path / "copies" / "copy.db"
    async with store.begin() as transaction:
        await transaction.put_replay(Replay(bytes(32), b"h", 1, 1, 1, b"s"))
        await store.backup(copy)
    assert modes(copy.parent) == {"copy.db": 0o600}
    with pytest.raises(AlreadyExists):
        await store.backup(copy)
    restored = SqliteStore(copy)
    await restored.open()
    assert await read_all(restored) == written
    assert await restored.replay(bytes(32)) is None
    await restored.close()


async def test_backup_that_fails_leaves_nothing(store: SqliteStore, tmp_path: Path):
    with pytest.raises(Unavailable):
        await store.backup(tmp_path / "none" / "copy.db")
    assert modes(tmp_path).keys() == {"vault.db", "vault.db-wal", "vault.db-shm"}
