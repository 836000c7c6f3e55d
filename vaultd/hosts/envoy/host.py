"""The Envoy host: listeners of the Envoy that this process is, and their certificates."""

from __future__ import annotations

import asyncio
import itertools
import os
import socket
import ssl
from typing import TYPE_CHECKING, Any, Final

from vaultd.hosts.envoy import admin, config, embedding
from vaultd.hosts.envoy.app import Calls, GrpcApp
from vaultd.hosts.envoy.listeners import replace_file
from vaultd.hosts.envoy.peers import Certificates

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from vaultd.interceptors.chain import Chain

POLL_S: Final = 0.005
START_S: Final = 20.0
SHOWN_S: Final = 2.0
"""How long it may take until handshakes show a certificate that Envoy says it has."""
_numbers: Final = itertools.count(1)


class EnvoyHost:
    """One mTLS listener, and perhaps one that asks for no client certificate, in the Envoy around this process."""

    def __init__(
        self,
        chain: Chain,
        read_tls: Callable[[], tuple[bytes, bytes, bytes]],
        tls_changed: Callable[[], bool],
        on_refused: Callable[[], None],
    ) -> None:
        """`read_tls` gives private key, certificate chain and client authorities; `tls_changed` says when to read again.

        on_refused: what was read last is not what handshakes show.
        """
        process = embedding.around()
        if process is None:
            raise RuntimeError("this process is no Envoy: start the server with --host envoy")
        self._process = process
        self._number = next(_numbers)
        self._directory = process.directory / f"host-{self._number}"
        self._admin = process.directory / config.ADMIN
        self._calls = Calls()
        self._chain = chain
        self._certificates = Certificates()
        self._read_tls = read_tls
        self._tls_changed = tls_changed
        self._on_refused = on_refused
        self._leaf = b""
        self._at: tuple[str, int] = ("", 0)
        self._authorities = b""
        self._versions = itertools.count(1)
        self._key_fd = -1

    async def start(self, listen: str, listen_tls: str) -> tuple[int, int]:
        """Bind and serve; returns the ports, 0 for what is not configured.  Raises OSError when one cannot be bound."""
        listen = await _numeric(listen)
        listen_tls = listen_tls and await _numeric(listen_tls)
        self._directory.mkdir(mode=0o700)
        self._write_secrets()
        wanted = {
            self._name("mtls"): (listen, GrpcApp(self._chain, self._calls, self._certificates)),
            **({self._name("tls"): (listen_tls, GrpcApp(self._chain, self._calls, None))} if listen_tls else {}),
        }
        resources = {}
        for name, (address, app) in wanted.items():
            embedding.add(name, app)
            resources[name] = config.listener(
                name,
                address,
                config.App(f"{embedding.MODULE}:{name}", self._process.library),
                self._directory,
                mutual=name == self._name("mtls"),
            )
        self._process.listeners.put(resources)
        try:
            ports = await self._bound(wanted)
            self._at = listen.rpartition(":")[0].strip("[]"), ports[self._name("mtls")]
            if not await self._is_shown():
                raise OSError(
                    "tls: Envoy does not take the certificate; RSA of 2,048 to 4,096 bits or ECDSA of P-256 will do"
                )
        except BaseException:
            self._process.listeners.take(wanted)
            raise
        finally:
            for name in wanted:
                embedding.remove(name)
        return ports[self._name("mtls")], ports.get(self._name("tls"), 0)

    async def _bound(self, wanted: dict[str, Any]) -> dict[str, int]:
        async with asyncio.timeout(START_S):
            while True:
                ports = await admin.bound_ports(self._admin)
                if set(wanted) <= set(ports):
                    return ports
                refused = await admin.refused_listeners(self._admin)
                for name, why in refused.items():
                    if name in wanted:
                        address = wanted[name][0]
                        raise OSError(f"cannot listen on {address}; is another process using it? Envoy says: {why}")
                await asyncio.sleep(POLL_S)

    def _name(self, kind: str) -> str:
        return f"h{self._number}_{kind}"

    async def refresh(self) -> None:
        """Put changed certificate files in force, for connections that begin from now on."""
        if self._tls_changed():
            written = self._write_secrets()
            await _until(lambda: self._in_force(written))
            if not await self._is_shown():
                self._on_refused()

    async def _is_shown(self) -> bool:
        """Whether handshakes show the certificate.  Envoy says that it has one also where it could not use it."""
        loop = asyncio.get_running_loop()
        until = loop.time() + SHOWN_S
        while await _shown_at(*self._at) != self._leaf:
            if loop.time() > until:
                return False
            await asyncio.sleep(POLL_S)
        return True

    async def _in_force(self, secrets: set[tuple[str, str]]) -> bool:
        return secrets <= await admin.secrets_in_force(self._admin)

    async def _gone(self, names: set[str]) -> bool:
        return not names & set(await admin.bound_ports(self._admin))

    def _write_secrets(self) -> set[tuple[str, str]]:
        key, certificate, authorities = self._read_tls()
        self._leaf = ssl.PEM_cert_to_DER_cert(_first(certificate))
        version = f"{self._number}.{next(self._versions)}"
        # The key reaches Envoy, which is this process, by a descriptor: it is in no file.
        fd = os.memfd_create("vaultd-tls-key", os.MFD_CLOEXEC)
        os.write(fd, key)
        secrets = [config.certificate_secret(certificate, f"/dev/fd/{fd}")]
        if authorities != self._authorities:
            secrets.append(config.authorities_secret(authorities))
            self._authorities = authorities
        for secret in secrets:
            path = config.secret_path(self._directory, secret["name"])
            replace_file(path, config.resources_file(version, [secret]))
        if self._key_fd >= 0:
            os.close(self._key_fd)
        self._key_fd = fd
        return {(secret["name"], version) for secret in secrets}

    async def stop(self, grace_s: float) -> None:
        """Refuse new calls, let those under way finish within the grace, then end them."""
        names = {self._name("mtls"), self._name("tls")}
        self._process.listeners.take(names)
        await self._calls.drain(grace_s)
        await _until(lambda: self._gone(names))
        os.close(self._key_fd)


def _first(certificates: bytes) -> str:
    text = certificates.decode("ascii", "replace")
    return text[text.index(ssl.PEM_HEADER) : text.index(ssl.PEM_FOOTER) + len(ssl.PEM_FOOTER)]


async def _shown_at(host: str, port: int) -> bytes | None:
    """The certificate that a handshake shows; None where there is none."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    context.set_alpn_protocols(["h2"])
    try:
        async with asyncio.timeout(SHOWN_S):
            _, writer = await asyncio.open_connection(host, port, ssl=context)
    except (OSError, TimeoutError):
        return None
    shown: bytes | None = writer.get_extra_info("ssl_object").getpeercert(binary_form=True)
    writer.transport.abort()
    return shown


async def _numeric(address: str) -> str:
    """HOST:PORT with an address for a name, which Envoy does not take.  Raises OSError."""
    host, _, port = address.rpartition(":")
    try:
        found = await asyncio.get_running_loop().getaddrinfo(
            host.strip("[]"), int(port), type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )
    except OSError as error:
        raise OSError(f"cannot listen on {address}: nothing has that address or name") from error
    number = found[0][4][0]
    return f"[{number}]:{port}" if ":" in str(number) else f"{number}:{port}"


async def _until(holds: Callable[[], Awaitable[bool]]) -> None:
    """Raises TimeoutError."""
    async with asyncio.timeout(START_S):
        while not await holds():  # noqa: ASYNC110  # Envoy does not tell: it can only be asked again
            await asyncio.sleep(POLL_S)
