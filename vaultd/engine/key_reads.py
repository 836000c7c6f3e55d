"""Keys and versions as rows of the store, read for an answer or within a change."""

from __future__ import annotations

from typing import TYPE_CHECKING

from vaultd.engine.catalog import key_not_found, version_not_found
from vaultd.engine.model import Key, KeyState, KeyVersion
from vaultd.errors import FailedPrecondition, NotFound
from vaultd.store.base import RowKey

if TYPE_CHECKING:
    from vaultd.engine.ledger import Changes, Ledger, OpenRow
    from vaultd.names import KeyRef


class KeyReader:
    """Reads what is committed."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger

    async def get_key(self, ref: KeyRef) -> Key:
        """Read a key, also a soft-deleted one; raises NotFound."""
        return _key(await self._ledger.read(RowKey("key", ref.vault, ref.key, 0)))

    async def list_keys(self, vault: str, after: str, limit: int, *, deleted: bool) -> list[Key]:
        """Read keys by id, after an id."""
        await self.require_vault(vault)
        states = (KeyState.ACTIVE.value, KeyState.DELETED.value) if deleted else (KeyState.ACTIVE.value,)
        return [row.resource() for row in await self._ledger.list("key", vault, after, limit, states)]

    async def get_version(self, ref: KeyRef) -> KeyVersion:
        """Read a version (a key: its primary one); raises NotFound."""
        key = await self.get_key(ref)
        number = ref.version or key.primary
        return _version(await self._ledger.read(RowKey("key_version", ref.vault, ref.key, number)))

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


async def key_in(changes: Changes, ref: KeyRef) -> Key:
    """The key of a change, also a soft-deleted one; raises NotFound."""
    return _key(await changes.get(RowKey("key", ref.vault, ref.key, 0)))


async def active_key_in(changes: Changes, ref: KeyRef) -> Key:
    """The key of a change; raises NotFound, and FailedPrecondition when it is soft-deleted."""
    key = await key_in(changes, ref)
    if key.state is not KeyState.ACTIVE:
        raise key_deleted()
    return key


async def version_in(changes: Changes, ref: KeyRef) -> KeyVersion:
    """The version of a change; raises NotFound."""
    return _version(await changes.get(RowKey("key_version", ref.vault, ref.key, ref.version)))


def _key(found: OpenRow | None) -> Key:
    if found is None or found.row.state == KeyState.PURGED.value:
        raise key_not_found()
    return found.resource()  # type: ignore[no-any-return]  # a row of kind `key` holds a Key


def _version(found: OpenRow | None) -> KeyVersion:
    if found is None:
        raise version_not_found()
    return found.resource()  # type: ignore[no-any-return]  # a row of kind `key_version` holds a KeyVersion


def key_deleted() -> FailedPrecondition:
    """The error of a call that a soft-deleted key does not permit."""
    return FailedPrecondition("KEY_DELETED", "the key is deleted; call UndeleteKey first")
