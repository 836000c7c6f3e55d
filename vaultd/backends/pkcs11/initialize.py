"""Initialise a token: `python -m vaultd.backends.pkcs11.initialize`, with what to do as JSON on standard input.

A process of its own, because a module is never loaded into the server, and PINs are never on a command line.
"""

from __future__ import annotations

import ctypes
import json
import sys
from typing import Any, Final

import pkcs11
from pkcs11 import TokenFlag

_LABEL_BYTES: Final = 32


def initialize(module: str, label: str, so_pin: str, pin: str) -> str:
    """Initialise the first token that is not yet; return its serial number."""
    library = pkcs11.lib(module)
    shared = ctypes.CDLL(module)
    free = [slot for slot in library.get_slots(token_present=True) if not _is_initialized(slot)]
    if not free:
        raise LookupError("no uninitialised token")
    secret = so_pin.encode()
    padded = label.encode().ljust(_LABEL_BYTES)
    result = shared.C_InitToken(ctypes.c_ulong(free[0].slot_id), secret, ctypes.c_ulong(len(secret)), padded)
    if result != 0:
        raise RuntimeError(f"C_InitToken: {result:#x}")
    library.reinitialize()
    token = library.get_token(token_label=label)
    with token.open(rw=True, so_pin=so_pin) as session:
        session.init_pin(pin)
    return str(token.serial.decode())


def _is_initialized(slot: Any) -> bool:
    return bool(slot.get_token().flags & TokenFlag.TOKEN_INITIALIZED)


if __name__ == "__main__":
    print(initialize(**json.load(sys.stdin)))
