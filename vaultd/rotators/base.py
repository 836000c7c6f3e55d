"""What a rotator is: it changes one credential in another system, stage by stage.

    create -> set -> test -> promote -> retire          promote is the vault's own; the others are calls of a rotator
                 \\-> roll_back

Every stage may be called again, with the same step, after any outcome of the last call: a node that died in between cannot
know how far it got.  A stage that was done already must succeed again.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

    from vaultd.secret import Secret


class RotatorFailed(Exception):
    """A stage could not be done.

    reason: stable, UPPER_SNAKE, documented in docs/rotation.md.  text: what to look at, without anything secret and without
    words of the other system.  lasting: trying the stage again is pointless until somebody acts.  untouched: the other system
    is certainly as it was before this call.
    """

    def __init__(self, reason: str, text: str, *, lasting: bool = False, untouched: bool = False) -> None:
        super().__init__(text)
        self.reason = reason
        self.text = text
        self.lasting = lasting
        self.untouched = untouched


@dataclass(frozen=True, slots=True)
class Value:
    """What a version of a secret is made of: its payload, and what may be known of it."""

    payload: Secret
    content_type: str = ""
    metadata: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Step:
    """One call of a rotator.

    secret: full name of the secret.  run: names the rotation, the same in all its stages and attempts, never used again.
    old: what the vault served when the rotation began; None when the secret had nothing yet, or with `old_lost` when that was
    destroyed.  new: what it will serve; None in `create` only.
    """

    secret: str
    run: str
    old: Secret | None
    new: Secret | None
    old_lost: bool = False


class Rotator(Protocol):
    """Changes the credential of one target.  Every method raises RotatorFailed, and ends when it is cancelled."""

    @property
    def timeout_s(self) -> float:
        """How long one stage may take; the caller ends it then."""
        ...

    @property
    def passwords_only(self) -> bool:
        """Whether a value must be printable ASCII on one line."""
        ...

    async def create(self, step: Step, generate: Callable[[], Awaitable[Value]]) -> Value:
        """What the vault will serve, made with a generated value; the vault stores it before anything else."""
        ...

    async def set(self, step: Step) -> None:
        """Make the target accept the new payload.  The old one goes on working."""
        ...

    async def test(self, step: Step) -> None:
        """Use the new payload as its users will."""
        ...

    async def retire(self, step: Step) -> None:
        """Make the old payload worthless.  The vault serves the new one already."""
        ...

    async def roll_back(self, step: Step) -> None:
        """Make the new payload worthless, whether or not it was set.  The old one goes on working."""
        ...
