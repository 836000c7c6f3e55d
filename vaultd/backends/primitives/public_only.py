"""The public part of an algorithm whose public part does nothing."""

from __future__ import annotations

from typing import TYPE_CHECKING, NoReturn

from vaultd.backends.primitives.scheme import wrong_purpose

if TYPE_CHECKING:
    from vaultd.backends.base import Operation


class NoPublicUse:
    """A sound public key of a key agreement: it is for the peer, and no operation here takes it."""

    __slots__ = ()

    def __init__(self, key: object) -> None:
        del key

    def perform(self, operation: Operation) -> NoReturn:
        """Refuse."""
        del operation
        raise wrong_purpose()
