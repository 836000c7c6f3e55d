"""The listener's certificate, key and client authorities."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Final

import structlog
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_private_key

from vaultd.config import ConfigError
from vaultd.trust import file_stamps

if TYPE_CHECKING:
    from pathlib import Path

    from vaultd.config import Settings
    from vaultd.hosts.grpcio import TlsConfig


LEAST_RSA_BITS: Final = 2048
_log = structlog.get_logger("vaultd")


class TlsFiles:
    """The listener's certificate, key and client authorities, read again when a file changes."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._served: TlsConfig | None = None
        self.ends_s = 0.0
        """When the certificate that is served ends, in seconds since 1970."""
        self._stamp: tuple[tuple[int, int, int], ...] = ()
        self._checked_s = 0.0
        self._stale = False

    def _paths(self) -> list[Path]:
        return [self._settings.tls.key, self._settings.tls.certificate, *(b.ca for b in self._settings.trust_bundles)]

    def read(self) -> TlsConfig:
        """The files' contents; what is served stays in force when they cannot be read or do not fit together."""
        self._stamp = file_stamps(self._paths())
        try:
            key, certificate = self._settings.tls.key.read_bytes(), self._settings.tls.certificate.read_bytes()
            authorities = b"\n".join(bundle.ca.read_bytes() for bundle in self._settings.trust_bundles)
            check_key_pair(key, certificate)
            leaf = x509.load_pem_x509_certificates(certificate)[0]
        except (OSError, ValueError) as error:
            self._stale = False  # looked at again when the files change again
            if self._served is None:
                raise ConfigError(
                    "tls: certificate and key must be readable PEM files that belong together, of 2,048 bits or more with RSA"
                ) from error
            self.refused()
            return self._served
        self._served, self._stale = (key, certificate, authorities), False
        self.ends_s = leaf.not_valid_after_utc.timestamp()
        return self._served

    def refused(self) -> None:
        """Say that what was read is not served."""
        _log.error("tls_files_refused", advice="the certificate in force stays; mend the files")

    def reload(self) -> None:
        """Read again at the next handshake."""
        self._stale = True

    def differ(self) -> bool:
        """Whether to read again; looks at the files."""
        return self._stale or file_stamps(self._paths()) != self._stamp

    def changed(self) -> bool:
        """Whether to read again; looks at the files once a second at most."""
        now_s = time.monotonic()  # handshakes run on threads of grpc
        if not self._stale and now_s - self._checked_s >= 1:
            self._checked_s = now_s
            self._stale = file_stamps(self._paths()) != self._stamp
        return self._stale


def check_key_pair(key: bytes, certificate: bytes) -> None:
    """Raise ValueError unless the private key is that of the certificate, and none that everybody refuses."""
    leaf = x509.load_pem_x509_certificates(certificate)[0]
    form = (Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    if load_pem_private_key(key, None).public_key().public_bytes(*form) != leaf.public_key().public_bytes(*form):
        raise ValueError("the key does not belong to the certificate")
    public = leaf.public_key()
    if isinstance(public, RSAPublicKey) and public.key_size < LEAST_RSA_BITS:
        raise ValueError("the RSA key is too short")
