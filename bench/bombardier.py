"""Bombardier, another party's load generator: to check ours against.  https://github.com/codesenberg/bombardier

It keeps calls in flight over HTTP/2 with a client certificate.  It counts every answer of HTTP status 200 as a success, also
one whose trailers say that a gRPC call failed, and has no open loop that counts from when a call was due.
"""

from __future__ import annotations

import json
import resource
import struct
import subprocess
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from bench.clients import LoadFailed
from bench.processes import ROOT, StartFailed
from bench.slices import Slice

if TYPE_CHECKING:
    from pathlib import Path

    from bench.accounting import Meter
    from bench.clients import Endpoint, Request

PROGRAM: Final = ROOT / ".bin" / "bombardier"


@dataclass(frozen=True)
class Bombarded:
    """A contender: a server under its load.  Its latencies are two percentiles, so slices of it have none."""

    name: str
    meter: Meter
    endpoint: Endpoint
    request: Request
    in_flight: int
    scratch: Path

    def run(self, seconds: float) -> Slice:
        """For whole seconds.  Raises StartFailed when it is not there, LoadFailed when a call failed."""
        if not PROGRAM.exists():
            raise StartFailed(f"{PROGRAM.name} is not there: make .bin/{PROGRAM.name}")
        body = self.scratch / "bombardier.body"
        body.write_bytes(struct.pack(">BI", 0, len(self.request.body)) + self.request.body)
        command = [str(PROGRAM), "--http2", "--print=result", "--format=json", "--insecure", "--timeout=30s"]
        command += [f"--connections={self.in_flight}", f"--duration={max(1, round(seconds))}s"]
        command += [
            "--method=POST",
            f"--body-file={body}",
            "-H",
            "content-type: application/grpc",
            "-H",
            "te: trailers",
        ]
        command += [f"--cert={self.endpoint.cert}", f"--key={self.endpoint.key}"]
        command += [f"https://{self.endpoint.address}{self.request.path}"]
        before, own = self.meter.cpu_s(), _children_cpu_s()
        ended = subprocess.run(command, capture_output=True, text=True, check=False)
        server_cpu_s, client_cpu_s = self.meter.cpu_s() - before, _children_cpu_s() - own
        if ended.returncode:
            raise LoadFailed(f"bombardier failed: {(ended.stdout + ended.stderr).strip()[-300:]}")
        result: dict[str, Any] = json.loads(ended.stdout)["result"]
        if result.get("errors") or result["req2xx"] == 0 or any(result[f"req{n}xx"] for n in (1, 3, 4, 5)):
            raise LoadFailed(f"calls failed: {result}")
        return Slice(
            calls=result["req2xx"],
            elapsed_s=result["timeTakenSeconds"],
            server_cpu_s=server_cpu_s,
            client_cpu_s=client_cpu_s,
            peak_mib=self.meter.peak_mib(),
            pss_mib=self.meter.pss_mib(),
            latencies_us=(),
            items=self.request.items,
        )


def _children_cpu_s() -> float:
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime
