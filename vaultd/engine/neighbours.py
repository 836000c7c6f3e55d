"""Other processes of this server on the same store, where there are any: what the engine tells them beside the feed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Protocol

if TYPE_CHECKING:
    from collections.abc import Mapping

    from vaultd.secret import Secret


class Neighbours(Protocol):
    """Nothing but `seal` raises: a neighbour that is away learns from the store, or from who starts it, what it missed."""

    sealed: bool
    """Whether somebody sealed the vault: then a process that starts does not unseal by itself."""
    seals: int
    """How many times somebody sealed it, as far as this process knows: what was begun before the last one does not open it."""

    def committed(self) -> None:
        """Something was committed: they need not wait for their next poll of the feed."""
        ...

    async def settled(self) -> None:
        """Return when they have taken in what was committed until now, or after a bounded time."""
        ...

    async def seal(self) -> None:
        """Return when they are sealed, or dead.  Raises Unavailable, reason SEAL_INCOMPLETE, when that cannot be known."""
        ...

    async def open(self, keys: Mapping[str, Secret], seals: int) -> bool:
        """Return when they have tried to unseal, with root keys that are nowhere but in memory.

        `seals` is what it was when this began.  False where somebody sealed the vault since: then this process is sealed, too.
        """
        ...

    async def share(self, keys: Mapping[str, Secret]) -> None:
        """Give them root keys that the ring will be wrapped under before long."""
        ...


class Alone:
    """No other process."""

    sealed = False
    seals = 0

    def committed(self) -> None:
        """See Neighbours."""

    async def settled(self) -> None:
        """See Neighbours."""

    async def seal(self) -> None:
        """See Neighbours."""

    async def open(self, keys: Mapping[str, Secret], seals: int) -> bool:
        """See Neighbours."""
        del keys, seals
        return True

    async def share(self, keys: Mapping[str, Secret]) -> None:
        """See Neighbours."""


ALONE: Final = Alone()
