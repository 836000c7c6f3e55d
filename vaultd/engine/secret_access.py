"""Access to payloads: which version a name means, whether it is given out, and how: plain, sealed to a key, or not again."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, NamedTuple

from vaultd.backends.base import Operation, OpKind
from vaultd.engine.secret_payloads import delivery_info, recipient_key
from vaultd.engine.turns import ITEMS_PER_LOOK, BulkLane
from vaultd.errors import ResourceExhausted, VaultdError
from vaultd.names import parse_secret_or_version_name
from vaultd.secret import Secret

if TYPE_CHECKING:
    from collections.abc import Sequence

    from vaultd.backends.base import Backend, Handle
    from vaultd.engine.clock import Clock
    from vaultd.engine.ledger import Ledger
    from vaultd.engine.secret_catalog import HeldVersion, SecretCatalog
    from vaultd.names import SecretRef

DELIVERY_ALGORITHM: Final = "HPKE_X25519"
ANSWER_BYTES: Final = 4 * 1024 * 1024
"""What a message holds: a batch opens no payload that would not fit."""


class AccessItem(NamedTuple):
    """One access: a validated name, the full name of the version that the caller has or an empty one, and for a sealed answer
    the recipient's raw X25519 public key, and a context."""

    name: str
    unless: str = ""
    recipient: bytes = b""
    context: bytes = b""


Accessed = tuple["HeldVersion", "Secret | None", "bytes | None"]
"""The version, and its payload: plain or sealed, or neither when the caller has it.  Bare, since batches make many."""


class SecretAccess:
    """Gives out payloads.  Raises NotFound, FailedPrecondition (state, expiry), DataLoss, Unavailable."""

    def __init__(
        self, catalog: SecretCatalog, ledger: Ledger, clock: Clock, software: Backend, lane: BulkLane | None = None
    ) -> None:
        self._catalog = catalog
        self._ledger = ledger
        self._clock = clock
        self._software = software
        self._lane = lane or BulkLane()

    async def access(self, item: AccessItem, deadline: float | None) -> Accessed:
        """One payload.  What is in memory is given out without asking the store."""
        name, unless, recipient, context = item
        catalog = self._catalog
        catalog.lookups += 1
        version = catalog.cached.get(name)
        if version is None:
            version = await catalog.load(parse_secret_or_version_name(name))
        payload = self._give(version, unless, self._clock.now_us())
        if payload is None or not recipient:
            return version, payload, None
        handle = self._software.load_public(DELIVERY_ALGORITHM, recipient_key(recipient))
        work = _delivery(name, version, payload, context)
        return version, None, await self._software.use(handle, work, deadline)

    async def access_many(
        self, items: Sequence[AccessItem], deadline: float | None, room: int = ANSWER_BYTES
    ) -> list[Accessed | VaultdError]:
        """Like `access` for each item; an item's error takes its place.  Beyond `room` bytes, payloads are not opened."""
        answers: list[Any] = [None] * len(items)
        sealing: list[tuple[int, Handle, Operation]] = []
        handles: dict[bytes, Handle] = {}
        self._catalog.lookups += len(items)
        # The time and the seal are looked at after each await, and not for each item.
        ledger, cached, now_us = self._ledger, self._catalog.cached, self._clock.now_us()
        lane, next_look = self._lane, ITEMS_PER_LOOK
        ledger.require_unsealed()
        for at, (name, unless, recipient, context) in enumerate(items):
            if at == next_look:
                next_look += ITEMS_PER_LOOK
                if lane.over():
                    await lane.next_turn()
                    now_us = self._clock.now_us()
                    ledger.require_unsealed()
            try:
                version = cached.get(name)
                if version is None:
                    version = await self._catalog.load(parse_secret_or_version_name(name))
                    now_us = self._clock.now_us()
                    ledger.require_unsealed()
                if room < version.answer_bytes:
                    raise ResourceExhausted("ANSWER_TOO_LARGE", "ANSWER_TOO_LARGE")
                if not version.enabled or now_us >= version.expire_us:
                    version.require_given_out(now_us)
                if unless and unless == version.name:
                    answers[at] = (version, None, None)
                    room -= len(version.description)
                    continue
                payload = Secret(version.open())
                answers[at] = (version, payload, None)
                room -= version.answer_bytes
                if recipient:
                    handle = handles.get(recipient)
                    if handle is None:
                        key = recipient_key(recipient)
                        handle = handles[recipient] = self._software.load_public(DELIVERY_ALGORITHM, key)
                    sealing.append((at, handle, _delivery(name, version, payload, context)))
            except VaultdError as error:
                # Without its traceback, which holds this frame: as in transit.
                error.__context__ = error.__traceback__ = None
                answers[at] = error
        if sealing:
            await self._seal(sealing, answers, deadline)
        return answers

    async def _seal(
        self, sealing: list[tuple[int, Handle, Operation]], answers: list[Any], deadline: float | None
    ) -> None:
        outcomes: Sequence[bytes | VaultdError]
        try:
            outcomes = await self._software.use_many([(handle, work) for _, handle, work in sealing], deadline)
        except VaultdError as error:
            outcomes = [error] * len(sealing)
        for (at, _, _), outcome in zip(sealing, outcomes, strict=True):
            failed = isinstance(outcome, VaultdError)
            answers[at] = outcome if failed else (answers[at][0], None, outcome)

    def _give(self, version: HeldVersion, unless: str, now_us: int) -> Secret | None:
        """Decide, and open; None when the caller has it.

        No await comes between the decision and the payload, and nothing is opened once the vault is sealed.
        """
        version.require_given_out(now_us)
        self._ledger.require_unsealed()
        return Secret(version.open()) if unless != version.name else None

    async def explain(self, ref: SecretRef) -> str:
        """The state of a secret and of the version that a name means, or why it would not be given out."""
        try:
            version = await self._catalog.load(ref)
        except VaultdError as error:
            return f"{error.reason}: {error.text}"
        refusal = version.refusal(self._clock.now_us())
        if refusal is not None:
            return f"{refusal.reason}: {refusal.text}"
        return f"ACTIVE, version {version.version.number} {version.version.state.value}"


def _delivery(asked: str, version: HeldVersion, payload: Secret, context: bytes) -> Operation:
    """Sealing of a payload that was opened, to the caller's key."""
    info = delivery_info(asked, version.name, context)
    return Operation(OpKind.ENCRYPT, payload.expose("sealed to the caller's key"), info)
