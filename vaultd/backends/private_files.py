"""Files that hold secrets: read whole, and only when nobody else can have read or written them."""

from __future__ import annotations

import os
import stat
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path


class NotPrivate(Exception):
    """The file is not one that a secret may be read from.  The text goes on after the file's name."""


def read_private_file(
    path: Path, *, forbidden_mode: int, owners: Sequence[int], max_bytes: int, flags: int = 0
) -> bytes:
    """Read a file after checking the opened file itself, so that it cannot be exchanged in between.

    At most `max_bytes` + 1 bytes come back, of a file that is longer.  Raises NotPrivate, or OSError.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | flags)
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise NotPrivate("is not a regular file")
        if status.st_uid not in owners:
            raise NotPrivate("belongs to another user")
        if status.st_mode & forbidden_mode:
            raise NotPrivate("is open to other users: chmod 600 it, and change the secret")
        with os.fdopen(descriptor, "rb", closefd=False) as file:
            return file.read(max_bytes + 1)
    finally:
        os.close(descriptor)
