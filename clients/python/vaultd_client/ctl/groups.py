"""Groups of commands as the catalogue lists them, each made when it is used."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from vaultd_client.ctl.api import rpc_of
from vaultd_client.ctl.catalogue import GROUPS, MORE, VERBS, Verb
from vaultd_client.ctl.commands import Group, Lazy, Loadable
from vaultd_client.ctl.rpc_commands import make_command, short_help

if TYPE_CHECKING:
    import click


@dataclass(frozen=True, slots=True)
class OfRpc:
    """A command that is made of an RPC."""

    verb: Verb

    @property
    def help(self) -> str:
        return short_help(rpc_of(self.verb.rpc))

    def load(self) -> click.Command:
        return make_command(self.verb)


@dataclass(frozen=True, slots=True)
class OfGroup:
    """A group of the catalogue, by its words."""

    words: str

    @property
    def help(self) -> str:
        return GROUPS[self.words]

    def load(self) -> click.Command:
        return make_group(self.words)


def make_group(words: str) -> Group:
    """The group of these words, with all that is in it."""
    return Group(words.rpartition(" ")[2], help=GROUPS[words], lazy=members_of(words))


def members_of(words: str) -> dict[str, Loadable]:
    """Commands and groups right below a group; of the root for no words."""
    found: dict[str, Loadable] = {}
    for group in GROUPS:
        parent, _, name = group.rpartition(" ")
        if parent == words:
            found[name] = OfGroup(group)
    for verb in VERBS:
        parent, _, name = verb.command.rpartition(" ")
        if parent == words:
            found[name] = Lazy(verb.by_hand, short_help(rpc_of(verb.rpc))) if verb.by_hand else OfRpc(verb)
    for command, (place, told) in MORE.items():
        parent, _, name = command.rpartition(" ")
        if parent == words:
            found[name] = Lazy(place, told)
    return found
