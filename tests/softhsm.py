"""A fresh SoftHSM token for a test."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from vaultd import softhsm
from vaultd.backends.base import Lane
from vaultd.backends.pkcs11.messages import Verb
from vaultd.backends.pkcs11.slot import Request, SlotSettings, TokenSlot
from vaultd.backends.pkcs11.uri import TokenSelector
from vaultd.secret import Secret

if TYPE_CHECKING:
    from pathlib import Path

LABEL = "vaultd tests"


def slot_settings(directory: Path, **changes: Any) -> SlotSettings:
    """Settings of a slot with a token in `directory`, which is made when it is not there."""
    pin = softhsm.make_token(directory, LABEL)
    settings: dict[str, Any] = {
        "name": "main",
        "selector": TokenSelector(module=str(softhsm.find_module()), label=LABEL),
        "read_pin": lambda: Secret(pin.read_bytes().strip()),
        "sessions": 2,
        "environment": softhsm.environment(directory),
    }
    return SlotSettings(**{**settings, **changes})


async def open_slot(directory: Path, **changes: Any) -> TokenSlot:
    """A slot that serves."""
    slot = TokenSlot(slot_settings(directory, **changes), lambda name, serving: None)
    await slot.open()
    return slot


def hsm_section(directory: Path, **changes: Any) -> dict[str, Any]:
    """The same slot as a section of the configuration, for `running_server(..., hsm=[...])`."""
    pin = softhsm.make_token(directory, LABEL)
    return {
        "name": "main",
        "module": softhsm.find_module(),
        "token_label": LABEL,
        "pin": {"path": pin},
        "sessions": 2,
        "environment": softhsm.environment(directory),
        **changes,
    }


async def put_key(slot: TokenSlot, algorithm: str, label: str) -> bytes:
    """Make a key in a token as somebody else would; return its CKA_ID."""
    object_id = os.urandom(8)
    request = Request("GENERATE", Verb.GENERATE, (object_id, algorithm, label))
    await slot.ask(request, None, Lane.KEY_GENERATION)
    return object_id
