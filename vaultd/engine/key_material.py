"""How the material of versions is made and unmade, in tokens and in rows: what keys and versions share."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, TypeVar

from vaultd.engine.algorithms import Algorithm, ProtectionLevel
from vaultd.engine.catalog import no_backend
from vaultd.engine.model import Key, KeyVersion, VersionState
from vaultd.errors import VaultdError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

    from vaultd.backends.base import Backend, Material
    from vaultd.engine.ledger import Changes, Intent, Ledger
    from vaultd.engine.scrubbing import Scrubber
    from vaultd.engine.tokens import TokenObjects

R = TypeVar("R")


class KeyMaterial:
    """Makes material in the backends, and takes it out of them and of the store for good."""

    def __init__(
        self,
        ledger: Ledger,
        backends: Mapping[ProtectionLevel, Backend],
        tokens: TokenObjects,
        scrubber: Scrubber,
    ) -> None:
        self._ledger = ledger
        self._backends = backends
        self._tokens = tokens
        self._scrubber = scrubber

    def backend(self, level: ProtectionLevel) -> Backend:
        """Where keys of a level are used; raises FailedPrecondition when there is none."""
        backend = self._backends.get(level)
        if backend is None:
            raise no_backend(level)
        return backend

    @staticmethod
    def generator(backend: Backend, algorithm: Algorithm, label: str) -> Callable[[bytes], Awaitable[Material]]:
        """Makes fresh material of an algorithm, for `mutate`."""
        return lambda reference: backend.generate(algorithm.name, label, reference)

    async def mutate(
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

    async def put_version(
        self,
        changes: Changes,
        key: Key,
        number: int,
        material: Material,
        *,
        adopted: bool = False,
        imported: bool = False,
    ) -> KeyVersion:
        """Put a new version, ENABLED, with its material."""
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

    async def condemn(self, changes: Changes, version: KeyVersion) -> None:
        """Note that what a token holds of a version must go; `erase` does it once the change is committed."""
        await self._tokens.condemn(changes, version.reference, version.protection_level)

    async def erase(self, versions: list[KeyVersion]) -> None:
        """Take destroyed material out of tokens and out of the store's journals.  Repeating it is harmless."""
        for version in versions:
            if version.reference and version.protection_level is ProtectionLevel.HSM:
                with suppress(VaultdError):  # the scheduler tries again, and records why it cannot
                    await self._tokens.erase(version.reference)
        if versions:
            self._scrubber.note()
            await self._scrubber.run()
