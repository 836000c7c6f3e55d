"""The verified client certificate of a call, as this process's own Envoy wrote it into `x-forwarded-client-cert`.

Envoy removes the header of a client and sets its own (SANITIZE_SET).  Only `Cert` and `Chain` are read, which are PEM and
percent-encoded, so that nothing of a certificate's content can look like another element.  `URI`, `DNS` and `Subject` are
never read: Envoy writes URIs as they are, and a name such as `spiffe://a/x;URI=spiffe://b/admin` would then be two.
"""

from __future__ import annotations

from typing import Final
from urllib.parse import unquote_to_bytes

from vaultd.interceptors.memo import Memo

MAX_CACHED: Final = 10_000
MAX_CACHED_BYTES: Final = 64 * 1024 * 1024
"""A client may show tens of kilobytes that lead up to nothing."""
_MARK: Final = b"-----BEGIN CERTIFICATE-----"


class Certificates:
    """Header values and the certificates in them.  A connection's value is the same for all of its calls, and parsed once."""

    def __init__(self) -> None:
        self._known: Memo[bytes, bytes] = Memo(MAX_CACHED, MAX_CACHED_BYTES)

    def __len__(self) -> int:
        """Return how many values are kept."""
        return len(self._known)

    def of(self, header: bytes) -> bytes:
        """The client's chain in PEM, leaf first; b"" for a value that is not Envoy's, which identifies nobody."""
        known = self._known.get(header)
        if known is None:
            known = parse_client_certificates(header)
            self._known.keep(header, known, len(header) + len(known))
        return known


def parse_client_certificates(header: bytes) -> bytes:
    """Leaf and chain in PEM; b"" unless there is exactly one element, with one leaf that its chain begins with."""
    fields: dict[bytes, bytes] = {}
    at, size = 0, len(header)
    while at < size:
        equals = header.find(b"=", at)
        if equals < 0:
            return b""
        name, at = header[at:equals], equals + 1
        if header[at : at + 1] == b'"':
            end = header.find(b'"', at + 1)
            if end < 0:
                return b""
            value, at = header[at + 1 : end], end + 1
        else:
            end = min((found for found in (header.find(b";", at), header.find(b",", at)) if found >= 0), default=size)
            value, at = header[at:end], end
        if name in fields:
            return b""  # what comes twice is not from Envoy
        fields[name] = value
        if at < size and header[at : at + 1] != b";":
            return b""  # a second element: another proxy's, and there is none
        at += 1
    leaf, chain = (unquote_to_bytes(fields.get(name, b"")) for name in (b"Cert", b"Chain"))
    if leaf.count(_MARK) != 1 or not chain.startswith(leaf):
        return b""
    return chain
