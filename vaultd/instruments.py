"""Joins what the server counts with the metrics' names.  Beside the wiring: it knows the parts, and nothing knows it.

A part that comes later needs its row in `vaultd.telemetry.metrics` and its line here.
"""

from __future__ import annotations

from collections import Counter
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final, NamedTuple, Protocol

from vaultd import __version__
from vaultd.engine.census import EXPIRIES, expiry_of
from vaultd.telemetry.metrics import Meters

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from vaultd.backends.base import Lane
    from vaultd.backends.pkcs11.slot import TokenSlot
    from vaultd.telemetry.cells import Histogram
    from vaultd.wiring import Server

    Numbers = Iterable[tuple[tuple[str, ...], float]]


ROTATION_EVENTS: Final = (("key", "rotate", "rotate_failed"), ("secret", "secret_rotated", "rotation_failed"))
"""What rotates, and the scheduler's events that say it was done, or failed."""


def meters_of(server: Server) -> Meters:
    """Every metric of a server, joined with what counts it."""
    meters = Meters()
    _calls(meters, server)
    _queues(meters, server)
    for slot in server.slots:
        _slot(meters, slot)
    _state(meters, server)
    _audit(meters, server)
    return meters


def _calls(meters: Meters, server: Server) -> None:
    meter = server.observing.calls
    meters.observe("rpc.server.call.duration", meter.durations)
    meters.observe_one("vaultd.calls.in_flight", lambda: len(server.in_flight))
    meters.observe_one("vaultd.calls.in_flight.limit", lambda: server.in_flight.cap)
    meters.observe_one("vaultd.streams.open", lambda: len(server.streams))
    meters.observe("vaultd.message.size", meter.payload_bytes)
    meters.observe("vaultd.refusals", meter.refusals.read)
    meters.observe("vaultd.auth.failures", meter.auth_failures)
    meters.observe("vaultd.quota.refusals", meter.quota_refusals)
    meters.observe("vaultd.throttled", meter.throttled)
    meters.observe("vaultd.batch.items", meter.batch_items)
    meters.observe("vaultd.vault.operations", meter.vaults)
    meters.observe("vaultd.principal.calls", meter.principals)


def _queues(meters: Meters, server: Server) -> None:
    def depths() -> Numbers:
        yield from _by_lane("software", server.engine.software.pool.depths())
        for slot in server.slots:
            yield from _by_lane(_backend(slot), slot.backlog.depths())

    def waits() -> Iterator[tuple[tuple[str, ...], Histogram]]:
        yield from _by_lane("software", server.engine.software.pool.waits)
        for slot in server.slots:
            yield from _by_lane(_backend(slot), slot.backlog.waits)

    meters.observe("vaultd.queue.depth", depths)
    meters.observe("vaultd.queue.wait", waits)
    meters.observe("vaultd.store.duration", server.engine.store.latency.read)
    meters.observe_one("vaultd.store.revision", lambda: server.engine.feed.revision)
    meters.observe("vaultd.event_loop.lag", lambda: [((), server.observing.loop_lag)])
    catalog = server.engine.catalog
    meters.observe("vaultd.cache.requests", lambda: _hits("keys", catalog.lookups, catalog.misses))
    meters.observe("vaultd.cache.entries", lambda: [(("keys",), len(catalog))])
    held = server.engine.secret_catalog
    meters.observe("vaultd.cache.requests", lambda: _hits("secrets", held.lookups, held.misses))
    meters.observe("vaultd.cache.entries", lambda: [(("secrets",), len(held))])


def _hits(cache: str, lookups: int, misses: int) -> Numbers:
    return [((cache, "hit"), lookups - misses), ((cache, "miss"), misses)]


def _backend(slot: TokenSlot) -> str:
    return f"hsm:{slot.settings.name}"


def _by_lane(backend: str, values: Mapping[Lane, Any]) -> Iterator[tuple[tuple[str, ...], Any]]:
    return (((backend, lane.name.lower()), value) for lane, value in values.items())


def _slot(meters: Meters, slot: TokenSlot) -> None:
    label = (slot.settings.name,)
    meters.observe("vaultd.hsm.serving", lambda: [(label, float(slot.serving))])
    meters.observe("vaultd.hsm.sessions", lambda: [(label, slot.sessions)])
    meters.observe("vaultd.hsm.logins", lambda: [(label, slot.logins)])
    meters.observe("vaultd.hsm.recoveries", lambda: [(label, slot.recoveries)])


def _state(meters: Meters, server: Server) -> None:
    board, observing = server.board, server.observing

    def components() -> Numbers:
        return [((name,), float(serving)) for name, serving in board.components().items()]

    def certificates() -> Numbers:
        return [((name,), ends_s) for name, ends_s in server.certificate_ends().items()]

    def lists() -> Numbers:
        bundles = [bundle for bundle in server.bundles if bundle.revocations is not None]
        return [((bundle.name,), bundle.revocations.fresh_until_us / 1e6) for bundle in bundles if bundle.revocations]

    def expiring() -> Numbers:
        yield from server.engine.census.resources()
        now_us = server.engine.clock.now_us()
        ends = Counter(expiry_of(int(end_s * 1e6), now_us) for end_s in server.certificate_ends().values())
        for expiry in EXPIRIES:
            yield ("certificate", expiry), ends[expiry]

    def rotations() -> Numbers:
        counts = dict(observing.events.read())
        for kind, done, failed in ROTATION_EVENTS:
            yield (kind, "done"), counts.get((done,), 0)
            yield (kind, "failed"), counts.get((failed,), 0)

    meters.observe("vaultd.component.serving", components)
    meters.observe_one("vaultd.serving", lambda: float(bool(board.serving(""))))
    meters.observe("vaultd.recovery.duration", observing.recoveries.durations.read)
    started_s = observing.started_us / 1e6
    meters.observe_one("vaultd.start.time", lambda: started_s)
    meters.observe("vaultd.build.info", lambda: [((__version__,), 1)])
    meters.observe("vaultd.certificate.not_after", certificates)
    meters.observe("vaultd.crl.next_update", lists)
    meters.observe("vaultd.scheduler.events", observing.events.read)
    meters.observe("vaultd.rotations", rotations)
    meters.observe("vaultd.rotations.due", server.engine.census.rotations_due)
    meters.observe("vaultd.resources", expiring)
    meters.observe_one("vaultd.data_losses", lambda: observing.data_losses)
    meters.observe_one("vaultd.incidents", lambda: observing.incidents)


class SinkNumbers(Protocol):
    """What is known of an audit sink; counts are since the process began."""

    @property
    def name(self) -> str: ...
    @property
    def expected(self) -> int: ...
    @property
    def delivered(self) -> int: ...
    @property
    def rejected(self) -> int: ...
    @property
    def missing(self) -> int: ...
    @property
    def failures(self) -> Mapping[str, int]: ...
    @property
    def lag_records(self) -> int: ...
    @property
    def lag_s(self) -> float: ...


class FileNumbers(NamedTuple):
    """The audit log's own files as a sink.  A record that could not be written was refused, with its call."""

    expected: int
    delivered: int
    name: str = "file"
    rejected: int = 0
    missing: int = 0
    failures: Mapping[str, int] = MappingProxyType({})
    lag_records: int = 0
    lag_s: float = 0.0


def _audit(meters: Meters, server: Server) -> None:
    log, refusals = server.audit_log, server.observing.calls.refusals

    def sinks() -> Iterator[SinkNumbers]:
        refused = sum(int(count) for _, count in refusals.where(1, "AUDIT_UNAVAILABLE"))
        yield FileNumbers(log.sequence + refused, log.sequence)
        yield from server.sink_figures()

    meters.observe_one("vaultd.audit.records", lambda: log.sequence)
    meters.observe("vaultd.audit.sink.expected", lambda: [((sink.name,), sink.expected) for sink in sinks()])
    meters.observe("vaultd.audit.sink.delivered", lambda: [((sink.name,), sink.delivered) for sink in sinks()])
    meters.observe("vaultd.audit.sink.backlog", lambda: [((sink.name,), sink.lag_records) for sink in sinks()])
    meters.observe("vaultd.audit.sink.lag", lambda: [((sink.name,), sink.lag_s) for sink in sinks()])
    meters.observe(
        "vaultd.audit.sink.lost",
        lambda: [
            ((sink.name, cause), count)
            for sink in sinks()
            for cause, count in (("rejected", sink.rejected), ("missing", sink.missing))
        ],
    )
    meters.observe(
        "vaultd.audit.sink.failures",
        lambda: [((sink.name, kind), count) for sink in sinks() for kind, count in sink.failures.items()],
    )
