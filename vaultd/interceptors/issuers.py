"""Who may issue tokens, and what a token of theirs must say."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final, Protocol

from vaultd.engine.policy import is_principal
from vaultd.errors import Unauthenticated

if TYPE_CHECKING:
    from collections.abc import Mapping

    from vaultd.interceptors.jose import VerificationKey

SERVICE_ACCOUNT: Final = "system:serviceaccount:"
KUBERNETES_CLAIM: Final = "kubernetes.io"
_ABSENT: Final = object()


@dataclass(frozen=True, slots=True)
class ServiceAccounts:
    """Kubernetes service accounts that may call: of these namespaces, or these `namespace/name`; with neither, all."""

    namespaces: frozenset[str] = frozenset()
    accounts: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class IssuerRules:
    """What is configured of an issuer.

    bound_claims: a claim (its name, or a JSON pointer) and the values of which it must have one.  claims: those that go on to
    the policy.
    """

    id: str
    issuer: str
    audiences: frozenset[str]
    algorithms: frozenset[str]
    bound_claims: tuple[tuple[str, tuple[Any, ...]], ...] = ()
    claims: tuple[str, ...] = ()
    service_accounts: ServiceAccounts | None = None
    leeway_s: int = 30
    max_lifetime_s: int = 86_400


class KeySource(Protocol):
    """Gets the issuer's keys anew, where they can be got."""

    async def refresh(self) -> bool:
        """Whether an attempt was made, alone or with others.  Not more often than configured, and never for long."""
        ...


@dataclass(slots=True)
class Issuer:
    """An issuer and the keys that it has now.  A key that is no longer here verifies nothing, whatever was verified with it."""

    rules: IssuerRules
    source: KeySource | None = None
    keys: dict[str, VerificationKey] = field(default_factory=dict)

    def put(self, keys: Mapping[str, VerificationKey]) -> None:
        """Replace the keys.  Those that stay the same stay the same objects, so what they verified stays verified."""
        self.keys = {kid: self._same(kid, key) for kid, key in keys.items()}

    def _same(self, kid: str, key: VerificationKey) -> VerificationKey:
        known = self.keys.get(kid)
        same = known is not None and (known.thumbprint, known.algorithms) == (key.thumbprint, key.algorithms)
        return known if same and known is not None else key


@dataclass(frozen=True, slots=True)
class Accepted:
    """What a verified token comes to."""

    principal: str
    claims: Mapping[str, Any]
    expires_us: int


def check_claims(rules: IssuerRules, claims: Mapping[str, Any], now_us: int) -> Accepted:
    """Judge the claims of a token whose signature is the issuer's; raises Unauthenticated."""
    subject, now_s = claims.get("sub"), now_us / 1_000_000
    expires, not_before, issued = (_time(claims, name) for name in ("exp", "nbf", "iat"))
    if expires is None:
        raise _bad_claim("exp")
    principal = f"jwt:{rules.id}:{subject}"
    if not isinstance(subject, str) or not is_principal(principal):
        raise _bad_claim("sub")
    if now_s >= expires + rules.leeway_s:
        raise token_expired()
    if any(at is not None and now_s < at - rules.leeway_s for at in (not_before, issued)):
        raise Unauthenticated(
            "TOKEN_NOT_YET_VALID", "the token is not valid yet; check the clocks of issuer and server"
        )
    if expires - (now_s if issued is None else issued) > rules.max_lifetime_s + rules.leeway_s:
        raise Unauthenticated(
            "TOKEN_LIFETIME",
            f"a token of this issuer may live {rules.max_lifetime_s} seconds at most; ask for a shorter one",
        )
    audiences = claims.get("aud")
    audiences = [audiences] if isinstance(audiences, str) else audiences
    if not isinstance(audiences, list) or not any(isinstance(one, str) and one in rules.audiences for one in audiences):
        raise Unauthenticated("TOKEN_AUDIENCE", "the token is not meant for this server; ask for one with its audience")
    _check_bindings(rules, claims)
    if rules.service_accounts is not None:
        _check_service_account(rules.service_accounts, claims, subject)
    chosen = {name: value for name in rules.claims if (value := claim_at(claims, name)) is not _ABSENT}
    return Accepted(principal, MappingProxyType(chosen), int((expires + rules.leeway_s) * 1_000_000))


def claim_at(claims: Mapping[str, Any], path: str) -> Any:
    """A claim by its name, or by a JSON pointer (RFC 6901) when the path begins with `/`; a marker when it is not there."""
    if not path.startswith("/"):
        return claims.get(path, _ABSENT)
    value: Any = claims
    for part in path[1:].split("/"):
        value = value.get(part.replace("~1", "/").replace("~0", "~"), _ABSENT) if isinstance(value, dict) else _ABSENT
    return value


def token_expired() -> Unauthenticated:
    """The refusal of a token whose time is over."""
    return Unauthenticated("TOKEN_EXPIRED", "the token has expired; call with a fresh one")


def _time(claims: Mapping[str, Any], name: str) -> float | None:
    value = claims.get(name)
    if value is None:
        return None
    if (
        isinstance(value, bool)
        or not isinstance(value, int | float)
        or not math.isfinite(value)
        or not 0 <= value < 1e11
    ):
        raise _bad_claim(name)
    return value


def _bad_claim(name: str) -> Unauthenticated:
    return Unauthenticated("TOKEN_CLAIM", f"the token's claim {name} is missing or not of its form")


def _check_bindings(rules: IssuerRules, claims: Mapping[str, Any]) -> None:
    for path, allowed in rules.bound_claims:
        value = claim_at(claims, path)
        values = value if isinstance(value, list) else [value]
        # 1 is not True here, and neither is "1".
        if not any(type(one) is type(other) and one == other for one in values for other in allowed):
            raise _not_bound()


def _check_service_account(accounts: ServiceAccounts, claims: Mapping[str, Any], subject: str) -> None:
    about = claims.get(KUBERNETES_CLAIM)
    account = about.get("serviceaccount") if isinstance(about, dict) else None
    namespace = about.get("namespace") if isinstance(about, dict) else None
    name = account.get("name") if isinstance(account, dict) else None
    if not isinstance(namespace, str) or not isinstance(name, str):
        raise _bad_claim(KUBERNETES_CLAIM)
    if subject != f"{SERVICE_ACCOUNT}{namespace}:{name}":
        raise _bad_claim("sub")
    everybody = not accounts.namespaces and not accounts.accounts
    if not everybody and namespace not in accounts.namespaces and f"{namespace}/{name}" not in accounts.accounts:
        raise _not_bound()


def _not_bound() -> Unauthenticated:
    return Unauthenticated(
        "TOKEN_NOT_BOUND", "the token is genuine, but not of a workload that the issuer is configured for here"
    )
