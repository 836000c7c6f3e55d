"""Metadata of a call: its token, and its W3C trace context."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from vaultd_client.errors import ConfigurationError

if TYPE_CHECKING:
    from opentelemetry.trace import SpanContext


def current_traceparent() -> str | None:
    """That of OpenTelemetry's current span, where the program uses OpenTelemetry; nothing is imported to find out."""
    trace = sys.modules.get("opentelemetry.trace")
    if trace is None:
        return None
    return traceparent_of(trace.get_current_span().get_span_context())


def traceparent_of(context: SpanContext) -> str | None:
    """A span as W3C's `traceparent` has it; None for one that is none."""
    if not context.is_valid:
        return None
    return f"00-{context.trace_id:032x}-{context.span_id:016x}-{int(context.trace_flags):02x}"


def call_metadata(token: str | None, traceparent: str | None) -> list[tuple[str, str]] | None:
    """Metadata of a call.  Raises ConfigurationError for a token that cannot be sent: what gRPC raises would show it."""
    metadata = []
    if token is not None:
        if not (token.isascii() and token.isprintable()) or " " in token or not token:
            raise ConfigurationError(
                "the token is empty, or has characters other than 0x21 to 0x7E: a newline at its end?"
            )
        metadata.append(("authorization", f"Bearer {token}"))
    if traceparent is not None:
        metadata.append(("traceparent", traceparent))
    return metadata or None
