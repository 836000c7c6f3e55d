"""Several chains side by side, each tied to the others: the logs of the workers of one server.

    audit/            the chain of a server with one process, and of commands that run beside a stopped one
    audit/worker-0/   the chain of worker 0, and so on

Before each checkpoint a log takes in a record that names the newest signed tree head of every chain beside it.  The checkpoint
covers it, so a chain that is taken away, or cut off, is missed by the others.  All functions block.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import orjson

from vaultd.audit import heads, segments
from vaultd.audit.checkpoints import NoteInvalid, read_head, verify_note
from vaultd.audit.reader import AuditReader, RecordsMissing
from vaultd.audit.walk import TIES

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from vaultd.audit.checkpoints import PublicKey, TreeHead

OWN: Final = "."
"""How the directory itself is named among those in it."""
_WORKER: Final = re.compile(r"worker-[0-9]{1,2}")


class Tie(NamedTuple):
    """What a chain says of one beside it."""

    chain_id: bytes
    directory: str
    """Below the audit directory; `.` is the directory itself."""
    first: int
    """Sequence of the first record in its tree."""
    size: int
    """Records in its tree, when the newest checkpoint was signed."""
    root: bytes

    @classmethod
    def of(cls, head: TreeHead, directory: str) -> Tie:
        """What a tree head comes to."""
        return cls(head.chain_id, directory, head.first, head.size, head.root)


def worker_directory(root: Path, index: int) -> Path:
    """Where a worker writes its chain."""
    return root / f"worker-{index}"


def root_of(directory: Path) -> Path:
    """The directory that holds a chain and those beside it."""
    return directory.parent if _WORKER.fullmatch(directory.name) else directory


def chains_in(root: Path) -> dict[str, Path]:
    """Every chain below an audit directory, by its name there; that of the directory itself first.  Raises FailedPrecondition."""
    found = {OWN: root, **{path.name: path for path in sorted(root.iterdir()) if _WORKER.fullmatch(path.name)}}
    return {name: path for name, path in found.items() if segments.read_chain_id(path) is not None}


def name_of(directory: Path) -> str:
    """How the chain in a directory is named among those beside it."""
    return OWN if root_of(directory) == directory else directory.name


def chain_ids_in(directory: Path) -> set[bytes]:
    """The chain in a directory, and those beside it."""
    found = (segments.read_chain_id(path) for path in chains_in(root_of(directory)).values())
    return {chain_id for chain_id in found if chain_id is not None}


def siblings_of(directory: Path) -> dict[str, Path]:
    """The chains beside the one in a directory."""
    return {name: path for name, path in chains_in(root_of(directory)).items() if path != directory}


def chain_beside(directory: Path, chain_id: bytes) -> Path | None:
    """Where a chain beside the one in a directory is; None when it is not there."""
    found = (path for path in siblings_of(directory).values() if segments.read_chain_id(path) == chain_id)
    return next(found, None)


def newest_heads(directory: Path, keys: Sequence[PublicKey]) -> dict[str, TreeHead]:
    """The newest tree head of each chain beside this one that the same keys signed; what they did not sign is another server's."""
    found = {}
    for name, path in siblings_of(directory).items():
        newest = heads.read_newest(path)
        if newest is not None:
            try:
                found[name] = verify_note(newest.note, keys)
            except NoteInvalid:
                continue
    return found


def newest_ties(directory: Path, keys: Sequence[PublicKey]) -> list[Tie]:
    """What there is to say of the chains beside this one."""
    return [Tie.of(head, name) for name, head in newest_heads(directory, keys).items()]


def to_record(ties: Sequence[Tie]) -> dict[str, object]:
    """The record of ties."""
    named = [
        {
            "directory": tie.directory,
            "chain": tie.chain_id.hex(),
            "first": tie.first,
            "size": tie.size,
            "root": tie.root.hex(),
        }
        for tie in ties
    ]
    return {"event": TIES, "heads": named}


def from_record(record: dict[str, Any]) -> list[Tie]:
    """What a record of ties says; raises ValueError, KeyError or TypeError when it is none."""
    return [
        Tie(
            bytes.fromhex(tie["chain"]),
            str(tie["directory"]),
            int(tie["first"]),
            int(tie["size"]),
            bytes.fromhex(tie["root"]),
        )
        for tie in record["heads"]
    ]


def ties_at(directory: Path, newest: heads.Newest) -> list[Tie]:
    """What the newest checkpoint of a log covers about the chains beside it."""
    try:
        record = orjson.loads(_line_at(directory, newest.head.last))
        return from_record(record) if record.get("event") == TIES else []
    except (ValueError, KeyError, TypeError, AttributeError):
        return []


def missing(directory: Path, ties: Sequence[Tie]) -> str:
    """What is wrong with the chains that ties name, beside the chain in a directory; empty when nothing is.

    Looks at the newest checkpoint of each chain, and at the one that is named; whether a chain is sound in itself is for who
    walks over it.
    """
    found = {segments.read_chain_id(path): (name, path) for name, path in chains_in(root_of(directory)).items()}
    for tie in ties:
        _, path = found.get(tie.chain_id, ("", None))
        if path is None:
            return f"the chain {tie.chain_id.hex()} of {tie.size} records, in {tie.directory}, is gone"
        problem = _differs(path, tie)
        if problem:
            return f"the chain {tie.chain_id.hex()} in {tie.directory} {problem}"
    return ""


def _differs(path: Path, tie: Tie) -> str:
    newest, pruned = heads.read_newest(path), heads.read_pruned(path)
    if newest is None or newest.head.size < tie.size:
        return f"was cut off: it had {tie.size} records"
    if pruned is not None and pruned.head.size >= tie.size:
        return ""  # what was removed is behind a signed tree head, and the checkpoint is not there any more
    try:
        head = read_head(orjson.loads(_line_at(path, tie.first + tie.size))["note"])
    except (ValueError, KeyError, TypeError, NoteInvalid):
        return f"does not have the checkpoint over {tie.size} records any more"
    return "" if (head.size, head.root) == (tie.size, tie.root) else f"has other records among the first {tie.size}"


def _line_at(directory: Path, sequence: int) -> bytes:
    reader = AuditReader(directory, sequence - 1)
    try:
        records = reader.read(1)
    except RecordsMissing:
        records = []
    finally:
        reader.close()
    return records[0].line if records else b"{}"
