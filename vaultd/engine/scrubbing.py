"""What destroyed material leaves behind in the store's journals, and its erasure."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING

from vaultd.errors import Unavailable

if TYPE_CHECKING:
    from vaultd.store.base import Store


class Scrubber:
    """Erases copies of destroyed material once it is told that there are any.  Repeating it is harmless."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._pending = True  # a crash may have come between a destruction and its scrub

    def note(self) -> None:
        """Remember that material was destroyed: the next `run` erases what is left of it."""
        self._pending = True

    async def run(self) -> None:
        """Erase what is left, if anything may be.  Tried again later while a reader is in the way."""
        if self._pending:
            with suppress(Unavailable):
                await self._store.scrub()
                self._pending = False
