"""The services behind the chain, and the methods that they make."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from grpc_health.v1 import health_pb2
from grpc_reflection.v1alpha import reflection_pb2

from vaultd.engine.audit_proofs import AuditProofs
from vaultd.engine.audit_tail import AuditTail
from vaultd.engine.editor import PolicyEditor
from vaultd.engine.explain import Explainer, MethodNeeds
from vaultd.engine.review import AccessReview
from vaultd.engine.tester import PolicyTester
from vaultd.interceptors.routes import build_routes
from vaultd.interceptors.rules import RULES
from vaultd.services.admin import AdminService
from vaultd.services.audit import AuditCalls
from vaultd.services.crypto import CryptoService
from vaultd.services.health import HealthBoard, HealthService
from vaultd.services.key_transfer import KeyTransfer
from vaultd.services.keys import KeysService
from vaultd.services.policy import PolicyCalls
from vaultd.services.reflection import ReflectionService
from vaultd.services.rotations import RotationCalls
from vaultd.services.secrets import SecretsService
from vaultd.services.watch import WatchCalls
from vaultd_client.v1 import admin_pb2, crypto_pb2, keys_pb2, secrets_pb2

if TYPE_CHECKING:
    from google.protobuf.descriptor import ServiceDescriptor

    from vaultd.audit.log import AuditLog
    from vaultd.config import Settings
    from vaultd.engine.audit_witness import AuditWitness
    from vaultd.engine.clock import Clock
    from vaultd.engine.refusals import RefusalLog
    from vaultd.interceptors.routes import Route
    from vaultd.wiring.engine import Engine
    from vaultd.workers.siblings import Siblings


REFLECTION_V1: Final = "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo"
REFLECTION_V1ALPHA: Final = "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo"


def make_routes(
    settings: Settings,
    engine: Engine,
    clock: Clock,
    board: HealthBoard,
    audit_log: AuditLog,
    witness: AuditWitness,
    refusals: RefusalLog,
    siblings: Siblings | None = None,
) -> dict[str, Route]:
    """Every method that is served, by its path, with its rule."""
    proofs = AuditProofs(audit_log, witness, *([siblings.sign] if siblings is not None else []))
    services: dict[ServiceDescriptor, object] = {
        crypto_pb2.DESCRIPTOR.services_by_name["CryptoService"]: CryptoService(
            engine.transit, engine.vaults, engine.backends, engine.lane
        ),
        keys_pb2.DESCRIPTOR.services_by_name["KeysService"]: KeysService(
            engine.keys,
            engine.lifecycle,
            engine.key_versions,
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
            RotationCalls(engine.rotations, engine.ledger, clock),
            engine.lane,
        ),
        admin_pb2.DESCRIPTOR.services_by_name["AdminService"]: AdminService(
            engine.seal,
            engine.vaults,
            engine.approvals,
            engine.ledger,
            clock.now_us(),
            board.components,
            engine.quotas,
            _policy_calls(engine, clock, refusals),
            engine.revocations,
            WatchCalls(engine.watch),
            AuditCalls(proofs, AuditTail(audit_log), witness),
        ),
        health_pb2.DESCRIPTOR.services_by_name["Health"]: HealthService(board),
    }
    aliases = {}
    if settings.reflection:
        reflection = reflection_pb2.DESCRIPTOR.services_by_name["ServerReflection"]
        services[reflection] = ReflectionService([*services, reflection])
        aliases[REFLECTION_V1] = REFLECTION_V1ALPHA
    return build_routes(services, RULES, aliases)


def _policy_calls(engine: Engine, clock: Clock, refusals: RefusalLog) -> PolicyCalls:
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
        clock,
        needs,
        engine.quotas,
        engine.secret_access,
    )
    return PolicyCalls(
        PolicyEditor(engine.ledger, engine.authority, engine.revocations),
        PolicyTester(engine.authority, engine.decider),
        explainer,
        AccessReview(engine.authority, engine.access, clock),
        engine.ledger,
    )
