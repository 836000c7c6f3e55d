"""Asks before something is lost."""

from __future__ import annotations

import sys

import click

from vaultd_client.ctl.failures import FAILED, fail


def confirm(question: str, *, yes: bool, look_at: str = "what it does") -> None:
    """Return when it was said that it shall be done.  Raises Refused, also when nobody is there to be asked."""
    if yes:
        return
    if not sys.stdin.isatty():
        fail(f"nobody is there to be asked: {question} Look at {look_at} and say --yes")
    if not click.confirm(question, err=True):
        fail("nothing was changed", FAILED)
