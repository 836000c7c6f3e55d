"""Life of keys: the state machine, and nothing else may change it.

    ACTIVE <-> DELETED -> PURGED                                  (PURGED keeps the name taken for ever)

A purged key comes back only as itself, from a backup (key_backups.py).  Of their versions: key_versions.py.

Every mutation is atomic and durable when it returns, and safe to retry with a request id.
"""

from __future__ import annotations

import os
from dataclasses import replace
from typing import TYPE_CHECKING

from vaultd.engine.algorithms import choose_algorithm
from vaultd.engine.etags import check_etag
from vaultd.engine.key_grants import drop_grants
from vaultd.engine.key_reads import key_deleted, key_in
from vaultd.engine.key_specs import (
    KeySpec,
    KeyUpdate,
    LifecycleLimits,
    check_destroy_delay,
    check_expiry,
    check_minimum,
    check_notice,
    check_rotation,
    rotates_by_import,
    updated,
)
from vaultd.engine.model import Key, KeyState, KeyVersion
from vaultd.errors import AlreadyExists, FailedPrecondition, NotFound
from vaultd.names import KeyRef, version_name
from vaultd.store.base import RowKey

if TYPE_CHECKING:
    from collections.abc import Callable

    from vaultd.backends.base import Material, TokenKey
    from vaultd.engine.clock import Clock
    from vaultd.engine.key_material import KeyMaterial
    from vaultd.engine.key_reads import KeyReader
    from vaultd.engine.ledger import Changes, Intent, Ledger


class KeyLifecycle:
    """Creates keys and moves them from state to state."""

    def __init__(
        self,
        ledger: Ledger,
        reader: KeyReader,
        material: KeyMaterial,
        clock: Clock,
        limits: LifecycleLimits,
    ) -> None:
        self._ledger = ledger
        self._reader = reader
        self._material = material
        self._clock = clock
        self._limits = limits

    async def create_key(
        self, intent: Intent, vault: str, key_id: str, spec: KeySpec, adopted: TokenKey | None = None
    ) -> Key:
        """Create a key and its first version.  Raises AlreadyExists for a name that is or ever was.

        With `adopted` the first version is a key that a token holds already; nothing is made in the token.  A key that is
        made for import has no version yet.
        """
        # Before the checks: a retry gets its answer even when a time in the request has passed meanwhile.
        known, answer = await self._ledger.answered(intent)
        if known:
            return answer  # type: ignore[no-any-return]  # what create_key stored
        algorithm = choose_algorithm(spec.purpose, spec.algorithm, spec.protection_level)
        backend = self._material.backend(spec.protection_level)
        reason = backend.unsupported(algorithm.name) if adopted is None else None
        if reason is not None:
            raise FailedPrecondition("ALGORITHM_UNAVAILABLE", reason, field="key.algorithm")
        now_us = self._clock.now_us()
        destroy_delay_us = check_destroy_delay(spec.destroy_delay_us, self._limits)
        rotation = check_rotation(algorithm, spec.rotation_period_us, spec.next_rotation_us, now_us)
        check_notice(spec.notice_us, rotation[0])
        check_expiry(spec.expire_us, now_us)
        if spec.import_only and rotation[0] is not None:
            raise rotates_by_import()
        await self._reader.require_vault(vault)
        if await self._ledger.read(RowKey("key", vault, key_id, 0)) is not None:
            raise _key_exists()
        first = 0 if adopted is None and (spec.import_only or spec.skip_initial_version) else 1
        check_minimum(spec.min_decrypt, first)

        async def body(changes: Changes, material: Material | None) -> Key:
            at = RowKey("key", vault, key_id, 0)
            if await changes.get(at) is not None:
                raise _key_exists()
            home = await changes.get(RowKey("vault", "", vault, 0))
            if home is None or home.row.state != "ACTIVE":
                raise NotFound("VAULT_NOT_FOUND", "no such vault; ListVaults shows the vaults")
            key = Key(
                vault=vault,
                id=key_id,
                uid=os.urandom(16),
                algorithm=algorithm,
                protection_level=spec.protection_level,
                labels=dict(spec.labels or {}),
                rotation_period_us=rotation[0],
                next_rotation_us=rotation[1],
                expire_us=spec.expire_us,
                notice_us=spec.notice_us,
                exportable=spec.exportable,
                destroy_delay_us=destroy_delay_us,
                purge_protection=spec.purge_protection,
                state=KeyState.ACTIVE,
                primary=first,
                newest=first,
                create_us=changes.now_us,
                update_us=changes.now_us,
                import_only=spec.import_only,
                min_decrypt=spec.min_decrypt,
            )
            if material is not None:
                await self._material.put_version(changes, key, 1, material, adopted=adopted is not None)
            return await changes.put_resource("key", key)

        if adopted is not None:
            taken = await backend.adopt(algorithm.name, adopted)
            return await self._ledger.mutate(intent, lambda changes: body(changes, taken))
        if not first:
            return await self._ledger.mutate(intent, lambda changes: body(changes, None))
        make = self._material.generator(backend, algorithm, version_name(vault, key_id, 1))
        return await self._material.mutate(intent, spec.protection_level, make, body)

    async def _change_key(self, intent: Intent, ref: KeyRef, etag: str, change: Callable[[Key, int], Key]) -> Key:
        async def body(changes: Changes) -> Key:
            key = await key_in(changes, ref)
            check_etag(etag, key.etag)
            changed = change(key, changes.now_us)
            if changed == key:
                return key
            return await changes.put_resource("key", replace(changed, update_us=changes.now_us))

        return await self._ledger.mutate(intent, body)

    async def update_key(self, intent: Intent, ref: KeyRef, update: KeyUpdate) -> Key:
        """Change labels, rotation, expiry, purge protection, the minimum version."""

        def change(key: Key, now_us: int) -> Key:
            if key.state is not KeyState.ACTIVE:
                raise key_deleted()
            return updated(key, update, now_us)

        return await self._change_key(intent, ref, update.etag, change)

    async def delete_key(self, intent: Intent, ref: KeyRef, etag: str) -> Key:
        """Soft-delete: no use from now on, purged at purge_time.  Its grants end, for good."""

        async def body(changes: Changes) -> Key:
            key = await key_in(changes, ref)
            check_etag(etag, key.etag)
            if key.state is KeyState.DELETED:
                return key
            await drop_grants(changes, key.vault, key.id)
            now_us = changes.now_us
            purge_us = now_us + self._limits.deletion_retention_us
            gone = replace(key, state=KeyState.DELETED, delete_us=now_us, purge_us=purge_us, update_us=now_us)
            return await changes.put_resource("key", gone)

        return await self._ledger.mutate(intent, body)

    async def undelete_key(self, intent: Intent, ref: KeyRef, etag: str) -> Key:
        """Bring a soft-deleted key back as it was."""

        def change(key: Key, now_us: int) -> Key:
            del now_us
            return replace(key, state=KeyState.ACTIVE, delete_us=None, purge_us=None)

        return await self._change_key(intent, ref, etag, change)

    async def purge_key(self, intent: Intent, ref: KeyRef, etag: str) -> None:
        """Erase a soft-deleted key and its material; the name stays taken."""
        erased: list[KeyVersion] = []

        async def body(changes: Changes) -> None:
            key = await key_in(changes, ref)
            check_etag(etag, key.etag)
            if key.state is not KeyState.DELETED:
                raise FailedPrecondition("KEY_NOT_DELETED", "only a deleted key can be purged; call DeleteKey first")
            if key.purge_protection and (key.purge_us is None or changes.now_us < key.purge_us):
                raise FailedPrecondition(
                    "PURGE_PROTECTED", "the key has purge protection; it is purged at its purge_time"
                )
            erased.extend(await self._purge(changes, key))

        await self._ledger.mutate(intent, body)
        await self._material.erase(erased)

    async def _purge(self, changes: Changes, key: Key) -> list[KeyVersion]:
        versions = [row.resource() for row in await changes.versions("key_version", key.vault, key.id)]
        for version in versions:
            await self._material.condemn(changes, version)
            await changes.delete(RowKey("key_version", key.vault, key.id, version.number))
            budget = RowKey("budget", key.vault, key.id, version.number)
            if await changes.get(budget) is not None:
                await changes.delete(budget)
        tombstone = replace(
            key,
            state=KeyState.PURGED,
            labels={},
            primary=0,
            next_rotation_us=None,
            rotation_period_us=None,
            purge_us=None,
        )
        await changes.put_resource("key", tombstone)
        return versions

    async def purge_if_due(self, intent: Intent, ref: KeyRef, now_us: int) -> None:
        """Purge a soft-deleted key at its purge_time."""
        erased: list[KeyVersion] = []

        async def body(changes: Changes) -> None:
            key = await key_in(changes, ref)
            if key.state is KeyState.DELETED and key.purge_us is not None and key.purge_us <= now_us:
                erased.extend(await self._purge(changes, key))

        await self._ledger.mutate(intent, body)
        await self._material.erase(erased)

    async def give_notice_if_due(self, ref: KeyRef, now_us: int) -> str:
        """Note that the next rotation or the expiry was announced, and say which: `rotation`, `expiry`, or nothing.

        The feed tells of the key; its etag stays.
        """
        async with self._ledger.change() as changes:
            key = await key_in(changes, ref)
            due_us = key.notice_due_us
            if key.state is not KeyState.ACTIVE or due_us is None or due_us > now_us or key.notice_us is None:
                return ""
            at_us = due_us + key.notice_us
            await changes.keep_books("key", replace(key, noticed_us=at_us), "notice")
        return "expiry" if at_us == key.expire_us else "rotation"


def _key_exists() -> AlreadyExists:
    return AlreadyExists("KEY_EXISTS", "a key of this name exists or existed; names are never reused", field="key_id")
