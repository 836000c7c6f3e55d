"""Which endpoint a call goes to: round robin, away from those that fail."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING, Final

from vaultd_client.errors import CircuitOpen, Refusal

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from vaultd_client.errors import VaultdError

OPENS_AFTER: Final = 5
"""Failures in a row after which an endpoint is left alone."""
OPEN_S: Final = 0.3
"""How long, at most; then one call tries it."""


class Endpoint:
    """One address, and its circuit breaker."""

    __slots__ = ("_failures", "_open_until", "_probing_until", "address")

    def __init__(self, address: str) -> None:
        self.address = address
        self._failures = 0
        self._open_until = 0.0
        self._probing_until = 0.0

    def wait_s(self, now: float) -> float:
        """How long until the endpoint may be tried; 0 when it may."""
        if self._failures < OPENS_AFTER:
            return 0.0
        return max(0.0, self._open_until - now, self._probing_until - now)

    def tried(self, now: float) -> None:
        """A call goes there.  While the circuit is half open it is the only one."""
        if self._failures >= OPENS_AFTER:
            self._probing_until = now + OPEN_S

    def answered(self) -> None:
        """A server answered, whatever it said."""
        self._failures = 0
        self._probing_until = 0.0

    def failed(self, now: float) -> None:
        """There was no answer, or one that says it cannot serve."""
        self._failures += 1
        self._probing_until = 0.0
        if self._failures >= OPENS_AFTER:
            self._open_until = now + random.uniform(OPEN_S / 2, OPEN_S)  # noqa: S311  # spreads load, guards nothing


class Endpoints:
    """All addresses of one vault."""

    def __init__(self, addresses: Sequence[str]) -> None:
        self._all = [Endpoint(address) for address in addresses]
        self._next = random.randrange(len(self._all))  # noqa: S311  # clients do not all begin with the same one

    @property
    def several(self) -> bool:
        """Whether there is another endpoint at all."""
        return len(self._all) > 1

    def pick(self, now: float, tried: Collection[Endpoint], method: str) -> Endpoint:
        """The next endpoint, preferably one that this call has not tried.  Raises CircuitOpen when all must be left alone."""
        if len(self._all) == 1 and not self._all[0].wait_s(now):
            self._all[0].tried(now)
            return self._all[0]
        start = self._next
        self._next = (start + 1) % len(self._all)
        order = [*self._all[start:], *self._all[:start]]
        ready = [one for one in order if not one.wait_s(now)]
        if not ready:
            wait_s = min(one.wait_s(now) for one in order)
            text = (
                f"none of {len(order)} endpoint(s) answered lately; see that a vaultd runs at the configured addresses"
            )
            raise CircuitOpen(Refusal("UNAVAILABLE", text, "CIRCUIT_OPEN", retry_delay_s=wait_s), method)
        chosen = next((one for one in ready if one not in tried), ready[0])
        chosen.tried(now)
        return chosen

    def untried(self, now: float, tried: Collection[Endpoint]) -> bool:
        """Whether there is another endpoint to fail over to."""
        return any(one not in tried and not one.wait_s(now) for one in self._all)


def is_failure(error: VaultdError) -> bool:
    """Whether an error speaks against the endpoint: it cannot serve, or says nothing at all."""
    return error.code == "UNAVAILABLE" or (error.code == "DEADLINE_EXCEEDED" and not error.refusal.answered)
