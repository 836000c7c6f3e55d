"""How much a caller may ask.  Runs before parsing, so that a flood does not buy parsing."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from vaultd.engine.quotas import InFlight, RateLimiter

BYTES_PER_TOKEN: Final = 64 * 1024
"""A message costs one token, and one more for each 64 KiB."""


class Throttle:
    """Rates per principal and class of operation, and caps of calls in flight."""

    def __init__(self, rates: RateLimiter, unary: InFlight, streams: InFlight) -> None:
        self._rates = rates
        self.unary = unary
        self.streams = streams

    def admit_message(self, principal: str, cost_class: str, size: int) -> None:
        """Before parsing; raises ResourceExhausted with the wait."""
        self._rates.admit(principal, cost_class, 1 + size // BYTES_PER_TOKEN)

    def admit_items(self, principal: str, cost_class: str, items: int) -> None:
        """After parsing a batch: each further item costs what a call costs."""
        if items > 1:
            self._rates.admit(principal, cost_class, items - 1)
