"""The commands."""

from __future__ import annotations

import datetime
import json
import secrets
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from vaultd_client.ctl.commands import Group
from vaultd_client.ctl.failures import FAILED, USAGE, Refused, fail
from vaultd_client.ctl.names import ResourceName, full_name
from vaultd_client.ctl.progress import progress
from vaultd_client.ctl.scan.marks import MIN_LENGTH, SHORTEST

if TYPE_CHECKING:
    from collections.abc import Sequence

    from vaultd_client.ctl.scan.fingerprints import Hit, Matcher
    from vaultd_client.ctl.scan.index import Stored
    from vaultd_client.ctl.scan.trees import Source, Troubles
    from vaultd_client.ctl.session import Session

INDEX: Final = ".vaultd-scan.json"
OLD: Final = datetime.timedelta(days=30)
SECRETS = click.option(
    "--secret",
    "names",
    multiple=True,
    type=ResourceName("secret"),
    metavar="SECRET",
    help="Only these; by default all of the vault.",
)
LENGTH = click.option(
    "--min-length",
    type=click.IntRange(SHORTEST),
    default=MIN_LENGTH,
    show_default=True,
    help="Shorter secrets are not looked for: ordinary text would be found.",
)
GAPS = click.option("--allow-unreadable", is_flag=True, help="Do without secrets that you may not read.")


class ScanGroup(Group):
    """`scan` takes paths, unless its first word is one of its commands."""

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """The command, and what is left of the words."""
        if args and args[0] in self.commands:
            return super().resolve_command(ctx, args)
        return super().resolve_command(ctx, ["files", *args])

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """All words belong to the command, also those that look like options of the group."""
        if not args or (args[0] not in self.commands and args[0] not in ctx.help_option_names):
            args = ["files", *args]
        return super().parse_args(ctx, args)


@click.group(cls=ScanGroup)
def scan() -> None:
    """Find copies of stored secrets in files: `vaultctl scan PATH...`, or `vaultctl scan --staged` before a commit.

    With an index of fingerprints (`vaultctl scan index`) who scans needs no secret, only `crypto.verify_mac` on the key that it
    was made with; without one, the secrets of the vault that you may read are read and compared here. docs/scan.md has both, and
    what an index tells whom. `vaultctl scan files --help` has the options.

    Exit codes: 0 nothing found; 1 found; 2 it could not be looked for.
    """


@scan.command(trouble=USAGE)
@click.argument("paths", nargs=-1, type=click.Path(path_type=Path), metavar="PATH...")
@click.option("--staged", is_flag=True, help="What the next commit adds or changes, as git has it in its index.")
@click.option(
    "--index",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help=f"Fingerprints; by default {INDEX}, if it is here or at the top of the working tree.",
)
@click.option("--direct", is_flag=True, help="Read the secrets, also when there is an index.")
@click.option("--no-git", is_flag=True, help="All files of directories, also those that git ignores.")
@click.option("--exclude", multiple=True, metavar="GLOB", help="Not these files, such as '*.lock'; once for each.")
@SECRETS
@LENGTH
@GAPS
@click.pass_context
def files(context: click.Context, /, paths: tuple[Path, ...], staged: bool, **options: Any) -> None:
    """Find copies of stored secrets in files and directories: PATH:LINE, and the name of the secret, never the secret.

    They are found as they are, in base64, hexadecimal, URLs, JSON strings and XML, in binary files, and in UTF-16. In a working
    tree of git, files that it ignores are left out.
    """
    from vaultd_client.ctl.scan import trees

    if staged == bool(paths):
        raise click.UsageError("say PATH..., or --staged")
    session: Session = context.obj
    troubles = trees.Troubles()
    sources = list(
        trees.staged_files(options["exclude"])
        if staged
        else trees.files_of(paths, use_git=not options["no_git"], excluded=options["exclude"], troubles=troubles)
    )
    if not sources and not troubles.told:
        click.echo("no file to look at", err=True)
        return
    matcher = _matcher(session, options, troubles)
    _read(sources, matcher, troubles)
    hits = matcher.hits()
    _tell(hits, session.output)
    for told in troubles.told:
        click.echo(f"vaultctl: {told}", err=True)
    versions = {hit.version for hit in hits}
    if hits:
        click.echo(f"{len(hits)} copies of {len(versions)} versions in {len(sources):,} files: rotate them", err=True)
    context.exit(FAILED if hits else USAGE if troubles.told else 0)


def _matcher(session: Session, options: dict[str, Any], troubles: Troubles) -> Matcher:
    from vaultd_client.ctl.scan.fingerprints import AtHand, ByVault, Matcher
    from vaultd_client.ctl.scan.index import SALT_BYTES, fingerprints_at_hand, read_index, read_secrets, secret_names

    client = session.client()
    path: Path | None = options["index"]
    if path is None and not options["direct"]:
        path = _index_here()
    if path is not None and not options["direct"]:
        index = read_index(path, client)
        if datetime.datetime.now(datetime.UTC) - index.create_time > OLD:
            click.echo(f"vaultctl: {path} is of {index.create_time:%Y-%m-%d}: newer secrets are not in it", err=True)
        return Matcher(index.fingerprints, index.salt, ByVault(client, index.key_version), index.min_length)
    names = options["names"] or secret_names(client, f"vaults/{session.vault}")
    with progress("secrets") as bar:
        stored = read_secrets(client, names, bar)
    salt = secrets.token_bytes(SALT_BYTES)
    made, bare = fingerprints_at_hand(stored, salt, options["min_length"])
    _tell_bare(bare)
    if stored.unreadable and options["allow_unreadable"]:
        click.echo(f"vaultctl: {_not_looked_for(stored)}", err=True)
    elif stored.unreadable:
        troubles.told.append(f"{_not_looked_for(stored)}: --allow-unreadable does without them")
    if not made:
        fail("there is nothing to look for: no secret that you may read is long enough")
    return Matcher(made, salt, AtHand(), options["min_length"])


def _index_here() -> Path | None:
    from vaultd_client.ctl.scan import trees

    if Path(INDEX).is_file():
        return Path(INDEX)
    top = trees.top_of_tree()
    return top / INDEX if top is not None and (top / INDEX).is_file() else None


def _read(sources: Sequence[Source], matcher: Matcher, troubles: Troubles) -> None:
    from vaultd_client.ctl.scan import trees
    from vaultd_client.ctl.scan.fingerprints import Place
    from vaultd_client.ctl.scan.texts import Reader

    path, first_line, content = "", 1, b""

    def see(piece: bytes, offset: int, how: str) -> None:
        if matcher.suspects(piece):
            matcher.add(piece, Place(path, first_line + content.count(b"\n", 0, offset), how))

    reader = Reader(matcher.lengths, matcher.min_length, see)
    with progress("files", len(sources)) as bar:
        for number, source in enumerate(sources, start=1):
            path = source.path
            try:
                with trees.opened(source) as stream:
                    for first_line, content in trees.windows(stream):  # noqa: B007  # `see` looks at both
                        reader.read(content)
            except OSError as error:
                troubles.add(source.path, error)
            bar.update(number)


def _tell(hits: Sequence[Hit], form: str | None) -> None:
    for hit in hits:
        place = hit.place
        if form == "json":
            told = {"path": place.path, "line": place.line, "version": hit.version, "how": place.how}
            click.echo(json.dumps(told, ensure_ascii=False))
        else:
            how = "" if place.how == "plain" else f" ({place.how})"
            click.echo(f"{place.path}:{place.line}: {hit.version}{how}")


def _tell_bare(versions: Sequence[str]) -> None:
    for version in versions:
        click.echo(f"vaultctl: {version} is too short or too ordinary to be looked for", err=True)


def _not_looked_for(stored: Stored) -> str:
    return f"{stored.unreadable} versions could not be read, and are not looked for"


@scan.command("index")
@click.option(
    "-o",
    "--out",
    type=click.Path(path_type=Path),
    default=INDEX,
    show_default=True,
    metavar="FILE",
    help="The file to write.",
)
@click.option(
    "--key",
    default="scan",
    show_default=True,
    type=ResourceName("key"),
    metavar="KEY",
    help="A MAC key that is used for nothing else.",
)
@SECRETS
@LENGTH
@GAPS
@click.pass_obj
def make(
    session: Session, /, out: Path, key: str, names: tuple[str, ...], min_length: int, allow_unreadable: bool
) -> None:
    """Write fingerprints of all secrets, for others to scan with.

    Needs `secrets.access` on the secrets and `crypto.generate_mac` on the key (`vaultctl keys create scan --purpose mac`).
    """
    from vaultd_client.ctl.scan.index import make_index, read_secrets, secret_names, write_index

    client = session.client()
    key = full_name("key", key, session.vault)
    with progress("secrets") as bar:
        stored = read_secrets(client, names or secret_names(client, f"vaults/{session.vault}"), bar)
    if not stored.payloads:
        raise Refused("there is no secret that you may read", FAILED)
    if stored.unreadable and not allow_unreadable:
        raise Refused(
            f"{stored.unreadable} versions could not be read: nothing was written; --allow-unreadable does without them",
            FAILED,
        )
    document, bare = make_index(client, key, stored, min_length)
    write_index(out, document)
    _tell_bare(bare)
    if stored.unreadable:
        click.echo(f"vaultctl: {_not_looked_for(stored)}", err=True)
    count = sum(map(len, document["versions"].values()))
    click.echo(
        f"{out}: {count} fingerprints of {len(document['versions'])} versions, by {document['key_version']}", err=True
    )
