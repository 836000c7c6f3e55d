"""The reference of vaultctl, from its commands; docs/generate.py puts it into docs/vaultctl.md."""

from __future__ import annotations

import click

from vaultd_client.ctl.catalogue import GROUPS, MORE, VERBS
from vaultd_client.ctl.root import main

RPCS = {verb.command: verb.rpc for verb in VERBS}


def command_tables() -> str:
    """A table for each group, and one for what stands by itself."""
    parts = []
    for words in sorted({words.partition(" ")[0] for words in GROUPS}):
        parts.append(f"### {words}\n\n{GROUPS[words]}\n\n{_table(_commands(words))}")
    alone = sorted({*main.lazy, *main.commands} - {words.partition(" ")[0] for words in GROUPS})
    found = [words for name in alone for words in _commands(name)]
    parts.append(f"### By themselves\n\n{_table(found)}")
    return "\n\n".join(parts)


def _commands(words: str) -> list[str]:
    """A command, or all that are below a group, by their words."""
    command = _command_of(words)
    if not isinstance(command, click.Group):
        return [words]
    with click.Context(command) as context:
        names = command.list_commands(context)
    return [below for name in names for below in _commands(f"{words} {name}")]


def _command_of(words: str) -> click.Command:
    found: click.Command = main
    for word in words.split():
        assert isinstance(found, click.Group)  # noqa: S101  # for type checkers
        with click.Context(found) as context:
            command = found.get_command(context, word)
        if command is None:
            raise SystemExit(f"vaultctl has no `{words}`")
        found = command
    return found


def _table(commands: list[str]) -> str:
    rows = ["| Command | RPC | Does |", "| --- | --- | --- |"]
    for words in commands:
        command = _command_of(words)
        with click.Context(command) as context:
            arguments = " ".join(one.make_metavar(context) for one in command.params if isinstance(one, click.Argument))
        does = MORE[words][1] if words in MORE else command.get_short_help_str(160)
        synopsis = f"{words} {arguments}".strip().replace("|", "\\|")
        rows.append(f"| `{synopsis}` | {RPCS.get(words, '')} | {does} |")
    return "\n".join(rows)
