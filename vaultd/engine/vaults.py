"""Vaults: tenants.  A vault's name is never given to another tenant, not even after it is deleted."""

from __future__ import annotations

import os
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final

from vaultd.engine.etags import check_etag
from vaultd.engine.model import KeyState, SecretState, Vault, encode_resource
from vaultd.errors import AlreadyExists, FailedPrecondition, NotFound
from vaultd.store.base import RowKey

if TYPE_CHECKING:
    from collections.abc import Mapping

    from vaultd.engine.ledger import Changes, Intent, Ledger, OpenRow

DEFAULT_VAULT: Final = "default"
_ACTIVE: Final = "ACTIVE"
_GONE: Final = "GONE"


def vault_key(vault: str) -> RowKey:
    """Where the row of a vault is."""
    return RowKey("vault", "", vault, 0)


def vault_in(found: OpenRow | None) -> Vault:
    """The vault of a row; raises NotFound when there is none, or it was deleted."""
    if found is None or found.row.state != _ACTIVE:
        raise NotFound("VAULT_NOT_FOUND", "no such vault; ListVaults shows the vaults")
    return found.resource()  # type: ignore[no-any-return]  # a row of kind `vault` holds a Vault


async def put_new_vault(changes: Changes, vault: str, display_name: str, labels: Mapping[str, str]) -> Vault:
    """Write a vault that must not have existed before; raises AlreadyExists."""
    if await changes.get(vault_key(vault)) is not None:
        raise AlreadyExists(
            "VAULT_EXISTS", "a vault of this name exists or existed; names are never reused", field="vault_id"
        )
    fresh = Vault(vault, os.urandom(16), display_name, dict(labels), changes.now_us, changes.now_us)
    return await changes.put_resource("vault", fresh)


class Vaults:
    """Creates, reads, changes and deletes vaults.  Mutations are atomic, durable, and safe to retry with a request id."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger

    async def create(self, intent: Intent, vault: str, display_name: str, labels: Mapping[str, str]) -> Vault:
        """Create a vault; raises AlreadyExists."""

        async def body(changes: Changes) -> Vault:
            return await put_new_vault(changes, vault, display_name, labels)

        return await self._ledger.mutate(intent, body)

    async def get(self, vault: str) -> Vault:
        """Read a vault; raises NotFound."""
        return vault_in(await self._ledger.read(vault_key(vault)))

    async def list(self, after: str, limit: int) -> list[Vault]:
        """Read vaults by id, after an id."""
        return [row.resource() for row in await self._ledger.list("vault", "", after, limit, (_ACTIVE,))]

    async def update(self, intent: Intent, vault: str, fields: Mapping[str, Any], etag: str) -> Vault:
        """Change display name or labels; raises NotFound, Aborted."""

        async def body(changes: Changes) -> Vault:
            old = vault_in(await changes.get(vault_key(vault)))
            check_etag(etag, old.etag)
            new = replace(old, **fields)
            if new == old:
                return old
            return await changes.put_resource("vault", replace(new, update_us=changes.now_us))

        return await self._ledger.mutate(intent, body)

    async def delete(self, intent: Intent, vault: str, etag: str) -> None:
        """Delete a vault whose keys and secrets are all purged; raises NotFound, FailedPrecondition."""

        async def body(changes: Changes) -> None:
            old = vault_in(await changes.get(vault_key(vault)))
            check_etag(etag, old.etag)
            for state in (KeyState.ACTIVE, KeyState.DELETED):
                if await changes.any_row("key", vault, state.value):
                    raise FailedPrecondition("VAULT_NOT_EMPTY", "the vault has keys; delete and purge them first")
            for secrets in (SecretState.ACTIVE, SecretState.DELETED):
                if await changes.any_row("secret", vault, secrets.value):
                    raise FailedPrecondition("VAULT_NOT_EMPTY", "the vault has secrets; delete and purge them first")
            gone = replace(old, display_name="", labels={}, revision=changes.revision)
            await changes.put(vault_key(vault), old.uid, _GONE, None, encode_resource(gone))

        await self._ledger.mutate(intent, body)
