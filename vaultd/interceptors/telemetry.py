"""The step that looks on: the span and the metrics of a call.  It decides nothing and cannot fail a call."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

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
        self.begin: Callable[[Call], tuple[str, Span | None]] = traces.begin
        """The trace id for the record, and the span of a call that is sampled."""

    def ended(self, entry: Entry) -> None:
        """Count a call by its outcome, and end its span."""
        self.meter.ended(entry)
        if entry.span is not None:
            code, reason, _ = entry.outcome
            self._traces.end(entry.span, entry, code, reason)
