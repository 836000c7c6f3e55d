"""Root keys in a file that vaultd writes itself."""

from __future__ import annotations

import asyncio
import fcntl
import os
import stat
from contextlib import contextmanager
from typing import TYPE_CHECKING

from vaultd import failpoints
from vaultd.backends.rootkeys.base import (
    RootKey,
    file_mode,
    find_key,
    missing,
    new_root_key,
    still_in_use,
    unwrap_with,
    wrap_with,
)
from vaultd.backends.rootkeys.lines import format_line, mapped_os_errors, parse_keys, parse_line, read_key_file
from vaultd.durable import sync_directory, write_beside
from vaultd.errors import FailedPrecondition

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from vaultd.secret import Secret

_MAX_KEYS = 64


class FileRootKey:
    """Root keys in a text file of key lines, owned by this user and closed to everyone else.

    Written by replacing the whole file: a crash leaves the old or the new one.  The keys are read for each use and not
    kept.  Vaults may share a file: each makes lines of its own, uses no other, and takes none but its own away.
    """

    kind = "file"
    needs_passphrase = False

    def __init__(self, path: Path) -> None:
        self._path = path
        self._in_use: str | None = None

    async def create(self, passphrase: Secret | None) -> str:
        """Put a new line first, in a new file when there is none: a line that is there may be another vault's."""
        del passphrase
        self._in_use = await asyncio.to_thread(self._create)
        failpoints.hit("root_key.created")
        return self._in_use

    async def wrap(self, ref: str, plaintext: Secret, aad: bytes) -> bytes:
        """See RootKeyProvider."""
        keys = await asyncio.to_thread(self._load)
        return wrap_with(find_key(keys, ref), plaintext, aad)

    async def unwrap(self, ref: str, wrapped: bytes, aad: bytes, passphrase: Secret | None) -> Secret:
        """See RootKeyProvider."""
        del passphrase
        keys = await asyncio.to_thread(self._load)
        plaintext = unwrap_with(find_key(keys, ref), wrapped, aad)
        self._in_use = ref
        return plaintext

    async def prepare_next(self, passphrase: Secret | None) -> str:
        """Put a new line first.  One that a crash left over cannot be told from another vault's, and stays."""
        del passphrase
        ref = await asyncio.to_thread(self._prepare_next)
        failpoints.hit("root_key.prepared")
        return ref

    async def retire(self, ref: str) -> None:
        """See RootKeyProvider."""
        await asyncio.to_thread(self._retire, ref)
        failpoints.hit("root_key.retired")

    def _create(self) -> str:
        with self._exclusive():
            return self._put_new_line_above(self._load() if self._exists() else [])

    def _prepare_next(self) -> str:
        with self._exclusive():
            return self._put_new_line_above(self._load())

    def _put_new_line_above(self, keys: Sequence[RootKey]) -> str:
        if len(keys) >= _MAX_KEYS:
            raise FailedPrecondition(
                "ROOT_KEY_FILE_FULL",
                f"the root key file holds {_MAX_KEYS} keys: take away lines that no vault and no backup needs",
            )
        new = new_root_key()
        self._write([new, *keys])
        return new.ref

    def _retire(self, ref: str) -> None:
        with self._exclusive():
            keys = self._load()
            kept = [key for key in keys if key.ref != ref]
            if len(kept) == len(keys):
                return
            if not kept or ref == self._in_use:
                raise still_in_use()
            self._write(kept)

    @contextmanager
    def _exclusive(self) -> Iterator[None]:
        """Hold the lock file beside the key file: two processes that rotate must not lose each other's line."""
        with mapped_os_errors():
            try:
                lock = os.open(
                    f"{self._path}.lock",
                    os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW,
                    stat.S_IRUSR | stat.S_IWUSR,
                )
            except FileNotFoundError as e:
                raise missing("the directory of the root key file does not exist") from e
            try:
                fcntl.flock(lock, fcntl.LOCK_EX)
                yield
            finally:
                os.close(lock)

    def _exists(self) -> bool:
        return os.path.lexists(self._path)

    def _load(self) -> list[RootKey]:
        with mapped_os_errors():
            if self._path.is_symlink():
                raise file_mode("the root key file is a symbolic link")
            content = read_key_file(self._path, os.O_NOFOLLOW, forbidden_mode=0o077, owners=(os.geteuid(),))
        return parse_keys(content, parse_line)

    def _write(self, keys: Sequence[RootKey]) -> None:
        """Replace the file and sync its directory."""
        content = "".join(f"{format_line(key)}\n" for key in keys).encode()
        with mapped_os_errors():
            temporary = write_beside(self._path, content)
            failpoints.hit("root_key.temporary_written")
            temporary.rename(self._path)
            sync_directory(self._path.parent)
