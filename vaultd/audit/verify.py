"""Verifies an audit directory from its files alone, while a server writes to it or not.

Needs no key ring.  With a public key that was pinned elsewhere nobody can have changed what a checkpoint covers; with those
that the log names itself, nobody who did not change the whole log.  With the key of the MACs also what came after the newest
checkpoint.
"""

from __future__ import annotations

import gzip
import time
import zlib
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, BinaryIO, Final

from vaultd.audit import heads, segments
from vaultd.audit.chain import Chain
from vaultd.audit.checkpoints import key_id
from vaultd.audit.lines import take_apart
from vaultd.audit.reader import first_sequence
from vaultd.audit.ties import OWN, chains_in, from_record, missing
from vaultd.audit.tree import Frontier
from vaultd.audit.walk import BadRecord, Place, Walk
from vaultd.errors import FailedPrecondition

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from vaultd.audit.checkpoints import PublicKey, TreeHead
    from vaultd.audit.ties import Tie

BEGINS: Final = b'"event":"chain_begins"'
LINES_PER_PAUSE: Final = 256
LOOKS: Final = 3
LOOK_S: Final = 0.02
"""How often, and how far apart, a line that is not whole is looked at again."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """What was found in a log without a bad record."""

    chain_id: bytes
    first: int
    """The sequence of the first record in the chain: records of older releases before it have no hashes."""
    pruned: int
    """The sequence of the last record that was pruned; 0 when none was."""
    last: int
    checkpoints: int
    newest: TreeHead | None
    unsigned: int
    """Records after the newest checkpoint's: nothing but their hashes, and MACs, speaks for them."""
    macs: int
    """MACs that were checked."""
    keys: list[str] = field(default_factory=list)
    """Ids of the keys that verified the checkpoints."""
    ties: list[Tie] = field(default_factory=list)
    """What it says, signed, of the chains beside it."""


def verify_directory(
    directory: Path, *, keys: Sequence[PublicKey] | None = None, mac_key: bytes | None = None
) -> Verdict:
    """Verify a whole log.

    Raises BadRecord for the first bad record, DataLoss for damaged files beside the segments, and FailedPrecondition for a
    directory that is no log.
    """
    chain_id = segments.read_chain_id(directory)
    if chain_id is None:
        raise FailedPrecondition(
            "AUDIT_CHAIN_ID_INVALID", "the directory has no file chain-id: it is no audit directory"
        )
    newest = heads.read_newest(directory)
    pruned = heads.read_pruned(directory)
    walk = Walk(
        _beginning(directory, chain_id, pruned, keys),
        keys=keys,
        mac_key=mac_key,
        named=pruned.keys if pruned is not None else (),
    )
    walk_segments(directory, walk, witness=newest)
    if keys and not walk.checkpoints:  # a key that can be pinned has signed something, and the newest is never pruned
        raise BadRecord(Place("", 0), walk.sequence, "no checkpoint vouches for any record of this log")
    covered = walk.newest.last + 1 if walk.newest is not None else (pruned.head.last if pruned is not None else 0)
    return Verdict(
        chain_id=chain_id,
        first=walk.chain.first,
        pruned=pruned.head.last if pruned is not None else 0,
        last=walk.sequence,
        checkpoints=walk.checkpoints,
        newest=walk.newest,
        unsigned=walk.sequence - max(covered, walk.chain.first - 1),
        macs=walk.macs,
        keys=[key_id(key) for key in walk.keys],
        ties=from_record({"heads": list(walk.ties.values())}),
    )


def verify_chains(
    root: Path,
    *,
    keys: Sequence[PublicKey] | None = None,
    mac_key: Callable[[bytes], bytes] | None = None,
) -> dict[str, Verdict]:
    """Verify every chain in an audit directory, and what each says of the others; by name, `.` is the directory's own.

    `mac_key` gives the key of a chain's MACs.  Raises like `verify_directory`; a BadRecord names the chain it is in.
    """
    found = chains_in(root)
    if not found:
        return {OWN: verify_directory(root, keys=keys)}  # says what is wrong
    verdicts = {}
    for name, directory in found.items():
        chain_id = segments.read_chain_id(directory) or b""
        try:
            key = mac_key(chain_id) if mac_key is not None else None
            verdicts[name] = verify_directory(directory, keys=keys, mac_key=key)
        except BadRecord as bad:
            raise bad if name == OWN else bad.within(name) from None
    for name, verdict in verdicts.items():
        problem = missing(found[name], verdict.ties)
        if problem:
            told = BadRecord(Place("", 0), verdict.newest.last if verdict.newest is not None else verdict.last, problem)
            raise told if name == OWN else told.within(name)
    return verdicts


def _beginning(
    directory: Path, chain_id: bytes, pruned: heads.Pruned | None, keys: Sequence[PublicKey] | None
) -> Chain:
    """The chain before the first record that the directory has."""
    if pruned is None:
        return begin_chain(directory, chain_id)
    if pruned.head.chain_id != chain_id:
        raise heads.tampered(f"the file {heads.PRUNED_FILE} is of another log")
    if keys:
        pruned.verify(keys)
    return pruned.chain()


def begin_chain(directory: Path, chain_id: bytes, on_block: Callable[[int, bytes], object] | None = None) -> Chain:
    """The chain before its first record: record 1, or the one that says `chain_begins` after those of an older release.

    That one is always the first of its segment.
    """
    for _, path in segments.list_segments(directory):
        try:
            with segments.open_segment(path) as file:
                line = file.readline()
            if BEGINS in line and take_apart(line.rstrip(b"\n")).chain:
                return Chain(chain_id, first=segments.sequence_of(line), tree=Frontier(on_block=on_block))
            if take_apart(line.rstrip(b"\n")).chain:
                break
        except (EOFError, zlib.error, gzip.BadGzipFile):
            break  # said by who walks over it
    return Chain(chain_id, tree=Frontier(on_block=on_block))


def walk_segments(
    directory: Path,
    walk: Walk,
    *,
    witness: heads.Newest | None = None,
    until: int | None = None,
    pause: Callable[[], None] | None = None,
) -> None:
    """Take every record from where the walk stands to the end, or to `until`; raises BadRecord.

    witness: a record that must be in the log.  pause: called now and then, so that others get their turn.
    """
    listed = segments.list_segments(directory)
    begin, known = _index_of(listed, walk.sequence + 1) if walk.sequence >= walk.chain.first else (0, 0)
    listed = listed[begin:]
    leftovers: dict[str, tuple[Place, int, int]] = {}
    try:
        for at, (_, path) in enumerate(listed):
            later = [following for _, following in listed[at + 1 :]]
            _walk_segment(path, walk, later, leftovers, witness, until, pause, 0 if at else known)
            if until is not None and walk.sequence >= until:
                break
    except BadRecord as bad:
        raise (_unexplained(leftovers, walk) or bad) from None
    unexplained = _unexplained(leftovers, walk)
    if unexplained is not None:
        raise unexplained
    if witness is not None and walk.sequence < witness.sequence and (until is None or until >= witness.sequence):
        last = segments.plain_name(listed[-1][1]) if listed else ""
        raise BadRecord(
            Place(last, 0), walk.sequence + 1, f"is missing: the newest checkpoint is record {witness.sequence}"
        )


def _walk_segment(
    path: Path,
    walk: Walk,
    later: list[Path],
    leftovers: dict[str, tuple[Place, int, int]],
    witness: heads.Newest | None,
    until: int | None,
    pause: Callable[[], None] | None,
    known: int,
) -> None:
    """Take the records of a segment; the first one has `known` lines that the walk begins behind."""
    name, number, offset = segments.plain_name(path), 0, 0
    try:
        _check_header(path, walk)
        with segments.open_segment(path) as file:
            while line := file.readline():
                number += 1
                if pause is not None and not number % LINES_PER_PAUSE:
                    pause()
                place = Place(name, number)
                if number <= known or (walk.sequence < walk.chain.first and _before_chain(line, walk)):
                    offset += len(line)
                    continue
                if not line.endswith(b"\n") and not later:
                    line = _rest_of(file, offset)
                if not line.endswith(b"\n"):
                    if not later:
                        raise BadRecord(place, walk.sequence + 1, "the line is cut short")
                    leftovers[name] = (place, walk.sequence + 1, offset)
                    return
                try:
                    walk.take(place, line[:-1])
                except BadRecord:
                    if not walk.fits(_first_line(later)):
                        raise
                    leftovers[name] = (place, walk.sequence + 1, offset)
                    return
                offset += len(line)
                if witness is not None and walk.sequence == witness.sequence and line[:-1] != witness.line:
                    raise BadRecord(place, walk.sequence, "is not the newest checkpoint, whose copy is in its file")
                if until is not None and walk.sequence >= until:
                    return
    except (EOFError, zlib.error, gzip.BadGzipFile):
        raise BadRecord(Place(name, number + 1), walk.sequence + 1, "the compressed segment is damaged here") from None


def _rest_of(file: BinaryIO, offset: int) -> bytes:
    """The line at an offset, once it is whole: a server may be writing it at this moment."""
    line = b""
    for _ in range(LOOKS):
        time.sleep(LOOK_S)
        file.seek(offset)
        line = file.readline()
        if line.endswith(b"\n"):
            break
    return line


def _check_header(path: Path, walk: Walk) -> None:
    if path.name.endswith(segments.GZIP_SUFFIX):
        with path.open("rb") as raw:
            if raw.read(len(segments.GZIP_HEADER)) != segments.GZIP_HEADER:
                place = Place(segments.plain_name(path), 1)
                raise BadRecord(place, walk.sequence + 1, "the header of the compressed segment was changed")


def _before_chain(line: bytes, walk: Walk) -> bool:
    """Whether this is a record of a release without a chain."""
    return 0 < segments.sequence_of(line) < walk.chain.first and line.endswith(b"\n")


def _first_line(later: list[Path]) -> bytes:
    """The first record of the segments that follow."""
    for path in later:
        with segments.open_segment(path) as file:
            line = file.readline()
        if line:
            return line.rstrip(b"\n")
    return b""


def _unexplained(leftovers: dict[str, tuple[Place, int, int]], walk: Walk) -> BadRecord | None:
    """Bytes behind a segment's last record that no record explains: they stand before whatever was found later."""
    for name, (place, sequence, offset) in leftovers.items():
        if walk.abandoned.get(name) != offset:
            return BadRecord(place, sequence, "bytes stand here that no record explains")
    return None


def _index_of(listed: list[tuple[int, Path]], sequence: int) -> tuple[int, int]:
    """The newest segment that begins at or before a sequence, and how many lines it has before that one."""
    for at in range(len(listed) - 1, -1, -1):
        try:
            first = first_sequence(listed[at][1])
        except (EOFError, zlib.error, gzip.BadGzipFile):
            continue
        if 0 < first <= sequence:
            return at, sequence - first
    return 0, 0
