"""CryptoStream beside unary Encrypt, slice by slice in one run.  `python -m bench.stream [ROUNDS]`.

Server CPU per operation, mTLS, everything on, as many operations in flight on both sides.  The stream's operations go out one a
message, and then together: what became free at once in one message, as a client does that coalesces.
"""

from __future__ import annotations

import json
import statistics
import sys
from typing import Any, Final

from bench.cases import DATA, KEYS, encrypt_with, key_name
from bench.rig import Rig, read_answer

SLICE_S: Final = 1.0
IN_FLIGHT: Final = (8, 64)
CONNECTIONS: Final = 8
KEY: Final = "aes"


def main(rounds: int) -> None:
    """Measure and print a table."""
    with Rig(None, 1, CONNECTIONS) as rig:
        rig.api.create_keys({KEY: KEYS[KEY]})
        body = encrypt_with(KEY)(None).SerializeToString()
        client = rig.start("stream-client", ["bench.stream_client", str(rig.vault / "tls")])
        client.wait_ready()

        def stream(seconds: float, in_flight: int, together: bool) -> float:
            order: dict[str, Any] = {
                "address": rig.vaultd.address,
                "seconds": seconds,
                "streams": min(CONNECTIONS, in_flight),
                "in_flight": in_flight,
                "together": together,
                "name": key_name(KEY),
                "bytes": len(DATA),
            }
            before = rig.vaultd.meter.cpu_s()
            client.stdin.write(json.dumps(order).encode() + b"\n")
            client.stdin.flush()
            answer = read_answer(client)
            if answer["failed"] or not answer["operations"]:
                raise SystemExit(f"{answer['failed']} operations failed")
            return (rig.vaultd.meter.cpu_s() - before) / answer["operations"] * 1e6

        def unary(seconds: float, in_flight: int) -> float:
            return rig.load(rig.vaultd, "/vaultd.v1.CryptoService/Encrypt", body, seconds, in_flight).cpu_us

        print("| in flight | unary Encrypt | stream, one a message | ratio | stream, together | ratio |")
        print("| --- | --- | --- | --- | --- | --- |")
        for in_flight in IN_FLIGHT:
            for warm_up in (unary, lambda s, n: stream(s, n, together=False)):
                warm_up(0.3, in_flight)
            rows = [
                (unary(SLICE_S, in_flight), stream(SLICE_S, in_flight, False), stream(SLICE_S, in_flight, True))
                for _ in range(rounds)
            ]
            single, alone, together = (statistics.median(column) for column in zip(*rows, strict=True))
            ratios = [statistics.median(row[at] / row[0] for row in rows) for at in (1, 2)]
            print(
                f"| {in_flight} | {single:.0f} us | {alone:.0f} us | {ratios[0]:.2f} | {together:.0f} us | {ratios[1]:.2f} |"
            )


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 5)
