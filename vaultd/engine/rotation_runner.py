"""Runs rotations: takes what is due, one process at a time, does a stage, and writes down how it went before the next one.

The turn of a process is a lease in the row: owner and end.  It is renewed with each stage, and a stage is ended well before
it, so that whoever takes over after a crash finds nobody at work.  What a process that stood still finds out too late it does
not write: the row says that it is another's turn.
"""

from __future__ import annotations

import asyncio
import os
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

from vaultd import failpoints
from vaultd.engine.clock import SECOND_US
from vaultd.engine.model import SecretState
from vaultd.engine.rotation_model import KIND, UNDER_WAY, Failure, Rotation, RotationState, Stage
from vaultd.engine.rotation_steps import (
    CANCELLED,
    INTERRUPTED,
    RotationLimits,
    about_to_set,
    begin,
    claim,
    done,
    exhausted,
    failed,
    is_due,
    retired,
    undone,
)
from vaultd.engine.rotations import PAUSED, generate_value, put_rotation, unpaused
from vaultd.engine.secret_payloads import unpad_payload
from vaultd.engine.secrets import KIND as SECRET_KIND
from vaultd.engine.secrets import VERSION_KIND
from vaultd.errors import FailedPrecondition, VaultdError
from vaultd.rotators.base import RotatorFailed, Step, Value
from vaultd.secret import Secret
from vaultd.store.base import RowKey

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable

    from vaultd.engine.clock import Clock
    from vaultd.engine.ledger import Changes, Ledger
    from vaultd.engine.model import StoredSecret
    from vaultd.engine.rotations import Rotations
    from vaultd.engine.secrets import Secrets
    from vaultd.store.base import Change

PAUSE_US: Final = 600 * SECOND_US
"""How often somebody looks whether a deleted secret is back."""
MAX_OFFERED: Final = 256
"""Rotations that are worked on, or wait for a place, at once."""
INTENTS: Final = {
    RotationState.ROLLING_BACK: "roll_back_rotation",
    RotationState.OVERLAP: "retire_secret_version",
}
EVENTS: Final = {Stage.RETIRE: "secret_version_retired", Stage.ROLL_BACK: "rotation_rolled_back"}
_WORDS: Final = {
    CANCELLED: "the rotation was cancelled",
    INTERRUPTED: "the server stopped in each attempt of this stage",
    "SECRET_CHANGED": "another version was put in service meanwhile; nothing was retired",
    "OLD_VERSION_IN_SERVICE": "`current` names the old version again: it was not retired; rotate again for another one",
}


@dataclass(frozen=True, slots=True)
class Work:
    """A stage that this process has the lease for.  until_s: monotonic time after which it must not begin."""

    rotation: Rotation
    stage: Stage
    step: Step
    until_s: float


class RotationRunner:
    """Does what is due of rotations.  `offer` is called by the scheduler and by the feed; `close` ends it.

    `on_intent` is told before a run begins, is taken up again, retires or rolls back (event, secret's name); what it raises keeps
    it from being done.  `on_event` is told how it went (event, secret's name, reason), `on_fault` of errors that are ours.
    `random` gives numbers from 0 to 1, for delays.
    """

    def __init__(
        self,
        ledger: Ledger,
        secrets: Secrets,
        rotations: Rotations,
        clock: Clock,
        limits: RotationLimits,
        concurrency: int,
        on_intent: Callable[[str, str], Awaitable[None]],
        on_event: Callable[[str, str, str], None],
        on_fault: Callable[[BaseException], None],
        random: Callable[[], float],
        leads: Callable[[], bool] = lambda: True,
    ) -> None:
        """`leads`: whether this process does what it hears of; else another one that is told of it at the same time does."""
        self._ledger = ledger
        self._secrets = secrets
        self._rotations = rotations
        self._clock = clock
        self._limits = limits
        self._places = asyncio.Semaphore(concurrency)
        self._on_intent = on_intent
        self._on_event = on_event
        self._on_fault = on_fault
        self._random = random
        self._leads = leads
        self._tasks: dict[RowKey, asyncio.Task[None]] = {}
        self._closed = False
        self.owner = os.urandom(8).hex()
        ledger.subscribe(self._hear)

    def __len__(self) -> int:
        """Return the number of rotations that are worked on, or wait for a place."""
        return len(self._tasks)

    # -- coming and going -----------------------------------------------------------------------------------------------

    def _hear(self, changes: Iterable[Change]) -> None:
        for change in changes:
            if change.key.kind == KIND and change.event != "delete" and self._leads():
                self.offer(change.key)

    def offer(self, key: RowKey) -> None:
        """Look at a rotation soon, and do what is due of it.  One that is being looked at already is left alone.

        Where too many wait for a place already nothing happens: the row stays due, and is offered again.
        """
        if self._closed or key in self._tasks or len(self._tasks) >= MAX_OFFERED or not self._ledger.unsealed:
            return
        task = asyncio.get_running_loop().create_task(self._take(key))
        self._tasks[key] = task
        task.add_done_callback(lambda _: self._tasks.pop(key, None))

    async def settle(self) -> None:
        """Wait until nothing is being done."""
        while self._tasks:
            await asyncio.wait(list(self._tasks.values()))

    async def abandon(self) -> list[RowKey]:
        """End what is being done, and write nothing; returns what it was.  Nothing is begun any more."""
        self._closed = True
        held = list(self._tasks)
        for task in list(self._tasks.values()):
            task.cancel()
        await self.settle()
        return held

    async def close(self) -> None:
        """End what is being done, and give the leases back, so that another process need not wait for their end."""
        for key in await self.abandon():
            if self._ledger.unsealed:
                await self._give_back(key)

    async def _give_back(self, key: RowKey) -> None:
        async with self._ledger.change() as changes:
            found = await changes.get(key)
            rotation = found.resource() if found is not None else None
            if rotation is not None and rotation.owner == self.owner:
                freed = replace(rotation, owner="", lease_us=None, wait_us=changes.now_us, attempt=rotation.attempt - 1)
                await put_rotation(changes, freed, keep=True)

    async def _take(self, key: RowKey) -> None:
        """Do all that is due of a rotation, stage after stage."""
        try:
            async with self._places:
                if await self._announce(key):
                    while (work := await self._claim(key)) is not None:
                        await self._do(key, work)
        except VaultdError as error:
            # The row says what is due; it is taken up when it can be read and written again.
            with suppress(VaultdError):  # an audit log that cannot be written says so itself
                self._on_event("rotation_waits", f"vaults/{key.scope}/secrets/{key.id}", error.reason)
        except Exception as error:  # a fault of ours must not vanish with its task
            self._on_fault(error)

    # -- taking the turn ------------------------------------------------------------------------------------------------

    async def _announce(self, key: RowKey) -> bool:
        """Whether something is due.  The intent to do it is recorded first; and notice is given, where that is due."""
        found = await self._ledger.read(key)
        if found is None:
            return False
        rotation: Rotation = found.resource()
        now_us = self._clock.now_us()
        if rotation.notice_due_us is not None and rotation.notice_due_us <= now_us:
            await self._give_notice(key)
        if not is_due(rotation, now_us):
            return False
        await self._on_intent(INTENTS.get(rotation.state, "rotate_secret"), rotation.secret_name)
        return True

    async def _give_notice(self, key: RowKey) -> None:
        async with self._ledger.change() as changes:
            rotation = await self._rotation_in(changes, key)
            due_us = rotation.notice_due_us if rotation is not None else None
            if rotation is None or due_us is None or due_us > changes.now_us:
                return
            await put_rotation(changes, replace(rotation, noticed_us=rotation.next_us), keep=True)
        self._on_event("rotation_notice", rotation.secret_name, "")

    async def _claim(self, key: RowKey) -> Work | None:
        """Take the turn, durably, if something is due and it is nobody else's."""
        begun_s = self._clock.monotonic_s()
        async with self._ledger.change() as changes:
            rotation = await self._rotation_in(changes, key)
            claimed = None
            if rotation is not None and is_due(rotation, changes.now_us):
                claimed = await self._claim_in(changes, key, rotation)
            if claimed is None or claimed.stage is None:
                return None
            failure = claimed.failure
        if rotation is not None and failure is not None and failure != rotation.failure:
            self._on_event("rotation_failed", claimed.secret_name, failure.reason)
        old = await self._version(claimed, claimed.old)
        retires = claimed.stage is Stage.RETIRE
        new = await self._version(claimed, claimed.new) if retires else await self._open(key)
        step = Step(claimed.secret_name, claimed.run_name, old, new, old_lost=bool(claimed.old) and old is None)
        # A stage ends at half of the lease: targets' timeouts are at most that.
        return Work(claimed, claimed.stage, step, begun_s + self._limits.lease_us / SECOND_US / 2)

    async def _claim_in(self, changes: Changes, key: RowKey, rotation: Rotation) -> Rotation | None:
        """The rotation with this process's claim on what is next; None when that is nothing, and the row says so."""
        now_us, limits = changes.now_us, self._limits
        secret = await self._secret_in(changes, key)
        if secret is None:
            await changes.delete(key)
            return None
        rotation = unpaused(rotation)
        if rotation.state is RotationState.OVERLAP:
            late = rotation.failure is not None and rotation.next_us is not None and rotation.next_us <= now_us
            if secret.current != rotation.new:
                # What is in service now is the last thing to make worthless: the old version, or what somebody put in by hand.
                why = "OLD_VERSION_IN_SERVICE" if secret.current == rotation.old else "SECRET_CHANGED"
                failure = Failure(Stage.RETIRE, why, _WORDS[why], now_us)
                await put_rotation(changes, replace(retired(rotation), failure=failure))
                return None
            rotation = retired(rotation) if late else rotation  # the next run sets what could not be retired
        if rotation.state in {RotationState.IDLE, RotationState.FAILED}:
            if secret.state is not SecretState.ACTIVE:
                await put_rotation(changes, replace(rotation, owner=PAUSED, lease_us=now_us + PAUSE_US))
                return None
            rotation = begin(rotation, now_us, secret.current)
        why = exhausted(rotation, limits)
        if why and rotation.stage is not None:
            failure = Failure(rotation.stage, why, _WORDS[why], now_us)
            rotation = failed(rotation, now_us, failure, limits, self._random, lasting=True)
            if rotation.state is not RotationState.ROLLING_BACK:
                await put_rotation(changes, rotation)
                return None
        claimed = claim(rotation, now_us, self.owner, limits)
        claimed = about_to_set(claimed) if claimed.stage is Stage.SET else claimed
        return await put_rotation(changes, claimed, keep=True)

    @staticmethod
    async def _rotation_in(changes: Changes, key: RowKey) -> Rotation | None:
        found = await changes.get(key)
        return found.resource() if found is not None else None

    @staticmethod
    async def _secret_in(changes: Changes, key: RowKey) -> StoredSecret | None:
        found = await changes.get(RowKey(SECRET_KIND, key.scope, key.id, 0))
        secret: StoredSecret | None = found.resource() if found is not None else None
        return secret if secret is not None and secret.state is not SecretState.PURGED else None

    async def _open(self, key: RowKey) -> Secret | None:
        """The sealed material of a row, whatever its state, as long as it is there."""
        found = await self._ledger.read(key)
        return (
            self._ledger.sealer.open_secret(found.row) if found is not None and found.row.secret is not None else None
        )

    async def _version(self, rotation: Rotation, number: int) -> Secret | None:
        """The payload of a version, whatever its state, as long as it is there."""
        padded = await self._open(RowKey(VERSION_KIND, rotation.vault, rotation.id, number)) if number else None
        return Secret(unpad_payload(padded.expose("read by the rotator"))) if padded is not None else None

    # -- one stage ------------------------------------------------------------------------------------------------------

    async def _do(self, key: RowKey, work: Work) -> None:
        """Do a stage, and write down how it went."""
        if self._clock.monotonic_s() > work.until_s:
            return  # this process stood still: the turn may be another's by now
        stage = work.stage.value.lower()
        try:
            value = await self._act(work)
            failpoints.hit(f"rotation.{stage}.acted")
            event, reason = await self._succeed(key, work, value), ""
        except RotatorFailed as failure:
            failpoints.hit(f"rotation.{stage}.acted")
            event, reason = await self._fail(key, work, failure), failure.reason
        failpoints.hit(f"rotation.{stage}.recorded")
        if event:
            self._on_event(event, work.rotation.secret_name, reason)

    async def _act(self, work: Work) -> Value | None:
        """What a stage does outside of the vault.  Raises RotatorFailed."""
        rotation, stage, step = work.rotation, work.stage, work.step
        if stage is Stage.PROMOTE:
            return Value(step.new, rotation.content_type, rotation.metadata) if step.new is not None else None
        if not rotation.policy.target:
            return await generate_value(rotation) if stage is Stage.CREATE else None
        target = self._rotations.target(rotation)
        if target is None:
            raise RotatorFailed(
                "TARGET_UNKNOWN",
                "the configuration does not name the target, or not for this secret: see rotation.targets",
                lasting=True,
                untouched=True,
            )
        rotator = target.rotator
        acts = {
            Stage.SET: rotator.set,
            Stage.TEST: rotator.test,
            Stage.RETIRE: rotator.retire,
            Stage.ROLL_BACK: rotator.roll_back,
        }
        try:
            async with asyncio.timeout(rotator.timeout_s):
                if stage is Stage.CREATE:
                    return await rotator.create(step, lambda: generate_value(rotation))
                await acts[stage](step)
                return None
        except TimeoutError:
            raise RotatorFailed("TIMED_OUT", "the stage took longer than the target's timeout_s") from None

    async def _succeed(self, key: RowKey, work: Work, value: Value | None) -> str:
        """Write down that a stage is done, if it still is this process's turn; gives the event, if it is one.

        Raises RotatorFailed.
        """
        stage = work.stage
        try:
            async with self._ledger.change() as changes:
                rotation = await self._mine(changes, key, work)
                if rotation is None:
                    return ""
                secret = await self._secret_in(changes, key)
                promotes = stage is Stage.PROMOTE or (stage is Stage.CREATE and not rotation.policy.target)
                if promotes:
                    await self._promote_in(changes, rotation, secret, value)
                elif stage is Stage.RETIRE:
                    await self._rotations.retire_in(changes, rotation, secret)
                elif stage is Stage.ROLL_BACK:
                    await put_rotation(changes, undone(rotation, changes.now_us, self._limits, self._random))
                else:
                    await put_rotation(changes, done(rotation, changes.now_us), value=value, keep=True)
        except FailedPrecondition as error:
            raise RotatorFailed(error.reason, error.text, lasting=True) from None
        return "secret_rotated" if promotes else EVENTS.get(stage, "")

    async def _promote_in(
        self, changes: Changes, rotation: Rotation, secret: StoredSecret | None, value: Value | None
    ) -> None:
        """The point of no return: the version is added and in service, and the rotation knows it, in one transaction."""
        if rotation.cancelled:
            raise RotatorFailed(CANCELLED, _WORDS[CANCELLED], lasting=True)
        if value is None:
            raise RotatorFailed("VALUE_MISSING", "the new payload is not there any more; rotate again", lasting=True)
        if secret is None or secret.state is not SecretState.ACTIVE:
            raise RotatorFailed("SECRET_DELETED", "the secret was deleted meanwhile", lasting=True)
        if secret.current != rotation.old:
            raise RotatorFailed("SECRET_CHANGED", "another version was put in service meanwhile", lasting=True)
        await self._rotations.replace_in(changes, secret, rotation, value)

    async def _fail(self, key: RowKey, work: Work, failure: RotatorFailed) -> str:
        """Write down that an attempt failed, if it still is this process's turn; gives the event: of the run, or of the attempt."""
        async with self._ledger.change() as changes:
            rotation = await self._mine(changes, key, work)
            if rotation is None:
                return ""
            after = failed(
                rotation,
                changes.now_us,
                Failure(work.stage, failure.reason, failure.text, changes.now_us),
                self._limits,
                self._random,
                lasting=failure.lasting,
                untouched=failure.untouched,
            )
            await put_rotation(changes, after, keep=after.state in UNDER_WAY)
        if after.state is rotation.state:
            return "rotation_attempt_failed"
        return "rotation_failed" if rotation.state is RotationState.RUNNING else "rotation_roll_back_failed"

    async def _mine(self, changes: Changes, key: RowKey, work: Work) -> Rotation | None:
        """The stored rotation, if it still is this process's turn with this very attempt."""
        rotation = await self._rotation_in(changes, key)
        claimed = work.rotation
        if rotation is None or rotation.owner != self.owner:
            return None
        at, claimed_at = ((r.run_name, r.stage, r.attempt) for r in (rotation, claimed))
        return rotation if at == claimed_at else None
