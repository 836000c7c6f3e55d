"""What a decision of the policy costs: `python -m bench.policy`.

CPU time, one process, no server: 50 bindings on as many vaults, all of which name the caller, and the last of which decides; the
same from memory; and with a condition on each.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from vaultd.engine.conditions import Facts
from vaultd.engine.policy import Binding, Policy, PolicyEngine

if TYPE_CHECKING:
    from collections.abc import Callable

APP = "spiffe://example.org/app"
NOW_US = 1_800_000_000_000_000
BINDINGS = 50
ROUNDS = 15
CONDITIONS = ('principal.startsWith("spiffe://")', 'resource.labels.env == "dev"', "request.time.getHours() < 24")
KEYS = [f"vaults/v49/keys/k{i}" for i in range(20_000)]


def engine(condition: str = "") -> PolicyEngine:
    """A policy of 50 bindings on as many vaults, all of which name the caller."""
    bindings = [Binding((APP,), "crypto-user", f"vaults/v{i}", condition) for i in range(BINDINGS)]
    return PolicyEngine(Policy(bindings=tuple(bindings)))


def best_us(act: Callable[[], None], times: int) -> float:
    """The least CPU time of one of `times`, over some rounds: the machine may be busy with others."""
    found = []
    for _ in range(ROUNDS):
        begun = time.process_time()
        act()
        found.append((time.process_time() - begun) / times * 1e6)
    return min(found)


def main() -> None:
    """Measure, and print a line for each."""
    facts = Facts("/vaultd.v1.CryptoService/Encrypt", NOW_US, {}, {"env": "dev"})

    def first_of_a_principal() -> None:
        for _ in range(20):
            fresh.append(engine())
            fresh[-1].allows(APP, "crypto.encrypt", KEYS[0])
        fresh.clear()

    def made() -> None:
        for _ in range(20):
            fresh.append(engine())
        fresh.clear()

    fresh: list[PolicyEngine] = []

    def uncached() -> None:
        decisions = engine()
        decisions.allows(APP, "crypto.encrypt", "vaults/v49")  # gathers what the policy says of the principal
        begun = time.process_time()
        for key in KEYS:
            decisions.allows(APP, "crypto.encrypt", key)
        spent.append((time.process_time() - begun) / len(KEYS) * 1e6)

    spent: list[float] = []
    for _ in range(ROUNDS):
        uncached()
    warm = engine()
    warm.allows(APP, "crypto.encrypt", KEYS[0])
    key = KEYS[0]

    def cached() -> None:
        for _ in range(200_000):
            warm.look_up(APP, "crypto.encrypt", key)

    def conditional(condition: str) -> float:
        decisions = engine(condition)
        decisions.allows(APP, "crypto.encrypt", key, facts)

        def decide() -> None:
            for _ in range(5_000):
                decisions.decide(APP, "crypto.encrypt", key, facts)

        return best_us(decide, 5_000)

    whole, without = best_us(first_of_a_principal, 20), best_us(made, 20)
    print(f"first decision for a principal, {BINDINGS} bindings  {whole - without:8.2f} us")
    print(f"uncached, {BINDINGS} bindings                       {min(spent):8.2f} us")
    print(f"cached                                      {best_us(cached, 200_000):8.2f} us")
    print(f"condition on the principal                  {conditional(CONDITIONS[0]):8.2f} us")
    print(f"condition on labels                         {conditional(CONDITIONS[1]):8.2f} us")
    print(f"condition on time                           {conditional(CONDITIONS[2]):8.2f} us")


if __name__ == "__main__":
    main()
