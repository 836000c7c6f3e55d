"""The seal: whether the key ring is open, and how it is made, opened, closed and re-wrapped.

The root key never meets the rows: it wraps the key ring, and the ring's term keys seal the rows.  Whatever changes root keys
(init, rotation, the clean-up after a crash) does so inside a store transaction, so two processes cannot cross: a root key
that a committed ring needs is never retired.  The ring itself names the one root key that its rotation replaced; no other
is ever retired, for it may be of another vault or of a backup.
"""

from __future__ import annotations

import asyncio
from enum import Enum
from typing import TYPE_CHECKING, Final, Protocol, runtime_checkable

from vaultd import failpoints
from vaultd.engine.authority import Authority, put_policy
from vaultd.engine.sealing import KeyRing, Sealer, pack
from vaultd.engine.vaults import DEFAULT_VAULT, put_new_vault
from vaultd.errors import Aborted, DataLoss, FailedPrecondition, InvalidArgument, VaultdError
from vaultd.store.base import RingRow

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping, Sequence

    from vaultd.backends.rootkeys import RootKeyProvider
    from vaultd.engine.ledger import Intent, Ledger
    from vaultd.engine.policy import Policy
    from vaultd.secret import Secret

MIN_PASSPHRASE_BYTES: Final = 12
RESEAL_ROWS: Final = 100
"""Rows that one background step moves to the newest term."""


class SealState(Enum):
    """Whether the server can use its keys."""

    UNINITIALIZED = "UNINITIALIZED"
    SEALED = "SEALED"
    UNSEALED = "UNSEALED"


@runtime_checkable
class KeepsKeys(Protocol):
    """A root key provider that holds root keys in memory while the vault is unsealed; the others read them for each use."""

    def forget(self) -> None:
        """Drop every key from memory."""
        ...


@runtime_checkable
class SharesKeys(Protocol):
    """One whose root keys are nowhere but in memory, so that another process of this server can have them from here only."""

    def hand_over(self) -> Mapping[str, Secret]:
        """Every root key in memory, by its ref."""
        ...

    def take_over(self, keys: Mapping[str, Secret]) -> None:
        """Keep root keys that another process handed over, beside those that are here."""
        ...


def _ring_aad(root_ref: str, generation: int) -> bytes:
    return pack("vaultd ring", root_ref, generation)


class Seal:
    """Opens and closes the key ring.  `on_change` is told of every new state, for health; `on_open` runs before UNSEALED."""

    def __init__(
        self,
        ledger: Ledger,
        provider: RootKeyProvider,
        authority: Authority,
        forget_keys: Callable[[], None],
        on_change: Callable[[SealState], None],
        on_open: Sequence[Callable[[], Awaitable[None]]] = (),
    ) -> None:
        self._ledger = ledger
        self._provider = provider
        self._authority = authority
        self._forget_keys = forget_keys
        self._on_change = on_change
        self._on_open = on_open
        self._neighbours = ledger.neighbours
        self._turn = asyncio.Lock()
        self.state = SealState.UNINITIALIZED

    @property
    def provider_kind(self) -> str:
        """`file`, `passphrase`, `credential`."""
        return self._provider.kind

    def _enter(self, state: SealState) -> None:
        self.state = state
        self._on_change(state)

    async def start(self) -> None:
        """Find out where we are, and unseal when the provider needs nobody.  Raises DataLoss for rows that fail the check.

        Where another process of this server was sealed by somebody, this one stays sealed.
        """
        if await self._ledger.store.ring() is None:
            self._enter(SealState.UNINITIALIZED)
            return
        self._enter(SealState.SEALED)
        if not self._provider.needs_passphrase and not self._neighbours.sealed:
            await self._open(None)

    def _check_passphrase(self, passphrase: Secret | None, minimum: int) -> None:
        if self._provider.needs_passphrase and (passphrase is None or len(passphrase) < minimum):
            raise InvalidArgument(
                "PASSPHRASE_REQUIRED",
                f"the passphrase provider needs a passphrase of at least {MIN_PASSPHRASE_BYTES} bytes",
                field="passphrase",
            )
        if not self._provider.needs_passphrase and passphrase is not None:
            raise InvalidArgument(
                "PASSPHRASE_REFUSED", f"the {self._provider.kind} provider takes no passphrase", field="passphrase"
            )

    async def init(self, policy: Policy, passphrase: Secret | None) -> None:
        """Make the key ring, `vaults/default` and the policy, in one transaction.  Leaves the server unsealed."""
        self._check_passphrase(passphrase, MIN_PASSPHRASE_BYTES)
        seals = self._neighbours.seals
        async with self._turn:
            if await self._ledger.store.ring() is not None:
                raise _already_initialized()
            ring = KeyRing.create()
            self._ledger.install(Sealer(ring))
            try:
                async with self._ledger.change() as changes:
                    if await changes.ring() is not None:
                        raise _already_initialized()
                    ref = await self._provider.create(passphrase)
                    wrapped = await self._provider.wrap(ref, ring.dump(), _ring_aad(ref, ring.generation))
                    await changes.put_ring(RingRow(ref, ring.generation, wrapped))
                    await put_new_vault(changes, DEFAULT_VAULT, "", {})
                    await put_policy(changes, policy)
            except BaseException:
                self._ledger.install(None)
                raise
            try:
                await self._read_rules()
            except BaseException:  # it is made all the same, and can be unsealed once this is mended
                self._close()
                self._enter(SealState.SEALED)
                raise
            self._enter(SealState.UNSEALED)
        await self._neighbours.open(self.root_keys(), seals)  # made all the same, where somebody sealed it meanwhile

    async def unseal(self, passphrase: Secret | None) -> None:
        """Open the key ring, check every row against its digest, load the policy; then have the neighbours do so.  Idempotent.

        Raises Aborted, reason SEALED_MEANWHILE, when a neighbour was sealed meanwhile: then all of them are.
        """
        self._check_passphrase(passphrase, 1)
        seals = self._neighbours.seals
        await self._open(passphrase)
        if not await self._neighbours.open(self.root_keys(), seals):
            raise Aborted(
                "SEALED_MEANWHILE",
                "the vault was sealed while it was unsealed, and is sealed; call Unseal again to open it",
            )

    async def unseal_with(self, keys: Mapping[str, Secret]) -> None:
        """Unseal as a neighbour did, with the root keys that it handed over.  Idempotent; raises what `unseal` raises."""
        self.take_over(keys)
        await self._open(None)

    def root_keys(self) -> Mapping[str, Secret]:
        """What a neighbour needs from here to open the ring; nothing where it can read the root key itself."""
        keeps = isinstance(self._provider, SharesKeys) and self.state is SealState.UNSEALED
        return self._provider.hand_over() if keeps else {}  # type: ignore[attr-defined]  # SharesKeys, as was asked

    def take_over(self, keys: Mapping[str, Secret]) -> None:
        """Keep root keys of a neighbour."""
        if keys and isinstance(self._provider, SharesKeys):
            self._provider.take_over(keys)

    async def _open(self, passphrase: Secret | None) -> None:
        async with self._turn:
            if self.state is SealState.UNSEALED:
                return
            try:
                await self._open_ring(passphrase)
                await self._ledger.check()
                await self._read_rules()
                await self._retire_replaced_root()
            except BaseException:
                self._close()
                raise
            self._enter(SealState.UNSEALED)

    async def read_ring(self, passphrase: Secret | None) -> Sealer:
        """Open the key ring for a command that only reads, without unsealing."""
        self._check_passphrase(passphrase, 1)
        row = await self._ledger.store.ring()
        if row is None:
            raise _not_initialized()
        return Sealer(await self._unwrap(row, passphrase))

    async def _read_rules(self) -> None:
        """Read what decides about calls: what must be in memory before the first of them, and then the policy, without which
        there is none.
        """
        for read in self._on_open:
            await read()
        await self._authority.reload()

    async def _open_ring(self, passphrase: Secret | None) -> None:
        row = await self._ledger.store.ring()
        if row is None:
            raise _not_initialized()
        ring = await self._unwrap(row, passphrase)
        self._ledger.install(Sealer(ring))

    async def _unwrap(self, row: RingRow, passphrase: Secret | None) -> KeyRing:
        aad = _ring_aad(row.root_ref, row.generation)
        ring = KeyRing.load(await self._provider.unwrap(row.root_ref, row.wrapped, aad, passphrase))
        if ring.generation != row.generation:
            raise DataLoss("KEY_RING_CORRUPT", "the key ring is not the one that its row names; restore from a backup")
        return ring

    async def _retire_replaced_root(self) -> None:
        """Retire the root key that the ring names as replaced, if any, and write the ring without that name.

        Under the store's write lock, and only while the ring is the committed one.  A crash in between repeats it at the
        next unseal; once done it is not repeated, so an operator may put the old key back for a backup.
        """
        old = self._ledger.sealer.ring
        if not old.retiring:
            return
        async with self._ledger.change() as changes:
            row = await changes.ring()
            if row is None or row.generation != old.generation:
                return  # another process has done it, or rotated again
            if old.retiring != row.root_ref:
                await self._provider.retire(old.retiring)
            ring = old.with_nothing_retiring()
            wrapped = await self._provider.wrap(row.root_ref, ring.dump(), _ring_aad(row.root_ref, ring.generation))
            await changes.put_ring(RingRow(row.root_ref, ring.generation, wrapped))
        self._ledger.install(Sealer(ring))

    def _close(self) -> None:
        self._ledger.install(None)
        self._authority.forget()
        self._forget_keys()
        if isinstance(self._provider, KeepsKeys):
            self._provider.forget()

    async def seal(self) -> None:
        """Forget all keys, here and in the neighbours.  Calls under way finish or fail; no new use begins.

        Raises Unavailable, reason SEAL_INCOMPLETE, when this process is sealed and it is not known whether the neighbours are.
        """
        await asyncio.gather(self.seal_here(), self._neighbours.seal())

    async def seal_here(self) -> None:
        """Forget all keys of this process."""
        async with self._turn:
            self._close()
            if self.state is SealState.UNSEALED:
                self._enter(SealState.SEALED)

    async def rotate_root(self, intent: Intent, passphrase: Secret | None) -> None:
        """Wrap the ring, with one more term, under a fresh root key.  The old root opens it until the new ring is read back."""
        self._check_passphrase(passphrase, MIN_PASSPHRASE_BYTES)
        async with self._turn:
            known, _ = await self._ledger.answered(intent)
            if known:
                return
            old = self._ledger.sealer.ring
            async with self._ledger.change() as changes:
                row = await changes.ring()
                if row is None or row.generation != old.generation:
                    raise Aborted(
                        "ROOT_KEY_ROTATED", "another node rotated the root key just now; check GetStatus and repeat"
                    )
                ref = await self._provider.prepare_next(passphrase)
                await self._neighbours.share(self.root_keys())  # before the ring that needs it can be read
                failpoints.hit("seal.prepared")
                ring = old.with_new_term(retiring=row.root_ref)
                wrapped = await self._provider.wrap(ref, ring.dump(), _ring_aad(ref, ring.generation))
                await changes.put_ring(RingRow(ref, ring.generation, wrapped))
                await changes.remember(intent, None)
                failpoints.hit("seal.rewrapped")
            failpoints.hit("seal.committed")
            try:
                await self._adopt_committed_ring(ref, passphrase)
            except BaseException:
                # It is the ring of the store all the same.  In force, it can be wrapped once more by the next rotation;
                # with the ring before it, this process could neither rotate nor follow.
                self._ledger.install(Sealer(ring))
                raise
            failpoints.hit("seal.read_back")
            await self._retire_replaced_root()
            failpoints.hit("seal.retired")
        await self._neighbours.settled()

    async def _adopt_committed_ring(self, ref: str, passphrase: Secret | None) -> None:
        row = await self._ledger.store.ring()
        if row is None or row.root_ref != ref:
            raise DataLoss(
                "KEY_RING_CORRUPT", "the key ring that was written cannot be read back; the old root key is kept"
            )
        self._ledger.install(Sealer(await self._unwrap(row, passphrase)))

    async def follow_ring(self) -> None:
        """Another process changed the ring: open the new one, or seal ourselves when we cannot."""
        async with self._turn:
            row = await self._ledger.store.ring()
            if (
                self.state is not SealState.UNSEALED
                or row is None
                or row.generation == self._ledger.sealer.ring.generation
            ):
                return
            try:
                self._ledger.install(Sealer(await self._unwrap(row, None)))
            except VaultdError:
                self._close()
                self._enter(SealState.SEALED)

    async def reseal_some(self) -> int:
        """Move some rows to the newest term; forget terms that nothing needs any more.  Returns the rows moved."""
        if self.state is not SealState.UNSEALED or len(self._ledger.sealer.ring.terms) == 1:
            return 0
        sealer = self._ledger.sealer
        keys = await self._ledger.store.older_terms(sealer.term, RESEAL_ROWS)
        if keys:
            async with self._ledger.change() as changes:
                for key in keys:
                    await changes.reseal(key)
            return len(keys)
        async with self._ledger.store.snapshot() as snapshot:
            scopes = [digest.scope for digest in snapshot.digests.values() if digest.term < sealer.term]
        if scopes:
            async with self._ledger.change() as changes:
                for scope in scopes:
                    changes.reseal_digest(scope)
            return 0
        if await self._ledger.store.count_older_terms(sealer.term) == 0:
            await self._forget_terms_before(sealer.term)
        return 0

    async def _forget_terms_before(self, term: int) -> None:
        async with self._turn:
            if self.state is not SealState.UNSEALED:
                return
            old = self._ledger.sealer.ring
            async with self._ledger.change() as changes:
                row = await changes.ring()
                if row is None or row.generation != old.generation or old.term != term:
                    return
                ring = old.without_terms_before(term)
                wrapped = await self._provider.wrap(row.root_ref, ring.dump(), _ring_aad(row.root_ref, ring.generation))
                await changes.put_ring(RingRow(row.root_ref, ring.generation, wrapped))
            self._ledger.install(Sealer(ring))

    async def rows_on_older_terms(self) -> int:
        """Rows, digests and stored answers that still need an older term."""
        return await self._ledger.store.count_older_terms(self._ledger.sealer.term)


def _not_initialized() -> FailedPrecondition:
    return FailedPrecondition(
        "NOT_INITIALIZED", "there is no key ring yet; call AdminService.Init or run `vaultd init`"
    )


def _already_initialized() -> FailedPrecondition:
    return FailedPrecondition("ALREADY_INITIALIZED", "the key ring exists; unseal it")
