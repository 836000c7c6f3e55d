"""Secrets: aliases, compare-and-set, expiry, retention, deletion, and what is held in memory."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import Any

import pytest

from engine.engines import DAY_US, HOUR_US, edit, intent, move_to, move_us, open_engine, query
from harness import FakeClock
from vaultd.engine.algorithms import ProtectionLevel
from vaultd.engine.model import SecretVersionState
from vaultd.engine.secret_access import AccessItem, SecretAccess
from vaultd.engine.secret_catalog import SecretCatalog
from vaultd.engine.secret_payloads import pad_payload, padded_length, unpad_payload
from vaultd.engine.secrets import NewVersion, SecretSpec
from vaultd.engine.watched import event_of
from vaultd.errors import (
    Aborted,
    AlreadyExists,
    DataLoss,
    FailedPrecondition,
    InvalidArgument,
    NotFound,
    Unavailable,
    VaultdError,
)
from vaultd.names import SecretRef, parse_secret_or_version_name
from vaultd.secret import Secret
from vaultd.store.base import RowKey

REF = SecretRef("default", "db")
NAME = "vaults/default/secrets/db"


@pytest.fixture
def clock():
    return FakeClock()


class Box:
    """An engine with the calls that these tests make."""

    def __init__(self, opened: Any) -> None:
        self.opened = opened
        self.secrets = opened.engine.secrets
        self.catalog = opened.engine.secret_catalog

    async def create(self, payload: bytes = b"one", ref: SecretRef = REF, **spec: Any) -> Any:
        first = NewVersion(Secret(payload)) if payload else None
        return await self.secrets.create(intent(), ref.vault, ref.secret, SecretSpec(**spec), first)

    async def add(self, payload: bytes, etag: str = "", *, keep_current: bool = False, **fields: Any) -> Any:
        new = NewVersion(Secret(payload), **fields)
        return await self.secrets.add_version(intent(), REF, new, etag, keep_current=keep_current)

    async def read(self, which: object = "", **fields: Any) -> bytes:
        """The payload of a version by number or alias, of the bare name without either."""
        item = AccessItem(f"{NAME}/versions/{which}" if which else NAME, **fields)
        _, payload, _ = await self.opened.engine.secret_access.access(item, None)
        return payload.expose("a test compares it")

    async def point(self, alias: str, which: object, etag: str = "") -> Any:
        target = parse_secret_or_version_name(f"{NAME}/versions/{which}")
        return await self.secrets.set_alias(intent(), REF, alias, target, etag)

    async def numbers(self, state: str = "ENABLED") -> list[int]:
        return [v.number for v in await self.secrets.list_versions(REF) if v.state.value == state]


def version(number: int) -> SecretRef:
    return SecretRef("default", "db", number)


@asynccontextmanager
async def opened_box(directory, clock, **overrides):
    async with open_engine(directory, clock, **overrides) as opened:
        yield Box(opened)


@pytest.fixture
async def box(tmp_path, clock):
    async with opened_box(tmp_path, clock) as box:
        yield box


async def refused(reason: str, call: Any) -> VaultdError:
    with pytest.raises(VaultdError) as caught:
        await call
    assert caught.value.reason == reason
    return caught.value


# -- versions and aliases -----------------------------------------------------------------------------------------------


async def test_a_new_version_is_in_service_at_once(box):
    await box.create(b"one")
    await box.add(b"two")
    found = await box.secrets.get(REF)
    assert (found.latest, found.current, found.previous) == (2, 2, 1)
    assert [await box.read(which) for which in ("", "current", "latest", "previous", 1, 2)] == [
        *(b"two", b"two", b"two", b"one", b"one", b"two")
    ]


async def test_a_staged_version_is_seen_by_latest_alone_until_it_is_promoted(box):
    await box.create(b"one")
    await box.add(b"two", keep_current=True)
    assert [await box.read(which) for which in ("", "latest")] == [b"one", b"two"]
    await box.point("current", "latest")
    assert [await box.read(which) for which in ("", "latest", "previous")] == [b"two", b"two", b"one"]


async def test_a_rollback_is_one_call_and_so_is_its_reverse(box):
    await box.create(b"one")
    await box.add(b"two")
    await box.point("current", "previous")
    assert [await box.read(which) for which in ("current", "previous", "latest")] == [b"one", b"two", b"two"]
    await box.point("current", "previous")
    assert [await box.read(which) for which in ("current", "previous")] == [b"two", b"one"]


async def test_the_first_version_is_in_service_even_when_it_was_to_be_staged(box):
    await box.create(b"")
    await refused("SECRET_VERSION_NOT_FOUND", box.read())
    await box.add(b"one", keep_current=True)
    assert await box.read() == b"one"


async def test_an_alias_does_not_step_aside_when_its_version_is_disabled(box):
    await box.create(b"one")
    await box.add(b"two")
    await box.secrets.disable_version(intent(), version(2))
    for which in ("", "current", "latest", 2):
        await refused("SECRET_VERSION_DISABLED", box.read(which))
    assert await box.read("previous") == b"one"
    await box.secrets.enable_version(intent(), version(2))
    assert await box.read() == b"two"


async def test_names_of_ones_own_point_where_they_were_set_until_they_are_removed(box):
    await box.create(b"one")
    await box.point("blue", 1)
    await box.add(b"two")
    await box.point("green", "current")
    assert [await box.read("blue"), await box.read("green")] == [b"one", b"two"]
    await box.secrets.remove_alias(intent(), REF, "blue")
    await refused("SECRET_VERSION_NOT_FOUND", box.read("blue"))


@pytest.mark.parametrize("alias", ["latest", "previous"])
async def test_aliases_that_follow_by_themselves_are_not_set(box, alias):
    await box.create()
    await refused("ALIAS_RESERVED", box.point(alias, 1))
    await refused("ALIAS_RESERVED", box.secrets.remove_alias(intent(), REF, alias))


async def test_current_is_moved_and_never_removed(box):
    await box.create()
    await refused("ALIAS_STAYS", box.secrets.remove_alias(intent(), REF, "current"))


async def test_an_alias_names_only_what_can_be_accessed(box, clock):
    await box.create(b"one")
    await box.add(b"two", expire_us=clock.us + 10)
    await box.add(b"three")
    await box.secrets.disable_version(intent(), version(1))
    await refused("SECRET_VERSION_DISABLED", box.point("current", 1))
    await refused("SECRET_VERSION_NOT_FOUND", box.point("current", 9))
    move_us(clock, 10)
    await refused("SECRET_VERSION_EXPIRED", box.point("blue", 2))


async def test_an_alias_names_a_version_of_its_own_secret(box):
    await box.create()
    await box.create(ref=SecretRef("default", "other"))
    await refused("OTHER_SECRET", box.secrets.set_alias(intent(), REF, "blue", SecretRef("default", "other", 1)))


async def test_a_secret_has_so_many_aliases_and_no_more(box):
    await box.create()
    for number in range(32):
        await box.point(f"a{number}", 1)
    await refused("TOO_MANY_ALIASES", box.point("one-more", 1))
    await box.point("a7", 1)


# -- compare and set ----------------------------------------------------------------------------------------------------


async def test_of_two_who_read_the_same_only_one_writes(box):
    read = await box.create()
    first = await box.add(b"two", read.etag)
    with pytest.raises(Aborted):
        await box.add(b"three", read.etag)
    assert await box.numbers() == [1, 2]
    await box.add(b"three", first.etag)


async def test_the_etag_that_comes_with_a_version_is_the_secrets_own(box):
    await box.create()
    added = await box.add(b"two")
    assert added.etag == (await box.secrets.get(REF)).etag


async def test_what_the_scheduler_destroys_disturbs_nobodys_compare_and_set(box, clock):
    await box.create(version_ttl_us=HOUR_US)
    for payload in (b"two", b"three"):
        etag = (await box.add(payload)).etag
    move_us(clock, HOUR_US)
    await box.opened.tick()
    assert await box.numbers("DESTROYED") == [1]
    await box.add(b"four", etag)


async def test_watchers_are_told_no_etag_that_a_secret_does_not_have(box, clock):
    await box.create(version_ttl_us=HOUR_US)
    for payload in (b"two", b"three"):
        await box.add(payload)
    assert await box.read() == b"three"
    told = []
    box.opened.ledger.subscribe(lambda changes: told.extend(e for e in map(event_of, changes) if e is not None))
    move_us(clock, HOUR_US)
    await box.opened.tick()
    gone = await box.secrets.destroy_version(intent(), version(2))
    assert [(e.name, e.etag) for e in told] == [
        (f"{NAME}/versions/1", (await box.secrets.get_version(version(1))).etag),
        (f"{NAME}/versions/2", gone.etag),
    ]
    assert box.catalog.cached == {}  # caches are told


# -- expiry -------------------------------------------------------------------------------------------------------------


async def test_a_version_is_given_out_until_the_microsecond_of_its_expiry(box, clock):
    await box.create()
    expire_us = clock.us + HOUR_US
    await box.add(b"two", expire_us=expire_us)
    for _ in range(2):  # from the store, and from memory
        move_to(clock, expire_us - 1)
        assert await box.read() == b"two"
        move_to(clock, expire_us)
        await refused("SECRET_VERSION_EXPIRED", box.read())
        box.catalog.forget_all()
    assert await box.read("previous") == b"one"


async def test_an_expiry_in_a_batch_is_looked_at_for_each_item(box, clock):
    await box.create()
    await box.add(b"two", expire_us=clock.us + 1)
    move_us(clock, 1)
    items = [AccessItem(f"{NAME}/versions/{number}") for number in (1, 2)]
    good, bad = await box.opened.engine.secret_access.access_many(items, None)
    assert good[1].expose("a test compares it") == b"one"
    assert bad.reason == "SECRET_VERSION_EXPIRED"


async def test_an_expiry_that_is_past_is_refused(box, clock):
    await box.create()
    await refused("EXPIRE_TIME_PAST", box.add(b"two", expire_us=clock.us))
    assert await box.numbers() == [1]


# -- retention ----------------------------------------------------------------------------------------------------------


async def test_only_the_newest_versions_and_the_named_are_kept(box):
    await box.create(keep_versions=2)
    await box.point("pinned", 1)
    for payload in (b"two", b"three", b"four", b"five"):
        await box.add(payload)
    assert await box.numbers() == [1, 4, 5]
    assert await box.numbers("DESTROYED") == [2, 3]
    assert await box.read("pinned") == b"one"
    await refused("SECRET_VERSION_DESTROYED", box.read(2))


async def test_keeping_fewer_destroys_in_the_same_change(box):
    await box.create()
    for payload in (b"two", b"three", b"four"):
        await box.add(payload)
    await box.secrets.update(intent(), REF, {"keep_versions": 1})
    assert await box.numbers() == [3, 4]  # the last is `current`, the one before it `previous`


async def test_a_version_is_old_from_when_no_alias_names_it(box, clock):
    await box.create(version_ttl_us=HOUR_US)
    await box.point("pinned", 1)
    await box.add(b"two")
    await box.add(b"three")
    move_us(clock, DAY_US)
    await box.opened.tick()
    assert await box.numbers() == [1, 2, 3]
    await box.secrets.remove_alias(intent(), REF, "pinned")
    move_us(clock, HOUR_US - 1)
    await box.opened.tick()
    assert await box.numbers() == [1, 2, 3]
    move_us(clock, 1)
    await box.opened.tick()
    assert await box.numbers() == [2, 3]


async def test_the_scheduler_says_which_versions_it_destroys(box, clock):
    await box.create(version_ttl_us=HOUR_US)
    for payload in (b"two", b"three"):
        await box.add(payload)
    move_us(clock, HOUR_US)
    await box.opened.tick()
    assert box.opened.intents == [("destroy_old_versions", NAME)]
    assert box.opened.events == [("destroy", f"{NAME}/versions/1", "")]


async def test_nothing_is_destroyed_on_the_word_of_a_clock_that_jumped(box, clock):
    await box.create(version_ttl_us=HOUR_US)
    for payload in (b"two", b"three"):
        await box.add(payload)
    clock.jump_wall(86_400)
    await box.opened.tick()
    assert await box.numbers() == [1, 2, 3]


async def test_rows_that_stay_due_are_read_once_in_a_tick(box, clock, monkeypatch):
    monkeypatch.setattr("vaultd.engine.scheduler.DUE_ROWS", 3)
    refs = [SecretRef("default", f"s{number}") for number in range(10)]
    for ref in refs:
        await box.create(b"one", ref)
        await box.secrets.delete(intent(), ref)
    clock.jump_wall(31 * 86_400)
    read, due = [], box.opened.store.due

    async def counted(*args):
        rows = await due(*args)
        read.extend(row.key.id for row in rows)
        return rows

    monkeypatch.setattr(box.opened.store, "due", counted)
    await box.opened.tick()
    assert [id for id in read if id.startswith("s")] == [ref.secret for ref in refs]


async def test_a_destroyed_payload_is_nowhere_in_the_files(tmp_path, box):
    await box.create(b"one")
    row = await box.opened.store.get(RowKey("secret_version", "default", "db", 1))
    await box.add(b"two")
    await box.secrets.destroy_version(intent(), version(1))
    files = b"".join(path.read_bytes() for path in tmp_path.glob("vault.db*"))
    assert row.secret not in files
    found = await box.secrets.get_version(version(1))
    assert (found.state, found.payload_bytes, found.payload_crc32c) == (SecretVersionState.DESTROYED, 0, 0)


# -- deletion -----------------------------------------------------------------------------------------------------------


async def test_a_deleted_secret_gives_nothing_out_and_comes_back_as_it_was(box):
    before = await box.create()
    assert await box.read() == b"one"
    await box.secrets.delete(intent(), REF)
    for call in (box.read(), box.add(b"two"), box.point("blue", 1), box.secrets.disable_version(intent(), version(1))):
        await refused("SECRET_DELETED", call)
    after = await box.secrets.undelete(intent(), REF)
    assert (after.current, after.live, after.state) == (before.current, before.live, before.state)
    assert await box.read() == b"one"


async def test_a_purged_name_is_never_reborn(box):
    await box.create(labels={"team": "a"}, owner="somebody")
    await refused("SECRET_NOT_DELETED", box.secrets.purge(intent(), REF))
    await box.secrets.delete(intent(), REF)
    await box.secrets.purge(intent(), REF)
    with pytest.raises(AlreadyExists):
        await box.create()
    for call in (box.secrets.get(REF), box.read(), box.secrets.undelete(intent(), REF)):
        await refused("SECRET_NOT_FOUND", call)
    assert await box.opened.store.get(RowKey("secret_version", "default", "db", 1)) is None
    tombstone = await box.opened.ledger.read(RowKey("secret", "default", "db", 0))
    assert (tombstone.values["labels"], tombstone.values["owner"]) == ({}, "")


async def version_rows(box):
    return await box.opened.store.versions("secret_version", "default", "db")


async def test_a_purge_of_many_versions_goes_in_steps(box, monkeypatch):
    monkeypatch.setattr("vaultd.engine.secrets.ERASED_AT_ONCE", 2)
    await box.create()
    for payload in (b"two", b"three", b"four", b"five"):
        await box.add(payload)
    await box.secrets.delete(intent(), REF)
    before, left = box.opened.ledger.revision, []
    monkeypatch.setattr("vaultd.failpoints.hit", lambda name: left.append(name))
    await box.secrets.purge(intent(), REF)
    assert left.count("secret.erased_some") == 2
    assert box.opened.ledger.revision == before + 3
    assert await version_rows(box) == []
    assert (await box.opened.store.get(RowKey("secret", "default", "db", 0))).due_at is None
    await refused("SECRET_NOT_FOUND", box.secrets.purge(intent(), REF))


class Died(BaseException):
    """A process that died."""


@pytest.mark.parametrize("how", ["repeat", "replay", "scheduler", "jumped"])
async def test_a_purge_that_was_cut_short_shows_nothing_and_goes_on(box, clock, monkeypatch, how):
    monkeypatch.setattr("vaultd.engine.secrets.ERASED_AT_ONCE", 2)
    await box.create()
    for payload in (b"two", b"three", b"four", b"five"):
        await box.add(payload)
    await box.secrets.delete(intent(), REF)
    asked = intent("purge-once")

    def die(name):
        if name == "ledger.committed":
            raise Died

    with monkeypatch.context() as patched:
        patched.setattr("vaultd.failpoints.hit", die)
        with pytest.raises(Died):
            await box.secrets.purge(asked, REF)
    box.catalog.forget_all()  # with the process
    assert len(await version_rows(box)) == 3
    for call in (
        box.secrets.get(REF),
        box.secrets.undelete(intent(), REF),
        box.read(5),
        box.secrets.list_versions(REF),
    ):
        await refused("SECRET_NOT_FOUND", call)
    assert await box.secrets.list_secrets("default", "", 10, deleted=True) == []
    if how == "jumped":
        clock.jump_wall(86_400)
    if how in {"scheduler", "jumped"}:
        await box.opened.tick()
    else:
        await box.secrets.purge(asked if how == "replay" else intent(), REF)
    assert await version_rows(box) == []
    assert (await box.opened.store.get(RowKey("secret", "default", "db", 0))).due_at is None
    assert await box.opened.ledger.check(deep=True) > 0


async def test_purge_protection_waits_for_the_purge_time(box, clock):
    await box.create(purge_protection=True)
    await refused("PURGE_PROTECTION_STAYS", box.secrets.update(intent(), REF, {"purge_protection": False}))
    deleted = await box.secrets.delete(intent(), REF)
    await refused("PURGE_PROTECTED", box.secrets.purge(intent(), REF))
    move_to(clock, deleted.purge_us)
    await box.opened.tick()
    await refused("SECRET_NOT_FOUND", box.secrets.get(REF))
    assert ("purge", NAME, "") in box.opened.events


async def test_a_vault_with_a_secret_is_not_deleted(box):
    vaults = box.opened.engine.vaults
    await vaults.create(intent(), "team", "", {})
    await box.create(ref=SecretRef("team", "db"))
    await refused("VAULT_NOT_EMPTY", vaults.delete(intent(), "team", ""))
    await box.secrets.delete(intent(), SecretRef("team", "db"))
    await refused("VAULT_NOT_EMPTY", vaults.delete(intent(), "team", ""))
    await box.secrets.purge(intent(), SecretRef("team", "db"))
    await vaults.delete(intent(), "team", "")
    with pytest.raises(NotFound):
        await box.create(ref=SecretRef("team", "another"))


async def test_a_retry_adds_nothing(box):
    await box.create()
    again = intent("once")
    one, two = [await box.secrets.add_version(again, REF, NewVersion(Secret(b"two"))) for _ in range(2)]
    assert one == two
    assert await box.numbers() == [1, 2]


# -- memory -------------------------------------------------------------------------------------------------------------


async def test_a_second_access_asks_the_store_nothing(box, monkeypatch):
    await box.create()
    await box.read()

    async def never(*_: object) -> None:
        raise AssertionError("the store was asked")

    monkeypatch.setattr(box.opened.store, "get", never)
    assert await box.read() == b"one"


async def test_no_payload_lies_open_in_what_is_held(box):
    payload = b"a payload that is looked for"
    await box.create(payload)
    await box.read()
    (held,) = box.catalog.cached.values()
    assert payload not in repr([getattr(held, name) for name in held.__slots__]).encode()
    assert held.open() == payload


async def test_what_is_held_is_bounded_in_bytes(box):
    catalog = SecretCatalog(box.opened.ledger, lambda version: b"", 300_000)
    refs = [SecretRef("default", f"s{number}") for number in range(8)]
    for ref in refs:
        await box.create(bytes(60_000), ref)
        await catalog.load(ref)
        assert catalog.bytes <= 300_000
    assert len(catalog.cached) == 4
    assert str(refs[-1]) in catalog.cached


async def test_a_version_is_described_once_and_what_it_says_counts_in_what_an_answer_holds(box):
    described = []
    catalog = SecretCatalog(box.opened.ledger, lambda version: described.append(version.number) or bytes(1000))
    access = SecretAccess(
        catalog, box.opened.ledger, box.opened.clock, box.opened.engine.backends[ProtectionLevel.SOFTWARE]
    )
    await box.create(b"one")
    has = AccessItem(NAME, f"{NAME}/versions/1")
    answers = await access.access_many([AccessItem(NAME), has, *[AccessItem(NAME)] * 3], None, room=3_500)
    assert described == [1]
    assert [getattr(answer, "reason", "given") for answer in answers] == ["given"] * 3 + ["ANSWER_TOO_LARGE"] * 2
    assert answers[0][0].bytes > 1000


async def test_a_change_is_seen_by_the_next_access(box):
    await box.create(b"one")
    for payload in (b"two", b"three"):
        assert await box.read()
        await box.add(payload)
        assert await box.read() == payload
    await box.secrets.destroy_version(intent(), version(3))
    await refused("SECRET_VERSION_DESTROYED", box.read())


async def test_a_sealed_vault_gives_nothing_out_and_forgets_what_it_held(box):
    await box.create()
    await box.read()
    held = next(iter(box.catalog.cached.values()))
    await box.opened.seal.seal()
    assert box.catalog.cached == {}
    with pytest.raises(Unavailable):
        box.opened.engine.secret_access._give(held, "", 0)
    await refused("SEALED", box.read())
    await box.opened.seal.unseal(None)
    assert await box.read() == b"one"


async def test_a_move_to_the_newest_term_keeps_payload_and_etag(box):
    before = await box.create()
    await box.read()
    await box.opened.seal.rotate_root(intent(), None)
    await box.opened.tick()
    row = await box.opened.store.get(RowKey("secret_version", "default", "db", 1))
    assert row.term == box.opened.ledger.sealer.term
    assert await box.read() == b"one"
    assert (await box.secrets.get(REF)).etag == before.etag


async def test_another_process_sees_a_change_at_its_next_poll(tmp_path, clock):
    async with opened_box(tmp_path, clock) as one, opened_box(tmp_path, clock) as two:
        await one.create()
        assert await two.read() == b"one"
        await one.add(b"two")
        await two.opened.engine.feed.poll()
        assert await two.read() == b"two"


# -- what others do to the file -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE secrets SET secret = zeroblob(size)",
        "UPDATE records SET state = 'DISABLED' WHERE kind = 'secret_version' AND version = 1",
        "UPDATE records SET version = 7 WHERE kind = 'secret_version' AND version = 1",
        "UPDATE records SET id = 'other' WHERE kind = 'secret'",
    ],
)
async def test_an_edited_row_is_found_by_the_check(tmp_path, box, statement):
    await box.create()
    await box.add(b"two")
    edit(tmp_path / "vault.db", (statement, ()))
    with pytest.raises(DataLoss):
        await box.opened.ledger.check(deep=True)


async def test_payloads_that_changed_places_are_not_given_out(tmp_path, box):
    await box.create(b"one")
    await box.add(b"two")
    ids = query(tmp_path / "vault.db", "SELECT secret_id FROM records WHERE kind = 'secret_version' ORDER BY version")
    swap = "UPDATE records SET secret_id = ? WHERE kind = 'secret_version' AND version = ?"
    edit(tmp_path / "vault.db", (swap, (ids[1][0], 1)), (swap, (ids[0][0], 2)))
    for number in (1, 2):
        await refused("ROW_TAMPERED", box.read(number))


async def test_a_version_put_back_from_the_past_is_found_by_the_check(tmp_path, box):
    await box.create()
    path = tmp_path / "vault.db"
    old = query(path, "SELECT state, revision, sealed FROM records WHERE kind = 'secret_version'")[0]
    await box.secrets.disable_version(intent(), version(1))
    edit(path, ("UPDATE records SET state = ?, revision = ?, sealed = ? WHERE kind = 'secret_version'", old))
    with pytest.raises(DataLoss) as caught:
        await box.opened.ledger.check()
    assert caught.value.reason == "ROWS_ROLLED_BACK"


# -- layout -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("length", [0, 1, 62, 63, 64, 1000, 1023, 1024, 5000, 65_535, 65_536])
def test_a_payload_comes_back_from_its_padding(length):
    for payload in (b"\x80" * length, bytes(length), b"a" * length):
        padded = pad_payload(payload)
        assert unpad_payload(padded) == payload
        assert len(padded) == padded_length(length) <= max(64, (length + 1) * 9 // 8 + 64)


def test_there_are_few_lengths():
    assert len({padded_length(length) for length in range(65_537)}) < 110


def test_what_is_not_padded_is_data_loss():
    with pytest.raises(DataLoss):
        unpad_payload(bytes(64))


async def test_a_recipient_of_low_order_is_refused(box):
    await box.create()
    with pytest.raises(InvalidArgument):
        await box.read(recipient=bytes(32))


async def test_more_versions_than_numbers_are_refused(box, monkeypatch):
    monkeypatch.setattr("vaultd.engine.secrets.MAX_VERSIONS", 2)
    await box.create()
    await box.add(b"two")
    with pytest.raises(FailedPrecondition) as caught:
        await box.add(b"three")
    assert caught.value.reason == "TOO_MANY_VERSIONS"
