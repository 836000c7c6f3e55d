"""How long components were away."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from vaultd.telemetry.cells import SLOW_BOUNDS_S, Histograms

if TYPE_CHECKING:
    from collections.abc import Callable

MAX_COMPONENTS: Final = 200


class Recoveries:
    """Told when a component begins or ceases to serve; counts what lies between.  The start of the server is no recovery."""

    def __init__(self, monotonic_s: Callable[[], float]) -> None:
        self._monotonic_s = monotonic_s
        self._lost_s: dict[str, float] = {}
        self.durations = Histograms(MAX_COMPONENTS, SLOW_BOUNDS_S)

    def note(self, component: str, serving: bool) -> None:
        """Take in a change."""
        if not serving:
            self._lost_s[component] = self._monotonic_s()
        elif component in self._lost_s:
            self.durations.add(component, self._monotonic_s() - self._lost_s.pop(component))
