"""Workers: what a second process on a second core is worth."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from bench.cases import sign_with
from bench.clients import Pressure, Request
from bench.contenders import take_turns
from bench.figures import Comparison, Findings
from bench.parts.calls import ENCRYPT
from bench.rig import Setup
from bench.slices import items_per_s
from bench.stand import served

if TYPE_CHECKING:
    from bench.contenders import Loaded
    from bench.pace import Pace
    from bench.stand import Stand

IN_FLIGHT: Final = Pressure(32)
REQUESTS: Final = {
    "RSA-PSS-2048 sign": Request("/vaultd.v1.CryptoService/Sign", sign_with("rsa2048")(None).SerializeToString()),
    "Encrypt": ENCRYPT,
}


def measure_workers(stand: Stand, pace: Pace) -> Findings:
    """Single calls, 32 in flight.  Raises StartFailed where the server has no workers."""
    findings = Findings()
    for what, request in REQUESTS.items():

        def contender(workers: int, what: str = what, request: Request = request) -> Loaded:
            rig = stand.rig(Setup("grpc", workers))
            return served(rig, rig.vaultd, f"{what}, workers: {workers}", request, IN_FLIGHT)

        measured = take_turns([contender(1), contender(2)], pace.batches)
        findings.add_rows("Workers, single calls; 32 in flight", measured)
        two, one = (f"{what}, workers: {number}" for number in (2, 1))
        findings.compare(
            measured, [Comparison(f"two workers / one, {what}, calls a second", two, one, items_per_s, "higher")]
        )
    return findings
