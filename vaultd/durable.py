"""Small files that only their owner can read, and that are whole or as they were, also after a power cut.  All functions block."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from pathlib import Path

PRIVATE: Final = 0o600
_NEW: Final = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW


def write_new(path: Path, content: bytes, mode: int = PRIVATE) -> None:
    """Write a file that is not there yet; its bytes are durable, its name is not.  Raises FileExistsError."""
    fd = os.open(path, _NEW, mode)
    with os.fdopen(fd, "wb") as file:
        os.fchmod(fd, mode)  # whatever the umask says
        file.write(content)
        file.flush()
        os.fsync(fd)


def write_beside(path: Path, content: bytes, mode: int = PRIVATE) -> Path:
    """Write what is to replace a file, under a name that is the same each time: a crash leaves one at most."""
    temporary = path.with_name(f"{path.name}.tmp")
    temporary.unlink(missing_ok=True)
    write_new(temporary, content, mode)
    return temporary


def replace_file(path: Path, content: bytes, mode: int = PRIVATE) -> None:
    """Write a file whole in place of the one before; durable after `sync_directory`."""
    write_beside(path, content, mode).rename(path)


def sync_directory(path: Path) -> None:
    """Make the names in a directory durable."""
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
