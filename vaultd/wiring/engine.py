"""Store, key ring and the rules over them, connected; without a host."""

from __future__ import annotations

from dataclasses import dataclass
from random import SystemRandom
from typing import TYPE_CHECKING

from vaultd.backends.pkcs11.backend import HsmBackend
from vaultd.backends.pkcs11.envelope import EnvelopeBackend
from vaultd.backends.software import SoftwareBackend
from vaultd.engine.access import AccessBook
from vaultd.engine.algorithms import ProtectionLevel
from vaultd.engine.approvals import Approvals
from vaultd.engine.authority import Authority
from vaultd.engine.catalog import KeyCatalog
from vaultd.engine.census import Census
from vaultd.engine.clock import SECOND_US
from vaultd.engine.decider import Decider
from vaultd.engine.feed import FeedFollower
from vaultd.engine.key_backups import KeyBackups
from vaultd.engine.key_export import KeyExport
from vaultd.engine.key_grants import Grants
from vaultd.engine.key_import import KeyImport
from vaultd.engine.key_material import KeyMaterial
from vaultd.engine.key_reads import KeyReader
from vaultd.engine.key_specs import LifecycleLimits
from vaultd.engine.key_versions import KeyVersions
from vaultd.engine.key_wrapping import KeyWrapping
from vaultd.engine.labels import LabelBook
from vaultd.engine.leases import LeaseBook
from vaultd.engine.ledger import Ledger
from vaultd.engine.lifecycle import KeyLifecycle
from vaultd.engine.neighbours import ALONE
from vaultd.engine.quota_store import Quotas
from vaultd.engine.quotas import CLASSES, RateLimiter, configured_quota, new_bucket
from vaultd.engine.revocations import Revocations
from vaultd.engine.rotation_runner import RotationRunner
from vaultd.engine.rotation_steps import RotationLimits
from vaultd.engine.rotations import Rotations
from vaultd.engine.scheduler import Scheduler
from vaultd.engine.scrubbing import Scrubber
from vaultd.engine.seal import Seal, SealState
from vaultd.engine.secret_access import AccessItem, SecretAccess
from vaultd.engine.secret_catalog import SecretCatalog
from vaultd.engine.secrets import Secrets
from vaultd.engine.tokens import TokenObjects
from vaultd.engine.transit import Transit
from vaultd.engine.turns import BulkLane
from vaultd.engine.usage import BudgetBook, UsageBook
from vaultd.engine.vaults import Vaults
from vaultd.engine.watch import WatchHub
from vaultd.interceptors.rules import HIGH_IMPACT, RULES
from vaultd.interceptors.throttle import quota_methods
from vaultd.rotation_targets import make_targets
from vaultd.secret import Secret
from vaultd.services.secrets import describe_version

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping, Sequence

    from vaultd.backends.base import Backend
    from vaultd.backends.pkcs11.slot import TokenSlot
    from vaultd.backends.rootkeys import RootKeyProvider
    from vaultd.config import LimitsSection, Settings
    from vaultd.engine.clock import Clock
    from vaultd.engine.model import Quota
    from vaultd.engine.neighbours import Neighbours
    from vaultd.engine.shared_buckets import SharedCounts
    from vaultd.rotation_config import RotationSection
    from vaultd.store.base import Store


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
    keys: KeyReader
    lifecycle: KeyLifecycle
    key_versions: KeyVersions
    transit: Transit
    lane: BulkLane
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
    *,
    neighbours: Neighbours = ALONE,
    counts: SharedCounts | None = None,
    leads: Callable[[], bool] = lambda: True,
) -> Engine:
    """Connect the parts.  Nothing runs yet.  `on_open` is part of unsealing, `on_close` of sealing.

    Of a worker: `neighbours` are the others, `counts` what they count together, `leads` whether it is the elected one.
    """
    ledger = Ledger(store, clock, neighbours)
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
    keys = KeyReader(ledger)
    material = KeyMaterial(ledger, backends, tokens, scrubber)
    lifecycle = KeyLifecycle(ledger, keys, material, clock, limits)
    key_versions = KeyVersions(ledger, keys, material)
    secrets = Secrets(ledger, clock, limits.deletion_retention_us, scrubber)
    secret_catalog = SecretCatalog(ledger, describe_version, settings.secrets.max_cached_mib * 1024 * 1024)
    lane = BulkLane()
    secret_access = SecretAccess(secret_catalog, ledger, clock, software, lane)

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
        leads,
    )
    wrapping = KeyWrapping(software)
    imports = KeyImport(ledger, keys, key_versions, budgets, wrapping, clock, scrubber)
    labels = LabelBook(ledger)
    access = AccessBook(ledger, clock)
    methods = quota_methods(RULES)
    leases = LeaseBook(ledger, clock)
    short = counts.bucket if counts is not None else new_bucket
    limiter = RateLimiter(_configured_quotas(settings.limits), methods, clock, leases, short)
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
        keys,
        lifecycle,
        key_versions,
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
        leads,
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
        keys=keys,
        lifecycle=lifecycle,
        key_versions=key_versions,
        transit=Transit(catalog, ledger, clock, lane),
        lane=lane,
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
