"""Approvals over real connections: the whole way of a request, and every way around it that we could think of."""

from __future__ import annotations

import asyncio
import hashlib
import os
import signal
import subprocess
import sys
from contextlib import asynccontextmanager
from pathlib import Path

import orjson
import pytest
from wire import ADMIN, FAILED_PRECONDITION, GENEROUS, KEYS, OK, PERMISSION_DENIED, World, call, key_of

from harness import FakeClock, error_info, running_server
from vaultd.engine.authority import put_policy
from vaultd.engine.policy import Policy
from vaultd.errors import Unavailable
from vaultd_client.v1 import admin_pb2, approval_pb2, grant_pb2, keys_pb2, resources_pb2

SPIFFE = "spiffe://dev.vaultd"
ASKER, OTHER, ALICE, BOB, CAROL = (f"{SPIFFE}/{stem}" for stem in ("asker", "other", "alice", "bob", "carol"))
STEMS = ("asker", "other", "alice", "bob", "carol")
POLICY = {"bindings": [{"members": [ASKER, OTHER], "role": "admin", "resource": "/"}]}
KEY = "vaults/default/keys/doomed"
DELETE, PURGE = f"{KEYS}DeleteKey", f"{KEYS}PurgeKey"
SET_RULES = f"{ADMIN}SetApprovalRules"
PENDING, APPROVED = approval_pb2.APPROVAL_STATE_PENDING, approval_pb2.APPROVAL_STATE_APPROVED
USED, VOIDED = approval_pb2.APPROVAL_STATE_USED, approval_pb2.APPROVAL_STATE_VOIDED


def rule(**fields) -> approval_pb2.ApprovalRule:
    given = {
        "id": "two-of-three",
        "methods": ["DeleteKey"],
        "resource": "vaults/default",
        "approvers": [ALICE, BOB, CAROL],
        "required": 2,
        **fields,
    }
    return approval_pb2.ApprovalRule(**given)


def delete(**fields) -> keys_pb2.DeleteKeyRequest:
    return keys_pb2.DeleteKeyRequest(**{"name": KEY, **fields})


class Ruled(World):
    """A server with rules, a key to delete, somebody who asks and three who approve."""

    async def set_rules(self, *rules: approval_pb2.ApprovalRule, by: str = "admin", **fields):
        request = approval_pb2.SetApprovalRulesRequest(rules=rules, **fields)
        return await call(self.server.client(by), SET_RULES, request)

    async def ask(self, request=None, *, by: str = "asker", path: str = DELETE):
        return await call(self.server.client(by), path, request if request is not None else delete())

    async def approve(self, name: str, *stems: str):
        for stem in stems:
            request = approval_pb2.ApproveRequestRequest(name=name)
            last = await call(self.server.client(stem), f"{ADMIN}ApproveRequest", request)
        return last

    async def approved(self, request=None, **options) -> str:
        name = required(await self.ask(request, **options))
        assert (await self.approve(name, "alice", "bob")).message().state == APPROVED
        return name

    async def get(self, name: str, by: str = "admin") -> approval_pb2.Approval:
        request = approval_pb2.GetApprovalRequest(name=name)
        return (await call(self.server.client(by), f"{ADMIN}GetApproval", request)).message()

    async def key_state(self) -> int:
        return (await self.admin.keys.GetKey(keys_pb2.GetKeyRequest(name=KEY))).state


@asynccontextmanager
async def ruled(directory, *rules: approval_pb2.ApprovalRule, **options):
    async with running_server(directory, policy=POLICY, **GENEROUS, **options) as server:
        world = Ruled(server)
        for stem in STEMS:
            server.add_identity(stem, uri=f"{SPIFFE}/{stem}")
        if not await server.server.engine.store.list("key", "default", "", 1):
            await world.create("default", "doomed", key_of("MAC"))
            assert (await world.set_rules(*(rules or [rule()]))).code is OK
        yield world


def required(outcome) -> str:
    """The approval that a refused call waits for."""
    assert (outcome.code, outcome.reason) == (FAILED_PRECONDITION, "APPROVAL_REQUIRED"), outcome
    return info_of(outcome).metadata["approval"]


def info_of(outcome):
    class Error:
        @staticmethod
        def trailing_metadata():
            return tuple(outcome.trailing.items())

    return error_info(Error)


def records_of(world, outcome):
    return [record for record in world.server.audit_records() if record.get("id") == outcome.request_id]


# -- the whole way ------------------------------------------------------------------------------------------------------


async def test_a_call_under_a_rule_is_executed_once_after_its_approvals_and_recorded_with_them(tmp_path):
    async with ruled(tmp_path) as world:
        refused = await world.ask()
        name = required(refused)
        assert await world.key_state() == resources_pb2.KEY_STATE_ACTIVE
        first = await world.approve(name, "alice")
        assert first.message().state == PENDING
        assert required(await world.ask()) == name
        second = await world.approve(name, "bob")
        assert second.message().state == APPROVED
        done = await world.ask()
        assert done.message().state == resources_pb2.KEY_STATE_DELETED
        assert (await world.get(name)).state == USED
        asked = records_of(world, refused)
        assert [record["event"] for record in asked] == ["intent", "call"]
        assert asked[0]["act"] == "request_approval"
        assert (asked[1]["approval"], asked[1]["reason"]) == (name, "APPROVAL_REQUIRED")
        for consent in (first, second):
            assert [record["name"] for record in records_of(world, consent)] == [name, name]
        assert [record["approval"] for record in records_of(world, done)] == [name, name]


async def test_a_call_that_no_rule_covers_needs_no_approval(tmp_path):
    async with ruled(tmp_path, rule(resource="vaults/default/keys/another")) as world:
        assert (await world.ask()).code is OK


async def test_an_approver_sees_what_is_asked(tmp_path):
    async with ruled(tmp_path) as world:
        request = delete(request_id="r-1")
        shown = await world.get(required(await world.ask(request)), by="alice")
        assert (shown.principal, shown.method, list(shown.resources)) == (ASKER, DELETE, [KEY])
        assert orjson.loads(shown.request) == {"name": KEY}
        digest = hashlib.sha256(b"\0".join([ASKER.encode(), DELETE.encode(), request.SerializeToString()]))
        assert shown.request_sha256 == digest.hexdigest()
        assert shown.rules[0].required == 2
        assert shown.expire_time.seconds - shown.create_time.seconds == 86_400


async def test_an_approver_of_a_grant_or_of_new_rules_sees_all_of_them(tmp_path):
    both = rule(methods=["CreateGrant", "SetApprovalRules"], resource="/")
    async with ruled(tmp_path, both) as world:
        asked = grant_pb2.CreateGrantRequest(parent=KEY)
        asked.grant.grantee = BOB
        asked.grant.permissions.append("crypto.generate_mac")
        shown = await world.get(required(await world.ask(asked, path=f"{KEYS}CreateGrant")), by="alice")
        assert orjson.loads(shown.request)["grant"] == {"grantee": BOB, "permissions": ["crypto.generate_mac"]}
        shown = await world.get(required(await world.set_rules(rule(required=1), by="asker")), by="alice")
        assert orjson.loads(shown.request)["rules"][0]["required"] == 1


async def test_a_passphrase_is_shown_to_nobody_not_even_as_a_hash(tmp_path):
    async with ruled(tmp_path, rule(methods=["RotateRootKey"], resource="/")) as world:
        request = admin_pb2.RotateRootKeyRequest(passphrase=b"correct horse battery")
        shown = await world.get(required(await world.ask(request, path=f"{ADMIN}RotateRootKey")), by="alice")
        assert (shown.request, shown.request_sha256) == ("{}", "")
        log = b"".join(path.read_bytes() for path in (tmp_path / "audit").glob("*.jsonl"))
        assert b"correct horse" not in log
        assert b"correct horse" not in b"".join(path.read_bytes() for path in tmp_path.glob("vault.db*"))


# -- ways around --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "changed", [{"request_id": "x"}, {"etag": '"1"'}, {"name": "vaults/default/keys/other"}], ids=str
)
async def test_another_request_is_not_approved_by_it(tmp_path, changed):
    async with ruled(tmp_path) as world:
        name = await world.approved()
        assert required(await world.ask(delete(**changed))) != name
        assert (await world.get(name)).state == APPROVED


async def test_one_more_byte_is_another_request(tmp_path):
    async with ruled(tmp_path) as world:
        name = await world.approved()
        body = delete().SerializeToString()
        assert required(await world.ask(body + body)) != name  # the same fields, twice: the last ones count


async def test_another_principal_does_not_use_it(tmp_path):
    async with ruled(tmp_path) as world:
        name = await world.approved()
        assert required(await world.ask(by="other")) != name


async def test_the_same_bytes_for_another_method_are_another_request(tmp_path):
    async with ruled(tmp_path, rule(methods=["DeleteKey", "PurgeKey"])) as world:
        name = await world.approved()
        assert required(await world.ask(keys_pb2.PurgeKeyRequest(name=KEY), path=PURGE)) != name


async def test_an_approver_counts_once(tmp_path):
    async with ruled(tmp_path) as world:
        name = required(await world.ask())
        for _ in range(3):
            assert (await world.approve(name, "alice")).message().state == PENDING
        assert required(await world.ask()) == name


async def test_a_requester_approves_nothing_of_its_own(tmp_path):
    async with ruled(tmp_path, rule(approvers=[ASKER, ALICE, BOB])) as world:
        name = required(await world.ask())
        refused = await world.approve(name, "asker")
        assert (refused.code, refused.reason) == (PERMISSION_DENIED, "REQUESTER_MAY_NOT_APPROVE")
        await world.approve(name, "alice")
        assert required(await world.ask()) == name


@pytest.mark.parametrize("method", ["ApproveRequest", "RejectRequest", "CancelApproval"])
@pytest.mark.parametrize("stem", ["admin", "other"])
async def test_every_permission_there_is_approves_nothing(tmp_path, stem, method):
    async with ruled(tmp_path) as world:
        name = required(await world.ask())
        request = getattr(approval_pb2, f"{method}Request")
        outcomes = [
            await call(world.server.client(stem), f"{ADMIN}{method}", request(name=one))
            for one in (name, "approvals/none")
        ]
        assert outcomes[0].code is PERMISSION_DENIED
        assert outcomes[0].refusal == outcomes[1].refusal


async def test_a_requester_without_whom_too_few_approvers_are_left_is_told_what_to_do(tmp_path):
    async with ruled(tmp_path, rule(approvers=[ASKER, ALICE])) as world:
        refused = await world.ask()
        assert (refused.code, refused.reason) == (FAILED_PRECONDITION, "APPROVAL_IMPOSSIBLE")
        assert "another principal" in refused.text
        assert required(await world.ask(by="other"))


async def test_an_approval_is_used_once(tmp_path):
    async with ruled(tmp_path, rule(methods=["RotateRootKey"], resource="/")) as world:
        request, path = admin_pb2.RotateRootKeyRequest(), f"{ADMIN}RotateRootKey"
        name = await world.approved(request, path=path)
        assert (await world.ask(request, path=path)).message().term == 2
        assert required(await world.ask(request, path=path)) != name


async def test_an_approval_is_used_once_by_calls_at_the_same_moment(tmp_path):
    async with ruled(tmp_path, rule(methods=["RotateRootKey"], resource="/")) as world:
        request, path = admin_pb2.RotateRootKeyRequest(), f"{ADMIN}RotateRootKey"
        await world.approved(request, path=path)
        outcomes = await asyncio.gather(*(world.ask(request, path=path) for _ in range(8)))
        assert [outcome.code is OK for outcome in outcomes].count(True) == 1
        assert {outcome.reason for outcome in outcomes if outcome.code is not OK} <= {
            "APPROVAL_GONE",
            "APPROVAL_REQUIRED",
        }


async def test_a_lost_answer_is_given_again_without_a_new_approval(tmp_path):
    async with ruled(tmp_path) as world:
        request = delete(request_id="lost")
        await world.approved(request)
        first = await world.ask(request)
        again = await world.ask(request)
        assert first.code is again.code is OK
        assert first.body == again.body


async def test_an_answer_that_is_about_to_be_forgotten_passes_for_no_approval(tmp_path):
    clock = FakeClock()
    async with ruled(tmp_path, clock=clock) as world:
        request = delete(request_id="lost")
        await world.approved(request)
        assert (await world.ask(request)).code is OK
        clock.advance(23 * 3600 - 1)
        assert (await world.ask(request)).code is OK
        clock.advance(1)
        required(await world.ask(request))


async def test_an_approval_gives_no_permission(tmp_path):
    async with ruled(tmp_path) as world:
        await world.approved()
        engine = world.server.server.engine
        async with engine.ledger.change() as changes:
            await put_policy(changes, Policy.parse({"bindings": [POLICY["bindings"][0] | {"members": [OTHER]}]}))
        await engine.authority.reload()
        assert (await world.ask()).code is PERMISSION_DENIED
        assert required(await world.ask(by="other"))


async def test_who_has_no_permission_cannot_even_ask(tmp_path):
    async with ruled(tmp_path) as world:
        assert (await world.ask(by="alice")).code is PERMISSION_DENIED
        listed = await call(world.admin, f"{ADMIN}ListApprovals", approval_pb2.ListApprovalsRequest())
        assert list(listed.message().approvals) == []


async def test_an_etag_is_looked_at_again_and_the_approval_stays(tmp_path):
    async with ruled(tmp_path) as world:
        key = await world.admin.keys.GetKey(keys_pb2.GetKeyRequest(name=KEY))
        request = delete(etag=key.etag)
        name = await world.approved(request)
        await world.admin.keys.RotateKey(keys_pb2.RotateKeyRequest(name=KEY))
        refused = await world.ask(request)
        assert refused.reason == "ETAG_MISMATCH"
        assert (await world.get(name)).state == APPROVED
        assert await world.key_state() == resources_pb2.KEY_STATE_ACTIVE


async def test_an_act_that_failed_for_good_has_used_its_approval(tmp_path):
    async with ruled(tmp_path, rule(methods=["PurgeKey"])) as world:
        request = keys_pb2.PurgeKeyRequest(name=KEY)
        name = await world.approved(request, path=PURGE)
        assert (await world.ask(request, path=PURGE)).reason == "KEY_NOT_DELETED"
        assert (await world.get(name)).state == USED


async def test_an_approval_whose_act_was_unavailable_is_used_again(tmp_path, monkeypatch):
    async with ruled(tmp_path) as world:
        name = await world.approved()
        store = world.server.server.engine.store
        begin, turns = store.begin, iter([False, True])

        def fail_once():
            if next(turns, False):
                raise Unavailable("STORE_UNAVAILABLE", "the disk is away")
            return begin()

        monkeypatch.setattr(store, "begin", fail_once)  # the mark is written, and the act finds no store
        assert (await world.ask()).reason == "STORE_UNAVAILABLE"
        assert (await world.get(name)).state == APPROVED
        assert (await world.ask()).code is OK


async def test_a_sealed_server_executes_nothing_that_was_approved(tmp_path):
    async with ruled(tmp_path) as world:
        await world.approved()
        await world.admin.admin.Seal(admin_pb2.SealRequest())
        assert (await world.ask()).reason == "SEALED"
        await world.admin.admin.Unseal(admin_pb2.UnsealRequest())
        assert (await world.ask()).code is OK


# -- time ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("seconds", "executed"), [(86_399, True), (86_400, False), (86_401, False)])
async def test_an_approved_request_is_executed_before_it_expires(tmp_path, seconds, executed):
    clock = FakeClock()
    async with ruled(tmp_path, clock=clock) as world:
        name = await world.approved()
        clock.advance(seconds)
        outcome = await world.ask()
        if executed:
            assert outcome.code is OK
        else:
            assert required(outcome) != name
            assert (await world.get(name)).state == approval_pb2.APPROVAL_STATE_EXPIRED


async def test_an_expired_request_is_recorded_as_such(tmp_path):
    clock = FakeClock()
    async with ruled(tmp_path, clock=clock) as world:
        name = required(await world.ask())
        clock.advance(86_400)
        await world.server.server.engine.scheduler.tick()
        assert [r["resource"] for r in world.server.audit_records() if r["event"] == "expire_approval"] == [name]


# -- rules that change --------------------------------------------------------------------------------------------------


async def test_a_rule_that_changed_meanwhile_voids_the_approval(tmp_path):
    async with ruled(tmp_path) as world:
        name = await world.approved()
        assert (await world.set_rules(rule(required=3))).code is OK
        assert (await world.get(name)).state == VOIDED
        fresh = required(await world.ask())
        assert fresh != name
        await world.approve(fresh, "alice", "bob")
        assert required(await world.ask()) == fresh
        await world.approve(fresh, "carol")
        assert (await world.ask()).code is OK
        assert [r["resource"] for r in world.server.audit_records() if r["event"] == "void_approval"] == [name]


GUARD = {"id": "guard", "methods": ["SetApprovalRules"], "resource": "/"}


@pytest.mark.parametrize("change", ["remove", "lower", "approvers", "add"])
async def test_rules_that_guard_themselves_change_with_approval_only(tmp_path, change):
    guard = rule(**GUARD)
    async with ruled(tmp_path, guard, rule()) as world:
        wanted = {
            "remove": [],
            "lower": [rule(**GUARD, required=1), rule()],
            "approvers": [rule(**GUARD, approvers=[ASKER, OTHER, ALICE]), rule()],
            "add": [guard, rule(), rule(id="more", methods=["PurgeKey"])],
        }[change]
        name = required(await world.set_rules(*wanted, by="asker"))
        await world.approve(name, "alice", "bob")
        changed = (await world.set_rules(*wanted, by="asker")).message()
        assert len(changed.rules) == len(wanted)
        assert (await world.get(name)).state == USED
        outcome = await world.set_rules(by="asker")
        assert (outcome.code is OK) is (change == "remove")


async def test_approved_rules_are_not_set_over_others_that_were_set_meanwhile(tmp_path):
    async with ruled(tmp_path, rule(**GUARD)) as world:
        etag = world.server.server.engine.approvals.rules.etag
        second = [rule(**GUARD), rule()]
        for stem, fields in (("asker", {"etag": etag}), ("other", {"etag": etag})):
            name = required(await world.set_rules(*second, by=stem, **fields))
            await world.approve(name, "alice", "bob")
        assert (await world.set_rules(*second, by="asker", etag=etag)).code is OK
        assert (await world.set_rules(*second, by="other", etag=etag)).reason == "ETAG_MISMATCH"


@pytest.mark.parametrize(
    ("fields", "reason", "field"),
    [
        ({"required": 4}, "APPROVAL_RULE_UNSATISFIABLE", "rules[0].required"),
        ({"required": 0}, "APPROVAL_RULE_UNSATISFIABLE", "rules[0].required"),
        ({"methods": ["Encrypt"]}, "APPROVAL_RULE_INVALID", "rules[0].methods"),
        ({"methods": ["Seal"], "resource": "/"}, "APPROVAL_RULE_INVALID", "rules[0].methods"),
        ({"methods": ["DeleteKey", DELETE]}, "APPROVAL_RULE_INVALID", "rules[0].methods"),
        ({"methods": ["RotateRootKey"]}, "APPROVAL_RULE_INVALID", "rules[0].resource"),
        ({"resource": "vaults/*"}, "APPROVAL_RULE_INVALID", "rules[0].resource"),
        ({"approvers": ["group:ops", ALICE]}, "APPROVAL_RULE_INVALID", "rules[0].approvers"),
    ],
)
async def test_a_rule_that_cannot_work_is_refused(tmp_path, fields, reason, field):
    async with ruled(tmp_path) as world:
        refused = await world.set_rules(rule(**fields))
        assert (refused.reason, refused.fields) == (reason, [field])


async def test_a_change_of_rules_is_recorded_with_their_ids_and_what_they_require(tmp_path):
    async with ruled(tmp_path) as world:
        outcome = await world.set_rules(rule(), rule(id="one", required=1))
        for record in records_of(world, outcome):
            assert (record["rules.id"], record["rules.required"]) == (["two-of-three", "one"], [2, 1])
        refused = await world.set_rules(rule(id="Not an id"))
        assert (refused.reason, refused.fields) == ("INVALID_NAME", ["rules[0].id"])


async def test_rules_are_read_back_as_they_were_set(tmp_path):
    async with ruled(tmp_path) as world:
        request = approval_pb2.GetApprovalRulesRequest()
        read = (await call(world.admin, f"{ADMIN}GetApprovalRules", request)).message()
        (only,) = read.rules
        assert (list(only.methods), only.expires_after.seconds) == ([DELETE], 86_400)
        again = await world.set_rules(*read.rules, etag=read.etag)
        assert again.message() == read


# -- lists --------------------------------------------------------------------------------------------------------------


async def test_approvals_are_listed_by_age_by_state_and_page_by_page(tmp_path):
    async with ruled(tmp_path) as world:
        names = [required(await world.ask(delete(request_id=f"r{number}"))) for number in range(5)]
        cancel = approval_pb2.CancelApprovalRequest(name=names[1])
        await call(world.server.client("asker"), f"{ADMIN}CancelApproval", cancel)
        await world.approve(names[3], "alice", "bob")

        async def listed(state=0, page_size=2):
            found, token = [], ""
            while True:
                request = approval_pb2.ListApprovalsRequest(state=state, page_size=page_size, page_token=token)
                page = (await call(world.admin, f"{ADMIN}ListApprovals", request)).message()
                found += [one.name for one in page.approvals]
                token = page.next_page_token
                if not token:
                    return found

        assert await listed() == names
        assert await listed(PENDING) == [names[0], names[2], names[4]]
        assert await listed(APPROVED) == [names[3]]
        assert await listed(approval_pb2.APPROVAL_STATE_CANCELLED) == [names[1]]
        assert await listed(USED) == []


async def test_an_unknown_state_is_refused(tmp_path):
    async with ruled(tmp_path) as world:
        outcome = await call(world.admin, f"{ADMIN}ListApprovals", approval_pb2.ListApprovalsRequest(state=99))
        assert (outcome.reason, outcome.fields) == ("ENUM_UNKNOWN", ["state"])


# -- two servers, and a crash -------------------------------------------------------------------------------------------


async def test_two_servers_on_one_store_execute_an_approved_request_once(tmp_path):
    root = rule(methods=["RotateRootKey"], resource="/")
    async with (
        ruled(tmp_path, root) as one,
        ruled(tmp_path, root, audit={"directory": tmp_path / "audit-2"}) as two,
    ):
        request, path = admin_pb2.RotateRootKeyRequest(), f"{ADMIN}RotateRootKey"
        name = required(await one.ask(request, path=path))
        assert required(await two.ask(request, path=path)) == name
        await one.approve(name, "alice")
        await two.approve(name, "bob")
        outcomes = await asyncio.gather(*(world.ask(request, path=path) for world in (one, two) * 3))
        assert [outcome.code is OK for outcome in outcomes].count(True) == 1
        await one.server.server.engine.feed.poll()
        assert one.server.server.engine.ledger.sealer.term == 2


async def test_a_rule_set_on_one_server_holds_on_the_other_at_its_next_look(tmp_path):
    async with ruled(tmp_path) as one, ruled(tmp_path, audit={"directory": tmp_path / "audit-2"}) as two:
        await one.set_rules(rule(methods=["RotateKey", "PurgeKey"][1:]), rule(id="second"))
        await two.server.server.engine.feed.poll()
        required(await two.ask(keys_pb2.PurgeKeyRequest(name=KEY), path=PURGE))


@pytest.mark.slow
async def test_a_crash_between_the_mark_and_the_act_never_lets_the_act_happen_twice(tmp_path):
    root = rule(methods=["RotateRootKey"], resource="/")
    request, path = admin_pb2.RotateRootKeyRequest(), f"{ADMIN}RotateRootKey"
    async with ruled(tmp_path, root) as world:
        name = await world.approved(request, path=path)
    program = Path(__file__).with_name("approval_once.py")
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(filter(None, sys.path)),
        "VAULTD_FAILPOINT": "approvals.used",
    }
    command = [sys.executable, str(program), str(tmp_path)]
    died = await asyncio.to_thread(
        subprocess.run, command, env=environment, capture_output=True, text=True, timeout=60, check=False
    )
    assert died.returncode == -signal.SIGKILL, died.stderr
    assert died.stdout.endswith("serving\n")
    async with ruled(tmp_path) as world:
        assert (await world.get(name)).state == USED
        assert world.server.server.engine.ledger.sealer.term == 1  # not done
        assert required(await world.ask(request, path=path)) != name  # and not done without another approval
        intents = [r for r in world.server.audit_records() if r["event"] == "intent" and r.get("approval") == name]
        assert len(intents) == 1  # the log has the intent, and no outcome
