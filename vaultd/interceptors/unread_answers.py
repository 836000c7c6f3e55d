"""What unary calls were answered and their callers have not taken: the host holds it until HTTP/2 lets it go.

A call gives its place back once it is answered, so that the caps of calls in flight do not bound this.  There is a bound for each
principal and one for all; who holds less than an even part of the whole goes on, as with streams (held_bytes.py).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from vaultd.errors import ResourceExhausted

if TYPE_CHECKING:
    from collections.abc import Callable

COUNTED_BYTES: Final = 4 * 1024
"""From this size on an answer counts.  A smaller one is no more than what its call costs, and a connection has 100 calls."""


class UnreadAnswers:
    """Bytes of answers that are not on the wire, of each principal and in all.  To be used on the event loop alone."""

    def __init__(self, per_principal: int, total: int) -> None:
        self._per_principal = per_principal
        self._total = total
        self._of: dict[str, int] = {}
        self.held = 0

    def require_room(self, principal: str, more: int = 0) -> None:
        """Raises ResourceExhausted where the principal is at its bound; with `more`, where that would be beyond it."""
        held, bytes_held = self._of.get(principal, 0), self.held
        if not held:
            return
        everything = bytes_held + more >= self._total and held * len(self._of) >= self._total
        if held + more >= self._per_principal or everything:
            raise ResourceExhausted(
                "ANSWERS_UNREAD",
                "too much that this caller was answered is not read yet; read it, or end those calls, before more is asked",
                retry_after_s=1,
            )

    def hold(self, principal: str, size: int) -> Callable[[], None]:
        """Count an answer; what is returned has to be called once, when it is on the wire or will never be."""
        self._of[principal] = self._of.get(principal, 0) + size
        self.held += size

        def sent() -> None:
            self.held -= size
            left = self._of[principal] - size
            if left:
                self._of[principal] = left
            else:
                del self._of[principal]

        return sent
