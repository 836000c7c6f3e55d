"""`vaultctl run` and `vaultctl render`: secrets for programs that know nothing of a vault."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Final, NoReturn

import click

from vaultd_client.ctl.commands import Command
from vaultd_client.ctl.failures import EXIT_CODES, FAILED, USAGE, fail
from vaultd_client.ctl.following import TROUBLE, Following
from vaultd_client.ctl.private_files import on_disk, replace_private
from vaultd_client.ctl.supervision import Supervised, exit_code_of
from vaultd_client.ctl.types import CommandWords
from vaultd_client.injection import (
    InjectionRefused,
    Placeholder,
    Template,
    TemplateInvalid,
    environment_of,
    fill_all,
    is_reference,
    read_environment,
)
from vaultd_client.secret_references import ReferenceInvalid, SecretReference

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from vaultd_client.ctl.session import Session

NOT_STARTED: Final = 125
"""As env, nohup and timeout have it: the command's own exit codes are below, but for 126 and 127."""
NOT_EXECUTABLE: Final = 126
NOT_FOUND: Final = 127
MAX_FILE_BYTES: Final = 4 * 1024 * 1024
FILE = click.Path(path_type=Path, exists=True, dir_okay=False, allow_dash=True)


@click.command(cls=Command, trouble=NOT_STARTED, context_settings={"allow_interspersed_args": False})
@click.option("--env-file", "files", type=FILE, multiple=True, help="Variables, NAME=VALUE; of several the last wins.")
@click.option(
    "--env", "given", multiple=True, metavar="NAME=SECRET", help="A variable that is a secret, before those of files."
)
@click.option("--drop-credentials", is_flag=True, help="Leave all VAULTD_* out of the command's environment.")
@click.option("--watch", is_flag=True, help="Start the command again when a secret changed.")
@click.option(
    "--grace",
    "grace_s",
    type=click.FloatRange(0),
    default=10.0,
    show_default=True,
    metavar="SECONDS",
    help="With --watch: how long it may take to end.",
)
@click.argument("command", nargs=-1, required=True, type=click.UNPROCESSED, metavar="[--] COMMAND [ARGUMENT]...")
@click.pass_obj
def run(
    session: Session,
    files: tuple[Path, ...],
    given: tuple[str, ...],
    drop_credentials: bool,
    watch: bool,
    grace_s: float,
    command: tuple[str, ...],
) -> None:
    """Run COMMAND with secrets in its environment, and nowhere else.

    A value `vaultd://vaults/VAULT/secrets/SECRET`, in a file or in the environment that there is, is replaced by the secret;
    `/versions/N` and `#MEMBER` of a JSON object may follow.  Values in files may have `{{ vaultd://... | url }}` within them.

    COMMAND takes the place of vaultctl: its signals and its exit code are its own.  125: it was not started.
    """
    inherited = {
        name: value for name, value in os.environ.items() if not (drop_credentials and name.startswith("VAULTD_"))
    }
    try:
        templates = {name: Template.of_value(value) for name, value in inherited.items() if is_reference(value)}
        for file in files:
            templates.update(read_environment(_read(file, NOT_STARTED)))
        templates.update(_parse_given(session, one) for one in given)
    except TemplateInvalid as error:
        fail(str(error), NOT_STARTED)

    def environment() -> dict[str, str]:
        return {**inherited, **(environment_of(session.client(), templates) if templates else {})}

    try:
        first = environment()
    except InjectionRefused as error:
        fail(f"{command[0]} was not started\n{error}", NOT_STARTED)
    if watch:
        following = Following(session.client(), _secrets_of(templates))
        raise SystemExit(_attempt(command, lambda: Supervised(command, environment, following, grace_s).run(first)))
    session.close()
    _attempt(command, lambda: _become(command, first))


def _become(command: tuple[str, ...], environment: Mapping[str, str]) -> NoReturn:
    for ignored_by_python in (signal.SIGPIPE, signal.SIGXFSZ):
        signal.signal(ignored_by_python, signal.SIG_DFL)  # or the command would ignore them, too
    sys.stdout.flush()
    sys.stderr.flush()
    os.execvpe(command[0], command, environment)  # noqa: S606  # what `run` is for


def _attempt(command: tuple[str, ...], act: Callable[[], int]) -> int:
    """Start the command; that it cannot be started is told as a shell would."""
    try:
        return act()
    except FileNotFoundError:
        fail(f"there is no command {command[0]}", NOT_FOUND)
    except OSError as error:
        fail(f"{command[0]}: {error.strerror}", NOT_EXECUTABLE)


def _parse_given(session: Session, text: str) -> tuple[str, Template]:
    name, found, secret = text.partition("=")
    try:
        if not found or not name:
            raise ReferenceInvalid("--env is NAME=SECRET")
        if "/" not in secret:
            secret = f"vaults/{session.vault}/secrets/{secret}"
        return name, Template((Placeholder(SecretReference.parse(secret)),))
    except ReferenceInvalid as error:
        raise TemplateInvalid(f"--env {name}: {error}") from None


@click.command(cls=Command)
@click.argument("template", type=FILE)
@click.option("-o", "--out", type=click.Path(path_type=Path), help="A file, mode 0600, which is replaced as a whole.")
@click.option("--watch", is_flag=True, help="With --out: go on, and write the file again when a secret changed.")
@click.option(
    "--on-change",
    type=CommandWords(),
    metavar="COMMAND",
    help="With --watch: run this, without a shell, whenever the file was written.",
)
@click.pass_obj
def render(session: Session, template: Path, out: Path | None, watch: bool, on_change: list[str] | None) -> None:
    """Write TEMPLATE (`-`: standard input) with secrets in the place of `{{ vaultd://vaults/VAULT/secrets/SECRET }}`.

    `/versions/N` and `#MEMBER` of a JSON object may follow, and a filter: `| json`, `| shell`, `| url` or `| base64`.  All
    other text stays as it is.  All or nothing: when a secret cannot be had, nothing is written.
    """
    if watch and (out is None or str(template) == "-"):
        fail("--watch goes with --out and a template that is a file")
    if on_change is not None and not watch:
        fail("--on-change goes with --watch")
    if out is not None and (disk := on_disk(out)):
        click.echo(
            f"vaultctl: {disk} is on a disk, which may keep what is deleted; /run and /dev/shm are in memory", err=True
        )
    if not watch:
        try:
            _write(_render(session, template), out)
        except InjectionRefused as error:
            codes = {EXIT_CODES.get(code, FAILED) for code in error.codes}
            fail(f"nothing was written\n{error}", codes.pop() if len(codes) == 1 else FAILED)
        return
    _render_and_follow(session, template, out, on_change or [])


def _render_and_follow(session: Session, template: Path, out: Path | None, on_change: list[str]) -> None:
    following = Following(session.client(), _secrets_of({"": _parse(template)}))
    written: str | None = None
    for _ in following.looks():
        try:
            rendered = _render(session, template)
        except (*TROUBLE, InjectionRefused) as error:
            following.problem(error)
            continue
        if rendered == written:
            continue
        _write(rendered, out)
        if on_change:
            code = exit_code_of(subprocess.run(on_change, check=False).returncode)  # noqa: S603  # what was asked for
            if code:
                click.echo(f"vaultctl: {on_change[0]} exited with {code}", err=True)
        written = rendered


def _parse(path: Path) -> Template:
    try:
        return Template.parse(_read(path, USAGE))
    except TemplateInvalid as error:
        fail(f"{path}: {error}")


def _render(session: Session, path: Path) -> str:
    template = _parse(path)
    if not template.references:
        return template.fill({})
    return fill_all(session.client(), {str(path): template})[str(path)]


def _write(text: str, out: Path | None) -> None:
    if out is None:
        click.echo(text.encode(), nl=False)  # bytes: what the locale cannot spell is no reason to fail
    else:
        replace_private(out, text.encode())


def _read(path: Path, exit_code: int) -> str:
    content = sys.stdin.buffer.read(MAX_FILE_BYTES + 1) if str(path) == "-" else path.read_bytes()
    if len(content) > MAX_FILE_BYTES:
        fail(f"{path} is larger than 4 MiB", exit_code)
    try:
        return content.decode()
    except UnicodeDecodeError:
        fail(f"{path} is no text (UTF-8)", exit_code)


def _secrets_of(templates: Mapping[str, Template]) -> set[str]:
    """The secrets in templates, without their versions."""
    references = (reference for template in templates.values() for reference in template.references)
    return {reference.name.partition("/versions/")[0] for reference in references}
