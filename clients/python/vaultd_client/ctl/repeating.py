"""Requests that are to be made again, the very same, once others have approved them."""

from __future__ import annotations

import uuid
from contextlib import contextmanager
from typing import TYPE_CHECKING

import click

from vaultd_client.ctl.failures import RefusedCall
from vaultd_client.errors import VaultdError

if TYPE_CHECKING:
    from collections.abc import Iterator

REQUEST_ID = click.option(
    "--request-id", default="", metavar="ID", help="1 to 64 of `[A-Za-z0-9-]`, to make the same request again."
)


def fresh_request_id() -> str:
    """One that no other request has."""
    return str(uuid.uuid4())


@contextmanager
def repeatable(how: str) -> Iterator[None]:
    """Tell of a call that awaits approval how it is made again.  how: what to add to the command; empty for nothing."""
    try:
        yield
    except VaultdError as error:
        raise RefusedCall(error, _hint(error, how)) from None


def _hint(error: VaultdError, how: str) -> str:
    approval = error.metadata.get("approval")
    if not approval:
        return ""
    return f"once {approval} is approved, send the same command again {f'with {how}' if how else 'as it is'}"
