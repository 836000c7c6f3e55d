"""Proofs about this node's audit logs, and their verification on disk: of the log of this process, and of the chains beside it.

What is read from disk is not believed: a proof leaves here only if it leads from the leaf to the root that was signed.  Reading
and hashing are done on one thread, one request at a time; that of a caller who is gone stops at its next pause.
"""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, NamedTuple, TypeVar

from vaultd.audit import heads, segments, upkeep
from vaultd.audit.blocks import StoredLeaves, read_leaves, rebuild
from vaultd.audit.chain import Chain
from vaultd.audit.checkpoints import NoteInvalid, verify_note
from vaultd.audit.ties import chain_beside
from vaultd.audit.tree import consistency_proof, covered, inclusion_proof, verify_consistency, verify_inclusion
from vaultd.audit.verify import begin_chain, walk_segments
from vaultd.audit.walk import CHECKPOINT, BadRecord, Walk
from vaultd.engine.sealing import sealed_error
from vaultd.errors import NotFound, Unavailable

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence
    from pathlib import Path

    from vaultd.audit.checkpoints import PublicKey
    from vaultd.audit.log import AuditLog
    from vaultd.engine.audit_witness import AuditWitness

_Found = TypeVar("_Found")

DEFAULT_RECORDS: Final = 100_000
_CHECKPOINT: Final = b'"event":"%b"' % CHECKPOINT.encode()


@dataclass(frozen=True, slots=True)
class Inclusion:
    """That a record is in the tree of a checkpoint."""

    sequence: int
    leaf: bytes
    index: int
    path: list[bytes]
    checkpoint: heads.Newest


@dataclass(frozen=True, slots=True)
class Consistency:
    """That the tree of a checkpoint begins with one of an earlier size."""

    size: int
    path: list[bytes]
    checkpoint: heads.Newest


@dataclass(frozen=True, slots=True)
class Verified:
    """A part of the log, verified."""

    first: int
    last: int
    checkpoints: int
    following: int
    """Where to go on; 0 at the end."""
    bad: BadRecord | None
    checkpoint: heads.Newest


class _Abandoned(Exception):
    """Nobody waits for it any more."""


class _Pause:
    """Called on the thread now and then: others get their turn, and it ends here once nobody waits for it."""

    __slots__ = ("abandoned",)

    def __init__(self) -> None:
        self.abandoned = False

    def __call__(self) -> None:
        if self.abandoned:
            raise _Abandoned
        upkeep.pause()


class _Log(NamedTuple):
    """A chain that is asked about, and up to where."""

    directory: Path
    chain_id: bytes
    checkpoint: heads.Newest
    until: int
    """The newest record that counts: of a chain that another process writes, its newest checkpoint's."""


async def _nobody(chain_id: bytes) -> bool:
    """Nobody else writes here."""
    del chain_id
    return True


class AuditProofs:
    """Proves and verifies.  Raises Unavailable, reason SEALED, while there are no keys.

    `sign` has the process that writes another chain sign a checkpoint of it; False when it is away.
    """

    def __init__(
        self, log: AuditLog, witness: AuditWitness, sign: Callable[[bytes], Awaitable[bool]] = _nobody
    ) -> None:
        self._log = log
        self._witness = witness
        self._sign = sign
        self._thread = ThreadPoolExecutor(1, "audit-proofs")

    async def inclusion(self, sequence: int, chain_id: bytes = b"", leaf: bytes = b"") -> Inclusion:
        """Prove that a record is in the log; raises NotFound for one that is not, or has another hash than the receipt."""
        log = await self._find(chain_id)
        if log.checkpoint.head.last < sequence:
            log = await self._with_newer_checkpoint(log, sequence)
        if not log.checkpoint.head.first <= sequence <= log.checkpoint.head.last:
            raise not_found()
        return await self._run(lambda pause: _inclusion(log.directory, sequence, leaf, log.checkpoint, pause))

    async def _with_newer_checkpoint(self, log: _Log, sequence: int) -> _Log:
        """The log with a checkpoint that was signed just now, where there can be one that covers a record."""
        if log.chain_id == self._log.chain_id:
            if sequence > self._log.sequence:
                raise not_found()
            checkpoint = await self._witness.checkpoint() or log.checkpoint
            return log._replace(checkpoint=checkpoint)
        signed = await self._sign(log.chain_id)
        newer = await self._find(log.chain_id)
        if not signed and newer.checkpoint.head.last < sequence:
            raise Unavailable(
                "AUDIT_CHAIN_AWAY",
                "the worker that wrote this record, if there is one, does not serve now, and no checkpoint covers it yet",
                retry_after_s=1,
            )
        return newer

    async def consistency(self, size: int, chain_id: bytes = b"") -> Consistency:
        """Prove that the newest tree begins with an earlier one; raises NotFound for a size that this log did not have."""
        log = await self._find(chain_id)
        if size > log.checkpoint.head.size:
            raise not_found()
        return await self._run(lambda pause: _consistency(log.directory, size, log.checkpoint, pause))

    async def verify(self, first: int, limit: int, chain_id: bytes = b"") -> Verified:
        """Verify from the newest checkpoint at or before a record on, with MACs, about `limit` records."""
        log, witness = await self._find(chain_id), self._witness
        limit = limit or DEFAULT_RECORDS
        return await self._run(lambda pause: _verify(log, witness, first, limit, pause))

    async def _find(self, chain_id: bytes) -> _Log:
        """The chain of this process, or one beside it; raises NotFound, and DataLoss for a checkpoint that is not ours."""
        newest, own = self._witness.newest, self._log
        if newest is None:
            raise sealed_error()
        if not chain_id or chain_id == own.chain_id:
            return _Log(own.directory, own.chain_id, newest, own.sequence)
        keys = self._witness.public_keys
        return await self._run(lambda _: _beside(own.directory, chain_id, keys))

    async def _run(self, work: Callable[[_Pause], _Found]) -> _Found:
        """On the thread, in the order in which they came.  Of a caller that is gone nothing is begun, and what was begun stops."""
        pause = _Pause()
        try:
            return await asyncio.get_running_loop().run_in_executor(self._thread, work, pause)
        except asyncio.CancelledError:
            pause.abandoned = True
            raise


def _beside(directory: Path, chain_id: bytes, keys: Sequence[PublicKey]) -> _Log:
    path = chain_beside(directory, chain_id)
    newest = heads.read_newest(path) if path is not None else None
    if path is None or newest is None:
        raise not_found()
    try:
        verify_note(newest.note, keys)
    except NoteInvalid as error:
        raise heads.tampered(f"its newest checkpoint: {error}") from None
    return _Log(path, chain_id, newest, newest.sequence)


def _stored(directory: Path, checkpoint: heads.Newest) -> tuple[StoredLeaves, int]:
    """Hashes on disk, and the first leaf whose record is there."""
    pruned = heads.read_pruned(directory)
    peaks = covered(pruned.head.size, pruned.peaks) if pruned is not None else []
    peaks += covered(checkpoint.head.size, checkpoint.peaks)
    return StoredLeaves(directory, checkpoint.head.first, peaks), pruned.head.size if pruned is not None else 0


def _inclusion(directory: Path, sequence: int, leaf: bytes, checkpoint: heads.Newest, pause: _Pause) -> Inclusion:
    head = checkpoint.head
    index = sequence - head.first
    (found,) = read_leaves(directory, sequence, 1) or [b""]
    if not found or (leaf and leaf != found):
        raise not_found()
    for _ in range(2):
        stored, begin = _stored(directory, checkpoint)
        try:
            path = inclusion_proof(stored, index, head.size)
        except LookupError:
            path = []
        if verify_inclusion(found, index, head.size, path, head.root):
            if stored.missed:
                _rebuild(directory, checkpoint, begin, pause)  # the next proof need not read so much
            return Inclusion(sequence, found, index, path, checkpoint)
        _rebuild(directory, checkpoint, begin, pause)
    raise heads.tampered(f"record {sequence} does not lead to the root that was signed")


def _consistency(directory: Path, size: int, checkpoint: heads.Newest, pause: _Pause) -> Consistency:
    head = checkpoint.head
    for _ in range(2):
        stored, begin = _stored(directory, checkpoint)
        try:
            path = consistency_proof(stored, size, head.size)
            old = stored.root(size)
        except LookupError:
            if size <= begin:
                raise not_found() from None
            path, old = [], b""
        if verify_consistency(size, head.size, path, old, head.root):
            if stored.missed:
                _rebuild(directory, checkpoint, begin, pause)
            return Consistency(size, path, checkpoint)
        _rebuild(directory, checkpoint, begin, pause)
    raise heads.tampered(f"its first {size} records do not lead to the root that was signed")


def _rebuild(directory: Path, checkpoint: heads.Newest, begin: int, pause: _Pause) -> None:
    try:
        rebuild(directory, checkpoint.head.first, checkpoint.head.size, begin, pause)
    except LookupError:
        raise heads.tampered("records are missing in it") from None


def _verify(
    log: _Log,
    witness: AuditWitness,
    first: int,
    limit: int,
    pause: _Pause,
) -> Verified:
    directory, chain_id, checkpoint, until = log
    chain = _start(directory, chain_id, first, witness.public_keys, pause)
    begin = chain.last + 1
    walk = Walk(chain, keys=witness.public_keys, mac_key=witness.mac_key(chain_id))
    goal = min(until, chain.last + limit)
    bad = None
    try:
        walk_segments(directory, walk, until=goal, pause=pause)
        if walk.sequence < goal:
            raise BadRecord(upkeep.NOWHERE, walk.sequence + 1, "is missing")
    except BadRecord as found:
        bad = found
    following = walk.sequence + 1 if bad is None and walk.sequence < until else 0
    return Verified(begin, walk.sequence, walk.checkpoints, following, bad, checkpoint)


def _start(directory: Path, chain_id: bytes, first: int, keys: Sequence[PublicKey], pause: _Pause) -> Chain:
    """The chain at the newest checkpoint at or before a record, or where the log begins."""
    for _, path in reversed(segments.list_segments(directory)) if first > 1 else ():
        pause()
        found = b""
        with segments.open_segment(path) as file:
            for line in file:
                if segments.sequence_of(line) > first:
                    break
                if _CHECKPOINT in line and line.endswith(b"\n"):
                    found = line
        if found:
            newest = heads.newest_of(found[:-1])
            return Chain.after(newest.head, newest.peaks)
    pruned = heads.read_pruned(directory)
    if pruned is None:
        return begin_chain(directory, chain_id)
    pruned.verify(keys)
    return pruned.chain()


def not_found() -> NotFound:
    """The error of a record, a tree or a chain that is not here."""
    return NotFound(
        "AUDIT_RECORD_NOT_FOUND",
        "the audit log of this node has no such record or tree: it is another node's, was removed as too old, or never was",
    )
