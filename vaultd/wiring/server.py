"""A server: engine, chain, host, and the tasks beside them."""

from __future__ import annotations

import asyncio
import gc
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Final

import structlog

from vaultd.audit.folding import RefusalFolder
from vaultd.audit.log import AuditLog
from vaultd.audit.shipping.shipper import Shipper
from vaultd.engine.audit_witness import AuditWitness
from vaultd.engine.clock import SystemClock
from vaultd.engine.neighbours import ALONE
from vaultd.engine.overload import PROBE_S, InFlight, LoadShedder
from vaultd.engine.refusals import Refusal, RefusalLog
from vaultd.engine.scheduler import PRINCIPAL as SCHEDULER
from vaultd.engine.seal import SealState
from vaultd.errors import DataLoss, Unavailable, VaultdError
from vaultd.instruments import meters_of
from vaultd.interceptors.approvals import ApprovalStep
from vaultd.interceptors.audit import AuditStep
from vaultd.interceptors.chain import Chain, ChainLimits
from vaultd.interceptors.grants import GrantStep
from vaultd.interceptors.identity import Identity
from vaultd.interceptors.policy import PolicyStep
from vaultd.interceptors.rules import RULES
from vaultd.interceptors.throttle import Throttle, quota_methods
from vaultd.issuers import TokenIssuers
from vaultd.observing import Observing
from vaultd.services.health import HealthBoard
from vaultd.sinks import make_workers, sinks_every_call_needs, sinks_mutations_need
from vaultd.trust import TrustFiles
from vaultd.wiring.engine import build_engine
from vaultd.wiring.hosts import make_host
from vaultd.wiring.services import make_routes
from vaultd.wiring.sources import make_slot, open_root_key, open_store
from vaultd.wiring.tls import TlsFiles
from vaultd.workers.election import Election

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Sequence

    from vaultd.config import Settings
    from vaultd.engine.clock import Clock
    from vaultd.engine.shared_buckets import SharedCounts
    from vaultd.instruments import SinkNumbers
    from vaultd.interceptors.certificates import TrustBundle
    from vaultd.wiring.hosts import Host
    from vaultd.workers.siblings import Siblings


AUDIT_CHECK_S: Final = 0.5
AUDIT_UPKEEP_S: Final = 30.0
FILES_CHECK_S: Final = 0.5
STREAMS_CHECK_S: Final = 0.4
GC_OBJECTS: Final = 10_000
"""Objects more than there were, until the collector looks for cycles among them."""
"""How often open streams are looked at again: what ended the caller's right to one ends it within a second."""
HEALTH_NOTICE_S: Final = 0.1
CENSUS_CHECK_S: Final = 1.0

_log = structlog.get_logger("vaultd")


async def refusal_of(siblings: Siblings, id: str) -> Refusal | None:
    """What another worker remembers of a refused call."""
    found = await siblings.refusal(id)
    return Refusal(**{**found, "resources": tuple(found["resources"])}) if found else None


class Server:
    """A running vaultd: engine, chain, host, and the tasks beside them."""

    def __init__(
        self,
        settings: Settings,
        clock: Clock | None = None,
        *,
        accept_restore: bool = False,
        siblings: Siblings | None = None,
        counts: SharedCounts | None = None,
    ) -> None:
        """`accept_restore`: serve a store that was put back from the past, this once.

        Of a worker: `siblings` are the others of this server, `counts` the quotas that they count together.
        """
        self._settings = settings
        self._siblings = siblings
        self._election = Election(Path(f"{settings.store.path}.scheduler")) if siblings is not None else None
        self._clock = clock or SystemClock()
        self.observing = Observing(settings, self._clock)
        audit = settings.audit
        self._audit_log = AuditLog(
            audit.directory,
            now=self._clock.now_us,
            max_segment_bytes=audit.segment_bytes,
            max_segment_age_s=audit.segment_age_s,
            min_free_bytes=audit.min_free_bytes,
            on_proved=self._tell_audit,
        )
        self.shipper = Shipper(sinks_mutations_need(audit.sinks), sinks_every_call_needs(audit.sinks))
        self._audit = AuditStep(
            self._audit_log,
            RefusalFolder(),
            self._clock,
            self.shipper,
            lambda: self.engine.ledger.revision,
            frozenset(audit.sync),
            lambda value: self.witness.correlated(value),
            records_items=audit.batch_items,
        )
        self._tls = TlsFiles(settings)
        self._trust = TrustFiles(settings.trust_bundles, self._clock, self._on_crl)
        self._stopping = asyncio.Event()
        self._reload_policy = asyncio.Event()
        self.board = HealthBoard(
            ["vaultd.v1.CryptoService", "vaultd.v1.KeysService", "vaultd.v1.SecretsService", "vaultd.v1.AdminService"],
            [
                *(f"hsm:{section.name}" for section in settings.hsm),
                *(f"issuer:{section.id}" for section in settings.jwt.issuers),
                *(f"audit:{section.name}" for section in settings.audit.sinks),
            ],
            [
                *(f"crl:{section.name}" for section in settings.trust_bundles if section.crl is not None),
                *(f"audit:{name}" for name in sinks_every_call_needs(settings.audit.sinks)),
            ],
            self.observing.recoveries.note,
        )
        self.slots = [make_slot(section, self._on_slot, siblings) for section in settings.hsm]
        self._unseal_again = False
        self.engine = build_engine(
            settings,
            open_store(settings),
            open_root_key(settings.root_key, self.slots),
            self._clock,
            self._on_seal,
            self._on_intent,
            self._on_event,
            self.slots,
            (lambda: self.witness.open(),),
            lambda: self.witness.close(),
            lambda error: self._on_incident("rotation", error),
            neighbours=siblings or ALONE,
            counts=counts,
            leads=lambda: self._election is None or self._election.leads,
        )
        self.witness = AuditWitness(
            self.engine.ledger,
            self._audit_log,
            self._clock,
            self._on_event,
            interval_s=audit.checkpoint_interval_s,
            post_quantum=audit.post_quantum,
            accept_restore=accept_restore,
            needed=self.shipper.oldest_needed_sequence,
            on_lost=self._on_chain_lost,
        )
        limits = settings.limits
        self.in_flight = InFlight(limits.unary_in_flight, limits.unary_in_flight_per_principal)
        self.streams = InFlight(limits.streams, limits.streams_per_principal)
        self.shedder = LoadShedder(self.in_flight, limits.overload_delay_ms / 1000, self._on_shedding)
        self._issuers = TokenIssuers(settings.jwt, self._clock, self._on_issuer)
        self._identity = Identity(
            self._trust.bundles, self.engine.revocations, self._clock, self._issuers.tokens, self._issuers.pairs
        )
        elsewhere = [partial(refusal_of, siblings)] if siblings is not None else []
        self.refusals = RefusalLog(self._clock, *elsewhere)
        self.chain = self._build_chain()
        self.port = 0
        self.tls_port = 0
        self._refresh_tls: Callable[[], Awaitable[None]]

    def _on_slot(self, name: str, serving: bool) -> None:
        if self.board.components().get(f"hsm:{name}") is not serving:
            self._audit.event("hsm_serving" if serving else "hsm_not_serving", resource=f"hsm:{name}")
        self.board.set(f"hsm:{name}", serving)

    def _on_shedding(self, begins: bool) -> None:
        event = "load_shedding_began" if begins else "load_shedding_ended"
        _log.warning(event)
        self._audit.event(event)

    def _on_crl(self, bundle: str, fresh: bool) -> None:
        component = f"crl:{bundle}"
        if self.board.components()[component] is not fresh:
            event = "crl_in_force" if fresh else "crl_stale"
            self._audit.event(event, resource=component)
            if fresh:
                _log.info(event, bundle=bundle)
            else:
                _log.error(
                    event, bundle=bundle, advice="the bundle vouches for nobody until a current list is in place"
                )
        self.board.set(component, fresh)

    def _on_issuer(self, issuer: str, serving: bool) -> None:
        component = f"issuer:{issuer}"
        if self.board.components()[component] is not serving:
            self._audit.event("issuer_keys_in_force" if serving else "issuer_keys_stale", resource=component)
        self.board.set(component, serving)

    def _start_sinks(self) -> None:
        sections = self._settings.audit.sinks
        if sections:
            # What leaves this machine, and to which sinks, is on the record; and there is something to try each of them with.
            self._audit.event("audit_sinks", sinks=" ".join(section.name for section in sections))
            log, settings = self._audit_log, self._settings.audit
            self.shipper.start(make_workers(settings, log, self._clock, self._on_sink, self._on_incident))

    def _on_sink(self, name: str, serving: bool, why: str) -> None:
        self.board.set(f"audit:{name}", serving)
        with suppress(Unavailable):  # a log that cannot be written has its own alarm
            self._audit.event("audit_sink_serving" if serving else "audit_sink_not_serving", resource=f"audit:{name}")
        if serving:
            _log.info("audit_sink_serving", sink=name)
        else:
            _log.error("audit_sink_not_serving", sink=name, why=why, advice="see docs/audit-sinks.md")

    def _on_seal(self, state: SealState) -> None:
        self.board.set("seal", state is SealState.UNSEALED)
        if self._election is not None and state is not SealState.UNSEALED:
            self._election.resign()  # what is due waits for keys, and another worker may have them
        _log.info("seal", state=state.value)

    async def _on_intent(self, event: str, resource: str) -> None:
        await self._audit.durable_event("intent", act=event, principal=SCHEDULER, resource=resource)

    def _on_event(self, event: str, resource: str, reason: str) -> None:
        self.observing.events.add((event,))
        _log.info(event, resource=resource, reason=reason)
        self._audit.event(event, principal=SCHEDULER, resource=resource, reason=reason)

    def _on_incident(self, incident: str, error: BaseException) -> None:
        self.observing.incidents += 1
        _log.error("incident", incident=incident, exc_info=error)

    def _on_chain_lost(self, problem: str) -> None:
        self.observing.data_losses += 1
        _log.critical("audit_chain_lost", problem=problem, advice="run `vaultd audit verify`, and put the chain back")
        self._audit.event("audit_chain_lost", problem=problem)

    def _on_data_loss(self, error: DataLoss) -> None:
        self.observing.data_losses += 1
        _log.critical("data_loss", reason=error.reason, advice="run `vaultd check-store`", **error.metadata)

    def _build_chain(self) -> Chain:
        engine, limits = self.engine, self._settings.limits
        return Chain(
            make_routes(
                self._settings,
                engine,
                self._clock,
                self.board,
                self._audit_log,
                self.witness,
                self.refusals,
                self._siblings,
            ),
            self._identity,
            Throttle(
                engine.limiter,
                self.in_flight,
                self.streams,
                quota_methods(RULES),
                engine.catalog.algorithm_of,
            ),
            PolicyStep(engine.authority, engine.decider, engine.access),
            GrantStep(engine.decider, engine.grants),
            ApprovalStep(engine.approvals, self._audit),
            self._audit,
            self.observing.step,
            self.refusals,
            self._on_incident,
            self._on_data_loss,
            ChainLimits(
                limits.receive_timeout_s,
                limits.unary_timeout_s,
                limits.least_deadline_ms / 1000,
                limits.stream_mib_per_principal * 1024 * 1024,
                limits.stream_mib * 1024 * 1024,
            ),
            engine.lane,
        )

    @asynccontextmanager
    async def running(self) -> AsyncIterator[Server]:
        """Open, serve, and on exit drain and close, in that order."""
        settings = self._settings
        async with AsyncExitStack() as stack:
            self._tls.read()
            stack.push_async_callback(self.shipper.close)  # after the log, whose last records it sends
            await self._audit_log.open()
            stack.push_async_callback(self._audit_log.close)
            stack.callback(self._audit.write_last_folded)
            self.board.set("audit", self._audit_log.serving)
            await self.observing.start(stack, meters_of(self), self.board, listens=self._siblings is None)
            self._start_sinks()
            self._trust.require_fresh()
            await self.engine.store.open()
            stack.push_async_callback(self.engine.store.close)
            self.board.set("storage", True)
            stack.push_async_callback(self._close_engine)
            await asyncio.gather(*(slot.open() for slot in self.slots))
            await self.engine.feed.start()
            if self._election is not None:
                self._election.open()
                stack.callback(self._election.close)
            await self._start_seal()
            await self._issuers.tick()  # key files are read, and fetches begin, before the first call
            stack.push_async_callback(self._issuers.close)
            host = make_host(settings, self.chain, self._tls, share_port=self._siblings is not None)
            self.port, self.tls_port = await host.start(settings.listen, settings.listen_tls)
            self._refresh_tls = host.refresh
            stack.push_async_callback(self._drain, host)
            tasks = [
                asyncio.create_task(self._every(settings.store.feed_poll_ms / 1000, self.follow)),
                asyncio.create_task(
                    self._every(settings.lifecycle.scheduler_interval_ms / 1000, self.engine.scheduler.tick)
                ),
                asyncio.create_task(self._every(AUDIT_CHECK_S, self._check_audit)),
                asyncio.create_task(self._every(AUDIT_UPKEEP_S, self._keep_up_audit)),
                asyncio.create_task(self._every(FILES_CHECK_S, self._check_files)),
                asyncio.create_task(self._every(FILES_CHECK_S, self._issuers.tick)),
                asyncio.create_task(self._every(FILES_CHECK_S, self._retry_unseal)),
                asyncio.create_task(self._watch_delay()),
                asyncio.create_task(self._every(STREAMS_CHECK_S, self.chain.recheck_streams)),
                asyncio.create_task(self._every(STREAMS_CHECK_S, self.engine.watch.tick)),
                asyncio.create_task(self._serve_watchers()),
            ]
            if self.observing.active:
                tasks.append(asyncio.create_task(self._every(CENSUS_CHECK_S, self.engine.census.tick)))
            if settings.metrics.push_interval_s:
                tasks.append(asyncio.create_task(self._every(settings.metrics.push_interval_s, self.observing.push)))
            stack.push_async_callback(self._end, tasks)
            # What start-up made lives as long as the process: the collector need not look at it again and again.
            gc.collect()
            gc.freeze()
            # A batch makes thousands of objects, which go without the collector's help.
            gc.set_threshold(GC_OBJECTS)
            yield self

    @asynccontextmanager
    async def offline(self) -> AsyncIterator[Server]:
        """Audit log and store, without a host: for the commands that an operator runs beside a stopped server."""
        async with AsyncExitStack() as stack:
            await self._audit_log.open()
            stack.push_async_callback(self._audit_log.close)
            await self.engine.store.open()
            stack.push_async_callback(self.engine.store.close)
            stack.push_async_callback(self._close_engine)
            await asyncio.gather(*(slot.open() for slot in self.slots))
            yield self

    async def audit_event(self, event: str, **fields: str) -> None:
        """Record what a command is about to do; raises Unavailable when it cannot be recorded."""
        await self._audit.durable_event(event, **fields)

    @property
    def audit_log(self) -> AuditLog:
        """The audit log, for metrics."""
        return self._audit_log

    def sink_figures(self) -> Sequence[SinkNumbers]:
        """The audit sinks besides the log's own files, for metrics."""
        return self.shipper.figures()

    @property
    def bundles(self) -> list[TrustBundle]:
        """The trust bundles in force."""
        return self._trust.bundles

    def certificate_ends(self) -> dict[str, float]:
        """When the server's certificate and the first of each trust bundle's authorities end, in seconds since 1970."""
        ends = {"server": self._tls.ends_s}
        for bundle in self.bundles:
            ends[f"trust:{bundle.name}"] = min(one.not_valid_after_utc.timestamp() for one in bundle.authorities)
        return ends

    async def _start_seal(self) -> None:
        seal = self.engine.seal
        try:
            await seal.start()
            if self._siblings is not None and seal.state is SealState.SEALED and not self._siblings.sealed:
                # What opens the ring may be nowhere but in the memory of a sibling.
                keys = await self._siblings.root_keys()
                if keys:
                    await seal.unseal_with(keys)
        except VaultdError as error:
            # Sealed, and saying why: an operator can look, restore, or unseal.
            await self.unseal_failed(error)
            self._unseal_again = isinstance(error, Unavailable)

    async def unseal_failed(self, error: VaultdError) -> None:
        """Say in log and audit log why the vault is sealed.  A store that was put back is served by no sibling either."""
        _log.error("unseal_failed", reason=error.reason, text=error.text)
        self._audit.event("unseal_failed", reason=error.reason)
        if self._siblings is not None and error.reason == "STORE_ROLLED_BACK":
            try:
                await self._siblings.seal()
            except Unavailable as unknown:
                _log.error("seal_incomplete", reason=unknown.reason, text=unknown.text)

    async def _retry_unseal(self) -> None:
        """A root key that was out of reach at the start may be back: nobody has to come and unseal."""
        sealed_by_somebody = self._siblings is not None and self._siblings.sealed
        if self._unseal_again and self.engine.seal.state is SealState.SEALED and not sealed_by_somebody:
            try:
                await self.engine.seal.unseal_with({})
            except Unavailable:
                return
        self._unseal_again = False

    async def _sign_off(self) -> None:
        """The last checkpoint covers every record of a call."""
        try:
            self._audit.write_last_folded()
            await self.witness.sign_off()
        except VaultdError as error:  # what is not signed is MACed
            _log.warning("checkpoint_failed", reason=error.reason)

    async def _close_engine(self) -> None:
        try:
            await self.engine.rotation_runner.close()
        except VaultdError as error:  # another process waits for the end of the lease, then
            _log.warning("rotations_not_given_back", reason=error.reason)
        await self.engine.usage.flush()
        try:
            await self.engine.leases.close()
        except VaultdError as error:  # what is not put back counts as spent
            _log.warning("leases_not_put_back", reason=error.reason)
        if self.engine.seal.state is SealState.UNSEALED:
            with suppress(Unavailable):  # then they are lost, as in a crash
                await self.engine.grants.give_back()
        if self.engine.seal.state is SealState.UNSEALED:
            await self.engine.access.flush_all()
        await self._sign_off()
        for backend in self.engine.backends.values():
            await backend.close()

    async def _drain(self, host: Host) -> None:
        self.board.drain()
        await asyncio.sleep(HEALTH_NOTICE_S)  # balancers that watch health go elsewhere before calls are refused
        self.chain.drain_streams()
        await host.stop(self._settings.drain_grace_s)
        await self.chain.finish()

    async def _end(self, tasks: list[asyncio.Task[None]]) -> None:
        self._stopping.set()
        self.engine.watch.stop()
        await asyncio.gather(*tasks)

    async def _every(self, interval_s: float, act: Callable[[], Awaitable[object]]) -> None:
        """Repeat until the server stops.  A failure is logged, and the next turn tries again."""
        while not self._stopping.is_set():
            try:
                await act()
            except VaultdError as error:
                _log.warning("background_failed", reason=error.reason)
            except Exception as error:  # a fault of ours must not end the loop silently: it is an incident
                self._on_incident("background", error)
            try:
                await asyncio.wait_for(self._stopping.wait(), interval_s)
            except TimeoutError:
                continue

    async def _serve_watchers(self) -> None:
        while not self._stopping.is_set():
            try:
                await self.engine.watch.run()
            except Exception as error:  # a fault of ours: an incident, and watchers must not wait for ever
                self._on_incident("background", error)

    async def _watch_delay(self) -> None:
        """Look at how late the event loop is, twenty times a second."""
        loop = asyncio.get_running_loop()
        while not self._stopping.is_set():
            due_s = loop.time() + PROBE_S
            try:
                await asyncio.wait_for(self._stopping.wait(), PROBE_S)
            except TimeoutError:
                delay_s = loop.time() - due_s
                self.observing.loop_lag.add(delay_s)
                try:
                    self.shedder.note(delay_s)
                except VaultdError as error:  # the change cannot be audited: shedding goes on all the same
                    _log.warning("background_failed", reason=error.reason)

    async def follow(self) -> None:
        """Take in what others wrote, and lead where nobody does any more, with an open vault."""
        unsealed = self.engine.seal.state is SealState.UNSEALED
        if self._election is not None and unsealed and self._election.look():
            _log.info("scheduler_elected")
        try:
            await self.engine.feed.poll()
            await self.engine.quotas.follow()
        except VaultdError:
            self.board.set("storage", False)
            raise
        self.board.set("storage", True)

    async def _check_files(self) -> None:
        """Trust bundles that changed on disk are in force without a signal, as the listener's certificates are."""
        await self._trust.follow(self._identity)
        await self._refresh_tls()
        if self._reload_policy.is_set() and self.engine.seal.state is SealState.UNSEALED:
            await self.engine.authority.reload()  # nothing is allowed after a failure: the next turn tries again
            self._reload_policy.clear()

    async def _check_audit(self) -> None:
        self._audit_log.check()
        try:
            self._audit.write_folded()
        finally:
            self._tell_audit()
        await self.witness.tick()

    def _tell_audit(self) -> None:
        self.board.set("audit", self._audit_log.serving and self._audit_log.has_room)

    async def _keep_up_audit(self) -> None:
        audit = self._settings.audit
        compress_after_s = audit.compress_after_s if audit.compress else None
        try:
            await self.witness.keep_up(compress_after_s=compress_after_s, retention_s=audit.retention_days * 86_400)
        except DataLoss as error:  # closed segments are not as they were written: an alarm, and what is there is kept
            self._on_data_loss(error)
            raise

    def reload(self) -> None:
        """Read certificates, trust bundles and the policy again; what cannot be read leaves what is in force."""
        self._reload_policy.set()
        self._tls.reload()
        self._trust.reload()
        for slot in self.slots:
            slot.reload()
