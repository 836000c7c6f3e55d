"""The rotation of a secret: its policy, and where the run of the moment stands.  Times are microseconds, UTC.

One row of the store per secret that has a policy, beside the secret.  The row's sealed material is the payload that a run has
made and the vault does not serve yet; when the run ends, either way, it goes.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum
from typing import TYPE_CHECKING, Any, Final

from vaultd.engine.clock import SECOND_US
from vaultd.engine.generators import (
    BytesEncoding,
    GeneratorRules,
    KeyPairRules,
    KeyPairType,
    PasswordRules,
    RandomBytesRules,
)
from vaultd.store.base import RowKey

if TYPE_CHECKING:
    from collections.abc import Mapping

    from vaultd.engine.ledger import Changes

KIND: Final = "rotation"
DEFAULT_OVERLAP_US: Final = 3600 * SECOND_US
"""Long enough for clients that ask for the secret now and then instead of watching it."""


class RotationState(Enum):
    """Where a rotation stands.

    IDLE: nothing is under way.  RUNNING: a run has not promoted yet.  ROLLING_BACK: a run that failed or was cancelled is being
    undone.  OVERLAP: the new version is served, and the old one works until it is retired.  FAILED: the last run was undone, and
    the next one begins by itself.
    """

    IDLE = "IDLE"
    RUNNING = "RUNNING"
    ROLLING_BACK = "ROLLING_BACK"
    OVERLAP = "OVERLAP"
    FAILED = "FAILED"


class Stage(Enum):
    """What a run does next, in this order; ROLL_BACK instead of what was left when it fails before PROMOTE is done."""

    CREATE = "CREATE"
    SET = "SET"
    TEST = "TEST"
    PROMOTE = "PROMOTE"
    RETIRE = "RETIRE"
    ROLL_BACK = "ROLL_BACK"


UNDER_WAY: Final = frozenset({RotationState.RUNNING, RotationState.ROLLING_BACK, RotationState.OVERLAP})


@dataclass(frozen=True, slots=True)
class Failure:
    """Why an attempt failed: at which stage, a stable reason, and what to look at."""

    stage: Stage
    reason: str
    text: str
    at_us: int


@dataclass(frozen=True, slots=True)
class RotationPolicy:
    """When a secret rotates, with what, and where.

    period_us: None is by hand only.  notice_us: how long before its time a rotation is announced.  overlap_us: how long the old
    version is served beside the new one, before it is retired; None is DEFAULT_OVERLAP_US with a target, and for ever without.
    target: name of one of the configuration's; empty when nothing but the vault has to know the value.
    """

    rules: GeneratorRules = field(default_factory=PasswordRules)
    target: str = ""
    period_us: int | None = None
    notice_us: int | None = None
    overlap_us: int | None = None

    @property
    def retire_after_us(self) -> int | None:
        """How long after the promotion the old version is retired; None is never."""
        if self.overlap_us is None and self.target:
            return DEFAULT_OVERLAP_US
        return self.overlap_us


@dataclass(frozen=True, slots=True)
class Rotation:
    """A secret's rotation.

    run: number of the newest run.  run_name: its name, random: not used again, not even for another policy or after a restore.
    attempt: attempts of the stage that began.  failures: runs in a row that were undone.
    wait_us: nothing is done before, whoever looks.  owner, lease_us: the process whose turn it is, and until when.
    touched: whether the target may know the new payload; trying: whether the attempt under way may tell it.
    old, new: versions of the secret, 0 for none.  noticed_us: for which time notice was given.
    content_type, metadata: of the new payload.
    """

    vault: str
    id: str
    uid: bytes
    policy: RotationPolicy
    create_us: int
    update_us: int
    state: RotationState = RotationState.IDLE
    stage: Stage | None = None
    run: int = 0
    run_name: str = ""
    attempt: int = 0
    failures: int = 0
    next_us: int | None = None
    wait_us: int | None = None
    owner: str = ""
    lease_us: int | None = None
    touched: bool = False
    trying: bool = False
    cancelled: bool = False
    old: int = 0
    new: int = 0
    begin_us: int | None = None
    promote_us: int | None = None
    noticed_us: int | None = None
    failure: Failure | None = None
    content_type: str = ""
    metadata: Mapping[str, str] = field(default_factory=dict)
    policy_revision: int = 0
    revision: int = 0

    @property
    def name(self) -> str:
        return f"{self.secret_name}/rotation"

    @property
    def secret_name(self) -> str:
        return f"vaults/{self.vault}/secrets/{self.id}"

    @property
    def etag(self) -> str:
        """Changes with the policy only: what a run does is no conflict."""
        return f'"{self.policy_revision}"'

    @property
    def notice_due_us(self) -> int | None:
        """When notice of the next rotation is to be given; None when there is none, or it was given."""
        if self.next_us is None or self.policy.notice_us is None or self.noticed_us == self.next_us:
            return None
        return self.next_us - self.policy.notice_us

    @property
    def due_us(self) -> int | None:
        """When somebody must look at this rotation again; None is never."""
        if self.owner:
            return self.lease_us
        if self.state is RotationState.IDLE:
            times = (self.next_us, self.notice_due_us)
        elif self.state is RotationState.FAILED:
            times = (self.wait_us, None)
        else:
            return self.wait_us
        return min((time for time in times if time is not None), default=None)


async def drop_rotation(changes: Changes, vault: str, id: str) -> None:
    """A secret is purged: its rotation goes in the same change."""
    key = RowKey(KIND, vault, id, 0)
    if await changes.get(key) is not None:
        await changes.delete(key)


def encode_rotation(rotation: Rotation) -> dict[str, Any]:
    """JSON-ready values."""
    values: dict[str, Any] = {"type": KIND}
    for name in rotation.__dataclass_fields__:
        value = getattr(rotation, name)
        if name == "uid":
            values[name] = value.hex()
        elif name == "policy":
            values[name] = encode_policy(value)
        elif name == "failure":
            values[name] = value and {
                "stage": value.stage.value,
                "reason": value.reason,
                "text": value.text,
                "at_us": value.at_us,
            }
        else:
            values[name] = value.value if isinstance(value, Enum) else value
    return values


def decode_rotation(values: Mapping[str, Any]) -> Rotation:
    """Rebuild what encode_rotation took apart.  Fields that a later release added take their defaults."""
    fields = {name: values[name] for name in Rotation.__dataclass_fields__ if name in values}
    fields["uid"] = bytes.fromhex(fields["uid"])
    fields["policy"] = _decode_policy(fields["policy"])
    fields["state"] = RotationState(fields["state"])
    fields["stage"] = Stage(fields["stage"]) if fields["stage"] else None
    failure = fields["failure"]
    fields["failure"] = failure and Failure(**{**failure, "stage": Stage(failure["stage"])})
    return Rotation(**fields)


def encode_policy(policy: RotationPolicy) -> dict[str, Any]:
    """JSON-ready values."""
    rules = policy.rules
    if isinstance(rules, PasswordRules):
        coded: dict[str, Any] = {"length": rules.length, "least": dict(rules.least), "excluded": rules.excluded}
        kind = "password"
    elif isinstance(rules, RandomBytesRules):
        coded, kind = {"length": rules.length, "encoding": rules.encoding.value}, "random_bytes"
    else:
        coded, kind = {"type": rules.type.value}, "key_pair"
    return {
        "rules": {"kind": kind, **coded},
        "target": policy.target,
        "period_us": policy.period_us,
        "notice_us": policy.notice_us,
        "overlap_us": policy.overlap_us,
    }


def _decode_policy(values: Mapping[str, Any]) -> RotationPolicy:
    coded = dict(values["rules"])
    kind = coded.pop("kind")
    if kind == "password":
        rules: GeneratorRules = PasswordRules(**coded)
    elif kind == "random_bytes":
        rules = RandomBytesRules(coded["length"], BytesEncoding(coded["encoding"]))
    else:
        rules = KeyPairRules(KeyPairType(coded["type"]))
    fields = {name: values[name] for name in RotationPolicy.__dataclass_fields__ if name in values}
    return RotationPolicy(**{**fields, "rules": rules})
