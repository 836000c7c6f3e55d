"""Life of secrets and their versions: the state machine, and nothing else may change it.

    version: ENABLED <-> DISABLED;  ENABLED, DISABLED -> DESTROYED
    secret:  ACTIVE <-> DELETED -> PURGED                              (PURGED keeps the name taken for ever)

`latest` is the newest version; `current` the one in service; `previous` the one that was in service before `current` last moved.
An alias never moves because of a state: what was disabled is refused, and not something older given out in its place.

A version that no alias names is old.  Old versions beyond the newest `keep_versions` are destroyed by the change that makes them
so; those that are old for `version_ttl`, by the scheduler.

Every mutation is atomic and durable when it returns, and safe to retry with a request id.
"""

from __future__ import annotations

import asyncio
import os
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Final

import google_crc32c

from vaultd import failpoints
from vaultd.engine.etags import check_etag
from vaultd.engine.model import SecretState, SecretVersion, SecretVersionState, StoredSecret
from vaultd.engine.rotation_model import drop_rotation
from vaultd.engine.secret_aliases import (
    CURRENT,
    moved_to,
    named,
    number_of,
    require_movable,
    secret_version_not_found,
    sorted_out,
    without,
)
from vaultd.engine.secret_payloads import pad_payload
from vaultd.engine.vaults import vault_in, vault_key
from vaultd.errors import AlreadyExists, FailedPrecondition, InvalidArgument, NotFound
from vaultd.secret import Secret
from vaultd.store.base import RowKey

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from vaultd.engine.clock import Clock
    from vaultd.engine.ledger import Changes, Intent, Ledger, OpenRow
    from vaultd.engine.scrubbing import Scrubber
    from vaultd.names import SecretRef

KIND: Final = "secret"
VERSION_KIND: Final = "secret_version"
MAX_VERSIONS: Final = 10_000
"""Numbers that a secret can give out; rows of destroyed versions stay until the secret is purged."""
ERASED_AT_ONCE: Final = 250
"""Versions that a purge erases in one transaction: some ten milliseconds in which nothing else is done."""


@dataclass(frozen=True, slots=True)
class SecretSpec:
    """What a caller asks of a new secret."""

    labels: Mapping[str, str] = field(default_factory=dict)
    owner: str = ""
    metadata: Mapping[str, Any] = field(default_factory=dict)
    keep_versions: int = 0
    version_ttl_us: int | None = None
    purge_protection: bool = False


@dataclass(frozen=True, slots=True)
class NewVersion:
    """A version to add."""

    payload: Secret
    content_type: str = ""
    metadata: Mapping[str, Any] = field(default_factory=dict)
    expire_us: int | None = None


def secret_not_found() -> NotFound:
    """The error for a secret that is not there."""
    return NotFound("SECRET_NOT_FOUND", "no such secret; ListSecrets shows the secrets of a vault")


def secret_deleted() -> FailedPrecondition:
    """The error for a secret that is soft-deleted."""
    return FailedPrecondition(
        "SECRET_DELETED", "the secret is deleted; call UndeleteSecret before its purge_time to have it back"
    )


def version_refusal(state: SecretVersionState) -> FailedPrecondition:
    """The error for a version that its state, which is not ENABLED, keeps from being given out."""
    if state is SecretVersionState.DISABLED:
        return FailedPrecondition(
            "SECRET_VERSION_DISABLED",
            "the version is DISABLED; call EnableSecretVersion, or SetAlias to another version",
        )
    return FailedPrecondition(
        "SECRET_VERSION_DESTROYED",
        "the version is DESTROYED, and its payload is gone; call AddSecretVersion, or SetAlias to another version",
    )


def version_expired() -> FailedPrecondition:
    """The error for a version whose expire_time has come."""
    return FailedPrecondition(
        "SECRET_VERSION_EXPIRED",
        "the version's expire_time has passed; call AddSecretVersion, or SetAlias to another one",
    )


class Secrets:
    """Creates secrets and moves them and their versions from state to state."""

    def __init__(self, ledger: Ledger, clock: Clock, deletion_retention_us: int, scrubber: Scrubber) -> None:
        self._ledger = ledger
        self._clock = clock
        self._deletion_retention_us = deletion_retention_us
        self._scrubber = scrubber

    # -- reading --------------------------------------------------------------------------------------------------------

    async def get(self, ref: SecretRef) -> StoredSecret:
        """Read a secret, also a soft-deleted one; raises NotFound."""
        return _secret(await self._ledger.read(RowKey(KIND, ref.vault, ref.secret, 0)))

    async def list_secrets(self, vault: str, after: str, limit: int, *, deleted: bool) -> list[StoredSecret]:
        """Read secrets by id, after an id; raises NotFound for a vault that is not there."""
        vault_in(await self._ledger.read(vault_key(vault)))
        states = (SecretState.ACTIVE.value, SecretState.DELETED.value) if deleted else (SecretState.ACTIVE.value,)
        return [row.resource() for row in await self._ledger.list(KIND, vault, after, limit, states)]

    async def get_version(self, ref: SecretRef) -> SecretVersion:
        """Read a version by number, alias or bare name; raises NotFound."""
        number = number_of(await self.get(ref), ref)
        return _version(await self._ledger.read(RowKey(VERSION_KIND, ref.vault, ref.secret, number)))

    async def list_versions(self, ref: SecretRef, after: int = 0, limit: int | None = None) -> list[SecretVersion]:
        """Read versions of a secret after one, oldest first, all or `limit` of them; raises NotFound."""
        await self.get(ref)
        rows = await self._ledger.versions(VERSION_KIND, ref.vault, ref.secret, after, limit)
        return [row.resource() for row in rows]

    # -- inside a change ------------------------------------------------------------------------------------------------

    @staticmethod
    async def secret_in(changes: Changes, ref: SecretRef) -> StoredSecret:
        """The secret as it was before this change, also a soft-deleted one; raises NotFound."""
        return _secret(await changes.get(RowKey(KIND, ref.vault, ref.secret, 0)))

    async def active_in(self, changes: Changes, ref: SecretRef) -> StoredSecret:
        """The secret as it was before this change; raises NotFound, or FailedPrecondition when it is soft-deleted."""
        secret = await self.secret_in(changes, ref)
        if secret.state is not SecretState.ACTIVE:
            raise secret_deleted()
        return secret

    @staticmethod
    async def version_in(changes: Changes, secret: StoredSecret, number: int) -> SecretVersion:
        """A version as it was before this change; raises NotFound."""
        return _version(await changes.get(RowKey(VERSION_KIND, secret.vault, secret.id, number)))

    async def put_version_in(
        self, changes: Changes, secret: StoredSecret, new: NewVersion, *, keep_current: bool = False
    ) -> tuple[StoredSecret, SecretVersion]:
        """Write the next version of a secret, and return the secret that `put_in` is to write, and the version.

        Raises InvalidArgument for an expiry that is past, FailedPrecondition when the numbers are used up.
        """
        if new.expire_us is not None and new.expire_us <= changes.now_us:
            raise InvalidArgument("EXPIRE_TIME_PAST", "expire_time must be in the future", field="expire_time")
        if secret.latest >= MAX_VERSIONS:
            raise FailedPrecondition(
                "TOO_MANY_VERSIONS", f"a secret has at most {MAX_VERSIONS} versions in its life; create another secret"
            )
        number = secret.latest + 1
        payload = new.payload.expose("measured, and padded for the store")
        version = SecretVersion(
            vault=secret.vault,
            secret=secret.id,
            uid=secret.uid,
            number=number,
            state=SecretVersionState.ENABLED,
            content_type=new.content_type,
            metadata=dict(new.metadata),
            payload_bytes=len(payload),
            payload_crc32c=google_crc32c.value(payload),
            create_us=changes.now_us,
            expire_us=new.expire_us,
        )
        written = await changes.put_resource(VERSION_KIND, version, secret=Secret(pad_payload(payload)))
        added = replace(secret, latest=number, live=(*secret.live, (number, 0)))
        return (added if keep_current and secret.current else moved_to(added, number)), written

    async def put_in(self, changes: Changes, secret: StoredSecret) -> StoredSecret:
        """Write a secret, and destroy the versions that it no longer keeps."""
        secret, surplus = sorted_out(secret, changes.now_us)
        await self._destroy_in(changes, secret, surplus)
        return await changes.put_resource(KIND, replace(secret, update_us=changes.now_us))

    async def disable_in(self, changes: Changes, secret: StoredSecret, number: int) -> None:
        """Stop access to a version that a rotation retired, if it is still given out."""
        version = await self.version_in(changes, secret, number)
        if version.state is SecretVersionState.ENABLED:
            disabled = replace(version, state=SecretVersionState.DISABLED)
            await changes.put_resource(VERSION_KIND, disabled, keep_secret=True)

    async def _destroy_in(self, changes: Changes, secret: StoredSecret, numbers: Sequence[int]) -> None:
        """Write versions without their payloads."""
        for number in numbers:
            version = await self.version_in(changes, secret, number)
            await changes.put_resource(VERSION_KIND, _destroyed(version, changes.now_us))
        if numbers:
            self._scrubber.note()

    # -- changing a secret ----------------------------------------------------------------------------------------------

    async def create(
        self, intent: Intent, vault: str, secret_id: str, spec: SecretSpec, first: NewVersion | None = None
    ) -> StoredSecret:
        """Create a secret, with a first version or none.  Raises AlreadyExists for a name that is or ever was."""

        async def body(changes: Changes) -> StoredSecret:
            vault_in(await changes.get(vault_key(vault)))
            if await changes.get(RowKey(KIND, vault, secret_id, 0)) is not None:
                raise AlreadyExists(
                    "SECRET_EXISTS",
                    "a secret of this name exists or existed; names are never reused",
                    field="secret_id",
                )
            secret = StoredSecret(
                vault=vault,
                id=secret_id,
                uid=os.urandom(16),
                labels=dict(spec.labels),
                owner=spec.owner,
                metadata=dict(spec.metadata),
                keep_versions=spec.keep_versions,
                version_ttl_us=spec.version_ttl_us,
                purge_protection=spec.purge_protection,
                state=SecretState.ACTIVE,
                create_us=changes.now_us,
                update_us=changes.now_us,
            )
            if first is not None:
                secret, _ = await self.put_version_in(changes, secret, first)
            return await self.put_in(changes, secret)

        return await self._ledger.mutate(intent, body)

    async def update(self, intent: Intent, ref: SecretRef, fields: Mapping[str, Any], etag: str = "") -> StoredSecret:
        """Change labels, owner, metadata, retention, purge protection; what retention no longer keeps is destroyed."""

        async def body(changes: Changes) -> StoredSecret:
            old = await self.active_in(changes, ref)
            check_etag(etag, old.etag)
            if old.purge_protection and fields.get("purge_protection") is False:
                raise FailedPrecondition(
                    "PURGE_PROTECTION_STAYS", "purge_protection cannot be cleared", field="secret.purge_protection"
                )
            changed = replace(old, **fields)
            return old if changed == old else await self.put_in(changes, changed)

        return await self._ledger.mutate(intent, body)

    async def set_alias(
        self, intent: Intent, ref: SecretRef, alias: str, target: SecretRef, etag: str = ""
    ) -> StoredSecret:
        """Let an alias name a version that can be accessed.  Moving `current` moves `previous` to where `current` was."""

        async def body(changes: Changes) -> StoredSecret:
            old = await self.active_in(changes, ref)
            check_etag(etag, old.etag)
            version = await self.version_in(changes, old, number_of(old, target))
            if version.state is not SecretVersionState.ENABLED:
                raise version_refusal(version.state)
            if version.expire_us is not None and version.expire_us <= changes.now_us:
                raise version_expired()
            changed = named(old, alias, version.number)
            return old if changed == old else await self.put_in(changes, changed)

        require_movable(alias)
        if (target.vault, target.secret) != (ref.vault, ref.secret):
            raise InvalidArgument("OTHER_SECRET", "an alias names a version of its own secret", field="version")
        return await self._ledger.mutate(intent, body)

    async def remove_alias(self, intent: Intent, ref: SecretRef, alias: str, etag: str = "") -> StoredSecret:
        """Forget an alias; nothing happens when there is none."""

        async def body(changes: Changes) -> StoredSecret:
            secret = await self.active_in(changes, ref)
            check_etag(etag, secret.etag)
            if alias not in secret.aliases:
                return secret
            aliases = {name: number for name, number in secret.aliases.items() if name != alias}
            return await self.put_in(changes, replace(secret, aliases=aliases))

        require_movable(alias)
        if alias == CURRENT:
            raise InvalidArgument(
                "ALIAS_STAYS", "`current` cannot be removed; let it name another version", field="alias"
            )
        return await self._ledger.mutate(intent, body)

    async def delete(self, intent: Intent, ref: SecretRef, etag: str = "") -> StoredSecret:
        """Soft-delete: no access from now on, purged at purge_time."""

        def change(secret: StoredSecret, now_us: int) -> StoredSecret:
            if secret.state is SecretState.DELETED:
                return secret
            purge_us = now_us + self._deletion_retention_us
            return replace(secret, state=SecretState.DELETED, delete_us=now_us, purge_us=purge_us)

        return await self._change(intent, ref, etag, change)

    async def undelete(self, intent: Intent, ref: SecretRef, etag: str = "") -> StoredSecret:
        """Bring a soft-deleted secret back as it was."""

        def change(secret: StoredSecret, now_us: int) -> StoredSecret:
            del now_us
            return replace(secret, state=SecretState.ACTIVE, delete_us=None, purge_us=None)

        return await self._change(intent, ref, etag, change)

    async def _change(
        self, intent: Intent, ref: SecretRef, etag: str, change: Callable[[StoredSecret, int], StoredSecret]
    ) -> StoredSecret:
        async def body(changes: Changes) -> StoredSecret:
            old = await self.secret_in(changes, ref)
            check_etag(etag, old.etag)
            changed = change(old, changes.now_us)
            if changed == old:
                return old
            return await changes.put_resource(KIND, replace(changed, update_us=changes.now_us))

        return await self._ledger.mutate(intent, body)

    async def purge(self, intent: Intent, ref: SecretRef, etag: str = "") -> None:
        """Erase a soft-deleted secret and its payloads; the name stays taken.

        The secret is gone, durably and for all, before the first payload is, and all payloads are when this returns.  Many take
        several transactions: what a crash left is erased by a repeated call or by the scheduler.
        """

        async def body(changes: Changes) -> None:
            if await self._half_purged_in(changes, ref) is not None:
                return
            secret = await self.secret_in(changes, ref)
            check_etag(etag, secret.etag)
            if secret.state is not SecretState.DELETED:
                raise FailedPrecondition(
                    "SECRET_NOT_DELETED", "only a deleted secret can be purged; call DeleteSecret first"
                )
            if secret.purge_protection and (secret.purge_us is None or changes.now_us < secret.purge_us):
                raise FailedPrecondition(
                    "PURGE_PROTECTED", "the secret has purge protection; it is purged at its purge_time"
                )
            await self._purge(changes, secret)

        await self._ledger.mutate(intent, body)
        await self._erase_rest(ref)
        await self._scrubber.run()

    async def _purge(self, changes: Changes, secret: StoredSecret) -> None:
        """Leave a tombstone: nothing but the erasure of versions can come after it."""
        rest = await self._erase_some(changes, secret)
        tombstone = replace(
            secret,
            labels={},
            owner="",
            metadata={},
            version_ttl_us=None,
            state=SecretState.PURGED,
            current=0,
            previous=0,
            aliases={},
            live=(),
            purge_us=changes.now_us if rest else None,
        )
        await changes.put_resource(KIND, tombstone)
        await drop_rotation(changes, secret.vault, secret.id)

    async def _erase_some(self, changes: Changes, secret: StoredSecret) -> bool:
        """Erase the first versions that are left; whether there may be more of them."""
        rows = await changes.versions(VERSION_KIND, secret.vault, secret.id, ERASED_AT_ONCE)
        for row in rows:
            await changes.delete(row.row.key)
        self._scrubber.note()
        return len(rows) == ERASED_AT_ONCE

    async def _erase_rest(self, ref: SecretRef) -> None:
        """Erase, step by step, what a purge left of the versions.  Two who do this at once share the work."""
        rest = True
        while rest:
            await asyncio.sleep(0)
            async with self._ledger.change() as changes:
                tombstone = await self._half_purged_in(changes, ref)
                if tombstone is None:
                    return
                rest = await self._erase_some(changes, tombstone)
                if not rest:
                    await changes.keep_books(KIND, replace(tombstone, purge_us=None))
            failpoints.hit("secret.erased_some")

    @staticmethod
    async def _half_purged_in(changes: Changes, ref: SecretRef) -> StoredSecret | None:
        """The tombstone of a secret that has versions left to erase, or None."""
        found = await changes.get(RowKey(KIND, ref.vault, ref.secret, 0))
        if found is None or found.row.state != SecretState.PURGED.value or found.row.due_at is None:
            return None
        return found.resource()  # type: ignore[no-any-return]  # a row of kind `secret` holds a StoredSecret

    # -- versions -------------------------------------------------------------------------------------------------------

    async def add_version(
        self, intent: Intent, ref: SecretRef, new: NewVersion, etag: str = "", *, keep_current: bool = False
    ) -> SecretVersion:
        """Add a version, in service at once unless keep_current; the first one is in any case.

        With an etag, that of the secret, this is compare-and-set.  The version's etag is the secret's new one, too: both are
        the revision of this change.
        """

        async def body(changes: Changes) -> SecretVersion:
            secret = await self.active_in(changes, ref)
            check_etag(etag, secret.etag)
            secret, version = await self.put_version_in(changes, secret, new, keep_current=keep_current)
            await self.put_in(changes, secret)
            return version

        return await self._ledger.mutate(intent, body)

    async def enable_version(self, intent: Intent, ref: SecretRef, etag: str = "") -> SecretVersion:
        """DISABLED -> ENABLED."""
        return await self._set_state(intent, ref, etag, SecretVersionState.ENABLED)

    async def disable_version(self, intent: Intent, ref: SecretRef, etag: str = "") -> SecretVersion:
        """ENABLED -> DISABLED; no access succeeds on this node once it returned."""
        return await self._set_state(intent, ref, etag, SecretVersionState.DISABLED)

    async def _set_state(self, intent: Intent, ref: SecretRef, etag: str, state: SecretVersionState) -> SecretVersion:
        async def body(changes: Changes) -> SecretVersion:
            version = await self.version_in(changes, await self.active_in(changes, ref), ref.version)
            check_etag(etag, version.etag)
            if version.state is SecretVersionState.DESTROYED:
                raise version_refusal(version.state)
            if version.state is state:
                return version
            return await changes.put_resource(VERSION_KIND, replace(version, state=state), keep_secret=True)

        return await self._ledger.mutate(intent, body)

    async def destroy_version(self, intent: Intent, ref: SecretRef, etag: str = "") -> SecretVersion:
        """ENABLED or DISABLED -> DESTROYED: the payload leaves the row and the journals."""

        async def body(changes: Changes) -> SecretVersion:
            secret = await self.active_in(changes, ref)
            version = await self.version_in(changes, secret, ref.version)
            check_etag(etag, version.etag)
            if version.state is SecretVersionState.DESTROYED:
                return version
            gone = await changes.put_resource(VERSION_KIND, _destroyed(version, changes.now_us))
            await changes.keep_books(KIND, without(secret, [version.number]))
            self._scrubber.note()
            return gone

        gone = await self._ledger.mutate(intent, body)
        await self._scrubber.run()
        return gone

    # -- what the scheduler does ----------------------------------------------------------------------------------------

    async def destroy_old_if_due(self, intent: Intent, ref: SecretRef, now_us: int) -> list[int]:
        """Destroy the versions that no alias has named for `version_ttl`; returns their numbers.  The etag stays."""
        old: list[int] = []

        async def body(changes: Changes) -> None:
            secret = await self.secret_in(changes, ref)
            ttl_us = secret.version_ttl_us
            if secret.state is not SecretState.ACTIVE or ttl_us is None:
                return
            old.extend(number for number, since_us in secret.live if since_us and since_us + ttl_us <= now_us)
            if old:
                await self._destroy_in(changes, secret, old)
                await changes.keep_books(KIND, without(secret, old))

        await self._ledger.mutate(intent, body)
        return old

    async def purge_if_due(self, intent: Intent, ref: SecretRef, now_us: int) -> None:
        """Purge a soft-deleted secret at its purge_time, or go on with a purge that a crash cut short."""

        async def body(changes: Changes) -> None:
            if await self._half_purged_in(changes, ref) is not None:
                return
            secret = await self.secret_in(changes, ref)
            if secret.state is SecretState.DELETED and secret.purge_us is not None and secret.purge_us <= now_us:
                await self._purge(changes, secret)

        await self._ledger.mutate(intent, body)
        await self._erase_rest(ref)


def _secret(found: OpenRow | None) -> StoredSecret:
    if found is None or found.row.state == SecretState.PURGED.value:
        raise secret_not_found()
    return found.resource()  # type: ignore[no-any-return]  # a row of kind `secret` holds a StoredSecret


def _version(found: OpenRow | None) -> SecretVersion:
    if found is None:
        raise secret_version_not_found()
    return found.resource()  # type: ignore[no-any-return]  # a row of kind `secret_version` holds a SecretVersion


def _destroyed(version: SecretVersion, now_us: int) -> SecretVersion:
    return replace(version, state=SecretVersionState.DESTROYED, payload_bytes=0, payload_crc32c=0, destroyed_us=now_us)
