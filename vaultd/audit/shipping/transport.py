"""Connections of sinks: TLS with pinned authorities and perhaps a client certificate, files read again when they change."""

from __future__ import annotations

import asyncio
import ssl
from dataclasses import dataclass
from typing import TYPE_CHECKING

from vaultd.audit.shipping.base import DeliveryFailed

if TYPE_CHECKING:
    from pathlib import Path


@dataclass(frozen=True, slots=True)
class TlsFiles:
    """Authorities that may vouch for the receiver (None: the system's), and who we are to it."""

    ca: Path | None = None
    certificate: Path | None = None
    key: Path | None = None

    def stamps(self) -> tuple[tuple[int, int], ...]:
        """Changes when a file does.  Raises DeliveryFailed."""
        try:
            found = [path.stat() for path in (self.ca, self.certificate, self.key) if path is not None]
        except OSError as error:
            raise DeliveryFailed("certificate", "a file of ca_file, certificate and key cannot be read") from error
        return tuple((status.st_mtime_ns, status.st_ino) for status in found)

    def read(self) -> tuple[bytes | None, bytes | None, bytes | None]:
        """CA, key and certificate, as gRPC wants them.  Raises DeliveryFailed."""
        try:
            ca, key, certificate = (
                path.read_bytes() if path is not None else None for path in (self.ca, self.key, self.certificate)
            )
        except OSError as error:
            raise DeliveryFailed("certificate", "a file of ca_file, certificate and key cannot be read") from error
        return ca, key, certificate

    def context(self) -> ssl.SSLContext:
        """Verifies name and chain.  Raises DeliveryFailed."""
        try:
            context = ssl.create_default_context(cafile=str(self.ca) if self.ca is not None else None)
            context.minimum_version = ssl.TLSVersion.TLSv1_2
            if self.certificate is not None:
                context.load_cert_chain(str(self.certificate), str(self.key))
        except (OSError, ssl.SSLError) as error:
            raise DeliveryFailed("certificate", "a file of ca_file, certificate and key cannot be read") from error
        return context


class Connection:
    """One TCP or TLS connection, made when it is needed and made again when files change."""

    def __init__(self, host: str, port: int, tls: TlsFiles | None) -> None:
        self._host = host
        self._port = port
        self._tls = tls
        self._stamps: tuple[tuple[int, int], ...] = ()
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    @property
    def open(self) -> bool:
        """Whether there is a connection that the other side has not ended, as far as we know."""
        return self._streams is not None and not self._streams[0].at_eof() and not self._streams[1].is_closing()

    async def streams(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """The connection, made if there is none.  Raises DeliveryFailed."""
        stamps = self._tls.stamps() if self._tls is not None else ()
        if self._streams is not None and self.open and stamps == self._stamps:
            return self._streams
        self.drop()
        context = await asyncio.to_thread(self._tls.context) if self._tls is not None else None
        try:
            self._streams = await asyncio.open_connection(
                self._host, self._port, ssl=context, server_hostname=self._host if context is not None else None
            )
        except ssl.SSLCertVerificationError as error:
            raise DeliveryFailed(
                "certificate", "the receiver's certificate is not one that ca_file vouches for"
            ) from error
        except (OSError, ssl.SSLError) as error:
            raise DeliveryFailed("connection", "the receiver cannot be reached") from error
        self._stamps = stamps
        return self._streams

    def drop(self) -> None:
        """Give the connection up at once: a peer that will not say goodbye is not waited for."""
        if self._streams is not None:
            self._streams[1].transport.abort()
            self._streams = None
