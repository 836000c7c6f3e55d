"""Commands and groups of vaultctl: options that every command takes, and groups that import a command when it is used."""

from __future__ import annotations

import errno
import os
import sys
import traceback
from dataclasses import dataclass
from difflib import get_close_matches
from importlib import import_module
from typing import TYPE_CHECKING, Any, Final, Protocol

import click

from vaultd_client.ctl.failures import FAILED, INTERRUPTED, USAGE, Refused, RefusedCall, describe, lines_of
from vaultd_client.ctl.interrupts import ended_by_interrupt
from vaultd_client.ctl.session import Session

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from click.shell_completion import CompletionItem

OUTPUTS: Final = ("table", "json", "yaml", "raw")


class Loadable(Protocol):
    """A command that is not there before it is used."""

    @property
    def help(self) -> str:
        """Its line in the help."""

    def load(self) -> click.Command:
        """The command."""


@dataclass(frozen=True, slots=True)
class Lazy:
    """A command that is imported when it is used: `MODULE:NAME`, and its line in the help."""

    place: str
    help: str

    def load(self) -> click.Command:
        module, _, name = self.place.partition(":")
        found: click.Command = getattr(import_module(module), name)
        return found


def _keep(context: click.Context, parameter: click.Parameter, value: Any) -> None:
    assert parameter.name is not None  # noqa: S101  # an option has one
    context.ensure_object(Session).set(parameter.name.removeprefix("shared_"), value)


def shared_options() -> list[click.Option]:
    """What can be said at any place of the command line."""
    return [
        click.Option(
            ["shared_output", "-o", "--output"],
            type=click.Choice(OUTPUTS),
            callback=_keep,
            expose_value=False,
            help="How the answer is written.",
        ),
        click.Option(
            ["shared_profile", "--profile"],
            callback=_keep,
            expose_value=False,
            metavar="NAME",
            help="The profile to use.",
        ),
        click.Option(
            ["shared_vault", "--vault"],
            callback=_keep,
            expose_value=False,
            metavar="ID",
            help="The vault that short names are of.",
        ),
        click.Option(
            ["shared_timeout", "--timeout"],
            type=click.FloatRange(0, min_open=True),
            callback=_keep,
            expose_value=False,
            metavar="SECONDS",
            help="How long a call may take.",
        ),
    ]


class Command(click.Command):
    """A command that takes the shared options.

    trouble: the exit code of a refused call, for commands whose exit code 1 is an answer.
    """

    def __init__(self, *arguments: Any, trouble: int | None = None, **attributes: Any) -> None:
        super().__init__(*arguments, **attributes)
        self.trouble = trouble
        own = {option for parameter in self.params for option in parameter.opts}
        self.shared = []
        for option in shared_options():
            option.opts = [name for name in option.opts if name not in own]  # `-o FILE` may be the command's own
            if option.opts:
                self.shared.append(option)
        self.params = [*self.params, *self.shared]

    def invoke(self, ctx: click.Context) -> Any:
        """Do it."""
        if self.trouble is None:
            return super().invoke(ctx)
        from vaultd_client.errors import VaultdError

        try:
            return super().invoke(ctx)
        except (VaultdError, RefusedCall) as error:
            tell(error, as_json=ctx.ensure_object(Session).output == "json")
            ctx.exit(self.trouble)

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """The command's own options first."""
        for title, options in (
            (
                "Options",
                [one for one in self.get_params(ctx) if isinstance(one, click.Option) and one not in self.shared],
            ),
            ("Options of every command", self.shared),
        ):
            records = [record for one in options if (record := one.get_help_record(ctx)) is not None]
            if records:
                with formatter.section(title):
                    formatter.write_dl(records)


class Group(click.Group):
    """A group of commands, some of which are imported when they are used."""

    command_class = Command

    def __init__(self, *arguments: Any, lazy: Mapping[str, Loadable] | None = None, **attributes: Any) -> None:
        super().__init__(*arguments, **attributes)
        self.lazy = dict(lazy or {})

    def list_commands(self, ctx: click.Context) -> list[str]:
        return sorted({*super().list_commands(ctx), *self.lazy})

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        found = super().get_command(ctx, cmd_name)
        if found is None and cmd_name in self.lazy:
            found = self.lazy[cmd_name].load()
            self.add_command(found, cmd_name)
        return found

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """The command of the first word; a word that is none is told what was perhaps meant."""
        if args and not args[0].startswith("-") and self.get_command(ctx, args[0]) is None:
            near = get_close_matches(args[0], self.list_commands(ctx), 3, 0.6)
            meant = f" Did you mean {' or '.join(near)}?" if near else ""
            ctx.fail(f"No such command {args[0]!r}.{meant}")
        return super().resolve_command(ctx, args)

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        """Commands that begin so, without an import of any of them; and options."""
        from click.shell_completion import CompletionItem

        names = [name for name in self.list_commands(ctx) if name.startswith(incomplete)]
        found = [CompletionItem(name, help=self._help_of(name)) for name in names]
        return [*found, *click.Command.shell_complete(self, ctx, incomplete)]

    def _help_of(self, name: str) -> str:
        if name in self.lazy:
            return self.lazy[name].help
        return self.commands[name].get_short_help_str(90)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """The list of commands, without an import of any of them."""
        rows = [
            (name, self._help_of(name))
            for name in self.list_commands(ctx)
            if name not in self.commands or not self.commands[name].hidden
        ]
        if rows:
            with formatter.section("Commands"):
                formatter.write_dl(rows)


Group.group_class = Group


class Root(Group):
    """The command itself: whatever goes wrong below it is told in one shape, and never as a traceback."""

    def main(
        self,
        args: Sequence[str] | None = None,
        prog_name: str | None = None,
        complete_var: str | None = None,
        standalone_mode: bool = True,
        **extra: Any,
    ) -> Any:
        del standalone_mode
        with ended_by_interrupt() as interrupt:
            try:
                code = super().main(args, prog_name, complete_var, standalone_mode=False, **extra)
            except Exception as error:
                if os.environ.get("VAULTD_DEBUG"):
                    traceback.print_exception(error)
                as_json = _wants_json(sys.argv[1:] if args is None else args)
                code = INTERRUPTED if interrupt.came else tell(error, as_json=as_json)
        sys.exit(code if isinstance(code, int) else 0)


def _wants_json(args: Sequence[str]) -> bool:
    said = [*args, ""]
    return any(
        one in {"--output=json", "-ojson"} or (one in {"-o", "--output"} and said[at + 1] == "json")
        for at, one in enumerate(args)
    )


def tell(error: Exception, *, as_json: bool) -> int:
    """Write an error to standard error; returns the exit code."""
    from vaultd_client.errors import ConfigurationError, UsageError, VaultdError

    if isinstance(error, click.exceptions.Abort):
        return INTERRUPTED
    hint = error.hint if isinstance(error, RefusedCall) else ""
    refused = error.error if isinstance(error, RefusedCall) else error
    if isinstance(refused, VaultdError):
        told = describe(refused, hint)
        lines = lines_of(told)
    elif isinstance(error, click.ClickException) and not as_json:
        error.show()
        return error.exit_code
    else:
        told = {"text": _text_of(error), "exit_code": _exit_code_of(error)}
        known = (Refused, ConfigurationError, UsageError, click.ClickException, OSError)
        if not isinstance(error, known):
            told["text"] = f"a fault of vaultctl: {type(error).__name__}; VAULTD_DEBUG=1 shows where"
        lines = [told["text"]]
    if as_json:
        import json

        click.echo(json.dumps({"error": told}), err=True)
    else:
        click.echo(f"vaultctl: {lines[0]}", err=True)
        for line in lines[1:]:
            click.echo(line, err=True)
    return int(told["exit_code"])


def _text_of(error: Exception) -> str:
    if isinstance(error, click.ClickException):
        return error.format_message()
    if isinstance(error, OSError) and error.strerror:
        return f"{error.filename}: {error.strerror}" if error.filename else error.strerror
    return str(error)


def _exit_code_of(error: Exception) -> int:
    if isinstance(error, Refused | click.ClickException):
        return error.exit_code
    return FAILED if isinstance(error, OSError) and error.errno == errno.EPIPE else USAGE
