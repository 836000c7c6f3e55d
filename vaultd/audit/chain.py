"""Where a chain stands: the hash of its last record, the tree over its records, and the key that MACs the next one."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from vaultd.audit.lines import RecordMac, first_chain, link, sealed_key
from vaultd.audit.tree import Frontier, leaf_hash

if TYPE_CHECKING:
    from collections.abc import Callable

    from vaultd.audit.checkpoints import TreeHead

FOLD: Final = 512
"""Leaves that are kept before they go into the tree, so that a call pays for its own hashes only."""


class Chain:
    """Grows by one record at a time.  Making a line changes nothing; `add` does, once the line is written."""

    __slots__ = ("_key", "_leaves", "_tree", "chain_id", "first", "head", "mac")

    def __init__(
        self,
        chain_id: bytes,
        *,
        first: int = 1,
        head: bytes | None = None,
        tree: Frontier | None = None,
    ) -> None:
        self.chain_id = chain_id
        self.first = first
        """The sequence of the first record in the tree."""
        self.head = first_chain(chain_id) if head is None else head
        """The chain hash of the last record."""
        self._tree = tree or Frontier()
        self._leaves: list[bytes] = []
        self.mac: RecordMac | None = None
        """Of the next line; None without the key ring."""
        self._key = b""

    @classmethod
    def after(cls, head: TreeHead, peaks: list[bytes], on_block: Callable[[int, bytes], object] | None = None) -> Chain:
        """The chain as it was when a tree head was signed; raises ValueError when the peaks are not those of its tree."""
        tree = Frontier(head.size, peaks, on_block)
        if tree.root() != head.root:
            raise ValueError("the frontier has another root than the checkpoint")
        return cls(head.chain_id, first=head.first, head=head.chain, tree=tree)

    @property
    def size(self) -> int:
        """Records in the tree."""
        return self._tree.size + len(self._leaves)

    @property
    def last(self) -> int:
        """The sequence of the last record."""
        return self.first + self.size - 1

    def tree(self) -> Frontier:
        """The tree over all records."""
        self._tree.extend(self._leaves)
        self._leaves.clear()
        return self._tree

    def line(self, content: bytes, before: bytes | None = None) -> tuple[bytes, bytes]:
        """The next record's line and its chain hash; `before` is the hash of the one before when that is not added yet."""
        return link(self.head if before is None else before, content, self.mac)

    def add(self, chain: bytes, line: bytes) -> bytes:
        """Take in a record that was written; return its leaf hash."""
        leaf = leaf_hash(line)
        self.head = chain
        self._leaves.append(leaf)
        if len(self._leaves) >= FOLD:
            self.tree()
        return leaf

    def use_key(self, key: bytes) -> None:
        """MAC every record from now on."""
        self._key, self.mac = key, RecordMac(key)

    @property
    def has_key(self) -> bool:
        """Whether records are MACed with the key of the key ring."""
        return bool(self._key)

    def seal_key(self) -> None:
        """Go on with a key that cannot make the MACs of records before now; the one before is forgotten."""
        if self._key:
            self.use_key(sealed_key(self._key))
            self._key = b""
