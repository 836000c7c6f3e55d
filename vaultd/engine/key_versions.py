"""The versions of keys: the state machine, and nothing else may change it.

    ENABLED <-> DISABLED -> DESTROY_SCHEDULED -> DESTROYED        (RestoreKeyVersion: DESTROY_SCHEDULED -> DISABLED)

Every mutation is atomic and durable when it returns, and safe to retry with a request id.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Final

from vaultd.engine.catalog import below_minimum
from vaultd.engine.etags import check_etag
from vaultd.engine.key_reads import active_key_in, key_deleted, version_in
from vaultd.engine.model import Key, KeyState, KeyVersion, VersionState
from vaultd.errors import FailedPrecondition, InvalidArgument
from vaultd.names import KeyRef, version_name
from vaultd.store.base import RowKey

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from vaultd.backends.base import Material
    from vaultd.engine.key_material import KeyMaterial
    from vaultd.engine.key_reads import KeyReader
    from vaultd.engine.ledger import Changes, Intent, Ledger
    from vaultd.secret import Secret

MAX_VERSIONS: Final = 10_000


class KeyVersions:
    """Makes versions of keys, and moves them from state to state."""

    def __init__(self, ledger: Ledger, reader: KeyReader, material: KeyMaterial) -> None:
        self._ledger = ledger
        self._reader = reader
        self._material = material

    # -- making ---------------------------------------------------------------------------------------------------------

    async def rotate_key(
        self, intent: Intent, ref: KeyRef, etag: str = "", *, keep_primary: bool = False
    ) -> KeyVersion:
        """Make a new version, primary unless keep_primary; the next scheduled rotation counts from now."""
        return await self._rotate(intent, ref, etag, keep_primary=keep_primary, due_before_us=None)

    async def rotation_is_due(self, ref: KeyRef, now_us: int) -> bool:
        """Whether the scheduler has to rotate the key; raises NotFound."""
        due_us = (await self._reader.get_key(ref)).next_rotation_us
        return due_us is not None and due_us <= now_us

    async def rotate_if_due(self, intent: Intent, ref: KeyRef, now_us: int) -> None:
        """The scheduler's rotation: nothing happens when another process was faster."""
        await self._rotate(intent, ref, "", keep_primary=False, due_before_us=now_us)

    async def _rotate(
        self, intent: Intent, ref: KeyRef, etag: str, *, keep_primary: bool, due_before_us: int | None
    ) -> KeyVersion:
        known, answer = await self._ledger.answered(intent)
        if known:
            return answer  # type: ignore[no-any-return]  # what _rotate stored
        before = await self._reader.get_key(ref)

        async def body(changes: Changes, material: Material) -> KeyVersion:
            key = await active_key_in(changes, ref)
            check_etag(etag, key.etag)
            if key.import_only:
                raise FailedPrecondition("IMPORT_ONLY", "the key's versions are imported; call ImportKeyVersion")
            if due_before_us is not None and (key.next_rotation_us is None or key.next_rotation_us > due_before_us):
                found = await changes.get(RowKey("key_version", key.vault, key.id, key.newest))
                return found.resource() if found else None  # type: ignore[return-value]  # the scheduler ignores the answer
            return await self._add_version(changes, key, material, keep_primary=keep_primary)

        backend = self._material.backend(before.protection_level)
        make = self._material.generator(backend, before.algorithm, version_name(ref.vault, ref.key, before.newest + 1))
        return await self._material.mutate(intent, before.protection_level, make, body)

    async def import_version(
        self,
        intent: Intent,
        ref: KeyRef,
        etag: str,
        algorithm: str,
        take_out: Callable[[], Awaitable[Secret]],
        account: Callable[[Changes, Key, int], Awaitable[None]],
        *,
        keep_primary: bool,
    ) -> KeyVersion:
        """Make a version of material from outside, primary unless keep_primary.

        `take_out` unwraps it, once all else is in order; `account` writes down, in the same change, what it did elsewhere.
        Raises what they raise; InvalidArgument, MATERIAL_MISMATCH, for what is no sound key of the algorithm.
        """
        known, answer = await self._ledger.answered(intent)
        if known:
            return answer  # type: ignore[no-any-return]  # what import_version stored
        before = await self._reader.get_key(ref)
        if before.state is not KeyState.ACTIVE:
            raise key_deleted()
        check_etag(etag, before.etag)
        if before.algorithm.name != algorithm:
            raise InvalidArgument(
                "ALGORITHM_MISMATCH", f"the key's algorithm is {before.algorithm.name}", field="algorithm"
            )
        level, label = before.protection_level, version_name(ref.vault, ref.key, before.newest + 1)
        backend = self._material.backend(level)
        reason = backend.unsupported(algorithm)
        if reason is not None:
            raise FailedPrecondition("ALGORITHM_UNAVAILABLE", reason, field="algorithm")
        secret = await take_out()

        async def body(changes: Changes, material: Material) -> KeyVersion:
            key = await active_key_in(changes, ref)
            check_etag(etag, key.etag)
            version = await self._add_version(changes, key, material, keep_primary=keep_primary, imported=True)
            await account(changes, key, version.number)
            return version

        return await self._material.mutate(
            intent, level, lambda reference: backend.import_material(algorithm, secret, label, reference), body
        )

    async def _add_version(
        self, changes: Changes, key: Key, material: Material, *, keep_primary: bool, imported: bool = False
    ) -> KeyVersion:
        if key.newest >= MAX_VERSIONS:
            raise FailedPrecondition(
                "TOO_MANY_VERSIONS", f"a key has at most {MAX_VERSIONS} versions; create another key"
            )
        number = key.newest + 1
        version = await self._material.put_version(changes, key, number, material, imported=imported)
        next_us = changes.now_us + key.rotation_period_us if key.rotation_period_us is not None else None
        rotated = replace(
            key,
            newest=number,
            primary=key.primary if keep_primary and key.primary else number,
            next_rotation_us=next_us,
            update_us=changes.now_us,
        )
        await changes.put_resource("key", rotated)
        return version

    # -- state ----------------------------------------------------------------------------------------------------------

    async def set_primary(self, intent: Intent, ref: KeyRef, etag: str) -> Key:
        """Make an ENABLED version the primary one."""

        async def body(changes: Changes) -> Key:
            key = await active_key_in(changes, ref)
            check_etag(etag, key.etag)
            version = await version_in(changes, ref)
            if version.state is not VersionState.ENABLED:
                raise FailedPrecondition(
                    f"KEY_VERSION_{version.state.value}", "only an ENABLED version can be primary; enable it first"
                )
            if version.number < key.min_decrypt:
                raise below_minimum()
            if key.primary == version.number:
                return key
            changed = replace(key, primary=version.number, update_us=changes.now_us)
            return await changes.put_resource("key", changed)

        return await self._ledger.mutate(intent, body)

    async def _change_version(
        self, intent: Intent, ref: KeyRef, etag: str, change: Callable[[Key, KeyVersion, int], KeyVersion]
    ) -> KeyVersion:
        async def body(changes: Changes) -> KeyVersion:
            key = await active_key_in(changes, ref)
            version = await version_in(changes, ref)
            check_etag(etag, version.etag)
            changed = change(key, version, changes.now_us)
            if changed == version:
                return version
            return await changes.put_resource("key_version", changed, keep_secret=True)

        return await self._ledger.mutate(intent, body)

    async def enable_version(self, intent: Intent, ref: KeyRef, etag: str) -> KeyVersion:
        """DISABLED -> ENABLED."""

        def change(key: Key, version: KeyVersion, now_us: int) -> KeyVersion:
            del key, now_us
            _require_not_destroying(version, "call RestoreKeyVersion first")
            return replace(version, state=VersionState.ENABLED)

        return await self._change_version(intent, ref, etag, change)

    async def disable_version(self, intent: Intent, ref: KeyRef, etag: str) -> KeyVersion:
        """ENABLED -> DISABLED; no use succeeds on this node once it returned."""

        def change(key: Key, version: KeyVersion, now_us: int) -> KeyVersion:
            del key, now_us
            _require_not_destroying(version, "it is out of use already")
            return replace(version, state=VersionState.DISABLED)

        return await self._change_version(intent, ref, etag, change)

    async def destroy_version(self, intent: Intent, ref: KeyRef, etag: str) -> KeyVersion:
        """ENABLED or DISABLED -> DESTROY_SCHEDULED; a version on its way stays as it is."""

        def change(key: Key, version: KeyVersion, now_us: int) -> KeyVersion:
            if version.state in {VersionState.DESTROY_SCHEDULED, VersionState.DESTROYED}:
                return version
            return replace(version, state=VersionState.DESTROY_SCHEDULED, destroy_us=now_us + key.destroy_delay_us)

        return await self._change_version(intent, ref, etag, change)

    async def restore_version(self, intent: Intent, ref: KeyRef, etag: str) -> KeyVersion:
        """DESTROY_SCHEDULED -> DISABLED."""

        def change(key: Key, version: KeyVersion, now_us: int) -> KeyVersion:
            del key, now_us
            if version.state is VersionState.DESTROYED:
                raise FailedPrecondition("KEY_VERSION_DESTROYED", "the version's material is gone")
            if version.state is not VersionState.DESTROY_SCHEDULED:
                return version
            return replace(version, state=VersionState.DISABLED, destroy_us=None)

        return await self._change_version(intent, ref, etag, change)

    async def destroy_if_due(self, intent: Intent, ref: KeyRef, now_us: int) -> None:
        """DESTROY_SCHEDULED -> DESTROYED at destroy_time: the material leaves the row, the token and the journals."""
        erased: list[KeyVersion] = []

        async def body(changes: Changes) -> None:
            version = await version_in(changes, ref)
            due = version.destroy_us
            if version.state is not VersionState.DESTROY_SCHEDULED or due is None or due > now_us:
                return
            gone = replace(
                version, state=VersionState.DESTROYED, destroy_us=None, destroyed_us=changes.now_us, reference=b""
            )
            await changes.put_resource("key_version", gone)
            await self._material.condemn(changes, version)
            erased.append(version)

        await self._ledger.mutate(intent, body)
        await self._material.erase(erased)


def _require_not_destroying(version: KeyVersion, advice: str) -> None:
    if version.state in {VersionState.DESTROY_SCHEDULED, VersionState.DESTROYED}:
        reason = f"KEY_VERSION_{version.state.value}"
        raise FailedPrecondition(reason, f"the key version is {version.state.value}; {advice}")
