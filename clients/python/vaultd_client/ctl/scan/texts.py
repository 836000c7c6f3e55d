"""The parts of a file that are compared: words, runs of known lengths, and what base64, hex and escapes hide."""

from __future__ import annotations

import base64
import binascii
import html
import re
from typing import TYPE_CHECKING, Final
from urllib.parse import unquote_to_bytes

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator

MAX_DEPTH: Final = 2
"""Base64 within base64, as of a file within a Kubernetes secret within a Helm release."""
MAX_ENCODED: Final = 96 * 1024
TOKEN: Final = re.compile(rb"(?<![A-Za-z0-9+/_-])[A-Za-z0-9+/_-]{16,}={0,2}")
SEGMENT: Final = re.compile(rb"[A-Za-z0-9_-]{16,}={0,2}")
HEX: Final = re.compile(rb"(?<![0-9A-Za-z])(?:[0-9a-fA-F]{2}){8,}(?![0-9A-Za-z])")
_NAME: Final = re.compile(rb"[a-z_/-]+")
"""Encoded bytes have a digit or a capital among 16 characters, but for one time in a million; names in programs have not."""
_BEFORE: Final = re.compile(rb"""[\s"'`=:,;(\[{<>@/|\0]""")
_AFTER: Final = frozenset(b" \t\r\n\"'`,;)]}<>@&|\\/\0")
_ESCAPED: Final = re.compile(rb"\\(?:u([0-9a-fA-F]{4})|(.))", re.DOTALL)
_CONTROL: Final = {b"n": b"\n", b"t": b"\t", b"r": b"\r", b"b": b"\b", b"f": b"\f"}
_PERCENT: Final = re.compile(rb"%[0-9a-fA-F]{2}")
_ENTITY: Final = re.compile(rb"&(?:#\d+|#x[0-9a-fA-F]+|amp|lt|gt|quot|apos);")


class Reader:
    """Divides files, and shows the parts to somebody.  lengths: those of what is looked for and is no word."""

    def __init__(self, lengths: Collection[int], min_length: int, see: Callable[[bytes, int, str], None]) -> None:
        self._lengths = sorted(lengths)
        self._word = re.compile(rb"[A-Za-z0-9_-]{%d,}" % min_length)
        self._see = see

    def read(self, content: bytes) -> None:
        """Show everything in a file, or in a part of one, that may be a secret."""
        self._see(content.strip(), 0, "plain")
        self._read(content, 0, "plain", MAX_DEPTH, move=1)
        for start, line in _special_lines(content):
            for how, view in _views(line):
                self._read(view, start, how, MAX_DEPTH, move=0)

    def _read(self, content: bytes, offset: int, how: str, depth: int, *, move: int) -> None:
        """move: 1 where positions in the content are positions in the file, and 0 elsewhere."""
        see = self._see
        for found in self._word.finditer(content):
            see(found.group(), offset + move * found.start(), how)
        if self._lengths:
            self._runs(content, offset, how, move=move)
        if not depth:
            return
        for start, decoded, encoding in _decoded(content):
            where = offset + move * start
            told = encoding if how == "plain" else f"{how}, {encoding}"
            see(decoded, where, told)
            if (bare := decoded.strip()) != decoded:
                see(bare, where, told)
            if _is_text(decoded):
                self._read(decoded, where, told, depth - 1, move=0)
            else:
                for found in self._word.finditer(decoded):
                    see(found.group(), where, told)

    def _runs(self, content: bytes, offset: int, how: str, *, move: int) -> None:
        """What stands between two marks of punctuation, by length."""
        size, see = len(content), self._see
        starts = [0, *(found.end() for found in _BEFORE.finditer(content))]
        for length in self._lengths:
            for start in starts:
                end = start + length
                if end < size:
                    if content[end] not in _AFTER:
                        continue
                elif end > size:
                    break
                see(content[start:end], offset + move * start, how)


def _is_text(content: bytes) -> bool:
    try:
        content.decode("utf-8")
    except UnicodeDecodeError:
        return False
    return True


def _special_lines(content: bytes) -> Iterator[tuple[int, bytes]]:
    """Lines that have an escape, and where they begin."""
    if not (b"\\" in content or b"%" in content or b"&" in content):
        return
    start = 0
    for line in content.splitlines(keepends=True):
        if b"\\" in line or b"%" in line or b"&" in line:
            yield start, line
        start += len(line)


def _views(line: bytes) -> Iterator[tuple[str, bytes]]:
    """A line as it reads once escapes are taken away."""
    if b"\\" in line:
        yield "JSON string", _ESCAPED.sub(_unescaped, line)
    if _PERCENT.search(line):
        yield "URL", unquote_to_bytes(line)
    if _ENTITY.search(line):
        yield "XML", html.unescape(line.decode("utf-8", "surrogateescape")).encode("utf-8", "surrogateescape")


def _unescaped(found: re.Match[bytes]) -> bytes:
    if found[1] is not None:
        return chr(int(found[1], 16)).encode("utf-8", "replace")
    return _CONTROL.get(found[2], found[2])


def _decoded(content: bytes) -> Iterator[tuple[int, bytes, str]]:
    for found in HEX.finditer(content):
        yield found.start(), binascii.unhexlify(found.group()), "hex"
    for found in TOKEN.finditer(content):
        token = found.group()
        if _NAME.fullmatch(token):
            continue
        if (decoded := _base64(token)) is not None:
            yield found.start(), decoded, "base64"
        if b"/" in token:  # perhaps the path of a URL, and one of its segments is base64
            for segment in SEGMENT.finditer(token):
                if segment.span() != (0, len(token)) and (decoded := _base64(segment.group())) is not None:
                    yield found.start() + segment.start(), decoded, "base64"


def _base64(token: bytes) -> bytes | None:
    """What a token is base64 of, in either alphabet; None for none."""
    bare = token[:MAX_ENCODED].rstrip(b"=").translate(_STANDARD)
    if len(bare) % 4 == 1:
        return None
    try:
        return base64.b64decode(bare + b"=" * (-len(bare) % 4))
    except (ValueError, binascii.Error):
        return None


_STANDARD: Final = bytes.maketrans(b"-_", b"+/")
