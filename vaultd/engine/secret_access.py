"""Access to payloads: which version a name means, whether it is given out, and how: plain, sealed to a key, or not again."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from vaultd.backends.base import Operation, OpKind
from vaultd.engine.sealing import row_lost
from vaultd.engine.secret_payloads import delivery_info, recipient_key, unpad_payload
from vaultd.engine.secrets import VERSION_KIND
from vaultd.errors import ResourceExhausted, VaultdError
from vaultd.secret import Secret
from vaultd.store.base import RowKey

if TYPE_CHECKING:
    from collections.abc import Sequence

    from vaultd.backends.base import Backend, Handle
    from vaultd.engine.clock import Clock
    from vaultd.engine.ledger import Ledger
    from vaultd.engine.secret_catalog import HeldVersion, SecretCatalog
    from vaultd.names import SecretRef

DELIVERY_ALGORITHM: Final = "HPKE_X25519"
FAIRNESS_ITEMS: Final = 250
"""Items of a batch between two turns of the event loop."""
ANSWER_BYTES: Final = 4 * 1024 * 1024
"""What a message holds: a batch opens no payload that would not fit."""


class AccessItem(NamedTuple):
    """One access.  `recipient` is a raw X25519 public key, or empty for a plain answer."""

    ref: SecretRef
    unless: str = ""
    """Full name of the version that the caller has."""
    recipient: bytes = b""
    context: bytes = b""


class Accessed(NamedTuple):
    """The version, and its payload: plain or sealed, or neither when the caller has it."""

    version: HeldVersion
    payload: Secret | None = None
    sealed: bytes | None = None


class SecretAccess:
    """Gives out payloads.  Raises NotFound, FailedPrecondition (state, expiry), DataLoss, Unavailable."""

    def __init__(self, catalog: SecretCatalog, ledger: Ledger, clock: Clock, software: Backend) -> None:
        self._catalog = catalog
        self._ledger = ledger
        self._clock = clock
        self._software = software

    async def access(self, item: AccessItem, deadline: float | None) -> Accessed:
        """One payload.  What is in memory is given out without asking the store."""
        version = self._catalog.cached(item.ref) or await self._catalog.load(item.ref)
        found = self._give(item, version, self._clock.now_us())
        if not item.recipient or found.payload is None:
            return found
        handle = self._software.load_public(DELIVERY_ALGORITHM, recipient_key(item.recipient))
        return Accessed(version, None, await self._software.use(handle, _delivery(item, found), deadline))

    async def access_many(
        self, items: Sequence[AccessItem], deadline: float | None, room: int = ANSWER_BYTES
    ) -> list[Accessed | VaultdError]:
        """Like `access` for each item; an item's error takes its place.  Beyond `room` bytes, payloads are not opened."""
        answers: list[Any] = [None] * len(items)
        sealing: list[tuple[int, Handle, Operation]] = []
        handles: dict[bytes, Handle] = {}
        cached, now_us = self._catalog.cached, self._clock.now_us()
        next_turn = FAIRNESS_ITEMS
        for at, item in enumerate(items):
            if at == next_turn:
                next_turn += FAIRNESS_ITEMS
                await asyncio.sleep(0)
                now_us = self._clock.now_us()
            try:
                version = cached(item.ref)
                if version is None:
                    version = await self._catalog.load(item.ref)
                    now_us = self._clock.now_us()
                if room < version.version.payload_bytes:
                    raise ResourceExhausted("ANSWER_TOO_LARGE", "ANSWER_TOO_LARGE")
                found = answers[at] = self._give(item, version, now_us)
                if found.payload is None:
                    continue
                room -= version.version.payload_bytes
                if item.recipient:
                    handle = handles.get(item.recipient)
                    if handle is None:
                        key = recipient_key(item.recipient)
                        handle = handles[item.recipient] = self._software.load_public(DELIVERY_ALGORITHM, key)
                    sealing.append((at, handle, _delivery(item, found)))
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
            if isinstance(outcome, VaultdError):
                answers[at] = outcome
            else:
                answers[at] = Accessed(answers[at].version, None, outcome)

    def _give(self, item: AccessItem, version: HeldVersion, now_us: int) -> Accessed:
        """Decide, and open.  No await comes between the decision and the payload, and once sealed nothing is opened."""
        if not version.enabled or now_us >= version.expire_us:
            refusal = version.refusal(now_us)
            if refusal is not None:
                raise refusal
        sealer = self._ledger.sealer
        if item.unless and item.unless == version.name:
            return Accessed(version)
        opened = sealer.open(version.term, version.blob, version.aad) if sealer.knows(version.term) else None
        if opened is None:
            held = version.version
            raise row_lost(RowKey(VERSION_KIND, held.vault, held.secret, held.number))
        return Accessed(version, Secret(unpad_payload(opened)))

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


def _delivery(item: AccessItem, found: Accessed) -> Operation:
    """Sealing of a payload that was opened, to the caller's key."""
    payload = found.payload.expose("sealed to the caller's key") if found.payload is not None else b""
    return Operation(OpKind.ENCRYPT, payload, delivery_info(str(item.ref), found.version.name, item.context))
