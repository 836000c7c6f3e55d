"""Bearer tokens: one in the metadata `authorization`, of a configured issuer, verified once and remembered until it expires.

Cheap checks come first: what was verified before costs a hash; what is new is rated by the peer's address before anything in
it is looked at, and the signature is the last but the claims.  A key that nobody knows makes the issuer's source ask, at
most as often as configured, however many such tokens come.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from vaultd.engine.caller import Caller
from vaultd.errors import Unauthenticated, Unavailable, VaultdError
from vaultd.interceptors.audit import host_of
from vaultd.interceptors.issuers import check_claims, token_expired
from vaultd.interceptors.jose import bad_algorithm, parse_token, verify_signature

if TYPE_CHECKING:
    from collections.abc import Sequence

    from vaultd.engine.clock import Clock
    from vaultd.engine.quotas import RateLimiter
    from vaultd.interceptors.call import Call
    from vaultd.interceptors.issuers import Issuer
    from vaultd.interceptors.jose import UnverifiedToken, VerificationKey

MAX_CACHED: Final = 10_000
COST_CLASS: Final = "token"
_SCHEME: Final = "bearer "


@dataclass(frozen=True, slots=True, eq=False)
class Verified:
    """A token that was verified: the caller, and what it stands on."""

    caller: Caller
    issuer: Issuer
    key: VerificationKey
    expires_us: int


class Tokens:
    """Turns bearer tokens into callers.  The same token is the same Caller until it expires or its key goes."""

    def __init__(self, issuers: Sequence[Issuer], checks: RateLimiter, clock: Clock) -> None:
        """`checks` limits how many new tokens an address may have verified (class `token`)."""
        self._issuers = {issuer.rules.issuer: issuer for issuer in issuers}
        self._checks = checks
        self._clock = clock
        self._verified: dict[bytes, Verified] = {}

    async def verify(self, call: Call, authorization: Sequence[str | bytes]) -> Verified:
        """The token of a call; raises Unauthenticated, ResourceExhausted, or Unavailable when the issuer has no keys."""
        text = _bearer(authorization)
        digest = hashlib.sha256(text.encode()).digest()
        known = self._verified.get(digest)
        if known is not None:
            if self._clock.now_us() >= known.expires_us:
                del self._verified[digest]
                raise token_expired()
            if known.issuer.keys.get(known.key.kid) is known.key:
                return known
            del self._verified[digest]
        self._checks.admit(host_of(call.peer.address), COST_CLASS, 1)
        token = parse_token(text)
        issuer = self._issuer_of(token)
        if token.kid not in issuer.keys and token.kid and issuer.source is not None:
            await issuer.source.refresh()
        fresh = self._examine(token, issuer)
        # The same token may have been verified by another call meanwhile.
        kept = self._verified.get(digest)
        if kept is not None and kept.key is fresh.key:
            return kept
        if len(self._verified) >= MAX_CACHED:
            del self._verified[next(iter(self._verified))]
        self._verified[digest] = fresh
        return fresh

    def _issuer_of(self, token: UnverifiedToken) -> Issuer:
        name = token.claims.get("iss")
        issuer = self._issuers.get(name) if isinstance(name, str) else None
        if issuer is None:
            raise Unauthenticated("TOKEN_ISSUER", "the token's issuer is not configured here")
        if token.algorithm not in issuer.rules.algorithms:
            raise bad_algorithm()
        return issuer

    def _examine(self, token: UnverifiedToken, issuer: Issuer) -> Verified:
        key = issuer.keys.get(token.kid)
        if key is None:
            raise _no_key(issuer)
        verify_signature(token, key)
        accepted = check_claims(issuer.rules, token.claims, self._clock.now_us())
        return Verified(Caller(accepted.principal, accepted.claims), issuer, key, accepted.expires_us)


def _no_key(issuer: Issuer) -> VaultdError:
    if not issuer.keys:
        return Unavailable(
            "ISSUER_KEYS_UNAVAILABLE",
            "the keys of the token's issuer are out of reach, so its tokens cannot be verified; try again later",
            retry_after_s=1,
        )
    return Unauthenticated(
        "TOKEN_KEY_UNKNOWN", "the token names no key that its issuer has now; call with a fresh token"
    )


def _bearer(authorization: Sequence[str | bytes]) -> str:
    value = authorization[0]
    if len(authorization) == 1 and isinstance(value, str) and value[: len(_SCHEME)].lower() == _SCHEME:
        token = value[len(_SCHEME) :]
        if token and token.isascii():  # an empty one is no scheme at all where spaces at the end are cut off on the way
            return token
    raise Unauthenticated("AUTHORIZATION_MALFORMED", "send the metadata `authorization` once, as `Bearer` and a token")
