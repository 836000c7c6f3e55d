"""Approval rules and approvals on a real store, with a clock that the tests move."""

from __future__ import annotations

from contextlib import asynccontextmanager
from dataclasses import replace

import pytest

from engine.engines import DAY_US, HOUR_US, intent, move_to, move_us, open_engine
from harness import ADMIN, FakeClock
from vaultd.engine import approvals as module
from vaultd.engine.approval_rules import check_rules
from vaultd.engine.approvals import Ask
from vaultd.engine.model import ApprovalRule, ApprovalState
from vaultd.errors import VaultdError
from vaultd.store.base import RowKey

ALICE, BOB, CAROL, DAVE, ASKER = (f"spiffe://dev.vaultd/{name}" for name in ("alice", "bob", "carol", "dave", "asker"))
PURGE = "/vaultd.v1.KeysService/PurgeKey"
DELETE = "/vaultd.v1.KeysService/DeleteKey"
ROTATE_ROOT = "/vaultd.v1.AdminService/RotateRootKey"
SET_RULES = "/vaultd.v1.AdminService/SetApprovalRules"
METHODS = {PURGE: 4, DELETE: 4, "/vaultd.v1.AdminService/DeleteVault": 2, ROTATE_ROOT: 0, SET_RULES: 0}
KEY = "vaults/default/keys/k"
RULE = ApprovalRule("two", (PURGE,), "vaults/default", (ALICE, BOB, CAROL), 2, DAY_US)


@asynccontextmanager
async def ruled(directory, *rules: ApprovalRule, clock=None):
    async with open_engine(directory, clock) as opened:
        await opened.engine.approvals.set_rules(intent(), rules or (RULE,), "")
        yield opened


def ask_of(principal: str = ASKER, method: str = PURGE, resource: str = KEY, digest: str = "a digest") -> Ask:
    return Ask(principal, method, (resource,), '{"name": "x"}', digest, digest_shown=True)


async def asked(opened, ask: Ask | None = None):
    ask = ask or ask_of()
    approvals = opened.engine.approvals
    return await approvals.ask(ask, approvals.covering(ask.method, ask.resources))


async def approve(opened, approval, *principals: str):
    for principal in principals:
        approval = await opened.engine.approvals.approve(intent(principal=principal), approval.id)
    return approval


async def state_of(opened, approval) -> ApprovalState:
    return (await opened.engine.approvals.get(ADMIN, approval.id)).state


async def refusal_of(call) -> str:
    with pytest.raises(VaultdError) as refused:
        await call
    return refused.value.reason


# -- rules --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("method", "resource", "covered"),
    [
        (PURGE, KEY, True),
        (PURGE, "vaults/default", True),
        (PURGE, f"{KEY}/versions/1", True),
        (PURGE, "vaults/default2/keys/k", False),
        (PURGE, "vaults/other/keys/k", False),
        (DELETE, KEY, False),
    ],
)
async def test_a_rule_covers_its_methods_on_its_resource_by_whole_segments(tmp_path, method, resource, covered):
    async with ruled(tmp_path) as opened:
        assert bool(opened.engine.approvals.covering(method, [resource])) is covered


async def test_a_rule_on_the_root_covers_everything(tmp_path):
    async with ruled(tmp_path, replace(RULE, resource="/")) as opened:
        assert opened.engine.approvals.covering(PURGE, [KEY])


FAULTS = {
    "bad-id": (replace(RULE, id="A"), "rules[0].id"),
    "no-method": (replace(RULE, methods=()), "rules[0].methods"),
    "unknown-method": (replace(RULE, methods=("Encrypt",)), "rules[0].methods"),
    "method-twice": (replace(RULE, methods=(PURGE, PURGE)), "rules[0].methods"),
    "half-a-segment": (replace(RULE, resource="vaults/default/"), "rules[0].resource"),
    "a-version": (replace(RULE, resource=f"{KEY}/versions/1"), "rules[0].resource"),
    "too-deep": (replace(RULE, methods=(PURGE, ROTATE_ROOT)), "rules[0].resource"),
    "too-deep-for-a-vault": (
        replace(RULE, methods=("/vaultd.v1.AdminService/DeleteVault",), resource=KEY),
        "rules[0].resource",
    ),
    "nobody": (replace(RULE, approvers=(), required=0), "rules[0].approvers"),
    "a-group": (replace(RULE, approvers=("group:ops", ALICE)), "rules[0].approvers"),
    "twice": (replace(RULE, approvers=(ALICE, ALICE)), "rules[0].approvers"),
    "too-short": (replace(RULE, expires_after_us=60_000_000 - 1), "rules[0].expires_after"),
    "too-long": (replace(RULE, expires_after_us=30 * DAY_US + 1), "rules[0].expires_after"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_rule_with_a_fault_is_refused_by_its_field(fault):
    rule, field = FAULTS[fault]
    with pytest.raises(VaultdError) as refused:
        check_rules([rule], METHODS)
    assert (refused.value.reason, refused.value.field) == ("APPROVAL_RULE_INVALID", field)


@pytest.mark.parametrize("required", [0, 4, -1])
def test_a_rule_that_can_never_be_satisfied_is_refused(required):
    with pytest.raises(VaultdError) as refused:
        check_rules([replace(RULE, required=required)], METHODS)
    assert (refused.value.reason, refused.value.field) == ("APPROVAL_RULE_UNSATISFIABLE", "rules[0].required")


@pytest.mark.parametrize("required", [1, 3])
def test_a_rule_may_require_one_or_all_of_its_approvers(required):
    check_rules([replace(RULE, required=required)], METHODS)


@pytest.mark.parametrize("expiry_us", [60_000_000, 30 * DAY_US])
def test_an_expiry_keeps_to_its_range(expiry_us):
    check_rules([replace(RULE, expires_after_us=expiry_us)], METHODS)


def test_two_rules_do_not_share_an_id():
    with pytest.raises(VaultdError):
        check_rules([RULE, RULE], METHODS)


def test_rules_are_bounded_in_number_and_in_text():
    many = [replace(RULE, id=f"r{number}") for number in range(101)]
    check_rules(many[:100], METHODS)
    with pytest.raises(VaultdError):
        check_rules(many, METHODS)
    long = [f"spiffe://dev.vaultd/{number}{'a' * 1900}" for number in range(40)]
    with pytest.raises(VaultdError):
        check_rules([replace(RULE, approvers=tuple(long))], METHODS)


async def test_rules_change_with_their_etag_only(tmp_path):
    async with ruled(tmp_path) as opened:
        approvals = opened.engine.approvals
        etag = approvals.rules.etag
        assert await refusal_of(approvals.set_rules(intent(), (), '"1"')) == "ETAG_MISMATCH"
        assert (await approvals.set_rules(intent(), (), etag)).etag != etag
        assert approvals.rules.rules == ()


async def test_rules_that_are_the_same_change_nothing(tmp_path):
    async with ruled(tmp_path) as opened:
        approval = await asked(opened)
        before = opened.engine.approvals.rules
        assert await opened.engine.approvals.set_rules(intent(), (RULE,), "") == before
        assert await state_of(opened, approval) is ApprovalState.PENDING


async def test_rules_are_there_after_a_restart_and_in_another_process_after_its_next_look(tmp_path):
    async with ruled(tmp_path) as one, open_engine(tmp_path) as two:
        assert two.engine.approvals.rules.rules == (RULE,)
        await one.engine.approvals.set_rules(intent(), (), "")
        await two.engine.feed.poll()
        assert two.engine.approvals.rules.rules == ()


async def test_no_rules_are_known_while_sealed_and_nothing_passes(tmp_path):
    async with ruled(tmp_path) as opened:
        await opened.seal.seal()
        with pytest.raises(VaultdError) as refused:
            opened.engine.approvals.covering(DELETE, [KEY])
        assert refused.value.reason == "SEALED"
        await opened.seal.unseal(None)
        assert opened.engine.approvals.covering(PURGE, [KEY])


# -- asking -------------------------------------------------------------------------------------------------------------


async def test_the_same_request_is_the_same_approval(tmp_path):
    async with ruled(tmp_path) as opened:
        first = await asked(opened)
        assert await asked(opened) == first
        assert (await opened.engine.approvals.find(ask_of(), (RULE,))) == first


@pytest.mark.parametrize("other", [{"digest": "another"}, {"principal": DAVE}])
async def test_another_request_is_another_approval(tmp_path, other):
    async with ruled(tmp_path) as opened:
        first = await asked(opened)
        assert await opened.engine.approvals.find(ask_of(**other), (RULE,)) is None
        assert (await asked(opened, ask_of(**other))).id != first.id


async def test_a_principal_has_a_bounded_number_of_open_requests(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "MAX_OPEN_PER_PRINCIPAL", 2)
    async with ruled(tmp_path) as opened:
        first, _ = [await asked(opened, ask_of(digest=str(number))) for number in range(2)]
        assert await refusal_of(asked(opened, ask_of(digest="2"))) == "TOO_MANY_APPROVALS"
        assert await asked(opened, ask_of(digest="0")) == first
        await asked(opened, ask_of(DAVE))
        await opened.engine.approvals.cancel(intent(principal=ASKER), first.id)
        await asked(opened, ask_of(digest="2"))


async def test_a_server_has_a_bounded_number_of_open_requests(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "MAX_OPEN", 2)
    async with ruled(tmp_path) as opened:
        await asked(opened, ask_of(ALICE))
        await asked(opened, ask_of(BOB))
        assert await refusal_of(asked(opened)) == "TOO_MANY_APPROVALS"


async def test_a_requester_without_whom_too_few_approvers_are_left_is_told_so(tmp_path):
    async with ruled(tmp_path, replace(RULE, required=3)) as opened:
        assert await refusal_of(asked(opened, ask_of(ALICE))) == "APPROVAL_IMPOSSIBLE"
        assert await opened.ledger.list(module.KIND, "", "", 10, ()) == []
        await asked(opened)


# -- approving ----------------------------------------------------------------------------------------------------------


async def test_a_request_is_approved_when_enough_have_approved(tmp_path):
    async with ruled(tmp_path) as opened:
        approval = await approve(opened, await asked(opened), ALICE)
        assert approval.state is ApprovalState.PENDING
        approval = await approve(opened, approval, BOB)
        assert approval.state is ApprovalState.APPROVED
        assert [principal for principal, _ in approval.consents] == [ALICE, BOB]


async def test_an_approver_counts_once(tmp_path):
    async with ruled(tmp_path) as opened:
        approval = await approve(opened, await asked(opened), ALICE, ALICE, ALICE)
        assert approval.state is ApprovalState.PENDING
        assert len(approval.consents) == 1


async def test_a_requester_who_is_an_approver_does_not_count(tmp_path):
    async with ruled(tmp_path) as opened:
        approval = await asked(opened, ask_of(ALICE))
        assert await refusal_of(approve(opened, approval, ALICE)) == "REQUESTER_MAY_NOT_APPROVE"
        assert await refusal_of(opened.engine.approvals.reject(intent(principal=ALICE), approval.id)) == (
            "REQUESTER_MAY_NOT_APPROVE"
        )


@pytest.mark.parametrize("principal", [DAVE, ADMIN, ""])
async def test_nobody_approves_whom_no_rule_names(tmp_path, principal):
    async with ruled(tmp_path) as opened:
        approval = await asked(opened)
        for act in (opened.engine.approvals.approve, opened.engine.approvals.reject, opened.engine.approvals.cancel):
            assert await refusal_of(act(intent(principal=principal), approval.id)) == "PERMISSION_DENIED"
            assert await refusal_of(act(intent(principal=principal), "no-such")) == "PERMISSION_DENIED"


async def test_each_rule_that_covers_a_call_needs_its_own_approvals(tmp_path):
    second = ApprovalRule("dave", (PURGE,), "/", (DAVE, ALICE), 1, HOUR_US)
    async with ruled(tmp_path, RULE, second) as opened:
        approval = await asked(opened)
        assert approval.expire_us - approval.create_us == HOUR_US
        approval = await approve(opened, approval, BOB, CAROL)
        assert approval.state is ApprovalState.PENDING
        assert (await approve(opened, approval, DAVE)).state is ApprovalState.APPROVED


async def test_one_approver_of_two_rules_counts_in_both(tmp_path):
    second = ApprovalRule("dave", (PURGE,), "/", (DAVE, ALICE), 1, HOUR_US)
    async with ruled(tmp_path, RULE, second) as opened:
        assert (await approve(opened, await asked(opened), ALICE, BOB)).state is ApprovalState.APPROVED


@pytest.mark.parametrize("approvers", [(), (ALICE, BOB)], ids=["pending", "approved"])
async def test_a_rejection_ends_a_request(tmp_path, approvers):
    async with ruled(tmp_path) as opened:
        approval = await approve(opened, await asked(opened), *approvers)
        rejected = await opened.engine.approvals.reject(intent(principal=CAROL), approval.id)
        assert (rejected.state, rejected.end_principal) == (ApprovalState.REJECTED, CAROL)
        assert await refusal_of(approve(opened, approval, ALICE)) == "APPROVAL_ENDED"
        assert await refusal_of(opened.engine.approvals.use(approval.id)) == "APPROVAL_GONE"
        assert (await asked(opened)).id != approval.id


async def test_a_requester_takes_a_request_back(tmp_path):
    async with ruled(tmp_path) as opened:
        approval = await asked(opened)
        cancelled = await opened.engine.approvals.cancel(intent(principal=ASKER), approval.id)
        assert cancelled.state is ApprovalState.CANCELLED
        assert await refusal_of(approve(opened, approval, ALICE)) == "APPROVAL_ENDED"


@pytest.mark.parametrize("principal", [ASKER, ALICE, ADMIN])
async def test_requester_approvers_and_those_who_may_list_see_a_request(tmp_path, principal):
    async with ruled(tmp_path) as opened:
        approval = await asked(opened)
        assert await opened.engine.approvals.get(principal, approval.id) == approval


async def test_others_do_not_learn_whether_a_request_exists(tmp_path):
    async with ruled(tmp_path) as opened:
        approval = await asked(opened)
        for id in (approval.id, "no-such"):
            assert await refusal_of(opened.engine.approvals.get(DAVE, id)) == "PERMISSION_DENIED"
        assert await refusal_of(opened.engine.approvals.get(ADMIN, "no-such")) == "APPROVAL_NOT_FOUND"


# -- time ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("offset_us", "open_"), [(-1, True), (0, False), (1, False)])
async def test_a_request_can_be_approved_until_it_expires(tmp_path, offset_us, open_):
    clock = FakeClock()
    async with ruled(tmp_path, clock=clock) as opened:
        approval = await asked(opened)
        move_to(clock, approval.expire_us + offset_us)
        if open_:
            assert await approve(opened, approval, ALICE)
        else:
            assert await refusal_of(approve(opened, approval, ALICE)) == "APPROVAL_ENDED"
            assert await state_of(opened, approval) is ApprovalState.EXPIRED


@pytest.mark.parametrize(("offset_us", "open_"), [(-1, True), (0, False), (1, False)])
async def test_an_approved_request_can_be_used_until_it_expires(tmp_path, offset_us, open_):
    clock = FakeClock()
    async with ruled(tmp_path, clock=clock) as opened:
        approval = await approve(opened, await asked(opened), ALICE, BOB)
        move_to(clock, approval.expire_us + offset_us)
        found = await opened.engine.approvals.find(ask_of(), (RULE,))
        assert (found is not None) is open_
        if open_:
            await opened.engine.approvals.use(approval.id)
        else:
            assert await refusal_of(opened.engine.approvals.use(approval.id)) == "APPROVAL_GONE"
            assert (await asked(opened)).state is ApprovalState.PENDING


async def test_the_scheduler_marks_expired_requests_says_so_and_forgets_them_after_90_days(tmp_path):
    clock = FakeClock()
    async with ruled(tmp_path, clock=clock) as opened:
        approval = await asked(opened)
        move_us(clock, DAY_US - 1)
        await opened.tick()
        assert opened.events == []
        move_us(clock, 1)
        await opened.tick()
        assert opened.events == [("expire_approval", approval.name, "")]
        assert opened.intents == [("expire_approval", approval.name)]
        row = await opened.ledger.read(RowKey(module.KIND, "", approval.id, 0))
        assert row.row.state == "EXPIRED"
        assert (await opened.ledger.read(module.OPEN_KEY)).values == {"open": []}
        move_us(clock, 90 * DAY_US - 1)
        await opened.tick()
        assert await state_of(opened, approval) is ApprovalState.EXPIRED
        move_us(clock, 1)
        await opened.tick()
        assert await refusal_of(state_of(opened, approval)) == "APPROVAL_NOT_FOUND"


# -- using --------------------------------------------------------------------------------------------------------------


async def test_an_approval_is_used_once(tmp_path):
    async with ruled(tmp_path) as opened:
        approval = await approve(opened, await asked(opened), ALICE, BOB)
        await opened.engine.approvals.use(approval.id)
        assert await state_of(opened, approval) is ApprovalState.USED
        assert await refusal_of(opened.engine.approvals.use(approval.id)) == "APPROVAL_GONE"
        assert await opened.engine.approvals.find(ask_of(), (RULE,)) is None


async def test_a_request_that_is_not_approved_is_not_used(tmp_path):
    async with ruled(tmp_path) as opened:
        approval = await approve(opened, await asked(opened), ALICE)
        assert await refusal_of(opened.engine.approvals.use(approval.id)) == "APPROVAL_GONE"


async def test_an_approval_that_was_put_back_is_used_again(tmp_path):
    async with ruled(tmp_path) as opened:
        approval = await approve(opened, await asked(opened), ALICE, BOB)
        await opened.engine.approvals.use(approval.id)
        await opened.engine.approvals.put_back(approval.id)
        assert await opened.engine.approvals.find(ask_of(), (RULE,)) == replace(approval)
        await opened.engine.approvals.use(approval.id)


async def test_an_approval_is_not_put_back_when_the_act_may_have_been_committed(tmp_path):
    async with ruled(tmp_path) as opened:
        approval = await approve(opened, await asked(opened), ALICE, BOB)
        marked = await opened.engine.approvals.use(approval.id)
        await opened.create()
        await opened.engine.approvals.put_back(approval.id, marked)
        assert await state_of(opened, approval) is ApprovalState.USED
        await opened.engine.approvals.put_back(approval.id)
        marked = await opened.engine.approvals.use(approval.id)
        await opened.engine.approvals.put_back(approval.id, marked)
        assert await state_of(opened, approval) is ApprovalState.APPROVED


async def test_two_processes_use_an_approval_once(tmp_path):
    async with ruled(tmp_path) as one, open_engine(tmp_path) as two:
        approval = await approve(one, await asked(one), ALICE, BOB)
        assert (await two.engine.approvals.find(ask_of(), (RULE,))).state is ApprovalState.APPROVED
        await two.engine.approvals.use(approval.id)
        assert await refusal_of(one.engine.approvals.use(approval.id)) == "APPROVAL_GONE"


# -- rules that change --------------------------------------------------------------------------------------------------

CHANGED = {
    "fewer-required": (replace(RULE, required=1),),
    "another-approver": (replace(RULE, approvers=(ALICE, BOB, DAVE)),),
    "more-time": (replace(RULE, expires_after_us=2 * DAY_US),),
    "wider": (replace(RULE, resource="vaults"),),
    "another-rule-too": (RULE, ApprovalRule("more", (PURGE,), "/", (DAVE,), 1, DAY_US)),
    "removed": (),
}


@pytest.mark.parametrize("approvers", [(), (ALICE, BOB)], ids=["pending", "approved"])
@pytest.mark.parametrize("changed", CHANGED)
async def test_a_changed_rule_voids_what_was_asked_under_the_old_one(tmp_path, changed, approvers):
    async with ruled(tmp_path) as opened:
        approval = await approve(opened, await asked(opened), *approvers)
        await opened.engine.approvals.set_rules(intent(principal=DAVE), CHANGED[changed], "")
        voided = await opened.engine.approvals.get(ADMIN, approval.id)
        assert (voided.state, voided.end_principal) == (ApprovalState.VOIDED, DAVE)
        assert opened.events == [("void_approval", approval.name, "APPROVAL_RULES_CHANGED")]
        assert await refusal_of(opened.engine.approvals.use(approval.id)) == "APPROVAL_GONE"


async def test_a_change_of_other_rules_voids_nothing(tmp_path):
    async with ruled(tmp_path) as opened:
        approval = await approve(opened, await asked(opened), ALICE, BOB)
        other = ApprovalRule("another", (DELETE,), "/", (DAVE,), 1, DAY_US)
        await opened.engine.approvals.set_rules(intent(), (other, RULE), "")
        await opened.engine.approvals.use(approval.id)


async def test_a_process_that_does_not_know_the_new_rules_yet_neither_asks_nor_uses_under_the_old(tmp_path):
    async with ruled(tmp_path) as one, open_engine(tmp_path) as two:
        approval = await approve(one, await asked(one), ALICE, BOB)
        await one.engine.approvals.set_rules(intent(), (replace(RULE, required=3),), "")
        assert await refusal_of(two.engine.approvals.use(approval.id)) == "APPROVAL_GONE"
        assert await refusal_of(asked(two, ask_of(digest="fresh"))) == "APPROVAL_RULES_CHANGED"


async def test_an_approval_of_a_changed_rule_is_not_put_back(tmp_path):
    async with ruled(tmp_path) as opened:
        approval = await approve(opened, await asked(opened), ALICE, BOB)
        await opened.engine.approvals.use(approval.id)
        await opened.engine.approvals.set_rules(intent(), (), "")
        await opened.engine.approvals.put_back(approval.id)
        assert await state_of(opened, approval) is ApprovalState.USED


async def test_lifting_takes_all_rules_away_and_voids_all_requests(tmp_path):
    async with ruled(tmp_path) as opened:
        approval = await asked(opened)
        async with opened.ledger.change() as changes:
            assert await opened.engine.approvals.lift(changes, "vaultd:recover-admin") == 1
        await opened.engine.feed.poll()
        assert opened.engine.approvals.rules.rules == ()
        assert await state_of(opened, approval) is ApprovalState.VOIDED
