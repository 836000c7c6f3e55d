"""Keys in a SoftHSM token: vaultd beside a bare loop on one session of the same token, with the same keys.

A case stands between two slices of its loop, and its ratio is that of operations a second, each time with the machine to
itself: the loop has one thread and no client, vaultd has all cores and shares them with the client.
"""

from __future__ import annotations

import json
import statistics
from dataclasses import asdict, dataclass
from importlib.metadata import version
from typing import TYPE_CHECKING, Any, Final

from bench.cases import KEYS, Case, encrypt_with, key_name, sign_with
from bench.clients import Pressure
from bench.processes import StartFailed
from bench.slices import half_quartile_distance, percentile_ms
from vaultd import softhsm

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from bench.cases import Api
    from bench.measure import Plan
    from bench.rig import Rig
    from bench.slices import Slice

_MANY: Final = 64
"""Calls in flight of a busy server, and items of a batch."""
_BATCHES: Final = 4


def _cases(key: str, name: str, method: str, request: Callable[[Any], Any]) -> dict[Case, str]:
    cases = (
        Case(f"token {name}", method, request),
        Case(f"token {name} busy", method, request, 1, _MANY),
        Case(f"token {name} x{_MANY}", f"Batch{method}", request, _MANY, _BATCHES),
    )
    return dict.fromkeys(cases, key)


TOKEN_CASES: Final[dict[Case, str]] = {
    **_cases("p256", "P-256 sign", "Sign", sign_with("p256")),
    **_cases("rsa2048", "RSA-PSS-2048 sign", "Sign", sign_with("rsa2048")),
    **_cases("aes", "AES-256-GCM encrypt 64 B", "Encrypt", encrypt_with("aes")),
}
"""Each case with the key that it uses, which names the loop's operation, too."""


@dataclass(frozen=True)
class TokenRow:
    """The figures of one case: medians over rounds, percentiles over all calls."""

    name: str
    items: int
    in_flight: int
    calls: int
    items_per_s: float
    loop_per_s: float
    to_loop: float
    """Operations a second, to those of the loop just before and after."""
    to_loop_spread: float
    """Half the distance of the quartiles."""
    p50_ms: float | None
    p99_ms: float | None
    cpu_us_per_item: float
    """Of the server and its worker."""
    loop_cpu_us: float
    busy: float
    rounds_to_loop: list[float]

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True)
class _Pair:
    """One slice of a case and the loop's around it."""

    measured: Slice
    loop_per_s: float
    loop_cpu_us: float


def what_is_missing() -> str:
    """Say what these cases need and is not there; "" when they can run."""
    try:
        softhsm.find_module()
    except softhsm.SoftHsmMissing as error:
        return str(error)
    return ""


def create_token_keys(api: Api) -> None:
    """Make the keys of all cases in the token."""
    api.create_keys({key: KEYS[key] for key in TOKEN_CASES.values()}, "HSM")


class Loop:
    """The bare loop in its process."""

    def __init__(self, rig: Rig) -> None:
        self._process = rig.start("token-loop", ["bench.token_loop", str(rig.vault / "hsm")])
        self.module = {"softhsm": self._process.wait_ready(), "python-pkcs11": version("python-pkcs11")}
        # vaultd labels an object with the name of its version.
        self._tell({key: f"{key_name(key)}/versions/1" for key in set(TOKEN_CASES.values())})

    def run(self, key: str, seconds: float) -> tuple[float, float]:
        """Operations a second, and CPU microseconds of one."""
        self._tell({"operation": key, "seconds": seconds})
        line = self._process.stdout.readline()
        if not line:
            raise StartFailed(self._process.describe_failure())
        answer = json.loads(line)
        done = answer["operations"]
        return done / answer["elapsed_s"], answer["cpu_s"] / done * 1e6

    def _tell(self, order: dict[str, Any]) -> None:
        self._process.stdin.write(json.dumps(order).encode() + b"\n")
        self._process.stdin.flush()


def measure_token(
    rig: Rig, loop: Loop, cases: Sequence[Case], plan: Plan, say: Callable[[str], None]
) -> list[TokenRow]:
    """Warm up, then run all rounds."""
    requests = rig.api.requests(cases)

    def load(case: Case, seconds: float) -> Slice:
        return rig.load(rig.vaultd, requests[case.name], Pressure(case.in_flight or plan.in_flight), seconds)

    for case in cases:
        load(case, plan.warm_up_s)
    pairs: dict[Case, list[_Pair]] = {case: [] for case in cases}
    by_key = [[case for case in cases if TOKEN_CASES[case] == key] for key in dict.fromkeys(TOKEN_CASES.values())]
    for number in range(plan.rounds):
        say(f"token: round {number + 1} of {plan.rounds}")
        for group in filter(None, by_key):
            key, at = TOKEN_CASES[group[0]], number % len(group)
            before = loop.run(key, plan.slice_s)
            for case in [*group[at:], *group[:at]]:
                measured = load(case, plan.slice_s)
                after = loop.run(key, plan.slice_s)
                pairs[case].append(_Pair(measured, (before[0] + after[0]) / 2, (before[1] + after[1]) / 2))
                before = after
    return [_row(case, case.in_flight or plan.in_flight, pairs[case]) for case in cases]


def _row(case: Case, in_flight: int, pairs: list[_Pair]) -> TokenRow:
    slices = [pair.measured for pair in pairs]
    rates = [measured.calls * case.items / measured.elapsed_s for measured in slices]
    ratios = [rate / pair.loop_per_s for rate, pair in zip(rates, pairs, strict=True)]
    latencies = sorted(latency for measured in slices for latency in measured.latencies_us)
    return TokenRow(
        name=case.name,
        items=case.items,
        in_flight=in_flight,
        calls=len(latencies),
        items_per_s=statistics.median(rates),
        loop_per_s=statistics.median(pair.loop_per_s for pair in pairs),
        to_loop=statistics.median(ratios),
        to_loop_spread=half_quartile_distance(ratios),
        p50_ms=percentile_ms(latencies, 50.0),
        p99_ms=percentile_ms(latencies, 99.0),
        cpu_us_per_item=statistics.median(measured.cpu_us for measured in slices) / case.items,
        loop_cpu_us=statistics.median(pair.loop_cpu_us for pair in pairs),
        busy=statistics.median(measured.server_cpu_s / measured.elapsed_s for measured in slices),
        rounds_to_loop=ratios,
    )
