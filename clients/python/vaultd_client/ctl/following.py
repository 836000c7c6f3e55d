"""Following secrets: when one of them may have changed."""

from __future__ import annotations

import threading
from queue import SimpleQueue
from typing import TYPE_CHECKING, Final

import click

from vaultd_client.ctl.failures import describe, lines_of
from vaultd_client.errors import ClientClosed, ConfigurationError, VaultdError
from vaultd_client.v1.watch_pb2 import RESOURCE_KIND_SECRET, RESOURCE_KIND_SECRET_VERSION
from vaultd_client.watching import resource_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from vaultd_client import Client
    from vaultd_client.v1.watch_pb2 import WatchResponse

KINDS: Final = [RESOURCE_KIND_SECRET, RESOURCE_KIND_SECRET_VERSION]
PAUSE_S: Final = 10.0
"""After what ends a watch, such as a policy that changed, or no token; a server that was there and is away does not."""
TROUBLE: Final = (VaultdError, ConfigurationError)
"""What passes: a token that cannot be had now is a ConfigurationError."""


class Following:
    """Watches the secrets of a program; `secrets` are their names, without versions.

    It takes `secrets.get` on them besides `secrets.access`.
    """

    def __init__(self, vault: Client, secrets: Iterable[str], pause_s: float = PAUSE_S) -> None:
        self._vault = vault
        self._secrets = frozenset(secrets)
        self._pause_s = pause_s

    def start(self, tell: Callable[[], None]) -> None:
        """Call `tell`, from a thread, when a secret may have changed, until the client is closed.

        Raises VaultdError when watching is not allowed, and ConfigurationError.
        """
        prefixes = {secret.rpartition("/")[0] for secret in self._secrets}
        # All are open before anybody is told: what the caller reads from here on is watched.
        streams = [(prefix, self._open(prefix)) for prefix in sorted(prefixes)]
        for prefix, stream in streams:
            threading.Thread(target=self._follow, args=(prefix, stream, tell), daemon=True).start()

    def looks(self) -> Iterator[None]:
        """Comes by once at first, and whenever a secret may have changed; without end."""
        told: SimpleQueue[None] = SimpleQueue()
        self.start(lambda: told.put(None))
        while True:
            yield
            told.get()
            while not told.empty():
                told.get()

    @staticmethod
    def problem(error: Exception) -> None:
        """Say on standard error why what is there stays as it is."""
        text = lines_of(describe(error))[0] if isinstance(error, VaultdError) else str(error)
        click.echo(f"vaultctl: nothing was changed\n{text}", err=True)

    def _open(self, prefix: str) -> Iterator[WatchResponse]:
        stream = self._vault.watch(filter={"resource_prefix": prefix, "kinds": KINDS})
        next(stream)  # says where the watch begins
        return stream

    def _follow(self, prefix: str, stream: Iterator[WatchResponse], tell: Callable[[], None]) -> None:
        while True:
            try:
                for response in stream:
                    if any(resource_of(event.name) in self._secrets for event in response.events):
                        tell()
                stream = self._open(prefix)
                tell()  # who looks finds what happened meanwhile
            except ClientClosed:
                return
            except TROUBLE as error:
                stream = iter(())
                self.problem(error)
                threading.Event().wait(self._pause_s)
