"""Life of keys and versions: the state machine, and nothing else may change it.

    version: ENABLED <-> DISABLED -> DESTROY_SCHEDULED -> DESTROYED        (RestoreKeyVersion: DESTROY_SCHEDULED -> DISABLED)
    key:     ACTIVE <-> DELETED -> PURGED                                  (PURGED keeps the name taken for ever)

A purged key comes back only as itself, from a backup (key_backups.py).

Every mutation is atomic and durable when it returns, and safe to retry with a request id.
"""

from __future__ import annotations

import os
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final, TypeVar

from vaultd.engine.algorithms import Algorithm, ProtectionLevel, Purpose, choose_algorithm
from vaultd.engine.catalog import below_minimum, key_not_found, no_backend, version_not_found
from vaultd.engine.clock import DAY_US, SECOND_US
from vaultd.engine.key_grants import drop_grants
from vaultd.engine.model import Key, KeyState, KeyVersion, VersionState
from vaultd.errors import (
    Aborted,
    AlreadyExists,
    FailedPrecondition,
    InvalidArgument,
    NotFound,
    VaultdError,
)
from vaultd.names import KeyRef, version_name
from vaultd.store.base import RowKey

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

    from vaultd.backends.base import Backend, Material, TokenKey
    from vaultd.engine.clock import Clock
    from vaultd.engine.ledger import Changes, Intent, Ledger
    from vaultd.engine.scrubbing import Scrubber
    from vaultd.engine.tokens import TokenObjects
    from vaultd.secret import Secret

R = TypeVar("R")
MIN_ROTATION_US: Final = 3600 * SECOND_US
MAX_ROTATION_US: Final = 36_525 * DAY_US
MAX_DESTROY_DELAY_US: Final = 120 * DAY_US
MAX_VERSIONS: Final = 10_000


@dataclass(frozen=True, slots=True)
class LifecycleLimits:
    """Delays that protect against haste; the configuration sets them."""

    default_destroy_delay_us: int = 30 * DAY_US
    min_destroy_delay_us: int = DAY_US
    deletion_retention_us: int = 30 * DAY_US


@dataclass(frozen=True, slots=True)
class KeySpec:
    """What a caller asks of a new key.  None is the default."""

    purpose: Purpose
    algorithm: str | None = None
    protection_level: ProtectionLevel = ProtectionLevel.SOFTWARE
    labels: Mapping[str, str] | None = None
    rotation_period_us: int | None = None
    next_rotation_us: int | None = None
    expire_us: int | None = None
    notice_us: int | None = None
    exportable: bool = False
    destroy_delay_us: int | None = None
    purge_protection: bool = False
    import_only: bool = False
    min_decrypt: int = 0
    skip_initial_version: bool = False


@dataclass(frozen=True, slots=True)
class KeyUpdate:
    """Fields to change, by their names in Key, and the etag that must match when it is not empty."""

    fields: Mapping[str, Any]
    etag: str = ""


def _check_notice(notice_us: int | None, period_us: int | None) -> None:
    if notice_us is not None and not 0 < notice_us <= (period_us or MAX_ROTATION_US):
        raise InvalidArgument(
            "ROTATION_NOTICE_RANGE",
            "notice_period must be more than nothing, and at most rotation_period",
            field="key.notice_period",
        )


def check_etag(given: str, current: str) -> None:
    """Raise Aborted unless `given` is empty or current."""
    if given and given != current:
        raise Aborted("ETAG_MISMATCH", "the resource changed since it was read; read it again and repeat the change")


class KeyLifecycle:
    """Creates keys and moves them and their versions from state to state."""

    def __init__(
        self,
        ledger: Ledger,
        backends: Mapping[ProtectionLevel, Backend],
        tokens: TokenObjects,
        clock: Clock,
        limits: LifecycleLimits,
        scrubber: Scrubber,
    ) -> None:
        self._ledger = ledger
        self._backends = backends
        self._tokens = tokens
        self._clock = clock
        self._limits = limits
        self._scrubber = scrubber

    # -- reading --------------------------------------------------------------------------------------------------------

    async def get_key(self, ref: KeyRef) -> Key:
        """Read a key, also a soft-deleted one; raises NotFound."""
        found = await self._ledger.read(RowKey("key", ref.vault, ref.key, 0))
        if found is None or found.row.state == KeyState.PURGED.value:
            raise key_not_found()
        return found.resource()  # type: ignore[no-any-return]  # a row of kind `key` holds a Key

    async def list_keys(self, vault: str, after: str, limit: int, *, deleted: bool) -> list[Key]:
        """Read keys by id, after an id."""
        await self.require_vault(vault)
        states = (KeyState.ACTIVE.value, KeyState.DELETED.value) if deleted else (KeyState.ACTIVE.value,)
        return [row.resource() for row in await self._ledger.list("key", vault, after, limit, states)]

    async def get_version(self, ref: KeyRef) -> KeyVersion:
        """Read a version (a key: its primary one); raises NotFound."""
        key = await self.get_key(ref)
        number = ref.version or key.primary
        found = await self._ledger.read(RowKey("key_version", ref.vault, ref.key, number))
        if found is None:
            raise version_not_found()
        return found.resource()  # type: ignore[no-any-return]  # a row of kind `key_version` holds a KeyVersion

    async def list_versions(self, ref: KeyRef, after: int = 0, limit: int | None = None) -> list[KeyVersion]:
        """Read versions of a key after one, oldest first, all or `limit` of them; raises NotFound."""
        await self.get_key(ref)
        rows = await self._ledger.versions("key_version", ref.vault, ref.key, after, limit)
        return [row.resource() for row in rows]

    async def require_vault(self, vault: str) -> None:
        """Raise NotFound unless the vault is there."""
        found = await self._ledger.read(RowKey("vault", "", vault, 0))
        if found is None or found.row.state != "ACTIVE":
            raise NotFound("VAULT_NOT_FOUND", "no such vault; ListVaults shows the vaults")

    # -- creating -------------------------------------------------------------------------------------------------------

    def _backend(self, level: ProtectionLevel) -> Backend:
        backend = self._backends.get(level)
        if backend is None:
            raise no_backend(level)
        return backend

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
        backend = self._backend(spec.protection_level)
        reason = backend.unsupported(algorithm.name) if adopted is None else None
        if reason is not None:
            raise FailedPrecondition("ALGORITHM_UNAVAILABLE", reason, field="key.algorithm")
        now_us = self._clock.now_us()
        destroy_delay_us = self._destroy_delay(spec.destroy_delay_us)
        rotation = self._rotation(algorithm, spec.rotation_period_us, spec.next_rotation_us, now_us)
        _check_notice(spec.notice_us, rotation[0])
        if spec.expire_us is not None and spec.expire_us <= now_us:
            raise InvalidArgument("EXPIRE_TIME_PAST", "expire_time must be in the future", field="key.expire_time")
        if spec.import_only and rotation[0] is not None:
            raise _rotates_by_import("key.rotation_period")
        await self.require_vault(vault)
        if await self._ledger.read(RowKey("key", vault, key_id, 0)) is not None:
            raise _key_exists()
        first = 0 if adopted is None and (spec.import_only or spec.skip_initial_version) else 1
        _check_minimum(spec.min_decrypt, first)

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
                await self._put_version(changes, key, 1, material, adopted=adopted is not None)
            return await changes.put_resource("key", key)

        if adopted is not None:
            taken = await backend.adopt(algorithm.name, adopted)
            return await self._ledger.mutate(intent, lambda changes: body(changes, taken))
        if not first:
            return await self._ledger.mutate(intent, lambda changes: body(changes, None))
        make = self._generator(backend, algorithm, version_name(vault, key_id, 1))
        return await self._with_new_material(intent, spec.protection_level, make, body)

    @staticmethod
    def _generator(backend: Backend, algorithm: Algorithm, label: str) -> Callable[[bytes], Awaitable[Material]]:
        return lambda reference: backend.generate(algorithm.name, label, reference)

    async def _with_new_material(
        self,
        intent: Intent,
        level: ProtectionLevel,
        make: Callable[[bytes], Awaitable[Material]],
        body: Callable[[Changes, Material], Awaitable[R]],
    ) -> R:
        """Make material for a version, of the reference that `make` gets, and mutate with it; what the change did not take is
        destroyed.

        What it did take stays claimed, whatever became of the commit: an object nobody uses is better than a lost key.
        """
        reference = await self._tokens.reserve(level)
        try:
            material = await make(reference)
            return await self._ledger.mutate(intent, lambda changes: body(changes, material))
        finally:
            await self._tokens.abandon(reference, level)

    async def _put_version(
        self,
        changes: Changes,
        key: Key,
        number: int,
        material: Material,
        *,
        adopted: bool = False,
        imported: bool = False,
    ) -> KeyVersion:
        await self._tokens.claim(changes, material.reference, key.protection_level, adopted=adopted)
        version = KeyVersion(
            vault=key.vault,
            key=key.id,
            uid=key.uid,
            number=number,
            state=VersionState.ENABLED,
            algorithm=key.algorithm,
            protection_level=key.protection_level,
            public_key=material.public_key,
            reference=material.reference,
            imported=adopted or imported,
            create_us=changes.now_us,
            attestation=material.attestation,
        )
        return await changes.put_resource("key_version", version, secret=material.secret)

    def _destroy_delay(self, asked_us: int | None) -> int:
        if asked_us is None:
            return max(self._limits.default_destroy_delay_us, self._limits.min_destroy_delay_us)
        if not self._limits.min_destroy_delay_us <= asked_us <= MAX_DESTROY_DELAY_US:
            raise InvalidArgument(
                "DESTROY_DELAY_RANGE",
                f"destroy_scheduled_duration must be {self._limits.min_destroy_delay_us // SECOND_US} s "
                f"to {MAX_DESTROY_DELAY_US // SECOND_US} s here",
                field="key.destroy_scheduled_duration",
            )
        return asked_us

    @staticmethod
    def _rotation(
        algorithm: Algorithm, period_us: int | None, next_us: int | None, now_us: int
    ) -> tuple[int | None, int | None]:
        if period_us is None:
            if next_us is not None:
                raise InvalidArgument(
                    "ROTATION_PERIOD_MISSING", "next_rotation_time needs rotation_period", field="key.rotation_period"
                )
            return None, None
        if not MIN_ROTATION_US <= period_us <= MAX_ROTATION_US:
            raise InvalidArgument(
                "ROTATION_PERIOD_RANGE", "rotation_period must be 1 hour to 100 years", field="key.rotation_period"
            )
        if next_us is not None and next_us <= now_us:
            raise InvalidArgument(
                "ROTATION_TIME_PAST", "next_rotation_time must be in the future", field="key.next_rotation_time"
            )
        return period_us, next_us if next_us is not None else now_us + period_us

    # -- changing a key -------------------------------------------------------------------------------------------------

    async def _change_key(self, intent: Intent, ref: KeyRef, etag: str, change: Callable[[Key, int], Key]) -> Key:
        async def body(changes: Changes) -> Key:
            key = await self._key_in(changes, ref)
            check_etag(etag, key.etag)
            changed = change(key, changes.now_us)
            if changed == key:
                return key
            return await changes.put_resource("key", replace(changed, update_us=changes.now_us))

        return await self._ledger.mutate(intent, body)

    @staticmethod
    async def _key_in(changes: Changes, ref: KeyRef) -> Key:
        found = await changes.get(RowKey("key", ref.vault, ref.key, 0))
        if found is None or found.row.state == KeyState.PURGED.value:
            raise key_not_found()
        return found.resource()  # type: ignore[no-any-return]  # a row of kind `key` holds a Key

    async def _active_key_in(self, changes: Changes, ref: KeyRef) -> Key:
        key = await self._key_in(changes, ref)
        if key.state is not KeyState.ACTIVE:
            raise key_deleted()
        return key

    async def update_key(self, intent: Intent, ref: KeyRef, update: KeyUpdate) -> Key:
        """Change labels, rotation, expiry, purge protection, the minimum version."""

        def change(key: Key, now_us: int) -> Key:
            if key.state is not KeyState.ACTIVE:
                raise key_deleted()
            fields = dict(update.fields)
            if key.purge_protection and fields.get("purge_protection") is False:
                raise FailedPrecondition(
                    "PURGE_PROTECTION_STAYS", "purge_protection cannot be cleared", field="key.purge_protection"
                )
            expire_us = fields.get("expire_us")
            if expire_us is not None and expire_us <= now_us and expire_us != key.expire_us:
                raise InvalidArgument("EXPIRE_TIME_PAST", "expire_time must be in the future", field="key.expire_time")
            if "rotation_period_us" in fields or "next_rotation_us" in fields:
                period = fields.get("rotation_period_us", key.rotation_period_us)
                unchanged = fields.get("next_rotation_us") == key.next_rotation_us
                due = None if unchanged else fields.get("next_rotation_us")
                keep = period == key.rotation_period_us and (unchanged or "next_rotation_us" not in fields)
                if not keep:
                    if key.import_only and period is not None:
                        raise _rotates_by_import("key.rotation_period")
                    period, due = self._rotation(key.algorithm, period, due, now_us)
                    fields |= {"rotation_period_us": period, "next_rotation_us": due}
            _check_notice(
                fields.get("notice_us", key.notice_us), fields.get("rotation_period_us", key.rotation_period_us)
            )
            if any(name in fields and fields[name] != getattr(key, name) for name in ("expire_us", "notice_us")):
                fields["noticed_us"] = None  # what is announced anew may be sooner than what was
            minimum = fields.get("min_decrypt", key.min_decrypt)
            if minimum != key.min_decrypt:
                _check_minimum(minimum, key.primary or key.newest)
            return replace(key, **fields)

        return await self._change_key(intent, ref, update.etag, change)

    async def delete_key(self, intent: Intent, ref: KeyRef, etag: str) -> Key:
        """Soft-delete: no use from now on, purged at purge_time.  Its grants end, for good."""

        async def body(changes: Changes) -> Key:
            key = await self._key_in(changes, ref)
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
            key = await self._key_in(changes, ref)
            check_etag(etag, key.etag)
            if key.state is not KeyState.DELETED:
                raise FailedPrecondition("KEY_NOT_DELETED", "only a deleted key can be purged; call DeleteKey first")
            if key.purge_protection and (key.purge_us is None or changes.now_us < key.purge_us):
                raise FailedPrecondition(
                    "PURGE_PROTECTED", "the key has purge protection; it is purged at its purge_time"
                )
            erased.extend(await self._purge(changes, key))

        await self._ledger.mutate(intent, body)
        await self._erase(erased)

    async def _purge(self, changes: Changes, key: Key) -> list[KeyVersion]:
        versions = [row.resource() for row in await changes.versions("key_version", key.vault, key.id)]
        for version in versions:
            await self._tokens.condemn(changes, version.reference, version.protection_level)
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

    async def _erase(self, versions: list[KeyVersion]) -> None:
        """Take destroyed material out of tokens and out of the store's journals.  Repeating it is harmless."""
        for version in versions:
            if version.reference and version.protection_level is ProtectionLevel.HSM:
                with suppress(VaultdError):  # the scheduler tries again, and records why it cannot
                    await self._tokens.erase(version.reference)
        if versions:
            self._scrubber.note()
            await self._scrubber.run()

    # -- versions -------------------------------------------------------------------------------------------------------

    async def rotate_key(
        self, intent: Intent, ref: KeyRef, etag: str = "", *, keep_primary: bool = False
    ) -> KeyVersion:
        """Make a new version, primary unless keep_primary; the next scheduled rotation counts from now."""
        return await self._rotate(intent, ref, etag, keep_primary=keep_primary, due_before_us=None)

    async def rotation_is_due(self, ref: KeyRef, now_us: int) -> bool:
        """Whether the scheduler has to rotate the key; raises NotFound."""
        due_us = (await self.get_key(ref)).next_rotation_us
        return due_us is not None and due_us <= now_us

    async def rotate_if_due(self, intent: Intent, ref: KeyRef, now_us: int) -> None:
        """The scheduler's rotation: nothing happens when another process was faster."""
        await self._rotate(intent, ref, "", keep_primary=False, due_before_us=now_us)

    async def give_notice_if_due(self, ref: KeyRef, now_us: int) -> str:
        """Note that the next rotation or the expiry was announced, and say which: `rotation`, `expiry`, or nothing.

        The feed tells of the key; its etag stays.
        """
        async with self._ledger.change() as changes:
            key = await self._key_in(changes, ref)
            due_us = key.notice_due_us
            if key.state is not KeyState.ACTIVE or due_us is None or due_us > now_us or key.notice_us is None:
                return ""
            at_us = due_us + key.notice_us
            await changes.keep_books("key", replace(key, noticed_us=at_us), "notice")
        return "expiry" if at_us == key.expire_us else "rotation"

    async def _rotate(
        self, intent: Intent, ref: KeyRef, etag: str, *, keep_primary: bool, due_before_us: int | None
    ) -> KeyVersion:
        known, answer = await self._ledger.answered(intent)
        if known:
            return answer  # type: ignore[no-any-return]  # what _rotate stored
        before = await self.get_key(ref)

        async def body(changes: Changes, material: Material) -> KeyVersion:
            key = await self._active_key_in(changes, ref)
            check_etag(etag, key.etag)
            if key.import_only:
                raise FailedPrecondition("IMPORT_ONLY", "the key's versions are imported; call ImportKeyVersion")
            if due_before_us is not None and (key.next_rotation_us is None or key.next_rotation_us > due_before_us):
                found = await changes.get(RowKey("key_version", key.vault, key.id, key.newest))
                return found.resource() if found else None  # type: ignore[return-value]  # the scheduler ignores the answer
            return await self._add_version(changes, key, material, keep_primary=keep_primary)

        backend = self._backend(before.protection_level)
        make = self._generator(backend, before.algorithm, version_name(ref.vault, ref.key, before.newest + 1))
        return await self._with_new_material(intent, before.protection_level, make, body)

    async def _add_version(
        self, changes: Changes, key: Key, material: Material, *, keep_primary: bool, imported: bool = False
    ) -> KeyVersion:
        if key.newest >= MAX_VERSIONS:
            raise FailedPrecondition(
                "TOO_MANY_VERSIONS", f"a key has at most {MAX_VERSIONS} versions; create another key"
            )
        number = key.newest + 1
        version = await self._put_version(changes, key, number, material, imported=imported)
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
        before = await self.get_key(ref)
        if before.state is not KeyState.ACTIVE:
            raise key_deleted()
        check_etag(etag, before.etag)
        if before.algorithm.name != algorithm:
            raise InvalidArgument(
                "ALGORITHM_MISMATCH", f"the key's algorithm is {before.algorithm.name}", field="algorithm"
            )
        level, label = before.protection_level, version_name(ref.vault, ref.key, before.newest + 1)
        backend = self._backend(level)
        reason = backend.unsupported(algorithm)
        if reason is not None:
            raise FailedPrecondition("ALGORITHM_UNAVAILABLE", reason, field="algorithm")
        secret = await take_out()

        async def body(changes: Changes, material: Material) -> KeyVersion:
            key = await self._active_key_in(changes, ref)
            check_etag(etag, key.etag)
            version = await self._add_version(changes, key, material, keep_primary=keep_primary, imported=True)
            await account(changes, key, version.number)
            return version

        return await self._with_new_material(
            intent, level, lambda reference: backend.import_material(algorithm, secret, label, reference), body
        )

    async def set_primary(self, intent: Intent, ref: KeyRef, etag: str) -> Key:
        """Make an ENABLED version the primary one."""

        async def body(changes: Changes) -> Key:
            key = await self._active_key_in(changes, ref)
            check_etag(etag, key.etag)
            version = await self._version_in(changes, ref)
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

    @staticmethod
    async def _version_in(changes: Changes, ref: KeyRef) -> KeyVersion:
        found = await changes.get(RowKey("key_version", ref.vault, ref.key, ref.version))
        if found is None:
            raise version_not_found()
        return found.resource()  # type: ignore[no-any-return]  # a row of kind `key_version` holds a KeyVersion

    async def _change_version(
        self, intent: Intent, ref: KeyRef, etag: str, change: Callable[[Key, KeyVersion, int], KeyVersion]
    ) -> KeyVersion:
        async def body(changes: Changes) -> KeyVersion:
            key = await self._active_key_in(changes, ref)
            version = await self._version_in(changes, ref)
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

    # -- what the scheduler does ----------------------------------------------------------------------------------------

    async def destroy_if_due(self, intent: Intent, ref: KeyRef, now_us: int) -> None:
        """DESTROY_SCHEDULED -> DESTROYED at destroy_time: the material leaves the row, the token and the journals."""
        erased: list[KeyVersion] = []

        async def body(changes: Changes) -> None:
            version = await self._version_in(changes, ref)
            due = version.destroy_us
            if version.state is not VersionState.DESTROY_SCHEDULED or due is None or due > now_us:
                return
            gone = replace(
                version, state=VersionState.DESTROYED, destroy_us=None, destroyed_us=changes.now_us, reference=b""
            )
            await changes.put_resource("key_version", gone)
            await self._tokens.condemn(changes, version.reference, version.protection_level)
            erased.append(version)

        await self._ledger.mutate(intent, body)
        await self._erase(erased)

    async def purge_if_due(self, intent: Intent, ref: KeyRef, now_us: int) -> None:
        """Purge a soft-deleted key at its purge_time."""
        erased: list[KeyVersion] = []

        async def body(changes: Changes) -> None:
            key = await self._key_in(changes, ref)
            if key.state is KeyState.DELETED and key.purge_us is not None and key.purge_us <= now_us:
                erased.extend(await self._purge(changes, key))

        await self._ledger.mutate(intent, body)
        await self._erase(erased)


def _key_exists() -> AlreadyExists:
    return AlreadyExists("KEY_EXISTS", "a key of this name exists or existed; names are never reused", field="key_id")


def key_deleted() -> FailedPrecondition:
    """The error of a call that a soft-deleted key does not permit."""
    return FailedPrecondition("KEY_DELETED", "the key is deleted; call UndeleteKey first")


def _rotates_by_import(field: str) -> InvalidArgument:
    return InvalidArgument(
        "IMPORT_ONLY_ROTATION", "a key whose versions are imported cannot rotate by itself", field=field
    )


def _check_minimum(minimum: int, most: int) -> None:
    if not 0 <= minimum <= most:
        raise InvalidArgument(
            "MIN_DECRYPT_VERSION_RANGE",
            "min_decrypt_version must be 0 to the number of the primary version",
            field="key.min_decrypt_version",
        )


def _require_not_destroying(version: KeyVersion, advice: str) -> None:
    if version.state in {VersionState.DESTROY_SCHEDULED, VersionState.DESTROYED}:
        reason = f"KEY_VERSION_{version.state.value}"
        raise FailedPrecondition(reason, f"the key version is {version.state.value}; {advice}")
