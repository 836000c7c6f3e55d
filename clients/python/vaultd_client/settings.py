"""What a client needs to know, from arguments or from the environment."""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from vaultd_client.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

TokenProvider = Callable[[], str]
"""Gives the JWT of a call.  It is asked for each call, in the caller's own context: keep the token, and read it anew in time."""
AsyncTokenProvider = Callable[[], str | Awaitable[str]]
"""The same for AsyncClient, which awaits what it gives."""
TraceProvider = Callable[[], str | None]
"""Gives the W3C `traceparent` of a call, or None."""

FilePath = str | os.PathLike[str]

ADDRESS: Final = "VAULTD_ADDR"
CA: Final = "VAULTD_CA"
CERTIFICATE: Final = "VAULTD_CERT"
KEY: Final = "VAULTD_KEY"
SERVER_NAME: Final = "VAULTD_SERVER_NAME"
PROFILE: Final = "VAULTD_PROFILE"
TOKEN_FILE: Final = "VAULTD_TOKEN_FILE"  # noqa: S105  # the name of a variable


@dataclass(frozen=True, slots=True)
class BatchLimits:
    """How much of what waits is sent in one call.  The server takes 10,000 items and 4 MiB each way."""

    max_items: int = 1_000
    max_bytes: int = 3_500_000

    def __post_init__(self) -> None:
        if not 1 <= self.max_items <= 10_000 or not 1 <= self.max_bytes <= 4 * 1024 * 1024:
            raise ConfigurationError("a batch has 1 to 10,000 items and at most 4 MiB")


@dataclass(frozen=True, slots=True)
class Settings:
    """Where the vault is, who calls, and how."""

    addresses: tuple[str, ...]
    ca: Path | None
    certificate: Path | None
    key: Path | None
    server_name: str | None
    timeout_s: float | None
    coalesce: bool
    checksums: bool
    batch: BatchLimits

    @classmethod
    def of(
        cls,
        address: str | Sequence[str],
        *,
        ca: FilePath | None,
        certificate: FilePath | None,
        key: FilePath | None,
        has_token: bool,
        server_name: str | None,
        timeout_s: float | None,
        coalesce: bool,
        checksums: bool,
        batch: BatchLimits | None,
    ) -> Settings:
        """Check and keep.  Raises ConfigurationError."""
        parts = address.split(",") if isinstance(address, str) else address
        addresses = tuple(dict.fromkeys(part.strip() for part in parts if part.strip()))
        if not addresses:
            raise ConfigurationError(f"say where the vault is: HOST:PORT, several with commas between them ({ADDRESS})")
        if (certificate is None) != (key is None):
            raise ConfigurationError(f"a certificate and its key go together ({CERTIFICATE}, {KEY})")
        if certificate is None and not has_token:
            raise ConfigurationError(f"say who calls: a certificate and its key ({CERTIFICATE}, {KEY}), or a token")
        if timeout_s is not None and timeout_s <= 0:
            raise ConfigurationError("timeout_s must be more than 0")
        return cls(
            addresses=addresses,
            ca=None if ca is None else Path(ca),
            certificate=None if certificate is None else Path(certificate),
            key=None if key is None else Path(key),
            server_name=server_name,
            timeout_s=timeout_s,
            coalesce=coalesce,
            checksums=checksums,
            batch=batch or BatchLimits(),
        )


@dataclass(frozen=True, slots=True)
class Environment:
    """What the variables VAULTD_* say."""

    address: str
    ca: str | None
    certificate: str | None
    key: str | None
    server_name: str | None
    token_file: str | None
    token_command: tuple[str, ...] = ()

    @classmethod
    def read(cls, variables: Mapping[str, str] | None = None) -> Environment:
        """Read them, and below them what the profile says that VAULTD_PROFILE names.  Raises ConfigurationError."""
        found = os.environ if variables is None else variables
        if not found.get(PROFILE):
            return cls.of(found)
        from vaultd_client.profiles import config_path, read_profiles

        filled, command = read_profiles(config_path(found)).get(found[PROFILE]).below(found)
        return cls.of(filled, command)

    @classmethod
    def of(cls, found: Mapping[str, str], token_command: tuple[str, ...] = ()) -> Environment:
        """What the variables say, and nothing else.  Raises ConfigurationError when VAULTD_ADDR is missing."""
        if not found.get(ADDRESS):
            raise ConfigurationError(f"{ADDRESS} is not set; it is HOST:PORT, several with commas between them")
        names = (CA, CERTIFICATE, KEY, SERVER_NAME, TOKEN_FILE)
        ca, certificate, key, server_name, token_file = (found.get(name) or None for name in names)
        return cls(found[ADDRESS], ca, certificate, key, server_name, token_file, token_command)

    def token(self) -> TokenProvider | None:
        """What gives the tokens, if these are to say who calls."""
        if self.token_command:
            from vaultd_client.token_command import TokenCommand

            return TokenCommand(self.token_command)
        return None if self.token_file is None else TokenFile(self.token_file)

    def async_token(self) -> AsyncTokenProvider | None:
        """The same for an event loop."""
        if self.token_command:
            from vaultd_client.token_command import TokenCommand

            return TokenCommand(self.token_command).soon
        return self.token()


class TokenFile:
    """Gives the token in a file, such as a projected service-account token, and reads it again when the file changes."""

    def __init__(self, path: FilePath) -> None:
        self._path = Path(path)
        self._seen: tuple[int, int, int] | None = None
        self._token = ""

    def __call__(self) -> str:
        """The token of now.  Raises ConfigurationError when there is none."""
        try:
            status = self._path.stat()
            seen = (status.st_mtime_ns, status.st_size, status.st_ino)
            if seen != self._seen:
                self._token, self._seen = self._path.read_text(encoding="ascii").strip(), seen
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigurationError(f"the token in {self._path} cannot be read: {error}") from None
        if not self._token:
            raise ConfigurationError(f"{self._path} is empty; it must hold a token")
        return self._token
