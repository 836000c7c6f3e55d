"""Key lines, and files of them: how they are read, parsed and written."""

from __future__ import annotations

import base64
import binascii
import hashlib
import os
import re
from contextlib import contextmanager
from typing import TYPE_CHECKING, Protocol

from vaultd.backends.private_files import NotPrivate, read_private_file
from vaultd.backends.rootkeys.base import KEY_BYTES, RootKey, derive, file_invalid, file_mode, missing, new_root_key
from vaultd.errors import Unavailable
from vaultd.secret import Secret

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

_LINE_MARK = "vaultd-root-key-v1"
_REF = re.compile(r"[0-9a-f]{16}")
_BARE_REF = re.compile(r"sha256:[0-9a-f]{16}")
_REF_INFO = b"vaultd/root-key/ref/v1"
_MAX_FILE_BYTES = 16 * 1024


def new_root_key_line() -> str:
    """A fresh root key as a line for a key file or credential, without its newline.  It is a secret."""
    return format_line(new_root_key())


def format_line(key: RootKey) -> str:
    encoded = base64.b64encode(key.key.expose("written to the key file or printed for the operator"))
    return f"{_LINE_MARK} {key.ref} {encoded.decode()}"


class _LineParser(Protocol):
    def __call__(self, line: str) -> RootKey | None: ...


def parse_keys(content: bytes, parse: _LineParser) -> list[RootKey]:
    """Parse all lines or raise DataLoss ROOT_KEY_FILE_INVALID; at least one, no ref twice.

    Texts never carry content.
    """
    try:
        lines = content.decode("ascii").split("\n")
    except UnicodeDecodeError as e:
        raise file_invalid("it is not text") from e
    keys: list[RootKey] = []
    for number, raw in enumerate(lines, start=1):
        line = raw.strip()
        if not line or line.startswith("#"):
            continue
        key = parse(line)
        if key is None:
            raise file_invalid(f"line {number} is damaged or of a newer vaultd")
        if any(key.ref == other.ref for other in keys):
            raise file_invalid(f"line {number} repeats a key or its name")
        keys.append(key)
    if not keys:
        raise file_invalid("it holds no key")
    return keys


def parse_line(line: str) -> RootKey | None:
    fields = line.split(" ")
    if len(fields) != 3 or fields[0] != _LINE_MARK or not (_REF.fullmatch(fields[1]) or _BARE_REF.fullmatch(fields[1])):
        return None
    key = _decode_base64_key(fields[2])
    return RootKey(fields[1], key) if key else None


def parse_line_or_bare_key(line: str) -> RootKey | None:
    if line.startswith(_LINE_MARK):
        return parse_line(line)
    # 64 hex digits are also base64, but of 48 bytes: the two cannot be confused.
    key = _decode_base64_key(line) or _decode_hex_key(line)
    if key is None:
        return None
    return RootKey(f"sha256:{hashlib.sha256(derive(key, _REF_INFO, KEY_BYTES)).hexdigest()[:16]}", key)


def _decode_base64_key(text: str) -> Secret | None:
    try:
        key = base64.b64decode(text, validate=True)
    except binascii.Error:
        return None
    return Secret(key) if len(key) == KEY_BYTES else None


def _decode_hex_key(text: str) -> Secret | None:
    return Secret(bytes.fromhex(text)) if re.fullmatch(r"[0-9a-fA-F]{64}", text) else None


def read_key_file(path: Path, flags: int, *, forbidden_mode: int, owners: Sequence[int]) -> bytes:
    """Read a whole key file that nobody else can have read or written."""
    try:
        content = read_private_file(
            path, flags=flags, forbidden_mode=forbidden_mode, owners=owners, max_bytes=_MAX_FILE_BYTES
        )
    except FileNotFoundError as e:
        raise missing("the root key file does not exist") from e
    except NotPrivate as e:
        raise file_mode(f"the root key file {e}") from None
    if len(content) > _MAX_FILE_BYTES:
        raise file_invalid("it is too long")
    return content


@contextmanager
def mapped_os_errors() -> Iterator[None]:
    try:
        yield
    except OSError as e:
        text = f"the root key cannot be read or written: {os.strerror(e.errno) if e.errno else 'I/O error'}"
        raise Unavailable("ROOT_KEY_UNAVAILABLE", text, retry_after_s=1) from e
