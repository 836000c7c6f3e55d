"""Files with the roots of perfect subtrees of 2^8, 2^16 and 2^24 records, so that a proof reads little of a large log.

`tree-8` and its like are 32 bytes for each subtree, in order.  They are a cache: every proof that comes of them is verified
against the signed root, and what is missing or wrong is made again from the segments.  All functions block.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Final

from vaultd.audit.reader import AuditReader, RecordsMissing
from vaultd.audit.tree import BLOCK_LEVEL, HASH_BYTES, leaf_hash, node_hash, tree_root

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

LEVELS: Final = (24, 16, BLOCK_LEVEL)
NAMES: Final = {level: f"tree-{level}" for level in LEVELS}


class BlockFiles:
    """Takes subtree roots as the tree grows; they reach the files with `take` and `write`."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._pending: dict[int, list[bytes]] = {level: [] for level in LEVELS}
        self._written = dict.fromkeys(LEVELS, 0)

    def add(self, level: int, root: bytes) -> None:
        """Note the root of the next subtree of a level."""
        if level in self._pending:
            self._pending[level].append(root)

    def begin(self, size: int) -> None:
        """Go on behind a tree of this size."""
        for level in LEVELS:
            self._pending[level].clear()
            self._written[level] = size >> level

    def take(self) -> dict[int, tuple[int, list[bytes]]]:
        """What waits to be written: by level the index of the first, and the roots.  Called where `add` is."""
        pending, self._pending = self._pending, {level: [] for level in LEVELS}
        taken = {level: (self._written[level], roots) for level, roots in pending.items()}
        for level, roots in pending.items():
            self._written[level] += len(roots)
        return taken

    def write(self, taken: dict[int, tuple[int, list[bytes]]]) -> None:
        """Write to the files, on any thread.  Not synced: what a power loss takes is made again when it is needed."""
        for level, (index, roots) in taken.items():
            if roots:
                flags = os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
                with os.fdopen(os.open(self._directory / NAMES[level], flags, 0o600), "wb") as file:
                    file.seek(index * HASH_BYTES)
                    file.write(b"".join(roots))


class StoredLeaves:
    """The hashes of a log's tree, read from block files and segments.  `peaks`: subtree roots that are known by themselves."""

    def __init__(self, directory: Path, first: int, peaks: Sequence[tuple[int, int, bytes]] = ()) -> None:
        self._directory = directory
        self._first = first
        self._known = {(start, end): root for start, end, root in peaks}
        self._blocks: dict[int, list[bytes]] = {}
        self.missed = False
        """Whether a root was looked for in a file that does not have it."""

    def range_root(self, start: int, end: int) -> bytes:
        """The root of a perfect subtree; raises LookupError when its records are not in the directory any more."""
        known = self._known.get((start, end))
        if known is not None:
            return known
        width = end - start
        for level in LEVELS:
            if width >= 1 << level:
                roots = self._read(level, start >> level, width >> level)
                if roots is not None:
                    return _fold(roots)
                self.missed = True
        if width > 1 << BLOCK_LEVEL:
            middle = start + width // 2
            return node_hash(self.range_root(start, middle), self.range_root(middle, end))
        block = start >> BLOCK_LEVEL << BLOCK_LEVEL
        leaves = self._leaves(block)
        chosen = leaves[start - block : end - block]
        if len(chosen) != width or not all(chosen):
            raise LookupError("records of this part of the log are not in the directory")
        return _fold(chosen)

    def root(self, size: int) -> bytes:
        """The root of the tree over the first leaves; raises LookupError as `range_root` does."""
        return tree_root(self, 0, size)

    def _read(self, level: int, index: int, count: int) -> list[bytes] | None:
        try:
            with (self._directory / NAMES[level]).open("rb") as file:
                file.seek(index * HASH_BYTES)
                data = file.read(count * HASH_BYTES)
        except FileNotFoundError:
            return None
        if len(data) != count * HASH_BYTES:
            return None
        return [data[at : at + HASH_BYTES] for at in range(0, len(data), HASH_BYTES)]

    def _leaves(self, block: int) -> list[bytes]:
        """Leaf hashes of a block, b"" where the record is gone."""
        found = self._blocks.get(block)
        if found is None:
            found = self._blocks[block] = read_leaves(self._directory, self._first + block, 1 << BLOCK_LEVEL)
        return found


def read_leaves(directory: Path, sequence: int, count: int) -> list[bytes]:
    """Leaf hashes of records from a sequence on, up to the newest; b"" for those that are gone."""
    reader = AuditReader(directory, sequence - 1)
    leaves: list[bytes] = []
    try:
        while len(leaves) < count:
            try:
                records = reader.read(count - len(leaves))
            except RecordsMissing as gap:
                leaves += [b""] * min(gap.next_sequence - gap.first_missing, count - len(leaves))
                continue
            if not records:
                break
            leaves += [leaf_hash(record.line) for record in records]
    finally:
        reader.close()
    return leaves


def rebuild(directory: Path, first: int, size: int, begin: int, pause: Callable[[], None]) -> None:
    """Make the files anew, from the records from leaf `begin` on: those of smaller leaves are gone, and their roots stay."""
    files = BlockFiles(directory)
    roots: dict[int, list[bytes]] = {level: [] for level in LEVELS}
    starts = {level: -(-begin >> level) for level in LEVELS}
    step = 1 << BLOCK_LEVEL
    for block in range(starts[BLOCK_LEVEL], size >> BLOCK_LEVEL):
        leaves = read_leaves(directory, first + block * step, step)
        if len(leaves) < step or not all(leaves):
            raise LookupError("records of this part of the log are not in the directory")
        roots[BLOCK_LEVEL].append(_fold(leaves))
        pause()
    for level in reversed(LEVELS[:-1]):
        below, shift = level - BLOCK_LEVEL, BLOCK_LEVEL
        for index in range(starts[level], size >> level):
            at = (index << shift) - starts[below]
            roots[level].append(_fold(roots[below][at : at + (1 << shift)]))
    files.write({level: (starts[level], roots[level]) for level in LEVELS})


def _fold(roots: list[bytes]) -> bytes:
    """The root over perfect subtrees of one size; their number is a power of two."""
    while len(roots) > 1:
        pairs = iter(roots)
        roots = [node_hash(left, right) for left, right in zip(pairs, pairs, strict=True)]
    return roots[0]
