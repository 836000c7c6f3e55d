"""Binds an audit log and the store to each other, with keys of the key ring.

    key ring -> MAC key of each log           its records, from unseal to seal
    store    -> signing keys (sealed rows)    checkpoints: tree heads of the log
    store    -> one row for each log          the newest checkpoint that the store knows of

A checkpoint says where the store stood, and the store says which checkpoint was the newest: whichever of the two is put back
from the past, the other one tells, at the next unseal.  While the vault is sealed there are no keys: records are chained and
not MACed, nothing is signed, and the first record after unsealing covers them.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
from contextlib import suppress
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.mldsa import MLDSA65PrivateKey

from vaultd import failpoints
from vaultd.audit import heads, upkeep
from vaultd.audit.chain import Chain
from vaultd.audit.checkpoints import Signer, has_signature, key_algorithm, key_der, key_id, write_public_keys
from vaultd.audit.lines import RecordMac
from vaultd.audit.recovery import newest_checkpoint
from vaultd.audit.ties import chain_ids_in, from_record, missing, name_of, newest_heads, newest_ties, ties_at, to_record
from vaultd.audit.verify import begin_chain, walk_segments
from vaultd.audit.walk import ACCEPTED, KEYS, REVISION, BadRecord, Walk
from vaultd.engine.audit_chains import ACCEPTANCE, belonging_to, known_chains, log_row, to_values
from vaultd.engine.clock import SECOND_US
from vaultd.engine.scheduler import JUMP_US
from vaultd.errors import DataLoss, FailedPrecondition, Unavailable, VaultdError
from vaultd.secret import Secret
from vaultd.store.base import RowKey

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from vaultd.audit.checkpoints import PrivateKey, PublicKey, TreeHead
    from vaultd.audit.log import AuditLog
    from vaultd.audit.ties import Tie
    from vaultd.engine.clock import Clock
    from vaultd.engine.ledger import Changes, Ledger
    from vaultd.engine.sealing import Sealer
    from vaultd.store.base import Row, Store

KEY_KIND: Final = "audit_key"
TOLD_US: Final = 300 * SECOND_US
"""How often the store is told of a checkpoint: each time is a write, which every node on the store takes in."""
MAX_UNSIGNED: Final = 100_000
"""Records after which a checkpoint is made before its time, so that a start never has many more to read."""
_ACTIVE: Final = "ACTIVE"
_ALL: Final = 2**63
_OWN_RECORDS: Final = 2
"""What a chain that is idle grows by when it takes in that another one grew: else two would have each other go on for ever."""


def mac_key(sealer: Sealer, chain_id: bytes) -> bytes:
    """The key of a log's MACs: of this key ring, whatever its terms, and of this chain."""
    return sealer.derived_key(f"vaultd audit mac v1 {chain_id.hex()}")


class AuditWitness:
    """Opens and closes with the vault, and signs a checkpoint at an interval.

    accept_restore: the first time that it opens, serve a store that was put back from the past, and say so in the log.
    """

    def __init__(
        self,
        ledger: Ledger,
        log: AuditLog,
        clock: Clock,
        on_event: Callable[[str, str, str], None],
        *,
        interval_s: float,
        post_quantum: bool = False,
        accept_restore: bool = False,
        needed: Callable[[], int | None] = lambda: None,
        on_lost: Callable[[str], None] = lambda problem: None,
    ) -> None:
        """`needed`: the oldest record that somebody still has to read, such as what ships the log; None for none.

        `on_lost` is told, once, what is wrong with a chain beside this one that is gone, or shorter than it was.
        """
        self._ledger = ledger
        self._log = log
        self._clock = clock
        self._on_event = on_event
        self._interval_us = int(interval_s * SECOND_US)
        self._post_quantum = post_quantum
        self._accept_restore = accept_restore
        self._signer: Signer | None = None
        self._correlation: RecordMac | None = None
        self._newest: heads.Newest | None = None
        self._recorded = 0
        self._signed_us = self._told_us = 0
        self._revision = 0
        self._fingerprint = bytes(16)
        self._turn = asyncio.Lock()
        self._ties: list[Tie] = []
        self._alarmed = ""
        self._on_lost = on_lost
        self.needed = needed
        self._started = (clock.now_us(), clock.monotonic_s())

    @property
    def chain_id(self) -> bytes:
        """The log's identity."""
        return self._log.chain_id

    @property
    def public_keys(self) -> list[PublicKey]:
        """Who verifies the checkpoints; empty until the first unseal."""
        return self._signer.public_keys if self._signer is not None else []

    @property
    def public_pem(self) -> bytes:
        """The contents of `audit.pub`."""
        return write_public_keys(self.public_keys)

    def correlated(self, value: str) -> str:
        """A MAC by which a value is recognised in the log of this store and not learned from it; empty while sealed."""
        return self._correlation.of(value.encode()) if self._correlation is not None else ""

    @property
    def signer(self) -> Signer | None:
        """What signs tree heads; None while sealed."""
        return self._signer

    @property
    def newest(self) -> heads.Newest | None:
        """The newest checkpoint of this process's log; None while sealed."""
        return self._newest

    def mac_key(self, chain_id: bytes = b"") -> bytes:
        """The key of the MACs of this log, or of a chain beside it; raises Unavailable while sealed."""
        return mac_key(self._ledger.sealer, chain_id or self._log.chain_id)

    # -- with the vault -------------------------------------------------------------------------------------------------

    async def open(self) -> None:
        """Verify what came after the newest checkpoint, compare log and store, and go on with MACs and a checkpoint.

        Raises DataLoss (AUDIT_TAMPERED, AUDIT_ROLLED_BACK) and FailedPrecondition (STORE_ROLLED_BACK,
        AUDIT_OF_ANOTHER_STORE): the vault stays sealed.
        """
        found = await self._read_keys()
        log, until, head = self._log, self._log.sequence, self._log.chain.head
        directory, chain_id = log.directory, log.chain_id
        if not found and await asyncio.to_thread(newest_checkpoint, directory, chain_id) is not None:
            raise _another_store()
        keys = await self._make_keys(found)
        signer = Signer(keys)
        key = self.mac_key()
        walk, newest = await asyncio.to_thread(_verify_tail, log, until, signer.public_keys, key)
        if walk.chain.head != head:  # the chain goes on from what was there at the start
            raise heads.tampered("its files are not those any more that were there when the server started")
        accepted = await self._compare(walk, newest, signer.public_keys)
        log.use_key(key)
        self._signer, self._newest, self._told_us = signer, None, 0
        self._correlation = RecordMac(self._ledger.sealer.derived_key("vaultd audit correlation v1"))
        described = [
            {"id": key_id(key), "algorithm": key_algorithm(key), "public_key": base64.b64encode(key_der(key)).decode()}
            for key in signer.public_keys
        ]
        log.append({"event": KEYS, "keys": described})
        if accepted is not None:
            await log.append_durable(accepted)
            await self._note_acceptance()
        await self.checkpoint()
        self._accept_restore = False

    def close(self) -> None:
        """Sign what was written, and forget the keys.  Does not wait and does not raise: the vault is being sealed."""
        if self._signer is not None:
            with suppress(VaultdError):  # what is not signed has MACs
                tied = to_record(self._ties) if self._ties else None
                self._log.checkpoint(self._signer, self._revision, self._fingerprint, self._recorded, tied)
        self._log.seal()
        self._signer = self._newest = self._correlation = None

    async def tick(self) -> None:
        """Sign a checkpoint when it is due and there is anything new."""
        newest = self._newest
        if self._signer is None or newest is None:
            return
        due = not 0 <= self._clock.now_us() - self._signed_us < self._interval_us
        unsigned = self._log.sequence - newest.sequence
        if unsigned > MAX_UNSIGNED or (due and (unsigned > 0 or await self._siblings_moved())):
            await self.checkpoint()

    async def _siblings_moved(self) -> bool:
        """Whether a chain beside this one has more than what it says of this one."""
        signer = self._signer
        if signer is None:
            return False
        ties = await asyncio.to_thread(newest_ties, self._log.directory, signer.public_keys)
        named = {tie.chain_id: tie.size for tie in self._ties}
        return any(tie.size > named.get(tie.chain_id, 0) + _OWN_RECORDS for tie in ties)

    async def _tie(self) -> dict[str, object] | None:
        """What to say of the chains beside this one; None when there are none.  One that is gone, or has gone back, is an alarm."""
        signer, directory = self._signer, self._log.directory
        if signer is None:
            return None
        before = self._ties
        problem = await asyncio.to_thread(missing, directory, before) if before else ""
        if problem:
            if problem != self._alarmed:
                self._alarmed = problem
                self._on_lost(problem)
        else:
            self._alarmed = ""
            self._ties = await asyncio.to_thread(newest_ties, directory, signer.public_keys)
        return to_record(self._ties) if self._ties else None

    async def sign_off(self) -> None:
        """Sign every record that there is, and tell the store of it whatever it was told before: the server stops."""
        self._told_us = 0
        await self.checkpoint()

    async def checkpoint(self) -> heads.Newest | None:
        """Sign every record that there is, durably; None while sealed.  The store is told every few minutes.

        A store that cannot be written does not stand in the way: the next checkpoint tells it.
        """
        async with self._turn:
            if self._signer is None:
                return None
            self._revision, self._fingerprint = await self._ledger.fingerprint()
            tied = await self._tie()
            if self._signer is None:
                return None  # sealed meanwhile
            newest = self._log.checkpoint(self._signer, self._revision, self._fingerprint, self._recorded, tied)
            if newest is None:
                return None
            self._signed_us = self._clock.now_us()  # one that cannot be kept is not repeated before its time
            failpoints.hit("audit.checkpoint_written")
            await self._log.keep(newest)
            failpoints.hit("audit.checkpoint_kept")
            self._newest = newest
            if not 0 <= self._signed_us - self._told_us < TOLD_US:
                await self._try_to_tell(newest.head)
            failpoints.hit("audit.checkpoint_recorded")
            return newest

    # -- upkeep ---------------------------------------------------------------------------------------------------------

    async def keep_up(self, *, compress_after_s: float | None, retention_s: float) -> None:
        """Compress segments that were closed so long ago (None: never), and remove those that are older than retention_s (0: none).

        What goes is verified, covered by a checkpoint, recorded, and said in a signed tree head first.  Raises DataLoss,
        reason AUDIT_TAMPERED, when it does not verify: then nothing goes.
        """
        log, signer, newest = self._log, self._signer, self._newest
        try:
            if compress_after_s is not None:
                await asyncio.to_thread(upkeep.compress_closed, log.directory, log.segment_number, compress_after_s)
            if not retention_s or signer is None or newest is None or self._clock_jumped():
                return
            needed = self.needed()
            before_us = self._clock.now_us() - int(retention_s * SECOND_US)
            removal = await asyncio.to_thread(
                upkeep.plan_removal,
                log.directory,
                log.chain_id,
                before_us,
                signer,
                newest.head,
                _ALL if needed is None else needed,
            )
            if removal is not None:
                record = {"event": "pruned", "through": removal.through, "segments": [p.name for p in removal.paths]}
                await log.append_durable(record)
                await asyncio.to_thread(upkeep.remove, log.directory, removal, signer)
        except BadRecord as bad:
            raise heads.tampered(str(bad)) from None
        except OSError as error:
            raise Unavailable(
                "AUDIT_UPKEEP_FAILED", "segments cannot be compressed or removed", retry_after_s=60
            ) from error

    def _clock_jumped(self) -> bool:
        """Whether the wall clock cannot be believed: then nothing is removed until a restart, as nothing is destroyed."""
        started_us, started_s = self._started
        passed_us = (self._clock.monotonic_s() - started_s) * SECOND_US
        return abs(self._clock.now_us() - started_us - passed_us) > JUMP_US

    # -- the store ------------------------------------------------------------------------------------------------------

    async def _read_keys(self) -> dict[str, PrivateKey]:
        found: dict[str, PrivateKey] = {}
        for name, (_, load) in _ALGORITHMS.items():
            row = await self._ledger.read(_key_row(name))
            if row is not None:
                found[name] = _load_key(self._ledger.sealer, row.row, load)
        return found

    async def _make_keys(self, found: dict[str, PrivateKey]) -> list[PrivateKey]:
        """Every signing key, Ed25519 first; what is missing is made, once, whichever process comes first."""
        names = [name for name in _ALGORITHMS if name in found or name == "ed25519" or self._post_quantum]
        if any(name not in found for name in names):
            async with self._ledger.change() as changes:
                for name in names:
                    await _put_key(changes, name)
            found = await self._read_keys()
        return [found[name] for name in names]

    async def _compare(
        self, walk: Walk, newest: TreeHead | None, keys: Sequence[PublicKey]
    ) -> dict[str, object] | None:
        """Compare log and store; return what is to be recorded where the store is served although it was put back."""
        row = await self._ledger.read(log_row(self._log.chain_id))
        self._recorded = int(row.values["size"]) if row is not None else 0
        await self._compare_siblings(walk)
        if self._recorded > (newest.size if newest is not None else 0):
            raise DataLoss(
                "AUDIT_ROLLED_BACK",
                "the audit log lacks records that the store knows of: it was cut off, or put back from the past; restore it, or "
                "keep it as evidence and start a new directory",
            )
        told = await self._told_beside(keys)
        revision = await self._ledger.store.revision()  # after what others tell of it, who may be writing
        if newest is not None:
            told = max(told, walk.revision)
        behind = revision < told or (newest is not None and self._recorded < newest.recorded)
        if not behind and newest is not None and revision == newest.revision == walk.revision:
            behind = (await self._ledger.fingerprint())[1] != newest.store
        if not behind:
            return None
        if not self._accept_restore:
            raise FailedPrecondition(
                "STORE_ROLLED_BACK",
                f"the store stands at revision {revision}, and its audit log tells of {told}: it was put back from the "
                "past; put the newest one in place, or start once with --accept-restore",
            )
        return {"event": ACCEPTED, REVISION: revision, "was": told}

    async def _told_beside(self, keys: Sequence[PublicKey]) -> int:
        """The newest revision of the store that a chain beside this one has signed, since a store was last accepted as it was."""
        row = await self._ledger.read(ACCEPTANCE)
        since = str(row.values["time"]) if row is not None else ""
        found = await asyncio.to_thread(newest_heads, self._log.directory, keys)
        return max((head.revision for head in found.values() if head.time > since), default=0)

    async def _note_acceptance(self) -> None:
        """What chains said of the store before now, nobody holds against it any more."""
        now = datetime.fromtimestamp(self._clock.now_us() / SECOND_US, UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
        async with self._ledger.change() as changes:
            uid = hashlib.sha256(b"vaultd restore accepted").digest()[:16]
            await changes.put(ACCEPTANCE, uid, _ACTIVE, None, {"time": now})

    async def _compare_siblings(self, walk: Walk) -> None:
        """No chain of this audit directory may be gone, or shorter than this log or the store knows, whoever writes it.

        Also who has nothing to say of the others, because its own chain was taken away, learns of them from the store.
        """
        directory, chain_id = self._log.directory, self._log.chain_id
        known = await known_chains(self._ledger)

        def look() -> str:
            kept = newest_checkpoint(directory, chain_id)
            said = {tie.chain_id: tie for tie in (ties_at(directory, kept) if kept is not None else ())}
            said.update((tie.chain_id, tie) for tie in from_record({"heads": list(walk.ties.values())}))
            self._ties = list(said.values())
            told = [tie for tie in belonging_to(chain_ids_in(directory), known) if tie.chain_id != chain_id]
            return missing(directory, [*self._ties, *told])

        problem = await asyncio.to_thread(look)
        if problem:
            raise DataLoss(
                "AUDIT_ROLLED_BACK",
                f"{problem}: put it back, or keep the audit directory as evidence and start a new one",
            )

    async def _try_to_tell(self, head: TreeHead) -> None:
        try:
            await self._tell_store(head)
            self._told_us = self._signed_us
        except VaultdError as error:
            self._on_event("checkpoint_not_recorded", "", error.reason)

    async def _tell_store(self, head: TreeHead) -> None:
        values = to_values(head, name_of(self._log.directory), self._ties)
        async with self._ledger.change() as changes:
            await changes.put(log_row(self._log.chain_id), self._log.chain_id, _ACTIVE, None, values)
        self._recorded = head.size


def _verify_tail(log: AuditLog, until: int, keys: list[PublicKey], key: bytes) -> tuple[Walk, TreeHead | None]:
    """Walk from the newest checkpoint on, with MACs; return the walk and the newest tree head that was verified."""
    directory, chain_id = log.directory, log.chain_id
    newest, pruned = newest_checkpoint(directory, chain_id), heads.read_pruned(directory)
    if pruned is not None and pruned.head.chain_id != chain_id:
        pruned = None
    if newest is not None:
        if not has_signature(newest.note, keys[0]):
            raise _another_store()
    if pruned is not None:
        pruned.verify(keys)
    if newest is not None:
        chain = Chain.after(newest.head, newest.peaks)
    elif pruned is not None:
        chain = pruned.chain()
    elif until:
        chain = begin_chain(directory, chain_id)
    else:
        chain = Chain(chain_id)
    walk = Walk(chain, keys=keys, mac_key=key)
    try:
        if until > chain.last:
            walk_segments(directory, walk, witness=newest, until=until)
    except BadRecord as bad:
        raise heads.tampered(str(bad)) from None
    return walk, walk.newest or (pruned.head if pruned is not None else None)


def _another_store() -> FailedPrecondition:
    return FailedPrecondition(
        "AUDIT_OF_ANOTHER_STORE",
        "the checkpoints in the audit directory are signed with a key that this store does not have: give the store its own "
        "audit directory, or an empty one",
    )


_ALGORITHMS: Final[dict[str, tuple[Callable[[], bytes], Callable[[bytes], PrivateKey]]]] = {
    "ed25519": (
        lambda: Ed25519PrivateKey.generate().private_bytes_raw(),
        Ed25519PrivateKey.from_private_bytes,
    ),
    "ml-dsa-65": (
        lambda: MLDSA65PrivateKey.generate().private_bytes_raw(),
        MLDSA65PrivateKey.from_seed_bytes,
    ),
}
"""By row id: how a private key is made, and loaded.  32 bytes each; of ML-DSA the seed."""


def _key_row(name: str) -> RowKey:
    return RowKey(KEY_KIND, "", name, 0)


def _load_key(sealer: Sealer, row: Row, load: Callable[[bytes], PrivateKey]) -> PrivateKey:
    return load(sealer.open_secret(row).expose("sign audit checkpoints"))


async def stored_public_keys(store: Store, sealer: Sealer) -> list[PublicKey]:
    """Who verifies the checkpoints of this store's logs, for a command that only reads; empty before the first unseal."""
    found = [(await store.get(_key_row(name)), load) for name, (_, load) in _ALGORITHMS.items()]
    return [_load_key(sealer, row, load).public_key() for row, load in found if row is not None]


async def _put_key(changes: Changes, name: str) -> None:
    if await changes.get(_key_row(name)) is None:
        make, _ = _ALGORITHMS[name]
        uid = hashlib.sha256(f"vaultd audit key {name}".encode()).digest()[:16]
        await changes.put(_key_row(name), uid, _ACTIVE, None, {"algorithm": name}, secret=Secret(make()))
