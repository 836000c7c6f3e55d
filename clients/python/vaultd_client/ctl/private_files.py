"""Files that only their owner reads, and that are replaced as a whole."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import Final

IN_MEMORY: Final = frozenset({"tmpfs", "ramfs"})
MOUNTS: Final = Path("/proc/self/mountinfo")


def replace_private(path: Path, content: bytes) -> None:
    """Write a file with mode 0600 in place of what there was, if anything.  Readers see all of one or of the other.

    Raises OSError, and leaves what there was.
    """
    descriptor, temporary = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)  # its mode is 0600
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        os.unlink(temporary)
        raise


def on_disk(path: Path) -> str:
    """The mount that a file is to be on, unless that is in memory; empty where the system does not tell."""
    try:
        mounts = [line.split(" ") for line in MOUNTS.read_text().splitlines()]
    except OSError:
        return ""
    parent = path.parent.resolve()
    # proc(5): the mount point is the fifth field, the type of the file system the first after a hyphen.
    types = {fields[4]: fields[fields.index("-") + 1] for fields in mounts}
    places = [place for place in types if parent.is_relative_to(place)]
    nearest = max(places, key=len, default="")
    return "" if not nearest or types[nearest] in IN_MEMORY else nearest
