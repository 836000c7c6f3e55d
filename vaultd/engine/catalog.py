"""Keys in memory, ready for use: what a call looks up instead of asking the store.

Staleness: a change made by this process is seen by the next call; one made by another process within one poll of the feed
(100 ms by default).  Key material stays sealed until a version is first used.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final

from vaultd.backends.base import BulkEncryption, Material
from vaultd.engine.algorithms import ProtectionLevel
from vaultd.engine.ledger import ROWS_PER_TURN
from vaultd.engine.model import Key, KeyState, KeyVersion, VersionState
from vaultd.errors import FailedPrecondition, NotFound, VaultdError
from vaultd.store.base import RowKey

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from vaultd.backends.base import Backend, Handle
    from vaultd.engine.ledger import Ledger
    from vaultd.engine.usage import Budget, BudgetBook, UsageBook, VersionUsage
    from vaultd.names import KeyRef
    from vaultd.store.base import Change, Row

FORMAT: Final = b"\x01"
HEADER_BYTES: Final = 1 + 16 + 4


def ciphertext_header(uid: bytes, number: int) -> bytes:
    """Format byte, uid of the key, version (docs/formats.md)."""
    return FORMAT + uid + number.to_bytes(4, "big")


def key_not_found() -> NotFound:
    """The error for a key that is not there."""
    return NotFound("KEY_NOT_FOUND", "no such key; ListKeys shows the keys of a vault")


def version_not_found() -> NotFound:
    """The error for a version that is not there."""
    return NotFound("KEY_VERSION_NOT_FOUND", "no such key version; ListKeyVersions shows the versions of a key")


def below_minimum() -> FailedPrecondition:
    """The error for a version that the key's minimum puts out of use."""
    return FailedPrecondition(
        "KEY_VERSION_BELOW_MINIMUM",
        "the key version is below the key's min_decrypt_version; use a newer one, or lower the minimum with UpdateKey",
    )


def no_backend(level: ProtectionLevel) -> FailedPrecondition:
    """The error for a protection level that this server is not configured for."""
    return FailedPrecondition(
        "PROTECTION_LEVEL_UNAVAILABLE",
        f"this server has no backend for {level.value} keys; GetCapabilities lists what it has",
        field="key.protection_level",
    )


class LoadedVersion:
    """A version with everything that its use needs, computed once per revision."""

    __slots__ = (
        "_row",
        "backend",
        "below_minimum",
        "budget",
        "bulk",
        "handle",
        "header",
        "name",
        "prefix",
        "public_handle",
        "software",
        "unusable",
        "usage",
        "version",
    )

    def __init__(
        self,
        version: KeyVersion,
        row: Row,
        backend: Backend,
        software: Backend,
        usage: VersionUsage,
        budget: Budget | None,
        *,
        below_minimum: bool = False,
    ) -> None:
        self.version = version
        self.name = version.name
        self.header = ciphertext_header(version.uid, version.number)
        self.prefix = self.header if version.algorithm.self_describing else b""
        """What goes before the primitive's output in a ciphertext."""
        self.usage = usage
        self.budget = budget
        self.handle: Handle | None = None
        self.bulk: BulkEncryption | None = None
        """The same handle, if it encrypts many messages in one go, on the event loop."""
        self.public_handle: Handle | None = None
        self.below_minimum = below_minimum
        self.unusable = version.state is not VersionState.ENABLED or below_minimum
        self.backend = backend
        """Where the private or symmetric part is used."""
        self.software = software
        """Where the public part is used."""
        self._row = row

    def refusal(self) -> VaultdError:
        """Why this version may not be used."""
        state = self.version.state
        if state is VersionState.ENABLED:
            return below_minimum()
        advice = {
            VersionState.DISABLED: "call EnableKeyVersion to use it again",
            VersionState.DESTROY_SCHEDULED: "call RestoreKeyVersion before its destroy_time",
            VersionState.DESTROYED: "its material is gone",
        }.get(state, "")
        return FailedPrecondition(f"KEY_VERSION_{state.value}", f"the key version is {state.value}; {advice}")

    async def load(self, ledger: Ledger) -> Handle:
        """Open the material and make a handle; concurrent callers share one load."""
        if self.handle is None:
            version = self.version
            secret = ledger.sealer.open_secret(self._row) if self._row.secret is not None else None
            material = Material(secret, version.reference, version.public_key)
            handle = await self.backend.load(version.algorithm.name, material)
            if self.handle is None:
                self.handle = handle
                self.bulk = handle if handle.inline and isinstance(handle, BulkEncryption) else None
        return self.handle

    def load_public(self) -> Handle:
        """A handle for the public part."""
        if self.public_handle is None:
            self.public_handle = self.software.load_public(self.version.algorithm.name, self.version.public_key)
        return self.public_handle


class _Usable(dict[int, LoadedVersion]):
    """Versions that may be used, by number; the primary one is 0 as well.  Raises what says why another one may not be.

    Filled by use: a key may have thousands.
    """

    __slots__ = ("_all", "_primary")

    def __init__(self, versions: Mapping[int, LoadedVersion], primary: LoadedVersion | None) -> None:
        super().__init__()
        self._all = versions
        self._primary = primary

    def __missing__(self, number: int) -> LoadedVersion:
        version = self._all.get(number) if number else self._primary
        if version is None:
            if number:
                raise version_not_found()
            raise FailedPrecondition(
                "NO_PRIMARY_VERSION", "the key has no primary version; call RotateKey or SetPrimaryVersion"
            )
        if version.unusable:
            raise version.refusal()
        self[number] = version
        return version


class _ByHeader(dict[bytes, LoadedVersion | None]):
    """Versions by the header of their ciphertexts; None for what is no header of this key.  Filled by use, too."""

    __slots__ = ("_all", "_uid")

    def __init__(self, uid: bytes, versions: Mapping[int, LoadedVersion]) -> None:
        super().__init__()
        self._all = versions
        self._uid = uid

    def __missing__(self, header: bytes) -> LoadedVersion | None:
        number = int.from_bytes(header[HEADER_BYTES - 4 :], "big")
        version = self._all.get(number)
        if version is None or header != ciphertext_header(self._uid, number):
            return None
        self[header] = version
        return version


class LoadedKey:
    """A key and its versions."""

    __slots__ = ("by_header", "expire_us", "key", "primary", "purpose", "self_describing", "usable", "versions")

    def __init__(self, key: Key, versions: Mapping[int, LoadedVersion]) -> None:
        self.key = key
        self.versions = versions
        self.primary = versions.get(key.primary)
        self.usable = _Usable(versions, self.primary)
        """The version of a number, the primary one for 0.  Raises NotFound, or FailedPrecondition unless it may be used."""
        self.purpose = key.algorithm.purpose
        self.self_describing = key.algorithm.self_describing
        self.by_header = _ByHeader(key.uid, versions)
        """Versions by the header of their ciphertexts, where these have one."""
        self.expire_us = key.expire_us


class KeyCatalog:
    """Read-through cache of keys, bounded in keys; the oldest loaded goes first."""

    def __init__(
        self,
        ledger: Ledger,
        backends: Mapping[ProtectionLevel, Backend],
        usage: UsageBook,
        budgets: BudgetBook,
        max_keys: int = 100_000,
    ) -> None:
        self._ledger = ledger
        self._backends = backends
        self._usage = usage
        self._budgets = budgets
        self._max_keys = max_keys
        self._loaded: dict[tuple[str, str], LoadedKey] = {}
        self._loading: dict[tuple[str, str], asyncio.Task[LoadedKey]] = {}
        self.lookups = 0
        self.misses = 0
        """Look-ups of keys that had to be read, of all `lookups`; for metrics."""
        ledger.subscribe(self.forget_changed)

    def cached(self, ref: KeyRef) -> LoadedKey | None:
        """The key, if it is in memory."""
        self.lookups += 1
        return self._loaded.get((ref.vault, ref.key))

    def __len__(self) -> int:
        """Return the number of keys in memory."""
        return len(self._loaded)

    def algorithm_of(self, at: tuple[str, str]) -> str | None:
        """The algorithm of a key by vault and id, if it is in memory."""
        found = self._loaded.get(at)
        return None if found is None else found.key.algorithm.name

    async def load(self, ref: KeyRef) -> LoadedKey:
        """The key from memory or the store; raises NotFound, or FailedPrecondition when it is soft-deleted."""
        found = self._loaded.get((ref.vault, ref.key))
        if found is None:
            found = await self._read_through(ref.vault, ref.key)
        if found.key.state is KeyState.DELETED:
            raise FailedPrecondition("KEY_DELETED", "the key is deleted; call UndeleteKey before its purge_time")
        return found

    async def _read_through(self, vault: str, key: str) -> LoadedKey:
        at = (vault, key)
        self.misses += 1
        task = self._loading.get(at)
        if task is None:
            task = self._loading[at] = asyncio.get_running_loop().create_task(self._read(vault, key))
            task.add_done_callback(lambda done: self._store(at, done))
        return await asyncio.shield(task)

    def _store(self, at: tuple[str, str], task: asyncio.Task[LoadedKey]) -> None:
        # A change that was published meanwhile took the task out of _loading: what it read may be old, so it is not kept.
        if self._loading.get(at) is task:
            del self._loading[at]
            if not task.cancelled() and task.exception() is None:
                if len(self._loaded) >= self._max_keys:
                    del self._loaded[next(iter(self._loaded))]
                self._loaded[at] = task.result()
        elif not task.cancelled():
            task.exception()

    async def _read(self, vault: str, key: str) -> LoadedKey:
        row = await self._ledger.read(RowKey("key", vault, key, 0))
        if row is None or row.row.state == KeyState.PURGED.value:
            raise key_not_found()
        loaded: Key = row.resource()
        versions: dict[int, LoadedVersion] = {}
        algorithm = loaded.algorithm
        backend = self._backends.get(loaded.protection_level)
        if backend is None:
            raise no_backend(loaded.protection_level)
        for at, stored in enumerate(await self._ledger.versions("key_version", vault, key), start=1):
            if at % ROWS_PER_TURN == 0:
                await asyncio.sleep(0)
            version: KeyVersion = stored.resource()
            budget = None
            if algorithm.max_messages is not None:
                budget = self._budgets.budget(vault, key, version.number, loaded.uid, algorithm.max_messages)
            versions[version.number] = LoadedVersion(
                version,
                stored.row,
                backend,
                self._backends[ProtectionLevel.SOFTWARE],
                self._usage.counter(loaded.uid, version.number),
                budget,
                below_minimum=version.number < loaded.min_decrypt,
            )
        return LoadedKey(loaded, versions)

    def forget_changed(self, changes: Iterable[Change]) -> None:
        """Drop the keys that a change touched; the next use reads them again."""
        for change in changes:
            if change.key.kind in {"key", "key_version"}:
                at = (change.key.scope, change.key.id)
                self._loaded.pop(at, None)
                self._loading.pop(at, None)

    def forget_all(self) -> None:
        """Drop everything: at seal, and when the feed has a gap."""
        self._loaded.clear()
        self._loading.clear()
