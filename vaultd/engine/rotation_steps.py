"""The stage machine of a rotation, as pure functions of the stored record and the time; but for the name of a run, which is random.

    IDLE, FAILED -> RUNNING (CREATE -> SET -> TEST -> PROMOTE) -> OVERLAP (RETIRE) -> IDLE
                    RUNNING -> ROLLING_BACK -> FAILED, or IDLE when it was cancelled

A stage begins with `claim`, which is durable before anything is done, and ends with one of `done`, `promoted`, `retired`,
`undone` and `failed`, durable before the next begins.  PROMOTE is the point of no return: before it whatever goes wrong is
undone, after it what is left is tried until it works.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

from vaultd.engine.rotation_model import Failure, Rotation, RotationState, Stage

if TYPE_CHECKING:
    from collections.abc import Callable

NEXT: Final = {Stage.CREATE: Stage.SET, Stage.SET: Stage.TEST, Stage.TEST: Stage.PROMOTE}
CANCELLED: Final = "CANCELLED"
INTERRUPTED: Final = "INTERRUPTED"
_MAX_EXPONENT: Final = 30


@dataclass(frozen=True, slots=True)
class RotationLimits:
    """How often and when what failed is tried again.

    lease_us: how long a stage may take before another process takes over.  backoff_us, max_backoff_us: between attempts of a
    stage.  retry_us, max_retry_us: between runs that were undone.
    """

    lease_us: int = 60_000_000
    max_attempts: int = 5
    backoff_us: int = 1_000_000
    max_backoff_us: int = 300_000_000
    retry_us: int = 300_000_000
    max_retry_us: int = 21_600_000_000


def jitter_us(base_us: int, cap_us: int, failures: int, random: Callable[[], float]) -> int:
    """A delay before try number `failures` + 1: anywhere between nothing and the doubled base, at most the cap (full jitter)."""
    ceiling = min(cap_us, base_us << min(max(failures - 1, 0), _MAX_EXPONENT))
    return int(random() * ceiling)


def is_due(rotation: Rotation, now_us: int) -> bool:
    """Whether a process may claim it now: its time has come, and nobody's lease runs."""
    if rotation.owner:
        return rotation.lease_us is None or rotation.lease_us <= now_us
    if rotation.state is RotationState.IDLE:
        return rotation.next_us is not None and rotation.next_us <= now_us
    return rotation.wait_us is not None and rotation.wait_us <= now_us


def begin(rotation: Rotation, now_us: int, old: int) -> Rotation:
    """A new run, over the version that is served now (0: none)."""
    return replace(
        rotation,
        state=RotationState.RUNNING,
        stage=Stage.CREATE,
        run=rotation.run + 1,
        run_name=os.urandom(16).hex(),
        attempt=0,
        wait_us=now_us,
        owner="",
        lease_us=None,
        touched=False,
        trying=False,
        cancelled=False,
        old=old,
        new=0,
        begin_us=now_us,
        promote_us=None,
    )


def claim(rotation: Rotation, now_us: int, owner: str, limits: RotationLimits) -> Rotation:
    """The next attempt of the stage, by one process.  It may find out that there is nothing to attempt any more: `exhausted`."""
    return replace(
        rotation,
        attempt=rotation.attempt + 1,
        owner=owner,
        lease_us=now_us + limits.lease_us,
        wait_us=None,
    )


def exhausted(rotation: Rotation, limits: RotationLimits) -> str:
    """Why a stage is not attempted any more, or empty.  A process that dies in each attempt must not try for ever."""
    if rotation.state is RotationState.RUNNING and rotation.cancelled:
        return CANCELLED
    if rotation.state is RotationState.OVERLAP or rotation.attempt < limits.max_attempts:
        return ""
    return INTERRUPTED


def about_to_set(rotation: Rotation) -> Rotation:
    """The target may know the new payload from here on, unless this attempt is heard to have left it alone."""
    return replace(tried(rotation), trying=True)


def tried(rotation: Rotation) -> Rotation:
    """The attempt before may have told the target."""
    return replace(rotation, touched=rotation.touched or rotation.trying, trying=False)


def done(rotation: Rotation, now_us: int) -> Rotation:
    """CREATE, SET or TEST is done; the next stage may begin."""
    stage = NEXT[_stage(rotation)]
    return replace(tried(rotation), stage=stage, attempt=0, owner="", lease_us=None, wait_us=now_us)


def promoted(rotation: Rotation, now_us: int, new: int) -> Rotation:
    """The new version is served.  The next rotation is counted from now.  When nothing is to be retired, the run is over."""
    policy = rotation.policy
    retire_after_us = policy.retire_after_us
    served = replace(
        rotation,
        state=RotationState.OVERLAP,
        stage=Stage.RETIRE,
        attempt=0,
        failures=0,
        owner="",
        lease_us=None,
        wait_us=now_us + (retire_after_us or 0),
        new=new,
        promote_us=now_us,
        next_us=now_us + policy.period_us if policy.period_us is not None else None,
        noticed_us=None,
        cancelled=False,
        failure=None,
    )
    nothing_old = not served.old and not policy.target  # a target may have an old credential that the vault never had
    return retired(served) if retire_after_us is None or nothing_old else served


def retired(rotation: Rotation) -> Rotation:
    """The old credential is worthless, or it is not to be retired; the run is over."""
    return replace(
        rotation,
        state=RotationState.IDLE,
        stage=None,
        attempt=0,
        owner="",
        lease_us=None,
        wait_us=None,
        touched=False,
        trying=False,
        failure=None,
    )


def failed(
    rotation: Rotation,
    now_us: int,
    failure: Failure,
    limits: RotationLimits,
    random: Callable[[], float],
    *,
    lasting: bool = False,
    untouched: bool = False,
) -> Rotation:
    """An attempt failed: it waits for the next one, or what was done is undone, or that is given up."""
    rotation = replace(rotation, trying=False) if untouched else tried(rotation)
    # Of a roll back that fails, too, it is the failure that led to it that people need to see first.
    shown = (
        failure if rotation.state is not RotationState.ROLLING_BACK or rotation.failure is None else rotation.failure
    )
    rotation = replace(rotation, failure=shown, owner="", lease_us=None)
    final = lasting or rotation.attempt >= limits.max_attempts
    running, overlap = rotation.state is RotationState.RUNNING, rotation.state is RotationState.OVERLAP
    if overlap or not (final or (running and rotation.cancelled)):
        delay_us = jitter_us(limits.backoff_us, limits.max_backoff_us, rotation.attempt, random)
        return replace(rotation, wait_us=now_us + delay_us)
    if running:
        return give_up(rotation, now_us, limits, random)
    text = f"{shown.text}; undoing it failed, too ({failure.reason}): {failure.text}"
    return _ended(replace(rotation, failure=replace(shown, text=text)), now_us, limits, random)


def give_up(rotation: Rotation, now_us: int, limits: RotationLimits, random: Callable[[], float]) -> Rotation:
    """End a run before PROMOTE: undo what the target may know; when that is nothing, the run is over."""
    if not rotation.touched:
        return _ended(rotation, now_us, limits, random)
    return replace(
        rotation,
        state=RotationState.ROLLING_BACK,
        stage=Stage.ROLL_BACK,
        attempt=0,
        owner="",
        lease_us=None,
        wait_us=now_us,
    )


def undone(rotation: Rotation, now_us: int, limits: RotationLimits, random: Callable[[], float]) -> Rotation:
    """The target does not know the new payload any more."""
    return _ended(rotation, now_us, limits, random)


def _ended(rotation: Rotation, now_us: int, limits: RotationLimits, random: Callable[[], float]) -> Rotation:
    over = replace(rotation, stage=None, attempt=0, owner="", lease_us=None, wait_us=None, touched=False)
    if rotation.cancelled:
        return replace(over, state=RotationState.IDLE, cancelled=False, failures=0, next_us=_after(over, now_us))
    failures = rotation.failures + 1
    delay_us = jitter_us(limits.retry_us, limits.max_retry_us, failures, random)
    return replace(over, state=RotationState.FAILED, failures=failures, wait_us=now_us + delay_us)


def _after(rotation: Rotation, now_us: int) -> int | None:
    """When the next rotation is, once the one that was due is not wanted."""
    if rotation.next_us is None or rotation.next_us > now_us:
        return rotation.next_us
    period_us = rotation.policy.period_us
    return now_us + period_us if period_us is not None else None


def no_more_retries(rotation: Rotation, now_us: int) -> Rotation:
    """FAILED, and not tried again before the next regular time."""
    return replace(rotation, state=RotationState.IDLE, failures=0, wait_us=None, next_us=_after(rotation, now_us))


def asked_for(rotation: Rotation, now_us: int) -> Rotation:
    """Somebody wants it now: a run that waits goes on, an overlap ends, and else the next run is due."""
    if rotation.state in {RotationState.RUNNING, RotationState.ROLLING_BACK}:
        return replace(rotation, wait_us=now_us)
    if rotation.state is RotationState.OVERLAP:
        return replace(rotation, wait_us=now_us, next_us=now_us, noticed_us=now_us)
    return replace(rotation, state=RotationState.IDLE, wait_us=None, next_us=now_us, noticed_us=now_us)


def _stage(rotation: Rotation) -> Stage:
    if rotation.stage is None:
        raise ValueError("no run is under way")
    return rotation.stage
