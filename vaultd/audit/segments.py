"""The files of an audit directory: its lock, the identity of the chain, and segments `audit-<UTC time>-<number>.jsonl`.

The number orders segments; the time is for people, since clocks jump.  A segment that is not written any more may be
compressed: then its name ends in `.gz`.  All functions block.
"""

from __future__ import annotations

import errno
import fcntl
import gzip
import itertools
import os
import re
import stat
from collections import deque
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, BinaryIO, Final, cast

import orjson

from vaultd.durable import replace_file, sync_directory, write_new
from vaultd.errors import FailedPrecondition

if TYPE_CHECKING:
    from pathlib import Path

CHAIN_ID_BYTES: Final = 16

GZIP_SUFFIX: Final = ".gz"
GZIP_HEADER: Final = bytes([0x1F, 0x8B, 8, 0, 0, 0, 0, 0, 0, 0xFF])
"""Of every compressed segment: what no checksum covers may not be changed either."""

_NAME = re.compile(r"audit-[0-9]{8}T[0-9]{6}Z-([0-9]{8,})\.jsonl(\.gz)?")
_CHAIN_ID_FILE: Final = "chain-id"
_LOCK_FILE: Final = "lock"
_PRIVATE: Final = stat.S_IRUSR | stat.S_IWUSR
_NEW_FILE: Final = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW
_CHUNK_BYTES: Final = 64 * 1024
_COPY_BYTES: Final = 1024 * 1024
_HEAD: Final = b'{"seq":'


@dataclass(frozen=True, slots=True)
class TornTail:
    """Bytes after the last whole record of a segment, now in a file of their own."""

    segment: str
    kept_in: str
    bytes: int


@dataclass(frozen=True, slots=True)
class Recovered:
    """What a directory says about the records before this process."""

    last_sequence: int
    """0 when there is no record."""
    last_number: int
    """Of the newest segment, 0 when there is none."""
    torn: list[TornTail]
    pristine: bool
    """No record was ever whole, and no segment was taken away: numbers may begin at 1."""


def prepare_directory(directory: Path) -> None:
    """Make the directory, closed to others.  Raises FailedPrecondition AUDIT_DIRECTORY_MODE when it is open to them."""
    directory.mkdir(mode=stat.S_IRWXU, parents=True, exist_ok=True)
    status = directory.stat()
    if status.st_mode & 0o077 or status.st_uid != os.geteuid():
        raise FailedPrecondition(
            "AUDIT_DIRECTORY_MODE", "the audit directory must belong to the user of vaultd with mode 0700: chmod 700 it"
        )


def lock_directory(directory: Path) -> int:
    """Own the directory until the returned descriptor is closed.  Raises FailedPrecondition AUDIT_DIRECTORY_IN_USE."""
    fd = os.open(directory / _LOCK_FILE, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, _PRIVATE)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as e:
        os.close(fd)
        raise FailedPrecondition(
            "AUDIT_DIRECTORY_IN_USE", "another process writes to the audit directory: give each process its own"
        ) from e
    except BaseException:
        os.close(fd)
        raise
    return fd


def is_locked_by(directory: Path, lock_fd: int) -> bool:
    """Whether the directory at this path is still the one that was locked.  Raises OSError when it is out of reach."""
    return os.path.samestat(os.fstat(lock_fd), os.stat(directory / _LOCK_FILE, follow_symlinks=False))


def read_chain_id(directory: Path) -> bytes | None:
    """Read the identity of the chain; None when there is none yet."""
    try:
        text = (directory / _CHAIN_ID_FILE).read_text(encoding="ascii")
        chain_id = bytes.fromhex(text)
    except FileNotFoundError:
        return None
    except ValueError:
        chain_id = b""
    if len(chain_id) != CHAIN_ID_BYTES:
        raise FailedPrecondition(
            "AUDIT_CHAIN_ID_INVALID",
            "the file chain-id in the audit directory is damaged: restore it, or start a new directory",
        )
    return chain_id


def write_chain_id(directory: Path, chain_id: bytes) -> None:
    """Write the identity, durable before return."""
    replace_file(directory / _CHAIN_ID_FILE, f"{chain_id.hex()}\n".encode())
    sync_directory(directory)


def create_segment(directory: Path, number: int, now: int) -> tuple[str, int]:
    """Create an empty segment; return its name and a descriptor to write and read it."""
    name = f"audit-{datetime.fromtimestamp(now // 1_000_000, UTC):%Y%m%dT%H%M%SZ}-{number:08d}.jsonl"
    flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW
    return name, os.open(directory / name, flags, _PRIVATE)


def discard(path: Path, fd: int) -> None:
    """Close a new segment of which nothing counts, and leave no file behind.  Never raises OSError."""
    with suppress(OSError):
        os.ftruncate(fd, 0)  # should the name outlive this, then at least no number is in two places
    with suppress(OSError):
        path.unlink()
    os.close(fd)


def list_segments(directory: Path) -> list[tuple[int, Path]]:
    """All segments with their numbers, oldest first.

    While one is compressed there are two files of its number, with the same lines: the plain one is given.
    """
    found: dict[int, Path] = {}
    for path in directory.iterdir():
        match = _NAME.fullmatch(path.name)
        if match and (match[2] is None or int(match[1]) not in found):
            found[int(match[1])] = path
    return sorted(found.items())


def plain_name(path: Path) -> str:
    """The name of a segment as its records know it, compressed or not."""
    return path.name.removesuffix(GZIP_SUFFIX)


def open_segment(path: Path) -> BinaryIO:
    """Open a segment for reading, compressed or not; the caller closes it.  It may have been compressed since it was listed."""
    if not path.name.endswith(GZIP_SUFFIX):
        try:
            return path.open("rb")
        except FileNotFoundError:
            path = path.with_name(path.name + GZIP_SUFFIX)
    return cast("BinaryIO", gzip.open(path, "rb"))


def sequence_of(line: bytes) -> int:
    """The number that a line begins with, or 0 when it does not begin as a record does."""
    end = line.find(b",", len(_HEAD))
    digits = line[len(_HEAD) : end]
    return int(digits) if line.startswith(_HEAD) and 0 < len(digits) < 20 and digits.isdigit() else 0


def recover(directory: Path) -> Recovered:
    """Find the last whole record, and move aside what stands behind it.

    Behind it can be a line that a crash cut short, or whole lines of garbage where a power loss left blocks
    unwritten.  A segment without any record hands the question to the one before it.
    """
    segments = list_segments(directory)
    torn: list[TornTail] = []
    sequence = 0
    for _, path in reversed(segments):
        end, sequence = _last_record(path)
        size = path.stat().st_size
        if size > end:
            torn.append(_move_tail(path, end, size))
        if sequence:
            break
    numbers = [number for number, _ in segments]
    pristine = not sequence and bool(numbers) and numbers == list(range(1, len(numbers) + 1))
    return Recovered(sequence, numbers[-1] if numbers else 0, torn, pristine)


def last_sequence(directory: Path) -> int:
    """The number of the newest whole record; 0 when there is none."""
    for _, path in reversed(list_segments(directory)):
        try:
            _, sequence = _last_record(path)
        except FileNotFoundError:  # compressed meanwhile: what is before it is older
            return last_sequence(directory)
        if sequence:
            return sequence
    return 0


def _last_record(path: Path) -> tuple[int, int]:
    """Return where the last whole record ends and its sequence; (0, 0) when the segment has none.

    Reads from the end.
    """
    if path.name.endswith(GZIP_SUFFIX):
        with open_segment(path) as file:
            last = deque(file, maxlen=1)
        return path.stat().st_size, sequence_of(last[0]) if last else 0
    with path.open("rb") as file:
        start = file.seek(0, os.SEEK_END)
        data = b""
        while True:
            step = min(start, max(_CHUNK_BYTES, len(data)))  # doubles, so a long line is not read in quadratic time
            start -= step
            file.seek(start)
            data = file.read(step) + data
            end = len(data)
            while (newline := data.rfind(b"\n", 0, end)) >= 0:
                line_start = data.rfind(b"\n", 0, newline) + 1
                if line_start == 0 and start > 0:
                    break  # the line begins before what was read
                sequence = _sequence(data[line_start:newline])
                if sequence:
                    return start + newline + 1, sequence
                end = newline
            if start == 0:
                return 0, 0


def _sequence(line: bytes) -> int:
    try:
        record = orjson.loads(line)
    except orjson.JSONDecodeError:
        return 0
    sequence = record.get("seq") if isinstance(record, dict) else None
    return sequence if isinstance(sequence, int) and sequence > 0 else 0


def rescue(path: Path, fd: int, size: int) -> bool:
    """Put a segment that was deleted or replaced back in its place, from the descriptor that still has it.

    Returns whether it was away.  What stood in its place is kept as `*.foreign`.  Synced before it gets its name.
    """
    held = os.fstat(fd)
    try:
        if os.path.samestat(held, path.stat(follow_symlinks=False)):
            return False
        for attempt in itertools.count():
            foreign = path.with_name(f"{path.name}.{attempt}.foreign" if attempt else f"{path.name}.foreign")
            if not foreign.exists():
                path.rename(foreign)
                break
    except FileNotFoundError:
        pass
    _copy(path, fd, size)
    return True


def renew(path: Path, fd: int, size: int) -> None:
    """Write a segment anew, in other blocks, from what the page cache has of it: a sync of it failed, and what the kernel could
    not write it may take for written.  Synced before it gets its name.
    """
    if os.fstat(fd).st_size < size:
        raise OSError(errno.EIO, "the segment was cut")
    _copy(path, fd, size)


def _copy(path: Path, fd: int, size: int) -> None:
    temporary = path.with_name(f"{path.name}.rescued")
    temporary.unlink(missing_ok=True)
    try:
        with os.fdopen(os.open(temporary, _NEW_FILE, _PRIVATE), "wb") as file:
            offset = 0
            while offset < size and (data := os.pread(fd, min(_COPY_BYTES, size - offset), offset)):
                file.write(data)
                offset += len(data)
            file.flush()
            os.fsync(file.fileno())
    except OSError:
        temporary.unlink(missing_ok=True)  # a disk that is full needs its room
        raise
    temporary.rename(path)
    sync_directory(path.parent)


def _move_tail(path: Path, end: int, size: int) -> TornTail:
    """Copy the tail into a new file, synced, and only then cut it off."""
    with path.open("rb") as file:
        file.seek(end)
        tail = file.read(size - end)
    for attempt in itertools.count():
        kept_in = path.with_name(f"{path.name}.{attempt}.torn" if attempt else f"{path.name}.torn")
        try:
            write_new(kept_in, tail)
        except FileExistsError:
            continue  # a crash came between the copy and the cut
        break
    sync_directory(path.parent)
    with path.open("r+b") as file:
        file.truncate(end)
        os.fsync(file.fileno())
    return TornTail(path.name, kept_in.name, len(tail))
