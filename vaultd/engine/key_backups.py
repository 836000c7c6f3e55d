"""Backups of single keys: a key with all its versions, sealed so that only this ring opens it, and put back where it was.

A backup opens with the ring that sealed it, which every copy of the store carries: here, and on a server restored from any
backup of the store.  It is put back under its own name in its own vault, or not at all: a uid lives at one name, for ever, and
a name never comes to mean another key.  docs/import-export.md says what that means for those who restore.
"""

from __future__ import annotations

import hmac
from base64 import b64decode, b64encode
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final

import orjson

from vaultd import failpoints
from vaultd.backends.base import Material
from vaultd.engine.algorithms import ALGORITHMS, ProtectionLevel
from vaultd.engine.catalog import key_not_found, no_backend
from vaultd.engine.key_reads import key_deleted
from vaultd.engine.model import Key, KeyState, KeyVersion, VersionState, decode_resource, encode_resource
from vaultd.errors import AlreadyExists, DataLoss, FailedPrecondition, InvalidArgument, NotFound
from vaultd.secret import Secret
from vaultd.store.base import RowKey

if TYPE_CHECKING:
    from collections.abc import Mapping

    from vaultd.backends.base import Backend
    from vaultd.engine.ledger import Changes, Intent, Ledger
    from vaultd.engine.usage import BudgetBook
    from vaultd.names import KeyRef

FORMAT: Final = 1
MAX_BACKUP_BYTES: Final = 3584 * 1024
"""So that an answer and a request with it stay below 4 MiB."""
CHECK_BYTES: Final = 16


@dataclass(frozen=True, slots=True)
class KeyBackup:
    """A sealed key."""

    name: str
    blob: bytes
    versions: int


@dataclass(frozen=True, slots=True)
class _Kept:
    """A version as a backup has it.  `check` tells whether the material is the one that was backed up."""

    version: KeyVersion
    secret: Secret | None
    check: bytes


@dataclass(frozen=True, slots=True)
class _Opened:
    """What a backup holds."""

    vault_uid: bytes
    key: Key
    versions: tuple[_Kept, ...]


class KeyBackups:
    """Seals keys, and puts them back."""

    def __init__(self, ledger: Ledger, backends: Mapping[ProtectionLevel, Backend], budgets: BudgetBook) -> None:
        self._ledger = ledger
        self._backends = backends
        self._budgets = budgets

    async def back_up(self, ref: KeyRef) -> KeyBackup:
        """Seal a key as it is at one moment, once each version was opened and found to be what its row says.

        Raises NotFound; FailedPrecondition: KEY_DELETED, HSM_KEY_NOT_EXPORTABLE, KEY_BACKUP_TOO_LARGE; DataLoss.
        """
        kept: list[_Kept] = []
        async with self._ledger.change() as changes:  # which changes nothing: all rows are of one moment
            found = await changes.get(RowKey("key", ref.vault, ref.key, 0))
            if found is None or found.row.state == KeyState.PURGED.value:
                raise key_not_found()
            key: Key = found.resource()
            if key.state is not KeyState.ACTIVE:
                raise key_deleted()
            home = await changes.get(RowKey("vault", "", ref.vault, 0))
            vault_uid = home.row.uid if home is not None else b""
            sealer = self._ledger.sealer
            for row in await changes.versions("key_version", ref.vault, ref.key):
                secret = sealer.open_secret(row.row) if row.row.secret is not None else None
                kept.append(_Kept(row.resource(), secret, b""))
        checked = [replace(one, check=await self._check(one)) for one in kept]
        blob = self._ledger.sealer.seal_backup(_dump(_Opened(vault_uid, key, tuple(checked))))
        if len(blob) > MAX_BACKUP_BYTES:
            raise FailedPrecondition(
                "KEY_BACKUP_TOO_LARGE",
                "the key has too many versions for a backup by itself; destroy old ones, or use `vaultd backup`",
            )
        return KeyBackup(key.name, blob, len(checked))

    async def _check(self, kept: _Kept) -> bytes:
        """Open the material, and compare it with the public key; its check value, b"" where there is no material."""
        version, level = kept.version, kept.version.protection_level
        backend = self._backends.get(level)
        if backend is None:
            raise no_backend(level)
        if kept.secret is None and level is not ProtectionLevel.HSM:
            return b""  # DESTROYED
        name = version.algorithm.name
        revealed = await backend.reveal(name, Material(kept.secret, version.reference, version.public_key))
        if revealed.public_key != version.public_key:
            raise DataLoss(
                "KEY_PAIR_MISMATCH", "a stored private key is not that of its public key; restore from a backup"
            )
        return check_value(name, revealed.secret)

    async def _check_of_backup(self, kept: _Kept) -> bytes:
        """The same, of what a caller brought: what is wrong with it is no alarm about the store."""
        try:
            return await self._check(kept)
        except (DataLoss, InvalidArgument) as error:
            if error.reason == "ENVELOPE_MISMATCH":
                raise FailedPrecondition(
                    "KEY_BACKUP_TOKEN_MISMATCH",
                    "the key was wrapped by a token's key that is not the one here; restore that token first",
                ) from None
            raise _unreadable() from None

    async def restore(self, intent: Intent, vault: str, blob: bytes) -> Key:
        """Put a key back, whole or not at all.

        Every version is opened and checked before anything is written.  Raises InvalidArgument, KEY_BACKUP_UNREADABLE, for
        what this ring did not seal, with one text whatever is wrong; AlreadyExists for a key that is there;
        FailedPrecondition for a backup of another vault, or of a later release.
        """
        known, answer = await self._ledger.answered(intent)
        if known:
            return answer  # type: ignore[no-any-return]  # what restore stored
        opened = _load(self._ledger.sealer.open_backup(blob))
        key = opened.key
        if key.vault != vault:
            raise FailedPrecondition(
                "KEY_BACKUP_OF_ANOTHER_VAULT", "the backup is of a key of another vault; keys do not cross vaults"
            )
        for kept in opened.versions:
            if not hmac.compare_digest(await self._check_of_backup(kept), kept.check):
                raise _unreadable()
        failpoints.hit("key_backup.checked")

        async def body(changes: Changes) -> Key:
            home = await changes.get(RowKey("vault", "", vault, 0))
            if home is None or home.row.state != "ACTIVE":
                raise NotFound("VAULT_NOT_FOUND", "no such vault; ListVaults shows the vaults")
            if home.row.uid != opened.vault_uid:
                raise FailedPrecondition(
                    "KEY_BACKUP_OF_ANOTHER_VAULT", "the backup is of a vault that had this name elsewhere"
                )
            newest = key.newest
            there = await changes.get(RowKey("key", vault, key.id, 0))
            if there is not None:
                if there.row.state != KeyState.PURGED.value or there.row.uid != key.uid:
                    raise AlreadyExists(
                        "KEY_EXISTS",
                        "a key of this name is there, or was and was another; only a key that is gone can be restored",
                    )
                # Numbers of versions that came after the backup are not used again for other material.
                newest = max(newest, there.resource().newest)
            for kept in opened.versions:
                version = kept.version
                if version.state is VersionState.DESTROY_SCHEDULED and version.destroy_us is not None:
                    # Whoever restores may want it: its delay begins anew.
                    due_us = max(version.destroy_us, changes.now_us + key.destroy_delay_us)
                    version = replace(version, destroy_us=due_us)
                await changes.put_resource("key_version", version, secret=kept.secret)
                # What it encrypted after the backup is not known, and may be all that it may.
                await self._budgets.spend_before(changes, key, version.number, None)
            back = replace(
                key, state=KeyState.ACTIVE, newest=newest, update_us=changes.now_us, delete_us=None, purge_us=None
            )
            return await changes.put_resource("key", back)

        restored = await self._ledger.mutate(intent, body)
        for kept in opened.versions:
            self._budgets.exhaust(restored.uid, kept.version.number)
        if restored.algorithm.max_messages is not None and restored.primary:
            self._budgets.low.add(RowKey("budget", vault, restored.id, restored.primary))  # the scheduler rotates it
        return restored


def check_value(algorithm: str, secret: Secret) -> bytes:
    """16 bytes that tell whether material is the same; kept inside of backups only."""
    label = b"vaultd key check v1 " + algorithm.encode("ascii")
    return hmac.digest(secret.expose("compute its check value"), label, "sha256")[:CHECK_BYTES]


def _dump(opened: _Opened) -> bytes:
    versions = [
        {
            "version": encode_resource(kept.version),
            "secret": _text(kept.secret.expose("sealed in the key's backup")) if kept.secret is not None else None,
            "check": _text(kept.check),
        }
        for kept in opened.versions
    ]
    values = {
        "format": FORMAT,
        "vault_uid": _text(opened.vault_uid),
        "key": encode_resource(opened.key),
        "versions": versions,
    }
    return orjson.dumps(values, option=orjson.OPT_SORT_KEYS)


def _text(value: bytes) -> str:
    return b64encode(value).decode("ascii")


def _load(dumped: bytes | None) -> _Opened:
    """Read what `_dump` gave.  What opened is of our own making, or of a later release's."""
    if dumped is None:
        raise _unreadable()
    values = orjson.loads(dumped)
    if values["format"] != FORMAT or _unknown_to_us(values):
        raise FailedPrecondition(
            "KEY_BACKUP_NEWER", "the backup was made by a later release of vaultd; restore it with that one"
        )
    return _Opened(
        b64decode(values["vault_uid"]),
        decode_resource(values["key"]),
        tuple(
            _Kept(
                decode_resource(one["version"]),
                Secret(b64decode(one["secret"])) if one["secret"] is not None else None,
                b64decode(one["check"]),
            )
            for one in values["versions"]
        ),
    )


def _unknown_to_us(values: Mapping[str, Any]) -> bool:
    levels = {level.value for level in ProtectionLevel}
    return values["key"]["algorithm"] not in ALGORITHMS or values["key"]["protection_level"] not in levels


def _unreadable() -> InvalidArgument:
    return InvalidArgument(
        "KEY_BACKUP_UNREADABLE",
        "this is no whole and unaltered backup of a key by this vaultd, or by the one whose store it was restored from",
        field="backup",
    )
