"""Who calls: exactly one accepted SAN of the verified client certificate, never the common name; or a bearer token.

One function turns a certificate into a principal, on every host.  Verification of the chain is the transport's; what is
decided here is which trust bundle issued the certificate, whether that bundle may vouch for the name in it, and whether the
certificate or the principal was revoked.  Two identities at once are refused, but for the pairs that are configured.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from vaultd.engine.caller import Caller
from vaultd.errors import Unauthenticated
from vaultd.interceptors.certificates import crl_stale, examine
from vaultd.interceptors.memo import Memo

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from vaultd.engine.clock import Clock
    from vaultd.engine.revocations import Revocations
    from vaultd.interceptors.call import Call
    from vaultd.interceptors.certificates import TrustBundle
    from vaultd.interceptors.tokens import Tokens, Verified

MAX_CACHED: Final = 10_000
MAX_CACHED_BYTES: Final = 64 * 1024 * 1024
AUTHORIZATION: Final = "authorization"
CERTIFICATE: Final = "certificate"
TOKEN: Final = "token"  # noqa: S105  # a kind of credential, no credential
BOTH: Final = "certificate+token"
NONE: Final = "none"


@dataclass(frozen=True, slots=True)
class _Known:
    """until_us: when either of the two times that may end it has come."""

    caller: Caller
    bundle: str
    not_after_us: int
    until_us: int


@dataclass(frozen=True, slots=True, eq=False)
class _Paired:
    known: _Known
    verified: Verified
    caller: Caller


class Identity:
    """Turns peers and tokens into callers; a certificate and a token are looked into once.

    Without `tokens` the metadata `authorization` means nothing, as every other header.
    """

    def __init__(
        self,
        bundles: Sequence[TrustBundle],
        revocations: Revocations,
        clock: Clock,
        tokens: Tokens | None = None,
        pairs: Mapping[tuple[str, str], str] | None = None,
    ) -> None:
        self._now_us = clock.now_us
        self._revocations = revocations
        self._bundles = tuple(bundles)
        self._tokens = tokens
        self._pairs = dict(pairs or {})
        self._forget()

    def _forget(self) -> None:
        self._known: Memo[bytes, _Known] = Memo(MAX_CACHED, MAX_CACHED_BYTES)
        self._paired: Memo[tuple[bytes, str], _Paired] = Memo(MAX_CACHED, MAX_CACHED_BYTES)

    def replace(self, bundles: Sequence[TrustBundle]) -> None:
        """Put other trust bundles in force, on open connections too."""
        self._bundles = tuple(bundles)
        self._forget()

    def credential(self, call: Call) -> str:
        """Which kind of credential came with a call, for its record."""
        if self._tokens is None or not _has_token(call):
            return CERTIFICATE if call.peer.certificates else NONE
        return BOTH if call.peer.certificates else TOKEN

    def at_once(self, call: Call) -> Caller | None:
        """What `identify` says of a call without a token; None, and nothing looked at, where there may be one.

        Raises Unauthenticated and DataLoss, as `identify` does.
        """
        certificates = call.peer.certificates
        if self._tokens is not None and (not certificates or _has_token(call)):
            return None
        return self._by_certificate(certificates).caller

    async def identify(self, call: Call) -> Caller:
        """Who calls.

        Raises Unauthenticated; ResourceExhausted for an address that shows too many new tokens; Unavailable when the
        token's issuer has no keys; DataLoss when it cannot be known whether the principal is revoked.
        """
        authorization = (
            [value for name, value in call.metadata if name == AUTHORIZATION] if self._tokens is not None else []
        )
        if not authorization or self._tokens is None:
            return self._by_certificate(call.peer.certificates).caller
        if not call.peer.certificates:
            caller = (await self._tokens.verify(call, authorization)).caller
            self._revocations.require(caller.principal)
            return caller
        known = self._by_certificate(call.peer.certificates)
        if not any(bundle == known.bundle for bundle, _ in self._pairs):
            raise _two_identities()
        verified = await self._tokens.verify(call, authorization)
        self._revocations.require(verified.caller.principal)
        return self._pair(call.peer.certificates, known, verified)

    def _by_certificate(self, certificates: bytes) -> _Known:
        known = self._known.get(certificates) or self._examine(certificates)
        now_us = self._now_us()
        if now_us >= known.until_us:
            if now_us < known.not_after_us:
                raise crl_stale()
            raise Unauthenticated("CERTIFICATE_EXPIRED", "the client certificate has expired; connect with a fresh one")
        self._revocations.require(known.caller.principal)
        return known

    def _examine(self, certificates: bytes) -> _Known:
        if not certificates and self._tokens is not None:
            raise Unauthenticated("NO_TOKEN", "send the metadata `authorization`, or connect with a client certificate")
        vouched = examine(self._bundles, certificates, self._now_us())
        not_after_us, fresh_until_us = vouched.not_after_us, vouched.fresh_until_us
        until_us = not_after_us if fresh_until_us is None else min(not_after_us, fresh_until_us)
        known = _Known(Caller(vouched.principal), vouched.bundle, not_after_us, until_us)
        return self._known.keep(certificates, known, len(certificates))

    def _pair(self, certificates: bytes, known: _Known, verified: Verified) -> Caller:
        issuer = verified.issuer.rules.id
        principal = self._pairs.get((known.bundle, issuer))
        if principal is None:
            raise _two_identities()
        if principal == TOKEN:
            return verified.caller
        at = (certificates, verified.caller.principal)
        paired = self._paired.get(at)
        if paired is None or paired.known is not known or paired.verified is not verified:
            caller = Caller(known.caller.principal, verified.caller.claims)
            paired = self._paired.keep(at, _Paired(known, verified, caller), len(certificates))
        return paired.caller


def _has_token(call: Call) -> bool:
    return any(name == AUTHORIZATION for name, _ in call.metadata)


def _two_identities() -> Unauthenticated:
    return Unauthenticated(
        "TWO_IDENTITIES",
        "the call carries a client certificate and a token; send one of them, or have the two configured as a pair",
    )
