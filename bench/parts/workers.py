"""Workers: what a second process on a second core is worth.

One process already signs on all cores, on threads; so for signing the second one is compared with one process on one core, too.
"""

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
from vaultd_client.v1 import crypto_pb2

if TYPE_CHECKING:
    from bench.contenders import Loaded
    from bench.pace import Pace
    from bench.stand import Stand

IN_FLIGHT: Final = Pressure(32)
BATCH: Final = 100


def batch_of(request: crypto_pb2.SignRequest, items: int) -> bytes:
    """A batch of one request again and again, serialised."""
    return bytes(crypto_pb2.BatchSignRequest(items=[request] * items).SerializeToString())


REQUESTS: Final = {
    "RSA-PSS-2048 sign": Request("/vaultd.v1.CryptoService/Sign", sign_with("rsa2048")(None).SerializeToString()),
    f"RSA-PSS-2048 sign, batch of {BATCH}": Request(
        "/vaultd.v1.CryptoService/BatchSign", batch_of(sign_with("rsa2048")(None), BATCH), BATCH
    ),
    "Encrypt": ENCRYPT,
}
ONE, TWO, ONE_CORE = Setup("grpc", 1), Setup("grpc", 2), Setup("grpc", 1, cores=1)
NAMES: Final = {ONE: "workers: 1", TWO: "workers: 2", ONE_CORE: "workers: 1, on one core"}


def measure_workers(stand: Stand, pace: Pace) -> Findings:
    """32 calls in flight.  Raises StartFailed where the server has no workers."""
    findings = Findings()
    for what, request in REQUESTS.items():

        def contender(setup: Setup, what: str = what, request: Request = request) -> Loaded:
            rig = stand.rig(setup)
            return served(rig, rig.vaultd, f"{what}, {NAMES[setup]}", request, IN_FLIGHT)

        measured = take_turns([contender(setup) for setup in NAMES], pace.batches)
        findings.add_rows("Workers; 32 calls in flight", measured)
        two, one, one_core = (f"{what}, {NAMES[setup]}" for setup in (TWO, ONE, ONE_CORE))
        findings.compare(
            measured,
            [
                Comparison(f"two workers / one, {what}, calls a second", two, one, items_per_s, "higher"),
                Comparison(
                    f"two workers / one on one core, {what}, calls a second", two, one_core, items_per_s, "higher"
                ),
            ],
        )
    return findings
