"""HTTP/2 by hand, over TLS with a client certificate: enough to write what no client library would.

Header blocks are written as literals without indexing and without Huffman coding.  The dynamic table of the peer is set to
nothing, so that its blocks can be read without keeping one.
"""

from __future__ import annotations

import socket
import ssl
import time
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
DATA, HEADERS, RST_STREAM, SETTINGS, PING, GOAWAY, WINDOW_UPDATE, CONTINUATION = 0, 1, 3, 4, 6, 7, 8, 9
END_STREAM, ACK, END_HEADERS = 0x1, 0x1, 0x4
CANCEL, ENHANCE_YOUR_CALM = 0x8, 0xB
HEADER_TABLE_SIZE, INITIAL_WINDOW_SIZE = 1, 4
STATUS_200, STATUS_400, STATUS_LAST = 8, 12, 14  # in the static table of RFC 7541


class Frame(NamedTuple):
    kind: int
    flags: int
    stream: int
    payload: bytes


def frame(kind: int, flags: int, stream: int, payload: bytes = b"") -> bytes:
    """One frame."""
    return len(payload).to_bytes(3, "big") + bytes((kind, flags)) + stream.to_bytes(4, "big") + payload


def integer(value: int, prefix_bits: int) -> bytes:
    """An HPACK integer whose first octet has no other bits set."""
    most = (1 << prefix_bits) - 1
    if value < most:
        return bytes((value,))
    octets = bytearray((most,))
    value -= most
    while value >= 0x80:
        octets.append(value & 0x7F | 0x80)
        value >>= 7
    octets.append(value)
    return bytes(octets)


def literal(name: bytes, value: bytes) -> bytes:
    """A header field: literal, not indexed, name and value as they are."""
    return b"\x00" + integer(len(name), 7) + name + integer(len(value), 7) + value


def request_block(path: str | bytes, *extra: tuple[bytes, bytes]) -> bytes:
    """The header block of a gRPC call."""
    raw = path.encode() if isinstance(path, str) else path
    fields = (
        (b":method", b"POST"),
        (b":scheme", b"https"),
        (b":path", raw),
        (b":authority", b"localhost"),
        (b"te", b"trailers"),
        (b"content-type", b"application/grpc"),
        *extra,
    )
    return b"".join(literal(name, value) for name, value in fields)


def message(body: bytes) -> bytes:
    """A gRPC message, not compressed."""
    return b"\x00" + len(body).to_bytes(4, "big") + body


CODED = {
    5: b"012aceiost",
    6: b" %-./3456789=A_bdfghlmnpru",
    7: b":BCDEFGHIJKLMNOPQRSTUVWYjkqvwxyz",
    8: b"&*,;XZ",
    10: b'!"()?',
    11: b"'+|",
    12: b"#>",
    13: b"\x00$@[]~",
    14: b"^}",
    15: b"<`{",
}
"""Characters by the length of their code (RFC 7541, appendix B).  Codes of a length follow one another, in this order."""


def read_coded(coded: bytes) -> bytes:
    """A string in the Huffman code of HPACK, of printable characters."""
    text, value, bits, first = bytearray(), 0, 0, 0
    for bit in (octet >> shift & 1 for octet in coded for shift in range(7, -1, -1)):
        value, bits, first = value << 1 | bit, bits + 1, first << 1
        symbols = CODED.get(bits, b"")
        if value - first < len(symbols):
            text.append(symbols[value - first])
            value = bits = first = 0
        else:
            first += len(symbols)
    return bytes(text)


def read_integer(block: bytes, at: int, prefix_bits: int) -> tuple[int, int]:
    """The HPACK integer at an offset, and the offset behind it."""
    most = (1 << prefix_bits) - 1
    value = block[at] & most
    at += 1
    if value < most:
        return value, at
    shift = 0
    while True:
        value += (block[at] & 0x7F) << shift
        shift += 7
        at += 1
        if not block[at - 1] & 0x80:
            return value, at


def read_block(block: bytes) -> dict[bytes, bytes]:
    """Fields with literal names, and `:status`; everything else that the static table may name is left out."""
    fields: dict[bytes, bytes] = {}
    at = 0
    while at < len(block):
        first = block[at]
        if first & 0x80:
            index, at = read_integer(block, at, 7)
            if STATUS_200 <= index <= STATUS_400:
                fields[b":status"] = b"200" if index == STATUS_200 else b"other"
            continue
        if first & 0xE0 == 0x20:  # the size of the dynamic table, which is nothing
            _, at = read_integer(block, at, 5)
            continue
        index, at = read_integer(block, at, 6 if first & 0x40 else 4)
        strings = []
        for _ in range(1 if index else 2):
            coded = block[at] & 0x80
            length, at = read_integer(block, at, 7)
            strings.append(read_coded(block[at : at + length]) if coded else block[at : at + length])
            at += length
        if not index:
            fields[strings[0]] = strings[1]
        elif STATUS_200 <= index <= STATUS_LAST:
            fields[b":status"] = strings[0]
    return fields


def client_context(tls: Path, stem: str | None, maximum: ssl.TLSVersion = ssl.TLSVersion.TLSv1_3) -> ssl.SSLContext:
    """Presents the certificate `tls/{stem}.crt` and nothing else, or none.

    It trusts no authority, because OpenSSL would add it to what it presents; the other clients of these tests check the
    server's certificate.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    context.set_alpn_protocols(["h2"])
    context.maximum_version = maximum
    if stem is not None:
        context.load_cert_chain(tls / f"{stem}.crt", tls / f"{stem}.key")
    return context


class Connection:
    """One connection, blocking, every wait of it bounded."""

    def __init__(self, port: int, context: ssl.SSLContext, timeout_s: float = 60.0) -> None:
        plain = socket.create_connection(("127.0.0.1", port), timeout_s)
        try:
            self.socket = context.wrap_socket(plain, server_hostname="localhost")
        except BaseException:
            plain.close()
            raise
        self.port = self.socket.getsockname()[1]
        self._received = b""

    def __enter__(self) -> Connection:
        return self

    def __exit__(self, *_: object) -> None:
        self.socket.close()

    def start(self, window: int = 65_535) -> None:
        """Preface and settings: of each stream so many bytes may come before the peer is told that there is room again."""
        settings = {HEADER_TABLE_SIZE: 0, INITIAL_WINDOW_SIZE: window}
        pairs = (name.to_bytes(2, "big") + value.to_bytes(4, "big") for name, value in settings.items())
        self.send(PREFACE + frame(SETTINGS, 0, 0, b"".join(pairs)))

    def send(self, data: bytes) -> None:
        """Write all."""
        self.socket.sendall(data)

    def send_until_refused(self, data: bytes, chunk: int = 64 * 1024) -> bool:
        """Write in pieces; True when the peer closed before all was written."""
        try:
            for at in range(0, len(data), chunk):
                self.send(data[at : at + chunk])
        except OSError:
            return True
        return False

    def frames(self, within_s: float) -> Iterator[Frame]:
        """Frames as they come, until the peer closes or the time is over.  Settings are acknowledged."""
        until = time.monotonic() + within_s
        while True:
            while len(self._received) >= 9:
                length = int.from_bytes(self._received[:3], "big")
                if len(self._received) < 9 + length:
                    break
                head, payload = self._received[:9], self._received[9 : 9 + length]
                self._received = self._received[9 + length :]
                got = Frame(head[3], head[4], int.from_bytes(head[5:], "big") & 0x7FFFFFFF, payload)
                if got.kind == SETTINGS and not got.flags & ACK:
                    self.send_until_refused(frame(SETTINGS, ACK, 0))
                yield got
            left = until - time.monotonic()
            if left <= 0:
                return
            self.socket.settimeout(left)
            try:
                data = self.socket.recv(65536)
            except OSError:  # closed hard, or the time is over
                return
            if not data:
                return
            self._received += data

    def open(self, stream: int, path: str | bytes, *extra: tuple[bytes, bytes]) -> None:
        """Begin a call and send nothing of its body."""
        self.send(frame(HEADERS, END_HEADERS, stream, request_block(path, *extra)))

    def call(self, stream: int, path: str | bytes, body: bytes, *extra: tuple[bytes, bytes]) -> Outcome:
        """One whole call."""
        self.open(stream, path, *extra)
        self.send(frame(DATA, END_STREAM, stream, message(body)))
        return self.outcome(stream)

    def outcome(self, stream: int, within_s: float = 60.0) -> Outcome:
        """How a call ends: its grpc-status; or None when the stream or the connection ended without one."""
        body = b""
        for got in self.frames(within_s):
            if got.kind == GOAWAY or (got.kind == RST_STREAM and got.stream == stream):
                return Outcome(None, body)
            if got.stream != stream:
                continue
            if got.kind == DATA:
                body += got.payload
            elif got.kind == HEADERS:
                fields = read_block(got.payload)
                if b"grpc-status" in fields:
                    return Outcome(int(fields[b"grpc-status"]), body)
                if got.flags & END_STREAM:
                    return Outcome(None, body)
        return Outcome(None, body)


class Outcome(NamedTuple):
    """The gRPC status of a call, if it got one, and the body of its answer."""

    status: int | None
    body: bytes
