"""Options of the command line from the fields of a request, and the request from what was said.

A request is made as proto JSON: no stub is needed before there is a call.
"""

from __future__ import annotations

import base64
import binascii
import json
import os
import re
import stat
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from vaultd_client.ctl.api import Field, enum_of, fields_of, is_map, is_message
from vaultd_client.ctl.failures import fail
from vaultd_client.ctl.values import DURATION_FORMS, TIME_FORMS, duration_json, time_json

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from vaultd_client.ctl.types import ParameterType

SENSITIVE: Final = frozenset({"plaintext", "payload", "key_material", "passphrase", "backup"})
"""Bytes that are never taken from the command line, where every process of the machine sees them."""
SECRET_ANSWERS: Final = frozenset({"plaintext", "payload", "key_material", "shared_secret"})
"""Bytes of answers that are not shown in a table unless they are asked for."""
WELL_KNOWN: Final = ".google.protobuf."
MAX_CHOICES_IN_HELP: Final = 14
"""An error lists the others, and so does completion."""
MAX_INPUT_BYTES: Final = 4 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Flag:
    """An option that fills a field.  path: where in the request; convert: from what was said to proto JSON."""

    name: str
    path: tuple[str, ...]
    field: Field
    convert: Callable[[Any], Any]


@dataclass
class Flags:
    """The options of a request."""

    options: list[click.Parameter] = field(default_factory=list)
    flags: dict[str, Flag] = field(default_factory=dict)
    masked: set[str] = field(default_factory=set)

    def require(self, except_for: str) -> None:
        """Have click ask for what the protos say is required, where there is one option for it."""
        for option in self.options:
            flag = self.flags.get(option.name or "")
            if flag is not None and flag.field.is_required and flag.field.type != "bytes" and not flag.field.oneof:
                option.required = flag.field.name != except_for

    def fill(self, request: dict[str, Any], said: dict[str, Any]) -> set[str]:
        """Put what was said into a request; returns the first names of the paths below an update's resource."""
        touched = set()
        for name, flag in self.flags.items():
            value = said.get(name)
            if value is None or value == () or value is False:
                continue
            put(request, flag.path, flag.convert(value))
            if len(flag.path) > 1:
                touched.add(flag.path[1])
        return touched


def put(request: dict[str, Any], path: tuple[str, ...], value: Any) -> None:
    """Set a field, making the messages on the way."""
    for part in path[:-1]:
        request = request.setdefault(part, {})
    request[path[-1]] = value


def flags_of(message: str, skip: set[str], renamed: dict[str, str], types: dict[str, ParameterType]) -> Flags:
    """Options for all fields of a request but some."""
    made = Flags()
    for path, one in _walk(message, (), skip):
        name = renamed.get(".".join(path)) or _singular(one) if len(path) <= 2 else "_".join(path[1:])
        if name in made.flags:
            name = f"{path[0]}_{name}"
        _add(made, name, path, one, types.get(".".join(path)))
    return made


def _walk(message: str, path: tuple[str, ...], skip: set[str]) -> Iterator[tuple[tuple[str, ...], Field]]:
    for one in fields_of(message):
        here = (*path, one.name)
        if ".".join(here) in skip or (path and (one.is_output or one.name == "name")):
            continue
        if is_message(one.type) and not one.repeated:
            if one.oneof:
                yield here, one  # to choose it as it is
            yield from _walk(one.type, here, skip)
        else:
            yield here, one


def _singular(one: Field) -> str:
    if not one.repeated:
        return one.name
    return one.name.removesuffix("es") if one.name.endswith("sses") else one.name.removesuffix("s")


def _help(one: Field) -> str:
    """The comment of the protos, without its first word where a command line says the same, and without links."""
    text = re.sub(
        r"^(Optional|Required|Immutable|Output only unless \w+ is set; then Optional)[.:,] ?", "", one.comment
    )
    text = re.sub(r"^Immutable\. ?", "", text)
    return text[:1].upper() + text[1:]


def _add(made: Flags, name: str, path: tuple[str, ...], one: Field, given: ParameterType | None) -> None:
    option = f"--{name.replace('_', '-')}"
    text = _help(one)

    def add(suffix: str, convert: Callable[[Any], Any], told: str = text, **attributes: Any) -> None:
        made.flags[name + suffix] = Flag(name + suffix, path, one, convert)
        made.options.append(
            click.Option([f"{option}{suffix.replace('_', '-')}", name + suffix], help=told, **attributes)
        )

    enum = enum_of(one.type)
    if given is not None:
        add("", list if one.repeated else _same, type=given, multiple=one.repeated, metavar=given.name.upper())
    elif one.type == "bytes":
        if name not in SENSITIVE:
            add("", _bytes_of_text, metavar="TEXT")
            add("_base64", _bytes_of_base64, f"The same, in base64 (either alphabet), for {option}.", metavar="BASE64")
            add("_hex", _bytes_of_hex, f"The same, in hexadecimal, for {option}.", metavar="HEX")
        told = f"The same, from a file or `-`, for {option}." if name not in SENSITIVE else f"A file, or `-`. {text}"
        add("_file", lambda file: encode(read_input(file)), told, metavar="FILE")
        if name == "passphrase":
            prompt = "The same, asked for on the terminal."
            made.options.append(click.Option([f"--ask-{name}", f"{name}_asked"], is_flag=True, help=prompt))
            made.flags[f"{name}_asked"] = Flag(f"{name}_asked", path, one, lambda _: encode(ask("Passphrase")))
    elif one.type == "bool" or is_message(one.type):
        if one.type == ".vaultd.v1.QuotaWindow":
            told = f"So many tokens a period, and so many at once, such as 100/1s or 1000/1h:50; once for each. {text}"
            add("", lambda said: [_window(each) for each in said], told, metavar="COUNT/PERIOD[:BURST]", multiple=True)
        elif is_message(one.type) and one.repeated:
            add("_json", _json_list, f"JSON, or @FILE. {text}", metavar="JSON", multiple=True)
        elif is_message(one.type):
            add("", lambda _: {}, text, is_flag=True)
        else:
            add("", bool, is_flag=True)
    elif is_map(one.type):
        add("", _pairs, f"K=V, once for each. {text}", metavar="K=V", multiple=True)
    elif enum is not None:
        prefix, values = enum
        choice = click.Choice(values, case_sensitive=False)
        told = f"{text} One of {', '.join(values)}." if len(values) <= MAX_CHOICES_IN_HELP else text
        shown = {"metavar": name.rpartition("_")[2].upper(), "type": choice}
        if one.repeated:
            add("", lambda chosen: [prefix + each for each in chosen], told.strip(), multiple=True, **shown)
        else:
            add("", lambda chosen: prefix + chosen, told.strip(), **shown)
    elif one.type == f"{WELL_KNOWN}Duration":
        add("", _said(duration_json), f"{text} ({DURATION_FORMS})", metavar="DURATION")
    elif one.type == f"{WELL_KNOWN}Timestamp":
        add("", _said(time_json), f"{text} ({TIME_FORMS})", metavar="TIME")
    elif one.type == f"{WELL_KNOWN}FieldMask":
        add("", _same, metavar="PATH,...")
    elif one.type == f"{WELL_KNOWN}Struct":
        add("", _json_value, f"JSON, or @FILE. {text}", metavar="JSON")
    elif one.type == "int":
        add("", list if one.repeated else _same, type=int, multiple=one.repeated)
    else:
        add("", list if one.repeated else _same, metavar=name.rpartition("_")[2].upper(), multiple=one.repeated)


def _same(value: Any) -> Any:
    return value


def _said(parse: Callable[[str], str]) -> Callable[[str], str]:
    def convert(text: str) -> str:
        try:
            return parse(text)
        except ValueError as error:
            raise click.BadParameter(f"`{text}` is {error}") from None

    return convert


def _window(text: str) -> dict[str, Any]:
    found = re.fullmatch(r"(\d+)/([^:]+)(?::(\d+))?", text)
    if not found:
        raise click.BadParameter(f"`{text}` is no COUNT/PERIOD[:BURST], such as 100/1s")
    count, period, burst = found.groups()
    return {"count": count, "period": _said(duration_json)(period), **({"burst": burst} if burst else {})}


def _pairs(said: tuple[str, ...]) -> dict[str, str]:
    if wrong := [one for one in said if "=" not in one]:
        raise click.BadParameter(f"`{wrong[0]}` is no K=V")
    return dict(one.split("=", 1) for one in said)


def json_of(text: str) -> Any:
    """JSON, or that of a file for `@FILE` (`@-`: standard input).  Raises Refused."""
    if text.startswith("@"):
        text = read_input(text[1:]).decode("utf-8", "replace")
    try:
        return json.loads(text)
    except ValueError as error:
        fail(f"this is no JSON: {error}")


def _json_value(text: str) -> Any:
    return json_of(text)


def _json_list(said: tuple[str, ...]) -> list[Any]:
    found: list[Any] = []
    for text in said:
        value = json_of(text)
        found += value if isinstance(value, list) else [value]
    return found


def encode(content: bytes) -> str:
    """Bytes as proto JSON has them."""
    return base64.b64encode(content).decode("ascii")


def _bytes_of_text(text: str) -> str:
    return encode(text.encode("utf-8", "surrogateescape"))


def _bytes_of_base64(text: str) -> str:
    digits = "".join(text.split()).replace("-", "+").replace("_", "/").rstrip("=")
    try:
        return encode(base64.b64decode(digits + "=" * (-len(digits) % 4), validate=True))
    except (ValueError, binascii.Error):
        raise click.BadParameter("this is no base64") from None


def _bytes_of_hex(text: str) -> str:
    try:
        return encode(bytes.fromhex(text))
    except ValueError:
        raise click.BadParameter("this is not hexadecimal") from None


def read_input(file: str) -> bytes:
    """A file, or standard input for `-`, of at most 4 MiB.  Raises Refused, OSError."""
    if file == "-":
        stdin = sys.stdin.buffer
        content = stdin.read(MAX_INPUT_BYTES + 1)
    else:
        with Path(file).open("rb") as stream:
            content = stream.read(MAX_INPUT_BYTES + 1)
    if len(content) > MAX_INPUT_BYTES:
        fail(f"{file} is larger than 4 MiB, which is more than a call takes")
    return content


def ask(what: str) -> bytes:
    """Something secret, typed without being shown.  Raises Refused without a terminal."""
    if not sys.stdin.isatty():
        fail(f"nobody is there to be asked for it: {what}")
    return str(click.prompt(what, hide_input=True, err=True)).encode("utf-8", "surrogateescape")


def stdin_is_open() -> bool:
    """Whether somebody redirected standard input: what is there is meant to be read."""
    try:
        mode = os.fstat(sys.stdin.fileno()).st_mode
    except (OSError, ValueError):
        return True  # no file at all: a stream that a caller in this process put there
    return not sys.stdin.isatty() and not stat.S_ISCHR(mode)
