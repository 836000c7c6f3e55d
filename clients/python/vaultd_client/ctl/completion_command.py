"""`vaultctl completion`: what a shell needs to complete commands, options and names."""

from __future__ import annotations

import click
from click.shell_completion import get_completion_class

from vaultd_client.ctl.commands import Command

WHERE = {
    "bash": "~/.local/share/bash-completion/completions/vaultctl",
    "zsh": "a file _vaultctl in a directory of $fpath",
    "fish": "~/.config/fish/completions/vaultctl.fish",
}


@click.command(cls=Command)
@click.argument("shell", type=click.Choice(list(WHERE)))
@click.pass_context
def completion(context: click.Context, shell: str) -> None:
    """Print the completion for SHELL.

    For this shell: `source <(vaultctl completion bash)`, or `vaultctl completion fish | source`. For good: write it to
    ~/.local/share/bash-completion/completions/vaultctl (bash), to a file _vaultctl in a directory of $fpath (zsh), or to
    ~/.config/fish/completions/vaultctl.fish.

    Names of keys, secrets and vaults are asked of the server, for at most a second.
    """
    found = get_completion_class(shell)
    assert found is not None  # noqa: S101  # one of click's own
    click.echo(found(context.find_root().command, {}, "vaultctl", "_VAULTCTL_COMPLETE").source())
