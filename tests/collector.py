"""An OpenTelemetry collector for tests: the services of the official protos, which keep what they are sent."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import grpc
from opentelemetry.proto.collector.metrics.v1 import metrics_service_pb2, metrics_service_pb2_grpc
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2, trace_service_pb2_grpc

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from opentelemetry.proto.trace.v1.trace_pb2 import Span


class Collector(trace_service_pb2_grpc.TraceServiceServicer, metrics_service_pb2_grpc.MetricsServiceServicer):
    """Takes in spans and metrics."""

    def __init__(self) -> None:
        self.traces: list[Any] = []
        self.metrics: list[Any] = []
        self.received = b""
        self.port = 0
        self._arrived = asyncio.Event()

    async def Export(self, request: Any, context: Any) -> Any:
        del context
        self.received += request.SerializeToString()
        if isinstance(request, trace_service_pb2.ExportTraceServiceRequest):
            self.traces += request.resource_spans
            answer: Any = trace_service_pb2.ExportTraceServiceResponse()
        else:
            self.metrics += request.resource_metrics
            answer = metrics_service_pb2.ExportMetricsServiceResponse()
        arrived, self._arrived = self._arrived, asyncio.Event()
        arrived.set()
        return answer

    def spans(self) -> list[Span]:
        """Every span that arrived."""
        return [span for each in self.traces for scope in each.scope_spans for span in scope.spans]

    def of_trace(self, trace_id: str) -> list[Span]:
        """The spans of one trace."""
        return [span for span in self.spans() if span.trace_id.hex() == trace_id]

    async def wait(self, seen: Callable[[], Any]) -> Any:
        """Wait until it is there, and return it."""
        async with asyncio.timeout(60):
            while not (found := seen()):
                await self._arrived.wait()
        return found


def attributes(holder: Any) -> dict[str, Any]:
    """Attributes of a span, a resource or a point."""
    return {pair.key: getattr(pair.value, pair.value.WhichOneof("value")) for pair in holder.attributes}


@asynccontextmanager
async def collecting(credentials: grpc.ServerCredentials | None = None) -> AsyncIterator[Collector]:
    """Run a collector on a free port of 127.0.0.1."""
    collector = Collector()
    server = grpc.aio.server()
    trace_service_pb2_grpc.add_TraceServiceServicer_to_server(collector, server)
    metrics_service_pb2_grpc.add_MetricsServiceServicer_to_server(collector, server)
    if credentials is None:
        collector.port = server.add_insecure_port("127.0.0.1:0")
    else:
        collector.port = server.add_secure_port("127.0.0.1:0", credentials)
    await server.start()
    try:
        yield collector
    finally:
        await server.stop(None)
