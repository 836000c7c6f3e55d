"""The files to look at: of a working tree as git sees it, of what is staged, or of a directory."""

from __future__ import annotations

import fnmatch
import os
import shutil
import stat
import subprocess
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, Final

from vaultd_client.ctl.failures import fail

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

WINDOW_BYTES: Final = 8 * 1024 * 1024
OVERLAP_BYTES: Final = 64 * 1024
"""A secret has at most so many bytes."""


@dataclass(frozen=True, slots=True)
class Source:
    """A file to look at, and how it is opened."""

    path: str
    open: Callable[[], BinaryIO]


class Troubles:
    """What could not be looked at."""

    def __init__(self) -> None:
        self.told: list[str] = []

    def add(self, path: str, error: OSError) -> None:
        self.told.append(f"{path}: {error.strerror}")


def git(*arguments: str, cwd: Path | None = None, data: bytes | None = None) -> bytes | None:
    """What git prints; None where it fails, as outside of a working tree."""
    program = shutil.which("git")
    if program is None:
        return None
    environment = {
        name: value for name, value in os.environ.items() if not name.startswith("GIT_") or name == "GIT_INDEX_FILE"
    }
    done = subprocess.run(  # noqa: S603  # git itself
        [program, *arguments], cwd=cwd, input=data, capture_output=True, check=False, env=environment
    )
    return done.stdout if done.returncode == 0 else None


def files_of(paths: Sequence[Path], *, use_git: bool, excluded: Sequence[str], troubles: Troubles) -> Iterator[Source]:
    """Files that are named, and those of directories: what git does not ignore, or all."""
    seen: set[str] = set()
    for path in paths:
        for found in _below(path, use_git=use_git, troubles=troubles):
            name = os.path.normpath(found)
            if name not in seen and not _is_excluded(name, excluded):
                seen.add(name)
                yield Source(name, partial(_open, name))


def _below(path: Path, *, use_git: bool, troubles: Troubles) -> Iterator[Path]:
    try:
        mode = path.lstat().st_mode
    except OSError as error:
        troubles.add(str(path), error)
        return
    if not stat.S_ISDIR(mode):
        yield path
        return
    listed = git("ls-files", "-z", "--cached", "--others", "--exclude-standard", cwd=path) if use_git else None
    if listed is not None:
        for raw in filter(None, listed.split(b"\0")):
            found = path / os.fsdecode(raw)
            if found.is_file() and not found.is_symlink():  # neither a submodule nor what was deleted
                yield found
        return
    for directory, names, contained in os.walk(path, onerror=lambda error: troubles.add(str(error.filename), error)):
        names[:] = sorted(name for name in names if name != ".git")
        for name in sorted(contained):
            entry = Path(directory, name)
            if entry.is_file() and not entry.is_symlink():
                yield entry


def _open(name: str) -> BinaryIO:
    return open(name, "rb")  # the reader closes it


def _is_excluded(name: str, excluded: Sequence[str]) -> bool:
    return any(fnmatch.fnmatch(name, one) or fnmatch.fnmatch(os.path.basename(name), one) for one in excluded)


def top_of_tree() -> Path | None:
    """The working tree that we are in, if any."""
    root = git("rev-parse", "--show-toplevel")
    return None if root is None else Path(os.fsdecode(root.rstrip(b"\n")))


def staged_files(excluded: Sequence[str]) -> Iterator[Source]:
    """What the next commit would add or change, as it is in git's index.  Raises Refused outside of a working tree."""
    top = top_of_tree()
    if top is None:
        fail("this is no working tree of git: name paths in place of --staged")
    changed = git("diff", "--cached", "--name-only", "-z", "--diff-filter=ACMRT", cwd=top)
    if changed is None:
        fail("git does not say what is staged: `git diff --cached` says why")
    names = [name for name in changed.split(b"\0") if name and not _is_excluded(os.fsdecode(name), excluded)]
    listed = git("ls-files", "-s", "-z", cwd=top) or b""
    wanted = set(names)
    for entry in filter(None, listed.split(b"\0")):
        fields, _, name = entry.partition(b"\t")
        mode, blob, _ = fields.split(b" ")
        if name in wanted and mode in {b"100644", b"100755"}:
            yield Source(os.fsdecode(name), partial(_blob, blob.decode(), top))


def _blob(blob: str, top: Path) -> BinaryIO:
    content = git("cat-file", "blob", blob, cwd=top)
    if content is None:
        raise OSError(0, "git does not give its content")
    return BytesIO(content)


@contextmanager
def opened(source: Source) -> Iterator[Any]:
    """The file, while it is read."""
    stream = source.open()
    try:
        yield stream
    finally:
        stream.close()


def windows(stream: BinaryIO) -> Iterator[tuple[int, bytes]]:
    """The file in parts that overlap, and the number of the line that each begins in."""
    line, kept = 1, b""
    while True:
        fresh = stream.read(WINDOW_BYTES)
        if not fresh:
            return
        content = kept + fresh
        if line == 1 and not kept and content.startswith((b"\xff\xfe", b"\xfe\xff")):
            content = content.decode("utf-16", "replace").encode()
        yield line, content
        if len(fresh) < WINDOW_BYTES:
            return
        kept = content[-OVERLAP_BYTES:]
        line += content.count(b"\n", 0, len(content) - len(kept))
