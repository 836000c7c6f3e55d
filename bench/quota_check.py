"""What one check of quotas costs.  `python -m bench.quota_check`: CPU microseconds of this process for each, best of rounds.

In process and without a transport: the part of a call's cost that quotas are answerable for.
"""

from __future__ import annotations

import mmap
import tempfile
import time
import timeit
from typing import TYPE_CHECKING, Final

from vaultd.engine.buckets import Window
from vaultd.engine.clock import SystemClock
from vaultd.engine.model import Quota
from vaultd.engine.overload import InFlight, LoadShedder
from vaultd.engine.quotas import RateLimiter, configured_quota
from vaultd.engine.shared_buckets import TABLE_BYTES, SharedCounts
from vaultd.errors import ResourceExhausted
from vaultd.interceptors.errors import status_of
from vaultd.interceptors.rules import RULES
from vaultd.interceptors.throttle import quota_methods

if TYPE_CHECKING:
    from collections.abc import Callable

CALLS: Final = 50_000
ROUNDS: Final = 7
APP: Final = "spiffe://example.org/app"
ENCRYPT: Final = "/vaultd.v1.CryptoService/Encrypt"
_MOST: Final = 10**12
_SECOND_US: Final = 1_000_000


def _window(seconds: int) -> Window:
    return Window(_MOST, seconds * _SECOND_US)


def _limiter(windows: tuple[Window, ...], *quotas: Quota, counts: SharedCounts | None = None) -> RateLimiter:
    short = [counts.bucket] if counts is not None else []
    limiter = RateLimiter([configured_quota("symmetric", windows)], quota_methods(RULES), SystemClock(), None, *short)
    limiter.install(quotas)
    return limiter


def _on(resource: str, number: int) -> Quota:
    return Quota("", f"q{number}", bytes([number]) * 16, "*", resource, (), (), (_window(1),), 0, 0, 1)


def _cost_us(act: Callable[[], object]) -> float:
    act()
    return min(timeit.repeat(act, timer=time.process_time, number=CALLS, repeat=ROUNDS)) / CALLS * 1e6


def main() -> None:
    """Measure and print."""
    one = _limiter((_window(1),))
    file = tempfile.TemporaryFile()  # it goes with the process
    file.truncate(TABLE_BYTES)
    counts = SharedCounts(mmap.mmap(file.fileno(), 0), file.fileno())
    shared = _limiter((_window(1),), counts=counts)
    scarce = counts.bucket(bytes(16), APP, Window(_MOST, _SECOND_US, 1))
    three = _limiter((_window(1), _window(60), _window(600)))
    at_key = _limiter((_window(1),), _on("vaults/a", 1), _on("vaults/a/keys/k", 2))
    place = [("a", "k")]
    in_flight = InFlight(512, 256)
    shedder = LoadShedder(in_flight, 0.05, print)

    small = _limiter((Window(1, 3_600 * _SECOND_US),))
    small.admit(APP, ENCRYPT, 1)
    full = InFlight(512, 1)
    full.enter(APP)

    def refuse() -> None:
        try:
            small.admit(APP, ENCRYPT, 1)
        except ResourceExhausted as error:
            status_of(error).SerializeToString()

    def fetch() -> None:
        scarce.take(1, time.monotonic_ns())

    def shed() -> None:
        try:
            full.enter(APP)
        except ResourceExhausted as error:
            status_of(error).SerializeToString()

    def enter_and_leave() -> None:
        in_flight.enter(APP)
        in_flight.leave(APP)

    checks: dict[str, Callable[[], object]] = {
        "before parsing, one window": lambda: one.admit(APP, ENCRYPT, 1),
        "before parsing, three windows": lambda: three.admit(APP, ENCRYPT, 1),
        "after policy, a quota on the vault and one on the key": lambda: at_key.admit_use(
            APP, ENCRYPT, place, 1, 1, 1, 1
        ),
        "after policy, an operation that weighs 8": lambda: one.admit_use(APP, ENCRYPT, place, 1, 8, 1, 1),
        "counted with other workers, one window": lambda: shared.admit(APP, ENCRYPT, 1),
        "the same, one token at a time from what they share": fetch,
        "a call in flight, in and out (shedding included)": enter_and_leave,
        "a refusal by a quota, with its status": refuse,
        "a refusal by the cap of calls in flight, with its status": shed,
        "a look at the delay, twenty a second": lambda: shedder.note(0.001),
    }
    print("| check | us |\n| --- | ---: |")
    for name, act in checks.items():
        print(f"| {name} | {_cost_us(act):.2f} |")


if __name__ == "__main__":
    main()
