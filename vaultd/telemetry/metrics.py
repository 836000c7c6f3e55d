"""Every metric there is, and what reads each.

A row of METRICS is all that is known of a metric; docs/metrics.md is made from it.  `Meters.observe` joins a row and its
source, once, beside the wiring; a source is a function that returns (label values, number or Histogram) pairs.
"""

from __future__ import annotations

from enum import Enum
from typing import TYPE_CHECKING, Final, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from vaultd.telemetry.cells import Histogram

    Point = tuple[tuple[str, ...], float | Histogram]
    Source = Callable[[], Iterable[Point]]


class Kind(Enum):
    """What can be done with a metric's numbers."""

    COUNTER = "counter"
    GAUGE = "gauge"
    HISTOGRAM = "histogram"


class Metric(NamedTuple):
    """One metric: OpenTelemetry's name, its UCUM unit, what it says, and its labels."""

    name: str
    kind: Kind
    unit: str
    text: str
    labels: tuple[str, ...] = ()
    whole: bool = False
    """Whether it is of the store: every worker on it says the same."""

    @property
    def prometheus(self) -> str:
        """The name that Prometheus sees; of a histogram without `_bucket`, `_sum` and `_count`."""
        name = self.name.replace(".", "_")
        unit = {"s": "seconds", "By": "bytes"}.get(self.unit, "")
        if unit and not name.endswith(f"_{unit}"):
            name = f"{name}_{unit}"
        return f"{name}_total" if self.kind is Kind.COUNTER else name

    @property
    def prometheus_labels(self) -> tuple[str, ...]:
        """The labels as Prometheus sees them."""
        return tuple(label.replace(".", "_") for label in self.labels)


_C, _G, _H = Kind.COUNTER, Kind.GAUGE, Kind.HISTOGRAM
_RPC = ("rpc.system.name", "rpc.method", "rpc.response.status_code")

METRICS: Final = {
    metric.name: metric
    for metric in (
        # Calls
        Metric("rpc.server.call.duration", _H, "s", "Calls, from the host's first look to the recorded outcome", _RPC),
        Metric("vaultd.calls.in_flight", _G, "{call}", "Unary calls that are being served", ()),
        Metric("vaultd.calls.in_flight.limit", _G, "{call}", "The cap of one principal now; it falls under overload"),
        Metric("vaultd.streams.open", _G, "{stream}", "Streams that are open"),
        Metric("vaultd.message.size", _C, "By", "Bytes of messages of authenticated callers", ("direction",)),
        Metric("vaultd.refusals", _C, "{call}", "Refused calls by status and stable reason", ("code", "reason")),
        Metric("vaultd.auth.failures", _C, "{call}", "Calls whose caller was not authenticated", ("reason",)),
        Metric("vaultd.quota.refusals", _C, "{call}", "Calls that a quota refused", ("reason",)),
        Metric("vaultd.throttled", _C, "{call}", "Calls refused because too much was asked at once", ("reason",)),
        Metric("vaultd.batch.items", _C, "{item}", "Items of batches", ("outcome",)),
        Metric(
            "vaultd.vault.operations", _C, "{operation}", "Calls and items of batches by vault", ("vault", "outcome")
        ),
        Metric("vaultd.principal.calls", _C, "{call}", "Calls of the busiest principals", ("principal", "outcome")),
        # What serves them
        Metric("vaultd.queue.depth", _G, "{operation}", "Operations that wait for a worker", ("backend", "lane")),
        Metric("vaultd.queue.wait", _H, "s", "How long operations waited for a worker", ("backend", "lane")),
        Metric("vaultd.hsm.serving", _G, "1", "1 while the slot's token answers", ("slot",)),
        Metric("vaultd.hsm.sessions", _G, "{session}", "Sessions that a slot's worker uses", ("slot",)),
        Metric("vaultd.hsm.logins", _C, "{login}", "Logins to a slot's token", ("slot",)),
        Metric("vaultd.hsm.recoveries", _C, "{recovery}", "Workers of a slot that were replaced", ("slot",)),
        Metric("vaultd.cache.requests", _C, "{lookup}", "Look-ups of what is kept in memory", ("cache", "outcome")),
        Metric("vaultd.cache.entries", _G, "{entry}", "What is kept in memory", ("cache",)),
        Metric("vaultd.store.duration", _H, "s", "Work of the store, with its wait for a turn", ("operation",)),
        Metric("vaultd.store.revision", _G, "{revision}", "The revision that this process has taken in"),
        Metric("vaultd.event_loop.lag", _H, "s", "How late the event loop came to a timer, twenty times a second"),
        # The state of things
        Metric("vaultd.component.serving", _G, "1", "1 while a component of health serves", ("component",)),
        Metric("vaultd.serving", _G, "1", "1 while the server as a whole serves"),
        Metric("vaultd.recovery.duration", _H, "s", "How long a component was away, once it is back", ("component",)),
        Metric("vaultd.start.time", _G, "s", "When the server started, in seconds since 1970"),
        Metric("vaultd.build.info", _G, "1", "1, with the version", ("version",)),
        Metric("vaultd.certificate.not_after", _G, "s", "When a certificate ends, since 1970", ("certificate",)),
        Metric("vaultd.crl.next_update", _G, "s", "When a revocation list goes stale, since 1970", ("trust_bundle",)),
        Metric(
            "vaultd.resources",
            _G,
            "{resource}",
            "Keys, secret versions, certificates by expiry: `expired`, within `1d`, `7d`, `30d`, `90d`, `later`, `never`",
            ("type", "expires"),
            whole=True,
        ),
        Metric("vaultd.rotations.due", _G, "{rotation}", "Rotations that are due and not done", ("type",), whole=True),
        Metric("vaultd.rotations", _C, "{rotation}", "Rotations that came due, by outcome", ("type", "outcome")),
        Metric("vaultd.scheduler.events", _C, "{event}", "What the scheduler did or failed to do", ("event",)),
        # Audit
        Metric("vaultd.audit.records", _C, "{record}", "Records of the audit log: what every sink should have"),
        Metric("vaultd.audit.sink.expected", _C, "{record}", "Records that a sink should have by now", ("sink",)),
        Metric("vaultd.audit.sink.delivered", _C, "{record}", "Records that a sink has acknowledged", ("sink",)),
        Metric("vaultd.audit.sink.lost", _C, "{record}", "Records that a sink will never have", ("sink", "cause")),
        Metric("vaultd.audit.sink.failures", _C, "{attempt}", "Failed attempts by kind", ("sink", "kind")),
        Metric("vaultd.audit.sink.backlog", _G, "{record}", "Records that a sink has not acknowledged", ("sink",)),
        Metric("vaultd.audit.sink.lag", _G, "s", "Age of the oldest record that a sink does not have", ("sink",)),
        # Telemetry itself
        Metric("vaultd.spans", _C, "{span}", "Spans by what became of them", ("outcome",)),
        Metric("vaultd.data_losses", _C, "{refusal}", "Uses of stored data that failed its integrity check"),
        Metric("vaultd.incidents", _C, "{incident}", "INTERNAL errors: faults of this program"),
    )
}


class Meters:
    """Joins metrics with their sources, and keeps what was read last."""

    def __init__(self) -> None:
        self._sources: dict[str, list[Source]] = {}
        self._points: dict[str, list[Point]] = {}

    def observe(self, name: str, source: Source) -> None:
        """Read a metric from here, too.  Raises KeyError for a name that has no row in METRICS."""
        self._sources.setdefault(METRICS[name].name, []).append(source)

    def observe_one(self, name: str, read: Callable[[], float]) -> None:
        """Read a metric without labels."""
        self.observe(name, lambda: [((), read())])

    @property
    def names(self) -> list[str]:
        """Metrics that have a source, in the table's order."""
        return [name for name in METRICS if name in self._sources]

    def read(self) -> None:
        """Read every source.  Called on the event loop, where cells are written, so that no source needs a lock."""
        self._points = {
            name: [point for source in sources for point in source()] for name, sources in self._sources.items()
        }

    def points(self, name: str) -> list[Point]:
        """What the last `read` found; safe on any thread, but for cells of histograms, which move on."""
        return self._points.get(name, [])
