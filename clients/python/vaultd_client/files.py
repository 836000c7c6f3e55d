"""Files: encrypted and decrypted in constant memory, and there as a whole or not at all."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from vaultd_client.envelope_io import write_all

if TYPE_CHECKING:
    from collections.abc import Iterator

    from vaultd_client.segments import SegmentOpener, SegmentSealer
    from vaultd_client.settings import FilePath

Progress = Callable[[int], None]
"""Told how many bytes of the source are done, after each piece."""


@contextmanager
def new_file(
    target: FilePath, *, overwrite: bool, before_rename: Callable[[], None] | None = None
) -> Iterator[BinaryIO]:
    """A file to write, which gets its name at the end: complete, synced, and 0600.  When anything fails nothing is left of it.

    before_rename: what it raises is a failure too.
    Raises FileExistsError when there is one of that name, unless `overwrite`, and when it is a device, a pipe or a directory in any
    case; OSError.
    """
    path = Path(target)
    if os.path.lexists(path) and not (overwrite and (path.is_symlink() or path.is_file())):
        raise FileExistsError(f"{path} exists")
    descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name[:64]}.", suffix=".part")
    temporary = Path(name)
    try:
        with os.fdopen(descriptor, "wb", buffering=0) as file:
            yield file
            os.fsync(file.fileno())
        if before_rename is not None:
            before_rename()
        if overwrite:
            temporary.replace(path)
        else:
            _rename_to_new(temporary, path)
    except BaseException:
        with suppress(FileNotFoundError):
            temporary.unlink()
        raise
    directory = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)


def _rename_to_new(temporary: Path, path: Path) -> None:
    """Rename, unless somebody made a file of that name meanwhile."""
    try:
        os.link(temporary, path)
    except FileExistsError:
        raise FileExistsError(f"{path} exists") from None
    except OSError:  # a file system without hard links
        if os.path.lexists(path):
            raise FileExistsError(f"{path} exists") from None
        temporary.rename(path)
        return
    temporary.unlink()


def encrypt_stream(
    source: BinaryIO, sink: BinaryIO, before: bytes, sealer: SegmentSealer, progress: Progress | None
) -> None:
    """Encrypt what `source` has left."""
    write_all(sink, before)
    done = 0
    while piece := source.read(sealer.wanted_bytes):
        for sealed in sealer.update(piece):
            write_all(sink, sealed)
        done += len(piece)
        if progress is not None:
            progress(done)
    for sealed in sealer.finish():
        write_all(sink, sealed)


def decrypt_stream(source: BinaryIO, sink: BinaryIO, opener: SegmentOpener, progress: Progress | None) -> None:
    """Decrypt what `source` has left behind our header.  Raises DecryptionFailed; what it wrote until then is authentic."""
    done = 0
    while piece := source.read(opener.wanted_bytes):
        for opened in opener.update(piece):
            write_all(sink, opened)
        done += len(piece)
        if progress is not None:
            progress(done)
    write_all(sink, opener.finish())


def encrypt_file(
    source: FilePath,
    target: FilePath,
    before: bytes,
    sealer: SegmentSealer,
    *,
    overwrite: bool,
    progress: Progress | None,
    before_rename: Callable[[], None] | None = None,
) -> None:
    """Encrypt a file into a new one."""
    with (
        open(source, "rb", buffering=0) as file,
        new_file(target, overwrite=overwrite, before_rename=before_rename) as sink,
    ):
        encrypt_stream(file, sink, before, sealer, progress)


def decrypt_file(
    source: BinaryIO,
    target: FilePath,
    opener: SegmentOpener,
    *,
    overwrite: bool,
    progress: Progress | None,
    before_rename: Callable[[], None] | None = None,
) -> None:
    """Decrypt the rest of a file into a new one."""
    with new_file(target, overwrite=overwrite, before_rename=before_rename) as sink:
        decrypt_stream(source, sink, opener, progress)
