"""Why a call is allowed or refused, and what would change that."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from vaultd.engine.permissions import BUILT_IN_ROLES
from vaultd.engine.policy import ROOT, Conditional, Decision
from vaultd.engine.quotas import place_of
from vaultd.engine.refusals import refusal_not_found
from vaultd.engine.tester import Circumstances
from vaultd.errors import InvalidArgument, VaultdError
from vaultd.names import parse_key_or_version_name, parse_secret_or_version_name

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from vaultd.engine.authority import Authority
    from vaultd.engine.caller import Caller
    from vaultd.engine.catalog import KeyCatalog
    from vaultd.engine.clock import Clock
    from vaultd.engine.decider import Decider
    from vaultd.engine.policy import PolicyEngine
    from vaultd.engine.quota_store import Quotas
    from vaultd.engine.refusals import Refusal, RefusalLog
    from vaultd.engine.secret_access import SecretAccess

GET_POLICY: Final = "policy.get"
GET_KEY: Final = "keys.get"
SEE_SECRETS: Final = "secrets.get"
GET_QUOTA: Final = "quotas.get"


@dataclass(frozen=True, slots=True)
class MethodNeeds:
    """What a method asks of its callers: permissions, or to be listed under `operators`."""

    path: str
    permissions: tuple[str, ...]
    operator: bool


@dataclass(frozen=True, slots=True)
class Explanation:
    """The answer.  `refusal`: the call that it is about, if it is about one that was made."""

    refusal: Refusal | None = None
    decisions: tuple[tuple[str, Decision], ...] = ()
    allowed: bool = False
    missing: tuple[str, ...] = ()
    roles: tuple[str, ...] = ()
    key_state: str = ""
    secret_state: str = ""
    quota_left: Mapping[str, int] = field(default_factory=dict)
    advice: tuple[str, ...] = ()


class Explainer:
    """Answers ExplainAccess.

    About one's own refusal it repeats what the refusal said and no more: whether a deny, a condition or a missing resource was
    the cause would tell who may not look what exists.
    """

    def __init__(
        self,
        authority: Authority,
        decider: Decider,
        refusals: RefusalLog,
        catalog: KeyCatalog,
        clock: Clock,
        methods: Mapping[str, MethodNeeds],
        quotas: Quotas,
        secrets: SecretAccess,
    ) -> None:
        self._authority = authority
        self._decider = decider
        self._refusals = refusals
        self._catalog = catalog
        self._clock = clock
        self._methods = methods
        self._by_name = {path.rpartition("/")[2]: needs for path, needs in methods.items()}
        self._quotas = quotas
        self._secrets = secrets

    def method(self, name: str, field: str = "method") -> MethodNeeds:
        """The method of a full path or a bare name; raises InvalidArgument."""
        needs = self._methods.get(name) or self._by_name.get(name)
        if needs is None:
            raise InvalidArgument(
                "METHOD_NAME",
                f"{field} must be one of this server's, such as /vaultd.v1.CryptoService/Encrypt; docs/permissions.md lists them",
                field=field,
            )
        return needs

    async def access(
        self, caller: Caller, called: str, principal: str, method: str, resource: str, circumstances: Circumstances
    ) -> Explanation:
        """Explain a call that a principal could make.  The caller holds policy.get on the resource: the chain asked."""
        needs = self.method(method)
        return await self._explain(caller, called, principal, needs, (resource,), circumstances, None)

    async def refusal(self, caller: Caller, called: str, id: str) -> Explanation:
        """Explain a call that was refused; raises NotFound for an unknown id and for somebody else's call alike."""
        refusal = await self._refusals.find(id)
        for resource in refusal.resources or (ROOT,):
            if not (await self._decider.decide(caller, called, GET_POLICY, resource)).allowed:
                if not refusal.principal or refusal.principal != caller.principal:
                    raise refusal_not_found()
                return self._own(refusal)
        needs = self._methods.get(refusal.method)
        if needs is None or not refusal.principal:
            return Explanation(refusal=refusal, advice=(_see(refusal.reason),))
        resources = refusal.resources or (ROOT,)
        return await self._explain(caller, called, refusal.principal, needs, resources, Circumstances(), refusal)

    def _own(self, refusal: Refusal) -> Explanation:
        needs = self._methods.get(refusal.method)
        permissions = needs.permissions if needs is not None and refusal.code == "PERMISSION_DENIED" else ()
        roles = tuple(sorted(role for role, held in BUILT_IN_ROLES.items() if set(permissions) <= held))
        advice = [_see(refusal.reason)]
        if permissions:
            advice.append(
                f"ask somebody with policy.get on the resource to call ExplainAccess with incident_id {refusal.request_id}"
            )
        return Explanation(
            refusal=refusal, missing=permissions, roles=roles if permissions else (), advice=tuple(advice)
        )

    async def _explain(
        self,
        caller: Caller,
        called: str,
        principal: str,
        needs: MethodNeeds,
        resources: Sequence[str],
        circumstances: Circumstances,
        refusal: Refusal | None,
    ) -> Explanation:
        engine = self._authority.engine
        decisions: list[tuple[str, Decision]] = []
        advice: list[str] = [] if refusal is None else [_see(refusal.reason)]
        for permission, resource in _asked(needs.permissions, resources):
            found = engine.look_up(principal, permission, resource)
            decision = found if isinstance(found, Decision) else await self._settle(found, needs, circumstances)
            decisions.append((permission, decision))
            if not decision.allowed:
                advice += _advice(engine, permission, resource, found, decision)
        operator = needs.operator and principal in self._authority.operators
        if needs.operator and not operator:
            advice.append("list the principal under `operators` in the configuration, and restart")
        missing = tuple(dict.fromkeys(permission for permission, decision in decisions if not decision.allowed))
        allowed = operator or (bool(needs.permissions) and not missing) or not (needs.permissions or needs.operator)
        roles = sorted(role for role, held in engine.roles.items() if set(needs.permissions) <= held)
        return Explanation(
            refusal=refusal,
            decisions=tuple(decisions),
            allowed=allowed,
            missing=() if operator else missing,
            roles=tuple(roles) if needs.permissions else (),
            key_state=await self._key_state(caller, called, resources[0]),
            secret_state=await self._secret_state(caller, called, resources[0]),
            quota_left=await self._quota_left(caller, called, principal, needs, resources[0]),
            advice=tuple(dict.fromkeys(advice)) if not allowed or refusal is not None else (),
        )

    async def _settle(self, found: Conditional, needs: MethodNeeds, circumstances: Circumstances) -> Decision:
        method = circumstances.method or needs.path
        facts = await self._decider.facts(
            found, method, circumstances.claims, time_us=circumstances.time_us, labels=circumstances.labels
        )
        return found.settle(facts)

    async def _quota_left(
        self, caller: Caller, called: str, principal: str, needs: MethodNeeds, resource: str
    ) -> dict[str, int]:
        """By quota and window: of the caller's own counts, and of others' for whoever may read quotas."""
        reads_all = (await self._decider.decide(caller, called, GET_QUOTA, resource)).allowed
        own = principal == caller.principal
        found = await self._quotas.explain(principal, needs.path, place_of(resource))
        return {
            f"{quota.name} {left.window.name}": left.left
            for quota, windows in found
            if reads_all or (own and quota.subject)
            for left in windows
        }

    async def _key_state(self, caller: Caller, called: str, resource: str) -> str:
        """Whether the key's state would refuse the call; nothing for callers that may not look at the key."""
        try:
            ref = parse_key_or_version_name(resource)
        except InvalidArgument:
            return ""
        if not (await self._decider.decide(caller, called, GET_KEY, resource)).allowed:
            return ""
        try:
            loaded = await self._catalog.load(ref)
            version = loaded.usable[ref.version]
        except VaultdError as error:
            return f"{error.reason}: {error.text}"
        if loaded.expire_us is not None and loaded.expire_us <= self._clock.now_us():
            return "KEY_EXPIRED: the key protects nothing new; it still opens and verifies what it protected"
        return f"{loaded.key.state.value}, version {version.version.number} {version.version.state.value}"

    async def _secret_state(self, caller: Caller, called: str, resource: str) -> str:
        """Whether the secret's state would refuse access; nothing for callers that may not look at the secret."""
        try:
            ref = parse_secret_or_version_name(resource)
        except InvalidArgument:
            return ""
        if not (await self._decider.decide(caller, called, SEE_SECRETS, resource)).allowed:
            return ""
        return await self._secrets.explain(ref)


def _asked(permissions: Sequence[str], resources: Sequence[str]) -> list[tuple[str, str]]:
    if len(permissions) == len(resources):
        return list(zip(permissions, resources, strict=True))
    return [(permission, resource) for resource in resources for permission in permissions]


def _advice(
    engine: PolicyEngine, permission: str, resource: str, found: Decision | Conditional, decision: Decision
) -> list[str]:
    if decision.reason.startswith("denies["):
        entry = decision.reason.partition(" ")[0]
        condition = engine.policy.denies[int(entry[len("denies[") : -1])].condition
        unless = f", or make its condition false: {condition}" if condition else ""
        return [f"take the principal, or {permission}, out of {entry}{unless}; a deny wins over every binding"]
    advice = []
    if isinstance(found, Conditional):
        for asked in found.bindings:
            advice.append(f"{asked.decision.reason} when this holds: {asked.condition.text}")
    roles = sorted(role for role, held in engine.roles.items() if permission in held)
    advice.append(f"bind a role with {permission} ({', '.join(roles) or 'none has it yet'}) on {resource} or above it")
    return advice


def _see(reason: str) -> str:
    return f"the refusal's reason was {reason}; docs/errors.md says what to do about it"
