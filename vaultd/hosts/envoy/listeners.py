"""The file in which Envoy finds its listeners."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from vaultd.hosts.envoy import config

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path


class Listeners:
    """What is in it, and in force a moment after it was written."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._resources: dict[str, config.Config] = {}
        self._version = 0

    def put(self, resources: dict[str, config.Config]) -> None:
        """Add listeners."""
        self._resources |= resources
        self._write()

    def take(self, names: Iterable[str]) -> None:
        """Take listeners away."""
        for name in names:
            self._resources.pop(name, None)
        self._write()

    def _write(self) -> None:
        self._version += 1
        listeners = config.resources_file(str(self._version), list(self._resources.values()))
        replace_file(self._directory / config.LISTENERS, listeners)


def replace_file(path: Path, content: bytes) -> None:
    """Write a file for this user alone; who reads it sees the old one or the new one."""
    temporary = path.with_suffix(".tmp")
    with os.fdopen(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
        file.write(content)
    temporary.replace(path)
