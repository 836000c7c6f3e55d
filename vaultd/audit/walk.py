"""Goes over the lines of a log in order and says which is the first that is not as it was written.

What is checked of each record: its number, its chain hash; where the key of the MACs is known its MAC, and that the record may
have one of that key, or none, at its place; of a checkpoint, its signatures, and that the tree over all records before it has the
root that was signed.
"""

from __future__ import annotations

import base64
import binascii
import hmac
import re
from enum import Enum, auto
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import orjson

from vaultd.audit.checkpoints import NoteInvalid, TreeHead, key_algorithm, read_head, read_key_der, verify_note
from vaultd.audit.lines import RecordMac, follows, sealed_key, take_apart
from vaultd.audit.segments import sequence_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from vaultd.audit.chain import Chain
    from vaultd.audit.checkpoints import PublicKey
    from vaultd.audit.lines import Parts

CHECKPOINT: Final = "checkpoint"
TIES: Final = "sibling_heads"
"""The newest signed tree heads of the chains beside this one; ties.py has its form."""
KEYS: Final = "audit_keys"
"""The record with which a server that was unsealed goes on: the public keys, and MACs from there on."""
SEALED: Final = "audit_sealed"
"""The last record with the key ring's MAC before the vault was sealed."""
ABANDONED: Final = "segment_abandoned"
ACCEPTED: Final = "restore_accepted"
"""An operator said that a store or a log that was put back from the past is to be served."""
REVISION: Final = "store_revision"
"""Field of records that tell how far the store had come."""

_MARK: Final = {
    event: b'"event":"%b"' % event.encode() for event in (CHECKPOINT, TIES, KEYS, SEALED, ABANDONED, ACCEPTED)
}
_REVISION: Final = b'"%b":' % REVISION.encode()
_UNSEALED: Final = (_MARK[CHECKPOINT], _MARK[TIES], _MARK[KEYS], _MARK[SEALED], _MARK[ACCEPTED], _REVISION)
"""In records that only a server writes which is unsealed, or was."""
_OK: Final = b'"code":"OK"'
_WHILE_SEALED: Final = re.compile(
    rb'"method":"/(vaultd\.v1\.AdminService/(GetStatus|Init|Seal|Unseal)|grpc\.health\.v1\.Health/[A-Za-z]+)"'
)
"""Calls that a sealed server serves."""


class Place(NamedTuple):
    """Where a record stands."""

    segment: str
    line: int
    """From 1."""


class _Key(Enum):
    """With what the record before has its MAC."""

    UNKNOWN = auto()
    """It was not seen."""
    RING = auto()
    SEALING = auto()
    """The key ring's, for the last time: it is the record that says so."""
    SEALED = auto()
    NONE = auto()


_SEALED_FOLLOWS: Final = frozenset({_Key.UNKNOWN, _Key.SEALING, _Key.SEALED})


class BadRecord(Exception):
    """The first record that is not as it was written."""

    def __init__(self, place: Place, sequence: int, problem: str) -> None:
        line = f" line {place.line}" if place.line else ""
        where = f"{place.segment}{line}, " if place.segment else ""
        super().__init__(f"{where}record {sequence}: {problem}")
        self.place = place
        self.sequence = sequence
        self.problem = problem

    def within(self, directory: str) -> BadRecord:
        """The same of a chain in a directory among several."""
        place = Place(f"{directory}/{self.place.segment}".rstrip("/"), self.place.line)
        return BadRecord(place, self.sequence, self.problem)


class Walk:
    """Takes lines in order.  `chain` is where it begins, and grows with them.

    keys: public keys that every checkpoint must be signed by; None takes those that the log itself names.  mac_key: checks MACs.
    """

    def __init__(
        self,
        chain: Chain,
        *,
        keys: Sequence[PublicKey] | None = None,
        mac_key: bytes | None = None,
        named: Sequence[PublicKey] = (),
    ) -> None:
        """`named`: the keys that the log named before where the walk begins."""
        self.chain = chain
        self._pinned = keys
        self._named: list[PublicKey] = list(named)
        self._required: set[int] = set()
        self._macs = (RecordMac(mac_key), RecordMac(sealed_key(mac_key))) if mac_key is not None else None
        self._key = _Key.UNKNOWN
        self.sequence = chain.last
        self.checkpoints = 0
        self.newest: TreeHead | None = None
        self.newest_line = b""
        self.abandoned: dict[str, int] = {}
        """Segments that were abandoned, and how many of their bytes count."""
        self.revision = 0
        """The newest revision of the store that a record tells of."""
        self.macs = 0
        self.ties: dict[bytes, dict[str, Any]] = {}
        """By chain, what the newest record that names it says of a chain beside this one."""

    @property
    def keys(self) -> Sequence[PublicKey]:
        """The keys that checkpoints are verified with."""
        return self._named if self._pinned is None else self._pinned

    def fits(self, line: bytes) -> bool:
        """Whether a line is the next record."""
        parts = take_apart(line)
        return sequence_of(line) == self.sequence + 1 and bool(parts.chain) and follows(self.chain.head, parts)

    def take(self, place: Place, line: bytes) -> None:
        """Check the next line, without its newline; raises BadRecord."""
        expected = self.sequence + 1
        sequence = sequence_of(line)
        if sequence != expected:
            raise BadRecord(place, expected, _out_of_order(sequence, expected))
        parts = take_apart(line)
        if not parts.chain:
            raise BadRecord(place, expected, "has no chain hash: changed, or not written by vaultd")
        if not follows(self.chain.head, parts):
            raise BadRecord(place, expected, "does not fit its chain hash: it, or what stood before it, was changed")
        if self._macs is not None:
            self._key = self._check_mac(self._macs, place, line, parts)
        try:
            self._understand(place, line)
        except (ValueError, TypeError, KeyError, AttributeError):
            raise BadRecord(place, expected, "is no record as vaultd writes it") from None
        self.chain.add(parts.chain, line)
        self.sequence = sequence

    def _understand(self, place: Place, line: bytes) -> None:
        """Take what a record of the log about itself says.  The marks cannot be in a string, where quotes are escaped."""
        if _MARK[CHECKPOINT] in line:
            self._checkpoint(place, line)
        elif _MARK[KEYS] in line:
            self._take_keys(place, line)
        elif _MARK[TIES] in line:
            record = orjson.loads(line)
            if record.get("event") == TIES:
                self.ties.update((bytes.fromhex(tie["chain"]), tie) for tie in record["heads"])
        elif _MARK[ABANDONED] in line:
            record = orjson.loads(line)
            if record.get("event") == ABANDONED:
                self.abandoned[str(record.get("segment"))] = int(record.get("whole_bytes", -1))
        if _REVISION in line:
            record = orjson.loads(line)
            revision = record.get(REVISION)
            if isinstance(revision, int):
                self.revision = revision if record.get("event") == ACCEPTED else max(self.revision, revision)

    def _check_mac(self, macs: tuple[RecordMac, RecordMac], place: Place, line: bytes, parts: Parts) -> _Key:
        """With what key the record was written, which may not be a weaker one than the record before allows."""
        if not parts.mac:
            # A process begins a segment, and has no key until it is unsealed.
            if place.line != 1 and self._key is not _Key.NONE:
                raise BadRecord(
                    place, self.sequence + 1, "has no MAC, and the record before it is none of a sealed server"
                )
            if any(mark in line for mark in _UNSEALED) or (_OK in line and not _WHILE_SEALED.search(line)):
                raise BadRecord(place, self.sequence + 1, "has no MAC, and tells of what a sealed server cannot do")
            return _Key.NONE
        ring, sealed = macs
        if hmac.compare_digest(parts.mac, ring.of(parts.chain)):
            self.macs += 1
            return _Key.SEALING if _MARK[SEALED] in line else _Key.RING
        # From the sealing on it is the weaker key, which cannot make MACs of before.  Where the disk failed at that moment,
        # the record of it is missing, and a new segment says that the one before was abandoned.
        begun = self._key in _SEALED_FOLLOWS or (place.line == 1 and _MARK[ABANDONED] in line)
        if not begun or not hmac.compare_digest(parts.mac, sealed.of(parts.chain)):
            raise BadRecord(place, self.sequence + 1, "has a wrong MAC: it was not written by who holds the key ring")
        self.macs += 1
        return _Key.SEALED

    def _take_keys(self, place: Place, line: bytes) -> None:
        record = orjson.loads(line)
        if record.get("event") != KEYS:
            return
        try:
            self._named = [read_key_der(base64.b64decode(key["public_key"])) for key in record["keys"]]
        except (ValueError, KeyError, TypeError, binascii.Error):
            raise BadRecord(place, self.sequence + 1, "names audit keys that cannot be read") from None

    def _checkpoint(self, place: Place, line: bytes) -> None:
        record = orjson.loads(line)
        if record.get("event") != CHECKPOINT:
            return
        expected = self.sequence + 1
        note = str(record.get("note"))
        try:
            head = read_head(note)
            if self.keys:
                verify_note(note, self._keys_for(note))
        except NoteInvalid as error:
            raise BadRecord(place, expected, str(error)) from None
        chain = self.chain
        if (head.chain_id, head.first, head.size) != (chain.chain_id, chain.first, chain.size):
            raise BadRecord(place, expected, "is a checkpoint of another place in this log, or of another log")
        if head.chain != chain.head or head.root != chain.tree().root():
            begin = self.newest.last + 1 if self.newest is not None else chain.first
            raise BadRecord(
                place,
                expected,
                f"is a checkpoint of other records: one of {begin} to {self.sequence} was changed, and the hashes after it",
            )
        self.checkpoints += 1
        self.newest, self.newest_line = head, line
        self.revision = max(self.revision, head.revision)

    def _keys_for(self, note: str) -> list[PublicKey]:
        """Ed25519 keys always; an ML-DSA key from the first checkpoint on that it signed, since it may have been added later."""
        wanted = []
        for at, key in enumerate(self.keys):
            if key_algorithm(key) != "ED25519" and at not in self._required:
                try:
                    verify_note(note, [key])
                except NoteInvalid:
                    continue
                self._required.add(at)
            wanted.append(key)
        return wanted


def _out_of_order(sequence: int, expected: int) -> str:
    if not sequence:
        return "is no record: its line was damaged"
    if sequence < expected:
        return f"record {sequence} stands here again, or out of its place"
    return f"record {sequence} stands here: what was before it is missing, or not in its place"
