"""What tokens hold for us: a row per object, written before the object is made and taken away after it is gone.

    RESERVED -> IN_USE -> CONDEMNED -> (no row)

A crash at any point leaves a row that says what to do: an object that was made and never used, or whose destruction was
interrupted, is destroyed by the scheduler; nothing waits for a token to be reachable.  IN_USE rows also keep an object from
being taken over twice.
"""

from __future__ import annotations

import hashlib
from contextlib import suppress
from enum import Enum
from typing import TYPE_CHECKING, Final

from vaultd.backends.base import Material
from vaultd.engine.algorithms import ProtectionLevel
from vaultd.engine.clock import SECOND_US
from vaultd.errors import Aborted, AlreadyExists, Unavailable, VaultdError
from vaultd.store.base import RowKey

if TYPE_CHECKING:
    from collections.abc import Mapping

    from vaultd.backends.base import Backend
    from vaultd.engine.ledger import Changes, Ledger

KIND: Final = "token_object"
RESERVATION_US: Final = 3600 * SECOND_US
"""Longer than any token takes to make a key."""
ENVELOPE_LABEL: Final = "vaultd envelope key"
_ENVELOPE_KEY: Final = RowKey(KIND, "", "envelope", 0)


class ObjectState(Enum):
    """Life of an object in a token."""

    RESERVED = "RESERVED"
    IN_USE = "IN_USE"
    CONDEMNED = "CONDEMNED"


def _row_key(reference: bytes) -> RowKey:
    return RowKey(KIND, "", hashlib.sha256(reference).hexdigest()[:32], 0)


def _uid(reference: bytes) -> bytes:
    return hashlib.sha256(reference).digest()[:16]


class TokenObjects:
    """Reserves, claims, condemns and destroys objects of tokens.  References are what backends gave; b"" is none."""

    def __init__(self, ledger: Ledger, backends: Mapping[ProtectionLevel, Backend]) -> None:
        self._ledger = ledger
        self._backends = backends

    async def reserve(self, level: ProtectionLevel) -> bytes:
        """Choose the reference of a key that is about to be made; durable before return.  b"" where none is needed.

        Keys of HSM_ENVELOPE share one key of the token: its reference.
        """
        if level is ProtectionLevel.HSM_ENVELOPE:
            return await self._envelope_key()
        reference = self._backends[level].reserve()
        if reference:
            async with self._ledger.change() as changes:
                await self._put(changes, reference, ObjectState.RESERVED, changes.now_us + RESERVATION_US)
        return reference

    async def claim(self, changes: Changes, reference: bytes, level: ProtectionLevel, *, adopted: bool = False) -> None:
        """A key version uses the object from this change on; an `adopted` one was not reserved.

        Raises Aborted when the reservation ran out, AlreadyExists when an adopted object is in use, or was made here.
        """
        if not reference or level is not ProtectionLevel.HSM:
            return
        found = await changes.get(_row_key(reference))
        if adopted and found is not None:
            raise AlreadyExists("TOKEN_KEY_IN_USE", "a key version uses this object of the token already")
        if not adopted and (found is None or found.row.state != ObjectState.RESERVED.value):
            raise Aborted("TOKEN_KEY_CONDEMNED", "making the key took too long; try again")
        await self._put(changes, reference, ObjectState.IN_USE, None)

    async def condemn(self, changes: Changes, reference: bytes, level: ProtectionLevel) -> None:
        """The object's last use ends with this change; `erase` destroys it, now or whenever the token answers."""
        if reference and level is ProtectionLevel.HSM:
            await self._put(changes, reference, ObjectState.CONDEMNED, changes.now_us)

    async def abandon(self, reference: bytes, level: ProtectionLevel) -> None:
        """A key that was to be made is not needed: destroy what there is of it.  Never raises a VaultdError."""
        if not reference or level is not ProtectionLevel.HSM:
            return
        with suppress(VaultdError):  # the reservation is still there for the scheduler
            async with self._ledger.change() as changes:
                found = await changes.get(_row_key(reference))
                if found is None or found.row.state != ObjectState.RESERVED.value:
                    return
                await self._put(changes, reference, ObjectState.CONDEMNED, changes.now_us)
            await self.erase(reference)

    async def erase(self, reference: bytes) -> None:
        """Destroy a condemned object, then its row.  Idempotent; raises Unavailable while the token is away."""
        key = _row_key(reference)
        hsm = self._backends.get(ProtectionLevel.HSM)
        if hsm is None:
            raise Unavailable(
                "HSM_SLOT_UNKNOWN", "a key waits for its destruction in an HSM slot that is not configured"
            )
        await hsm.destroy(Material(None, reference, b""))
        async with self._ledger.change() as changes:
            found = await changes.get(key)
            if found is not None and found.row.state == ObjectState.CONDEMNED.value:
                await changes.delete(key)

    async def erase_if_due(self, key: RowKey, now_us: int) -> None:
        """The scheduler's: a reservation that ran out is condemned first, so that no version can claim it any more."""
        async with self._ledger.change() as changes:
            found = await changes.get(key)
            if found is None or found.row.due_at is None or found.row.due_at > now_us:
                return
            reference = bytes.fromhex(found.values["reference"])
            if found.row.state == ObjectState.RESERVED.value:
                await self._put(changes, reference, ObjectState.CONDEMNED, changes.now_us)
        await self.erase(reference)

    async def _envelope_key(self) -> bytes:
        """The token's key that wraps the keys of HSM_ENVELOPE; made when the first of them is."""
        found = await self._ledger.read(_ENVELOPE_KEY)
        if found is not None:
            return bytes.fromhex(found.values["reference"])
        hsm = self._backends[ProtectionLevel.HSM]
        made = await self.reserve(ProtectionLevel.HSM)
        await hsm.generate("AES_256_GCM", ENVELOPE_LABEL, made)
        async with self._ledger.change() as changes:
            found = await changes.get(_ENVELOPE_KEY)
            if found is None:
                await self.claim(changes, made, ProtectionLevel.HSM)
                values = {"reference": made.hex()}
                await changes.put(_ENVELOPE_KEY, _uid(b"envelope"), ObjectState.IN_USE.value, None, values)
        if found is not None:
            await self.abandon(made, ProtectionLevel.HSM)
            return bytes.fromhex(found.values["reference"])
        return made

    @staticmethod
    async def _put(changes: Changes, reference: bytes, state: ObjectState, due_us: int | None) -> None:
        values = {"reference": reference.hex()}
        await changes.put(_row_key(reference), _uid(reference), state.value, due_us, values)
