"""The way to the server: proxies, name, port, TLS with its exact reason, and HTTP/2."""

from __future__ import annotations

import ipaddress
import os
import socket
import ssl
from typing import TYPE_CHECKING, Any, Final

from cryptography import x509

from vaultd_client.ctl.doctor.files import LATE, names_of
from vaultd_client.ctl.values import show_time

if TYPE_CHECKING:
    import datetime

    from vaultd_client.ctl.doctor.findings import Findings
    from vaultd_client.settings import Settings

TIMEOUT_S: Final = 5.0
PROXIES: Final = ("grpc_proxy", "https_proxy", "http_proxy")
"""The variables that gRPC looks at, the first one that is set."""
EXCEPTIONS: Final = ("no_grpc_proxy", "no_proxy")
PREFACE: Final = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\x00\x00\x00\x04\x00\x00\x00\x00\x00"
"""The client's connection preface with empty settings (RFC 9113, 3.4)."""
ADVICE: Final = {
    "CERTIFICATE_REQUIRED": "say --cert and --key: this listener wants a client certificate",
    "UNKNOWN_CA": "the server does not know the authority of your certificate: use one of a trust bundle of the server",
    "CERTIFICATE_EXPIRED": "the server says that your certificate has expired: have it renewed, and compare the clocks",
    "BAD_CERTIFICATE": "the server refuses your certificate: its log says why",
    "CERTIFICATE_UNKNOWN": "the server refuses your certificate: its log says why",
    "CERTIFICATE_REVOKED": "your certificate was revoked: have another one issued",
    "DECRYPT_ERROR": "the key does not belong to the certificate: use the two files that were issued together",
    "PROTOCOL_VERSION": "the server speaks another version of TLS: look at the OpenSSL of this machine, or at what is in between",
    "WRONG_VERSION_NUMBER": "this port does not speak TLS: is it the right one?",
    "UNEXPECTED_EOF": "what is there ended the handshake: it may be a proxy, or no vaultd",
}
"""By the name of OpenSSL's reason, or a part of it."""


class Network:
    """Looks at the way to one address."""

    def __init__(self, settings: Settings, address: str, findings: Findings, now: datetime.datetime) -> None:
        self._settings = settings
        self._address = address
        host, _, port = address.rpartition(":")
        self._host = host.strip("[]")
        self._port = port
        self._findings = findings
        self._now = now

    def look(self) -> bool:
        """Tell how far one gets; returns whether a connection can be made."""
        self._look_at_proxies()
        if not self._host or not self._port.isdigit():
            self._findings.fail("address", f"`{self._address}` is no HOST:PORT", "write it as vault.example.org:7443")
            return False
        if not self._resolve():
            return False
        connection = self._connect()
        if connection is None:
            return False
        with connection:
            return self._shake_hands(connection)

    def _look_at_proxies(self) -> None:
        found = next((name for name in PROXIES if os.environ.get(name)), None)
        if found is None:
            return
        where = _without_password(os.environ[found])
        if _is_exception(self._host):
            self._findings.ok("proxy", f"{found} is set to {where}, and does not hold for {self._host}")
        else:
            self._findings.warn(
                "proxy",
                f"{found} is set: gRPC goes to {self._address} through {where}, which the checks below do not",
                f"if that is not meant: export no_proxy={self._host}",
            )

    def _resolve(self) -> bool:
        try:
            found = socket.getaddrinfo(self._host, int(self._port), type=socket.SOCK_STREAM)
        except (OSError, UnicodeError) as error:
            told = error.strerror if isinstance(error, OSError) else "it is no host name"
            self._findings.fail("dns", f"{self._host} has no address: {told}", "mend the name, or look at the resolver")
            return False
        addresses = list(dict.fromkeys(str(one[4][0]) for one in found))
        if addresses != [self._host]:
            self._findings.ok("dns", f"{self._host} is {', '.join(addresses)}")
        return True

    def _connect(self) -> socket.socket | None:
        try:
            connection = socket.create_connection((self._host, int(self._port)), TIMEOUT_S)
        except TimeoutError:
            advice = "a firewall may drop it, or the host is down"
            self._findings.fail("tcp", f"{self._address} does not answer within {TIMEOUT_S:g} s", advice)
        except ConnectionRefusedError:
            advice = "is vaultd running, and does it listen there? `listen` in its configuration says where"
            self._findings.fail("tcp", f"{self._address} refuses connections: nobody listens there", advice)
        except OSError as error:
            self._findings.fail("tcp", f"{self._address} is not reached: {error.strerror}", "look at the network")
        else:
            self._findings.ok("tcp", f"{self._address} answers")
            return connection
        return None

    # -- TLS ---------------------------------------------------------------------------------------------------------------

    def _shake_hands(self, connection: socket.socket) -> bool:
        try:
            context = self._context()
        except (OSError, ssl.SSLError, ValueError) as error:
            if not self._findings.failed:
                told = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
                self._findings.fail("tls", f"the files cannot be used: {told}", "look at ca, certificate and key")
            else:
                self._findings.skip("tls", "the files cannot be used: see above")
            return False
        try:
            with context.wrap_socket(connection, server_hostname=self._expected_name()) as secure:
                return self._look_at_server(secure)
        except ssl.SSLCertVerificationError as error:
            self._tell_wrong_certificate(error)
        except ssl.SSLError as error:
            self._tell_refused(error.reason or str(error))
        except TimeoutError:
            self._findings.fail(
                "tls", f"no handshake within {TIMEOUT_S:g} s", "this port may not speak TLS: is it the right one?"
            )
        except OSError as error:
            self._tell_refused(f"UNEXPECTED_EOF ({error.strerror})")
        return False

    def _context(self) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.set_alpn_protocols(["h2"])
        settings = self._settings
        if settings.ca is None:
            context.load_default_certs()
        else:
            context.load_verify_locations(cafile=str(settings.ca))
        context.check_hostname = not self._wants_uri()
        if settings.certificate is not None and settings.key is not None:
            context.load_cert_chain(settings.certificate, settings.key, password=_no_passphrase)
        return context

    def _wants_uri(self) -> bool:
        return "/" in (self._settings.server_name or "")

    def _expected_name(self) -> str:
        name = self._settings.server_name
        return self._host if name is None or self._wants_uri() else name

    def _look_at_server(self, secure: ssl.SSLSocket) -> bool:
        certificate = x509.load_der_x509_certificate(secure.getpeercert(binary_form=True) or b"")
        end = certificate.not_valid_after_utc
        if self._wants_uri() and self._settings.server_name not in names_of(certificate):
            self._findings.fail(
                "tls",
                f"the server is {_names(certificate)}, and not {self._settings.server_name}",
                "mend --server-name (VAULTD_SERVER_NAME), or the address",
            )
            return False
        if secure.selected_alpn_protocol() != "h2":
            self._findings.fail(
                "http2",
                "the server does not speak HTTP/2 (ALPN)",
                "gRPC needs it: a proxy in between may not pass it on",
            )
            return False
        try:
            secure.settimeout(TIMEOUT_S)
            secure.sendall(PREFACE)
            answer = secure.recv(
                9
            )  # in TLS 1.3 a server says only after the handshake what it thinks of our certificate
        except ssl.SSLError as error:
            self._tell_refused(error.reason or str(error))
            return False
        except OSError as error:
            self._tell_closed(error.strerror or "no answer")
            return False
        if not answer:
            self._tell_closed("closed")
            return False
        self._findings.ok(
            "tls", f"{secure.version()}, the server is {_names(certificate)}, until {show_time(end, self._now)}"
        )
        if end - self._now < LATE * (end - certificate.not_valid_before_utc):
            self._findings.warn("tls", "the server's certificate expires soon", "have it renewed; SIGHUP takes it up")
        return True

    def _tell_wrong_certificate(self, error: ssl.SSLCertVerificationError) -> None:
        theirs = self._their_certificate()
        names = "" if theirs is None else f"; it is for {_names(theirs)}"
        code, text = error.verify_code, error.verify_message
        if code == 10 and theirs is not None:
            text = f"the server's certificate expired {show_time(theirs.not_valid_after_utc, self._now)}"
            advice = "have it renewed on the server; if it is not expired, look at the clock of this machine"
        elif code == 9 and theirs is not None:
            text = f"the server's certificate is not valid before {show_time(theirs.not_valid_before_utc, self._now)}"
            advice = "look at the clock of this machine, and at the server's"
        elif code in {18, 19, 20, 21}:
            issuer = "" if theirs is None else f" ({theirs.issuer.rfc4514_string()})"
            text = f"the server's certificate is of an authority that is not in {self._settings.ca or 'the system list'}{issuer}"
            advice = "use the file of the server's own authority for --ca (VAULTD_CA), or look who answers there"
        elif code in {62, 64}:
            text = f"the server's certificate is not for {self._expected_name()}{names}"
            advice = "call it by a name in the certificate, or say that name with --server-name (VAULTD_SERVER_NAME)"
        else:
            advice = "have the server's certificate looked at"
        self._findings.fail("tls", text, advice)

    def _their_certificate(self) -> x509.Certificate | None:
        """Whatever the server presents, to tell of it; nothing is trusted or sent."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
        try:
            with socket.create_connection((self._host, int(self._port)), TIMEOUT_S) as connection:
                with context.wrap_socket(connection, server_hostname=self._expected_name()) as secure:
                    return x509.load_der_x509_certificate(secure.getpeercert(binary_form=True) or b"")
        except (OSError, ValueError):
            return None

    def _tell_refused(self, reason: str) -> None:
        advice = next((text for part, text in ADVICE.items() if part in reason), "the server's log says more")
        self._findings.fail("tls", f"the handshake failed: {reason.replace('_', ' ').lower()}", advice)

    def _tell_closed(self, how: str) -> None:
        """gRPC servers end the connection without an alert when they do not take a certificate."""
        advice = (
            "it does not take your certificate: it must be of a trust bundle of the server; the server's log says more"
        )
        if self._settings.certificate is None:
            advice = (
                "it wants a client certificate: say --cert and --key, or the address of the listener that takes tokens"
            )
        elif any(one.check in {"certificate", "chain", "usage"} for one in self._findings.failed):
            advice = "it does not take your certificate: see above why"
        self._findings.fail("tls", f"the server ended the connection after the handshake ({how})", advice)


def _no_passphrase() -> Any:
    return b""


def _names(certificate: x509.Certificate) -> str:
    names = names_of(certificate)
    try:
        found = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        names += [str(one) for one in found.get_values_for_type(x509.IPAddress)]
    except x509.ExtensionNotFound:
        pass
    return ", ".join(name.removeprefix("dns:") for name in names) or "without a name"


def _without_password(url: str) -> str:
    scheme, separator, rest = url.rpartition("://")
    return f"{scheme}{separator}{rest.rpartition('@')[2]}"


def _is_exception(host: str) -> bool:
    """Whether no_proxy names a host, as gRPC reads it: suffixes, and ranges of addresses."""
    said = next((os.environ[name] for name in EXCEPTIONS if os.environ.get(name)), "")
    for entry in (one.strip() for one in said.split(",")):
        if not entry:
            continue
        try:
            if ipaddress.ip_address(host) in ipaddress.ip_network(entry, strict=False):
                return True
        except ValueError:
            if host.lower().endswith(entry.lower()):
                return True
    return False
