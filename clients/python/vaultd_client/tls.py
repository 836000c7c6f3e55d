"""The files that prove who calls and who answers, and what a connection is made of."""

from __future__ import annotations

from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Any, Final

import grpc
from cryptography import x509
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from vaultd_client.errors import ConfigurationError

if TYPE_CHECKING:
    from pathlib import Path

    from vaultd_client.settings import Settings

LOOK_S: Final = 1.0
"""How often the files are looked at, at most, while calls are made."""
MAX_MESSAGE_BYTES: Final = 4 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Material:
    """The contents of the files; each PEM."""

    ca: bytes | None
    key: bytes | None
    certificate: bytes | None


class TlsFiles:
    """CA, certificate and key, which whoever renews certificates replaces under a running client.

    A pair that does not fit together is not taken: certificate and key are two files, and between the two writes they do not.
    """

    def __init__(self, settings: Settings) -> None:
        self._paths = (settings.ca, settings.key, settings.certificate)
        self._seen = self._stamp()
        self._material = self._read()
        self._next_look = 0.0

    def current(self, now: float) -> Material:
        """What is in force.  The same object as before unless the files changed and fit together."""
        if now >= self._next_look:
            self._next_look = now + LOOK_S
            self._look()
        return self._material

    def _look(self) -> None:
        try:
            stamp = self._stamp()
            if stamp != self._seen:
                self._material = self._read()
                self._seen = stamp
        except ConfigurationError:
            return  # half replaced, or gone for now: what was good until now serves on, and we look again

    def _stamp(self) -> list[tuple[int, int, int] | None]:
        return [None if path is None else _stamp_of(path) for path in self._paths]

    def _read(self) -> Material:
        ca, key, certificate = (None if path is None else _read(path) for path in self._paths)
        material = Material(ca, key, certificate)
        try:
            if ca is not None:
                x509.load_pem_x509_certificates(ca)
            if key is not None and certificate is not None:
                leaf = x509.load_pem_x509_certificate(certificate)
                fits = leaf.public_key() == load_pem_private_key(key, None).public_key()
                if not fits:
                    raise ConfigurationError(f"{self._paths[1]} is not the key of {self._paths[2]}")
        except (ValueError, TypeError) as error:
            if isinstance(error, ConfigurationError):
                raise
            raise ConfigurationError(
                f"one of {', '.join(map(str, filter(None, self._paths)))} is no PEM: {error}"
            ) from None
        return material


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise ConfigurationError(f"{path} cannot be read: {error.strerror}") from None


def _stamp_of(path: Path) -> tuple[int, int, int]:
    try:
        status = path.stat()
    except OSError as error:
        raise ConfigurationError(f"{path} cannot be read: {error.strerror}") from None
    return status.st_mtime_ns, status.st_size, status.st_ino


def credentials_of(material: Material) -> Any:
    """gRPC's own form of the files."""
    return grpc.ssl_channel_credentials(material.ca, material.key, material.certificate)


def channel_options(settings: Settings, address: str) -> list[tuple[str, str | int]]:
    """Options of a connection to an address."""
    options: list[tuple[str, str | int]] = [
        ("grpc.use_local_subchannel_pool", 1),  # a connection of another client has another identity
        ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
        ("grpc.max_send_message_length", MAX_MESSAGE_BYTES),
        ("grpc.initial_reconnect_backoff_ms", 100),  # a server that comes back is found within a second
        ("grpc.max_reconnect_backoff_ms", 300),
        ("grpc.keepalive_time_ms", 60_000),  # the server takes a ping each 30 s
        ("grpc.keepalive_timeout_ms", 10_000),
        ("grpc.lb_policy_name", "round_robin"),  # over the addresses of one name
        ("grpc.service_config_disable_resolution", 1),
        ("grpc.primary_user_agent", f"vaultd-client/{_version()}"),
    ]
    name = settings.server_name
    if name is not None and "/" in name:
        # gRPC compares what stands in brackets as a whole, with URIs of the certificate too; without them it would take
        # `spiffe` for the host and the rest for a port.  As the authority of calls it takes the address for the same server.
        options.append(("grpc.ssl_target_name_override", f"[{name}]"))
        options.append(("grpc.default_authority", address.rpartition(":")[0].strip("[]")))
    elif name is not None:
        options.append(("grpc.ssl_target_name_override", name))
    return options


def _version() -> str:
    try:
        return version("vaultd-client")
    except PackageNotFoundError:
        return "unknown"
