"""W3C trace context of a call."""

from __future__ import annotations

import sys


def current_traceparent() -> str | None:
    """That of OpenTelemetry's current span, where the program uses OpenTelemetry; nothing is imported to find out."""
    trace = sys.modules.get("opentelemetry.trace")
    if trace is None:
        return None
    context = trace.get_current_span().get_span_context()
    if not context.is_valid:
        return None
    return f"00-{context.trace_id:032x}-{context.span_id:016x}-{int(context.trace_flags):02x}"


def call_metadata(token: str | None, traceparent: str | None) -> list[tuple[str, str]] | None:
    """Metadata of a call."""
    metadata = []
    if token is not None:
        metadata.append(("authorization", f"Bearer {token}"))
    if traceparent is not None:
        metadata.append(("traceparent", traceparent))
    return metadata or None
