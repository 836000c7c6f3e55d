"""Commands that are made of an RPC's request: arguments and options in, a call, its answer out."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from vaultd_client.ctl.api import Field, Rpc, fields_of, rpc_of
from vaultd_client.ctl.commands import Command
from vaultd_client.ctl.failures import fail
from vaultd_client.ctl.flags import SENSITIVE, Flags, ask, encode, flags_of, put, read_input, stdin_is_open
from vaultd_client.ctl.names import METAVARS, ResourceName
from vaultd_client.ctl.output import is_secret
from vaultd_client.ctl.session import Session

if TYPE_CHECKING:
    from collections.abc import Iterator

    from vaultd_client.ctl.catalogue import Verb
    from vaultd_client.ctl.types import ParameterType

MAX_SHORT_HELP: Final = 75
PAGING: Final = frozenset({"page_size", "page_token"})


class RpcCommand:
    """One verb: its parameters, and what is done with them."""

    def __init__(self, verb: Verb) -> None:
        self.verb = verb
        self.rpc = rpc_of(verb.rpc)
        self._fields = {one.name: one for one in fields_of(self.rpc.request)}
        self._kind = verb.target.removesuffix("?")
        self._into = self._where_the_target_goes()
        self._arguments = [name.removesuffix("...") for name in verb.arguments]
        self.flags = self._flags()

    # -- parameters --------------------------------------------------------------------------------------------------------

    @property
    def lists_pages(self) -> bool:
        return set(self._fields) >= PAGING

    @property
    def takes_items(self) -> bool:
        """Whether the request is nothing but items: a batch."""
        return set(self._fields) == {"items"} and not self.rpc.client_streaming

    def _where_the_target_goes(self) -> tuple[str, ...]:
        """Paths of the request that the first argument fills: one, or a parent and the id below it."""
        if not self._kind:
            return ()
        fields = self._fields
        if ids := [name for name in fields if name.endswith("_id") and name != "request_id"]:
            return ("parent", ids[0]) if "parent" in fields else (ids[0],)
        if "update_mask" in fields:
            return (f"{next(iter(fields))}.name",)
        return (next(name for name in ("name", "source_name", "parent", "resource") if name in fields),)

    def _flags(self) -> Flags:
        if self.takes_items or self.rpc.client_streaming:
            return Flags()
        skip = {*self._into, *self._arguments, *self.verb.skip, "update_mask", "page_size"}
        if self.lists_pages:
            skip.add("page_token")
        if not self._kind:
            skip.add("parent")  # the vault of the session
        types: dict[str, ParameterType] = {path: ResourceName(kind) for path, kind in self.verb.kinds.items()}
        flags = flags_of(self.rpc.request, skip, self.verb.renamed, types)
        if "update_mask" not in self._fields:
            flags.require(self.verb.key_by_default)
        return flags

    def parameters(self) -> list[click.Parameter]:
        """All parameters of the command."""
        made: list[click.Parameter] = []
        if self._kind:
            optional = self.verb.target.endswith("?")
            made.append(
                click.Argument(
                    ["named"],
                    type=ResourceName(self._kind),
                    required=not optional,
                    metavar=f"[{METAVARS[self._kind]}]" if optional else METAVARS[self._kind],
                )
            )
        for name in self.verb.arguments:
            field, many = self._fields[name.removesuffix("...")], name.endswith("...")
            kind = click.INT if field.type == "int" else click.STRING
            metavar = field.name.upper().removesuffix("S") + "..." if many else field.name.upper()
            made.append(click.Argument([field.name], type=kind, metavar=metavar, nargs=-1 if many else 1))
        if self.verb.input:
            made.append(click.Argument(["file"], required=False, metavar="[FILE]"))
        if self.takes_items or self.rpc.client_streaming:
            made.append(click.Argument(["file"], default="-", metavar="[FILE]"))
        return [*made, *self.flags.options, *self._extra_options()]

    def _extra_options(self) -> Iterator[click.Option]:
        if "update_mask" in self._fields:
            yield click.Option(["--clear"], multiple=True, metavar="FIELD", help="Make a field empty; once for each.")
        if self.lists_pages:
            yield click.Option(["--limit"], type=click.IntRange(1), help="At most so many; all of them by default.")
        if self.verb.raw:
            yield click.Option(
                ["--out"],
                type=click.Path(path_type=Path),
                metavar="FILE",
                help=f"A new file, 0600, for the {self.verb.raw}.",
            )
        if is_secret(self.verb.raw) or self.rpc.name in {"GenerateDataKey", "Encapsulate"}:
            yield click.Option(["--reveal"], is_flag=True, help="Show what is secret in a table, too.")
        if not self.takes_items and not self.rpc.client_streaming:
            yield click.Option(["--fields"], metavar="FIELD,...", help="Only these fields of the answer.")
        if self.verb.loses:
            yield click.Option(["--yes"], is_flag=True, help="Do not ask.")

    def command(self) -> click.Command:
        """The command."""
        name = self.verb.command.rpartition(" ")[2]
        return Command(
            name, params=self.parameters(), callback=self.run, help=self._help(), short_help=short_help(self.rpc)
        )

    def _help(self) -> str:
        text = self.rpc.comment
        if self.verb.input:
            where = (
                "typed without being shown, or read from standard input"
                if self.verb.input in SENSITIVE
                else "read from standard input"
            )
            text += f"\n\nThe {self.verb.input} is in FILE; without FILE it is {where}."
        if self.takes_items:
            item = fields_of(self.rpc.request)[0].type.rpartition(".")[2]
            text += f"\n\nFILE has one {item} a line, as JSON; so has the output one result a line, in the same order."
        if self.rpc.client_streaming:
            text += f"\n\nFILE has one {self.rpc.request.rpartition('.')[2]} a line, as JSON."
        return f"{text}\n\nCalls {self.rpc.name}."

    # -- the call ----------------------------------------------------------------------------------------------------------

    def run(self, /, **said: Any) -> None:
        """Do it."""
        session = click.get_current_context().ensure_object(Session)
        from vaultd_client.ctl.running import Run

        Run(session, self, said).go()

    def request(self, session: Session, said: dict[str, Any]) -> dict[str, Any]:
        """The request, as proto JSON.  Raises Refused, OSError, click.UsageError."""
        request: dict[str, Any] = {}
        self._put_target(request, session, said)
        for name in self._arguments:
            value = said[name]
            request[name] = list(value) if isinstance(value, tuple) else value
        touched = self.flags.fill(request, said)
        if "update_mask" in self._fields:
            mask = sorted(touched | {name.replace("-", "_") for name in said["clear"]})
            if not mask:
                raise click.UsageError("nothing is to be changed: say an option, or --clear FIELD")
            request["update_mask"] = ",".join(_camel(path) for path in mask)
        if self.verb.key_by_default:
            request.setdefault(self.verb.key_by_default, said["named"].partition("/versions/")[0])
        if self.verb.input:
            self._put_input(request, said)
        return request

    def _put_target(self, request: dict[str, Any], session: Session, said: dict[str, Any]) -> None:
        if not self._kind:
            if "parent" in self._fields:
                request["parent"] = f"vaults/{session.vault}"
            return
        name = said["named"]
        if name is None:
            name = "/" if self.rpc.name == "ListQuotas" else f"vaults/{session.vault}"
        if len(self._into) == 2:
            put(request, ("parent",), self._parent_of(name))
            put(request, (self._into[1],), name.rpartition("/")[2])
        elif self._into[0].endswith("_id"):
            put(request, self._into, name.rpartition("/")[2])
        else:
            put(request, tuple(self._into[0].split(".")), name)

    @staticmethod
    def _parent_of(name: str) -> str:
        parent = name.rpartition("/")[0].rpartition("/")[0]
        return parent or "/"

    def _put_input(self, request: dict[str, Any], said: dict[str, Any]) -> None:
        field = self._fields[self.verb.input]
        given = [one for one in self._alternatives(field) if one.name in request]
        if said["file"] is None and given:
            return
        if given:
            raise click.UsageError(f"FILE and an option for {given[0].name} are two answers to one question")
        if said["file"] is not None or stdin_is_open():
            content = read_input(said["file"] or "-")
        elif field.name in SENSITIVE:
            content = ask(field.name.replace("_", " ").capitalize())
        else:
            raise click.UsageError(f"say FILE, `-` for standard input, or an option for {field.name}")
        request[field.name] = encode(content)

    def _alternatives(self, field: Field) -> list[Field]:
        if not field.oneof:
            return [field]
        return [one for one in self._fields.values() if one.oneof == field.oneof]


def _camel(path: str) -> str:
    """A path of a field mask as proto JSON has it."""
    first, *rest = path.split("_")
    return first + "".join(word.capitalize() for word in rest)


def short_help(rpc: Rpc) -> str:
    """The first sentence of an RPC's comment, or as much of it as makes a line."""
    sentence = rpc.comment.partition(". ")[0].rstrip(".")
    for mark in (";", ":", ","):
        if len(sentence) > MAX_SHORT_HELP:
            sentence = sentence.partition(mark)[0]
    return f"{sentence}."


def make_command(verb: Verb) -> click.Command:
    """The command of a verb."""
    return RpcCommand(verb).command()


def read_lines(file: str) -> Iterator[Any]:
    """JSON, one a line; empty lines are passed over.  Raises Refused, OSError."""
    with click.open_file(file, encoding="utf-8") as lines:
        for number, line in enumerate(lines, start=1):
            if not line.strip():
                continue
            try:
                yield json.loads(line)
            except ValueError as error:
                fail(f"{file}, line {number}: this is no JSON: {error}")
