"""All SQL of the SQLite store.  Plain functions that run on a connection's thread; values are always parameters."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Final

from vaultd.errors import DataLoss
from vaultd.store.base import Change, Digest, Replay, RingRow, Row, RowKey, Usage

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Sequence


_FIRST_DUE: Final = -(2**63)


def _row(columns: tuple[str, str, str, int, bytes, str, int | None, int, int, bytes, bytes | None]) -> Row:
    return Row(RowKey(*columns[:4]), *columns[4:])


def _change(columns: tuple[int, str, str, str, int, str, int]) -> Change:
    return Change(columns[0], RowKey(*columns[1:5]), *columns[5:])


def get(connection: sqlite3.Connection, key: RowKey) -> Row | None:
    found = connection.execute(
        "SELECT kind, scope, records.id, version, uid, state, due_at, revision, term, sealed, secret "
        "FROM records LEFT JOIN secrets ON secrets.id = secret_id "
        "WHERE kind = ? AND scope = ? AND records.id = ? AND version = ?",
        key,
    ).fetchone()
    return _row(found) if found else None


def versions(
    connection: sqlite3.Connection, kind: str, scope: str, id: str, after: int = -1, limit: int | None = None
) -> list[Row]:
    no_limit = -1
    found = connection.execute(
        "SELECT kind, scope, records.id, version, uid, state, due_at, revision, term, sealed, secret "
        "FROM records LEFT JOIN secrets ON secrets.id = secret_id "
        "WHERE kind = ? AND scope = ? AND records.id = ? AND version > ? ORDER BY version LIMIT ?",
        (kind, scope, id, after, no_limit if limit is None else limit),
    ).fetchall()
    return [_row(columns) for columns in found]


def any_row(connection: sqlite3.Connection, kind: str, scope: str, state: str) -> bool:
    found = connection.execute(
        "SELECT 1 FROM records WHERE kind = ? AND scope = ? AND state = ? LIMIT 1", (kind, scope, state)
    ).fetchone()
    return found is not None


def page(
    connection: sqlite3.Connection, kind: str, scope: str, after_id: str, limit: int, states: Sequence[str]
) -> list[Row]:
    found = connection.execute(
        "SELECT kind, scope, records.id, version, uid, state, due_at, revision, term, sealed, secret "
        "FROM records LEFT JOIN secrets ON secrets.id = secret_id "
        "WHERE kind = :kind AND scope = :scope AND records.id > :after_id AND version = 0 "
        "AND (:states = '[]' OR state IN (SELECT value FROM json_each(:states))) ORDER BY records.id LIMIT :limit",
        {"kind": kind, "scope": scope, "after_id": after_id, "limit": limit, "states": json.dumps(list(states))},
    ).fetchall()
    return [_row(columns) for columns in found]


def due(connection: sqlite3.Connection, now: int, limit: int, after: tuple[int, RowKey] | None) -> list[Row]:
    due_at, key = after if after is not None else (_FIRST_DUE, RowKey("", "", "", 0))
    found = connection.execute(
        "SELECT kind, scope, records.id, version, uid, state, due_at, revision, term, sealed, secret "
        "FROM records LEFT JOIN secrets ON secrets.id = secret_id "
        "WHERE due_at <= ? AND (due_at, kind, scope, records.id, version) > (?, ?, ?, ?, ?) "
        "ORDER BY due_at, kind, scope, records.id, version LIMIT ?",
        (now, due_at, *key, limit),
    ).fetchall()
    return [_row(columns) for columns in found]


def rows_after(connection: sqlite3.Connection, key: RowKey, limit: int) -> list[Row]:
    """Rows in the order of their keys, after one."""
    found = connection.execute(
        "SELECT kind, scope, records.id, version, uid, state, due_at, revision, term, sealed, secret "
        "FROM records LEFT JOIN secrets ON secrets.id = secret_id "
        "WHERE (kind, scope, records.id, version) > (?, ?, ?, ?) ORDER BY kind, scope, records.id, version LIMIT ?",
        (*key, limit),
    ).fetchall()
    return [_row(columns) for columns in found]


def older_terms(connection: sqlite3.Connection, term: int, limit: int) -> list[RowKey]:
    found = connection.execute(
        "SELECT kind, scope, id, version FROM records WHERE term < ? ORDER BY term, kind, scope, id, version LIMIT ?",
        (term, limit),
    ).fetchall()
    return [RowKey(*columns) for columns in found]


def count_older_terms(connection: sqlite3.Connection, term: int) -> int:
    (count,) = connection.execute(
        "SELECT (SELECT count(*) FROM records WHERE term < :term) + (SELECT count(*) FROM digests WHERE term < :term) "
        "+ (SELECT count(*) FROM replays WHERE term < :term)",
        {"term": term},
    ).fetchone()
    return int(count)


def count_kinds(connection: sqlite3.Connection) -> dict[str, int]:
    return dict(connection.execute("SELECT kind, count(*) FROM records GROUP BY kind ORDER BY kind").fetchall())


def put_rows(connection: sqlite3.Connection, rows: Sequence[Row]) -> None:
    for row in rows:
        secret_id = _put_secret(connection, row.key, row.secret)
        connection.execute(
            "INSERT OR REPLACE INTO records "
            "(kind, scope, id, version, uid, state, due_at, revision, term, sealed, secret_id) "
            "VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            (*row.key, row.uid, row.state, row.due_at, row.revision, row.term, row.sealed, secret_id),
        )


def delete_rows(connection: sqlite3.Connection, keys: Sequence[RowKey]) -> None:
    for key in keys:
        _put_secret(connection, key, None)
        connection.execute("DELETE FROM records WHERE kind = ? AND scope = ? AND id = ? AND version = ?", key)


def _put_secret(connection: sqlite3.Connection, key: RowKey, secret: bytes | None) -> int | None:
    """Store the material of a row and return its id, overwriting what the row had.

    Material never moves and is never deleted, so no copy of it can stay behind: see `secrets` in 0001_initial.sql.
    """
    old = connection.execute(
        "SELECT secrets.id, size FROM records JOIN secrets ON secrets.id = secret_id "
        "WHERE kind = ? AND scope = ? AND records.id = ? AND version = ?",
        key,
    ).fetchone()
    if old is not None and (secret is None or len(secret) != old[1]):
        connection.execute("UPDATE secrets SET vacant = 1, secret = zeroblob(size) WHERE id = ?", (old[0],))
        old = None
    if secret is None:
        return None
    place = (
        old
        or connection.execute("SELECT id FROM secrets WHERE vacant = 1 AND size = ? LIMIT 1", (len(secret),)).fetchone()
    )
    if place is None:
        return connection.execute(
            "INSERT INTO secrets (size, vacant, secret) VALUES (?, 0, ?)", (len(secret), secret)
        ).lastrowid
    connection.execute("UPDATE secrets SET vacant = 0, secret = ? WHERE id = ?", (secret, place[0]))
    return int(place[0])


def append_changes(connection: sqlite3.Connection, changes: Sequence[Change], first_seq: int) -> None:
    connection.executemany(
        "INSERT INTO changes (revision, seq, kind, scope, id, version, event, at) VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
        [
            (change.revision, seq, *change.key, change.event, change.at)
            for seq, change in enumerate(changes, start=first_seq)
        ],
    )


def changes(connection: sqlite3.Connection, after: int, limit: int) -> list[Change]:
    """Whole revisions: as many as fit in limit, and at least one."""
    found = connection.execute(
        "SELECT revision, kind, scope, id, version, event, at FROM changes "
        "WHERE revision > ? ORDER BY revision, seq LIMIT ?",
        (after, limit + 1),
    ).fetchall()
    if len(found) > limit:
        first, cut = found[0][0], found[-1][0]
        if cut > first:
            found = [columns for columns in found if columns[0] < cut]
        else:
            found = connection.execute(
                "SELECT revision, kind, scope, id, version, event, at FROM changes WHERE revision = ? ORDER BY seq",
                (first,),
            ).fetchall()
    return [_change(columns) for columns in found]


def revision(connection: sqlite3.Connection) -> int:
    found = connection.execute("SELECT revision FROM meta").fetchone()
    if found is None:
        raise DataLoss("STORE_CORRUPT", "the store's file is damaged: restore a backup")
    return int(found[0])


def set_revision(connection: sqlite3.Connection, number: int) -> None:
    connection.execute("UPDATE meta SET revision = ?", (number,))


def digests(connection: sqlite3.Connection, scopes: Sequence[str]) -> dict[str, Digest]:
    found = connection.execute(
        "SELECT scope, revision, term, sealed FROM digests WHERE scope IN (SELECT value FROM json_each(?))",
        (json.dumps(list(scopes)),),
    ).fetchall()
    return {columns[0]: Digest(*columns) for columns in found}


def all_digests(connection: sqlite3.Connection) -> dict[str, Digest]:
    found = connection.execute("SELECT scope, revision, term, sealed FROM digests").fetchall()
    return {columns[0]: Digest(*columns) for columns in found}


def put_digests(connection: sqlite3.Connection, digests: Sequence[Digest]) -> None:
    connection.executemany(
        "INSERT OR REPLACE INTO digests (scope, revision, term, sealed) VALUES (?, ?, ?, ?)",
        [(digest.scope, digest.revision, digest.term, digest.sealed) for digest in digests],
    )


def ring(connection: sqlite3.Connection) -> RingRow | None:
    found = connection.execute("SELECT root_ref, generation, wrapped FROM key_ring").fetchone()
    return RingRow(*found) if found else None


def put_ring(connection: sqlite3.Connection, ring: RingRow) -> None:
    connection.execute(
        "INSERT OR REPLACE INTO key_ring (one, root_ref, generation, wrapped) VALUES (1, ?, ?, ?)",
        (ring.root_ref, ring.generation, ring.wrapped),
    )


def replay(connection: sqlite3.Connection, id: bytes) -> Replay | None:
    found = connection.execute(
        "SELECT id, request_hash, expires_at, revision, term, sealed FROM replays WHERE id = ?", (id,)
    ).fetchone()
    return Replay(*found) if found else None


def put_replay(connection: sqlite3.Connection, replay: Replay) -> None:
    connection.execute(
        "INSERT OR REPLACE INTO replays (id, request_hash, expires_at, revision, term, sealed) "
        "VALUES (?, ?, ?, ?, ?, ?)",
        (replay.id, replay.request_hash, replay.expires_at, replay.revision, replay.term, replay.sealed),
    )


def drop_replays(connection: sqlite3.Connection, expired_before: int) -> int:
    """One statement, which is its own transaction."""
    return connection.execute("DELETE FROM replays WHERE expires_at < ?", (expired_before,)).rowcount


def trim_changes(connection: sqlite3.Connection, keep: int) -> int:
    """One statement, which is its own transaction."""
    newest = revision(connection)
    return connection.execute("DELETE FROM changes WHERE revision <= ?", (newest - keep,)).rowcount


def add_usage(connection: sqlite3.Connection, usages: Sequence[Usage]) -> None:
    connection.executemany(
        "INSERT INTO key_usage (uid, version, messages, bytes, last_use_at) VALUES (?, ?, ?, ?, ?) "
        "ON CONFLICT (uid, version) DO UPDATE SET messages = messages + excluded.messages, "
        "bytes = bytes + excluded.bytes, last_use_at = max(last_use_at, excluded.last_use_at)",
        [(usage.uid, usage.version, usage.messages, usage.bytes, usage.last_use_at) for usage in usages],
    )


def usage(connection: sqlite3.Connection, uid: bytes) -> list[Usage]:
    found = connection.execute(
        "SELECT uid, version, messages, bytes, last_use_at FROM key_usage WHERE uid = ? ORDER BY version", (uid,)
    ).fetchall()
    return [Usage(*columns) for columns in found]


def data_version(connection: sqlite3.Connection) -> int:
    """A number that differs after any other connection, of this process or another, has committed."""
    (number,) = connection.execute("PRAGMA data_version").fetchone()
    return int(number)
