"""Files that only their owner can read, and that are still there after a power cut."""

from __future__ import annotations

import errno
import os
import stat
from typing import TYPE_CHECKING

from vaultd.errors import FailedPrecondition, ResourceExhausted, Unavailable, VaultdError

if TYPE_CHECKING:
    from pathlib import Path

PRIVATE_FILE = 0o600
PRIVATE_DIRECTORY = 0o700


def create_private(path: Path) -> None:
    """Create an empty file, 0600 from its first moment.  Raises FileExistsError.

    By mknod, which opens nothing: POSIX drops all locks that a process holds on a file when it closes any descriptor
    of it, so that an open-and-close here could take the locks of a store that this process has just opened there.
    """
    os.mknod(path, PRIVATE_FILE | stat.S_IFREG)


def require_private(path: Path) -> None:
    """Raise FailedPrecondition unless the file is a regular one, ours, and closed to group and others."""
    info = os.lstat(path)
    if not stat.S_ISREG(info.st_mode):
        raise FailedPrecondition("STORE_FILE_MODE", f"{path} must be a regular file")
    if info.st_uid != os.geteuid():
        raise FailedPrecondition(
            "STORE_FILE_MODE", f"{path} belongs to another user: chown it to the user of vaultd, then chmod 600"
        )
    if stat.S_IMODE(info.st_mode) & 0o077:
        raise FailedPrecondition("STORE_FILE_MODE", f"{path} is open to group or others: chmod 600 {path}")


def sync_file(path: Path) -> None:
    """Make the file's bytes durable.  Never on a database that this process has open: see `create_private`."""
    descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def as_vaultd_error(error: OSError) -> VaultdError:
    """Say a file system's error in our terms."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return ResourceExhausted("STORE_FULL", "the disk is full: free some space and try again")
    return Unavailable("STORE_UNAVAILABLE", "a file cannot be read or written: see the server's log")
