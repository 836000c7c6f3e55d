"""The root of vaultctl: where the server is, and the names of all commands."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from vaultd_client.ctl.commands import Lazy, Loadable, Root, shared_options
from vaultd_client.ctl.groups import members_of
from vaultd_client.ctl.session import Session

if TYPE_CHECKING:
    from collections.abc import Callable

CTL = "vaultd_client.ctl"
COMMANDS: dict[str, Loadable] = {
    **members_of(""),
    "call": Lazy(f"{CTL}.call_command:call", "Call any RPC with a request in JSON."),
    "completion": Lazy(
        f"{CTL}.completion_command:completion", "Print what makes your shell complete commands and names."
    ),
    "doctor": Lazy(f"{CTL}.doctor.command:doctor", "Find out why the server cannot be used, and what to do."),
    "file": Lazy(f"{CTL}.file_commands:file", "Encrypt and decrypt files and pipes of any size."),
    "health": Lazy(f"{CTL}.health_command:health", "Ask the server, or one of its components, whether it serves."),
    "profile": Lazy(f"{CTL}.profile_commands:profile", "Which server, as whom: named sets of settings."),
    "render": Lazy(f"{CTL}.run_commands:render", "Write a template with secrets in it."),
    "run": Lazy(f"{CTL}.run_commands:run", "Run a command with secrets in its environment."),
    "scan": Lazy(f"{CTL}.scan.command:scan", "Find copies of stored secrets in files."),
}
"""Every command below the root.  A command of its own module is one line here: where it is, and its line in the help."""

FILES = click.Path()


def _with_shared_options(command: Callable[..., Any]) -> Callable[..., Any]:
    command.__click_params__ = [*reversed(shared_options()), *command.__click_params__]  # type: ignore[attr-defined]
    return command


@click.group(
    cls=Root, lazy=COMMANDS, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 120}
)
@_with_shared_options
@click.version_option(package_name="vaultd-client", prog_name="vaultctl")
@click.option("--addr", metavar="HOST:PORT", help="The server; several with commas between them.  [VAULTD_ADDR]")
@click.option("--ca", type=FILES, help="Authorities of the server.  [VAULTD_CA]")
@click.option("--cert", type=FILES, help="Your certificate.  [VAULTD_CERT]")
@click.option("--key", type=FILES, help="Its private key.  [VAULTD_KEY]")
@click.option("--server-name", help="Name in the server's certificate, if not the host's.  [VAULTD_SERVER_NAME]")
@click.option("--token-file", type=FILES, help="A JWT, in place of a certificate.  [VAULTD_TOKEN_FILE]")
@click.pass_context
def main(context: click.Context, /, **flags: Any) -> None:
    """vaultctl, for those who run a vaultd and those who use one.

    Exit codes: 0 done; 1 refused or failed, or different; 2 the command line, the configuration or a file is wrong; 3 not found;
    4 not allowed; 5 its state is in the way; 6 not now; 130 interrupted.
    """
    session = context.ensure_object(Session)
    for name, value in flags.items():
        session.set(name, value)
    context.call_on_close(session.close)
