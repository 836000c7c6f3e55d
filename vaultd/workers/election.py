"""Which worker does what is done once for all: the one that holds a lock of the operating system.

The lock dies with its process, however that ends, and the next one that looks has it.
"""

from __future__ import annotations

import fcntl
import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path


class Election:
    """A candidate.  `look` costs a call into the kernel, and may be called often."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._fd: int | None = None
        self.leads = False

    def open(self) -> None:
        """Stand for election; raises OSError when the file cannot be opened."""
        self._fd = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)

    def look(self) -> bool:
        """Take the lock where it is free; whether this process has just been elected."""
        if self.leads or self._fd is None:
            return False
        try:
            fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        self.leads = True
        return True

    def resign(self) -> None:
        """Let somebody else lead, and stay a candidate."""
        if self.leads and self._fd is not None:
            fcntl.flock(self._fd, fcntl.LOCK_UN)
        self.leads = False

    def close(self) -> None:
        """Stand no more."""
        self.leads = False
        if self._fd is not None:
            os.close(self._fd)
            self._fd = None
