"""The small files beside the segments: the newest checkpoint, and where a log begins whose oldest records were pruned.

`checkpoint` is a copy of the newest checkpoint's line: a log that was cut off behind it, or before it, does not have that
record.  `pruned` is a signed tree head of what was removed, with its frontier, so that the rest can still be verified and
proved.  Both are JSON, replaced whole.  All functions block.
"""

from __future__ import annotations

import base64
import binascii
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import orjson

from vaultd.audit import segments
from vaultd.audit.chain import Chain
from vaultd.audit.checkpoints import NoteInvalid, key_algorithm, key_der, read_head, read_key_der, verify_note
from vaultd.durable import replace_file, sync_directory
from vaultd.errors import DataLoss

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from vaultd.audit.checkpoints import PublicKey, TreeHead

CHECKPOINT_FILE: Final = "checkpoint"
PRUNED_FILE: Final = "pruned"
MAX_FILE_BYTES: Final = 1024 * 1024


def tampered(problem: str) -> DataLoss:
    """The error of a log that is not as it was written."""
    return DataLoss(
        "AUDIT_TAMPERED",
        f"the audit log is not as it was written: {problem}; keep the directory as evidence, run `vaultd audit verify`, "
        "and start with a new one",
    )


@dataclass(frozen=True, slots=True)
class Newest:
    """The newest checkpoint, as its file has it."""

    sequence: int
    line: bytes
    note: str
    head: TreeHead
    peaks: list[bytes]


@dataclass(frozen=True, slots=True)
class Pruned:
    """Where a log begins: after the last record of `head`."""

    note: str
    head: TreeHead
    peaks: list[bytes]
    keys: list[PublicKey]
    segments: int
    """How many segments were removed in all."""

    def verify(self, keys: Sequence[PublicKey]) -> None:
        """Verify the signatures of keys that are known from elsewhere; raises DataLoss, reason AUDIT_TAMPERED.

        Every Ed25519 key must have signed; an ML-DSA key, which may have been added later, where the file lists it.
        """
        wanted = [key for key in keys if key_algorithm(key) == "ED25519" or key in self.keys]
        try:
            verify_note(self.note, wanted or keys, pruned=True)
        except NoteInvalid as error:
            raise tampered(f"the file {PRUNED_FILE}: {error}") from None

    def chain(self, on_block: Callable[[int, bytes], object] | None = None) -> Chain:
        """The chain as it was there."""
        return Chain.after(self.head, self.peaks, on_block)


def read_newest(directory: Path) -> Newest | None:
    """Read the newest checkpoint; None when there is none.  Raises DataLoss when the file is damaged."""
    content = _read(directory / CHECKPOINT_FILE)
    if content is None:
        return None
    try:
        return newest_of(content.rstrip(b"\n"))
    except (ValueError, KeyError, TypeError):
        raise tampered(f"the file {CHECKPOINT_FILE} is damaged") from None


def newest_of(line: bytes) -> Newest:
    """A checkpoint's line, taken apart; raises ValueError, KeyError or TypeError when it is none."""
    record = orjson.loads(line)
    peaks = [bytes.fromhex(peak) for peak in record["frontier"]]
    head = read_head(record["note"])
    Chain.after(head, peaks)  # fits
    if record["event"] != "checkpoint" or segments.sequence_of(line) != head.last + 1:
        raise ValueError("not a checkpoint")
    return Newest(head.last + 1, line, record["note"], head, peaks)


def write_newest(directory: Path, line: bytes) -> None:
    """Replace the copy of the newest checkpoint."""
    replace_file(directory / CHECKPOINT_FILE, line + b"\n")


def read_pruned(directory: Path) -> Pruned | None:
    """Read where the log begins; None when nothing was pruned.  Raises DataLoss when the file is damaged.

    Its signature is verified with the keys that it names itself, which proves nothing: who has keys calls `verify`.
    """
    content = _read(directory / PRUNED_FILE)
    if content is None:
        return None
    try:
        values = orjson.loads(content)
        keys = [read_key_der(base64.b64decode(key)) for key in values["keys"]]
        peaks = [bytes.fromhex(peak) for peak in values["frontier"]]
        head = verify_note(values["note"], keys, pruned=True)
        pruned = Pruned(values["note"], head, peaks, keys, int(values["segments"]))
        pruned.chain()  # fits
    except (ValueError, KeyError, TypeError, binascii.Error, NoteInvalid):
        raise tampered(f"the file {PRUNED_FILE} is damaged") from None
    return pruned


def write_pruned(directory: Path, note: str, peaks: Sequence[bytes], keys: Sequence[PublicKey], removed: int) -> None:
    """Say where the log begins; durable before return, and only then segments may go."""
    values = {
        "note": note,
        "frontier": [peak.hex() for peak in peaks],
        "keys": [base64.b64encode(key_der(key)).decode() for key in keys],
        "segments": removed,
    }
    replace_file(directory / PRUNED_FILE, orjson.dumps(values) + b"\n")
    sync_directory(directory)


def set_aside(directory: Path, chain_id: bytes) -> None:
    """Keep the files of a chain whose segments were taken away, out of the way of the next."""
    for name in (CHECKPOINT_FILE, PRUNED_FILE):
        if (directory / name).exists():
            os.replace(directory / name, directory / f"{name}.{chain_id.hex()}")


def _read(path: Path) -> bytes | None:
    try:
        with path.open("rb") as file:
            return file.read(MAX_FILE_BYTES)
    except FileNotFoundError:
        return None
