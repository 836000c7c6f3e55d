"""`vaultctl policy`: who may do what, as files."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from vaultd_client.ctl.calls import send
from vaultd_client.ctl.commands import Command
from vaultd_client.ctl.confirm import confirm
from vaultd_client.ctl.failures import USAGE, fail
from vaultd_client.ctl.output import Printer
from vaultd_client.ctl.repeating import REQUEST_ID, fresh_request_id, repeatable
from vaultd_client.policy_files import diff_policies, dump_policy, read_policy, read_tests
from vaultd_client.schema import DocumentInvalid, load_schema

if TYPE_CHECKING:
    from collections.abc import Callable

    from vaultd_client.ctl.session import Session

FILE = click.Path(path_type=Path, exists=True, dir_okay=False)
RESOURCE = click.option(
    "--resource", default="/", show_default=True, help="`/` for the whole policy, `vaults/VAULT` for that of one vault."
)


@click.command(cls=Command)
@RESOURCE
@click.pass_obj
def get(session: Session, resource: str) -> None:
    """Print the policy in force, as a file that diff and apply read."""
    found = session.client().get_policy(resource)
    if session.output == "json":
        Printer("json").message(found)
    else:
        click.echo(dump_policy(found.policy), nl=False)


@click.command(cls=Command, trouble=USAGE)
@click.argument("file", type=FILE)
@RESOURCE
@click.pass_obj
def diff(session: Session, file: Path, resource: str) -> None:
    """Show what applying FILE would change.  Exit code 1 when it would change something."""
    wanted = _read(read_policy, file)
    found = session.client().get_policy(resource)
    changes = diff_policies(found.policy, wanted, resource, file)
    click.echo(changes, nl=False)
    raise SystemExit(1 if changes else 0)


@click.command(cls=Command)
@click.argument("file", type=FILE)
@RESOURCE
@REQUEST_ID
@click.option("--yes", is_flag=True, help="Do not ask.")
@click.pass_obj
def apply(session: Session, file: Path, resource: str, request_id: str, yes: bool) -> None:
    """Make FILE the policy, after showing what changes.  What somebody else changes meanwhile is not overwritten."""
    wanted = _read(read_policy, file)
    client = session.client()
    found = client.get_policy(resource)
    changes = diff_policies(found.policy, wanted, resource, file)
    if not changes:
        click.echo(f"the policy of {resource} is as in {file} already")
        return
    click.echo(changes, nl=False)
    confirm(f"Make this the policy of {resource}?", yes=yes, look_at="the diff")
    request_id = request_id or fresh_request_id()
    with repeatable(f"--request-id {request_id}"):
        done = client.set_policy(resource, wanted, found.etag, request_id)
    click.echo(f"policy of {resource} set: {done.entries_added} entries added, {done.entries_removed} removed")


@click.command("test", cls=Command, trouble=USAGE)
@click.argument("paths", nargs=-1, required=True, type=FILE, metavar="FILE...")
@click.pass_obj
def run_tests(session: Session, paths: tuple[Path, ...]) -> None:
    """Ask the server what the policy of each FILE of tests allows.  Exit code 1 when an answer is not the expected one."""
    cases = [case for path in paths for case in _read(read_tests, path)]
    failed = 0
    for case in cases:
        answer = send(session.client(), "test_policy", case.request)
        allowed = all(decision.allowed for decision in answer.decisions)
        if allowed is case.allow:
            click.echo(f"ok    {case.name}")
            continue
        failed += 1
        why = "; ".join(f"{d.permission}: {d.reason}" for d in answer.decisions)
        click.echo(
            f"FAIL  {case.name}: {'allowed' if allowed else 'denied'}, not {'allowed' if case.allow else 'denied'} ({why})"
        )
    click.echo(f"{len(cases) - failed} passed, {failed} failed")
    raise SystemExit(1 if failed else 0)


@click.command(cls=Command)
@click.argument("name", type=click.Choice(["policy", "policy-test"]))
def schema(name: str) -> None:
    """Print the JSON schema of policy files, or of files of tests, for your editor."""
    import json

    click.echo(json.dumps(load_schema(name), indent=2))


def _read(reader: Callable[[Path], Any], path: Path) -> Any:
    try:
        return reader(path)
    except DocumentInvalid as error:
        fail(str(error))
