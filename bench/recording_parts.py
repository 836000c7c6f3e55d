"""The parts of recording by themselves, beside what OpenTelemetry's SDK takes for the same.  `python -m bench.recording_parts`.

CPU microseconds of this process for each, best of rounds.
"""

from __future__ import annotations

import time
import timeit
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, Final

from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF

from vaultd.interceptors.call import Call, Peer
from vaultd.interceptors.meter import CallMeter
from vaultd.interceptors.telemetry import TelemetryStep
from vaultd.interceptors.trace import Sampling, TraceStep

if TYPE_CHECKING:
    from collections.abc import Callable

CALLS: Final = 20_000
ROUNDS: Final = 15
UNSAMPLED: Final = ("traceparent", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00")
PLAIN: Final = (("user-agent", "bench"), ("te", "trailers"))
METHOD: Final = "vaultd.v1.CryptoService/Encrypt"
ATTRIBUTES: Final = {"rpc.system.name": "grpc", "rpc.method": METHOD, "rpc.response.status_code": "OK"}


def _cost_us(act: Callable[[], object]) -> float:
    act()
    return min(timeit.repeat(act, timer=time.thread_time, number=CALLS, repeat=ROUNDS)) / CALLS * 1e6


def _entry() -> Any:
    """As much of a call's entry as is looked at, of a call that was served."""
    rule = SimpleNamespace(audited=("name",))
    return SimpleNamespace(
        route=SimpleNamespace(path=f"/{METHOD}", rule=rule, batch=False),
        started=time.monotonic(),
        principal="spiffe://example.org/app",
        bytes_in=100,
        fields={"name": "vaults/default/keys/k"},
        span=None,
        outcome=("OK", "", 100),
    )


def main() -> None:
    """Measure and print."""
    provider: Any = TracerProvider(sampler=ALWAYS_OFF, shutdown_on_exit=False)
    tracer = provider.get_tracer("bench")
    meters = MeterProvider([InMemoryMetricReader()], shutdown_on_exit=False).get_meter("bench")
    histogram, counter = meters.create_histogram("duration"), meters.create_counter("calls")
    meter = CallMeter(time.monotonic)
    entry = _entry()
    step = TelemetryStep(meter, TraceStep(Sampling(), tracer))
    step.ended(entry)
    list(meter.principals())  # the caller gets its label
    peer = Peer("ipv4:127.0.0.1:50000", b"")
    without, with_parent = (
        Call(f"/{METHOD}", peer, metadata, None, None, None)  # type: ignore[arg-type]  # nothing is received or sent
        for metadata in (PLAIN, (*PLAIN, UNSAMPLED))
    )

    def span() -> None:
        tracer.start_span(METHOD).end()

    print("| what | us |\n| --- | ---: |")
    for name, act in (
        ("a call counted, by method, status, vault and caller", lambda: step.ended(entry)),
        ("not sampled, without a trace", lambda: step.begin(without)),
        ("not sampled, with a caller's trace", lambda: step.begin(with_parent)),
        ("the SDK: one histogram", lambda: histogram.record(0.001, ATTRIBUTES)),
        ("the SDK: one counter", lambda: counter.add(1, ATTRIBUTES)),
        ("the SDK: a span that is not sampled", span),
    ):
        print(f"| {name} | {_cost_us(act):.2f} |", flush=True)


if __name__ == "__main__":
    main()
