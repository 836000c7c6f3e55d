"""What both clients are made from: arguments or the environment, checked once."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Generic, Self, TypeVar

from vaultd_client.checksums import FAST
from vaultd_client.settings import BatchLimits, Environment, Settings
from vaultd_client.spans import Tracing
from vaultd_client.tls import TlsFiles
from vaultd_client.trace import current_traceparent
from vaultd_client.watching import Changes

if TYPE_CHECKING:
    from collections.abc import Sequence

    from vaultd_client.settings import FilePath, TraceProvider

Token = TypeVar("Token")
"""What gives the token of a call."""


class ClientBase(ABC, Generic[Token]):
    """A client that has not made a call yet."""

    def __init__(
        self,
        address: str | Sequence[str],
        *,
        ca: FilePath | None = None,
        certificate: FilePath | None = None,
        key: FilePath | None = None,
        token: Token | None = None,
        server_name: str | None = None,
        timeout_s: float | None = None,
        coalesce: bool = True,
        checksums: bool = True,
        batch: BatchLimits | None = None,
        trace: TraceProvider = current_traceparent,
    ) -> None:
        """address: HOST:PORT; several in a list, or with commas between them.  server_name: the DNS name or SPIFFE id that the
        server's certificate must have, when it is not the host's name.  Raises ConfigurationError.
        """
        self._settings = Settings.of(
            address,
            ca=ca,
            certificate=certificate,
            key=key,
            has_token=token is not None,
            server_name=server_name,
            timeout_s=timeout_s,
            coalesce=coalesce,
            checksums=checksums,
            batch=batch,
        )
        self._files = TlsFiles(self._settings)
        self._token = token
        self._trace = trace
        self._tracing = Tracing() if trace is current_traceparent else None  # else traces are the program's own affair
        self._checksums = checksums and FAST
        self._pid = 0
        self._changes = Changes()
        self._closed = False
        self._prepare()

    @classmethod
    def from_env(
        cls,
        *,
        token: Token | None = None,
        timeout_s: float | None = None,
        coalesce: bool = True,
        checksums: bool = True,
        batch: BatchLimits | None = None,
        trace: TraceProvider = current_traceparent,
    ) -> Self:
        """A client of VAULTD_ADDR, with VAULTD_CA, VAULTD_CERT, VAULTD_KEY, VAULTD_SERVER_NAME and VAULTD_TOKEN_FILE;
        what they do not say comes from the profile VAULTD_PROFILE, if that is set (docs/vaultctl.md).

        Raises ConfigurationError.
        """
        found = Environment.read()
        return cls(
            found.address,
            ca=found.ca,
            certificate=found.certificate,
            key=found.key,
            token=cls._token_of(found) if token is None else token,
            server_name=found.server_name,
            timeout_s=timeout_s,
            coalesce=coalesce,
            checksums=checksums,
            batch=batch,
            trace=trace,
        )

    @abstractmethod
    def _prepare(self) -> None:
        """Make what the kind of client needs besides."""

    @staticmethod
    @abstractmethod
    def _token_of(found: Environment) -> Token | None:
        """What the environment says of tokens."""
