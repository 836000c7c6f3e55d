"""What the cryptography alone costs: in process, and by `openssl speed` on one core and on all."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from bench.contenders import Summary
from bench.figures import Findings
from bench.floors import measure_floors
from bench.openssl import ALGORITHMS, OpensslFailed, bytes_per_s, cores, signatures_per_s, speed

if TYPE_CHECKING:
    from bench.pace import Pace
    from bench.stand import Stand

IN_PROCESS: Final = "in process, cryptography alone"
_BYTES: Final = 64
_CIPHER: Final = ("-bytes", str(_BYTES), "-evp", "aes-256-gcm")


def measure(stand: Stand, pace: Pace) -> Findings:
    """CPU of one operation."""
    del stand
    findings = Findings()
    findings.rows[IN_PROCESS] = [_row(name, us) for name, us in measure_floors(pace.floors_s).items()]
    try:
        rows = []
        for processes in sorted({1, cores()}):
            many = "openssl speed on all cores" if processes > 1 else "openssl speed"
            rates = {f"AES-256-GCM {_BYTES} B, one key": sum(map(bytes_per_s, speed(1, processes, _CIPHER))) / _BYTES}
            rates |= {
                name: sum(map(signatures_per_s, speed(1, processes, [algorithm])))
                for name, algorithm in ALGORITHMS.items()
            }
            rows += [_row(f"{many}: {name}", processes / per_s * 1e6, per_s) for name, per_s in rates.items()]
        findings.rows["openssl speed"] = rows
    except OpensslFailed as error:
        findings.notes.append(str(error))
    return findings


def _row(name: str, us: float, per_s: float | None = None) -> Summary:
    return Summary(name, items=1, slices=1, calls=1, items_per_s=per_s or 1e6 / us, cpu_us=us, item_cpu_us=us)
