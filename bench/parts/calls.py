"""Single calls: both hosts, their bare echoes, the SDK, and the peers, all in turns."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from bench.cases import encrypt_with, key_name, sign_with
from bench.clients import Pressure, Request
from bench.contenders import Loaded, take_turns
from bench.figures import Comparison, Findings
from bench.measure import ECHO_REQUEST
from bench.parts.sdk import through_sdk
from bench.slices import items_per_s
from bench.stand import Stand, available, peer, served

if TYPE_CHECKING:
    from collections.abc import Callable

    from bench.pace import Pace

ON: Final = {"grpc": "grpc.aio", "envoy": "Envoy"}
CALLERS: Final = 64
"""Of the SDK; and of the measurement of throughput."""
SIGNING: Final = {"rsa2048": "RSA-PSS-2048 sign", "p256": "P-256 sign", "ed25519": "Ed25519 sign"}
ENCRYPT: Final = Request("/vaultd.v1.CryptoService/Encrypt", encrypt_with("aes")(None).SerializeToString())

_ENCRYPT: Final = (
    Comparison("Encrypt on grpc.aio / its echo", "Encrypt on grpc.aio", "echo on grpc.aio"),
    Comparison("Encrypt on Envoy / its echo", "Encrypt on Envoy", "echo on Envoy"),
    Comparison("Encrypt on Envoy / on grpc.aio", "Encrypt on Envoy", "Encrypt on grpc.aio"),
    Comparison("Encrypt on grpc.aio / OpenBao", "Encrypt on grpc.aio", "OpenBao encrypt"),
    Comparison("Encrypt on Envoy / OpenBao", "Encrypt on Envoy", "OpenBao encrypt"),
    Comparison("Encrypt on grpc.aio / KES", "Encrypt on grpc.aio", "KES encrypt"),
    Comparison("Encrypt on Envoy / KES", "Encrypt on Envoy", "KES encrypt"),
    Comparison("SDK on grpc.aio, 64 callers / KES", "SDK on grpc.aio, 64 callers", "KES encrypt"),
    Comparison("SDK on Envoy, 64 callers / KES", "SDK on Envoy, 64 callers", "KES encrypt"),
)
_THROUGHPUT: Final = (
    Comparison(
        "Encrypt on Envoy / on grpc.aio, calls a second",
        "Encrypt on Envoy",
        "Encrypt on grpc.aio",
        items_per_s,
        "higher",
    ),
)


def measure_encrypt(stand: Stand, pace: Pace) -> Findings:
    """64 bytes with AES-256-GCM; a lone call each, and once more with many callers for the throughput."""
    few, many = Pressure(), Pressure(CALLERS)

    def echo(host: str) -> Loaded:
        rig = stand.host(host)
        return served(rig, rig.echo, f"echo on {ON[host]}", ECHO_REQUEST, few)

    def encrypt(host: str, pressure: Pressure) -> Loaded:
        rig = stand.host(host)
        return served(rig, rig.vaultd, f"Encrypt on {ON[host]}", ENCRYPT, pressure)

    def sdk(host: str) -> Loaded:
        name = f"SDK on {ON[host]}, {CALLERS} callers"
        return through_sdk(stand, stand.host(host), name, key_name("aes"), CALLERS)

    def openbao() -> Loaded:
        server = stand.openbao
        return peer(stand, server, "OpenBao encrypt", server.encrypt(), few)

    def kes() -> Loaded:
        server = stand.kes
        return peer(stand, server, "KES encrypt", server.encrypt(), few)

    each_host = [make for host in ON for make in _for_host(host, echo, lambda host: encrypt(host, few), sdk)]
    findings = Findings()
    measured = take_turns(available([*each_host, openbao, kes]), pace.calls)
    findings.add_rows("Encrypt, 64 bytes, AES-256-GCM; 8 in flight", measured)
    findings.compare(measured, _ENCRYPT)
    measured = take_turns(available(_for_each_host(lambda host: encrypt(host, many))), pace.calls)
    findings.add_rows(f"Encrypt, {CALLERS} in flight", measured)
    findings.compare(measured, _THROUGHPUT)
    return findings


def measure_signatures(stand: Stand, pace: Pace) -> Findings:
    """64 bytes with each kind of key that peers have, too."""
    findings = Findings()
    for key, name in SIGNING.items():
        request = Request("/vaultd.v1.CryptoService/Sign", sign_with(key)(None).SerializeToString())

        def sign(host: str, request: Request = request, name: str = name) -> Loaded:
            rig = stand.host(host)
            return served(rig, rig.vaultd, f"{name} on {ON[host]}", request, Pressure())

        def openbao(key: str = key, name: str = name) -> Loaded:
            server = stand.openbao
            return peer(stand, server, f"OpenBao {name}", server.sign(key), Pressure())

        measured = take_turns(available([*_for_each_host(sign), openbao]), pace.calls)
        findings.add_rows("Signatures; 8 in flight", measured)
        findings.compare(
            measured,
            [Comparison(f"{name} on {host} / OpenBao", f"{name} on {host}", f"OpenBao {name}") for host in ON.values()],
        )
    return findings


def _for_host(host: str, *makers: Callable[[str], Loaded]) -> list[Callable[[], Loaded]]:
    return [lambda make=make: make(host) for make in makers]  # type: ignore[misc]  # a default binds it


def _for_each_host(make: Callable[[str], Loaded]) -> list[Callable[[], Loaded]]:
    return [bound for host in ON for bound in _for_host(host, make)]
