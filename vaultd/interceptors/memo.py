"""What was worked out of values that callers choose, kept for when they come again: bounded in number and in bytes."""

from __future__ import annotations

from typing import Generic, TypeVar

K = TypeVar("K")
V = TypeVar("V")


class Memo(dict[K, V], Generic[K, V]):
    """A dictionary that begins anew when it would be too large.  Only `keep` may add to it."""

    def __init__(self, most: int, most_bytes: int) -> None:
        super().__init__()
        self._most = most
        self._most_bytes = most_bytes
        self._bytes = 0

    def keep(self, key: K, value: V, size: int) -> V:
        """Add a value that is `size` bytes long with its key, or replace one of the same size; returns the value."""
        if key in self:
            self[key] = value
            return value
        if len(self) >= self._most or self._bytes + size > self._most_bytes:
            self.clear()
            self._bytes = 0
        if size <= self._most_bytes:
            self[key] = value
            self._bytes += size
        return value
