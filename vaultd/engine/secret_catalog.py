"""Secrets in memory, their payloads sealed: what an access looks up instead of asking the store.

Staleness as of the key catalog: a change made by this process is seen by the next call; one made by another process within one
poll of the feed (100 ms by default).  Bounded in bytes; the secret that was loaded first goes first.
"""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, Final

from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from vaultd.engine.model import SecretState, SecretVersion, SecretVersionState, StoredSecret
from vaultd.engine.secret_aliases import CURRENT, LATEST, PREVIOUS, secret_version_not_found
from vaultd.engine.secret_payloads import unpad_payload
from vaultd.engine.secrets import (
    KIND,
    VERSION_KIND,
    secret_deleted,
    secret_not_found,
    version_expired,
    version_refusal,
)
from vaultd.store.base import RowKey

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from vaultd.engine.ledger import Ledger, OpenRow
    from vaultd.errors import VaultdError
    from vaultd.names import SecretRef
    from vaultd.store.base import Change

DEFAULT_CACHED_BYTES: Final = 64 * 1024 * 1024
OVERHEAD_BYTES: Final = 2_048
"""What a secret or a version takes in memory beside its blobs, about."""
NEVER_US: Final = 2**63 - 1
MAX_NAMES: Final = 64
"""Names of one secret that are found at once; what goes by more of them takes a microsecond longer."""


class MemorySealer:
    """Seals payloads for the time that they are in memory.

    AES-256-GCM under a key of its own takes a third of the time of the store's AES-GCM-SIV.  Nonces are counted, and the key goes
    with everything that it sealed, at the seal at the latest.
    """

    __slots__ = ("_nonces", "_seal", "open")

    def __init__(self) -> None:
        aead = AESGCM(AESGCM.generate_key(256))
        self._seal = aead.encrypt
        self._nonces = itertools.count()
        self.open = aead.decrypt
        """Takes the nonce, what was sealed, and what it was bound to."""

    def seal(self, payload: bytes, bound: bytes) -> tuple[bytes, bytes]:
        """The nonce, and the payload bound to something."""
        nonce = next(self._nonces).to_bytes(12, "big")
        return nonce, self._seal(nonce, payload, bound)


class HeldVersion:
    """A version with everything that an access to it needs, computed once per revision.  Its payload is sealed."""

    __slots__ = (
        "_blob",
        "_bound",
        "_nonce",
        "_open",
        "answer_bytes",
        "bytes",
        "description",
        "enabled",
        "expire_us",
        "length",
        "name",
        "version",
    )

    def __init__(
        self, found: OpenRow, payload: bytes, sealer: MemorySealer, describe: Callable[[SecretVersion], bytes]
    ) -> None:
        version: SecretVersion = found.resource()
        self.version = version
        self.name = version.name
        self._bound = version.name.encode("ascii")
        self._open = sealer.open
        self._nonce, self._blob = sealer.seal(payload, self._bound)
        self.length = len(payload)
        self.description = describe(version)
        """What an answer says of it beside its name and payload, in the words of the wire; most often nothing."""
        self.answer_bytes = self.length + len(self.description)
        self.enabled = version.state is SecretVersionState.ENABLED
        self.expire_us = NEVER_US if version.expire_us is None else version.expire_us
        self.bytes = len(self._blob) + len(self.description) + len(found.row.sealed) + OVERHEAD_BYTES

    def open(self) -> bytes:
        """The payload.  Only of a version that was just asked for its refusal."""
        return self._open(self._nonce, self._blob, self._bound)

    def require_given_out(self, now_us: int) -> None:
        """Raise FailedPrecondition for the state of this version, or its expiry."""
        refusal = self.refusal(now_us)
        if refusal is not None:
            raise refusal

    def refusal(self, now_us: int) -> VaultdError | None:
        """Why this version is not given out, or None."""
        if not self.enabled:
            return version_refusal(self.version.state)
        return version_expired() if now_us >= self.expire_us else None


class HeldSecret:
    """A secret, and those of its versions that were asked for."""

    __slots__ = ("active", "bytes", "names", "numbers", "secret", "versions")

    def __init__(self, found: OpenRow) -> None:
        secret: StoredSecret = found.resource()
        self.secret = secret
        self.active = secret.state is SecretState.ACTIVE
        self.numbers: dict[str, int] = {
            **secret.aliases,
            LATEST: secret.latest,
            CURRENT: secret.current,
            PREVIOUS: secret.previous,
            "": secret.current,
        }
        """By alias; the bare name is the empty one."""
        self.versions: dict[int, HeldVersion] = {}
        self.names: set[str] = set()
        """Names by which its versions are found at once."""
        self.bytes = len(found.row.sealed) + OVERHEAD_BYTES

    def number(self, ref: SecretRef) -> int:
        """The number of the version that a name means; raises NotFound."""
        number = ref.version or self.numbers.get(ref.alias, 0)
        if not number:
            raise secret_version_not_found()
        return number


Place = tuple[str, str]
"""Vault and secret id."""


class SecretCatalog:
    """Read-through cache of sealed secrets.

    `describe` says what an answer tells of a version beside its name and payload, encoded: called once for each version that is
    held, and not for each access.
    """

    def __init__(
        self, ledger: Ledger, describe: Callable[[SecretVersion], bytes], max_bytes: int = DEFAULT_CACHED_BYTES
    ) -> None:
        self._ledger = ledger
        self._describe = describe
        self._max_bytes = max_bytes
        self._held: dict[Place, HeldSecret] = {}
        self._changes = 0
        self._sealer = MemorySealer()
        self.cached: dict[str, HeldVersion] = {}
        """By the name that callers ask for: what an access looks up first.  Of deleted secrets there is none."""
        self.bytes = 0
        """What is held now, about."""
        self.lookups = 0
        self.misses = 0
        """Versions that had to be read, of all `lookups`; for metrics."""
        ledger.subscribe(self.forget_changed)

    def __len__(self) -> int:
        """Return the number of secrets in memory."""
        return len(self._held)

    async def load(self, ref: SecretRef) -> HeldVersion:
        """The version that a name means, from memory or the store; from then on `cached` has it.

        Raises NotFound, or FailedPrecondition when the secret is soft-deleted; not for the state of the version.
        """
        at = (ref.vault, ref.secret)
        held = self._held.get(at) or await self._load_secret(at)
        if not held.active:
            raise secret_deleted()
        number = held.number(ref)
        version = held.versions.get(number) or await self._load_version(at, held, number)
        if self._held.get(at) is held and held.versions.get(number) is version and len(held.names) < MAX_NAMES:
            name = str(ref)
            held.names.add(name)
            self.cached[name] = version
        return version

    async def secret(self, ref: SecretRef) -> StoredSecret:
        """A secret, also a soft-deleted one, from memory or the store; raises NotFound."""
        at = (ref.vault, ref.secret)
        return (self._held.get(at) or await self._load_secret(at)).secret

    async def _load_secret(self, at: Place) -> HeldSecret:
        changes = self._changes
        found = await self._ledger.read(RowKey(KIND, *at, 0))
        if found is None or found.row.state == SecretState.PURGED.value:
            raise secret_not_found()
        held = HeldSecret(found)
        if (
            changes == self._changes and at not in self._held
        ):  # else it may be old already: it is used once and not kept
            self._held[at] = held
            self._grow(held.bytes)
        return held

    async def _load_version(self, at: Place, held: HeldSecret, number: int) -> HeldVersion:
        changes = self._changes
        self.misses += 1
        found = await self._ledger.read(RowKey(VERSION_KIND, *at, number))
        if found is None:
            raise secret_version_not_found()
        payload = b""
        if found.row.state == SecretVersionState.ENABLED.value:
            payload = unpad_payload(self._ledger.sealer.open_secret(found.row).expose("sealed again, for memory"))
        version = HeldVersion(found, payload, self._sealer, self._describe)
        if changes == self._changes and self._held.get(at) is held and number not in held.versions:
            held.versions[number] = version
            held.bytes += version.bytes
            self._grow(version.bytes)
        return version

    def _grow(self, size: int) -> None:
        self.bytes += size
        while self.bytes > self._max_bytes and self._held:
            self._drop(next(iter(self._held)))

    def _drop(self, at: Place) -> None:
        held = self._held.pop(at, None)
        if held is not None:
            self.bytes -= held.bytes
            for name in held.names:
                self.cached.pop(name, None)

    def forget_changed(self, changes: Iterable[Change]) -> None:
        """Drop the secrets that a change touched; the next access reads them again."""
        for change in changes:
            if change.key.kind in {KIND, VERSION_KIND}:
                self._changes += 1
                self._drop((change.key.scope, change.key.id))

    def forget_all(self) -> None:
        """Drop everything: at seal, and when the feed has a gap."""
        self._changes += 1
        self._held.clear()
        self.cached.clear()
        self._sealer = MemorySealer()
        self.bytes = 0
