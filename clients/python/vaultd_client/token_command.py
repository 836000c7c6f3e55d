"""Tokens from a command, such as that of a cloud or an identity provider."""

from __future__ import annotations

import asyncio
import base64
import json
import subprocess
import threading
import time
from typing import TYPE_CHECKING, Final

from vaultd_client.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

TIMEOUT_S: Final = 30.0
EARLY_S: Final = 30.0
"""How long before its end a token is not used any more."""
UNKNOWN_LIFE_S: Final = 60.0
"""How long one is used that does not say when it ends."""
REST_S: Final = 1.0
"""How long a failure is everybody's: those who waited for the command, above all, who would else run it one after another."""


class TokenCommand:
    """Gives what a command prints, and runs it again before the token ends.  Threads share it."""

    def __init__(self, command: Sequence[str], clock: Callable[[], float] = time.time) -> None:
        """command: program and arguments; no shell looks at them."""
        self._command = list(command)
        self._clock = clock
        self._lock = threading.Lock()
        self._token = ""
        self._until = 0.0
        self._failed: tuple[float, str] | None = None

    def __call__(self) -> str:
        """The token of now.  Raises ConfigurationError when the command gives none."""
        with self._lock:
            if self._clock() >= self._until:
                if self._failed is not None and abs(self._clock() - self._failed[0]) < REST_S:
                    raise ConfigurationError(self._failed[1])
                try:
                    self._token = self._run()
                except ConfigurationError as error:
                    self._failed = self._clock(), str(error)
                    raise
                self._until = self._end_of(self._token)
            return self._token

    def soon(self) -> str | Awaitable[str]:
        """The same for an event loop, which does not wait for the command."""
        return self._token if self._clock() < self._until else asyncio.to_thread(self)

    def _run(self) -> str:
        program = self._command[0]
        try:
            done = subprocess.run(  # noqa: S603  # the user's own configuration names it
                self._command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, timeout=TIMEOUT_S, check=False
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            told = error.strerror if isinstance(error, OSError) else f"it did not end within {TIMEOUT_S:g} s"
            raise ConfigurationError(f"`{program}`, which is to print a token, cannot be used: {told}") from None
        if done.returncode != 0:
            raise ConfigurationError(f"`{program}`, which is to print a token, failed with exit code {done.returncode}")
        token = done.stdout.decode("ascii", "replace").strip()
        if not token or any(character.isspace() for character in token):
            raise ConfigurationError(f"`{program}` is to print a token and nothing else")
        return token

    def _end_of(self, token: str) -> float:
        now = self._clock()
        try:
            payload = token.split(".")[1]
            end = float(json.loads(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))["exp"])
        except (ValueError, KeyError, IndexError, TypeError):
            return now + UNKNOWN_LIFE_S
        return max(end - EARLY_S, now)
