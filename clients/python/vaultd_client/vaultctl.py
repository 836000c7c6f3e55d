"""The command `vaultctl`.

Exit codes: 0 done, or equal; 1 different, or a test failed; 2 it could not be done, and the text says why.
"""

from __future__ import annotations

import sys
import uuid
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from vaultd_client.connection import Connection, call, fail
from vaultd_client.key_commands import keys
from vaultd_client.policy_files import diff_policies, dump_policy, read_policy, read_tests
from vaultd_client.schema import DocumentInvalid, load_schema
from vaultd_client.v1 import admin_pb2_grpc
from vaultd_client.v1 import policy_pb2 as pb

if TYPE_CHECKING:
    from collections.abc import Callable

FILE = click.Path(path_type=Path, exists=True, dir_okay=False)
RESOURCE = click.option(
    "--resource", default="/", show_default=True, help="`/` for the whole policy, `vaults/VAULT` for that of one vault."
)


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--addr", envvar="VAULTD_ADDR", show_envvar=True, default="", metavar="HOST:PORT", help="The server.")
@click.option(
    "--ca", envvar="VAULTD_CA", show_envvar=True, type=click.Path(path_type=Path), help="Authorities of the server."
)
@click.option(
    "--cert", envvar="VAULTD_CERT", show_envvar=True, type=click.Path(path_type=Path), help="Your certificate."
)
@click.option("--key", envvar="VAULTD_KEY", show_envvar=True, type=click.Path(path_type=Path), help="Its private key.")
@click.pass_context
def main(context: click.Context, addr: str, ca: Path | None, cert: Path | None, key: Path | None) -> None:
    """vaultctl, for those who run a vaultd."""
    context.obj = Connection(addr, ca, cert, key)


main.add_command(keys)


@main.group()
def policy() -> None:
    """Policy as code: who may do what, in files."""


@policy.command()
@RESOURCE
@click.pass_obj
def get(connection: Connection, resource: str) -> None:
    """Print the policy in force, as a file that diff and apply read."""
    found = call(connection.stub(admin_pb2_grpc.AdminServiceStub).GetPolicy, pb.GetPolicyRequest(resource=resource))
    click.echo(dump_policy(found.policy), nl=False)


@policy.command()
@click.argument("file", type=FILE)
@RESOURCE
@click.pass_obj
def diff(connection: Connection, file: Path, resource: str) -> None:
    """Show what applying FILE would change.  Exit code 1 when it would change something."""
    wanted = _read(read_policy, file)
    found = call(connection.stub(admin_pb2_grpc.AdminServiceStub).GetPolicy, pb.GetPolicyRequest(resource=resource))
    changes = diff_policies(found.policy, wanted, resource, file)
    click.echo(changes, nl=False)
    raise SystemExit(1 if changes else 0)


@policy.command()
@click.argument("file", type=FILE)
@RESOURCE
@click.option("--yes", is_flag=True, help="Do not ask.")
@click.pass_obj
def apply(connection: Connection, file: Path, resource: str, yes: bool) -> None:
    """Make FILE the policy, after showing what changes.  What somebody else changes meanwhile is not overwritten."""
    wanted = _read(read_policy, file)
    admin = connection.stub(admin_pb2_grpc.AdminServiceStub)
    found = call(admin.GetPolicy, pb.GetPolicyRequest(resource=resource))
    changes = diff_policies(found.policy, wanted, resource, file)
    if not changes:
        click.echo(f"the policy of {resource} is as in {file} already")
        return
    click.echo(changes, nl=False)
    if not yes:
        if not sys.stdin.isatty():
            fail("nobody is there to be asked; look at the diff and say --yes")
        if not click.confirm(f"Make this the policy of {resource}?"):
            fail("nothing was changed")
    request = pb.SetPolicyRequest(resource=resource, policy=wanted, etag=found.etag, request_id=str(uuid.uuid4()))
    done = call(admin.SetPolicy, request)
    click.echo(f"policy of {resource} set: {done.entries_added} entries added, {done.entries_removed} removed")


@policy.command("test")
@click.argument("paths", nargs=-1, required=True, type=FILE, metavar="FILE...")
@click.pass_obj
def run_tests(connection: Connection, paths: tuple[Path, ...]) -> None:
    """Ask the server what the policy of each FILE of tests allows.  Exit code 1 when an answer is not the expected one."""
    cases = [case for path in paths for case in _read(read_tests, path)]
    admin = connection.stub(admin_pb2_grpc.AdminServiceStub)
    failed = 0
    for case in cases:
        answer = call(admin.TestPolicy, case.request)
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


@policy.command()
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
    except OSError as error:
        fail(f"{error.filename}: {error.strerror}")


if __name__ == "__main__":
    main()
