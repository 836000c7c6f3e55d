"""Certificate authorities of tests: what `devpki` would not make, such as equal serial numbers and revocation lists."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

PEM = serialization.Encoding.PEM
DER = serialization.Encoding.DER


def moment(us: int) -> datetime:
    return datetime.fromtimestamp(us // 1_000_000, UTC)


class Authority:
    """A certificate authority whose key the test holds."""

    def __init__(self, name: str = "an authority", issuer: Authority | None = None, serial: int | None = None) -> None:
        self.key = ec.generate_private_key(ec.SECP256R1())
        self.name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        signer = issuer or self
        now = datetime.now(UTC)
        self.certificate = (
            x509.CertificateBuilder()
            .subject_name(self.name)
            .issuer_name(signer.name)
            .public_key(self.key.public_key())
            .serial_number(serial or x509.random_serial_number())
            .not_valid_before(now - timedelta(hours=1))
            .not_valid_after(now + timedelta(days=3650))
            .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
            .sign(signer.key, hashes.SHA256())
        )

    @classmethod
    def load(cls, tls: Path) -> Authority:
        """The authority that `devpki` made in a directory."""
        found = cls()
        key = serialization.load_pem_private_key((tls / "ca.key").read_bytes(), None)
        assert isinstance(key, ec.EllipticCurvePrivateKey)
        found.key = key
        found.certificate = x509.load_pem_x509_certificate((tls / "ca.crt").read_bytes())
        found.name = found.certificate.subject
        return found

    def pem(self) -> bytes:
        return self.certificate.public_bytes(PEM)

    def issue(
        self,
        stem: Path,
        *,
        uris: Iterable[str] = (),
        dns: Iterable[str] = (),
        common_name: str = "a client",
        serial: int | None = None,
        days: int = 800,
        usage: x509.ObjectIdentifier = ExtendedKeyUsageOID.CLIENT_AUTH,
    ) -> x509.Certificate:
        """Write `{stem}.crt` and `{stem}.key`, for a client unless the usage says otherwise."""
        key = ec.generate_private_key(ec.SECP256R1())
        end = datetime.now(UTC) + timedelta(days=days)
        names = [*map(x509.UniformResourceIdentifier, uris), *map(x509.DNSName, dns)]
        builder = (
            x509.CertificateBuilder()
            .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)]))
            .issuer_name(self.name)
            .public_key(key.public_key())
            .serial_number(serial or x509.random_serial_number())
            .not_valid_before(min(datetime.now(UTC), end) - timedelta(hours=1))
            .not_valid_after(end)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(x509.ExtendedKeyUsage([usage]), critical=False)
        )
        if names:
            builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
        certificate = builder.sign(self.key, hashes.SHA256())
        stem.parent.mkdir(parents=True, exist_ok=True)
        stem.with_name(f"{stem.name}.crt").write_bytes(certificate.public_bytes(PEM))
        pkcs8, plain = serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        stem.with_name(f"{stem.name}.key").write_bytes(key.private_bytes(PEM, pkcs8, plain))
        return certificate

    def crl(
        self,
        revoked: Iterable[int] = (),
        *,
        now_us: int,
        valid_s: int = 86_400,
        extensions: Iterable[tuple[x509.ExtensionType, bool]] = (),
        entry_extensions: Iterable[tuple[x509.ExtensionType, bool]] = (),
        signer: Authority | None = None,
        encoding: serialization.Encoding = PEM,
    ) -> bytes:
        """A revocation list; `signer` forges it with another authority's key."""
        builder = (
            x509.CertificateRevocationListBuilder()
            .issuer_name(self.name)
            .last_update(moment(now_us))
            .next_update(moment(now_us) + timedelta(seconds=valid_s))
        )
        for value, critical in extensions:
            builder = builder.add_extension(value, critical)
        for serial in revoked:
            entry = x509.RevokedCertificateBuilder().serial_number(serial).revocation_date(moment(now_us))
            for value, critical in entry_extensions:
                entry = entry.add_extension(value, critical)
            builder = builder.add_revoked_certificate(entry.build())
        return builder.sign((signer or self).key, hashes.SHA256()).public_bytes(encoding)


def write_whole(path: Path, content: bytes) -> None:
    """Replace a file as careful tools do."""
    fresh = path.with_name(f"{path.name}.new")
    fresh.write_bytes(content)
    fresh.rename(path)
