"""Messages as tables and lists for people: with rich on a terminal, as plain columns elsewhere."""

from __future__ import annotations

import base64
import datetime
import sys
from typing import TYPE_CHECKING, Any, Final

import click

from vaultd_client.ctl.output import COLUMNS, has_colour, is_secret, is_text
from vaultd_client.ctl.values import show_duration, show_time

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    FieldDescriptor = Any  # upb has its own class of descriptors, and grpc-stubs know only one of the two
    from google.protobuf.message import Message

STATE_STYLES: Final = {
    **dict.fromkeys(("ENABLED", "ACTIVE", "UNSEALED", "APPROVED", "IDLE", "SERVING", "yes", "ok"), "green"),
    **dict.fromkeys(("DISABLED", "PENDING", "DUE", "RUNNING", "OVERLAP", "DESTROY_SCHEDULED", "warn"), "yellow"),
    **dict.fromkeys(
        ("DESTROYED", "DELETED", "SEALED", "UNINITIALIZED", "REJECTED", "FAILED", "ROLLING_BACK", "EXPIRED", "FAIL"),
        "red",
    ),
}
HEADS: Final = {
    "protection_level": "level",
    "newest_version": "newest",
    "next_rotation_time": "next rotation",
    "create_time": "created",
    "expire_time": "expires",
    "update_time": "updated",
    "destroy_time": "destroyed",
    "revoke_time": "revoked",
    "last_use_time": "last use",
    "payload_bytes": "bytes",
    "content_type": "type",
    "current_version": "current",
}
"""What stands above a column where the field's name is longer than what is below it."""
PAGE_FIELDS: Final = frozenset({"next_page_token"})


class Tables:
    """Shows messages.  A page is a table of what it lists; anything else is a list of its fields that are set."""

    def __init__(self, fields: Sequence[str] = (), *, reveal: bool = False) -> None:
        self._fields = fields
        self._reveal = reveal
        self._now = datetime.datetime.now(datetime.UTC)

    def show(self, message: Message) -> None:
        """Write a message to standard output."""
        listed = _listed(message)
        if listed is not None and not any(
            path.partition(".")[0] in message.DESCRIPTOR.fields_by_name for path in self._fields
        ):
            self._show_list(message, listed)
            return
        rows = [row for row in self._rows(message, "") if not self._fields or _chosen(row[0], self._fields)]
        if rows:
            print_pairs(rows)

    def _show_list(self, message: Message, listed: FieldDescriptor) -> None:
        items = getattr(message, listed.name)
        kind: Any = listed.message_type
        columns = self._fields or COLUMNS.get(kind.name) or [one.name for one in kind.fields][:7]
        rows = [[self._at(one, path) for path in columns] for one in items]
        print_rows([HEADS.get(name := path.rpartition(".")[2], name).upper() for path in columns], rows)
        rest = [row for row in self._rows(message, "", {listed.name, *PAGE_FIELDS}) if row[1]]
        if rest:
            click.echo()
            print_pairs(rest)

    def _at(self, message: Message, path: str) -> str:
        first, _, rest = path.partition(".")
        field = message.DESCRIPTOR.fields_by_name.get(first)
        if field is None:
            raise click.BadParameter(f"a {message.DESCRIPTOR.name} has no field `{first}`", param_hint="--fields")
        if rest:
            return self._at(getattr(message, first), rest) if message.HasField(first) else ""
        return self._text(message, field)

    def _rows(
        self, message: Message, prefix: str, without: frozenset[str] | set[str] = frozenset()
    ) -> Iterator[tuple[str, str]]:
        for field in message.DESCRIPTOR.fields:
            name = f"{prefix}{field.name}"
            if field.name in without or field.name.endswith("_crc32c"):
                continue
            if _is_plain_message(field):
                if field.is_repeated:
                    for number, one in enumerate(getattr(message, field.name)):
                        yield from self._rows(one, f"{name}[{number}].")
                elif message.HasField(field.name):
                    yield from self._rows(getattr(message, field.name), f"{name}.")
            elif text := self._text(message, field):
                yield name, text

    def _text(self, message: Message, field: FieldDescriptor) -> str:
        """One field in one cell; empty when it is not set."""
        value = getattr(message, field.name)
        if field.message_type is not None and field.message_type.GetOptions().map_entry:
            return ", ".join(f"{key}={_scalar(each)}" for key, each in sorted(value.items()))
        if field.is_repeated:
            return ", ".join(self._one(each, field) for each in value)
        if field.has_presence and not message.HasField(field.name):
            return ""
        if field.type == field.TYPE_BOOL:
            return "yes" if value else "no" if field.name in {"valid", "allowed", "intact", "needs_reencrypt"} else ""
        if not value and field.message_type is None and not field.has_presence:
            return ""
        return self._one(value, field)

    def _one(self, value: Any, field: FieldDescriptor) -> str:
        if field.enum_type is not None:
            first: str = field.enum_type.values[0].name.removesuffix("UNSPECIFIED")
            known = field.enum_type.values_by_number.get(value)
            return str(value) if known is None else "" if value == 0 else known.name.removeprefix(first)
        if field.type == field.TYPE_BYTES:
            return self._bytes(value, field.name)
        if field.message_type is None:
            return _scalar(value)
        name = field.message_type.full_name
        if name == "google.protobuf.Timestamp":
            return show_time(value.ToDatetime(tzinfo=datetime.UTC), self._now)
        if name == "google.protobuf.Duration":
            return show_duration(value.ToNanoseconds() / 1e9)
        if name == "google.protobuf.Struct":
            import json

            from google.protobuf.json_format import MessageToDict

            return json.dumps(MessageToDict(value), ensure_ascii=False)
        if name == "vaultd.v1.QuotaWindow":
            left = f", {value.left} left" if value.HasField("left") else ""
            return f"{value.count}/{show_duration(value.period.ToNanoseconds() / 1e9).replace(' ', '')}{left}"
        if name == "vaultd.v1.PermissionUse":
            return str(value.permission)
        return ", ".join(f"{key}={text}" for key, text in self._rows(value, ""))

    def _bytes(self, value: bytes, name: str) -> str:
        if is_secret(name) and not self._reveal:
            return f"<{len(value)} bytes; --reveal, --output raw or --out FILE>" if value else ""
        if is_secret(name) and is_text(value):
            return value.decode()
        return base64.b64encode(value).decode()


def _listed(message: Message) -> FieldDescriptor | None:
    """The field that makes a message a list: the only repeated one of messages, beside nothing but small things."""
    found = [
        field
        for field in message.DESCRIPTOR.fields
        if field.is_repeated and field.message_type is not None and not field.message_type.GetOptions().map_entry
    ]
    is_answer = message.DESCRIPTOR.name.endswith("Response") and not message.DESCRIPTOR.name.startswith("Explain")
    return found[0] if found and is_answer else None


def _is_plain_message(field: FieldDescriptor) -> bool:
    message = field.message_type
    return message is not None and not message.GetOptions().map_entry and message.file.package != "google.protobuf"


def _scalar(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return str(value)


def _chosen(name: str, fields: Sequence[str]) -> bool:
    return any(name == path or name.startswith((f"{path}.", f"{path}[")) for path in fields)


def print_pairs(rows: Sequence[tuple[str, str]]) -> None:
    """Names and values, one below the other."""
    if sys.stdout.isatty():
        table = _grid(show_header=False)
        table.add_column(style="bold", no_wrap=True)
        table.add_column(overflow="fold")
        for name, text in rows:
            table.add_row(name, _styled(text))
        _console().print(table)
        return
    width = max(len(name) for name, _ in rows)
    for name, text in rows:
        click.echo(f"{name:{width}}  {_visible(text)}")


def print_rows(head: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """A table; columns without a value are left out."""
    kept = [at for at in range(len(head)) if at == 0 or any(row[at] for row in rows)]
    head = [head[at] for at in kept]
    rows = [[row[at] for at in kept] for row in rows]
    if sys.stdout.isatty():
        table = _grid(show_header=True)
        for at, title in enumerate(head):
            table.add_column(title, overflow="fold", no_wrap=at == 0)
        for row in rows:
            table.add_row(*(_styled(text) for text in row))
        _console().print(table)
        return
    widths = [max(len(row[at]) for row in [head, *rows]) for at in range(len(head))]
    for row in [head, *rows]:
        click.echo("  ".join(f"{_visible(text):{width}}" for text, width in zip(row, widths, strict=True)).rstrip())


def _grid(*, show_header: bool) -> Any:
    from rich.table import Table

    return Table(box=None, pad_edge=False, header_style="bold", show_header=show_header)


def _console() -> Any:
    from rich.console import Console

    return Console(no_color=not has_colour(), highlight=False, soft_wrap=False)


def _styled(text: str) -> Any:
    from rich.text import Text

    return Text(_visible(text), style=STATE_STYLES.get(text, ""))


def _visible(text: str) -> str:
    """Text without what drives a terminal: names and reasons come from others."""
    return "".join(one if one.isprintable() or one == "\n" else "\N{REPLACEMENT CHARACTER}" for one in text)
