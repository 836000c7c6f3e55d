"""What a sink shows of itself: a bearer token, or the secret that signs webhooks.  Read for each batch: rotation needs no restart.

Both files must be private.  These functions block.
"""

from __future__ import annotations

import base64
import os
import stat
from typing import TYPE_CHECKING, Final

from vaultd.audit.shipping.base import DeliveryFailed
from vaultd.backends.private_files import NotPrivate, read_private_file
from vaultd.secret import Secret

if TYPE_CHECKING:
    from pathlib import Path

LEAST_SECRET_BYTES: Final = 24
SECRET_PREFIX: Final = "whsec_"  # noqa: S105  # what secrets begin with
"""As Standard Webhooks spells secrets."""
_MAX_BYTES: Final = 16 * 1024
_OTHERS: Final = stat.S_IRWXO | stat.S_IWGRP
"""A secret that Kubernetes mounts belongs to root, and is read through the group."""


def read_token(path: Path) -> Secret:
    """A bearer token.  Raises DeliveryFailed."""
    token = _read(path, "token_file")
    if not token or not all(0x21 <= byte <= 0x7E for byte in token):
        raise DeliveryFailed("credential", "token_file holds no token")
    return Secret(token)


def read_secret(path: Path) -> Secret:
    """The key of webhook signatures: base64, with or without `whsec_`.  Raises DeliveryFailed."""
    text = _read(path, "secret_file")
    try:
        secret = base64.b64decode(text.removeprefix(SECRET_PREFIX.encode()), validate=True)
    except ValueError as error:
        raise DeliveryFailed("credential", "secret_file is not base64") from error
    if len(secret) < LEAST_SECRET_BYTES:
        raise DeliveryFailed("credential", f"secret_file must hold at least {LEAST_SECRET_BYTES} bytes of base64")
    return Secret(secret)


def _read(path: Path, what: str) -> bytes:
    try:
        return read_private_file(path, forbidden_mode=_OTHERS, owners=(0, os.geteuid()), max_bytes=_MAX_BYTES).strip()
    except NotPrivate as error:
        raise DeliveryFailed("credential", f"{what} {error}") from error
    except OSError as error:
        raise DeliveryFailed("credential", f"{what} cannot be read") from error
