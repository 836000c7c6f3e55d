"""Whoever edits, swaps, rolls back, copies or deletes rows behind vaultd's back is found out, and nothing of it is used."""

from __future__ import annotations

import asyncio
import random
import shutil
import sqlite3
from contextlib import closing
from typing import Any

import pytest

from engine.engines import DAY_US, closed_engine, edit, intent, open_engine, query, version
from harness import reason_of, running_server
from vaultd.engine.seal import SealState
from vaultd.errors import DataLoss, FailedPrecondition, Unavailable, VaultdError
from vaultd.names import KeyRef
from vaultd_client.v1 import admin_pb2, crypto_pb2

BUDGETED = {"limits": {"messages_per_version": 1_024}}
K = KeyRef("default", "k", 0)
ROWS = {
    "key": ("key", "default", "k", 0),
    "key_version": ("key_version", "default", "k", 1),
    "vault": ("vault", "", "other", 0),
    "policy": ("policy", "", "policy", 0),
    "budget": ("budget", "default", "k", 1),
}
COLUMNS: dict[str, Any] = {
    "kind": "kex",
    "scope": "elsewhere",
    "id": "zz",
    "version": 9,
    "uid": bytes(16),
    "state": "ENABLED!",
    "due_at": 12_345,
    "revision": 1_000_000,
    "term": 2,
    "sealed": b"\x00" * 64,
}
WHERE = "kind = ? AND scope = ? AND id = ? AND version = ?"


@pytest.fixture(scope="module")
def template(tmp_path_factory):
    """A closed vault with every kind of row, and (`earlier.db`) the same vault some writes before."""
    directory = tmp_path_factory.mktemp("template")
    asyncio.run(make_template(directory))
    return directory


async def make_template(directory) -> None:
    async with open_engine(directory, **BUDGETED) as vault:
        await vault.engine.vaults.create(intent(), "other", "", {})
        await vault.create("k", algorithm="AES_256_GCM", destroy_delay_us=DAY_US)
        await vault.create("l", algorithm="AES_256_GCM")
        await vault.create("o", vault="other")
        await vault.encrypt(K)
        await vault.key_versions.rotate_key(intent("once"), K)
        await vault.key_versions.disable_version(intent(), version(K, 2), "")
        await vault.key_versions.set_primary(intent(), version(K, 1), "")
        await vault.store.backup(directory / "earlier.db")
        for _ in range(70):  # a second lease of the budget
            await vault.encrypt(K)
        await vault.key_versions.enable_version(intent(), version(K, 2), "")
        await vault.key_versions.disable_version(intent(), version(K, 1), "")
        await vault.key_versions.rotate_key(intent(), KeyRef("other", "o", 0))


@pytest.fixture
def path(template, tmp_path):
    for name in ("vault.db", "earlier.db", "root.key"):
        shutil.copy2(template / name, tmp_path / name)
    return tmp_path / "vault.db"


async def require_refused(directory, reasons: tuple[str, ...] = ("ROWS_ROLLED_BACK", "ROW_TAMPERED")) -> None:
    """The vault does not unseal, says why, and uses no key."""
    async with closed_engine(directory, **BUDGETED) as vault:
        with pytest.raises(DataLoss) as lost:
            await vault.seal.start()
        assert lost.value.reason in reasons
        assert vault.seal.state is SealState.SEALED
        with pytest.raises(Unavailable) as sealed:
            await vault.encrypt(K)
        assert sealed.value.reason == "SEALED"


async def test_the_template_is_sound(path):
    async with open_engine(path.parent, **BUDGETED) as vault:
        assert await vault.ledger.check(deep=True) > 10


# -- edits --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("column", COLUMNS)
@pytest.mark.parametrize("row", ROWS)
async def test_an_edited_column_is_found_at_start(path, row, column):
    sql = f"UPDATE records SET {column} = ? WHERE {WHERE}"  # noqa: S608  # constants of this file
    edit(path, (sql, (COLUMNS[column], *ROWS[row])))
    await require_refused(path.parent)


async def test_material_taken_from_a_row_is_found_at_start(path):
    edit(path, (f"UPDATE records SET secret_id = NULL WHERE {WHERE}", ROWS["key_version"]))  # noqa: S608  # constants
    await require_refused(path.parent)


async def test_edited_material_is_found_at_start(path):
    edit(path, ("UPDATE secrets SET secret = randomblob(size) WHERE id = 1", ()))
    await require_refused(path.parent)


@pytest.mark.parametrize("scope", ["", "default", "other", "*"])
@pytest.mark.parametrize(
    "change", ["scope = 'elsewhere'", "revision = revision + 1", "term = 2", "sealed = randomblob(68)"]
)
async def test_an_edited_digest_is_found_at_start(path, scope, change):
    edit(path, (f"UPDATE digests SET {change} WHERE scope = ?", (scope,)))  # noqa: S608  # constants of this file
    await require_refused(path.parent)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ("generation = generation + 1", "ROOT_KEY_MISMATCH"),
        ("wrapped = randomblob(length(wrapped))", "ROOT_KEY_MISMATCH"),
        ("wrapped = x''", "ROOT_KEY_MISMATCH"),
    ],
)
async def test_an_edited_ring_is_found_at_start(path, change, reason):
    edit(path, (f"UPDATE key_ring SET {change}", ()))  # noqa: S608  # constants of this file
    await require_refused(path.parent, (reason,))


async def test_a_ring_that_names_another_root_key_does_not_open(path):
    edit(path, ("UPDATE key_ring SET root_ref = '0123456789abcdef'", ()))
    async with closed_engine(path.parent) as vault:
        with pytest.raises(FailedPrecondition) as refused:
            await vault.seal.start()
        assert (refused.value.reason, vault.seal.state) == ("ROOT_KEY_MISSING", SealState.SEALED)


async def test_a_revision_put_back_is_found_at_start(path):
    edit(path, ("UPDATE meta SET revision = 3", ()))
    await require_refused(path.parent)


async def test_flipped_bytes_of_sealed_rows_are_found_at_start(path):
    chooser = random.Random(20_261_123)
    rows = query(path, "SELECT kind, scope, id, version, sealed FROM records")
    for *key, sealed in chooser.sample(rows, 6):
        blob = bytearray(sealed)
        blob[chooser.randrange(len(blob))] ^= 1 << chooser.randrange(8)
        sql = f"UPDATE records SET sealed = ? WHERE {WHERE}"  # noqa: S608  # constants of this file
        edit(path, (sql, (bytes(blob), *key)))
        await require_refused(path.parent)
        edit(path, (sql, (sealed, *key)))


async def test_each_flipped_byte_of_material_is_found_by_a_check(path):
    """On a running vault, where a check is all that must be done for each byte."""
    async with open_engine(path.parent) as vault:
        ((id, secret),) = query(path, "SELECT id, secret FROM secrets WHERE vacant = 0 LIMIT 1")
        for at in range(0, len(secret), 4):
            blob = secret[:at] + bytes([secret[at] ^ 0x80]) + secret[at + 1 :]
            edit(path, ("UPDATE secrets SET secret = ? WHERE id = ?", (blob, id)))
            with pytest.raises(DataLoss):
                await vault.ledger.check(deep=True)
        edit(path, ("UPDATE secrets SET secret = ? WHERE id = ?", (secret, id)))
        assert await vault.ledger.check(deep=True)


# -- swaps, copies, deletions ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("column", ["sealed", "secret_id", "uid", "state"])
@pytest.mark.parametrize(
    ("one", "two"),
    [
        (("key_version", "default", "k", 1), ("key_version", "default", "k", 2)),
        (("key_version", "default", "k", 1), ("key_version", "default", "l", 1)),
        (("key_version", "default", "k", 1), ("key_version", "other", "o", 1)),
    ],
    ids=["versions", "keys", "vaults"],
)
async def test_values_swapped_between_rows_are_found_at_start(path, column, one, two):
    sql = f"SELECT {column} FROM records WHERE {WHERE}"  # noqa: S608  # constants of this file
    ((first,),), ((second,),) = query(path, sql, one), query(path, sql, two)
    if first == second:  # versions of one key share a uid, and enabled ones a state: nothing to swap
        second = {"uid": bytes(16), "state": "DESTROY_SCHEDULED"}[column]
    update = f"UPDATE records SET {column} = ? WHERE {WHERE}"  # noqa: S608  # constants of this file
    edit(path, (update, (second, *one)), (update, (first, *two)))
    await require_refused(path.parent)


async def test_a_policy_row_in_the_place_of_a_vault_is_found_at_start(path):
    ((sealed,),) = query(path, "SELECT sealed FROM records WHERE kind = 'policy'")
    edit(path, (f"UPDATE records SET sealed = ? WHERE {WHERE}", (sealed, *ROWS["vault"])))  # noqa: S608  # constants
    await require_refused(path.parent)


@pytest.mark.parametrize("row", ROWS)
async def test_a_deleted_row_is_found_at_start(path, row):
    edit(path, (f"DELETE FROM records WHERE {WHERE}", ROWS[row]))  # noqa: S608  # constants of this file
    await require_refused(path.parent)


@pytest.mark.parametrize("row", ROWS)
async def test_a_row_copied_under_another_name_is_found_at_start(path, row):
    columns = "version, uid, state, due_at, revision, term, sealed, secret_id"
    copy = f"INSERT INTO records SELECT kind, scope, 'copy', {columns} FROM records WHERE {WHERE}"  # noqa: S608  # constants
    edit(path, (copy, ROWS[row]))
    await require_refused(path.parent)


@pytest.mark.parametrize("scope", ["", "default", "other", "*"])
async def test_a_deleted_digest_is_found_at_start(path, scope):
    edit(path, ("DELETE FROM digests WHERE scope = ?", (scope,)))
    await require_refused(path.parent)


async def test_a_vault_deleted_with_its_rows_and_its_digest_is_found_at_start(path):
    edit(
        path,
        ("DELETE FROM records WHERE scope = 'other'", ()),
        ("DELETE FROM digests WHERE scope = 'other'", ()),
    )
    await require_refused(path.parent)


async def test_a_store_emptied_of_rows_and_digests_is_found_at_start(path):
    edit(path, ("DELETE FROM records", ()), ("DELETE FROM digests", ()))
    await require_refused(path.parent)


# -- rollbacks ----------------------------------------------------------------------------------------------------------


def put_back(path, table: str, where: str, values: tuple[Any, ...] = ()) -> None:
    """Replace rows of a table with what the earlier copy of the vault has."""
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("PRAGMA foreign_keys=OFF")
        connection.execute("ATTACH ? AS earlier", (str(path.with_name("earlier.db")),))
        connection.execute("BEGIN")
        connection.execute(f"DELETE FROM main.{table} WHERE {where}", values)  # noqa: S608  # constants of this file
        sql = f"INSERT INTO main.{table} SELECT * FROM earlier.{table} WHERE {where}"  # noqa: S608  # constants
        connection.execute(sql, values)
        connection.execute("COMMIT")


@pytest.mark.parametrize("row", ["key_version", "budget"])
async def test_a_row_put_back_from_the_past_is_found_at_start(path, row):
    put_back(path, "records", WHERE, ROWS[row])
    await require_refused(path.parent)


@pytest.mark.parametrize("row", ["key_version", "budget"])
async def test_a_row_put_back_with_the_digest_of_its_vault_is_found_at_start(path, row):
    put_back(path, "records", WHERE, ROWS[row])
    put_back(path, "digests", "scope = 'default'")
    await require_refused(path.parent)


@pytest.mark.parametrize("scope", ["default", "other"])
async def test_a_whole_vault_put_back_with_its_digest_is_found_at_start(path, scope):
    put_back(path, "records", "scope = ?", (scope,))
    put_back(path, "secrets", "1")
    put_back(path, "digests", "scope = ?", (scope,))
    await require_refused(path.parent)


async def test_a_whole_vault_put_back_with_the_digest_over_all_is_found_at_start(path):
    put_back(path, "records", "scope = 'default'")
    put_back(path, "digests", "scope IN ('default', '*')")
    await require_refused(path.parent)


# -- a server -----------------------------------------------------------------------------------------------------------


async def test_a_server_with_an_edited_row_answers_and_stays_sealed(tmp_path):
    async with running_server(tmp_path):
        pass
    edit(tmp_path / "vault.db", ("UPDATE records SET state = 'GONE' WHERE kind = 'vault'", ()))
    async with running_server(tmp_path) as server:
        status = await server.admin.admin.GetStatus(admin_pb2.GetStatusRequest())
        assert status.seal_state == admin_pb2.SEAL_STATE_SEALED


async def test_a_server_with_an_edited_row_refuses_data_calls(tmp_path):
    async with running_server(tmp_path):
        pass
    edit(tmp_path / "vault.db", ("UPDATE records SET state = 'GONE' WHERE kind = 'vault'", ()))
    async with running_server(tmp_path) as server:
        with pytest.raises(Exception, match="sealed") as refused:
            await server.app.crypto.Encrypt(crypto_pb2.EncryptRequest(name="vaults/default/keys/k", plaintext=b"x"))
        assert reason_of(refused.value) == "SEALED"


async def test_a_server_with_an_edited_row_records_why(tmp_path):
    async with running_server(tmp_path):
        pass
    edit(tmp_path / "vault.db", ("UPDATE records SET state = 'GONE' WHERE kind = 'vault'", ()))
    async with running_server(tmp_path) as server:
        assert any("unseal_failed" in str(record) for record in server.audit_records())


# -- edits while running --------------------------------------------------------------------------------------------------


@pytest.fixture
async def running(path):
    async with open_engine(path.parent, **BUDGETED) as vault:
        yield vault


@pytest.mark.parametrize("column", ["uid", "state", "due_at", "revision", "term", "sealed"])
@pytest.mark.parametrize("row", ["key", "key_version"])
async def test_a_row_edited_at_run_time_is_not_used(path, running, row, column):
    sql = f"UPDATE records SET {column} = ? WHERE {WHERE}"  # noqa: S608  # constants of this file
    edit(path, (sql, (COLUMNS[column], *ROWS[row])))
    running.engine.catalog.forget_all()
    with pytest.raises(DataLoss):
        await running.encrypt(version(K, 2))


async def test_a_disabled_version_edited_to_enabled_is_not_used(path, running):
    edit(path, (f"UPDATE records SET state = 'ENABLED' WHERE {WHERE}", ROWS["key_version"]))  # noqa: S608  # constants
    running.engine.catalog.forget_all()
    with pytest.raises(DataLoss) as lost:
        await running.encrypt(version(K, 1))
    assert lost.value.reason == "ROW_TAMPERED"


async def test_material_swapped_at_run_time_is_not_used(path, running):
    sql = "UPDATE records SET secret_id = (SELECT secret_id FROM records WHERE id = 'l' AND version = 1) WHERE "
    edit(path, (sql + WHERE, ("key_version", "default", "k", 2)))
    running.engine.catalog.forget_all()
    with pytest.raises(DataLoss):
        await running.encrypt(version(K, 2))


async def test_an_edited_row_is_not_changed_by_a_mutation_either(path, running):
    edit(path, (f"UPDATE records SET state = 'ENABLED' WHERE {WHERE}", ROWS["key_version"]))  # noqa: S608  # constants
    with pytest.raises(DataLoss):
        await running.key_versions.disable_version(intent(), version(K, 1), "")


async def test_an_edited_budget_stops_encryption(path, running):
    await running.key_versions.enable_version(intent(), version(K, 1), "")
    edit(path, ("UPDATE records SET sealed = randomblob(64) WHERE kind = 'budget'", ()))
    with pytest.raises(DataLoss):
        await running.encrypt(version(K, 1))


async def test_a_version_edited_to_be_due_is_not_destroyed(path, running):
    sql = f"UPDATE records SET state = 'DESTROY_SCHEDULED', due_at = 1 WHERE {WHERE}"  # noqa: S608  # constants
    edit(path, (sql, ROWS["key_version"]))
    await running.tick()
    assert query(path, "SELECT count(*) FROM secrets WHERE vacant = 1") == [(0,)]
    assert ("destroy_failed", "vaults/default/keys/k/versions/1", "ROW_TAMPERED") in running.events


async def test_edits_are_found_by_a_check_of_a_running_vault(path, running):
    edit(path, (f"UPDATE records SET state = 'ENABLED' WHERE {WHERE}", ROWS["key_version"]))  # noqa: S608  # constants
    with pytest.raises(VaultdError) as lost:
        await running.ledger.check()
    assert lost.value.reason == "ROWS_ROLLED_BACK"
