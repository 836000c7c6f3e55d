"""Where the PIN of a token is kept.  It is read when a worker starts, and is on no command line and in no log."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

from vaultd.backends.private_files import NotPrivate, read_private_file
from vaultd.errors import FailedPrecondition
from vaultd.secret import Secret

_MAX_BYTES: Final = 1_024


class PinSource:
    """A file that only this user (or root) may write and read, a systemd credential, or a variable.

    A variable is read once, here, and taken out of `os.environ`, so that no child process inherits it.
    """

    def __init__(self, path: Path | None, credential: str | None, variable: str | None) -> None:
        self._path = path
        self._value: Secret | None = None
        if credential is not None:
            directory = os.environ.get("CREDENTIALS_DIRECTORY", "")
            if not directory.startswith("/"):
                raise _missing("CREDENTIALS_DIRECTORY is not set: start vaultd with LoadCredential=")
            self._path = Path(directory, credential)
        elif variable is not None:
            content = os.environ.pop(variable, None)
            if not content:
                raise _missing("the environment variable that should hold the PIN is not set")
            self._value = Secret(content.encode())

    def read(self) -> Secret:
        """The PIN, without the newline at the end of a file.  Raises FailedPrecondition; no text quotes it."""
        if self._path is None:
            if self._value is None:
                raise _missing("no source of the PIN is configured")
            return self._value
        try:
            content = read_private_file(
                self._path, forbidden_mode=0o027, owners=(0, os.geteuid()), max_bytes=_MAX_BYTES
            )
        except NotPrivate as error:
            raise FailedPrecondition("HSM_PIN_FILE_MODE", f"the PIN file {error}") from None
        except OSError:
            raise _missing("the PIN file cannot be read") from None
        pin = content.rstrip(b"\r\n")
        if not pin:
            raise _missing("the PIN file is empty")
        if len(pin) > _MAX_BYTES:
            raise _missing("the PIN file holds more than a PIN")
        return Secret(pin)


def _missing(text: str) -> FailedPrecondition:
    return FailedPrecondition("HSM_PIN_MISSING", text)
