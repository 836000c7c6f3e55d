"""The step that looks on: the span and the metrics of a call.  It decides nothing and cannot fail a call."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from vaultd.interceptors.audit import Entry
    from vaultd.interceptors.call import Call
    from vaultd.interceptors.meter import CallMeter
    from vaultd.interceptors.trace import TraceStep
    from vaultd.telemetry.spans import Span


class TelemetryStep:
    """Told when a call begins, and once when it ends."""

    def __init__(self, meter: CallMeter, traces: TraceStep) -> None:
        self.meter = meter
        self._traces = traces

    def begin(self, call: Call) -> tuple[str, Span | None]:
        """The trace id for the record, and the span of a call that is sampled."""
        return self._traces.begin(call)

    def ended(self, entry: Entry) -> None:
        """Count a call by its outcome, and end its span."""
        code, reason, bytes_out = entry.outcome
        self.meter.ended(entry, code, reason, bytes_out)
        if entry.span is not None:
            self._traces.end(entry.span, entry, code, reason)
