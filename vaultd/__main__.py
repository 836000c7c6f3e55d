"""`python -m vaultd`."""

from vaultd.cli import main

main(prog_name="vaultd")
