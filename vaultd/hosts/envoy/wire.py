"""gRPC over HTTP/2 as far as a server needs it: frames of messages, deadlines, and how a status is written.

Source: https://github.com/grpc/grpc/blob/master/doc/PROTOCOL-HTTP2.md
"""

from __future__ import annotations

import re
from binascii import Error as Base64Error
from binascii import a2b_base64, b2a_base64
from typing import TYPE_CHECKING, Any, Final

from vaultd.errors import InvalidArgument, ResourceExhausted, Unimplemented

if TYPE_CHECKING:
    from collections.abc import Iterable

MAX_MESSAGE_BYTES: Final = 4 * 1024 * 1024
PREFIX_BYTES: Final = 5
CONTENT_TYPE: Final = b"application/grpc"
UNITS_S: Final = {b"H": 3600.0, b"M": 60.0, b"S": 1.0, b"m": 1e-3, b"u": 1e-6, b"n": 1e-9}
_TIMEOUT: Final = re.compile(rb"([0-9]{1,8})([HMSmun])")
_ESCAPED: Final = re.compile(rb"[^ -$&-~]")
Header = tuple[bytes, bytes]


def only_message(body: bytes) -> bytes | None:
    """The message that a body is: one, whole and not compressed.  None when it is anything else, which `Messages` tells."""
    length = len(body) - PREFIX_BYTES
    if 0 <= length <= MAX_MESSAGE_BYTES and body[:PREFIX_BYTES] == b"\0" + length.to_bytes(4, "big"):
        return body[PREFIX_BYTES:]
    return None


class Messages:
    """Takes messages out of the body of a request, however it is cut into pieces."""

    __slots__ = ("_at", "_body")

    def __init__(self) -> None:
        self._body: bytes | bytearray = b""
        self._at = 0

    def feed(self, piece: bytes) -> None:
        """Add a piece of the body."""
        if self._at == len(self._body):
            self._body, self._at = piece, 0
            return
        if self._at or not isinstance(self._body, bytearray):
            self._body, self._at = bytearray(memoryview(self._body)[self._at :]), 0
        self._body += piece

    def take(self) -> bytes | None:
        """The next message, or None while it is not there as a whole.  Raises what refuses it.

        A message that is too large is refused at its prefix: no more of it is kept.
        """
        body, begin = self._body, self._at + PREFIX_BYTES
        if len(body) < begin:
            return None
        if body[self._at]:
            raise Unimplemented("COMPRESSION_UNSUPPORTED", "messages must not be compressed; send them as they are")
        length = int.from_bytes(body[begin - 4 : begin], "big")
        if length > MAX_MESSAGE_BYTES:
            raise ResourceExhausted("MESSAGE_TOO_LARGE", "a message is larger than 4 MiB; send less in one call")
        end = begin + length
        if len(body) < end:
            return None
        self._at = end
        return bytes(body[begin:end])

    @property
    def held(self) -> int:
        """How much is kept, of messages that were not taken."""
        return len(self._body) - self._at

    def require_whole(self) -> None:
        """The body is over: raise InvalidArgument when it ended within a message."""
        if self._at < len(self._body):
            raise InvalidArgument("MESSAGE_TRUNCATED", "the call ended within a message; send it as a whole")


def frame(message: bytes) -> bytes:
    """A message with its prefix, not compressed."""
    return b"\0" + len(message).to_bytes(4, "big") + message


def parse_timeout(value: bytes) -> float | None:
    """Seconds of a `grpc-timeout`; None when it is not one, as if it were not there."""
    match = _TIMEOUT.fullmatch(value)
    return None if match is None else int(match[1]) * UNITS_S[match[2]]


def decode_binary(value: bytes) -> bytes | None:
    """The bytes of a `-bin` header, with or without padding; None when it is no base64."""
    try:
        return a2b_base64(value + b"=" * (-len(value) % 4), strict_mode=True)
    except Base64Error:
        return None


def encode_trailing(trailing: Iterable[tuple[str, str | bytes]]) -> list[Header]:
    """Metadata as headers: binary values in base64 without padding."""
    return [
        (name.encode(), value.encode() if isinstance(value, str) else b2a_base64(value, newline=False).rstrip(b"="))
        for name, value in trailing
    ]


def encode_message(text: str) -> bytes:
    """A `grpc-message`: UTF-8, with everything but printable ASCII and the percent sign escaped."""
    return _ESCAPED.sub(lambda match: b"%%%02X" % ord(match[0]), text.encode())


def status_headers(code: int, text: str, trailing: Iterable[tuple[str, str | bytes]]) -> list[Header]:
    """What says how a call ended, as trailers or, without a body, as headers."""
    headers = [(b"grpc-status", b"%d" % code)]
    if text:
        headers.append((b"grpc-message", encode_message(text)))
    headers += encode_trailing(trailing)
    return headers


def is_grpc(content_type: bytes) -> bool:
    """Whether a request says that it is gRPC with messages of any form."""
    return content_type[:16].lower() == CONTENT_TYPE and content_type[16:17] in {b"", b"+", b";"}


Event = dict[str, Any]
