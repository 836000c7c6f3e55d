"""Root keys that somebody else provides."""

from __future__ import annotations

import asyncio
import os
import re
from pathlib import Path
from typing import TYPE_CHECKING

from vaultd import failpoints
from vaultd.backends.rootkeys.base import RootKey, find_key, missing, unwrap_with, wrap_with
from vaultd.backends.rootkeys.lines import mapped_os_errors, parse_keys, parse_line_or_bare_key, read_key_file
from vaultd.errors import FailedPrecondition

if TYPE_CHECKING:
    from vaultd.secret import Secret


class CredentialRootKey:
    """Root keys that somebody else provides, never written: lines like the key file's, or bare keys in base64 or hex.

    source: `env:NAME`, an absolute path, or the name of a systemd credential (`$CREDENTIALS_DIRECTORY/NAME`).  A file
    is read for each use; a variable is read here, once, and taken out of `os.environ` so that no child process inherits
    it (the kernel's /proc/self/environ keeps its first state: prefer a credential).
    """

    kind = "credential"
    needs_passphrase = False

    _ENVIRONMENT = re.compile(r"env:([A-Za-z_][A-Za-z0-9_]*)")
    _CREDENTIAL = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9._-]{0,254}")

    def __init__(self, source: str) -> None:
        self._in_use: str | None = None
        self._path: Path | None = None
        self._from_environment: list[RootKey] = []
        if variable := self._ENVIRONMENT.fullmatch(source):
            content = os.environ.pop(variable[1], None)
            if content is None:
                raise missing("the environment variable that should hold the root key is not set")
            self._from_environment = parse_keys(content.encode(), parse_line_or_bare_key)
        elif source.startswith("/"):
            self._path = Path(source)
        elif self._CREDENTIAL.fullmatch(source):
            directory = os.environ.get("CREDENTIALS_DIRECTORY", "")
            if not directory.startswith("/"):
                raise missing(
                    "CREDENTIALS_DIRECTORY is not set: start vaultd with LoadCredential= or name an absolute path"
                )
            self._path = Path(directory, source)
        else:
            raise FailedPrecondition(
                "ROOT_KEY_SOURCE",
                "the root key source must be env:NAME, an absolute path or the name of a systemd credential",
            )

    async def create(self, passphrase: Secret | None) -> str:
        """Return the ref of the first line; the operator made it durable."""
        del passphrase
        keys = await asyncio.to_thread(self._load)
        self._in_use = keys[0].ref
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
        """Read again and return the first line's ref.

        Raises FailedPrecondition ROOT_KEY_NOT_ROTATED when that is the key in use, ROOT_KEY_MISSING when the key in use
        is gone: it must stay below until the rotation is over.
        """
        del passphrase
        keys = await asyncio.to_thread(self._load)
        in_use = self._in_use or keys[-1].ref
        if keys[0].ref == in_use:
            raise FailedPrecondition(
                "ROOT_KEY_NOT_ROTATED",
                "put a new key on the first line of the credential and keep the old one on the line below, "
                "restart vaultd if the credential is loaded at start, then rotate again",
            )
        find_key(keys, in_use)
        failpoints.hit("root_key.prepared")
        return keys[0].ref

    async def retire(self, ref: str) -> None:
        """Do nothing: vaultd never writes a credential.  The operator takes the old line away after the rotation."""

    def _load(self) -> list[RootKey]:
        if self._path is None:
            return self._from_environment
        with mapped_os_errors():
            # systemd shows its ACL as group bits, and Kubernetes mounts symbolic links to files of root: both are in
            # order.
            content = read_key_file(self._path, 0, forbidden_mode=0o027, owners=(0, os.geteuid()))
        return parse_keys(content, parse_line_or_bare_key)
