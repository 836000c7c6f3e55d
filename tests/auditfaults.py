"""Faults of the disk under an audit log, made from outside of the server: with tests/auditfaults.c, a full tmpfs, or hands."""

from __future__ import annotations

import errno
import shutil
import subprocess
from pathlib import Path

SLOW_MS = 400
"""How long a slow disk takes to fail."""


def build_shim(directory: Path) -> Path:
    """Compile tests/auditfaults.c."""
    source, library = Path(__file__).with_suffix(".c"), directory / "auditfaults.so"
    subprocess.run(["cc", "-shared", "-fPIC", "-O1", "-Wall", "-Werror", "-o", library, source, "-ldl"], check=True)
    return library


class Shim:
    """What a server must be started with, and how its disk fails from then on."""

    def __init__(self, work: Path, audit_directory: Path) -> None:
        self._control = work / "faults"
        self._control.mkdir()
        self.environment = {
            "LD_PRELOAD": str(build_shim(work)),
            "FAULT_DIR": str(self._control),
            "FAULT_PATH": str(audit_directory.resolve()),
        }

    def fail(self, **faults: int) -> None:
        """From now on: `write`, `sync`, `open`, each with the number of its error; `delay`, the milliseconds of a failing sync."""
        for fault, number in faults.items():
            temporary = self._control / f"{fault}.tmp"
            temporary.write_text(str(number))
            temporary.rename(self._control / fault)

    def clear(self) -> None:
        """The disk is as good as new."""
        for fault in self._control.iterdir():
            fault.unlink()


def newest_segment(directory: Path) -> Path:
    """The segment that is being written."""
    return max(directory.glob("audit-*.jsonl"), key=lambda path: int(path.stem.rpartition("-")[2]))


class Fault:
    """Something that goes wrong with an audit directory, and how it is mended."""

    heals_itself = False
    """Whether the log goes on before it is mended: then a call is refused only if it waits for a sync at that moment."""

    def is_healed(self) -> bool:
        """Whether it has healed itself."""
        return False

    def inject(self) -> None:
        raise NotImplementedError

    def mend(self) -> None:
        raise NotImplementedError


class ErrorFault(Fault):
    """Calls of the kernel fail."""

    def __init__(self, shim: Shim, **faults: int) -> None:
        self._shim = shim
        self._faults = faults

    def inject(self) -> None:
        self._shim.fail(**self._faults)

    def mend(self) -> None:
        self._shim.clear()


class FullTmpfs(Fault):
    """A file system that really is full: the audit directory is a small tmpfs."""

    def __init__(self, directory: Path) -> None:
        self._ballast = directory / "ballast"

    def inject(self) -> None:
        block = b"\0" * 65_536
        with self._ballast.open("ab", buffering=0) as file:
            for size in (len(block), 4_096):
                try:
                    while file.write(block[:size]) == size:
                        pass
                except OSError as error:
                    if error.errno != errno.ENOSPC:
                        raise

    def mend(self) -> None:
        self._ballast.unlink()


class DeletedSegment(Fault):
    """The file that is being written is unlinked.  The server puts it back, from the descriptor that it holds."""

    heals_itself = True

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._path = directory

    def inject(self) -> None:
        self._path = newest_segment(self._directory)
        self._path.unlink()

    def is_healed(self) -> bool:
        return self._path.exists() and newest_segment(self._directory) != self._path

    def mend(self) -> None:
        if not self._path.exists():
            raise AssertionError("the segment was not put back")


class ReplacedDirectory(Fault):
    """The directory is moved away, and another one is in its place."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._aside = directory.with_name(f"{directory.name}.aside")

    def inject(self) -> None:
        self._directory.rename(self._aside)
        self._directory.mkdir(mode=0o700)

    def mend(self) -> None:
        shutil.rmtree(self._directory)
        self._aside.rename(self._directory)


def disk_faults(shim: Shim, directory: Path) -> dict[str, Fault]:
    """Seven faults by name, none of which needs rights of root."""
    return {
        "enospc": ErrorFault(shim, write=errno.ENOSPC),
        "eio-write": ErrorFault(shim, write=errno.EIO),
        "eio-fsync": ErrorFault(shim, sync=errno.EIO),
        "slow-fsync": ErrorFault(shim, delay=SLOW_MS, sync=errno.EIO),
        "read-only": ErrorFault(shim, write=errno.EROFS, open=errno.EROFS),
        "deleted": DeletedSegment(directory),
        "replaced": ReplacedDirectory(directory),
    }
