"""Who calls: exactly one accepted SAN of the verified client certificate, never the common name.

One function turns a certificate into a principal, on every host.  Verification of the chain is the transport's; what is
decided here is which trust bundle issued the certificate, and whether that bundle may vouch for the name in it.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC
from typing import TYPE_CHECKING, Final

from cryptography import x509
from cryptography.exceptions import InvalidSignature

from vaultd.engine.caller import Caller
from vaultd.errors import Unauthenticated

if TYPE_CHECKING:
    from collections.abc import Sequence

    from vaultd.engine.clock import Clock
    from vaultd.interceptors.call import Call

MAX_CACHED: Final = 10_000
MAX_CHAIN: Final = 6
MAX_PRINCIPAL_CHARS: Final = 2048
_SPIFFE: Final = re.compile(r"spiffe://([a-z0-9._-]{1,255})((?:/[A-Za-z0-9._-]+)+)")
_DNS: Final = re.compile(r"(?:[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?\.)*[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?")


@dataclass(frozen=True, slots=True)
class TrustBundle:
    """Certificate authorities, and the names that they may vouch for.

    Either `trust_domain` (SPIFFE URIs of that domain) or `dns_suffixes` (host names under them) is set.
    """

    name: str
    authorities: tuple[x509.Certificate, ...]
    trust_domain: str = ""
    dns_suffixes: tuple[str, ...] = ()

    def principal(self, leaf: x509.Certificate) -> str | None:
        """The one name in the certificate that this bundle vouches for, or None."""
        try:
            names = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
            if self.trust_domain:
                uris = names.get_values_for_type(x509.UniformResourceIdentifier)
                match = _SPIFFE.fullmatch(uris[0]) if len(uris) == 1 else None
                valid = (
                    match is not None
                    and len(uris[0]) <= MAX_PRINCIPAL_CHARS
                    and match[1] == self.trust_domain
                    and not _has_dot_segment(match[2])
                )
                return uris[0] if valid else None
            hosts = names.get_values_for_type(x509.DNSName)
        except (x509.ExtensionNotFound, x509.DuplicateExtension, ValueError):
            return None
        if len(hosts) != 1 or len(hosts[0]) > 253 or not _DNS.fullmatch(hosts[0]):
            return None
        under = any(hosts[0] == suffix or hosts[0].endswith(f".{suffix}") for suffix in self.dns_suffixes)
        return f"dns:{hosts[0]}" if under else None

    def issued(self, chain: Sequence[x509.Certificate]) -> bool:
        """Whether the leaf chains up to one of these authorities through the certificates that came with it."""
        current = chain[0]
        for _ in range(MAX_CHAIN):
            if any(_issued_by(current, authority) for authority in self.authorities):
                return True
            above = next(
                (other for other in chain[1:] if other != current and _may_issue(other) and _issued_by(current, other)),
                None,
            )
            if above is None:
                return False
            current = above
        return False


def _has_dot_segment(path: str) -> bool:
    return any(segment in {".", ".."} for segment in path.split("/"))


def _may_issue(certificate: x509.Certificate) -> bool:
    # The transport verified one path to one authority.  This may be another path, and a leaf of a bundle is no authority.
    try:
        return certificate.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    except (x509.ExtensionNotFound, x509.DuplicateExtension, ValueError):
        return False


def _issued_by(certificate: x509.Certificate, issuer: x509.Certificate) -> bool:
    try:
        certificate.verify_directly_issued_by(issuer)
    except (InvalidSignature, TypeError, ValueError):
        return False
    return True


@dataclass(frozen=True, slots=True)
class _Known:
    caller: Caller
    not_after_us: int


class Identity:
    """Turns peers into callers; a certificate is looked into once."""

    def __init__(self, bundles: Sequence[TrustBundle], clock: Clock) -> None:
        self._clock = clock
        self._bundles = tuple(bundles)
        self._known: dict[bytes, _Known] = {}

    def replace(self, bundles: Sequence[TrustBundle]) -> None:
        """Put other trust bundles in force, on open connections too."""
        self._bundles = tuple(bundles)
        self._known = {}

    def identify(self, call: Call) -> Caller:
        """Who calls; raises Unauthenticated."""
        certificates = call.peer.certificates
        known = self._known.get(certificates)
        if known is None:
            known = self._examine(certificates)
            if len(self._known) >= MAX_CACHED:
                self._known.clear()
            self._known[certificates] = known
        if self._clock.now_us() >= known.not_after_us:
            raise Unauthenticated("CERTIFICATE_EXPIRED", "the client certificate has expired; connect with a fresh one")
        return known.caller

    def _examine(self, pem: bytes) -> _Known:
        if not pem:
            raise Unauthenticated("NO_CERTIFICATE", "a client certificate is required")
        try:
            chain = x509.load_pem_x509_certificates(pem)
            not_after = chain[0].not_valid_after_utc.astimezone(UTC)
            names = {bundle.principal(chain[0]) for bundle in self._bundles if bundle.issued(chain)} - {None}
        except (ValueError, TypeError, IndexError) as error:
            raise Unauthenticated("CERTIFICATE_UNREADABLE", "the client certificate cannot be read") from error
        if len(names) != 1:
            raise Unauthenticated(
                "NO_ACCEPTED_IDENTITY",
                "the client certificate must carry exactly one SAN that its trust bundle may vouch for",
            )
        (principal,) = names
        return _Known(Caller(str(principal)), int(not_after.timestamp() * 1_000_000))
