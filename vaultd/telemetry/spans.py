"""Spans of the calls that are sampled.  Whoever does a part of a call asks `current()`, which is None for nearly all of them.

What is measured is recorded afterwards, with the times at which it began and ended: no code is wrapped, and what is not sampled
costs one look at a context variable.  No exception, no stack and nothing of a request gets into a span.
"""

from __future__ import annotations

import time
from contextvars import ContextVar
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Mapping

    from opentelemetry.context import Context
    from opentelemetry.trace import Span as OtelSpan
    from opentelemetry.trace import Tracer

_CURRENT: Final[ContextVar[Span | None]] = ContextVar("vaultd_span", default=None)
current = _CURRENT.get
"""The span of the call that this task serves, or None."""


class Span:
    """The span of a sampled call."""

    __slots__ = ("_context", "_tracer", "otel", "trace_id")

    def __init__(self, tracer: Tracer, otel: OtelSpan, context: Context, trace_id: str) -> None:
        """`context` is that of the span's children."""
        self._tracer = tracer
        self.otel = otel
        self._context = context
        self.trace_id = trace_id

    def record(self, name: str, started_s: float, ended_s: float, attributes: Mapping[str, str | int]) -> None:
        """Add a part of the call that is over; times are `time.monotonic()`."""
        offset_ns = time.time_ns() - int(time.monotonic() * 1e9)
        part = self._tracer.start_span(
            name, self._context, attributes=attributes, start_time=offset_ns + int(started_s * 1e9)
        )
        part.end(offset_ns + int(ended_s * 1e9))


def enter(span: Span | None) -> None:
    """Make it the span of what this task does from here on."""
    if span is not None or current() is not None:
        _CURRENT.set(span)


def record_work(span: Span, backend: str, queued_s: float, began_s: float, operations: int) -> None:
    """Add the wait in a backend's queue, and the work that ends now; `began_s` is 0 when it never began."""
    now_s = time.monotonic()
    attributes: dict[str, str | int] = {"vaultd.backend": backend, "vaultd.operations": operations}
    span.record("queue", queued_s, began_s or now_s, attributes)
    if began_s:
        span.record(f"{backend} work", began_s, now_s, attributes)
