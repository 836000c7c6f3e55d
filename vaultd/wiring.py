"""Puts the server together.  The only file that names concrete classes."""

from __future__ import annotations

import asyncio
import gc
import os
import time
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from random import SystemRandom
from typing import TYPE_CHECKING, Final

import structlog
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_private_key
from grpc_health.v1 import health_pb2
from grpc_reflection.v1alpha import reflection_pb2

from vaultd.audit.folding import RefusalFolder
from vaultd.audit.log import AuditLog
from vaultd.audit.shipping.shipper import Shipper
from vaultd.backends.pkcs11.backend import HsmBackend
from vaultd.backends.pkcs11.envelope import EnvelopeBackend
from vaultd.backends.pkcs11.pin import PinSource
from vaultd.backends.pkcs11.root_key import Pkcs11RootKey
from vaultd.backends.pkcs11.slot import SlotSettings, TokenSlot
from vaultd.backends.rootkeys import CredentialRootKey, FileRootKey, PassphraseRootKey
from vaultd.backends.software import SoftwareBackend
from vaultd.config import ConfigError
from vaultd.engine.access import AccessBook
from vaultd.engine.algorithms import ProtectionLevel
from vaultd.engine.approvals import Approvals
from vaultd.engine.audit_proofs import AuditProofs
from vaultd.engine.audit_tail import AuditTail
from vaultd.engine.audit_witness import AuditWitness
from vaultd.engine.authority import Authority
from vaultd.engine.catalog import KeyCatalog
from vaultd.engine.census import Census
from vaultd.engine.clock import SECOND_US, SystemClock
from vaultd.engine.decider import Decider
from vaultd.engine.editor import PolicyEditor
from vaultd.engine.explain import Explainer, MethodNeeds
from vaultd.engine.feed import FeedFollower
from vaultd.engine.key_backups import KeyBackups
from vaultd.engine.key_export import KeyExport
from vaultd.engine.key_grants import Grants
from vaultd.engine.key_import import KeyImport
from vaultd.engine.key_wrapping import KeyWrapping
from vaultd.engine.labels import LabelBook
from vaultd.engine.leases import LeaseBook
from vaultd.engine.ledger import Ledger
from vaultd.engine.lifecycle import KeyLifecycle, LifecycleLimits
from vaultd.engine.overload import PROBE_S, InFlight, LoadShedder
from vaultd.engine.quota_store import Quotas
from vaultd.engine.quotas import CLASSES, RateLimiter, configured_quota
from vaultd.engine.refusals import RefusalLog
from vaultd.engine.review import AccessReview
from vaultd.engine.revocations import Revocations
from vaultd.engine.rotation_runner import RotationRunner
from vaultd.engine.rotation_steps import RotationLimits
from vaultd.engine.rotations import Rotations
from vaultd.engine.scheduler import PRINCIPAL as SCHEDULER
from vaultd.engine.scheduler import Scheduler
from vaultd.engine.scrubbing import Scrubber
from vaultd.engine.seal import Seal, SealState
from vaultd.engine.secret_access import AccessItem, SecretAccess
from vaultd.engine.secret_catalog import SecretCatalog
from vaultd.engine.secrets import Secrets
from vaultd.engine.tester import PolicyTester
from vaultd.engine.tokens import TokenObjects
from vaultd.engine.transit import Transit
from vaultd.engine.usage import BudgetBook, UsageBook
from vaultd.engine.vaults import Vaults
from vaultd.engine.watch import WatchHub
from vaultd.errors import DataLoss, Unavailable, VaultdError
from vaultd.hosts.grpcio import GrpcHost
from vaultd.instruments import meters_of
from vaultd.interceptors.approvals import ApprovalStep
from vaultd.interceptors.audit import AuditStep
from vaultd.interceptors.chain import Chain, ChainLimits
from vaultd.interceptors.grants import GrantStep
from vaultd.interceptors.identity import Identity
from vaultd.interceptors.policy import PolicyStep
from vaultd.interceptors.routes import build_routes
from vaultd.interceptors.rules import HIGH_IMPACT, RULES
from vaultd.interceptors.throttle import Throttle, quota_methods
from vaultd.issuers import TokenIssuers
from vaultd.observing import Observing
from vaultd.rotation_targets import make_targets
from vaultd.secret import Secret
from vaultd.services.admin import AdminService
from vaultd.services.audit import AuditCalls
from vaultd.services.crypto import CryptoService
from vaultd.services.health import HealthBoard, HealthService
from vaultd.services.key_transfer import KeyTransfer
from vaultd.services.keys import KeysService
from vaultd.services.policy import PolicyCalls
from vaultd.services.reflection import ReflectionService
from vaultd.services.rotations import RotationCalls
from vaultd.services.secrets import SecretsService, describe_version
from vaultd.services.watch import WatchCalls
from vaultd.sinks import make_workers, sinks_every_call_needs, sinks_mutations_need
from vaultd.store.sqlite import SqliteStore
from vaultd.trust import TrustFiles, file_stamps
from vaultd_client.v1 import admin_pb2, crypto_pb2, keys_pb2, secrets_pb2

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence

    from google.protobuf.descriptor import ServiceDescriptor

    from vaultd.backends.base import Backend
    from vaultd.backends.rootkeys import RootKeyProvider
    from vaultd.config import HsmSection, LimitsSection, RootKeySection, Settings
    from vaultd.engine.clock import Clock
    from vaultd.engine.model import Quota
    from vaultd.hosts.grpcio import TlsConfig
    from vaultd.instruments import SinkNumbers
    from vaultd.interceptors.certificates import TrustBundle
    from vaultd.rotation_config import RotationSection
    from vaultd.store.base import Store

REFLECTION_V1: Final = "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo"
REFLECTION_V1ALPHA: Final = "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo"
AUDIT_CHECK_S: Final = 0.5
AUDIT_UPKEEP_S: Final = 30.0
FILES_CHECK_S: Final = 0.5
STREAMS_CHECK_S: Final = 0.4
"""How often open streams are looked at again: what ended the caller's right to one ends it within a second."""
HEALTH_NOTICE_S: Final = 0.1
CENSUS_CHECK_S: Final = 1.0

_log = structlog.get_logger("vaultd")


def make_slot(section: HsmSection, on_health: Callable[[str, bool], None]) -> TokenSlot:
    """A slot as it is configured.  Nothing runs yet."""
    selector = section.resolved()
    pin = section.pin
    source = PinSource(
        Path(selector.pin_path) if selector.pin_path else None,
        pin.credential if pin is not None else None,
        pin.environment if pin is not None else None,
    )
    settings = SlotSettings(
        name=section.name,
        selector=selector,
        read_pin=source.read,
        sessions=section.sessions or os.cpu_count() or 1,
        max_queued=section.max_queued,
        operation_timeout_s=section.operation_timeout_s,
        generation_timeout_s=section.generation_timeout_s,
        environment=section.environment,
    )
    return TokenSlot(settings, on_health)


def open_root_key(section: RootKeySection, slots: Sequence[TokenSlot] = ()) -> RootKeyProvider:
    """The provider that the configuration names."""
    if section.provider == "pkcs11":
        return Pkcs11RootKey(next(slot for slot in slots if slot.settings.name == section.slot))
    if section.provider == "passphrase":
        return PassphraseRootKey()
    if section.provider == "file" and section.path is not None:
        return FileRootKey(section.path)
    if section.environment is not None:
        return CredentialRootKey(f"env:{section.environment}")
    return CredentialRootKey(section.credential or str(section.path))


def open_store(settings: Settings) -> Store:
    """The store that the configuration names."""
    return SqliteStore(settings.store.path)


class TlsFiles:
    """The listener's certificate, key and client authorities, read again when a file changes."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._served: TlsConfig | None = None
        self.ends_s = 0.0
        """When the certificate that is served ends, in seconds since 1970."""
        self._stamp: tuple[tuple[int, int, int], ...] = ()
        self._checked_s = 0.0
        self._stale = False

    def _paths(self) -> list[Path]:
        return [self._settings.tls.key, self._settings.tls.certificate, *(b.ca for b in self._settings.trust_bundles)]

    def read(self) -> TlsConfig:
        """The files' contents; what is served stays in force when they cannot be read or do not fit together."""
        self._stamp = file_stamps(self._paths())
        try:
            key, certificate = self._settings.tls.key.read_bytes(), self._settings.tls.certificate.read_bytes()
            authorities = b"\n".join(bundle.ca.read_bytes() for bundle in self._settings.trust_bundles)
            check_key_pair(key, certificate)
            leaf = x509.load_pem_x509_certificates(certificate)[0]
        except (OSError, ValueError) as error:
            self._stale = False  # looked at again when the files change again
            if self._served is None:
                raise ConfigError("tls: certificate and key must be readable PEM files that belong together") from error
            _log.error("tls_files_refused", advice="the certificate in force stays; mend the files")
            return self._served
        self._served, self._stale = (key, certificate, authorities), False
        self.ends_s = leaf.not_valid_after_utc.timestamp()
        return self._served

    def reload(self) -> None:
        """Read again at the next handshake."""
        self._stale = True

    def changed(self) -> bool:
        """Whether to read again; looks at the files once a second at most."""
        now_s = time.monotonic()  # handshakes run on threads of grpc
        if not self._stale and now_s - self._checked_s >= 1:
            self._checked_s = now_s
            self._stale = file_stamps(self._paths()) != self._stamp
        return self._stale


def check_key_pair(key: bytes, certificate: bytes) -> None:
    """Raise ValueError unless the private key is that of the certificate."""
    leaf = x509.load_pem_x509_certificates(certificate)[0]
    form = (Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    if load_pem_private_key(key, None).public_key().public_bytes(*form) != leaf.public_key().public_bytes(*form):
        raise ValueError("the key does not belong to the certificate")


def _configured_quotas(limits: LimitsSection) -> list[Quota]:
    return [configured_quota(name, getattr(limits, name).all_windows()) for name in CLASSES]


def raise_fault(error: BaseException) -> None:
    """A fault of ours that nobody handles ends the task that it is in."""
    raise error


@dataclass(frozen=True, slots=True)
class Engine:
    """Store, key ring and the rules over them, without a host."""

    store: Store
    ledger: Ledger
    authority: Authority
    revocations: Revocations
    seal: Seal
    backends: Mapping[ProtectionLevel, Backend]
    software: SoftwareBackend
    catalog: KeyCatalog
    lifecycle: KeyLifecycle
    transit: Transit
    vaults: Vaults
    grants: Grants
    approvals: Approvals
    usage: UsageBook
    budgets: BudgetBook
    limiter: RateLimiter
    leases: LeaseBook
    quotas: Quotas
    access: AccessBook
    decider: Decider
    scheduler: Scheduler
    feed: FeedFollower
    watch: WatchHub
    imports: KeyImport
    exports: KeyExport
    key_backups: KeyBackups
    census: Census
    clock: Clock
    secrets: Secrets
    secret_catalog: SecretCatalog
    secret_access: SecretAccess
    rotations: Rotations
    rotation_runner: RotationRunner


def rotation_limits(section: RotationSection) -> RotationLimits:
    """The configured times of rotations, in microseconds."""
    return RotationLimits(
        lease_us=round(section.lease_s * SECOND_US),
        max_attempts=section.max_attempts,
        backoff_us=round(section.backoff_s * SECOND_US),
        max_backoff_us=round(section.max_backoff_s * SECOND_US),
        retry_us=round(section.retry_s * SECOND_US),
        max_retry_us=round(section.max_retry_s * SECOND_US),
    )


def build_engine(
    settings: Settings,
    store: Store,
    provider: RootKeyProvider,
    clock: Clock,
    on_seal: Callable[[SealState], None],
    on_intent: Callable[[str, str], Awaitable[None]],
    on_event: Callable[[str, str, str], None],
    slots: Sequence[TokenSlot] = (),
    on_open: Sequence[Callable[[], Awaitable[None]]] = (),
    on_close: Callable[[], None] = lambda: None,
    on_fault: Callable[[BaseException], None] = raise_fault,
) -> Engine:
    """Connect the parts.  Nothing runs yet.  `on_open` is part of unsealing, `on_close` of sealing."""
    ledger = Ledger(store, clock)
    authority = Authority(ledger, frozenset(settings.operators))
    revocations = Revocations(ledger, authority)
    software = SoftwareBackend(settings.software.threads or None, settings.software.max_queued)
    backends: dict[ProtectionLevel, Backend] = {ProtectionLevel.SOFTWARE: software}
    if slots:
        hsm = HsmBackend(slots, software)
        backends |= {ProtectionLevel.HSM: hsm, ProtectionLevel.HSM_ENVELOPE: EnvelopeBackend(hsm, software)}
    tokens = TokenObjects(ledger, backends)
    usage = UsageBook(ledger)
    budgets = BudgetBook(ledger, settings.limits.messages_per_version)
    catalog = KeyCatalog(ledger, backends, usage, budgets, settings.software.max_cached_keys)
    limits = LifecycleLimits(
        default_destroy_delay_us=settings.lifecycle.default_destroy_delay_s * SECOND_US,
        min_destroy_delay_us=settings.lifecycle.min_destroy_delay_s * SECOND_US,
        deletion_retention_us=settings.lifecycle.deletion_retention_s * SECOND_US,
    )
    scrubber = Scrubber(store)
    lifecycle = KeyLifecycle(ledger, backends, tokens, clock, limits, scrubber)
    secrets = Secrets(ledger, clock, limits.deletion_retention_us, scrubber)
    secret_catalog = SecretCatalog(ledger, describe_version, settings.secrets.max_cached_mib * 1024 * 1024)
    secret_access = SecretAccess(secret_catalog, ledger, clock, software)

    async def read_secret(name: str) -> Secret:
        _, payload, _ = await secret_access.access(AccessItem(name), None)
        return payload or Secret(b"")

    rotations = Rotations(ledger, secrets, make_targets(settings.rotation, read_secret, clock), clock)
    rotation_runner = RotationRunner(
        ledger,
        secrets,
        rotations,
        clock,
        rotation_limits(settings.rotation),
        settings.rotation.concurrency,
        on_intent,
        on_event,
        on_fault,
        SystemRandom().random,
    )
    wrapping = KeyWrapping(software)
    imports = KeyImport(ledger, lifecycle, budgets, wrapping, clock, scrubber)
    labels = LabelBook(ledger)
    access = AccessBook(ledger, clock)
    methods = quota_methods(RULES)
    leases = LeaseBook(ledger, clock)
    limiter = RateLimiter(_configured_quotas(settings.limits), methods, clock, leases)
    quotas = Quotas(ledger, limiter, leases, methods)
    grants = Grants(ledger, authority, revocations, clock)
    depths = {method: impact.depth for method, impact in HIGH_IMPACT.items()}
    approvals = Approvals(ledger, authority, clock, depths, on_event)
    followers = (approvals.follow, grants.follow)

    def forget() -> None:
        catalog.forget_all()
        secret_catalog.forget_all()
        labels.forget_all()
        approvals.forget()
        grants.forget()
        quotas.forget()

    def forget_after_gap() -> None:
        forget()
        revocations.forget()

    def close() -> None:
        on_close()
        forget()

    readers = (*on_open, revocations.reload, *followers, quotas.reload)
    seal = Seal(ledger, provider, authority, close, on_seal, readers)
    decider = Decider(authority, labels, clock)
    scheduler = Scheduler(
        ledger,
        lifecycle,
        seal,
        usage,
        budgets,
        tokens,
        leases,
        quotas,
        grants,
        approvals,
        access,
        secrets,
        scrubber,
        rotation_runner,
        imports,
        clock,
        on_intent,
        on_event,
    )
    return Engine(
        store=store,
        ledger=ledger,
        authority=authority,
        revocations=revocations,
        seal=seal,
        backends=backends,
        software=software,
        catalog=catalog,
        lifecycle=lifecycle,
        transit=Transit(catalog, ledger, clock),
        vaults=Vaults(ledger),
        grants=grants,
        approvals=approvals,
        usage=usage,
        budgets=budgets,
        limiter=limiter,
        leases=leases,
        quotas=quotas,
        access=access,
        decider=decider,
        scheduler=scheduler,
        feed=FeedFollower(ledger, authority, seal, forget_after_gap, (revocations.take_in, *followers)),
        watch=WatchHub(ledger, authority, decider, clock),
        imports=imports,
        exports=KeyExport(ledger, backends, wrapping),
        key_backups=KeyBackups(ledger, backends, budgets),
        census=Census(ledger, clock),
        clock=clock,
        secrets=secrets,
        secret_catalog=secret_catalog,
        secret_access=secret_access,
        rotations=rotations,
        rotation_runner=rotation_runner,
    )


class Server:
    """A running vaultd: engine, chain, host, and the tasks beside them."""

    def __init__(self, settings: Settings, clock: Clock | None = None, *, accept_restore: bool = False) -> None:
        """`accept_restore`: serve a store that was put back from the past, this once."""
        self._settings = settings
        self._clock = clock or SystemClock()
        self.observing = Observing(settings, self._clock)
        audit = settings.audit
        self._audit_log = AuditLog(
            audit.directory,
            now=self._clock.now_us,
            max_segment_bytes=audit.segment_bytes,
            max_segment_age_s=audit.segment_age_s,
            min_free_bytes=audit.min_free_bytes,
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
        self.slots = [make_slot(section, self._on_slot) for section in settings.hsm]
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
        )
        limits = settings.limits
        self.in_flight = InFlight(limits.unary_in_flight, limits.unary_in_flight_per_principal)
        self.streams = InFlight(limits.streams, limits.streams_per_principal)
        self.shedder = LoadShedder(self.in_flight, limits.overload_delay_ms / 1000, self._on_shedding)
        self._issuers = TokenIssuers(settings.jwt, self._clock, self._on_issuer)
        self._identity = Identity(
            self._trust.bundles, self.engine.revocations, self._clock, self._issuers.tokens, self._issuers.pairs
        )
        self.chain = self._build_chain()
        self.port = 0
        self.tls_port = 0

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

    def _on_data_loss(self, error: DataLoss) -> None:
        self.observing.data_losses += 1
        _log.critical("data_loss", reason=error.reason, advice="run `vaultd check-store`", **error.metadata)

    def _build_chain(self) -> Chain:
        engine, settings = self.engine, self._settings
        refusals = RefusalLog(self._clock)
        services: dict[ServiceDescriptor, object] = {
            crypto_pb2.DESCRIPTOR.services_by_name["CryptoService"]: CryptoService(
                engine.transit, engine.vaults, engine.backends
            ),
            keys_pb2.DESCRIPTOR.services_by_name["KeysService"]: KeysService(
                engine.lifecycle,
                engine.grants,
                engine.ledger,
                engine.usage,
                engine.budgets,
                engine.backends,
                settings.lifecycle.scheduler_interval_ms,
                KeyTransfer(engine.imports, engine.exports, engine.key_backups, engine.ledger),
            ),
            secrets_pb2.DESCRIPTOR.services_by_name["SecretsService"]: SecretsService(
                engine.secrets,
                engine.secret_access,
                engine.ledger,
                RotationCalls(engine.rotations, engine.ledger, self._clock),
            ),
            admin_pb2.DESCRIPTOR.services_by_name["AdminService"]: AdminService(
                engine.seal,
                engine.vaults,
                engine.approvals,
                engine.ledger,
                self._clock.now_us(),
                self.board.components,
                engine.quotas,
                self._policy_calls(refusals),
                engine.revocations,
                WatchCalls(engine.watch),
                AuditCalls(AuditProofs(self._audit_log, self.witness), AuditTail(self._audit_log), self.witness),
            ),
            health_pb2.DESCRIPTOR.services_by_name["Health"]: HealthService(self.board),
        }
        aliases = {}
        if settings.reflection:
            reflection = reflection_pb2.DESCRIPTOR.services_by_name["ServerReflection"]
            services[reflection] = ReflectionService([*services, reflection])
            aliases[REFLECTION_V1] = REFLECTION_V1ALPHA
        limits = settings.limits
        return Chain(
            build_routes(services, RULES, aliases),
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
            refusals,
            self._on_incident,
            self._on_data_loss,
            ChainLimits(limits.receive_timeout_s, limits.unary_timeout_s, limits.least_deadline_ms / 1000),
        )

    def _policy_calls(self, refusals: RefusalLog) -> PolicyCalls:
        engine = self.engine
        needs = {
            rule.method: MethodNeeds(
                rule.method, tuple(dict.fromkeys(access.permission for access in rule.access)), rule.operator
            )
            for rule in RULES
            if not rule.open
        }
        explainer = Explainer(
            engine.authority,
            engine.decider,
            refusals,
            engine.catalog,
            self._clock,
            needs,
            engine.quotas,
            engine.secret_access,
        )
        return PolicyCalls(
            PolicyEditor(engine.ledger, engine.authority, engine.revocations),
            PolicyTester(engine.authority, engine.decider),
            explainer,
            AccessReview(engine.authority, engine.access, self._clock),
            engine.ledger,
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
            await self.observing.start(stack, meters_of(self), self.board)
            self._start_sinks()
            self._trust.require_fresh()
            await self.engine.store.open()
            stack.push_async_callback(self.engine.store.close)
            self.board.set("storage", True)
            stack.push_async_callback(self._close_engine)
            await asyncio.gather(*(slot.open() for slot in self.slots))
            await self.engine.feed.start()
            await self._start_seal()
            await self._issuers.tick()  # key files are read, and fetches begin, before the first call
            stack.push_async_callback(self._issuers.close)
            host = GrpcHost(self.chain, self._tls.read, self._tls.changed)
            self.port = host.listen(settings.listen)
            if settings.listen_tls:
                self.tls_port = host.listen_tls(settings.listen_tls)
            await host.start()
            stack.push_async_callback(self._drain, host)
            tasks = [
                asyncio.create_task(self._every(settings.store.feed_poll_ms / 1000, self._follow)),
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
        try:
            await self.engine.seal.start()
        except VaultdError as error:
            # Sealed, and saying why: an operator can look, restore, or unseal.
            _log.error("unseal_failed", reason=error.reason, text=error.text)
            self._audit.event("unseal_failed", reason=error.reason)
            self._unseal_again = isinstance(error, Unavailable)

    async def _retry_unseal(self) -> None:
        """A root key that was out of reach at the start may be back: nobody has to come and unseal."""
        if self._unseal_again and self.engine.seal.state is SealState.SEALED:
            try:
                await self.engine.seal.unseal(None)
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

    async def _drain(self, host: GrpcHost) -> None:
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

    async def _follow(self) -> None:
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
        if self._reload_policy.is_set() and self.engine.seal.state is SealState.UNSEALED:
            await self.engine.authority.reload()  # nothing is allowed after a failure: the next turn tries again
            self._reload_policy.clear()

    async def _check_audit(self) -> None:
        self._audit_log.check()
        try:
            self._audit.write_folded()
        finally:
            self.board.set("audit", self._audit_log.serving and self._audit_log.has_room)
        await self.witness.tick()

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
