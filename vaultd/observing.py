"""Telemetry of one server: what counts, the plain listener, and the way to a collector.  Beside the wiring, which joins it in.

OpenTelemetry's SDK and exporters are imported when they are configured, and after `restrict_transport()`: the exporters use the
gRPC of this process, with its restriction to TLS 1.3.
"""

from __future__ import annotations

import asyncio
import socket
import uuid
from typing import TYPE_CHECKING, Any

import orjson

from vaultd import __version__
from vaultd.config import ConfigError
from vaultd.hosts.plain import TEXT, Page, PlainHost
from vaultd.interceptors.meter import CallMeter
from vaultd.interceptors.telemetry import TelemetryStep
from vaultd.interceptors.trace import Sampling, TraceStep
from vaultd.telemetry.cells import Counts, Histogram
from vaultd.telemetry.recoveries import Recoveries

if TYPE_CHECKING:
    from contextlib import AsyncExitStack

    from opentelemetry.sdk.resources import Resource

    from vaultd.config import OtlpSection, Settings
    from vaultd.engine.clock import Clock
    from vaultd.services.health import HealthBoard
    from vaultd.telemetry.metrics import Meters
    from vaultd.telemetry.provider import MetricsProvider
    from vaultd.telemetry.tracing import SpanQueue

MAX_EVENTS = 200


class Observing:
    """What a server counts, and who is told."""

    def __init__(self, settings: Settings, clock: Clock) -> None:
        """Counts from now on.  Nothing listens and nothing is sent before `start`."""
        self._settings = settings
        traces = settings.traces
        self._traces = TraceStep(Sampling(traces.ratio, traces.follow_parent, traces.max_per_second))
        metrics = settings.metrics
        self.calls = CallMeter(clock.monotonic_s, metrics.max_vaults, metrics.max_principals)
        self.step = TelemetryStep(self.calls, self._traces)
        self.recoveries = Recoveries(clock.monotonic_s)
        self.loop_lag = Histogram()
        self.events = Counts(MAX_EVENTS)
        """What the scheduler did or failed to do."""
        self.incidents = 0
        self.data_losses = 0
        self.started_us = clock.now_us()
        self.spans: SpanQueue | None = None
        self.port = 0
        self._provider: MetricsProvider | None = None

    @property
    def active(self) -> bool:
        """Whether anybody is given metrics."""
        return bool(self._settings.metrics.listen or self._settings.metrics.push_interval_s)

    async def start(self, stack: AsyncExitStack, meters: Meters, board: HealthBoard, *, listens: bool = True) -> None:
        """Open what is configured; the stack closes it.  A worker does not listen: its supervisor does, and asks it."""
        settings = self._settings
        if not (settings.metrics.listen or settings.otlp.endpoint):
            return
        resource = _resource(settings.otlp)
        if settings.otlp.endpoint:
            self._trace(stack, resource)
            if self.spans is not None:
                meters.observe("vaultd.spans", self.spans.outcomes)
        self._provider = await asyncio.to_thread(_make_provider, settings, meters, resource)
        stack.push_async_callback(asyncio.to_thread, self._provider.close)
        if settings.metrics.listen and listens:
            host = PlainHost(_pages(self._provider, board))
            self.port = await host.listen(settings.metrics.listen)
            stack.push_async_callback(host.close)

    async def scrape(self, accept: str) -> tuple[str, bytes]:
        """Content type and text of the metrics, for a scraper that accepts these types; nothing where they are not configured."""
        return await self._provider.scrape(accept) if self._provider is not None else (TEXT, b"")

    async def push(self) -> None:
        """Send the metrics to the collector, if it takes them now: the next push has all of it again."""
        if self._provider is not None:
            await self._provider.push()

    def _trace(self, stack: AsyncExitStack, resource: Resource) -> None:
        from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter

        from vaultd.telemetry.tracing import SpanQueue, make_tracer

        self.spans = SpanQueue(OTLPSpanExporter(**_connection(self._settings.otlp)), self._settings.traces.max_queued)
        self._traces.tracer = make_tracer(self.spans, resource)
        stack.push_async_callback(asyncio.to_thread, self.spans.shutdown)


def check_collector(otlp: OtlpSection) -> None:
    """Raise ConfigError for a file of the collector's that cannot be read."""
    for name, path in (("ca", otlp.ca), ("certificate", otlp.certificate), ("key", otlp.key)):
        try:
            if path is not None:
                path.read_bytes()
        except OSError as error:
            raise ConfigError(f"otlp.{name}: {path} cannot be read") from error


def _make_provider(settings: Settings, meters: Meters, resource: Resource) -> MetricsProvider:
    from vaultd.telemetry.provider import MetricsProvider

    exporter = None
    if settings.metrics.push_interval_s:
        from opentelemetry.exporter.otlp.proto.grpc.metric_exporter import OTLPMetricExporter

        exporter = OTLPMetricExporter(**_connection(settings.otlp))
    return MetricsProvider(meters, resource, exporter)


def _resource(otlp: OtlpSection) -> Resource:
    from opentelemetry.sdk.resources import Resource

    return Resource.create(
        {
            "service.name": "vaultd",
            "service.version": __version__,
            "service.instance.id": str(uuid.uuid4()),
            "host.name": socket.gethostname(),
            **otlp.resource,
        }
    )


def _connection(otlp: OtlpSection) -> dict[str, Any]:
    """What every exporter is made with.  Raises ConfigError for a file that cannot be read."""
    import grpc

    check_collector(otlp)
    insecure = otlp.endpoint.startswith("http:")
    credentials = None
    if not insecure:
        credentials = grpc.ssl_channel_credentials(
            *(path.read_bytes() if path is not None else None for path in (otlp.ca, otlp.key, otlp.certificate))
        )
    return {
        "endpoint": otlp.endpoint,
        "insecure": insecure,
        "credentials": credentials,
        "timeout": otlp.timeout_s,
    }


def _pages(provider: MetricsProvider, board: HealthBoard) -> dict[str, Any]:
    async def metrics(accept: str) -> Page:
        content_type, text = await provider.scrape(accept)
        return Page(200, content_type, text)

    async def alive(accept: str) -> Page:
        del accept
        return Page(200, TEXT, b"ok\n")

    async def ready(accept: str) -> Page:
        del accept
        serving = bool(board.serving(""))
        components = {**board.components(), "draining": board.draining}
        return Page(200 if serving else 503, "application/json", orjson.dumps(components) + b"\n")

    return {"/metrics": metrics, "/healthz": alive, "/readyz": ready}
