"""Batches: what an item costs, beside OpenBao's batches, and beside what the processor can sign."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Final

from bench.cases import Case, encrypt_with, sign_with
from bench.clients import Pressure
from bench.contenders import Loaded, take_turns
from bench.figures import Comparison, Figure, Findings
from bench.measure import ECHO_REQUEST
from bench.openssl import Speed, cores
from bench.parts.calls import ON
from bench.slices import Slice, Spread, items_per_s
from bench.stand import Stand, available, peer, served

if TYPE_CHECKING:
    from collections.abc import Callable

    from bench.pace import Pace

FEW: Final = Pressure(2)
"""Each call is milliseconds of work: more would only measure the queue."""
ITEMS: Final = 1_000
BAO_ITEMS: Final = 400
SIGNED: Final = 100
SIGNERS: Final = {"rsa2048": ("RSA-2048", "rsa2048"), "p256": ("P-256", "ecdsap256")}
"""Our key, what it is called, and what `openssl speed` calls it."""


def batch(key: str, items: int, method: str = "Encrypt") -> Case:
    """A batch with one of our keys."""
    make = sign_with(key) if method == "Sign" else encrypt_with(key)
    return Case(f"Batch{method} {key} x{items:,}", f"Batch{method}", make, items)


def contender(stand: Stand, host: str, case: Case, pressure: Pressure = FEW) -> Loaded:
    """A batch to the vault on that host."""
    rig = stand.host(host)
    return served(rig, rig.vaultd, f"{case.name} on {ON[host]}", rig.api.requests([case])[case.name], pressure)


def measure_batches(stand: Stand, pace: Pace) -> Findings:
    """Encryption, 64 bytes an item."""
    aes, xaes, beside = batch("aes", ITEMS), batch("xaes", ITEMS), batch("aes", BAO_ITEMS)
    makers: list[Callable[[], Loaded]] = [
        partial(contender, stand, host, case) for host in ON for case in (aes, xaes, beside)
    ]

    def openbao() -> Loaded:
        server = stand.openbao
        return peer(stand, server, f"OpenBao batch_input of {BAO_ITEMS}", server.encrypt_batch(BAO_ITEMS), FEW)

    def echo(host: str) -> Loaded:
        rig = stand.host(host)
        return served(rig, rig.echo, f"echo on {ON[host]}", ECHO_REQUEST, FEW)

    echoes = [partial(echo, host) for host in ON]
    findings = Findings()
    measured = take_turns(available([*makers, *echoes, openbao]), pace.batches)
    findings.add_rows("Batches of encryptions, 64 bytes an item; 2 in flight", measured)
    for host in ON.values():
        if slices := measured.get(f"{aes.name} on {host}"):
            spread = Spread.of(each.item_cpu_us for each in slices)
            findings.figures.append(Figure(f"BatchEncrypt x1,000 on {host}, an item", spread, unit="us"))
        findings.compare(
            measured,
            [
                Comparison(f"XAES / AES, batches on {host}", f"{xaes.name} on {host}", f"{aes.name} on {host}"),
                Comparison(
                    f"BatchEncrypt x1,000 on {host}, an item / a call of its echo",
                    f"{aes.name} on {host}",
                    f"echo on {host}",
                ),
                Comparison(
                    f"batch item on {host} / OpenBao's",
                    f"{beside.name} on {host}",
                    f"OpenBao batch_input of {BAO_ITEMS}",
                ),
            ],
        )
    return findings


def _signatures_per_core(measured: Slice) -> float:
    return measured.items_per_cpu_s


def measure_signing(stand: Stand, pace: Pace) -> Findings:
    """Private keys in batches beside `openssl speed` on all cores: signatures in a second of a core, the client's CPU
    left out."""
    findings = Findings()
    for key, (name, algorithm) in SIGNERS.items():
        case, floor = batch(key, SIGNED, "Sign"), f"openssl speed {algorithm} on all cores"
        makers: list[Callable[[], Loaded]] = [partial(contender, stand, host, case, Pressure(4)) for host in ON]
        measured = take_turns([*available(makers), Speed(floor, algorithm, cores())], pace.signatures)
        findings.add_rows("Signatures in batches; 4 in flight", measured)
        findings.compare(
            measured,
            [
                Comparison(
                    f"{name} batches on {host} / openssl, {per}", f"{case.name} on {host}", floor, of, "higher", kept
                )
                for host in ON.values()
                for per, of, kept in (
                    ("a second of a core", _signatures_per_core, True),
                    ("a second", items_per_s, False),  # the clock's: what else the machine does is in one side of it
                )
            ],
        )
    return findings
