"""Grants on a real store, with a clock that the tests move: what they give, what ends them, and how uses are counted."""

from __future__ import annotations

from contextlib import asynccontextmanager

import pytest

from engine.engines import DAY_US, intent, move_to, move_us, open_engine
from harness import ADMIN, APP, FakeClock
from vaultd.engine import key_grants as module
from vaultd.engine.authority import put_policy
from vaultd.engine.key_grants import GrantSpec
from vaultd.engine.policy import Binding, Deny, Policy
from vaultd.errors import AlreadyExists, FailedPrecondition, InvalidArgument, NotFound, PermissionDenied, VaultdError
from vaultd.names import KeyRef
from vaultd.store.base import RowKey

GRANTEE = "spiffe://dev.vaultd/grantee"
OTHER = "spiffe://dev.vaultd/other"
SIGN = "crypto.encrypt"
KEY = KeyRef("default", "k", 0)


@asynccontextmanager
async def granting(directory, clock=None, **overrides):
    async with open_engine(directory, clock, **overrides) as opened:
        if not await opened.ledger.store.get(RowKey("key", "default", "k", 0)):
            await opened.create()
        yield opened


def spec(**fields) -> GrantSpec:
    return GrantSpec(**{"grantee": GRANTEE, "permissions": (SIGN,), **fields})


async def grant(opened, request_id: str = "", ref: KeyRef = KEY, *, principal: str = ADMIN, **fields):
    return await opened.engine.grants.create(intent(request_id, principal=principal), ref, spec(**fields))


def giving(opened, grantee: str = GRANTEE, permission: str = SIGN, name: str = str(KEY)):
    key_name = name.split("/versions")[0]
    return opened.engine.grants.candidates(grantee, permission, name, key_name)


async def used(opened, uses: int = 1, grantee: str = GRANTEE) -> bool:
    """Whether some grant gives so many uses, as the chain asks."""
    for held in giving(opened, grantee):
        if await opened.engine.grants.spend(held, uses):
            return True
    return False


async def set_policy(opened, policy: Policy) -> None:
    async with opened.ledger.change() as changes:
        await put_policy(changes, policy)
    await opened.engine.authority.reload()


async def refusal_of(call) -> str:
    with pytest.raises(VaultdError) as refused:
        await call
    return refused.value.reason


# -- what it gives ------------------------------------------------------------------------------------------------------


async def test_a_grant_gives_its_grantee_its_permission_on_its_key_and_its_versions(tmp_path):
    async with granting(tmp_path) as opened:
        await grant(opened)
        assert await used(opened)
        assert giving(opened, name=f"{KEY}/versions/1")


async def test_a_grant_gives_no_other_principal_permission_or_key_anything(tmp_path):
    async with granting(tmp_path) as opened:
        await grant(opened)
        assert not giving(opened, OTHER)
        assert not giving(opened, permission="crypto.decrypt")
        assert not giving(opened, name="vaults/default/keys/k2")
        assert not giving(opened, name="vaults/other/keys/k")


async def test_two_grants_add_up(tmp_path):
    async with granting(tmp_path) as opened:
        await grant(opened, max_uses=1)
        await grant(opened, max_uses=2)
        assert [await used(opened) for _ in range(4)] == [True, True, True, False]


async def test_an_uncounted_grant_is_used_before_a_counted_one(tmp_path):
    async with granting(tmp_path) as opened:
        counted = await grant(opened, max_uses=5)
        await grant(opened)
        assert await used(opened)
        assert await opened.engine.grants.uses_left(counted) == 5


# -- what ends it -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("offset_us", "gives"), [(-1, True), (0, False), (1, False)])
async def test_a_grant_gives_nothing_from_its_expire_time_on(tmp_path, offset_us, gives):
    clock = FakeClock()
    async with granting(tmp_path, clock) as opened:
        made = await grant(opened, expire_us=clock.us + DAY_US)
        move_to(clock, made.expire_us + offset_us)
        assert await used(opened) is gives


async def test_a_grant_without_an_expire_time_ends_after_thirty_days(tmp_path):
    clock = FakeClock()
    async with granting(tmp_path, clock) as opened:
        assert (await grant(opened)).expire_us == clock.us + 30 * DAY_US


@pytest.mark.parametrize(("offset_us", "accepted"), [(0, False), (1, True), (366 * DAY_US, True)])
async def test_an_expire_time_is_in_the_future(tmp_path, offset_us, accepted):
    clock = FakeClock()
    async with granting(tmp_path, clock) as opened:
        if accepted:
            assert (await grant(opened, expire_us=clock.us + offset_us)).expire_us == clock.us + offset_us
        else:
            assert await refusal_of(grant(opened, expire_us=clock.us + offset_us)) == "EXPIRE_TIME_RANGE"


async def test_an_expire_time_more_than_366_days_ahead_is_refused(tmp_path):
    clock = FakeClock()
    async with granting(tmp_path, clock) as opened:
        assert await refusal_of(grant(opened, expire_us=clock.us + 366 * DAY_US + 1)) == "EXPIRE_TIME_RANGE"


async def test_a_revoked_grant_gives_nothing_once_revocation_returned(tmp_path):
    async with granting(tmp_path) as opened:
        made, kept = await grant(opened), await grant(opened, grantee=OTHER)
        held = giving(opened)[0]
        await opened.engine.grants.revoke(intent(), KEY, made.id)
        assert not giving(opened)
        assert not await opened.engine.grants.spend(held)
        assert [one.grant.id for one in giving(opened, OTHER)] == [kept.id]
        assert await refusal_of(opened.engine.grants.get(KEY, made.id)) == "GRANT_NOT_FOUND"


async def test_a_grant_dies_with_its_granters_right_and_comes_back_with_it(tmp_path):
    async with granting(tmp_path) as opened:
        both = Policy(bindings=(Binding((ADMIN, OTHER), "admin", "/"),))
        await set_policy(opened, both)
        await grant(opened, principal=OTHER)
        assert giving(opened)
        await set_policy(opened, Policy(bindings=(Binding((ADMIN,), "admin", "/"),)))
        assert not giving(opened)
        await set_policy(opened, both)
        assert giving(opened)


async def test_a_deny_on_the_granter_kills_the_grant(tmp_path):
    async with granting(tmp_path) as opened:
        await grant(opened)
        bindings = (Binding((ADMIN,), "admin", "/"),)
        await set_policy(opened, Policy(bindings=bindings, denies=(Deny((ADMIN,), (SIGN,), "vaults"),)))
        assert not giving(opened)


@pytest.mark.parametrize("purged", [False, True], ids=["deleted", "purged"])
async def test_a_key_that_goes_takes_its_grants_along_for_good(tmp_path, purged):
    async with granting(tmp_path) as opened:
        made = await grant(opened, max_uses=3)
        await used(opened)
        await opened.lifecycle.delete_key(intent(), KEY, "")
        assert not giving(opened)
        if purged:
            await opened.lifecycle.purge_key(intent(), KEY, "")
        else:
            await opened.lifecycle.undelete_key(intent(), KEY, "")
        await opened.engine.feed.poll()
        assert not giving(opened)
        assert await opened.ledger.read(RowKey(module.KIND, "default", "k", 0)) is None
        assert await opened.ledger.read(RowKey(module.USES, "default", f"k/{made.id}", 0)) is None


async def test_the_scheduler_removes_expired_grants_and_says_so(tmp_path):
    clock = FakeClock()
    async with granting(tmp_path, clock) as opened:
        await grant(opened, expire_us=clock.us + DAY_US, max_uses=5)
        kept = await grant(opened, expire_us=clock.us + 2 * DAY_US)
        move_us(clock, DAY_US - 1)
        await opened.tick()
        assert opened.events == []
        move_us(clock, 1)
        await opened.tick()
        assert opened.events == [("expire_grants", str(KEY), "")]
        assert opened.intents == [("expire_grants", str(KEY))]
        row = await opened.ledger.read(RowKey(module.KIND, "default", "k", 0))
        assert [one["id"] for one in row.values["grants"]] == [kept.id]
        assert row.row.due_at == kept.expire_us
        assert await opened.ledger.list(module.USES, "default", "", 10, ()) == []


async def test_a_clock_that_jumped_removes_no_grants(tmp_path):
    clock = FakeClock()
    async with granting(tmp_path, clock) as opened:
        await grant(opened, expire_us=clock.us + DAY_US)
        clock.jump_wall(2 * 86_400)
        await opened.tick()
        assert await opened.ledger.read(RowKey(module.KIND, "default", "k", 0)) is not None


async def test_nothing_is_granted_while_sealed_and_all_of_it_after_unseal(tmp_path):
    async with granting(tmp_path) as opened:
        await grant(opened)
        await opened.seal.seal()
        assert not giving(opened)
        await opened.seal.unseal(None)
        assert giving(opened)


# -- who may grant what -------------------------------------------------------------------------------------------------


async def test_nobody_grants_what_policy_does_not_give_them(tmp_path):
    async with granting(tmp_path) as opened:
        assert await refusal_of(grant(opened, principal=OTHER)) == "GRANT_EXCEEDS_RIGHTS"
        assert await grant(opened, principal=APP, permissions=(SIGN, "crypto.sign"))


async def test_what_was_granted_cannot_be_granted_on(tmp_path):
    async with granting(tmp_path) as opened:
        await grant(opened, grantee=OTHER)
        with pytest.raises(PermissionDenied):
            await grant(opened, principal=OTHER)


@pytest.mark.parametrize(
    "permissions",
    [
        (),
        ("keys.grant",),
        ("keys.get",),
        ("crypto.generate_random",),
        (SIGN, SIGN),
        ("crypto.*",),
        (SIGN, "keys.purge"),
    ],
)
async def test_only_permissions_of_use_can_be_granted(tmp_path, permissions):
    async with granting(tmp_path) as opened:
        assert await refusal_of(grant(opened, permissions=permissions)) == "PERMISSION_NOT_GRANTABLE"


@pytest.mark.parametrize("grantee", [ADMIN, "", "group:ops", "SPIFFE://dev.vaultd/x", "nobody"])
async def test_a_grantee_is_another_principal(tmp_path, grantee):
    async with granting(tmp_path) as opened:
        with pytest.raises(InvalidArgument) as refused:
            await grant(opened, grantee=grantee)
        assert refused.value.reason == "GRANTEE_INVALID"


async def test_a_grant_needs_a_key_that_is_in_use(tmp_path):
    async with granting(tmp_path) as opened:
        with pytest.raises(NotFound):
            await grant(opened, ref=KeyRef("default", "nothing", 0))
        await opened.lifecycle.delete_key(intent(), KEY, "")
        with pytest.raises(FailedPrecondition):
            await grant(opened)


async def test_a_key_has_a_bounded_number_of_grants(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "MAX_GRANTS_PER_KEY", 2)
    async with granting(tmp_path) as opened:
        await grant(opened)
        made = await grant(opened)
        assert await refusal_of(grant(opened)) == "TOO_MANY_GRANTS"
        await opened.engine.grants.revoke(intent(), KEY, made.id)
        await grant(opened)


async def test_a_server_has_a_bounded_number_of_grants(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "MAX_GRANTS", 2)
    async with granting(tmp_path) as opened:
        other = await opened.create("k2")
        await grant(opened)
        await grant(opened, ref=other)
        assert await refusal_of(grant(opened)) == "TOO_MANY_GRANTS"
        await opened.lifecycle.delete_key(intent(), other, "")
        await grant(opened)


async def test_a_retried_creation_gives_the_same_grant_and_another_body_is_refused(tmp_path):
    async with granting(tmp_path) as opened:
        first = await grant(opened, "r1", max_uses=3)
        assert await grant(opened, "r1", max_uses=3) == first
        assert len(giving(opened)) == 1
        with pytest.raises(AlreadyExists):
            await opened.engine.grants.create(intent("r1", body=b"another"), KEY, spec())


# -- counting uses ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("max_uses", [1, 5, 16, 100])
async def test_a_grant_gives_exactly_as_many_uses_as_it_has(tmp_path, max_uses):
    async with granting(tmp_path) as opened:
        made = await grant(opened, max_uses=max_uses)
        given = 0
        while await used(opened):
            given += 1
        assert given == max_uses
        assert await opened.engine.grants.uses_left(made) == 0


async def test_several_uses_are_given_all_or_none(tmp_path):
    async with granting(tmp_path) as opened:
        await grant(opened, max_uses=10)
        assert await used(opened, 7)
        assert not await used(opened, 4)
        assert await used(opened, 3)
        assert not await used(opened)


async def test_a_crash_loses_uses_and_never_gives_more(tmp_path):
    async with granting(tmp_path) as opened:
        await grant(opened, max_uses=64)  # blocks of 4
        assert [await used(opened) for _ in range(5)] == [True] * 5
        await opened.crash()
    async with granting(tmp_path) as again:
        given = 0
        while await used(again):
            given += 1
    assert given == 64 - 8


async def test_uses_that_were_leased_and_not_spent_come_back_when_the_process_ends_well(tmp_path):
    async with granting(tmp_path) as opened:
        await grant(opened, max_uses=64)
        assert await used(opened)
        await opened.engine.grants.give_back()
    async with granting(tmp_path) as again:
        given = 0
        while await used(again):
            given += 1
    assert given == 63


async def test_two_processes_together_give_no_more_uses_than_there_are(tmp_path):
    async with granting(tmp_path) as one, open_engine(tmp_path) as two:
        await grant(one, max_uses=40)
        await two.engine.feed.poll()
        given = 0
        for _ in range(50):
            given += await used(one)
            given += await used(two)
        assert given == 40


async def test_a_grant_that_is_used_up_does_not_ask_the_store_again(tmp_path, monkeypatch):
    async with granting(tmp_path) as opened:
        await grant(opened, max_uses=1)
        await used(opened)
        assert not await used(opened)
        assert giving(opened)[0].short == 1

        def begin():
            raise AssertionError("the store was asked")

        monkeypatch.setattr(opened.store, "begin", begin)
        assert not await used(opened)
        assert not await used(opened, 2)


async def test_uses_given_back_elsewhere_can_be_spent_here(tmp_path):
    async with granting(tmp_path) as one, open_engine(tmp_path) as two:
        await grant(one, max_uses=2)
        await two.engine.feed.poll()
        assert await used(one, 1)
        two_held = giving(two)[0]
        assert await two.engine.grants._lease(two_held, 1)
        assert not await used(one)
        await two.engine.grants.give_back()
        await one.engine.feed.poll()
        assert await used(one)


# -- other processes ----------------------------------------------------------------------------------------------------


async def test_another_process_gives_and_ends_a_grant_at_its_next_look_at_the_feed(tmp_path):
    async with granting(tmp_path) as one, open_engine(tmp_path) as two:
        made = await grant(one)
        assert not giving(two)
        await two.engine.feed.poll()
        assert giving(two)
        await one.engine.grants.revoke(intent(), KEY, made.id)
        await two.engine.feed.poll()
        assert not giving(two)


async def test_a_counted_grant_revoked_elsewhere_gets_no_further_lease(tmp_path):
    async with granting(tmp_path) as one, open_engine(tmp_path) as two:
        made = await grant(one, max_uses=10)
        await two.engine.feed.poll()
        await one.engine.grants.revoke(intent(), KEY, made.id)
        assert not await used(two)


async def test_grants_of_another_process_survive_a_gap_in_the_feed(tmp_path):
    async with granting(tmp_path) as one, open_engine(tmp_path) as two:
        made, _ = await grant(one), await grant(one, grantee=OTHER)
        await two.engine.feed.poll()
        await one.engine.grants.revoke(intent(), KEY, made.id)
        await one.create("k3")
        await one.store.trim_changes(0)
        await one.create("k4")
        await two.engine.feed.poll()
        assert not giving(two)
        assert giving(two, OTHER)


# -- lists --------------------------------------------------------------------------------------------------------------


async def names_of(opened, key: str, grantee: str = "", limit: int = 2):
    found, after = [], ("", "")
    while after is not None:
        page, after = await opened.engine.grants.list("default", key, grantee, after, limit)
        assert len(page) <= limit
        found += [one.name for one, _ in page]
    return found


async def test_grants_are_listed_by_key_by_vault_and_by_grantee_page_by_page(tmp_path):
    async with granting(tmp_path) as opened:
        other = await opened.create("a")
        on_k = [await grant(opened) for _ in range(5)]
        on_a = [await grant(opened, ref=other) for _ in range(3)]
        theirs = await grant(opened, ref=other, grantee=OTHER)
        assert await names_of(opened, "k") == sorted(one.name for one in on_k)
        everything = sorted(one.name for one in [*on_a, theirs]) + sorted(one.name for one in on_k)
        assert await names_of(opened, "") == everything
        assert await names_of(opened, "", OTHER) == [theirs.name]
        assert await names_of(opened, "k", OTHER) == []


async def test_a_list_looks_at_a_bounded_number_of_keys_and_goes_on(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "ROWS_PER_PAGE", 1)
    async with granting(tmp_path) as opened:
        keys = [KEY, await opened.create("a"), await opened.create("b")]
        made = [await grant(opened, ref=ref) for ref in keys]
        assert await names_of(opened, "") == sorted(one.name for one in made)


async def test_an_expired_grant_is_neither_listed_nor_found(tmp_path):
    clock = FakeClock()
    async with granting(tmp_path, clock) as opened:
        made = await grant(opened, expire_us=clock.us + DAY_US)
        move_us(clock, DAY_US)
        assert await names_of(opened, "k") == []
        assert await refusal_of(opened.engine.grants.get(KEY, made.id)) == "GRANT_NOT_FOUND"


async def test_lists_of_what_does_not_exist_are_not_found(tmp_path):
    async with granting(tmp_path) as opened:
        assert await refusal_of(opened.engine.grants.list("default", "no", "", ("", ""), 5)) == "KEY_NOT_FOUND"
        assert await refusal_of(opened.engine.grants.list("no", "", "", ("", ""), 5)) == "VAULT_NOT_FOUND"
