"""Single calls: both hosts, their bare echoes, the SDK, and the peers, all in turns."""

from __future__ import annotations

from functools import partial
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

_PAIRS: Final = (
    ("Encrypt on grpc.aio / its echo", "Encrypt on grpc.aio", "echo on grpc.aio"),
    ("Encrypt on Envoy / its echo", "Encrypt on Envoy", "echo on Envoy"),
    ("Encrypt on Envoy / on grpc.aio", "Encrypt on Envoy", "Encrypt on grpc.aio"),
    ("Encrypt on grpc.aio / OpenBao", "Encrypt on grpc.aio", "OpenBao encrypt"),
    ("Encrypt on Envoy / OpenBao", "Encrypt on Envoy", "OpenBao encrypt"),
    ("Encrypt on grpc.aio / KES", "Encrypt on grpc.aio", "KES encrypt"),
    ("Encrypt on Envoy / KES", "Encrypt on Envoy", "KES encrypt"),
)
_SDK: Final = tuple(
    Comparison(f"SDK on {host}, {CALLERS} callers / KES", f"SDK on {host}, {CALLERS} callers", "KES encrypt")
    for host in ON.values()
)
_BUSY: Final = f", {CALLERS} in flight"


def measure_encrypt(stand: Stand, pace: Pace) -> Findings:
    """64 bytes with AES-256-GCM: few calls in flight, with the SDK among them, and then many, for the throughput."""
    findings = Findings()

    def sdk(host: str) -> Loaded:
        name = f"SDK on {ON[host]}, {CALLERS} callers"
        return through_sdk(stand, stand.host(host), name, key_name("aes"), CALLERS)

    measured = take_turns(available([*_single(stand, Pressure(), ""), *_for_each_host(sdk)]), pace.calls)
    findings.add_rows("Encrypt, 64 bytes, AES-256-GCM; 8 in flight", measured)
    findings.compare(measured, [*(Comparison(*pair) for pair in _PAIRS), *_SDK])
    measured = take_turns(available(_single(stand, Pressure(CALLERS), _BUSY)), pace.calls)
    findings.add_rows(f"Encrypt, 64 bytes, AES-256-GCM; {CALLERS} in flight", measured)
    findings.compare(measured, [Comparison(key + _BUSY, some + _BUSY, other + _BUSY) for key, some, other in _PAIRS])
    key, some, other = "Encrypt on Envoy / on grpc.aio, calls a second", "Encrypt on Envoy", "Encrypt on grpc.aio"
    findings.compare(measured, [Comparison(key, some + _BUSY, other + _BUSY, items_per_s, "higher")])
    return findings


def _single(stand: Stand, pressure: Pressure, suffix: str) -> list[Callable[[], Loaded]]:
    """The echo and Encrypt of each host, and the peers."""

    def echo(host: str) -> Loaded:
        rig = stand.host(host)
        return served(rig, rig.echo, f"echo on {ON[host]}{suffix}", ECHO_REQUEST, pressure)

    def encrypt(host: str) -> Loaded:
        rig = stand.host(host)
        return served(rig, rig.vaultd, f"Encrypt on {ON[host]}{suffix}", ENCRYPT, pressure)

    def openbao() -> Loaded:
        return peer(stand, stand.openbao, f"OpenBao encrypt{suffix}", stand.openbao.encrypt(), pressure)

    def kes() -> Loaded:
        return peer(stand, stand.kes, f"KES encrypt{suffix}", stand.kes.encrypt(), pressure)

    return [*_for_each_host(echo, encrypt), openbao, kes]


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


def _for_each_host(*makers: Callable[[str], Loaded]) -> list[Callable[[], Loaded]]:
    return [partial(make, host) for host in ON for make in makers]
