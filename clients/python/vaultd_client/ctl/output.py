"""Answers as tables for people, as JSON or YAML for programs, or as the bytes themselves."""

from __future__ import annotations

import json
import os
import sys
from typing import TYPE_CHECKING, Any, Final

import click

from vaultd_client.ctl.failures import fail
from vaultd_client.ctl.flags import SECRET_ANSWERS

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from pathlib import Path

    from google.protobuf.message import Message

COLUMNS: Final[Mapping[str, Sequence[str]]] = {
    "AccessGrant": ("principal", "role", "bound_on", "group", "condition", "permissions"),
    "Approval": ("name", "state", "principal", "method", "resources", "create_time", "expire_time"),
    "Capability": ("algorithm", "purpose", "protection_level", "purpose_default", "max_input_bytes", "max_messages"),
    "Grant": ("name", "grantee", "permissions", "expire_time", "uses_left"),
    "ImportJob": ("name", "wrapping_method", "state", "expire_time"),
    "Key": ("name", "purpose", "algorithm", "protection_level", "state", "newest_version", "next_rotation_time"),
    "KeyVersion": ("name", "state", "algorithm", "create_time", "destroy_time"),
    "PolicyDecision": ("permission", "allowed", "reason"),
    "Quota": ("name", "subject", "resource", "classes", "methods", "windows"),
    "RevokedIdentity": ("principal", "reason", "revoked_by", "revoke_time"),
    "Rotation": ("secret", "state", "stage", "attempt", "policy.next_rotation_time", "failure.reason"),
    "Secret": ("name", "state", "current_version", "owner", "update_time"),
    "SecretVersion": ("name", "state", "payload_bytes", "content_type", "create_time", "expire_time"),
    "Vault": ("name", "display_name", "labels", "create_time"),
    "VersionUsage": ("key_version", "messages", "bytes", "last_use_time", "messages_left"),
}
"""Columns of a list of resources, unless --fields says others."""


def as_dict(message: Message) -> dict[str, Any]:
    """Proto JSON with the names of the protos, and with every field that has no presence: what is false or empty is said."""
    from google.protobuf.json_format import MessageToDict

    return MessageToDict(message, preserving_proto_field_name=True, always_print_fields_with_no_presence=True)


def pick(document: Any, fields: Sequence[str]) -> Any:
    """Only some fields, by paths such as `policy.target`; of each item of the list that a page holds."""
    if not fields:
        return document
    if isinstance(document, list):
        return [pick(one, fields) for one in document]
    lists = [
        name for name, value in document.items() if isinstance(value, list) and value and isinstance(value[0], dict)
    ]
    if lists and not any(path.partition(".")[0] in document for path in fields):
        return {lists[0]: pick(document[lists[0]], fields)}
    return {path: value_at(document, path) for path in fields}


def value_at(document: Any, path: str) -> Any:
    """A value within a document; None where there is none."""
    for part in path.split("."):
        if not isinstance(document, dict) or part not in document:
            return None
        document = document[part]
    return document


class Printer:
    """Writes answers to standard output in the form that was chosen."""

    def __init__(self, form: str | None, fields: Sequence[str] = (), *, reveal: bool = False) -> None:
        self.form = form or "table"
        self._fields = fields
        self._reveal = reveal

    def message(self, message: Message) -> None:
        """Write an answer."""
        if self.form in {"json", "yaml"}:
            self.document(as_dict(message))
            return
        from vaultd_client.ctl.tables import Tables

        Tables(self._fields, reveal=self._reveal).show(message)

    def line(self, message: Message) -> None:
        """Write one of many answers, as they come: one JSON a line."""
        if self.form == "json":
            click.echo(json.dumps(pick(as_dict(message), self._fields), ensure_ascii=False))
        elif self.form == "yaml":
            click.echo("---")
            self.document(as_dict(message))
        else:
            self.message(message)
        sys.stdout.flush()

    def document(self, document: Any) -> None:
        """Write what is JSON already."""
        chosen = pick(document, self._fields)
        if self.form == "yaml":
            import yaml

            click.echo(yaml.safe_dump(chosen, sort_keys=False, allow_unicode=True, width=1_000), nl=False)
        else:
            click.echo(json.dumps(chosen, indent=2, ensure_ascii=False))

    def rows(self, head: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
        """Write a table for people."""
        from vaultd_client.ctl.tables import print_rows

        print_rows(head, list(rows))


def write_bytes(content: bytes, out: Path | None, *, secret: bool) -> None:
    """Write bytes as they are: to a new file with mode 0600, or to standard output.  Raises Refused, OSError.

    A terminal gets text only, since bytes can do anything to it.
    """
    if out is not None:
        from vaultd_client.key_files import KeyFileError, write_private

        try:
            write_private(out, content)
        except KeyFileError as error:
            fail(str(error))
        return
    stream = sys.stdout.buffer
    if sys.stdout.isatty():
        if not is_text(content):
            what = "what was asked for" if secret else "the answer"
            fail(f"{what} is {len(content):,} bytes that are no text: say --out FILE, --output json, or redirect it")
        content += b"" if content.endswith(b"\n") else b"\n"
    stream.write(content)
    stream.flush()


def is_text(content: bytes) -> bool:
    """Whether bytes are UTF-8 that a terminal shows without being driven by it."""
    try:
        text = content.decode("utf-8")
    except UnicodeDecodeError:
        return False
    return all(character.isprintable() or character in "\n\t\r" for character in text)


def is_secret(name: str) -> bool:
    """Whether a field of an answer is shown only when it is asked for."""
    return name in SECRET_ANSWERS


def has_colour() -> bool:
    """Whether standard output takes colours, and nobody said no (https://no-color.org)."""
    return sys.stdout.isatty() and not os.environ.get("NO_COLOR")
