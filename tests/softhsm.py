"""A fresh SoftHSM token for a test."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from vaultd import softhsm
from vaultd.backends.pkcs11.slot import SlotSettings, TokenSlot
from vaultd.secret import Secret

if TYPE_CHECKING:
    from pathlib import Path

LABEL = "vaultd tests"


def slot_settings(directory: Path, **changes: Any) -> SlotSettings:
    """Settings of a slot with a token in `directory`, which is made when it is not there."""
    pin = softhsm.make_token(directory, LABEL)
    settings: dict[str, Any] = {
        "name": "main",
        "module": str(softhsm.find_module()),
        "token_label": LABEL,
        "token_serial": "",
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
