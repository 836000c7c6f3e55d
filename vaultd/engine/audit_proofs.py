"""Proofs about this node's audit log, and its verification on disk.

What is read from disk is not believed: a proof leaves here only if it leads from the leaf to the root that was signed.  Reading
and hashing are done on one thread, one request at a time; that of a caller who is gone stops at its next pause.
"""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, TypeVar

from vaultd.audit import heads, segments, upkeep
from vaultd.audit.blocks import StoredLeaves, read_leaves, rebuild
from vaultd.audit.chain import Chain
from vaultd.audit.tree import consistency_proof, covered, inclusion_proof, verify_consistency, verify_inclusion
from vaultd.audit.verify import begin_chain, walk_segments
from vaultd.audit.walk import CHECKPOINT, BadRecord, Walk
from vaultd.engine.sealing import sealed_error
from vaultd.errors import NotFound

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
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


class AuditProofs:
    """Proves and verifies.  Raises Unavailable, reason SEALED, while there are no keys."""

    def __init__(self, log: AuditLog, witness: AuditWitness) -> None:
        self._log = log
        self._witness = witness
        self._thread = ThreadPoolExecutor(1, "audit-proofs")

    async def inclusion(self, sequence: int, chain_id: bytes = b"", leaf: bytes = b"") -> Inclusion:
        """Prove that a record is in the log; raises NotFound for one that is not, or has another hash than the receipt."""
        if (chain_id and chain_id != self._log.chain_id) or not self._log.chain.first <= sequence <= self._log.sequence:
            raise _not_found()
        checkpoint = await self._newest()
        if checkpoint.head.last < sequence:
            checkpoint = await self._witness.checkpoint() or checkpoint
        directory = self._log.directory
        return await self._run(lambda pause: _inclusion(directory, sequence, leaf, checkpoint, pause))

    async def consistency(self, size: int, chain_id: bytes = b"") -> Consistency:
        """Prove that the newest tree begins with an earlier one; raises NotFound for a size that this log did not have."""
        checkpoint = await self._newest()
        if (chain_id and chain_id != self._log.chain_id) or size > checkpoint.head.size:
            raise _not_found()
        directory = self._log.directory
        return await self._run(lambda pause: _consistency(directory, size, checkpoint, pause))

    async def verify(self, first: int, limit: int) -> Verified:
        """Verify from the newest checkpoint at or before a record on, with MACs, about `limit` records."""
        checkpoint = await self._newest()
        log, witness, until = self._log, self._witness, self._log.sequence
        limit = limit or DEFAULT_RECORDS
        return await self._run(lambda pause: _verify(log, witness, first, limit, until, checkpoint, pause))

    async def _run(self, work: Callable[[_Pause], _Found]) -> _Found:
        """On the thread, in the order in which they came.  Of a caller that is gone nothing is begun, and what was begun stops."""
        pause = _Pause()
        try:
            return await asyncio.get_running_loop().run_in_executor(self._thread, work, pause)
        except asyncio.CancelledError:
            pause.abandoned = True
            raise

    async def _newest(self) -> heads.Newest:
        newest = self._witness.newest
        if newest is None:
            raise sealed_error()
        return newest


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
        raise _not_found()
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
                raise _not_found() from None
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
    log: AuditLog,
    witness: AuditWitness,
    first: int,
    limit: int,
    until: int,
    checkpoint: heads.Newest,
    pause: _Pause,
) -> Verified:
    directory, chain_id = log.directory, log.chain_id
    chain = _start(directory, chain_id, first, witness.public_keys, pause)
    begin = chain.last + 1
    walk = Walk(chain, keys=witness.public_keys, mac_key=witness.mac_key())
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


def _not_found() -> NotFound:
    return NotFound(
        "AUDIT_RECORD_NOT_FOUND",
        "the audit log of this node has no such record or tree: it is another node's, was removed as too old, or never was",
    )
