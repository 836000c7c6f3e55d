"""A SoftHSM token in a directory, for `vaultd dev --hsm` and for tests.  SoftHSM protects nothing: it is for trying."""

from __future__ import annotations

import json
import os
import secrets
import subprocess
import sys
from pathlib import Path
from typing import Final

_MODULES: Final = (
    "/usr/lib/softhsm/libsofthsm2.so",
    "/usr/lib/x86_64-linux-gnu/softhsm/libsofthsm2.so",
    "/usr/lib/aarch64-linux-gnu/softhsm/libsofthsm2.so",
    "/usr/lib64/pkcs11/libsofthsm2.so",
    "/usr/local/lib/softhsm/libsofthsm2.so",
    "/opt/homebrew/lib/softhsm/libsofthsm2.so",
)
_CONFIGURATION: Final = "softhsm2.conf"


class SoftHsmMissing(Exception):
    """SoftHSM is not installed; the text says how to install it."""


def find_module() -> Path:
    """Find SoftHSM's library; raises SoftHsmMissing."""
    for candidate in _MODULES:
        if Path(candidate).exists():
            return Path(candidate)
    raise SoftHsmMissing(
        "SoftHSM is not installed: `apt-get install softhsm2` (Debian, Ubuntu), or brew install softhsm"
    )


def environment(directory: Path) -> dict[str, str]:
    """The variables with which SoftHSM uses the tokens of this directory."""
    return {"SOFTHSM2_CONF": str(directory / _CONFIGURATION)}


def make_token(directory: Path, label: str) -> Path:
    """Make a token with a random PIN in `directory`, 0700, and return the file that holds the PIN, 0600.

    A token that is there already is left as it is.  Raises SoftHsmMissing.
    """
    module = find_module()
    pin_file = directory / "pin"
    if pin_file.exists():
        return pin_file
    (directory / "tokens").mkdir(mode=0o700, parents=True, exist_ok=True)
    directory.chmod(0o700)
    (directory / _CONFIGURATION).write_text(
        f"directories.tokendir = {directory.resolve() / 'tokens'}\nobjectstore.backend = file\nlog.level = ERROR\n"
    )
    pin = secrets.token_hex(8)
    order = {"module": str(module), "label": label, "so_pin": secrets.token_hex(8), "pin": pin}
    subprocess.run(
        [sys.executable, "-m", "vaultd.backends.pkcs11.initialize"],
        input=json.dumps(order).encode(),
        env={**os.environ, **environment(directory)},
        stdout=subprocess.DEVNULL,
        check=True,
        timeout=60,
    )
    descriptor = os.open(pin_file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w") as file:
        file.write(pin + "\n")
    return pin_file
