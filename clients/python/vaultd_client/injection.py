"""Text in which references stand for secrets: files of environment variables, and templates of configuration files.

In a template, `{{ vaultd://vaults/default/secrets/db }}` is replaced by the secret, `{{ vaultd://... | json }}` by the secret as
JSON spells it; all else stays as it is.  In an environment file (KEY=VALUE, as python-dotenv reads it) a value may
also be a reference as a whole, without braces.
"""

from __future__ import annotations

import base64
import io
import json
import re
import shlex
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Self
from urllib.parse import quote

from dotenv.parser import parse_stream

from vaultd_client.errors import VaultdError
from vaultd_client.secret_references import SCHEME, ReferenceInvalid, SecretReference, resolve

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from vaultd_client.sync import Client

_BRACES: Final = re.compile(r"\{\{\s*vaultd:(.*?)\}\}", re.DOTALL)
_OPEN: Final = re.compile(r"\{\{\s*vaultd:")
_VARIABLE: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_UNPRINTABLE: Final = re.compile("[\x7f-\x9f\u2028\u2029\ufeff\ufffe\uffff]")
"""What JSON has as it is, and YAML 1.2 (5.1, 5.4) takes for the end of a line, or for no text."""
_KEY_URI: Final = re.compile(rf"{SCHEME}(?:[^/]+/)?vaults/[^/]+/keys/[^/]+")
"""What names a key, as for Tink, is no reference to a secret, and stays."""

FILTERS: Final[dict[str, Callable[[bytes], str]]] = {
    "json": lambda value: _quoted(_text(value)),
    "shell": lambda value: shlex.quote(_text(value)),
    "url": lambda value: quote(value, safe=""),
    "base64": lambda value: base64.b64encode(value).decode(),
}
"""How a value is spelled: as a JSON or YAML string with its quotes, a word of a shell, in a URL, or as base64 of any bytes."""


class TemplateInvalid(ValueError):
    """A template cannot be read; the text says where and why."""


class InjectionRefused(Exception):
    """Some secrets cannot be put where they are wanted; the text has a line for each, and no value.

    codes: of those that the server refused, the gRPC codes.
    """

    def __init__(self, lines: Iterable[str], codes: Iterable[str] = ()) -> None:
        super().__init__("\n".join(lines))
        self.codes = frozenset(codes)


@dataclass(frozen=True, slots=True)
class Placeholder:
    """A secret to be, and how it is spelled there."""

    reference: SecretReference
    filter: str = ""

    def spell(self, value: bytes) -> str:
        """Raises ReferenceInvalid for bytes that are no text."""
        return FILTERS[self.filter](value) if self.filter else _text(value)


@dataclass(frozen=True, slots=True)
class Template:
    """Text, and placeholders in it."""

    parts: tuple[str | Placeholder, ...]

    @classmethod
    def parse(cls, text: str) -> Self:
        """Raises TemplateInvalid, with the line, for what looks like a placeholder and is none."""
        parts: list[str | Placeholder] = []
        end = 0
        for found in _BRACES.finditer(text):
            parts += [_plain(text, end, found.start()), _placeholder(text, found)]
            end = found.end()
        parts.append(_plain(text, end, len(text)))
        return cls(tuple(part for part in parts if part != ""))

    @classmethod
    def of_value(cls, text: str) -> Self:
        """Of the value of a variable, which may be a reference as a whole.  Raises TemplateInvalid."""
        if not is_reference(text):
            return cls.parse(text)
        try:
            return cls((Placeholder(SecretReference.parse(text)),))
        except ReferenceInvalid as error:
            raise TemplateInvalid(str(error)) from None

    @property
    def references(self) -> list[SecretReference]:
        """The secrets that it needs."""
        return [part.reference for part in self.parts if isinstance(part, Placeholder)]

    def fill(self, values: Mapping[SecretReference, bytes]) -> str:
        """Raises ReferenceInvalid."""
        return "".join(part if isinstance(part, str) else part.spell(values[part.reference]) for part in self.parts)


def read_environment(text: str) -> dict[str, Template]:
    """The variables of an environment file, in order; nothing is interpolated.  Raises TemplateInvalid, with the line."""
    variables = {}
    for binding in parse_stream(io.StringIO(text)):
        where = f"line {binding.original.line}"
        if binding.error or (binding.key is not None and binding.value is None):
            raise TemplateInvalid(f"{where} is no NAME=VALUE")
        if binding.key is None or binding.value is None:
            continue
        if not _VARIABLE.fullmatch(binding.key):
            raise TemplateInvalid(f"{where}: a variable's name is of letters, digits and _")
        try:
            variables[binding.key] = Template.of_value(binding.value)
        except TemplateInvalid as error:
            raise TemplateInvalid(f"{where}, {binding.key}: {error}") from None
    return variables


def fill_all(vault: Client, templates: Mapping[str, Template]) -> dict[str, str]:
    """Each template with its secrets, which are asked for in one call; nothing is asked when there are none.

    All or nothing: raises InjectionRefused with a line for each that failed, by the name that it has in `templates`, and
    VaultdError when the call as a whole failed.
    """
    values = resolve(vault, (reference for template in templates.values() for reference in template.references))
    good = {reference: value for reference, value in values.items() if isinstance(value, bytes)}
    filled, problems = {}, []
    for name, template in templates.items():
        failed = {reference: values[reference] for reference in template.references if reference not in good}
        problems += [f"{name}: {_told(reference, error)}" for reference, error in failed.items()]
        if failed:
            continue
        try:
            filled[name] = template.fill(good)
        except ReferenceInvalid as error:
            problems.append(f"{name}: {', '.join(map(str, template.references))}: {error}")
    if problems:
        raise InjectionRefused(problems, {error.code for error in values.values() if isinstance(error, VaultdError)})
    return filled


def environment_of(vault: Client, templates: Mapping[str, Template]) -> dict[str, str]:
    """fill_all() for variables of a process, which cannot hold a zero byte."""
    filled = fill_all(vault, templates)
    unfit = [name for name, value in filled.items() if "\0" in value]
    if unfit:
        way = "a variable cannot hold a zero byte; take it as base64: {{ vaultd://... | base64 }}"
        raise InjectionRefused(f"{name}: {way}" for name in unfit)
    return filled


def is_reference(value: str) -> bool:
    """Whether the value of a variable is meant as a reference to a secret; those to keys, as for Tink, are not."""
    return value.startswith(SCHEME) and not _KEY_URI.fullmatch(value)


def _told(reference: SecretReference, error: object) -> str:
    return f"{reference}: {error}" if isinstance(error, VaultdError) else str(error)


def _plain(text: str, start: int, end: int) -> str:
    unclosed = _OPEN.search(text, start, end)
    if unclosed is not None:
        raise TemplateInvalid(f"line {_line(text, unclosed.start())}: a placeholder is not closed with }}}}")
    return text[start:end]


def _placeholder(text: str, found: re.Match[str]) -> Placeholder:
    reference, _, spelled = (part.strip() for part in f"vaultd:{found[1]}".partition("|"))
    try:
        if spelled and spelled not in FILTERS:
            raise ReferenceInvalid(f"a filter is one of {', '.join(FILTERS)}")
        if not reference.startswith(SCHEME):
            raise ReferenceInvalid(f"a reference begins with {SCHEME}")
        return Placeholder(SecretReference.parse(reference), spelled)
    except ReferenceInvalid as error:
        raise TemplateInvalid(f"line {_line(text, found.start())}: {error}") from None


def _line(text: str, position: int) -> int:
    return text.count("\n", 0, position) + 1


def _quoted(text: str) -> str:
    # Not json.dumps() as it is: its escapes of what is beyond U+FFFF, two for one character, are two characters for YAML.
    return _UNPRINTABLE.sub(lambda found: f"\\u{ord(found[0]):04x}", json.dumps(text, ensure_ascii=False))


def _text(value: bytes) -> str:
    try:
        return value.decode()
    except UnicodeDecodeError:
        pass  # it carries the value, even as the context of another error
    raise ReferenceInvalid("its value is no text (UTF-8); take it as base64: {{ vaultd://... | base64 }}")
