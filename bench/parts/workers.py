"""Workers: what a second process on a second core is worth."""

from __future__ import annotations

import os
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
    """Single calls, 32 in flight, against one worker on all cores, and one on one core: threads that sign use all that there
    are.  Raises StartFailed where the server has no workers."""
    setups = {
        "one worker on one core": Setup(workers=1, cores=(min(os.sched_getaffinity(0)),)),
        "one worker": Setup(workers=1),
        "two workers": Setup(workers=2),
    }
    findings = Findings()
    for what, request in REQUESTS.items():
        contenders: list[Loaded] = []
        for name, setup in setups.items():
            rig = stand.rig(setup)
            contenders.append(served(rig, rig.vaultd, f"{what}, {name}", request, IN_FLIGHT))
        measured = take_turns(contenders, pace.batches)
        findings.add_rows("Workers, single calls; 32 in flight", measured)
        findings.compare(
            measured,
            [
                Comparison(
                    f"two workers / {other}, {what}, calls a second",
                    f"{what}, two workers",
                    f"{what}, {other}",
                    items_per_s,
                    "higher",
                )
                for other in ("one worker", "one worker on one core")
            ],
        )
    return findings
