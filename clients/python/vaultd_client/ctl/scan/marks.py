"""The parts of a secret that are looked for in files.

A secret that is one word is looked for as it is.  Of one that is made of parts, such as a JSON document, an env file or a PEM key,
the parts that no text has by chance are.
"""

from __future__ import annotations

import json
import math
import re
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import unquote, urlsplit

if TYPE_CHECKING:
    from collections.abc import Iterator

WORD: Final = re.compile(rb"[A-Za-z0-9_-]+")
"""Both a secret and a file are divided into these.  What stands between them, `=` and `/` of base64 too, belongs to neither."""
MIN_LENGTH: Final = 12
SHORTEST: Final = 8
MAX_WORDS: Final = 4
MIN_RANDOM: Final = 16
MIN_BINARY: Final = 16
MAX_RUN: Final = 256
_ASSIGNMENT: Final = re.compile(r"^\s*(?:export\s+)?([A-Za-z_][A-Za-z0-9_.-]*)\s*[=:]\s*(.*?)\s*$")
_PLAIN_NAME: Final = re.compile(
    r"(^|[_.-])(id|user|username|login|email|host|hostname|port|uri|region|type|name|database|db|schema|issuer|audience|scope)$",
    re.IGNORECASE,
)
_SECRET_NAME: Final = re.compile(r"pass|secret|token|credential|private|auth|api.?key", re.IGNORECASE)
_IDENTIFIER: Final = re.compile(r"[a-z]+([_-][a-z]+)*[_-]?\d{0,4}|[A-Z]+(_[A-Z]+)*_?\d{0,4}|([A-Z][a-z]+)+\d{0,4}")


@dataclass(frozen=True, slots=True)
class Mark:
    """Bytes to look for.  length: set for those that are no word, which are looked for by their length."""

    content: bytes
    length: int = 0


def marks_of(payload: bytes, min_length: int = MIN_LENGTH) -> set[Mark]:
    """What to look for of a payload; nothing for one that is too short or too ordinary to be told from other text."""
    found: set[Mark] = set()
    for part in _parts(payload):
        found |= _marks_of_part(part.strip(), min_length)
    return found


def _parts(payload: bytes) -> Iterator[bytes]:
    """The payload, or the values in it."""
    try:
        text = payload.decode("utf-8")
    except UnicodeDecodeError:
        yield payload
        return
    try:
        document = json.loads(text)
    except (ValueError, RecursionError):
        document = None
    if isinstance(document, dict | list):
        for name, value in _leaves(document, ""):
            if _is_secret(name, value):
                yield from _value(value)
        return
    lines = [line for line in text.splitlines() if line.strip() and not line.lstrip().startswith("#")]
    assigned = [match for line in lines if (match := _ASSIGNMENT.match(line))]
    if len(lines) > 1 and len(assigned) == len(lines):
        for match in assigned:
            value = match[2].strip("\"'")
            if _is_secret(match[1], value):
                yield from _value(value)
        return
    yield from _value(text)


def _is_secret(name: str, value: str) -> bool:
    """Whether a value of a document is one of its secrets, by its name, or because no name of anything looks so."""
    if _SECRET_NAME.search(name):
        return True
    return not _PLAIN_NAME.search(name) and not _IDENTIFIER.fullmatch(value)


def _leaves(document: Any, name: str) -> Iterator[tuple[str, str]]:
    if isinstance(document, dict):
        for key, value in document.items():
            yield from _leaves(value, str(key))
    elif isinstance(document, list):
        for value in document:
            yield from _leaves(value, name)
    elif isinstance(document, str):
        yield name, document


def _value(text: str) -> Iterator[bytes]:
    """A value, or the password in it when it is a URL that has one."""
    if "://" in text and "@" in text:
        try:
            password = urlsplit(text.strip()).password
        except ValueError:
            password = None
        if password:
            yield unquote(password).encode()
            return
    yield text.encode()


def _marks_of_part(part: bytes, min_length: int) -> set[Mark]:
    if not _is_text(part):
        return {Mark(part)} if len(part) >= MIN_BINARY else set()
    if WORD.fullmatch(part):
        return {Mark(part)} if len(part) >= min_length else set()
    words = sorted(
        {word for word in WORD.findall(part) if looks_random(word.decode())}, key=lambda word: (-len(word), word)
    )
    if words:
        return {Mark(word) for word in words[:MAX_WORDS]}
    if min_length <= len(part) <= MAX_RUN and b"\n" not in part and _entropy_bits(part.decode()) >= 2.5 * min_length:
        return {Mark(part, len(part))}
    return set()


def _is_text(content: bytes) -> bool:
    try:
        text = content.decode("utf-8")
    except UnicodeDecodeError:
        return False
    return all(one.isprintable() or one in "\t\r\n" for one in text)


def looks_random(word: str) -> bool:
    """Whether a word is one that a machine made: long, of letters and digits, and no name."""
    if len(word) < MIN_RANDOM or _IDENTIFIER.fullmatch(word):
        return False
    has_digit, has_letter = any(map(str.isdigit, word)), any(map(str.isalpha, word))
    mixed = any(map(str.islower, word)) and any(map(str.isupper, word))
    return ((has_digit and has_letter) or (mixed and len(word) >= 24)) and _entropy_bits(word) >= 2.5 * len(word)


def _entropy_bits(text: str) -> float:
    """Shannon's entropy of the characters, times their number."""
    counts = Counter(text).values()
    return -sum(count * math.log2(count / len(text)) for count in counts)
