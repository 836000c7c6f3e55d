"""Metrics through the OpenTelemetry API: observable instruments over what Meters read, for Prometheus and for OTLP.

The API has no observable histogram, and a synchronous one would cost the hot path more than all else of telemetry together
(docs/performance.md).  Histograms are therefore put beside what the SDK collected, in the SDK's data model, where a reader
receives it.
"""

from __future__ import annotations

import asyncio
import time
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final

from opentelemetry.exporter.prometheus import PrometheusMetricReader
from opentelemetry.metrics import Observation
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import (
    AggregationTemporality,
    HistogramDataPoint,
    Metric,
    MetricExportResult,
    MetricReader,
    MetricsData,
    ResourceMetrics,
    ScopeMetrics,
)
from opentelemetry.sdk.metrics.export import Histogram as HistogramData
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from prometheus_client import CollectorRegistry
from prometheus_client.exposition import choose_encoder

from vaultd import __version__
from vaultd.telemetry.cells import Histogram
from vaultd.telemetry.metrics import METRICS, Kind

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from opentelemetry.metrics import CallbackOptions, Meter
    from opentelemetry.sdk.metrics.export import MetricExporter
    from opentelemetry.sdk.resources import Resource

    from vaultd.telemetry.metrics import Meters

SCOPE: Final = InstrumentationScope("vaultd", __version__)


class _Histograms:
    """The histograms of Meters as the SDK would have collected them."""

    def __init__(self, meters: Meters, resource: Resource) -> None:
        self._meters = meters
        self._resource = resource
        self._started_ns = time.time_ns()

    def beside(self, collected: MetricsData) -> MetricsData:
        """What was collected, and the histograms."""
        now_ns = time.time_ns()
        metrics = []
        for name in self._meters.names:
            row = METRICS[name]
            points = [
                self._point(dict(zip(row.labels, labels, strict=True)), cell, now_ns)
                for labels, cell in self._meters.points(name)
                if isinstance(cell, Histogram)
            ]
            if points:
                data = HistogramData(points, AggregationTemporality.CUMULATIVE)
                metrics.append(Metric(name, row.text, row.unit, data))
        own = ScopeMetrics(SCOPE, metrics, "")
        resources = [*collected.resource_metrics]
        if not resources:
            return MetricsData([ResourceMetrics(self._resource, [own], "")])
        first = resources[0]
        return MetricsData([replace(first, scope_metrics=[*first.scope_metrics, own]), *resources[1:]])

    def _point(self, attributes: dict[str, Any], cell: Histogram, now_ns: int) -> HistogramDataPoint:
        counts = list(cell.counts)
        nothing: Any = None  # the data model wants a minimum and a maximum, OTLP and Prometheus do without
        return HistogramDataPoint(
            attributes, self._started_ns, now_ns, sum(counts), cell.total, counts, cell.bounds, nothing, nothing
        )


class _ScrapeReader(PrometheusMetricReader):
    def __init__(self, registry: CollectorRegistry, histograms: _Histograms) -> None:
        super().__init__(scope_info_enabled=False, registry=registry)
        self._histograms = histograms

    def _receive_metrics(self, metrics_data: MetricsData, timeout_millis: float = 10_000, **kwargs: Any) -> None:
        super()._receive_metrics(self._histograms.beside(metrics_data), timeout_millis, **kwargs)


class _PushReader(MetricReader):
    def __init__(self, exporter: MetricExporter, histograms: _Histograms) -> None:
        super().__init__()
        self._exporter = exporter
        self._histograms = histograms
        self.pushed = False

    def _receive_metrics(self, metrics_data: MetricsData, timeout_millis: float = 10_000, **kwargs: Any) -> None:
        del kwargs
        result = self._exporter.export(self._histograms.beside(metrics_data), timeout_millis)
        self.pushed = result is MetricExportResult.SUCCESS

    def shutdown(self, timeout_millis: float = 30_000, **kwargs: Any) -> None:
        del kwargs
        self._exporter.shutdown(timeout_millis)


class MetricsProvider:
    """Renders metrics for a scrape, and pushes them where an exporter is given.

    Sources are read on the event loop; what is made of them is made on a thread.
    """

    def __init__(self, meters: Meters, resource: Resource, exporter: MetricExporter | None = None) -> None:
        self._meters = meters
        self._turn = asyncio.Lock()
        self._registry = CollectorRegistry(auto_describe=False)
        histograms = _Histograms(meters, resource)
        readers: list[MetricReader] = [_ScrapeReader(self._registry, histograms)]
        self._push = _PushReader(exporter, histograms) if exporter is not None else None
        if self._push is not None:
            readers.append(self._push)
        self._provider = MeterProvider(readers, resource, shutdown_on_exit=False)
        _instruments(self._provider.get_meter(SCOPE.name, SCOPE.version), meters)

    async def scrape(self, accept: str) -> tuple[str, bytes]:
        """Content type and text for a scraper that accepts these types; scrapes take turns."""
        encode, content_type = choose_encoder(accept)
        async with self._turn:
            self._meters.read()
            return content_type, await asyncio.to_thread(encode, self._registry)

    async def push(self) -> bool:
        """Send everything to the collector; whether it took it.  Within the exporter's own time limit."""
        if self._push is None:
            return False
        async with self._turn:
            self._meters.read()
            await asyncio.to_thread(self._push.collect)
        return self._push.pushed

    def close(self) -> None:
        """End the exporter."""
        self._provider.shutdown()


def _instruments(meter: Meter, meters: Meters) -> None:
    for name in meters.names:
        row = METRICS[name]
        if row.kind is Kind.COUNTER:
            meter.create_observable_counter(name, [_callback(meters, name)], row.unit, row.text)
        elif row.kind is Kind.GAUGE:
            meter.create_observable_gauge(name, [_callback(meters, name)], row.unit, row.text)


def _callback(meters: Meters, name: str) -> Callable[[CallbackOptions], Iterable[Observation]]:
    labels = METRICS[name].labels

    def observe(options: CallbackOptions) -> Iterable[Observation]:
        del options
        return [
            Observation(value, dict(zip(labels, values, strict=True)))
            for values, value in meters.points(name)
            if not isinstance(value, Histogram)
        ]

    return observe
