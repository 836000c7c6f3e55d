"""Compresses segments that are not written any more, and removes those that are older than they are to be kept.

Nothing is removed that a checkpoint does not cover and that was not verified once more.  What was removed stays provable: a
signed tree head of it, with its frontier, is kept (heads.py).  All functions block, and run on a thread of their own.
"""

from __future__ import annotations

import gzip
import hashlib
import os
import shutil
import time
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import TYPE_CHECKING, Final

from vaultd.audit import heads, segments
from vaultd.audit.reader import first_sequence, time_of
from vaultd.audit.verify import begin_chain, walk_segments
from vaultd.audit.walk import BadRecord, Place, Walk
from vaultd.durable import sync_directory

if TYPE_CHECKING:
    from pathlib import Path

    from vaultd.audit.checkpoints import Signer, TreeHead

COMPRESSION_LEVEL: Final = 6
STEP: Final = 10_000
PAUSE_S: Final = 0.0005
"""Python runs one thread at a time: now and then the event loop gets its turn."""
NOWHERE: Final = Place("", 0)
_CHUNK_BYTES: Final = 256 * 1024


def pause() -> None:
    """Let others run."""
    time.sleep(PAUSE_S)


def compress_closed(directory: Path, open_number: int, after_s: float = 0.0) -> list[str]:
    """Compress every segment before the open one that was last written so long ago; return the names of those that were.

    A crash leaves one of both whole.
    """
    done = []
    for number, path in segments.list_segments(directory):
        if number >= open_number or path.name.endswith(segments.GZIP_SUFFIX):
            continue
        status = path.stat()
        if status.st_size and time.time() - status.st_mtime >= after_s:
            _compress(path)
            done.append(path.name)
    return done


def _compress(path: Path) -> None:
    target = path.with_name(path.name + segments.GZIP_SUFFIX)
    temporary = target.with_name(f"{target.name}.tmp")
    temporary.unlink(missing_ok=True)
    flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW
    with path.open("rb") as plain, os.fdopen(os.open(temporary, flags, 0o600), "w+b") as file:
        with gzip.GzipFile("", "wb", COMPRESSION_LEVEL, file, mtime=0) as packed:
            shutil.copyfileobj(plain, packed, _CHUNK_BYTES)
        file.flush()
        os.fsync(file.fileno())
        file.seek(0)
        plain.seek(0)
        with gzip.GzipFile("", "rb", fileobj=file) as packed:
            same = _digest(packed) == _digest(plain)
    if not same:
        temporary.unlink()
        raise OSError("a compressed segment does not read as it was written")
    temporary.rename(target)
    sync_directory(path.parent)
    path.unlink()


def _digest(file: object) -> bytes:
    digest = hashlib.sha256()
    while chunk := file.read(_CHUNK_BYTES):  # type: ignore[attr-defined]  # a binary file
        digest.update(chunk)
    return digest.digest()


@dataclass(frozen=True, slots=True)
class Removal:
    """What may be removed: every segment up to a record."""

    through: int
    paths: tuple[Path, ...]
    head: TreeHead
    """Of the records up to `through`."""
    peaks: tuple[bytes, ...]


def plan_removal(
    directory: Path, chain_id: bytes, before_us: int, signer: Signer, signed: TreeHead, needed: int
) -> Removal | None:
    """Find the segments whose records are all older than a time, and verify them.  None when there are none.

    signed: the newest checkpoint, which covers whatever goes.  needed: the first record that somebody still needs.  Raises
    BadRecord, or DataLoss for the file `pruned`: a log that does not verify is not pruned.
    """
    through, paths = _removable(segments.list_segments(directory), before_us, min(signed.last + 1, needed))
    pruned = heads.read_pruned(directory)
    if pruned is not None:
        pruned.verify(signer.public_keys)
    chain = pruned.chain() if pruned is not None else begin_chain(directory, chain_id)
    if through <= chain.last:
        return None
    walk = Walk(chain, keys=signer.public_keys)
    walk_segments(directory, walk, until=through, pause=pause)
    if walk.sequence != through:
        raise _missing(walk)
    tree = walk.chain.tree()
    last, first = walk.chain.head, walk.chain.first
    head = replace(signed, size=tree.size, root=tree.root(), chain=last, first=first, pruned=True)
    peaks = tree.peaks
    while walk.newest is None or walk.newest.last < through:
        before = walk.sequence
        walk_segments(directory, walk, until=before + STEP, pause=pause)
        if walk.sequence == before:
            raise _missing(walk)
    return Removal(through, tuple(paths), head, peaks)


def _removable(listed: list[tuple[int, Path]], before_us: int, stays: int) -> tuple[int, list[Path]]:
    """The last record that is old enough and before the one that stays, where a segment ends; and the segments up to there.

    A segment goes only when one that follows shows where its records end, so that none goes that is not verified.
    """
    through = 0
    paths: list[Path] = []
    held: list[Path] = []
    for (_, path), (_, following) in pairwise(listed):
        held.append(path)
        first = first_sequence(following)
        if not first or (paths and first <= through + 1):
            continue  # empty, or no whole record: it does not show what the one before holds
        if _first_time(following) >= before_us or first > stays:
            break
        through = first - 1
        paths += held
        held = []
    return through, paths


def _missing(walk: Walk) -> BadRecord:
    return BadRecord(NOWHERE, walk.sequence + 1, "is missing")


def remove(directory: Path, removal: Removal, signer: Signer) -> None:
    """Say where the log begins from now on, durably, and remove what is before."""
    pruned = heads.read_pruned(directory)
    removed = len(removal.paths) + (pruned.segments if pruned is not None else 0)
    heads.write_pruned(directory, signer.sign(removal.head), removal.peaks, signer.public_keys, removed)
    for path in removal.paths:
        path.unlink(missing_ok=True)
    sync_directory(directory)


def _first_time(path: Path) -> int:
    with segments.open_segment(path) as file:
        return time_of(file.readline())
