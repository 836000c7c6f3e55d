"""The files that prove who calls and who answers."""

from __future__ import annotations

import itertools
import stat
from typing import TYPE_CHECKING, Any, Final

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from cryptography.x509.oid import ExtendedKeyUsageOID

from vaultd_client.ctl.values import show_time

if TYPE_CHECKING:
    import datetime
    from pathlib import Path

    from vaultd_client.ctl.doctor.findings import Findings
    from vaultd_client.settings import Settings

LATE: Final = 0.1
"""So much of its life is left to a certificate that should have been renewed."""


class Files:
    """Looks at the files of a client's settings."""

    def __init__(self, settings: Settings, findings: Findings, now: datetime.datetime) -> None:
        self._settings = settings
        self._findings = findings
        self._now = now

    def look(self) -> None:
        """Tell of all files."""
        settings = self._settings
        if settings.ca is None:
            self._findings.warn(
                "ca", "no file of authorities: gRPC's own list of public ones is used", "say --ca, VAULTD_CA or `ca`"
            )
        else:
            self._look_at_authorities(settings.ca)
        if settings.certificate is not None and settings.key is not None:
            self._look_at_pair(settings.certificate, settings.key)

    def _look_at_authorities(self, path: Path) -> None:
        certificates = self._certificates("ca", path)
        if certificates is None:
            return
        usable = []
        for one in certificates:
            if not _is_authority(one):
                self._findings.fail(
                    "ca",
                    f"{path}: {_subject(one)} is no authority",
                    "put the authority's certificate there, not the server's",
                )
            elif self._is_in_force("ca", f"{path}: {_subject(one)}", one):
                usable.append(_subject(one))
        if usable:
            self._findings.ok("ca", f"{path}: {', '.join(usable)}")

    def _look_at_pair(self, certificate: Path, key: Path) -> None:
        chain = self._certificates("certificate", certificate)
        private = self._private_key(key)
        if chain is None:
            return
        leaf = chain[0]
        if self._is_in_force("certificate", str(certificate), leaf):
            self._findings.ok("certificate", f"{certificate}: until {show_time(leaf.not_valid_after_utc, self._now)}")
        self._look_at_name(certificate, leaf)
        self._look_at_usage(certificate, leaf)
        self._look_at_chain(certificate, chain)
        if private is not None and private.public_key() != leaf.public_key():
            self._findings.fail(
                "key",
                f"{key} is not the key of {certificate}",
                "use the two files that were issued together, or issue them again",
            )
        elif private is not None:
            self._findings.ok("key", f"{key} is the key of the certificate")

    def _certificates(self, check: str, path: Path) -> list[x509.Certificate] | None:
        content = self._read(check, path)
        if content is None:
            return None
        try:
            return x509.load_pem_x509_certificates(content)
        except ValueError:
            self._findings.fail(
                check, f"{path} holds no certificate in PEM", "it begins with -----BEGIN CERTIFICATE-----"
            )
            return None

    def _read(self, check: str, path: Path) -> bytes | None:
        try:
            return path.read_bytes()
        except OSError as error:
            self._findings.fail(check, f"{path} cannot be read: {error.strerror}", "mend the path, or its permissions")
            return None

    def _private_key(self, path: Path) -> Any:
        content = self._read("key", path)
        if content is None:
            return None
        mode = stat.S_IMODE(path.stat().st_mode)
        if mode & 0o077:
            self._findings.warn("key", f"{path} has mode {mode:04o}: others may read it", f"chmod 600 {path}")
        try:
            return load_pem_private_key(content, None)
        except TypeError:
            self._findings.fail("key", f"{path} is encrypted", "gRPC takes a key without a passphrase only")
        except ValueError:
            self._findings.fail(
                "key", f"{path} holds no private key in PEM", "it begins with -----BEGIN PRIVATE KEY-----"
            )
        return None

    def _is_in_force(self, check: str, what: str, certificate: x509.Certificate) -> bool:
        begin, end = certificate.not_valid_before_utc, certificate.not_valid_after_utc
        if self._now >= end:
            self._findings.fail(check, f"{what} expired {show_time(end, self._now)}", "have it renewed")
            return False
        if self._now < begin:
            self._findings.fail(
                check,
                f"{what} is not valid before {show_time(begin, self._now)}",
                "look at the clock of this machine, or wait",
            )
            return False
        if (end - self._now) < LATE * (end - begin):
            self._findings.warn(check, f"{what} expires {show_time(end, self._now)}", "have it renewed now")
        return True

    def _look_at_name(self, path: Path, leaf: x509.Certificate) -> None:
        names = names_of(leaf)
        if len(names) == 1:
            self._findings.ok("name", f"{path} names {names[0]}")
        elif names:
            self._findings.warn(
                "name",
                f"{path} has {len(names)} names: {', '.join(names)}",
                "the server takes exactly one of the type that its trust bundle accepts; have one issued with one name",
            )
        else:
            self._findings.fail(
                "name",
                f"{path} has no subject alternative name of type URI or DNS",
                "the CN is never looked at: have one issued with a SPIFFE id, or a DNS name",
            )

    def _look_at_usage(self, path: Path, leaf: x509.Certificate) -> None:
        try:
            usage = leaf.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
        except x509.ExtensionNotFound:
            return
        if ExtendedKeyUsageOID.CLIENT_AUTH not in usage and ExtendedKeyUsageOID.ANY_EXTENDED_KEY_USAGE not in usage:
            self._findings.fail(
                "usage", f"{path} is not for clients (clientAuth)", "have one issued for client authentication"
            )

    def _look_at_chain(self, path: Path, chain: list[x509.Certificate]) -> None:
        for below, above in itertools.pairwise(chain):
            try:
                below.verify_directly_issued_by(above)
            except (ValueError, TypeError, InvalidSignature):
                self._findings.fail(
                    "chain",
                    f"{path}: {_subject(above)} did not issue {_subject(below)}, which stands before it",
                    "the file has the certificate first, then each one's issuer",
                )
                return
        if len(chain) > 1:
            self._findings.ok("chain", f"{path}: {len(chain) - 1} intermediate authorities, in order")


def names_of(certificate: x509.Certificate) -> list[str]:
    """The names of a certificate that vaultd looks at: URIs, and DNS names as `dns:NAME`."""
    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return []
    uris = names.get_values_for_type(x509.UniformResourceIdentifier)
    return [*uris, *(f"dns:{name}" for name in names.get_values_for_type(x509.DNSName))]


def _is_authority(certificate: x509.Certificate) -> bool:
    try:
        return certificate.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    except x509.ExtensionNotFound:
        return False


def _subject(certificate: x509.Certificate) -> str:
    return certificate.subject.rfc4514_string() or f"serial {certificate.serial_number:x}"
