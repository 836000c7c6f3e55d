"""Spans on their way to a collector: a bounded queue and a thread of its own, so that no collector can hold up a call."""

from __future__ import annotations

import threading
from collections import deque
from typing import TYPE_CHECKING, Final

from opentelemetry.sdk.trace import SpanProcessor, TracerProvider
from opentelemetry.sdk.trace.export import SpanExportResult
from opentelemetry.sdk.trace.sampling import ALWAYS_ON

from vaultd import __version__

if TYPE_CHECKING:
    from collections.abc import Iterator

    from opentelemetry.context import Context
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace import ReadableSpan, Span
    from opentelemetry.sdk.trace.export import SpanExporter
    from opentelemetry.trace import Tracer

MAX_BATCH: Final = 512
INTERVAL_S: Final = 0.25


class SpanQueue(SpanProcessor):
    """Sends ended spans in batches.  A span that finds the queue full is dropped, and counted."""

    def __init__(self, exporter: SpanExporter, max_queued: int = 2_048, interval_s: float = INTERVAL_S) -> None:
        self._exporter = exporter
        self._max_queued = max_queued
        self._interval_s = interval_s
        self._queue: deque[ReadableSpan] = deque()
        self._wake = threading.Event()
        self._closing = False
        self.exported = 0
        self.failed = 0
        self.dropped = 0
        # A daemon: a process that ends without `shutdown` does not wait for a collector.
        self._thread = threading.Thread(target=self._work, name="vaultd-spans", daemon=True)
        self._thread.start()

    def on_start(self, span: Span, parent_context: Context | None = None) -> None:
        """Nothing: a span is looked at when it is over."""

    def on_end(self, span: ReadableSpan) -> None:
        """Queue a span.  Never waits."""
        if self._closing or len(self._queue) >= self._max_queued:
            self.dropped += 1
            return
        self._queue.append(span)
        if len(self._queue) >= MAX_BATCH:
            self._wake.set()

    def _work(self) -> None:
        while not self._closing:
            self._wake.wait(self._interval_s)
            self._wake.clear()
            self._send()
        self._send()

    def _send(self) -> None:
        while self._queue:
            batch = [self._queue.popleft() for _ in range(min(MAX_BATCH, len(self._queue)))]
            try:
                sent = self._exporter.export(batch) is SpanExportResult.SUCCESS
            except Exception:  # a library's fault must not end the thread, and costs these spans
                sent = False
            if sent:
                self.exported += len(batch)
            else:
                self.failed += len(batch)
                if self._closing:
                    self.dropped += len(self._queue)
                    self._queue.clear()

    def shutdown(self) -> None:
        """Send what is queued, as long as the collector takes it, and end.  Within twice the exporter's time limit."""
        if not self._closing:
            self._closing = True
            self._wake.set()
            self._thread.join()
            self._exporter.shutdown()

    def force_flush(self, timeout_millis: int = 30_000) -> bool:
        """Nothing waits for a collector; `shutdown` sends the rest."""
        del timeout_millis
        return not self._queue

    def outcomes(self) -> Iterator[tuple[tuple[str], int]]:
        """Spans by what became of them, for metrics."""
        yield ("exported",), self.exported
        yield ("failed",), self.failed
        yield ("dropped",), self.dropped


def make_tracer(queue: SpanQueue, resource: Resource) -> Tracer:
    """A tracer whose spans all go to the queue: which calls have one is decided before."""
    provider = TracerProvider(ALWAYS_ON, resource, shutdown_on_exit=False)
    provider.add_span_processor(queue)
    return provider.get_tracer("vaultd", __version__)
