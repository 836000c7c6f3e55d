"""Runs against a webhook: what fails at each stage, what people ask for meanwhile, and two nodes on one store."""

from __future__ import annotations

import asyncio

import pytest

from engine.engines import engine_settings, intent
from harness import FakeClock
from rotations.world import LIMITS, RotatingEngine, S, rotating_engine
from vaultd.devpki import create_dev_pki
from vaultd.engine.model import SecretVersionState
from vaultd.engine.rotation_model import RotationPolicy, RotationState, Stage
from vaultd.engine.secrets import NewVersion
from vaultd.errors import Aborted, FailedPrecondition, NotFound, Unavailable
from vaultd.names import SecretRef
from vaultd.secret import Secret
from webhook import Webhook

BROKEN = (500, b'{"reason": "DISK_FULL", "why": "canary-body"}')
REFUSED = (409, b'{"reason": "NOT_TODAY"}')
LOST = [BROKEN] * 50


@pytest.fixture(scope="module")
def tls(tmp_path_factory):
    directory = tmp_path_factory.mktemp("tls")
    create_dev_pki(directory, hosts=["127.0.0.1"])
    return directory


@pytest.fixture
def hook(tls):
    with Webhook(tls / "server.crt", tls / "server.key") as running:
        yield running


@pytest.fixture
async def vault(hook, tls, tmp_path):
    async with rotating_engine(tmp_path, hook.target(tmp_path, tls / "ca.crt")) as running:
        await running.make_secret(b"the first")
        hook.accepted.add(b"the first")
        await running.set_policy("legacy")
        yield running
        assert hook.faults == []


async def test_a_webhook_is_asked_for_each_stage_in_order(hook, vault):
    rotation = await vault.rotate()
    assert (rotation.state, rotation.new, rotation.failure) == (RotationState.IDLE, 2, None)
    assert hook.stages() == ["create", "set", "test", "retire"]
    assert {asked["run"] for asked in hook.asked} == {rotation.run_name}
    assert hook.accepted == {await vault.served()}
    assert hook.headers[0]["Vaultd-Timestamp"] == str(vault.clock.us // S)


async def test_no_run_has_the_name_of_another_not_even_after_a_new_policy(hook, vault):
    names = [(await vault.rotate()).run_name]
    await vault.rotations.remove_policy(intent(), vault.ref)
    await vault.set_policy("legacy")
    assert (await vault.rotations.get(vault.ref)).run_name == ""
    names += [(await vault.rotate()).run_name, (await vault.rotate()).run_name]
    assert len(set(names)) == 3
    assert {asked["run"] for asked in hook.asked} == set(names)


async def test_a_webhook_may_make_the_value_itself(hook, vault):
    hook.answers["create"] = [(200, b'{"payload": "bWFkZSBlbHNld2hlcmU="}')]
    await vault.rotate()
    assert await vault.served() == b"made elsewhere"


@pytest.mark.parametrize(
    "answer", [b'{"payload": "not base64!"}', b'{"payload": ""}', b'{"payload": 7}', b"[]", b"\xff"]
)
async def test_an_answer_that_makes_no_sense_makes_no_version(hook, vault, answer):
    hook.answers["create"] = [(200, answer)] * 2
    rotation = await vault.rotate()
    rotation = rotation if rotation.state is RotationState.FAILED else await vault.run_out()
    assert (rotation.state, rotation.failure.reason) == (RotationState.FAILED, "WEBHOOK_ANSWER")
    assert await vault.served() == b"the first"


@pytest.mark.parametrize("stage", ["create", "set", "test"])
@pytest.mark.parametrize("answers", [[REFUSED], LOST], ids=["for good", "again and again"])
async def test_what_fails_before_it_is_served_is_undone_and_says_why(hook, vault, stage, answers):
    hook.answers[stage] = list(answers)
    rotation = await vault.rotate()
    rotation = rotation if rotation.state is RotationState.FAILED else await vault.run_out()
    assert (rotation.state, rotation.failure.stage) == (RotationState.FAILED, Stage[stage.upper()])
    assert rotation.failure.reason == ("NOT_TODAY" if answers == [REFUSED] else "DISK_FULL")
    assert "canary" not in rotation.failure.text
    assert hook.stages().count(stage) == (1 if answers == [REFUSED] else LIMITS["max_attempts"])
    assert ("roll_back" in hook.stages()) == (stage != "create")
    assert await vault.served() == b"the first"
    assert hook.accepted == {b"the first"}
    assert (await vault.rotations.list("default", "", 10, [RotationState.FAILED])) == [rotation]
    assert [event for event, _, _ in vault.events].count("rotation_failed") == 1
    hook.answers.clear()
    rotation = await vault.go_on(LIMITS["retry_s"])
    assert (rotation.state, rotation.failures, rotation.failure) == (RotationState.IDLE, 0, None)
    assert hook.accepted == {await vault.served()}


async def test_a_version_that_somebody_put_in_service_meanwhile_is_left_there(hook, vault):
    hook.answers["test"] = [BROKEN]
    await vault.rotate()
    await vault.engine.secrets.add_version(intent(), vault.ref, NewVersion(Secret(b"by hand")))
    rotation = await vault.run_out()
    assert (rotation.state, rotation.failure.stage) == (RotationState.FAILED, Stage.PROMOTE)
    assert rotation.failure.reason == "SECRET_CHANGED"
    assert hook.stages()[-1] == "roll_back"
    assert await vault.served() == b"by hand"


async def test_a_retirement_that_fails_is_tried_until_it_works(hook, vault):
    hook.answers["retire"] = [BROKEN, REFUSED, BROKEN, REFUSED]
    rotation = await vault.rotate()
    assert (rotation.state, rotation.failure.reason, rotation.new) == (RotationState.OVERLAP, "DISK_FULL", 2)
    rotation = await vault.run_out()
    assert (rotation.state, rotation.failure) == (RotationState.IDLE, None)
    assert hook.stages().count("retire") == 5
    assert hook.accepted == {await vault.served()}


async def test_a_retirement_that_never_works_does_not_hold_up_the_next_rotation(hook, vault):
    hook.answers["retire"] = [BROKEN]
    await vault.rotate()
    hook.answers["retire"] = [(0, b"")]
    rotation = await vault.rotate()
    assert (rotation.run, rotation.new) == (2, 3)


async def test_undoing_that_fails_is_tried_again_and_then_said(hook, vault):
    hook.answers = {"test": [REFUSED], "roll_back": list(LOST)}
    rotation = await vault.rotate()
    assert rotation.state is RotationState.ROLLING_BACK
    assert rotation.failure.reason == "NOT_TODAY"
    rotation = await vault.run_out()
    assert rotation.state is RotationState.FAILED
    assert "undoing it failed, too (DISK_FULL)" in rotation.failure.text


async def test_a_cancelled_run_is_undone_and_not_tried_again(hook, vault):
    hook.answers["test"] = [BROKEN]
    assert (await vault.rotate()).stage is Stage.TEST
    await vault.rotations.cancel(intent(), vault.ref)
    await vault.settled()
    rotation = await vault.rotations.get(vault.ref)
    assert (rotation.state, rotation.failure.reason, rotation.due_us) == (RotationState.IDLE, "CANCELLED", None)
    assert hook.stages()[-1] == "roll_back"
    assert hook.accepted == {await vault.served()} == {b"the first"}


async def test_a_run_can_be_cancelled_while_a_stage_is_being_done(hook, vault):
    hook.let_go.clear()
    await vault.rotations.rotate(intent(), vault.ref)
    await began(hook)
    await vault.rotations.cancel(intent(), vault.ref)
    hook.let_go.set()
    await vault.settled()
    rotation = await vault.rotations.get(vault.ref)
    assert (rotation.state, rotation.failure.reason) == (RotationState.IDLE, "CANCELLED")
    assert await vault.served() == b"the first"


async def began(hook: Webhook) -> None:
    """Wait until a stage is being done."""
    assert await asyncio.to_thread(hook.arrived.wait, 10)


async def test_what_is_served_cannot_be_cancelled(vault):
    await vault.set_policy("legacy", overlap_us=60 * S)
    assert (await vault.rotate()).state is RotationState.OVERLAP
    with pytest.raises(FailedPrecondition) as caught:
        await vault.rotations.cancel(intent(), vault.ref)
    assert caught.value.reason == "ROTATION_PROMOTED"


async def test_an_old_version_that_somebody_took_back_is_not_retired(hook, vault):
    await vault.set_policy("legacy", overlap_us=60 * S)
    await vault.rotate()
    old = SecretRef("default", vault.ref.secret, 1)
    await vault.engine.secrets.set_alias(intent(), vault.ref, "current", old)
    rotation = await vault.go_on(60)
    assert (rotation.state, rotation.failure.reason) == (RotationState.IDLE, "OLD_VERSION_IN_SERVICE")
    assert b"the first" in hook.accepted
    assert await vault.served() == b"the first"


async def test_nothing_is_retired_once_somebody_put_another_version_in_service(hook, vault):
    await vault.set_policy("legacy", overlap_us=60 * S)
    await vault.rotate()
    await vault.engine.secrets.add_version(intent(), vault.ref, NewVersion(Secret(b"by hand")))
    rotation = await vault.go_on(60)
    assert (rotation.state, rotation.failure.reason) == (RotationState.IDLE, "SECRET_CHANGED")
    assert "retire" not in hook.stages()


async def test_retries_can_be_called_off(hook, vault):
    hook.answers["set"] = [REFUSED]
    assert (await vault.rotate()).state is RotationState.FAILED
    rotation = await vault.rotations.cancel(intent(), vault.ref)
    assert (rotation.state, rotation.due_us, rotation.failure.reason) == (RotationState.IDLE, None, "NOT_TODAY")


async def test_a_deleted_secret_rotates_when_it_is_back(hook, vault):
    await vault.set_policy("legacy", period_us=3600 * S)
    await vault.engine.secrets.delete(intent(), vault.ref)
    assert (await vault.go_on(3600)).run == 0
    await vault.engine.secrets.undelete(intent(), vault.ref)
    assert (await vault.go_on(600)).run == 1


async def test_a_secret_that_is_deleted_meanwhile_is_undone_at_its_target(hook, vault):
    hook.answers["test"] = [BROKEN]
    await vault.rotate()
    await vault.engine.secrets.delete(intent(), vault.ref)
    rotation = await vault.run_out()
    assert (rotation.state, rotation.failure.reason) == (RotationState.FAILED, "SECRET_DELETED")
    assert hook.accepted == {b"the first"}


async def test_a_purged_secret_takes_its_rotation_along(vault):
    await vault.engine.secrets.delete(intent(), vault.ref)
    await vault.engine.secrets.purge(intent(), vault.ref)
    with pytest.raises(NotFound):
        await vault.rotations.get(vault.ref)
    assert await vault.rotations.list("default", "", 10, []) == []
    await vault.ledger.check(deep=True)


async def test_nothing_is_done_that_cannot_be_recorded(hook, vault):
    async def fail(event: str, resource: str) -> None:
        del event, resource
        raise Unavailable("AUDIT_UNAVAILABLE", "no")

    vault.engine.rotation_runner._on_intent = fail
    rotation = await vault.rotate()
    assert (rotation.state, rotation.run) == (RotationState.IDLE, 0)
    assert hook.asked == []
    assert vault.events[-1] == ("rotation_waits", str(vault.ref), "AUDIT_UNAVAILABLE")


async def test_a_target_that_the_configuration_dropped_is_said_to_be_gone(hook, tls, tmp_path, vault):
    await vault.stop()
    async with rotating_engine(tmp_path) as again:
        rotation = await again.rotate()
        assert (rotation.state, rotation.failure.reason) == (RotationState.FAILED, "TARGET_UNKNOWN")


async def test_a_stage_that_takes_too_long_is_ended(hook, tls, tmp_path, vault):
    await vault.stop()
    async with rotating_engine(tmp_path, hook.target(tmp_path, tls / "ca.crt", timeout_s=0.2)) as again:
        hook.let_go.clear()
        rotation = await again.rotate()
        assert rotation.failure.reason in {"TIMED_OUT", "WEBHOOK_UNREACHABLE"}
        hook.let_go.set()


async def test_a_certificate_of_another_authority_gets_no_request(hook, tmp_path, vault):
    from pki import Authority

    await vault.stop()
    other = tmp_path / "other.crt"
    other.write_bytes(Authority().pem())
    async with rotating_engine(tmp_path, hook.target(tmp_path, other)) as again:
        rotation = await again.rotate()
        assert rotation.failure.reason == "WEBHOOK_UNREACHABLE"
        assert "ca_file" in rotation.failure.text
    assert hook.asked == []


async def test_a_target_that_was_never_reached_is_not_asked_to_undo_anything(hook, vault):
    await vault.rotate()
    hook.close()
    rotation = await vault.rotate()
    rotation = rotation if rotation.state is RotationState.FAILED else await vault.run_out()
    assert (rotation.state, rotation.failure.reason) == (RotationState.FAILED, "WEBHOOK_UNREACHABLE")
    assert "undoing" not in rotation.failure.text


# -- policies -----------------------------------------------------------------------------------------------------------


async def test_a_secret_without_a_target_rotates_in_one_step(vault):
    plain = SecretRef("default", "plain")
    await vault.make_secret(b"one", plain)
    await vault.set_policy("", plain, overlap_us=None)
    rotation = await vault.rotations.rotate(intent(), plain)
    assert (rotation.state, rotation.new) == (RotationState.IDLE, 2)
    assert len(await vault.served(plain)) == 32
    states = [version.state for version in await vault.engine.secrets.list_versions(plain)]
    assert states == [SecretVersionState.ENABLED] * 2


async def test_a_secret_without_a_target_retires_old_versions_when_it_is_told_to(vault):
    plain = SecretRef("default", "plain")
    await vault.make_secret(b"one", plain)
    await vault.set_policy("", plain, overlap_us=60 * S, period_us=3600 * S)
    assert (await vault.go_on(3600, plain)).state is RotationState.OVERLAP
    assert ("secret_rotated", str(plain), "") in vault.events
    assert (await vault.go_on(60, plain)).state is RotationState.IDLE
    states = [version.state.value for version in await vault.engine.secrets.list_versions(plain)]
    assert states == ["DISABLED", "ENABLED"]


async def test_a_repeated_request_rotates_once(vault):
    plain = SecretRef("default", "plain")
    await vault.make_secret(b"one", plain)
    await vault.set_policy("", plain)
    first = await vault.rotations.rotate(intent("once"), plain)
    assert await vault.rotations.rotate(intent("once"), plain) == first
    assert (await vault.rotations.get(plain)).new == 2


async def test_a_policy_changes_with_its_etag_only(vault):
    now = await vault.rotations.get(vault.ref)
    changed = await vault.rotations.set_policy(intent(), vault.ref, RotationPolicy(target="legacy"), None, now.etag)
    assert changed.etag != now.etag
    with pytest.raises(Aborted):
        await vault.rotations.set_policy(intent(), vault.ref, RotationPolicy(), None, now.etag)
    await vault.rotate()
    assert (await vault.rotations.get(vault.ref)).etag == changed.etag


async def test_a_target_does_not_change_under_a_run(hook, vault):
    hook.answers["test"] = [BROKEN]
    await vault.rotate()
    for change in (
        lambda: vault.rotations.set_policy(intent(), vault.ref, RotationPolicy(), None),
        lambda: vault.rotations.remove_policy(intent(), vault.ref),
    ):
        with pytest.raises(FailedPrecondition) as caught:
            await change()
        assert caught.value.reason == "ROTATION_UNDER_WAY"
    await vault.set_policy("legacy", period_us=3600 * S)
    assert (await vault.run_out()).new == 2
    await vault.rotations.remove_policy(intent(), vault.ref)
    with pytest.raises(NotFound):
        await vault.rotations.get(vault.ref)


# -- two nodes ----------------------------------------------------------------------------------------------------------


@pytest.fixture
async def nodes(hook, tls, tmp_path):
    """Two engines on one store, with one time."""
    clock = FakeClock()
    settings = engine_settings(tmp_path, rotation={**LIMITS, "targets": [hook.target(tmp_path, tls / "ca.crt")]})
    opened = [RotatingEngine(settings, clock), RotatingEngine(settings, clock)]
    for node in opened:
        await node.start()
    await opened[0].make_secret(b"the first")
    await opened[0].set_policy("legacy")
    await opened[1].engine.feed.poll()
    yield opened
    for node in opened:
        await node.stop()


async def test_two_nodes_never_run_one_rotation_at_once(hook, nodes):
    one, two = nodes
    hook.let_go.clear()
    await one.rotations.rotate(intent(), one.ref)
    await began(hook)
    await two.engine.feed.poll()
    for _ in range(5):
        two.clock.advance(3)
        await two.tick()
        await two.settled()
    hook.let_go.set()
    await one.settled()
    assert hook.stages() == ["create", "set", "test", "retire"]
    assert (await two.rotations.get(two.ref)).new == 2


async def test_many_rotations_that_two_nodes_want_are_each_done_once(hook, nodes):
    one, two = nodes
    refs = [SecretRef("default", f"s{number}") for number in range(12)]
    for ref in refs:
        await one.make_secret(b"first", ref)
        await one.set_policy("legacy", ref, period_us=3600 * S)
    await two.engine.feed.poll()
    one.clock.advance(3600)
    await asyncio.gather(one.tick(), two.tick())
    await asyncio.gather(one.settled(), two.settled())
    done = [(asked["secret"], asked["stage"]) for asked in hook.asked]
    assert sorted(done) == sorted((str(ref), stage) for ref in refs for stage in ("create", "set", "test", "retire"))
    for ref in refs:
        rotation = await two.rotations.get(ref)
        assert (rotation.run, rotation.new, rotation.state) == (1, 2, RotationState.IDLE)


async def test_a_runner_takes_no_more_than_it_may_hold_and_the_rest_has_its_turn_later(hook, vault, monkeypatch):
    monkeypatch.setattr("vaultd.engine.rotation_runner.MAX_OFFERED", 2)
    refs = [SecretRef("default", f"s{number}") for number in range(5)]
    for ref in refs:
        await vault.make_secret(b"first", ref)
        await vault.set_policy("legacy", ref, period_us=3600 * S)
    await vault.settled()
    hook.let_go.clear()
    vault.clock.advance(3600)
    await vault.tick()
    assert len(vault.engine.rotation_runner) == 2
    hook.let_go.set()
    for _ in refs:
        await vault.settled()
        await vault.tick()
    await vault.settled()
    assert [(await vault.rotations.get(ref)).new for ref in refs] == [2] * 5


async def test_another_node_takes_over_when_the_lease_ends_and_the_first_writes_nothing_more(hook, nodes):
    one, two = nodes
    hook.let_go.clear()
    await one.rotations.rotate(intent(), one.ref)
    await began(hook)
    two.clock.advance(LIMITS["lease_s"])  # node one hangs in a stage for longer than it may
    await two.engine.feed.poll()
    await two.tick()
    owner = one.engine.rotation_runner.owner
    while (taken := await two.rotations.get(two.ref)).owner in {"", owner}:
        pass  # each look lets the others go on
    assert (taken.stage, taken.attempt) == (Stage.CREATE, 2)
    hook.let_go.set()
    await one.settled()
    await two.settled()
    rotation = await two.rotations.get(two.ref)
    assert (rotation.state, rotation.run, rotation.new, rotation.failure) == (RotationState.IDLE, 1, 2, None)
    assert hook.stages() == ["create", "create", "set", "test", "retire"]


async def test_a_node_that_stops_gives_its_turn_back(hook, nodes):
    one, two = nodes
    hook.let_go.clear()
    await one.rotations.rotate(intent(), one.ref)
    await began(hook)
    await one.engine.rotation_runner.close()
    hook.let_go.set()
    await two.engine.feed.poll()
    await two.tick()
    await two.settled()
    rotation = await two.rotations.get(two.ref)
    assert (rotation.state, rotation.new) == (RotationState.IDLE, 2)
