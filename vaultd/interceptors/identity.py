"""Who calls: exactly one accepted SAN of the verified client certificate, never the common name.

One function turns a certificate into a principal, on every host.  Verification of the chain is the transport's; what is
decided here is which trust bundle issued the certificate, whether that bundle may vouch for the name in it, and whether the
certificate or the principal was revoked.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from vaultd.engine.caller import Caller
from vaultd.errors import Unauthenticated
from vaultd.interceptors.certificates import crl_stale, examine

if TYPE_CHECKING:
    from collections.abc import Sequence

    from vaultd.engine.clock import Clock
    from vaultd.engine.revocations import Revocations
    from vaultd.interceptors.call import Call
    from vaultd.interceptors.certificates import TrustBundle

MAX_CACHED: Final = 10_000


@dataclass(frozen=True, slots=True)
class _Known:
    caller: Caller
    not_after_us: int
    fresh_until_us: int | None


class Identity:
    """Turns peers into callers; a certificate is looked into once."""

    def __init__(self, bundles: Sequence[TrustBundle], revocations: Revocations, clock: Clock) -> None:
        self._clock = clock
        self._revocations = revocations
        self._bundles = tuple(bundles)
        self._known: dict[bytes, _Known] = {}

    def replace(self, bundles: Sequence[TrustBundle]) -> None:
        """Put other trust bundles in force, on open connections too."""
        self._bundles = tuple(bundles)
        self._known = {}

    def identify(self, call: Call) -> Caller:
        """Who calls; raises Unauthenticated, and DataLoss when it cannot be known whether the principal is revoked."""
        certificates = call.peer.certificates
        now_us = self._clock.now_us()
        known = self._known.get(certificates)
        if known is None:
            vouched = examine(self._bundles, certificates, now_us)
            known = _Known(Caller(vouched.principal), vouched.not_after_us, vouched.fresh_until_us)
            if len(self._known) >= MAX_CACHED:
                self._known.clear()
            self._known[certificates] = known
        if now_us >= known.not_after_us:
            raise Unauthenticated("CERTIFICATE_EXPIRED", "the client certificate has expired; connect with a fresh one")
        if known.fresh_until_us is not None and now_us >= known.fresh_until_us:
            raise crl_stale()
        self._revocations.require(known.caller.principal)
        return known.caller
