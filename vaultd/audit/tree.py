"""The Merkle tree of RFC 9162 (and RFC 6962) over the records of a log, kept as it grows.

    leaf hash  SHA-256(0x00 || line)         node hash  SHA-256(0x01 || left || right)

A tree of any size is described by its frontier: the roots of its perfect subtrees, largest first, one for each bit of the
size.  With it a tree goes on growing, also when its leaves are gone.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Final, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

HASH_BYTES: Final = 32
EMPTY_ROOT: Final = hashlib.sha256(b"").digest()
BLOCK_LEVEL: Final = 8
"""Subtrees of 2^8 leaves, 2^16 and so on: their roots are kept, so that a proof need not read the whole log."""

_sha256 = hashlib.sha256


def leaf_hash(line: bytes) -> bytes:
    """The hash of a record as a leaf."""
    return _sha256(b"\x00" + line).digest()


def node_hash(left: bytes, right: bytes) -> bytes:
    """The hash of an inner node."""
    return _sha256(b"\x01" + left + right).digest()


class Frontier:
    """A tree that grows.  `on_block` is given level and root of each perfect subtree of 2^8, 2^16, ... leaves, in order."""

    __slots__ = ("_on_block", "_peaks", "size")

    def __init__(
        self, size: int = 0, peaks: Sequence[bytes] = (), on_block: Callable[[int, bytes], object] | None = None
    ) -> None:
        """Raises ValueError unless there is one hash for each bit of the size."""
        if len(peaks) != size.bit_count() or any(len(peak) != HASH_BYTES for peak in peaks):
            raise ValueError("a frontier has one hash for each bit of its size")
        self.size = size
        self._peaks = list(peaks)
        self._on_block = on_block

    @property
    def peaks(self) -> tuple[bytes, ...]:
        """The roots of the perfect subtrees, largest first."""
        return tuple(self._peaks)

    def extend(self, leaves: Iterable[bytes]) -> None:
        """Add leaf hashes."""
        peaks, size, sha256 = self._peaks, self.size, _sha256
        for leaf in leaves:
            node = leaf
            level = 0
            while size >> level & 1:
                node = sha256(b"\x01" + peaks.pop() + node).digest()
                level += 1
                if not level % BLOCK_LEVEL and self._on_block is not None:
                    self._on_block(level, node)
            peaks.append(node)
            size += 1
        self.size = size

    def root(self) -> bytes:
        """The Merkle tree hash of all leaves."""
        if not self._peaks:
            return EMPTY_ROOT
        root = self._peaks[-1]
        for peak in reversed(self._peaks[:-1]):
            root = node_hash(peak, root)
        return root

    def copy(self) -> Frontier:
        """Another tree that begins as this one is, and tells nobody of its blocks."""
        return Frontier(self.size, self._peaks)


def covered(size: int, peaks: Sequence[bytes]) -> list[tuple[int, int, bytes]]:
    """Which leaves each root of a frontier covers: from, to (exclusive), root."""
    found: list[tuple[int, int, bytes]] = []
    start = 0
    for bit in range(size.bit_length() - 1, -1, -1):
        if size >> bit & 1:
            found.append((start, start + (1 << bit), peaks[len(found)]))
            start += 1 << bit
    return found


class Leaves(Protocol):
    """Where the hashes of a tree are read."""

    def range_root(self, start: int, end: int) -> bytes:
        """The root of the perfect subtree over the leaves from start to end, exclusive."""
        ...


def tree_root(leaves: Leaves, start: int, end: int) -> bytes:
    """The Merkle tree hash of a range that a subtree covers: perfect subtrees are read, others put together."""
    if end == start:
        return EMPTY_ROOT
    width = end - start
    if width & (width - 1) == 0:
        return leaves.range_root(start, end)
    split = start + _largest_power_below(width)
    return node_hash(tree_root(leaves, start, split), tree_root(leaves, split, end))


def inclusion_proof(leaves: Leaves, index: int, size: int) -> list[bytes]:
    """PATH(index, D_size) of RFC 9162, section 2.1.3.1."""
    if not 0 <= index < size:
        raise ValueError("the leaf is not in the tree")
    path: list[bytes] = []
    start, end = 0, size
    while end - start > 1:
        split = start + _largest_power_below(end - start)
        if index < split:
            path.append(tree_root(leaves, split, end))
            end = split
        else:
            path.append(tree_root(leaves, start, split))
            start = split
    return path[::-1]


def consistency_proof(leaves: Leaves, first: int, second: int) -> list[bytes]:
    """PROOF(first, D_second) of RFC 9162, section 2.1.4.1."""
    if not 0 < first <= second:
        raise ValueError("the first tree must have leaves, and no more than the second")
    path: list[bytes] = []
    start, end, whole, size = 0, second, True, first
    while size != end - start:
        split = _largest_power_below(end - start)
        if size <= split:
            path.append(tree_root(leaves, start + split, end))
            end = start + split
        else:
            path.append(tree_root(leaves, start, start + split))
            start += split
            size -= split
            whole = False
    if not whole:
        path.append(tree_root(leaves, start, end))
    return path[::-1]


def verify_inclusion(leaf: bytes, index: int, size: int, path: Sequence[bytes], root: bytes) -> bool:
    """Whether the path proves that the leaf is in the tree (RFC 9162, section 2.1.3.2)."""
    if not 0 <= index < size:
        return False
    node, here, last = leaf, index, size - 1
    for sibling in path:
        if last == 0:
            return False
        if here & 1 or here == last:
            node = node_hash(sibling, node)
            while not here & 1 and here:
                here >>= 1
                last >>= 1
        else:
            node = node_hash(node, sibling)
        here >>= 1
        last >>= 1
    return last == 0 and node == root


def verify_consistency(first: int, second: int, path: Sequence[bytes], first_root: bytes, second_root: bytes) -> bool:
    """Whether the path proves that the second tree begins with the first (RFC 9162, section 2.1.4.2)."""
    if not 0 < first <= second:
        return False
    if first == second:
        return not path and first_root == second_root
    nodes = list(path)
    if first & (first - 1) == 0:
        nodes.insert(0, first_root)
    if not nodes:
        return False
    here, last = first - 1, second - 1
    while here & 1:
        here >>= 1
        last >>= 1
    old = new = nodes[0]
    for node in nodes[1:]:
        if last == 0:
            return False
        if here & 1 or here == last:
            old, new = node_hash(node, old), node_hash(node, new)
            while not here & 1 and here:
                here >>= 1
                last >>= 1
        else:
            new = node_hash(new, node)
        here >>= 1
        last >>= 1
    return last == 0 and old == first_root and new == second_root


def _largest_power_below(width: int) -> int:
    return 1 << ((width - 1).bit_length() - 1)
