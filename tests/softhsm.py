"""A fresh SoftHSM token for a test."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from typing import Any

from vaultd import softhsm
from vaultd.backends.base import Lane
from vaultd.backends.pkcs11.messages import Verb
from vaultd.backends.pkcs11.slot import Request, SlotSettings, TokenSlot
from vaultd.backends.pkcs11.uri import TokenSelector
from vaultd.secret import Secret

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
    """A slot that serves, and that found out itself what the token can do."""
    slot = TokenSlot(slot_settings(directory, **changes), lambda name, serving: None)
    await slot.open()
    _known.append(slot.lacking)
    return slot


_known: list[Any] = []


def make_slot(settings: SlotSettings, on_health: Any) -> TokenSlot:
    """A slot that need not find out what another one has: making RSA keys to try takes its time."""
    slot = TokenSlot(settings, on_health)
    slot.lacking = _known[0] if _known else None
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


class FaultyToken:
    """A SoftHSM token behind tests/faultmodule.c, which fails when it is told to."""

    def __init__(self, directory: Path, **environment: str) -> None:
        self.token = directory / "token"
        self.faults = directory / "faults"
        self.faults.mkdir(parents=True)
        self.module = directory / "faulty.so"
        source = Path(__file__).parent / "faultmodule.c"
        compiled = ["cc", "-shared", "-fPIC", "-O1", "-o", str(self.module), str(source), "-ldl"]
        subprocess.run(compiled, check=True, capture_output=True, timeout=60)
        softhsm.make_token(self.token, LABEL)
        self.environment = {
            **softhsm.environment(self.token),
            "FAULT_MODULE": str(softhsm.find_module()),
            "FAULT_DIR": str(self.faults),
            **environment,
        }

    @property
    def selector(self) -> TokenSelector:
        return TokenSelector(module=str(self.module), label=LABEL)

    @property
    def logins(self) -> int:
        """How often a PIN was tried, by whatever process."""
        counted = self.faults / "logins"
        return counted.stat().st_size if counted.exists() else 0

    def tell(self, fault: str) -> None:
        """Make the next use of a key fail: close, logout, removed, error, crash or hang.

        `point`: the next reading of a public key.
        """
        (self.faults / fault).touch()

    def took(self, fault: str) -> bool:
        """Whether the fault happened; forgets it."""
        done = self.faults / f"{fault}.done"
        if done.exists():
            done.unlink()
            return True
        return False

    def take_away(self) -> None:
        """Remove the token, as if it were pulled."""
        (self.token / "tokens").rename(self.token / "away")

    def bring_back(self) -> None:
        """Put it in again."""
        (self.token / "away").rename(self.token / "tokens")
