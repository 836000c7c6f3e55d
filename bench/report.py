"""The tables of `python -m bench cases`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from bench.machine import machine_line

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from bench.measure import Row
    from bench.token import TokenRow

_HEADER = (
    "case",
    "in flight",
    "calls/s",
    "items/s",
    "p50 ms",
    "p95 ms",
    "p99 ms",
    "p99.9 ms",
    "server CPU us/call",
    "± %",
    "us/item",
    "x echo",
    "busy %",
    "peak MiB",
)
_TOKEN_HEADER = (
    "case",
    "in flight",
    "items/s",
    "loop ops/s",
    "x loop",
    "±",
    "p50 ms",
    "p99 ms",
    "CPU us/item",
    "loop CPU us/op",
    "busy %",
)


def to_markdown(machine: Mapping[str, Any], rows: Sequence[Row], floors: Mapping[str, float]) -> str:
    """The cases beside the echo."""
    return "\n".join(
        [
            machine_line(machine),
            "",
            _line(_HEADER),
            _line(["---", *["---:"] * (len(_HEADER) - 1)]),
            *(_line(_cells(row)) for row in rows),
            "",
            "CPU is the server process's own; x echo compares it with the echo's just before and after.  "
            "Closed loop: rates and latencies include the client on the same cores.",
            "",
            _line(("in process, cryptography alone", "us")),
            _line(("---", "---:")),
            *(_line((name, f"{cpu_us:.1f}")) for name, cpu_us in floors.items()),
        ]
    )


def token_to_markdown(machine: Mapping[str, Any], rows: Sequence[TokenRow]) -> str:
    """The cases beside the bare loop on the token."""
    return "\n".join(
        [
            f"{machine_line(machine)}; SoftHSM {machine['softhsm']}, python-pkcs11 {machine['python-pkcs11']}",
            "",
            _line(_TOKEN_HEADER),
            _line(["---", *["---:"] * (len(_TOKEN_HEADER) - 1)]),
            *(_line(_token_cells(row)) for row in rows),
            "",
            "x loop: operations a second through vaultd, to those of one thread on one session of the same token, just "
            "before and after.  CPU is the server's with its worker; the client's, on the same cores, comes on top.",
        ]
    )


def _line(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cells) + " |"


def _cells(row: Row) -> list[str]:
    return [
        row.name,
        str(row.in_flight),
        f"{row.calls_per_s:,.0f}",
        f"{row.items_per_s:,.0f}",
        _ms(row.p50_ms),
        _ms(row.p95_ms),
        _ms(row.p99_ms),
        _ms(row.p999_ms),
        f"{row.cpu_us_per_call:,.0f}",
        f"{row.cpu_spread * 100:.0f}",
        f"{row.cpu_us_per_item:,.1f}",
        f"{row.to_echo:.2f}",
        f"{row.server_busy * 100:.0f}",
        f"{row.peak_mib:.0f}",
    ]


def _token_cells(row: TokenRow) -> list[str]:
    return [
        row.name,
        str(row.in_flight),
        f"{row.items_per_s:,.0f}",
        f"{row.loop_per_s:,.0f}",
        f"{row.to_loop:.2f}",
        f"{row.to_loop_spread:.2f}",
        _ms(row.p50_ms),
        _ms(row.p99_ms),
        f"{row.cpu_us_per_item:,.1f}",
        f"{row.loop_cpu_us:,.1f}",
        f"{row.busy * 100:.0f}",
    ]


def _ms(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}"
