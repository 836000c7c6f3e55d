"""What makes a chain of the lines of a log.

    content ,"chain":"<64 hex>"}                        written while the server was never unsealed
    content ,"chain":"<64 hex>","mac":"<32 hex>"}       written with the key ring

    chain_n = SHA-256(chain_(n-1) || content_n)         chain before the first record: SHA-256(label || chain id)
    mac_n   = the first 16 bytes of HMAC-SHA-256(key, chain_n)

A line carries its own chain hash, and not the one before it, so that a line that was changed is the one that does not fit.
The MAC covers everything before it, through the hash.  JSON escapes quotation marks, so what a record holds cannot look like
its end.
"""

from __future__ import annotations

import hashlib
from binascii import hexlify
from typing import Final, NamedTuple

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.kdf.hkdf import HKDFExpand

MAC_BYTES: Final = 16
KEY_BYTES: Final = 32
RESERVED: Final = frozenset({"seq", "time", "chain", "mac"})
"""Fields that the log itself sets."""

_START_LABEL: Final = b"vaultd audit chain v1\n"
_CHAIN: Final = b',"chain":"'
_MAC: Final = b'","mac":"'
_END: Final = b'"}'
_PLAIN_LINE: Final = b"%b" + _CHAIN + b"%b" + _END
_MACED_LINE: Final = b"%b" + _CHAIN + b"%b" + _MAC + b"%b" + _END
_CHAIN_HEX: Final = 64
_MAC_HEX: Final = 2 * MAC_BYTES
_PLAIN_TAIL: Final = len(_CHAIN) + _CHAIN_HEX + len(_END)
_MACED_TAIL: Final = _PLAIN_TAIL + len(_MAC) + _MAC_HEX
_BLOCK: Final = 64

_sha256 = hashlib.sha256


def first_chain(chain_id: bytes) -> bytes:
    """The chain hash before the first record."""
    return hashlib.sha256(_START_LABEL + chain_id).digest()


class RecordMac:
    """HMAC-SHA-256 over chain hashes with one key (RFC 2104), its two keyed halves prepared once."""

    __slots__ = ("_inner", "_outer")

    def __init__(self, key: bytes) -> None:
        if len(key) != KEY_BYTES:
            raise ValueError(f"the key must have {KEY_BYTES} bytes")
        padded = key.ljust(_BLOCK, b"\0")
        self._inner = hashlib.sha256(bytes(byte ^ 0x36 for byte in padded))
        self._outer = hashlib.sha256(bytes(byte ^ 0x5C for byte in padded))

    def of(self, chain: bytes) -> str:
        """The MAC of the record with this chain hash, in hexadecimal digits."""
        return self.digits(chain).decode()

    def digits(self, chain: bytes) -> bytes:
        """The same digits, as they stand in a line."""
        inner, outer = self._inner.copy(), self._outer.copy()
        inner.update(chain)
        outer.update(inner.digest())
        return hexlify(outer.digest()[:MAC_BYTES])


def sealed_key(key: bytes) -> bytes:
    """The key that MACs what is written after the vault was sealed: whoever has it cannot forge what was written before."""
    return HKDFExpand(hashes.SHA256(), KEY_BYTES, b"vaultd audit sealed v1").derive(key)


def link(before: bytes, content: bytes, mac: RecordMac | None) -> tuple[bytes, bytes]:
    """Make a line of a record's content, JSON without its closing brace; return it and its chain hash."""
    chain = _sha256(before + content).digest()
    if mac is None:
        return _PLAIN_LINE % (content, hexlify(chain)), chain
    return _MACED_LINE % (content, hexlify(chain), mac.digits(chain)), chain


class Parts(NamedTuple):
    """A line taken apart."""

    content: bytes
    chain: bytes
    """b"" for a line of a release that had no chain."""
    mac: str
    """Empty where there is none."""


def take_apart(line: bytes) -> Parts:
    """Find chain hash and MAC of a line.  Of a line that is damaged there, what it holds is content, and has no chain."""
    if line.endswith(_END):
        for tail, has_mac in ((_MACED_TAIL, True), (_PLAIN_TAIL, False)):
            start = len(line) - tail
            digits_at = start + len(_CHAIN)
            if start <= 0 or line[start:digits_at] != _CHAIN:
                continue
            digits, rest = line[digits_at : digits_at + _CHAIN_HEX], line[digits_at + _CHAIN_HEX : -len(_END)]
            if not _is_hex(digits):
                continue
            if not has_mac:
                return Parts(line[:start], bytes.fromhex(digits.decode()), "")
            mac = rest[len(_MAC) :]
            if rest.startswith(_MAC) and _is_hex(mac):
                return Parts(line[:start], bytes.fromhex(digits.decode()), mac.decode())
    return Parts(line, b"", "")


def _is_hex(digits: bytes) -> bool:
    return not digits.translate(None, b"0123456789abcdef")


def follows(before: bytes, parts: Parts) -> bool:
    """Whether a line is the one that was written after the record with the chain hash `before`."""
    return hashlib.sha256(before + parts.content).digest() == parts.chain
