"""Request ids, the trace that a caller says the call belongs to (W3C Trace Context), and the span of a call that is sampled."""

from __future__ import annotations

import itertools
import os
import re
import time
from random import random
from typing import TYPE_CHECKING, Final, NamedTuple

from vaultd.telemetry import spans

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from opentelemetry.trace import Tracer

    from vaultd.interceptors.audit import Entry
    from vaultd.interceptors.call import Call

REQUEST_ID_KEY: Final = "vaultd-request-id"
_traceparent: Final = re.compile(r"([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f])([0-9a-f])").fullmatch
_INVALID: Final = frozenset({"ff", "0" * 32, "0" * 16})
"""A version, a trace id and a span id that are none."""
_SAMPLED: Final = frozenset("13579bdf")
"""Last digits of flags whose lowest bit is set."""
_FAULTS: Final = frozenset({"UNKNOWN", "DEADLINE_EXCEEDED", "UNIMPLEMENTED", "INTERNAL", "UNAVAILABLE", "DATA_LOSS"})
"""Statuses that are the server's, by the semantic conventions: the others leave a span's status unset."""


class RequestIds:
    """Ids that no other process and no other call has: random per process, counted per call."""

    def __init__(self) -> None:
        self._prefix = os.urandom(8).hex()
        self._numbers = itertools.count(1)

    def fresh(self) -> str:
        return f"{self._prefix}-{next(self._numbers):x}"


class Parent(NamedTuple):
    """What `traceparent` says."""

    trace_id: str
    span_id: str
    sampled: bool


def parent_of(metadata: Sequence[tuple[str, str | bytes]]) -> Parent | None:
    """The caller's span, or None when it names none or the header is malformed."""
    for key, value in metadata:
        if key == "traceparent" and isinstance(value, str):
            match = _traceparent(value)
            if match is None:
                return None
            version, trace_id, span_id, _, flags = match.groups()
            if version in _INVALID or trace_id in _INVALID or span_id in _INVALID:
                return None
            return Parent(trace_id, span_id, flags in _SAMPLED)
    return None


class Sampling(NamedTuple):
    """Which calls are traced: a share of those that come without a trace, and what their callers sampled.

    `max_per_second` bounds both, since anybody who may call can say that a call is sampled.
    """

    ratio: float = 0.0
    follow_parent: bool = True
    max_per_second: int = 100


class TraceStep:
    """Begins the span of a call, and ends it with the outcome.  Without a tracer there are none.

    The decision is made before OpenTelemetry is asked: a span that is started and dropped costs 8 us, and this less than one.
    `tracestate` is dropped, since nothing of a caller's own text may get into a span.
    """

    def __init__(
        self,
        sampling: Sampling | None = None,
        tracer: Tracer | None = None,
        monotonic_s: Callable[[], float] = time.monotonic,
    ) -> None:
        self.tracer = tracer
        """May be set later: from then on there are spans."""
        self._sampling = sampling or Sampling()
        self._ratio = self._sampling.ratio
        self._monotonic_s = monotonic_s
        self._tokens = float(self._sampling.max_per_second)
        self._refilled_s = monotonic_s()

    def begin(self, call: Call) -> tuple[str, spans.Span | None]:
        """The trace id for the record, empty when there is none, and the span, None when the call is not sampled."""
        parent = parent_of(call.metadata) if call.metadata else None
        if self.tracer is not None:
            if parent is not None and self._sampling.follow_parent:
                sampled = parent.sampled
            else:
                sampled = random() < self._ratio  # noqa: S311  # chooses calls to look at, and no secret
            if sampled and self._spend():
                span = _start(self.tracer, parent)
                spans.enter(span)
                return span.trace_id, span
            if spans.current() is not None:
                spans.enter(None)
        return ("" if parent is None else parent.trace_id), None

    def _spend(self) -> bool:
        now_s = self._monotonic_s()
        most = self._sampling.max_per_second
        self._tokens = min(most, self._tokens + (now_s - self._refilled_s) * most)
        self._refilled_s = now_s
        if self._tokens < 1:
            return False
        self._tokens -= 1
        return True

    @staticmethod
    def end(span: spans.Span, entry: Entry, code: str, reason: str) -> None:
        """End the span of a call."""
        from opentelemetry.trace import Status, StatusCode

        method = entry.route.path.removeprefix("/") if entry.route is not None else "_OTHER"
        otel = span.otel
        otel.update_name(method if entry.route is not None else "grpc")
        otel.set_attributes(
            {
                "rpc.system.name": "grpc",
                "rpc.method": method,
                "rpc.response.status_code": code,
                "vaultd.request_id": entry.request_id,
            }
        )
        if reason:
            otel.set_attribute("vaultd.reason", reason)
        if code in _FAULTS:
            otel.set_attribute("error.type", code)
            otel.set_status(Status(StatusCode.ERROR))
        otel.end()


def _start(tracer: Tracer, parent: Parent | None) -> spans.Span:
    # Here, since a server without traces does not need it.
    from opentelemetry.context import Context
    from opentelemetry.trace import NonRecordingSpan, SpanContext, SpanKind, TraceFlags, set_span_in_context

    above = Context()
    if parent is not None:
        remote = SpanContext(int(parent.trace_id, 16), int(parent.span_id, 16), True, TraceFlags(TraceFlags.SAMPLED))
        above = set_span_in_context(NonRecordingSpan(remote), above)
    otel = tracer.start_span("grpc", above, SpanKind.SERVER)
    return spans.Span(tracer, otel, set_span_in_context(otel, above), f"{otel.get_span_context().trace_id:032x}")
