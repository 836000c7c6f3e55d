"""How much a caller may ask.  Before parsing by identity, method and bytes, so that a flood does not buy parsing; after
policy by vault and key, so that nobody spends what belongs to a resource that they may not use.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, Final

from vaultd.engine.algorithms import ProtectionLevel, default_algorithm
from vaultd.engine.quotas import Method, place_of
from vaultd.engine.weights import GENERATE, KINDS, weight_of
from vaultd.services.convert import ALGORITHM_NAMES, PURPOSES

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from vaultd.engine.overload import InFlight
    from vaultd.engine.quotas import Place, RateLimiter
    from vaultd.interceptors.rules import Rule

BYTES_PER_TOKEN: Final = 64 * 1024
"""A message costs one token, and one more for each 64 KiB."""
_CREATE_KEY: Final = "/vaultd.v1.KeysService/CreateKey"
_DATA_KEYS: Final = "/vaultd.v1.CryptoService/GenerateDataKey"

Lease = asyncio.Future[None]
"""Nothing was spent: wait for it, and ask again."""


def quota_methods(rules: Iterable[Rule]) -> dict[str, Method]:
    """What quotas know of each method; of the server's own health they know nothing."""
    return {
        rule.method: Method((rule.repeats or rule.method).removeprefix("/vaultd.v1.").replace("/", "."), rule.cost)
        for rule in rules
        if not rule.open
    }


def message_cost(size: int) -> int:
    """What a message costs before it is parsed."""
    return 1 + size // BYTES_PER_TOKEN


class Throttle:
    """Quotas, and caps of calls in flight.  `algorithm_of` tells the algorithm of a key that is in memory."""

    def __init__(
        self,
        rates: RateLimiter,
        unary: InFlight,
        streams: InFlight,
        methods: dict[str, Method],
        algorithm_of: Callable[[Place], str | None],
    ) -> None:
        self._rates = rates
        self.unary = unary
        self.streams = streams
        self._kinds = {path: KINDS[method.name] for path, method in methods.items() if method.name in KINDS}
        self._uneven = frozenset({*self._kinds, _DATA_KEYS})
        self._algorithm_of = algorithm_of

    def admit_message(self, principal: str, method: str, size: int) -> Lease | None:
        """Before parsing; raises ResourceExhausted with the wait."""
        return self._rates.admit(principal, method, 1 + size // BYTES_PER_TOKEN)

    def admit_items(self, principal: str, method: str, items: int, size: int) -> Lease | None:
        """After parsing a batch: each further item costs what a call costs."""
        return self._rates.admit(principal, method, items - 1, message_cost(size)) if items > 1 else None

    def meters(self, method: str) -> bool:
        """Whether `admit_use` can have anything to say."""
        return method in self._uneven or bool(self._rates.places)

    def admit_use(self, principal: str, rule: Rule, request: Any, size: int) -> Lease | None:
        """After policy: what a single call uses."""
        places = [place_of(access.resource(request)) for access in rule.access]
        uses = request.count or 1 if rule.method == _DATA_KEYS else 1
        if rule.method == _CREATE_KEY:
            weight = weight_of(GENERATE, _new_algorithm(request.key))
        else:
            weight = self._weight(rule.method, places)
        return self._rates.admit_use(principal, rule.method, places, uses, weight, 1, message_cost(size))

    def admit_uses(self, principal: str, method: str, names: Any, uses: int, ahead: int) -> Lease | None:
        """After policy: what the items of a batch use that have the same names; `ahead` is what the batch spent before."""
        places = [place_of(name) for name in ((names,) if isinstance(names, str) else names)]
        return self._rates.admit_use(principal, method, places, uses, self._weight(method, places), uses, ahead)

    def _weight(self, method: str, places: list[Place]) -> int:
        kind = self._kinds.get(method)
        if kind is None:
            return 1
        algorithm = self._algorithm_of(places[0])  # of a key that was not used yet, the first call weighs 1
        return weight_of(kind, algorithm) if algorithm is not None else 1


async def spend(lease: Lease, admit: Callable[..., Lease | None], *arguments: Any) -> None:
    """Wait for a lease and ask again, until the call is admitted; raises what `admit` raises."""
    waiting: Lease | None = lease
    while waiting is not None:
        await asyncio.shield(waiting)
        waiting = admit(*arguments)


def _new_algorithm(key: Any) -> str:
    if key.purpose not in PURPOSES:
        return ""  # the service will say so
    name = ALGORITHM_NAMES.get(key.algorithm)
    return name or default_algorithm(PURPOSES[key.purpose], ProtectionLevel.SOFTWARE).name
