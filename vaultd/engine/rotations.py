"""Rotations of secrets as callers see them: policies, and runs that are asked for or called off.

Every mutation is atomic and durable when it returns, and safe to retry with a request id.  What a run does to its target is
`rotation_runner.py`; a run of a secret without a target is one transaction, here.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

from vaultd.engine.etags import check_etag
from vaultd.engine.generators import check_rules, generate, makes_passwords
from vaultd.engine.rotation_model import KIND, UNDER_WAY, Rotation, RotationPolicy, RotationState
from vaultd.engine.rotation_steps import asked_for, begin, no_more_retries, promoted, retired
from vaultd.engine.secrets import NewVersion
from vaultd.errors import FailedPrecondition, InvalidArgument, NotFound
from vaultd.names import SecretRef
from vaultd.store.base import RowKey

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from vaultd.engine.clock import Clock
    from vaultd.engine.ledger import Changes, Intent, Ledger
    from vaultd.engine.model import StoredSecret
    from vaultd.engine.secrets import Secrets
    from vaultd.rotators.base import Rotator, Value

MIN_PERIOD_US: Final = 3600 * 1_000_000
MAX_PERIOD_US: Final = 36_525 * 86_400 * 1_000_000
MAX_OVERLAP_US: Final = 30 * 86_400 * 1_000_000
PAUSED: Final = "deleted"
"""Stands as the owner of a rotation whose secret is soft-deleted."""


@dataclass(frozen=True, slots=True)
class RotationTarget:
    """A target of the configuration.  secrets: full names, or names of vaults, that may be rotated there."""

    name: str
    secrets: frozenset[str]
    rotator: Rotator

    def takes(self, ref: SecretRef) -> bool:
        """Whether the configuration allows a secret to be rotated here."""
        return ref.secret_name in self.secrets or f"vaults/{ref.vault}" in self.secrets


def rotation_key(ref: SecretRef) -> RowKey:
    """Where the rotation of a secret is."""
    return RowKey(KIND, ref.vault, ref.secret, 0)


def not_configured() -> NotFound:
    """The error for a secret without a rotation policy."""
    return NotFound("ROTATION_NOT_FOUND", "the secret has no rotation policy; call SetRotationPolicy first")


class Rotations:
    """Policies of rotations, and what people ask of a run."""

    def __init__(self, ledger: Ledger, secrets: Secrets, targets: Sequence[RotationTarget], clock: Clock) -> None:
        self._ledger = ledger
        self._secrets = secrets
        self._targets: Mapping[str, RotationTarget] = {target.name: target for target in targets}
        self._clock = clock

    def target(self, rotation: Rotation) -> RotationTarget | None:
        """The target of a rotation, if the configuration still names it and still allows it."""
        target = self._targets.get(rotation.policy.target)
        return target if target is not None and target.takes(SecretRef(rotation.vault, rotation.id)) else None

    # -- reading --------------------------------------------------------------------------------------------------------

    async def get(self, ref: SecretRef) -> Rotation:
        """Read the rotation of a secret; raises NotFound."""
        found = await self._ledger.read(rotation_key(ref))
        if found is None:
            await self._secrets.get(ref)
            raise not_configured()
        return found.resource()  # type: ignore[no-any-return]  # a row of kind `rotation` holds a Rotation

    async def list(self, vault: str, after: str, limit: int, states: Sequence[RotationState]) -> list[Rotation]:
        """Read rotations by the id of their secret, after one, those in some states or all."""
        names = tuple(state.value for state in (states or tuple(RotationState)))
        return [row.resource() for row in await self._ledger.list(KIND, vault, after, limit, names)]

    # -- policies -------------------------------------------------------------------------------------------------------

    async def set_policy(
        self, intent: Intent, ref: SecretRef, policy: RotationPolicy, next_us: int | None, etag: str = ""
    ) -> Rotation:
        """Create or replace the policy of a secret.

        Raises InvalidArgument, NotFound for the secret, FailedPrecondition while a run is under way that another target or
        generator would confuse.
        """
        known, answer = await self._ledger.answered(intent)
        if known:
            return answer  # type: ignore[no-any-return]  # what set_policy stored
        self._check_policy(ref, policy)
        await asyncio.to_thread(check_rules, policy.rules)
        if next_us is not None and next_us <= self._clock.now_us():
            raise InvalidArgument(
                "ROTATION_TIME_PAST", "next_rotation_time must be in the future", field="policy.next_rotation_time"
            )

        async def body(changes: Changes) -> Rotation:
            secret = await self._secrets.active_in(changes, ref)
            found = await changes.get(rotation_key(ref))
            new = Rotation(ref.vault, ref.secret, secret.uid, policy, changes.now_us, changes.now_us)
            before: Rotation = found.resource() if found is not None else new
            check_etag(etag, before.etag)
            changed = (policy.target, policy.rules) != (before.policy.target, before.policy.rules)
            if changed and before.state in UNDER_WAY:
                raise FailedPrecondition(
                    "ROTATION_UNDER_WAY",
                    "a rotation is under way; let it end, or call CancelRotation, before target or generator change",
                )
            after_period = changes.now_us + policy.period_us if policy.period_us is not None else None
            after = replace(
                before,
                policy=policy,
                next_us=next_us if next_us is not None else after_period,
                noticed_us=None,
                update_us=changes.now_us,
                policy_revision=changes.revision,
            )
            return await put_rotation(changes, after, keep=True)

        return await self._ledger.mutate(intent, body)

    async def remove_policy(self, intent: Intent, ref: SecretRef, etag: str = "") -> None:
        """Forget the policy of a secret.  Raises NotFound, FailedPrecondition while a run is under way."""

        async def body(changes: Changes) -> None:
            rotation = await self._rotation_in(changes, ref)
            check_etag(etag, rotation.etag)
            if rotation.state in UNDER_WAY:
                raise FailedPrecondition(
                    "ROTATION_UNDER_WAY", "a rotation is under way; let it end, or call CancelRotation first"
                )
            await changes.delete(rotation_key(ref))

        await self._ledger.mutate(intent, body)

    def _check_policy(self, ref: SecretRef, policy: RotationPolicy) -> None:
        period_us, notice_us, overlap_us = policy.period_us, policy.notice_us, policy.overlap_us
        if period_us is not None and not MIN_PERIOD_US <= period_us <= MAX_PERIOD_US:
            raise InvalidArgument(
                "ROTATION_PERIOD_RANGE", "rotation_period must be 1 hour to 100 years", field="policy.rotation_period"
            )
        if notice_us is not None and not 0 < notice_us <= (MAX_PERIOD_US if period_us is None else period_us):
            raise InvalidArgument(
                "ROTATION_NOTICE_RANGE",
                "notice_period must be more than nothing, and at most rotation_period",
                field="policy.notice_period",
            )
        if overlap_us is not None and not 0 <= overlap_us <= min(MAX_OVERLAP_US, period_us or MAX_OVERLAP_US):
            raise InvalidArgument(
                "ROTATION_OVERLAP_RANGE",
                "overlap must be at most 30 days, and at most rotation_period",
                field="policy.overlap",
            )
        if not policy.target:
            return
        target = self._targets.get(policy.target)
        if target is None or not target.takes(ref):
            # One text for both: what targets there are is nobody's business who may not use them.
            raise FailedPrecondition(
                "ROTATION_TARGET",
                "the configuration has no target of this name for this secret; the operator names it in rotation.targets",
                field="policy.target",
            )
        if target.rotator.passwords_only and not makes_passwords(policy.rules):
            raise InvalidArgument(
                "GENERATOR_RULES", "this target takes passwords, or encoded random bytes", field="policy.generator"
            )

    # -- runs -----------------------------------------------------------------------------------------------------------

    async def rotate(self, intent: Intent, ref: SecretRef) -> Rotation:
        """Rotate now.

        Without a target it is done when this returns.  With one, the run is due, durably, and this node begins it at once; a run
        that waits for its next attempt goes on.  Raises NotFound, FailedPrecondition.
        """
        known, answer = await self._ledger.answered(intent)
        if known:
            return answer  # type: ignore[no-any-return]  # what rotate stored
        rotation = await self.get(ref)
        value = await generate_value(rotation) if not rotation.policy.target else None

        async def body(changes: Changes) -> Rotation:
            secret = await self._secrets.active_in(changes, ref)
            now = await self._rotation_in(changes, ref)
            if value is None or now.policy.target:  # either may have changed since the value was made
                if now.state in {RotationState.RUNNING, RotationState.ROLLING_BACK} and now.wait_us is None:
                    raise FailedPrecondition(
                        "ROTATION_UNDER_WAY", "a rotation is under way; ListRotations shows how far it is"
                    )
                return await put_rotation(changes, unpaused(asked_for(now, changes.now_us)), keep=True)
            if now.state is RotationState.OVERLAP and now.old != secret.current:
                await self._secrets.disable_in(changes, secret, now.old)
            return await self.replace_in(changes, secret, now, value)

        return await self._ledger.mutate(intent, body)

    async def replace_in(self, changes: Changes, secret: StoredSecret, rotation: Rotation, value: Value) -> Rotation:
        """The value is the next version, in service: the promotion of a run, or a whole one of a secret without a target."""
        if rotation.state is not RotationState.RUNNING:
            rotation = begin(rotation, changes.now_us, secret.current)
        new = NewVersion(value.payload, value.content_type, value.metadata)
        secret, version = await self._secrets.put_version_in(changes, secret, new)
        await self._secrets.put_in(changes, secret)
        return await put_rotation(changes, promoted(rotation, changes.now_us, version.number))

    async def retire_in(self, changes: Changes, rotation: Rotation, secret: StoredSecret | None) -> Rotation:
        """The old version is worthless: it is not given out any more, unless somebody took it back into service."""
        if secret is not None and rotation.old and rotation.old != secret.current:
            await self._secrets.disable_in(changes, secret, rotation.old)
        return await put_rotation(changes, retired(rotation))

    async def cancel(self, intent: Intent, ref: SecretRef) -> Rotation:
        """Call off a run that has not promoted yet, which undoes it, or the retries of one that was undone.

        Where there is nothing to call off nothing changes.  Raises NotFound, FailedPrecondition when it is too late.
        """

        async def body(changes: Changes) -> Rotation:
            rotation = await self._rotation_in(changes, ref)
            if rotation.state is RotationState.FAILED:
                return await put_rotation(changes, no_more_retries(rotation, changes.now_us))
            if rotation.state is RotationState.OVERLAP:
                raise FailedPrecondition(
                    "ROTATION_PROMOTED",
                    "the new version is in service already; RotateSecret replaces it by another one",
                )
            if rotation.state is not RotationState.RUNNING:
                return rotation
            called_off = replace(rotation, cancelled=True)
            if not rotation.owner:
                called_off = replace(called_off, wait_us=changes.now_us)
            return await put_rotation(changes, called_off, keep=True)

        return await self._ledger.mutate(intent, body)

    @staticmethod
    async def _rotation_in(changes: Changes, ref: SecretRef) -> Rotation:
        found = await changes.get(rotation_key(ref))
        if found is None:
            raise not_configured()
        return found.resource()  # type: ignore[no-any-return]  # a row of kind `rotation` holds a Rotation


async def put_rotation(
    changes: Changes, rotation: Rotation, *, value: Value | None = None, keep: bool = False
) -> Rotation:
    """Write a rotation.  Its new payload is `value`'s; or with `keep` what is there; or there is none."""
    if value is not None:
        rotation = replace(rotation, content_type=value.content_type, metadata=dict(value.metadata))
    elif not keep:
        rotation = replace(rotation, content_type="", metadata={})
    secret = value.payload if value is not None else None
    return await changes.put_resource(KIND, rotation, secret=secret, keep_secret=keep)


async def generate_value(rotation: Rotation) -> Value:
    """A fresh value by the policy's rules.  In a thread: some take their time."""
    return await asyncio.to_thread(generate, rotation.policy.rules)


def unpaused(rotation: Rotation) -> Rotation:
    """Not waiting any more for its secret to be undeleted."""
    return replace(rotation, owner="", lease_us=None) if rotation.owner == PAUSED else rotation
