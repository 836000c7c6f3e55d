"""What the commands share: where the server is, who calls, and how answers are written."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Mapping

    from vaultd_client import Client

TIMEOUT_S: Final = 30.0
ADDRESS_FLAGS: Final = {
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
    """One run of vaultctl.  Flags go before the environment."""

    flags: dict[str, Any] = field(default_factory=dict)
    _client: Client | None = None

    def set(self, name: str, value: Any) -> None:
        """Take a flag; the one that stands nearer to the end of the command line wins."""
        if value is not None:
            self.flags[name] = value

    @property
    def vault(self) -> str:
        """The vault that short names are of: its id."""
        return str(self.flags.get("vault") or os.environ.get("VAULTD_VAULT") or "default")

    @property
    def output(self) -> str | None:
        """`table`, `json`, `yaml` or `raw`; None where nobody said."""
        found = self.flags.get("output")
        return None if found is None else str(found)

    def environment(self) -> Mapping[str, str]:
        """VAULTD_* as flags and environment say together."""
        said = {variable: str(self.flags[flag]) for flag, variable in ADDRESS_FLAGS.items() if self.flags.get(flag)}
        return {**os.environ, **said}

    def client(self) -> Client:
        """The client of this run.  Raises ConfigurationError."""
        if self._client is None:
            from vaultd_client import Client, TokenFile
            from vaultd_client.settings import Environment

            found = Environment.read(self.environment())
            self._client = Client(
                found.address,
                ca=found.ca,
                certificate=found.certificate,
                key=found.key,
                token=None if found.token_file is None else TokenFile(found.token_file),
                server_name=found.server_name,
                timeout_s=self.flags.get("timeout"),
                coalesce=False,
            )
        return self._client

    def close(self) -> None:
        """Close the connection, if there is one."""
        if self._client is not None:
            self._client.close()
            self._client = None
