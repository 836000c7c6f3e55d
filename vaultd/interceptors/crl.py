"""Revocation lists of certificate authorities (RFC 5280), read whole, checked, and turned into one set of serial numbers.

A list is believed only when an authority of the bundle signed it, it is complete (no delta, no indirect list, no part of the
reasons), and it says until when it holds.  Anything else raises: a list that says less than it seems to would let revoked
certificates pass.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC
from typing import TYPE_CHECKING, Any, Final

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

MAX_CRL_BYTES: Final = 64 * 1024 * 1024
CLOCK_SKEW_US: Final = 300_000_000
"""How far ahead of our clock a list's thisUpdate may be."""
_PEM: Final = re.compile(rb"-----BEGIN X509 CRL-----.*?-----END X509 CRL-----", re.DOTALL)
_KNOWN_CRITICAL: Final = (x509.IssuingDistributionPoint,)


class CrlError(Exception):
    """The file cannot be used.  The text says why, and what to do."""


@dataclass(frozen=True, slots=True)
class RevocationList:
    """What the lists of a bundle's authorities say together.

    serials: of each authority (its place in the bundle) the revoked numbers.  fresh_from_us, fresh_until_us: when all of the
    lists hold; before and after nothing is known, so the bundle vouches for nobody.
    """

    serials: tuple[frozenset[int], ...]
    fresh_from_us: int
    fresh_until_us: int

    def is_fresh(self, now_us: int) -> bool:
        """Whether every list holds at this time."""
        return self.fresh_from_us <= now_us < self.fresh_until_us


def parse_crl_file(content: bytes, authorities: Sequence[x509.Certificate]) -> RevocationList:
    """Read one DER list, or PEM lists one after the other: at least one of each authority; raises CrlError."""
    if len(content) > MAX_CRL_BYTES:
        raise CrlError(f"is larger than {MAX_CRL_BYTES} bytes")
    found: dict[int, x509.CertificateRevocationList] = {}
    for crl in _lists(content):
        _check_complete(crl)
        for at in _signers(crl, authorities):
            if at not in found or found[at].last_update_utc <= crl.last_update_utc:
                found[at] = crl
    if len(found) != len(authorities):
        raise CrlError("has no list of some authority of ca; each authority needs one, even an empty one")
    return RevocationList(
        tuple(frozenset(entry.serial_number for entry in found[at]) for at in range(len(authorities))),
        max(_us(crl.last_update_utc) for crl in found.values()) - CLOCK_SKEW_US,
        min(_us(crl.next_update_utc) for crl in found.values()),
    )


def _lists(content: bytes) -> list[x509.CertificateRevocationList]:
    try:
        blocks = _PEM.findall(content)
        if blocks:
            return [x509.load_pem_x509_crl(block) for block in blocks]
        return [x509.load_der_x509_crl(content)]
    except (ValueError, TypeError, UnsupportedAlgorithm, x509.InvalidVersion) as error:
        raise CrlError("is not a readable list in PEM or DER") from error


def _signers(crl: x509.CertificateRevocationList, authorities: Sequence[x509.Certificate]) -> list[int]:
    """The authorities whose key signed the list: several when a bundle has a renewed certificate beside the old one."""
    signers = [at for at, authority in enumerate(authorities) if _signed_by(crl, authority)]
    if not signers:
        raise CrlError("has a list that no authority of ca signed")
    return signers


def _signed_by(crl: x509.CertificateRevocationList, authority: x509.Certificate) -> bool:
    try:
        key: Any = authority.public_key()
        return crl.issuer == authority.subject and crl.is_signature_valid(key)
    except (ValueError, TypeError, InvalidSignature, UnsupportedAlgorithm):
        return False


def _check_complete(crl: x509.CertificateRevocationList) -> None:
    try:
        if crl.next_update_utc is None:
            raise CrlError("has a list without nextUpdate; have it issued with one")
        for extension in crl.extensions:
            value = extension.value
            if isinstance(value, x509.DeltaCRLIndicator):
                raise CrlError("has a delta list; give the complete one")
            if isinstance(value, x509.IssuingDistributionPoint) and (
                value.indirect_crl
                or value.only_contains_ca_certs
                or value.only_contains_attribute_certs
                or value.only_some_reasons
            ):
                raise CrlError("has a list of only some certificates or reasons; give the complete one")
            if extension.critical and not isinstance(value, _KNOWN_CRITICAL):
                raise CrlError("has a list with a critical extension that is not known here")
        for entry in crl:
            if any(extension.critical for extension in entry.extensions):
                raise CrlError("has an entry with a critical extension that is not known here")
    except (ValueError, x509.DuplicateExtension, x509.UnsupportedGeneralNameType) as error:
        raise CrlError("is not a readable list in PEM or DER") from error


def _us(moment: datetime | None) -> int:
    assert moment is not None  # noqa: S101  # _check_complete saw to it
    return int(moment.astimezone(UTC).timestamp() * 1_000_000)
