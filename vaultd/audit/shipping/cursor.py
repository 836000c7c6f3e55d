"""How far a sink has come: a small file for each, replaced as a whole and durable before it counts.

A cursor is only ever behind: what was delivered after it was written is delivered again after a restart.
"""

from __future__ import annotations

import stat
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

import orjson

from vaultd.durable import replace_file, sync_directory

if TYPE_CHECKING:
    from pathlib import Path

DIRECTORY = "sinks"
"""Inside the audit directory: cursors are of the chain beside them."""


@dataclass(frozen=True, slots=True)
class Cursor:
    """The last record that a sink has, and the chain it is of."""

    chain_id: str
    sequence: int
    leaf_hash: str
    """Hex; "" before the first.  A record with this number and another hash is another record."""


class CursorFile:
    """All methods block, and raise OSError."""

    def __init__(self, audit_directory: Path, sink: str) -> None:
        self._directory = audit_directory / DIRECTORY
        self._path = self._directory / f"{sink}.cursor"

    def load(self) -> Cursor | None:
        """The cursor; None when there is none, or none that can be used: then the sink begins as a new one does."""
        try:
            document = orjson.loads(self._path.read_bytes())
            return Cursor(str(document["chain_id"]), int(document["sequence"]), str(document["leaf_hash"]))
        except FileNotFoundError:
            return None
        except (ValueError, TypeError, KeyError):
            return None

    def save(self, cursor: Cursor) -> None:
        """Replace the cursor; durable when it returns."""
        self._directory.mkdir(mode=stat.S_IRWXU, exist_ok=True)
        replace_file(self._path, orjson.dumps(asdict(cursor)) + b"\n")
        sync_directory(self._directory)
