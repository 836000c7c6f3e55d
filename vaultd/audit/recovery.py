"""How a process takes over an audit directory: where the records before it end, and whether they are as they were written.

Only what came after the newest checkpoint is read.  All functions block.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING

from vaultd.audit import heads, segments
from vaultd.audit.blocks import BlockFiles
from vaultd.audit.chain import Chain
from vaultd.audit.lines import take_apart
from vaultd.audit.reader import AuditReader
from vaultd.audit.tree import Frontier, leaf_hash
from vaultd.audit.verify import begin_chain, walk_segments
from vaultd.audit.walk import CHECKPOINT, BadRecord, Walk
from vaultd.errors import FailedPrecondition

if TYPE_CHECKING:
    from pathlib import Path

    Record = dict[str, object]


@dataclass(frozen=True, slots=True)
class Resumed:
    """Where a log goes on."""

    chain: Chain
    blocks: BlockFiles
    number: int
    """Of the newest segment."""
    records: list[Record]
    """What the next segment begins with."""


def resume(directory: Path, wanted: bytes | None) -> Resumed:
    """Recover a directory that is locked.

    Raises FailedPrecondition (AUDIT_CHAIN_MISMATCH, AUDIT_CHAIN_ID_INVALID) and DataLoss, reason AUDIT_TAMPERED.
    """
    recovered = segments.recover(directory)
    records: list[Record] = [
        {"event": "recovered", "segment": tail.segment, "torn_bytes": tail.bytes, "torn_file": tail.kept_in}
        for tail in recovered.torn
    ]
    has_records = bool(recovered.last_sequence)
    chain_id, previous = _settle_chain_id(directory, wanted, has_records, keep=has_records or recovered.pristine)
    blocks = BlockFiles(directory)
    if previous is not None:
        heads.set_aside(directory, previous)
        records.append({"event": "chain_started", "previous_chain_id": previous.hex()})
    if not has_records:
        blocks.begin(0)
        chain = Chain(chain_id, tree=Frontier(on_block=blocks.add))
        return Resumed(chain, blocks, recovered.last_number, records)
    newest, pruned = newest_checkpoint(directory, chain_id), heads.read_pruned(directory)
    last = _line_of(directory, recovered.last_sequence)
    if newest is None and pruned is None and not take_apart(last).chain:
        # Of a release without a chain: it begins here, and vouches for nothing before.
        blocks.begin(0)
        records.insert(0, {"event": "chain_begins", "previous_leaf": leaf_hash(last).hex()})
        chain = Chain(chain_id, first=recovered.last_sequence + 1, tree=Frontier(on_block=blocks.add))
    else:
        chain = _catch_up(directory, chain_id, newest, pruned, blocks, recovered.last_sequence)
    return Resumed(chain, blocks, recovered.last_number, records)


def _settle_chain_id(
    directory: Path, wanted: bytes | None, has_records: bool, *, keep: bool
) -> tuple[bytes, bytes | None]:
    """Read or make the chain id; return it, and the one that it replaces.

    A directory whose segments were taken away must not give out numbers of the old chain again: it gets a new id.
    """
    found = segments.read_chain_id(directory)
    if has_records:
        if found is None and wanted is None:
            raise FailedPrecondition(
                "AUDIT_CHAIN_ID_INVALID",
                "the audit directory has segments but no file chain-id: restore it, or start a new directory",
            )
        if found is not None and wanted is not None and found != wanted:
            raise FailedPrecondition("AUDIT_CHAIN_MISMATCH", "the audit directory belongs to another chain")
        chain_id = found or wanted or b""
    else:
        chain_id = wanted or (found if keep and found else os.urandom(segments.CHAIN_ID_BYTES))
    if chain_id == found:
        return chain_id, None
    segments.write_chain_id(directory, chain_id)
    return chain_id, found


def newest_checkpoint(directory: Path, chain_id: bytes) -> heads.Newest | None:
    """The newest checkpoint of a chain: that of its file, or where the file is gone, of the segments."""
    newest = heads.read_newest(directory)
    if newest is not None:
        return newest if newest.head.chain_id == chain_id else None
    mark = b'"event":"%b"' % CHECKPOINT.encode()
    for _, path in reversed(segments.list_segments(directory)):
        found = b""
        with segments.open_segment(path) as file:
            for number, line in enumerate(file):
                if not number and line.endswith(b"\n") and not take_apart(line[:-1]).chain:
                    return None  # of a release without a chain, and so is everything before
                if mark in line and line.endswith(b"\n"):
                    found = line
        if found:
            try:
                return heads.newest_of(found[:-1])
            except (ValueError, KeyError, TypeError):
                continue  # said by who walks over it
    return None


def _catch_up(
    directory: Path,
    chain_id: bytes,
    newest: heads.Newest | None,
    pruned: heads.Pruned | None,
    blocks: BlockFiles,
    last: int,
) -> Chain:
    """The chain at the last record."""
    if newest is not None:
        chain = Chain.after(newest.head, newest.peaks, blocks.add)
    elif pruned is not None and pruned.head.chain_id == chain_id:
        chain = pruned.chain(blocks.add)
    else:
        chain = begin_chain(directory, chain_id, blocks.add)
    blocks.begin(chain.size)
    walk = Walk(chain, keys=())
    try:
        walk_segments(directory, walk, witness=newest)
    except BadRecord as bad:
        raise heads.tampered(str(bad)) from None
    if walk.sequence != last:
        raise heads.tampered(f"its last record is {last}, and record {walk.sequence + 1} does not follow what is there")
    blocks.write(blocks.take())
    return chain


def _line_of(directory: Path, sequence: int) -> bytes:
    reader = AuditReader(directory, sequence - 1)
    try:
        records = reader.read(1)
    finally:
        reader.close()
    return records[0].line if records else b""
