"""`vaultctl profile`: named sets of settings, without a login."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from vaultd_client.ctl.commands import Group
from vaultd_client.ctl.failures import fail
from vaultd_client.ctl.output import Printer
from vaultd_client.ctl.types import CommandWords, ParameterType
from vaultd_client.profiles import config_path, read_profiles, write_profiles

if TYPE_CHECKING:
    from click.shell_completion import CompletionItem

    from vaultd_client.ctl.session import Session

SHOWN = (
    "address",
    "ca",
    "certificate",
    "key",
    "token_file",
    "token_command",
    "server_name",
    "vault",
    "output",
    "needs",
)


class ProfileName(ParameterType):
    """A profile of the file."""

    name = "profile"

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
        """Profiles that begin so."""
        from click.shell_completion import CompletionItem

        try:
            names = read_profiles(config_path()).profiles
        except ValueError:
            return []
        return [CompletionItem(name) for name in names if name.startswith(incomplete)]


NAME = click.argument("name", type=ProfileName(), metavar="NAME")


@click.group(cls=Group)
def profile() -> None:
    """Which server, as whom: named sets of settings.

    They are in ~/.config/vaultd/config.yaml (XDG_CONFIG_HOME) and hold no secret: they name files, or a command that
    prints a token.
    --profile names one, or VAULTD_PROFILE, or `vaultctl profile use` once and for all.
    """


def _absolute(value: Any) -> str | None:
    return None if value is None else str(Path(value).expanduser().absolute())


@profile.command()
@NAME
@click.argument("address", metavar="HOST:PORT")
@click.option("--ca", type=click.Path(), help="Authorities of the server.")
@click.option("--cert", type=click.Path(), help="Your certificate.")
@click.option("--key", type=click.Path(), help="Its private key.")
@click.option("--token-file", type=click.Path(), help="A JWT, in place of a certificate.")
@click.option(
    "--token-command",
    type=CommandWords(),
    metavar="COMMAND",
    help="Prints a JWT, in place of a certificate; no shell looks at it.",
)
@click.option("--server-name", help="DNS name or SPIFFE id in the server's certificate, if not the host's name.")
@click.option("--vault", metavar="ID", help="The vault that short names are of.")
@click.option("--output", type=click.Choice(["table", "json", "yaml"]), help="How answers are written.")
@click.option("--need", "needs", multiple=True, metavar="'PERMISSION RESOURCE'", help="`vaultctl doctor` looks for it.")
@click.option("--replace", is_flag=True, help="In place of the one of this name.")
@click.option("--use", "use_it", is_flag=True, help="Make it the current one; the first one always is.")
def add(name: str, address: str, replace: bool, use_it: bool, **options: Any) -> None:
    """Keep a profile."""
    document = _document()
    if name in document["profiles"] and not replace:
        fail(f"there is a profile `{name}`: say --replace, or choose another name")
    values: dict[str, Any] = {
        "address": address,
        **{key: _absolute(options[key]) for key in ("ca", "key", "token_file")},
        "certificate": _absolute(options["cert"]),
        "token_command": options["token_command"],
        "needs": list(options["needs"]),
        **{key: options[key] for key in ("server_name", "vault", "output")},
    }
    document["profiles"][name] = {key: values[key] for key in SHOWN if values[key]}
    if use_it or len(document["profiles"]) == 1:
        document["current"] = name
    write_profiles(config_path(), document)
    click.echo(f"{name}: kept; `vaultctl --profile {name} doctor` tries it")


@profile.command("list")
@click.pass_obj
def list_profiles(session: Session) -> None:
    """List the profiles; `*` is the current one."""
    found = read_profiles(config_path())
    printer = Printer(session.flags.get("output"))
    if printer.form == "table":
        rows = [
            ("*" if name == found.current else "", name, one.address, one.vault or "", _who(one))
            for name, one in found.profiles.items()
        ]
        printer.rows(("", "NAME", "ADDRESS", "VAULT", "IDENTITY"), rows)
    else:
        shown = [
            {"name": name, "current": name == found.current, **_shown(one)} for name, one in found.profiles.items()
        ]
        printer.document({"profiles": shown})


@profile.command()
@NAME
def use(name: str) -> None:
    """Make a profile the current one."""
    read_profiles(config_path()).get(name)
    write_profiles(config_path(), {**_document(), "current": name})
    click.echo(f"{name}: the current profile")


@profile.command()
@click.argument("name", type=ProfileName(), required=False, metavar="[NAME]")
@click.pass_obj
def show(session: Session, name: str | None) -> None:
    """Show a profile; without NAME the one that is in force."""
    found = session.profile if name is None else read_profiles(config_path()).get(name)
    if found is None:
        fail(f"no profile is in force, and {config_path()} has no current one")
    form = session.flags.get("output")
    Printer("yaml" if form in {None, "table"} else form).document({"name": found.name, **_shown(found)})


@profile.command()
@NAME
def remove(name: str) -> None:
    """Forget a profile; the files that it names stay."""
    read_profiles(config_path()).get(name)
    document = _document()
    del document["profiles"][name]
    if document.get("current") == name:
        del document["current"]
    write_profiles(config_path(), document)
    click.echo(f"{name}: removed")


def _document() -> dict[str, Any]:
    """The file as it is, to be written with a change."""
    found = read_profiles(config_path())
    document: dict[str, Any] = {} if found.current is None else {"current": found.current}
    document["profiles"] = {name: _shown(one) for name, one in found.profiles.items()}
    return document


def _shown(found: Any) -> dict[str, Any]:
    values = {key: getattr(found, key) for key in SHOWN}
    return {key: list(value) if isinstance(value, tuple) else value for key, value in values.items() if value}


def _who(found: Any) -> str:
    return str(found.certificate or found.token_file or " ".join(found.token_command))
