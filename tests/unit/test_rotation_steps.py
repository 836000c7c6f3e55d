"""The stage machine of rotations: every history ends, nothing is left half done unseen, and waits are bounded."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import event, given, settings
from hypothesis import strategies as st

from vaultd.engine.generators import BytesEncoding, KeyPairRules, KeyPairType, PasswordRules, RandomBytesRules
from vaultd.engine.rotation_model import (
    Failure,
    Rotation,
    RotationPolicy,
    RotationState,
    Stage,
    decode_rotation,
    encode_rotation,
)
from vaultd.engine.rotation_steps import (
    CANCELLED,
    NEXT,
    RotationLimits,
    about_to_set,
    asked_for,
    begin,
    claim,
    done,
    exhausted,
    failed,
    is_due,
    jitter_us,
    no_more_retries,
    promoted,
    retired,
    undone,
)

LIMITS = RotationLimits(
    lease_us=60_000_000,
    max_attempts=3,
    backoff_us=1_000_000,
    max_backoff_us=8_000_000,
    retry_us=10_000_000,
    max_retry_us=100_000_000,
)
HOUR_US = 3_600_000_000
POLICY = RotationPolicy(PasswordRules(), "db", HOUR_US, None, 5_000_000)
NEW = Rotation("default", "s", bytes(16), POLICY, 0, 0, next_us=1_000_000)
OUTCOMES = ["done", "done", "done", "failed", "lasting", "untouched", "died"]


def fresh(now_us: int = 1_000_000, **changes) -> Rotation:
    return claim(begin(replace(NEW, **changes), now_us, 7), now_us, "me", LIMITS)


def after(rotation: Rotation, now_us: int, outcome: str, draw) -> Rotation:
    """What the runner writes down of a claimed stage."""
    stage = rotation.stage
    if outcome == "died":
        return rotation
    if outcome != "done":
        failure = Failure(stage, "REASON", "text", now_us)
        return failed(
            rotation,
            now_us,
            failure,
            LIMITS,
            draw,
            lasting=outcome == "lasting",
            untouched=outcome == "untouched",
        )
    if stage is Stage.PROMOTE:
        if rotation.cancelled:
            return failed(rotation, now_us, Failure(stage, CANCELLED, "", now_us), LIMITS, draw, lasting=True)
        return promoted(rotation, now_us, rotation.old + 1)
    if stage is Stage.RETIRE:
        return retired(rotation)
    if stage is Stage.ROLL_BACK:
        return undone(rotation, now_us, LIMITS, draw)
    return done(rotation, now_us)


@settings(max_examples=300)
@given(st.data())
def test_every_history_ends_and_nothing_is_left_half_done(data):
    rotation, now_us = begin(NEW, 1_000_000, 7), 1_000_000
    known = False  # whether the target may know the new payload
    unsure = False  # whether undoing was given up
    for step in range(200):
        assert decode_rotation(encode_rotation(rotation)) == rotation
        if rotation.state in {RotationState.IDLE, RotationState.FAILED}:
            break
        assert rotation.due_us is not None
        assert rotation.due_us - now_us <= max(LIMITS.lease_us, LIMITS.max_backoff_us, POLICY.overlap_us)
        now_us = max(now_us, rotation.due_us)
        assert is_due(rotation, now_us)
        if rotation.state is RotationState.RUNNING and data.draw(st.integers(0, 9)) == 0:
            rotation = replace(rotation, cancelled=True)
        if exhausted(rotation, LIMITS):
            unsure |= rotation.state is RotationState.ROLLING_BACK
            failure = Failure(rotation.stage, "X", "", now_us)
            rotation = failed(rotation, now_us, failure, LIMITS, lambda: 0.5, lasting=True)
            continue
        rotation = claim(rotation, now_us, "me", LIMITS)
        assert rotation.attempt <= LIMITS.max_attempts or rotation.state is RotationState.OVERLAP
        assert not is_due(rotation, now_us)
        if rotation.stage is Stage.SET:
            rotation = about_to_set(rotation)
        outcome = data.draw(st.sampled_from(OUTCOMES)) if step < 60 else "done"
        known |= rotation.stage is Stage.SET and outcome != "untouched"
        if rotation.stage is Stage.ROLL_BACK:
            known &= outcome != "done"
            unsure |= outcome not in {"done", "died"}
        rotation = after(rotation, now_us, outcome, lambda: data.draw(st.floats(0, 1, exclude_max=True)))
    else:
        raise AssertionError("the history does not end")
    event(f"ended {rotation.state.value} {rotation.failure is not None}")
    served = rotation.new == 8
    assert served or not known or unsure
    assert served or rotation.failure is not None
    assert rotation.owner == ""
    assert rotation.touched is False
    if rotation.state is RotationState.FAILED:
        assert 0 <= rotation.wait_us - now_us <= LIMITS.max_retry_us
        assert is_due(rotation, rotation.wait_us)


def test_a_run_goes_through_its_stages_in_order():
    rotation, stages = fresh(), []
    while rotation.state is not RotationState.IDLE:
        stages.append(rotation.stage)
        rotation = after(rotation, 2_000_000, "done", lambda: 0.0)
        if rotation.due_us is not None and rotation.state is not RotationState.IDLE:
            rotation = claim(rotation, rotation.due_us, "me", LIMITS)
    assert stages == [Stage.CREATE, Stage.SET, Stage.TEST, Stage.PROMOTE, Stage.RETIRE]
    assert (rotation.new, rotation.next_us, rotation.failure) == (8, 2_000_000 + HOUR_US, None)


def test_the_old_credential_lives_for_the_overlap():
    rotation = promoted(replace(fresh(), stage=Stage.PROMOTE), 10, 8)
    assert rotation.state is RotationState.OVERLAP
    assert not is_due(rotation, 10 + 5_000_000 - 1)
    assert is_due(rotation, 10 + 5_000_000)


@pytest.mark.parametrize("stage", [Stage.SET, Stage.TEST, Stage.PROMOTE])
def test_what_fails_for_good_before_it_is_served_is_undone(stage):
    rotation = replace(fresh(), stage=stage, touched=True)
    undoing = failed(rotation, 5, Failure(stage, "R", "t", 5), LIMITS, lambda: 0.0, lasting=True)
    assert (undoing.state, undoing.stage, undoing.wait_us) == (RotationState.ROLLING_BACK, Stage.ROLL_BACK, 5)
    over = undone(undoing, 9, LIMITS, lambda: 0.5)
    assert (over.state, over.failures, over.failure.stage) == (RotationState.FAILED, 1, stage)


def test_nothing_is_undone_where_nothing_was_done():
    over = failed(fresh(), 5, Failure(Stage.CREATE, "R", "t", 5), LIMITS, lambda: 0.0, lasting=True)
    assert over.state is RotationState.FAILED
    first = about_to_set(replace(fresh(), stage=Stage.SET))
    refused = failed(first, 5, Failure(Stage.SET, "R", "t", 5), LIMITS, lambda: 0.0, lasting=True, untouched=True)
    assert refused.state is RotationState.FAILED
    died = about_to_set(replace(first, attempt=2))
    refused = failed(died, 5, Failure(Stage.SET, "R", "t", 5), LIMITS, lambda: 0.0, lasting=True, untouched=True)
    assert refused.state is RotationState.ROLLING_BACK


def test_what_is_served_is_never_undone():
    rotation = replace(promoted(replace(fresh(), stage=Stage.PROMOTE), 10, 8), attempt=99)
    later = failed(rotation, 20, Failure(Stage.RETIRE, "R", "t", 20), LIMITS, lambda: 0.5, lasting=True)
    assert (later.state, later.failure.reason) == (RotationState.OVERLAP, "R")
    assert 20 <= later.wait_us <= 20 + LIMITS.max_backoff_us


def test_a_cancelled_run_is_undone_and_waits_for_its_next_time():
    rotation = replace(fresh(next_us=5), cancelled=True, touched=True, stage=Stage.TEST)
    undoing = failed(rotation, 10, Failure(Stage.TEST, CANCELLED, "", 10), LIMITS, lambda: 0.0)
    assert undoing.state is RotationState.ROLLING_BACK
    over = undone(undoing, 20, LIMITS, lambda: 0.0)
    assert (over.state, over.next_us, over.failure.reason) == (RotationState.IDLE, 20 + HOUR_US, CANCELLED)


def test_retries_that_are_not_wanted_wait_for_the_next_time():
    over = failed(fresh(next_us=5), 10, Failure(Stage.CREATE, "R", "", 10), LIMITS, lambda: 0.9, lasting=True)
    assert no_more_retries(over, 10).due_us == 10 + HOUR_US
    by_hand = replace(over, policy=replace(POLICY, period_us=None))
    assert no_more_retries(by_hand, 10).due_us is None


def test_asking_for_it_makes_it_due():
    assert is_due(asked_for(replace(NEW, next_us=None), 5), 5)
    waiting = failed(fresh(), 5, Failure(Stage.CREATE, "R", "", 5), LIMITS, lambda: 0.9)
    assert not is_due(waiting, 6)
    assert is_due(asked_for(waiting, 6), 6)
    overlap = promoted(replace(fresh(), stage=Stage.PROMOTE), 10, 8)
    assert is_due(asked_for(overlap, 20), 20)
    assert is_due(retired(asked_for(overlap, 20)), 20)


def test_delays_grow_and_have_a_ceiling():
    assert [jitter_us(10, 45, tries, lambda: 0.999999) for tries in (1, 2, 3, 4, 1000)] == [9, 19, 39, 44, 44]
    assert jitter_us(10, 45, 5, lambda: 0.0) == 0


def test_notice_is_due_once():
    rotation = replace(NEW, next_us=100, policy=replace(POLICY, notice_us=30))
    assert (rotation.notice_due_us, rotation.due_us) == (70, 70)
    told = replace(rotation, noticed_us=100)
    assert (told.notice_due_us, told.due_us) == (None, 100)
    assert replace(told, next_us=200).notice_due_us == 170


def test_without_a_target_nothing_is_retired_unless_that_is_said():
    kept = replace(NEW, policy=RotationPolicy(period_us=HOUR_US))
    assert promoted(begin(kept, 1, 7), 2, 8).state is RotationState.IDLE
    timed = replace(NEW, policy=RotationPolicy(overlap_us=0))
    assert promoted(begin(timed, 1, 7), 2, 8).state is RotationState.OVERLAP
    assert promoted(begin(timed, 1, 0), 2, 1).state is RotationState.IDLE
    assert promoted(begin(NEW, 1, 0), 2, 1).state is RotationState.OVERLAP


@pytest.mark.parametrize(
    "rules",
    [PasswordRules(9, {"digits": 2}, "1"), RandomBytesRules(20, BytesEncoding.HEX), KeyPairRules(KeyPairType.EC_P384)],
)
def test_rules_survive_the_store(rules):
    rotation = replace(NEW, policy=RotationPolicy(rules))
    assert decode_rotation(encode_rotation(rotation)) == rotation


def test_the_order_of_stages_is_whole():
    assert set(NEXT) | set(NEXT.values()) | {Stage.RETIRE, Stage.ROLL_BACK} == set(Stage)
