"""What the commands share: where the server is, who calls, and how answers are written."""

from __future__ import annotations

import os
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Iterator

    from vaultd_client import Client
    from vaultd_client.profiles import Profile
    from vaultd_client.settings import Environment, Settings

TIMEOUT_S: Final = 30.0
VARIABLES: Final = {
    "addr": "VAULTD_ADDR",
    "ca": "VAULTD_CA",
    "cert": "VAULTD_CERT",
    "key": "VAULTD_KEY",
    "server_name": "VAULTD_SERVER_NAME",
    "token_file": "VAULTD_TOKEN_FILE",
}
"""Flags of the root command, and the variables that say the same."""


@dataclass
class Session:
    """One run of vaultctl.

    Flags go before the environment, and that before the current profile; a profile that --profile names goes before the
    environment, since it is a flag.
    """

    flags: dict[str, Any] = field(default_factory=dict)
    _client: Client | None = None

    def set(self, name: str, value: Any) -> None:
        """Take a flag; the one that stands nearer to the end of the command line wins."""
        if value is not None:
            self.flags[name] = value

    @cached_property
    def profile(self) -> Profile | None:
        """The profile in force: of --profile, of VAULTD_PROFILE, or the current one.  Raises ConfigurationError."""
        from vaultd_client.profiles import PROFILE, config_path, read_profiles

        named = self.flags.get("profile") or os.environ.get(PROFILE)
        path = config_path()
        if named is None and not path.exists():
            return None
        found = read_profiles(path)
        name = named or found.current
        return None if name is None else found.get(str(name))

    @property
    def vault(self) -> str:
        """The vault that short names are of: its id."""
        said = self.flags.get("vault") or os.environ.get("VAULTD_VAULT")
        return str(said or (self.profile and self.profile.vault) or "default")

    @property
    def output(self) -> str | None:
        """`table`, `json`, `yaml` or `raw`; None where nobody said."""
        said = self.flags.get("output") or os.environ.get("VAULTD_OUTPUT")
        return said or (self.profile.output if self.profile is not None else None)

    @property
    def timeout_s(self) -> float:
        """How long a call of vaultctl's own may take."""
        return float(self.flags.get("timeout") or TIMEOUT_S)

    def environment(self) -> Environment:
        """Where the server is, and who calls.  Raises ConfigurationError."""
        from vaultd_client.settings import Environment

        said = {variable: str(self.flags[flag]) for flag, variable in VARIABLES.items() if self.flags.get(flag)}
        if not self.flags.get("profile"):
            said = {**{name: os.environ[name] for name in VARIABLES.values() if os.environ.get(name)}, **said}
        if self.profile is None:
            return Environment.of(said)
        return Environment.of(*self.profile.below(said))

    def settings(self) -> Settings:
        """The same, checked.  Raises ConfigurationError."""
        from vaultd_client.settings import Settings

        found = self.environment()
        return Settings.of(
            found.address,
            ca=found.ca,
            certificate=found.certificate,
            key=found.key,
            has_token=found.token() is not None,
            server_name=found.server_name,
            timeout_s=self.flags.get("timeout"),
            coalesce=False,
            checksums=True,
            batch=None,
        )

    def client(self) -> Client:
        """The client of this run.  Raises ConfigurationError."""
        if self._client is None:
            from vaultd_client import Client

            found = self.environment()
            self._client = Client(
                found.address,
                ca=found.ca,
                certificate=found.certificate,
                key=found.key,
                token=found.token(),
                server_name=found.server_name,
                timeout_s=self.flags.get("timeout"),
                coalesce=False,
            )
        return self._client

    @contextmanager
    def channel(self) -> Iterator[Any]:
        """A channel to the first address, for what is no RPC of vaultd.  Raises ConfigurationError."""
        import grpc

        from vaultd_client.tls import TlsFiles, channel_options, credentials_of

        settings = self.settings()
        address = settings.addresses[0]
        credentials = credentials_of(TlsFiles(settings).current(0.0))
        with grpc.secure_channel(address, credentials, options=channel_options(settings, address)) as channel:
            yield channel

    def call_metadata(self) -> Any:
        """What goes with a call on that channel."""
        from vaultd_client.trace import call_metadata

        token = self.environment().token()
        return call_metadata(None if token is None else token(), None)

    def close(self) -> None:
        """Close the connection, if there is one."""
        if self._client is not None:
            self._client.close()
            self._client = None
