"""Certificates for development and tests: a CA, a server and two clients, in PEM files.

Production brings its own certificates.  Everything is P-256 with SHA-256, which OpenSSL, BoringSSL and Go all
take.  Files are replaced whole, keys before certificates; a crash in between leaves a pair that does not match, and the
next run makes it anew.
"""

from __future__ import annotations

import ipaddress
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Final

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from vaultd.durable import replace_file

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

ADMIN_URI: Final = "spiffe://dev.vaultd/admin"
APP_URI: Final = "spiffe://dev.vaultd/app"
CA_DAYS: Final = 3650
LEAF_DAYS: Final = 825
"""The most that Apple's and other strict verifiers take."""
RENEW_BEFORE: Final = timedelta(days=7)

_CLOCK_SKEW: Final = timedelta(minutes=10)
_ORGANIZATION: Final = "vaultd development"


def create_dev_pki(tls_dir: Path, *, hosts: Sequence[str]) -> None:
    """Make `ca`, `server`, `admin` and `app` (`.crt` and `.key`) where they are missing, broken or about to expire.

    Idempotent: good files stay as they are.  A new CA replaces all leaves; a host that the server certificate does not
    name replaces that one.
    """
    tls_dir.mkdir(parents=True, exist_ok=True)
    ca = _load(tls_dir / "ca")
    if ca is None or _expires_soon(ca[0]):
        ca = _new_ca(tls_dir)
    server_names = _server_names(hosts)
    current = _good_leaf(tls_dir / "server", ca[0])
    if current is None or not set(server_names) <= set(_names(current)):
        _issue(ca, tls_dir / "server", server_names, "vaultd dev server", ExtendedKeyUsageOID.SERVER_AUTH, LEAF_DAYS)
    for stem, uri in (("admin", ADMIN_URI), ("app", APP_URI)):
        names = [x509.UniformResourceIdentifier(uri)]
        current = _good_leaf(tls_dir / stem, ca[0])
        if current is None or _names(current) != names:
            _issue(ca, tls_dir / stem, names, f"vaultd dev {stem}", ExtendedKeyUsageOID.CLIENT_AUTH, LEAF_DAYS)


def issue_client_certificate(
    ca_dir: Path,
    out_stem: Path,
    *,
    uri: str | Sequence[str] = (),
    dns: str | Sequence[str] = (),
    days: int = LEAF_DAYS,
    common_name: str = "vaultd dev client",
    usage: x509.ObjectIdentifier = ExtendedKeyUsageOID.CLIENT_AUTH,
) -> tuple[Path, Path]:
    """Write `<out_stem>.crt` and `<out_stem>.key`, signed by `<ca_dir>/ca`, and return both paths.

    No uri and no dns gives a certificate without a subject alternative name; negative days one that expired that long
    ago. Raises FileNotFoundError when there is no usable CA.
    """
    ca = _load(ca_dir / "ca")
    if ca is None:
        raise FileNotFoundError(f"no usable ca.crt and ca.key in {ca_dir}")
    names: list[x509.GeneralName] = [
        *(x509.UniformResourceIdentifier(value) for value in ([uri] if isinstance(uri, str) else uri)),
        *(x509.DNSName(value) for value in ([dns] if isinstance(dns, str) else dns)),
    ]
    return _issue(ca, out_stem, names, common_name, usage, days)


_Pair = tuple[x509.Certificate, ec.EllipticCurvePrivateKey]


def _new_ca(tls_dir: Path) -> _Pair:
    key = ec.generate_private_key(ec.SECP256R1())
    name = _subject("vaultd dev CA")
    now = datetime.now(UTC)
    identifier = x509.SubjectKeyIdentifier.from_public_key(key.public_key())
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - _CLOCK_SKEW)
        .not_valid_after(now - _CLOCK_SKEW + timedelta(days=CA_DAYS))
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_key_usage(ca=True), critical=True)
        .add_extension(identifier, critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(identifier), critical=False)
        .sign(key, hashes.SHA256())
    )
    _write_pair(tls_dir / "ca", certificate, key)
    return certificate, key


def _issue(
    ca: _Pair,
    stem: Path,
    names: Sequence[x509.GeneralName],
    common_name: str,
    usage: x509.ObjectIdentifier,
    days: int,
) -> tuple[Path, Path]:
    ca_certificate, ca_key = ca
    key = ec.generate_private_key(ec.SECP256R1())
    end = datetime.now(UTC) - _CLOCK_SKEW + timedelta(days=days)
    builder = (
        x509.CertificateBuilder()
        .subject_name(_subject(common_name))
        .issuer_name(ca_certificate.subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(end - timedelta(days=max(days, 1)))
        .not_valid_after(end)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_key_usage(ca=False), critical=True)
        .add_extension(x509.ExtendedKeyUsage([usage]), critical=False)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(
                ca_certificate.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value
            ),
            critical=False,
        )
    )
    if names:
        builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
    return _write_pair(stem, builder.sign(ca_key, hashes.SHA256()), key)


def _subject(common_name: str) -> x509.Name:
    return x509.Name(
        [
            x509.NameAttribute(NameOID.ORGANIZATION_NAME, _ORGANIZATION),
            x509.NameAttribute(NameOID.COMMON_NAME, common_name),
        ]
    )


def _key_usage(*, ca: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not ca,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=ca,
        crl_sign=ca,
        encipher_only=False,
        decipher_only=False,
    )


def _server_names(hosts: Sequence[str]) -> list[x509.GeneralName]:
    """The loopback names and the given hosts, once each; `0.0.0.0` and `::` are addresses to listen on, not names."""
    names: list[x509.GeneralName] = []
    for host in ("localhost", "127.0.0.1", "::1", *hosts):
        bare = host.strip("[]")
        try:
            address = ipaddress.ip_address(bare)
        except ValueError:
            name: x509.GeneralName = x509.DNSName(bare)
        else:
            if address.is_unspecified:
                continue
            name = x509.IPAddress(address)
        if bare and name not in names:
            names.append(name)
    return names


def _load(stem: Path) -> _Pair | None:
    """Read a certificate and its key; None when one is missing, unreadable or not of the other."""
    certificate_path, key_path = _paths(stem)
    try:
        certificate = x509.load_pem_x509_certificate(certificate_path.read_bytes())
        key = serialization.load_pem_private_key(key_path.read_bytes(), password=None)
    except (FileNotFoundError, ValueError, TypeError, UnsupportedAlgorithm):
        return None
    if not isinstance(key, ec.EllipticCurvePrivateKey) or key.public_key() != certificate.public_key():
        return None
    return certificate, key


def _good_leaf(stem: Path, ca: x509.Certificate) -> x509.Certificate | None:
    """Read a leaf of this CA that is good for a while; None when it must be made anew."""
    pair = _load(stem)
    if pair is None or _expires_soon(pair[0]):
        return None
    try:
        pair[0].verify_directly_issued_by(ca)
    except (ValueError, TypeError, InvalidSignature):
        return None
    return pair[0]


def _expires_soon(certificate: x509.Certificate) -> bool:
    return certificate.not_valid_after_utc - datetime.now(UTC) < RENEW_BEFORE


def _names(certificate: x509.Certificate) -> list[x509.GeneralName]:
    try:
        return list(certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value)
    except x509.ExtensionNotFound:
        return []


def _write_pair(stem: Path, certificate: x509.Certificate, key: ec.EllipticCurvePrivateKey) -> tuple[Path, Path]:
    certificate_path, key_path = _paths(stem)
    pem = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    replace_file(key_path, pem, 0o600)
    replace_file(certificate_path, certificate.public_bytes(serialization.Encoding.PEM), 0o644)
    return certificate_path, key_path


def _paths(stem: Path) -> tuple[Path, Path]:
    return stem.with_name(f"{stem.name}.crt"), stem.with_name(f"{stem.name}.key")
