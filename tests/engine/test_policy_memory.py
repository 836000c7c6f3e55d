"""What policy keeps in memory beside itself: labels, last uses, refused calls."""

from __future__ import annotations

import pytest
from engines import DAY_US, HOUR_US, open_engine

from harness import FakeClock
from vaultd.engine import access as access_module
from vaultd.engine import refusals as refusals_module
from vaultd.engine.access import MAX_USES_PER_PRINCIPAL, AccessBook
from vaultd.engine.key_specs import KeyUpdate
from vaultd.engine.labels import LabelBook
from vaultd.engine.ledger import Intent
from vaultd.engine.refusals import MAX_PER_PRINCIPAL, MAX_RESOURCES, RefusalLog
from vaultd.errors import NotFound, Unavailable
from vaultd.names import KeyRef

APP = "spiffe://dev.vaultd/app"
INTENT = Intent("spiffe://dev.vaultd/admin", "test")
ORDERS = "vaults/default/keys/orders"


# Labels.


async def test_labels_are_those_of_now(tmp_path):
    async with open_engine(tmp_path) as engine:
        book = LabelBook(engine.ledger)
        await engine.create("orders", labels={"env": "dev"})
        assert await book.of(ORDERS) == {"env": "dev"}
        assert await book.of(f"{ORDERS}/versions/1") == {"env": "dev"}
        await engine.lifecycle.update_key(
            INTENT, KeyRef("default", "orders", 0), KeyUpdate({"labels": {"env": "prod"}})
        )
        assert await book.of(ORDERS) == {"env": "prod"}


async def test_labels_of_a_vault_are_its_own(tmp_path):
    async with open_engine(tmp_path) as engine:
        book = LabelBook(engine.ledger)
        assert await book.of("vaults/default") == {}
        await engine.engine.vaults.update(INTENT, "default", {"labels": {"tier": "gold"}}, "")
        assert await book.of("vaults/default") == {"tier": "gold"}


@pytest.mark.parametrize("resource", ["/", "vaults", "vaults/none", "vaults/default/keys/none", "vaults/a/secrets/b"])
async def test_what_is_not_there_has_no_labels(tmp_path, resource):
    async with open_engine(tmp_path) as engine:
        assert await LabelBook(engine.ledger).of(resource) == {}


async def test_a_key_that_is_made_later_has_its_labels(tmp_path):
    async with open_engine(tmp_path) as engine:
        book = LabelBook(engine.ledger)
        assert await book.of(ORDERS) == {}
        await engine.create("orders", labels={"env": "dev"})
        assert await book.of(ORDERS) == {"env": "dev"}


async def test_labels_are_not_told_while_sealed(tmp_path):
    async with open_engine(tmp_path) as engine:
        book = LabelBook(engine.ledger)
        await engine.seal.seal()
        book.forget_all()
        with pytest.raises(Unavailable, match="sealed"):
            await book.of(ORDERS)


# Last uses.


async def uses(book: AccessBook) -> dict[tuple[str, str], int]:
    return (await book.last_uses([APP]))[APP]


async def test_a_use_is_known_before_it_is_written_and_after(tmp_path):
    async with open_engine(tmp_path) as engine:
        book = AccessBook(engine.ledger, engine.clock)
        book.note((APP, "crypto.sign", "vaults/default"))
        expected = {("crypto.sign", "vaults/default"): engine.clock.us}
        assert await uses(book) == expected
        await book.flush()
        assert await uses(AccessBook(engine.ledger, engine.clock)) == expected


async def test_uses_within_an_hour_are_one_write(tmp_path):
    async with open_engine(tmp_path) as engine:
        book = AccessBook(engine.ledger, engine.clock)
        book.note((APP, "crypto.sign", "/"))
        await book.flush()
        revision = await engine.store.revision()
        engine.clock.advance(HOUR_US / 1e6 - 1)
        book.note((APP, "crypto.sign", "/"))
        await book.flush()
        assert await engine.store.revision() == revision
        engine.clock.advance(1)
        book.note((APP, "crypto.sign", "/"))
        await book.flush()
        assert await engine.store.revision() == revision + 1
        assert await uses(AccessBook(engine.ledger, engine.clock)) == {("crypto.sign", "/"): engine.clock.us}


async def test_what_is_pending_is_written_at_the_end(tmp_path):
    async with open_engine(tmp_path) as engine:
        book = AccessBook(engine.ledger, engine.clock)
        book.note((APP, "crypto.sign", "/"))
        await book.flush()
        engine.clock.advance(60)
        book.note((APP, "crypto.sign", "/"))
        await book.flush_all()
        assert await uses(AccessBook(engine.ledger, engine.clock)) == {("crypto.sign", "/"): engine.clock.us}


async def test_two_processes_keep_the_newer_use(tmp_path):
    async with open_engine(tmp_path) as engine:
        one, other = (AccessBook(engine.ledger, engine.clock) for _ in range(2))
        one.note((APP, "crypto.sign", "/"))
        await one.last_uses([])  # takes the time
        engine.clock.advance(5)
        other.note((APP, "crypto.sign", "/"))
        other.note((APP, "crypto.verify", "/"))
        await other.flush()
        await one.flush()
        assert await uses(AccessBook(engine.ledger, engine.clock)) == {
            ("crypto.sign", "/"): engine.clock.us,
            ("crypto.verify", "/"): engine.clock.us,
        }


async def test_a_failed_write_loses_no_use(tmp_path):
    async with open_engine(tmp_path) as engine:
        book = AccessBook(engine.ledger, engine.clock)
        book.note((APP, "crypto.sign", "/"))
        at = engine.clock.us
        await engine.seal.seal()
        with pytest.raises(Unavailable):
            await book.flush()
        await engine.seal.unseal(None)
        await book.flush()
        assert await uses(AccessBook(engine.ledger, engine.clock)) == {("crypto.sign", "/"): at}


async def test_the_uses_of_a_principal_are_bounded_and_old_ones_go(tmp_path):
    async with open_engine(tmp_path) as engine:
        book = AccessBook(engine.ledger, engine.clock)
        for i in range(MAX_USES_PER_PRINCIPAL + 10):
            book.note((APP, "crypto.sign", f"vaults/v{i}"))
        await book.flush()
        assert len(await uses(AccessBook(engine.ledger, engine.clock))) == MAX_USES_PER_PRINCIPAL
        engine.clock.advance(401 * DAY_US / 1e6)
        book.note((APP, "crypto.verify", "/"))
        await book.flush()
        assert await uses(AccessBook(engine.ledger, engine.clock)) == {("crypto.verify", "/"): engine.clock.us}


async def test_what_waits_in_memory_is_bounded(tmp_path, monkeypatch):
    monkeypatch.setattr(access_module, "MAX_USES", 5)
    async with open_engine(tmp_path) as engine:
        book = AccessBook(engine.ledger, engine.clock)
        for _ in range(2):
            for i in range(6):
                book.note((APP, "crypto.sign", f"vaults/v{i}"))
            await book.flush()
            assert not book._pending
            assert len(book._written) <= 5


async def test_uses_pass_the_check_of_the_store(tmp_path):
    async with open_engine(tmp_path) as engine:
        book = AccessBook(engine.ledger, engine.clock)
        book.note((APP, "crypto.sign", "/"))
        await book.flush()
        assert await engine.ledger.check(deep=True)


# Refused calls.


def note(log: RefusalLog, request_id: str, principal: str = APP, incident: str = "") -> None:
    log.note(request_id, principal, "/m", ("vaults/a",), "INTERNAL" if incident else "PERMISSION_DENIED", "R", incident)


def test_a_refusal_is_found_by_its_request_id_and_by_its_incident():
    log = RefusalLog(FakeClock())
    note(log, "one", incident="abcd")
    assert log.get("one") is log.get("abcd")


def test_an_unknown_id_is_not_found():
    with pytest.raises(NotFound):
        RefusalLog(FakeClock()).get("none")


def test_a_flood_of_one_principal_pushes_out_its_own_refusals_only():
    log = RefusalLog(FakeClock())
    note(log, "kept", "other")
    for i in range(MAX_PER_PRINCIPAL + 1):
        note(log, f"id-{i}")
    assert log.get("kept").principal == "other"
    with pytest.raises(NotFound):
        log.get("id-0")
    assert log.get("id-1")


def test_refusals_are_bounded_in_all(monkeypatch):
    monkeypatch.setattr(refusals_module, "MAX_REFUSALS", 3)
    log = RefusalLog(FakeClock())
    for i in range(5):
        note(log, f"id-{i}", f"principal-{i}", incident=f"incident-{i}")
    for i in range(2):
        for id in (f"id-{i}", f"incident-{i}"):
            with pytest.raises(NotFound):
                log.get(id)
    assert log.get("incident-2")
    assert (len(log._by_id), len(log._incidents), len(log._of)) == (3, 3, 3)


def test_a_call_that_is_noted_twice_is_kept_once():
    log = RefusalLog(FakeClock())
    for _ in range(MAX_PER_PRINCIPAL * 2):
        note(log, "same", incident="abcd")
    for i in range(MAX_PER_PRINCIPAL * 2):
        note(log, f"id-{i}")
    with pytest.raises(NotFound):
        log.get("abcd")


def test_the_resources_of_a_refusal_are_bounded():
    log = RefusalLog(FakeClock())
    log.note("id", APP, "/m", tuple(f"vaults/v{i}" for i in range(100)), "PERMISSION_DENIED", "R")
    assert len(log.get("id").resources) == MAX_RESOURCES
