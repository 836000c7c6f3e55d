"""The token issuers of the configuration, and what keeps their keys."""

from __future__ import annotations

from typing import TYPE_CHECKING

from vaultd.engine.quotas import Method, RateLimiter, configured_quota
from vaultd.hosts.jwks import IssuerKeys, KeysLocation
from vaultd.interceptors.issuers import Issuer, IssuerRules, ServiceAccounts
from vaultd.interceptors.tokens import COST_CLASS, Tokens

if TYPE_CHECKING:
    from collections.abc import Callable

    from vaultd.config import IssuerSection, JwtSection
    from vaultd.engine.clock import Clock


def read_rules(section: IssuerSection) -> IssuerRules:
    """What an issuer's tokens must say."""
    accounts = None
    if section.kubernetes is not None:
        accounts = ServiceAccounts(
            frozenset(section.kubernetes.namespaces), frozenset(section.kubernetes.service_accounts)
        )
    return IssuerRules(
        id=section.id,
        issuer=section.issuer,
        audiences=frozenset(section.audiences),
        algorithms=frozenset(section.algorithms),
        bound_claims=tuple(section.bound_claims.items()),
        claims=section.claims,
        service_accounts=accounts,
        leeway_s=section.leeway_s,
        max_lifetime_s=section.max_lifetime_s,
    )


def _location(section: IssuerSection) -> KeysLocation:
    return KeysLocation(
        file=section.jwks_file,
        url=section.jwks_url,
        ca_file=section.ca_file,
        token_file=section.token_file,
        allow_http=section.allow_http,
        refresh_s=section.refresh_s,
        min_refresh_s=section.min_refresh_s,
        stale_s=section.stale_s,
        timeout_s=section.timeout_s,
    )


class TokenIssuers:
    """The issuers, their keys, and the tokens of theirs that were verified.  Nothing where none is configured."""

    def __init__(self, section: JwtSection, clock: Clock, on_change: Callable[[str, bool], None]) -> None:
        issuers = [Issuer(read_rules(one)) for one in section.issuers]
        self._keys = [
            IssuerKeys(issuer, _location(one), clock, on_change)
            for issuer, one in zip(issuers, section.issuers, strict=True)
        ]
        quota = configured_quota(COST_CLASS, section.checks_per_address.all_windows())
        checks = RateLimiter([quota], {COST_CLASS: Method(COST_CLASS, COST_CLASS)}, clock)
        self.tokens = Tokens(issuers, checks, clock) if issuers else None
        self.pairs = {(pair.trust_bundle, pair.issuer): pair.principal for pair in section.pairs}

    async def tick(self) -> None:
        """Keep every issuer's keys."""
        for keys in self._keys:
            await keys.tick()

    async def close(self) -> None:
        """End what is under way."""
        for keys in self._keys:
            await keys.close()
