"""Which name a verified client certificate carries, and whether a trust bundle may vouch for it."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC
from typing import TYPE_CHECKING, Final

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm

from vaultd.errors import Unauthenticated

if TYPE_CHECKING:
    from collections.abc import Sequence

    from vaultd.interceptors.crl import RevocationList

MAX_CHAIN: Final = 6
MAX_PRINCIPAL_CHARS: Final = 2048
_SPIFFE: Final = re.compile(r"spiffe://([a-z0-9._-]{1,255})((?:/[A-Za-z0-9._-]+)+)")
UNREADABLE: Final = (
    ValueError,
    TypeError,
    IndexError,
    UnsupportedAlgorithm,
    x509.DuplicateExtension,
    x509.InvalidVersion,
    x509.UnsupportedGeneralNameType,
)
"""What the library raises for a certificate that is damaged: not all of it is a ValueError."""
_DNS: Final = re.compile(r"(?:[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?\.)*[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?")


@dataclass(frozen=True, slots=True)
class TrustBundle:
    """Certificate authorities, and the names that they may vouch for.

    Either `trust_domain` (SPIFFE URIs of that domain) or `dns_suffixes` (host names under them) is set.  With `revocations`,
    only certificates that an authority of the bundle issued itself are accepted: those are the ones its list is about.
    """

    name: str
    authorities: tuple[x509.Certificate, ...]
    trust_domain: str = ""
    dns_suffixes: tuple[str, ...] = ()
    revocations: RevocationList | None = None

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
        except (x509.ExtensionNotFound, *UNREADABLE):
            return None
        if len(hosts) != 1 or len(hosts[0]) > 253 or not _DNS.fullmatch(hosts[0]):
            return None
        under = any(hosts[0] == suffix or hosts[0].endswith(f".{suffix}") for suffix in self.dns_suffixes)
        return f"dns:{hosts[0]}" if under else None

    def issued(self, chain: Sequence[x509.Certificate]) -> bool:
        """Whether the leaf chains up to one of these authorities through the certificates that came with it."""
        current = chain[0]
        for _ in range(1 if self.revocations is not None else MAX_CHAIN):
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

    def revoked(self, leaf: x509.Certificate) -> bool:
        """Whether the list of the authority that issued the certificate, or that authority's own issuer's, names it."""
        if self.revocations is None:
            return False
        issuers = [at for at, authority in enumerate(self.authorities) if _issued_by(leaf, authority)]
        return any(leaf.serial_number in self.revocations.serials[at] for at in issuers) or any(
            self._authority_revoked(at) for at in issuers
        )

    def _authority_revoked(self, at: int) -> bool:
        assert self.revocations is not None  # noqa: S101  # `revoked` looked
        authority = self.authorities[at]
        return any(
            authority.serial_number in serials and _issued_by(authority, self.authorities[above])
            for above, serials in enumerate(self.revocations.serials)
        )


def _has_dot_segment(path: str) -> bool:
    return any(segment in {".", ".."} for segment in path.split("/"))


def _may_issue(certificate: x509.Certificate) -> bool:
    # The transport verified one path to one authority.  This may be another path, and a leaf of a bundle is no authority.
    try:
        return certificate.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    except (x509.ExtensionNotFound, *UNREADABLE):
        return False


def _issued_by(certificate: x509.Certificate, issuer: x509.Certificate) -> bool:
    try:
        certificate.verify_directly_issued_by(issuer)
    except (InvalidSignature, *UNREADABLE):
        return False
    return True


@dataclass(frozen=True, slots=True)
class Vouched:
    """What a certificate comes to: a principal, the bundle that vouches for it, and the time in which that holds."""

    principal: str
    bundle: str
    not_after_us: int
    fresh_until_us: int | None
    """Until when the bundle's revocation list holds; None where it has none."""


def examine(bundles: Sequence[TrustBundle], pem: bytes, now_us: int) -> Vouched:
    """Who presents this chain (leaf first); raises Unauthenticated."""
    if not pem:
        raise Unauthenticated("NO_CERTIFICATE", "a client certificate is required")
    try:
        chain = x509.load_pem_x509_certificates(pem)
        leaf = chain[0]
        not_after_us = int(leaf.not_valid_after_utc.astimezone(UTC).timestamp() * 1_000_000)
        vouching = [(bundle, bundle.principal(leaf)) for bundle in bundles if bundle.issued(chain)]
        named = [(bundle, principal) for bundle, principal in vouching if principal is not None]
        # A revoked certificate is revoked, whichever bundle would take it.
        revoked = any(bundle.revoked(leaf) for bundle, _ in vouching)
    except UNREADABLE as error:
        raise Unauthenticated("CERTIFICATE_UNREADABLE", "the client certificate cannot be read") from error
    if len({principal for _, principal in named}) != 1:
        raise Unauthenticated(
            "NO_ACCEPTED_IDENTITY",
            "the client certificate must carry exactly one SAN that its trust bundle may vouch for",
        )
    lists = [bundle.revocations for bundle, _ in named if bundle.revocations is not None]
    if any(not one.is_fresh(now_us) for one in lists):
        raise crl_stale()
    if revoked:
        raise Unauthenticated(
            "CERTIFICATE_REVOKED", "the certificate's authority revoked it; connect with a fresh certificate"
        )
    fresh_until_us = min((one.fresh_until_us for one in lists), default=None)
    return Vouched(named[0][1], named[0][0].name, not_after_us, fresh_until_us)


def crl_stale() -> Unauthenticated:
    """The refusal of everybody for whom a bundle vouches whose list is no longer, or not yet, valid."""
    return Unauthenticated(
        "CRL_STALE",
        "the revocation list of the certificate's authority is out of date, so no certificate of it is accepted; "
        "tell the operator of this server",
    )
