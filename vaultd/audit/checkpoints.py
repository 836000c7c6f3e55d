"""Signed tree heads: what a log promised to hold, in the form of C2SP tlog-checkpoint, a signed note.

    vaultd-audit/<chain id, 32 hex>
    <size>
    <root, base64>
    first <sequence of the first leaf>
    chain <chain hash of the last leaf, hex>
    time <RFC 3339>
    store <revision> <fingerprint, hex>
    recorded <size>

    — vaultd-audit <base64 of 4 bytes of key hash || signature>

Where a log begins whose oldest records were pruned is said in the same form, with `/pruned` behind the chain id: a checkpoint
says that records are in the log, never that they may be missing.

The lines after the root are extensions of the note, under the signature like the others.  `store` is where the store stood;
`recorded` the size of the newest checkpoint that the store knew of.  Ed25519 signs the text (RFC 8032), and with a second
line ML-DSA-65 (FIPS 204, pure, empty context).
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.mldsa import MLDSA65PrivateKey, MLDSA65PublicKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    PublicFormat,
    load_der_public_key,
    load_pem_public_key,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    PrivateKey = Ed25519PrivateKey | MLDSA65PrivateKey
    PublicKey = Ed25519PublicKey | MLDSA65PublicKey

SIGNER: Final = "vaultd-audit"
PRUNED: Final = "/pruned"
"""Behind the chain id of a tree head that says: what it covers was removed."""
MAX_KEYS: Final = 16

_PEM = re.compile(rb"-----BEGIN PUBLIC KEY-----[^-]+-----END PUBLIC KEY-----\n?")
_BODY = re.compile(
    r"vaultd-audit/([0-9a-f]{32})(/pruned)?\n([1-9][0-9]{0,18})\n([A-Za-z0-9+/]{43}=)\n"
    r"first ([1-9][0-9]{0,18})\nchain ([0-9a-f]{64})\ntime ([0-9TZ:.-]{20,32})\n"
    r"store ([0-9]{1,19}) ([0-9a-f]{32})\nrecorded ([0-9]{1,19})\n"
)
_SIGNATURE = re.compile(r"— ([^ +\n]+) ([A-Za-z0-9+/]+={0,2})\n")


class NoteInvalid(ValueError):
    """A checkpoint is not well-formed, or a signature on it is missing or wrong.  The text says which."""


@dataclass(frozen=True, slots=True)
class TreeHead:
    """What a checkpoint says."""

    chain_id: bytes
    size: int
    """Leaves in the tree."""
    root: bytes
    first: int
    """The sequence of the first leaf: 1, or that of the record that began the chain in an older log."""
    chain: bytes
    """The chain hash of the last leaf."""
    time: str
    revision: int
    """The store's, when it was signed."""
    store: bytes
    """16 bytes that name the contents of the store at that revision; only who holds the key ring can tell which."""
    recorded: int
    """The size of the newest checkpoint of this chain that the store had then; 0 for none."""
    pruned: bool = False
    """Whether it says that its records were removed; a checkpoint does not."""

    @property
    def last(self) -> int:
        """The sequence of the last leaf."""
        return self.first + self.size - 1

    def body(self) -> str:
        """The text that is signed."""
        root = base64.b64encode(self.root).decode()
        origin = f"{SIGNER}/{self.chain_id.hex()}{PRUNED if self.pruned else ''}"
        return (
            f"{origin}\n{self.size}\n{root}\nfirst {self.first}\nchain {self.chain.hex()}\n"
            f"time {self.time}\nstore {self.revision} {self.store.hex()}\nrecorded {self.recorded}\n"
        )


class Signer:
    """Signs tree heads with every key that it has."""

    def __init__(self, keys: Sequence[PrivateKey]) -> None:
        self._keys = list(keys)

    @property
    def public_keys(self) -> list[PublicKey]:
        """Who verifies what it signs."""
        return [key.public_key() for key in self._keys]

    def sign(self, head: TreeHead) -> str:
        """The signed note."""
        body = head.body()
        lines = []
        for key in self._keys:
            signature = _key_hash(key.public_key()) + key.sign(body.encode())
            lines.append(f"— {SIGNER} {base64.b64encode(signature).decode()}\n")
        return f"{body}\n{''.join(lines)}"


def read_head(note: str, *, pruned: bool = False) -> TreeHead:
    """What the note of a checkpoint, or of a pruned log's beginning, says, believed or not; raises NoteInvalid."""
    body, _ = _split(note)
    match = _BODY.fullmatch(body)
    if match is None:
        raise NoteInvalid("the checkpoint is not well-formed")
    chain_id, origin, size, root, first, chain, time, revision, store, recorded = match.groups()
    head = TreeHead(
        bytes.fromhex(chain_id),
        int(size),
        base64.b64decode(root),
        int(first),
        bytes.fromhex(chain),
        time,
        int(revision),
        bytes.fromhex(store),
        int(recorded),
        origin is not None,
    )
    if head.body() != body:  # one spelling
        raise NoteInvalid("the checkpoint is not well-formed")
    if head.pruned != pruned:
        raise NoteInvalid("the signed note is a checkpoint" if pruned else "the signed note is no checkpoint")
    return head


def has_signature(note: str, key: PublicKey) -> bool:
    """Whether a note says that a key signed it; nothing is verified."""
    return _key_hash(key) in _signatures(_split(note)[1])


def verify_note(note: str, keys: Iterable[PublicKey], *, pruned: bool = False) -> TreeHead:
    """What a note says, after a signature of every one of the keys was verified; raises NoteInvalid."""
    head = read_head(note, pruned=pruned)
    body, tail = _split(note)
    signatures = _signatures(tail)
    verified = False
    for key in keys:
        signature = signatures.get(_key_hash(key))
        if signature is None:
            raise NoteInvalid(f"the checkpoint has no signature of the key {key_id(key)}")
        try:
            key.verify(signature, body.encode())
        except InvalidSignature:
            raise NoteInvalid(f"the checkpoint's signature by the key {key_id(key)} is wrong") from None
        verified = True
    if not verified:
        raise NoteInvalid("there is no key to verify the checkpoint with")
    return head


def _signatures(tail: str) -> dict[bytes, bytes]:
    """Signatures by the hash of their key."""
    found: dict[bytes, bytes] = {}
    for name, text in _SIGNATURE.findall(tail):
        try:
            raw = base64.b64decode(text, validate=True)
        except binascii.Error:
            continue
        if name == SIGNER:
            found[raw[:4]] = raw[4:]
    return found


def _split(note: str) -> tuple[str, str]:
    body, gap, tail = note.partition("\n\n")
    if not gap or not tail or _SIGNATURE.sub("", tail):
        raise NoteInvalid("the checkpoint is not a signed note")
    return f"{body}\n", tail


# -- keys ---------------------------------------------------------------------------------------------------------------


def key_der(key: PublicKey) -> bytes:
    """The SubjectPublicKeyInfo of a public key."""
    return key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


def key_id(key: PublicKey) -> str:
    """How a key is called: the first 8 bytes of SHA-256 over its SubjectPublicKeyInfo, in hexadecimal digits."""
    return hashlib.sha256(key_der(key)).hexdigest()[:16]


def key_algorithm(key: PublicKey) -> str:
    """`ED25519` or `ML_DSA_65`."""
    return "ED25519" if isinstance(key, Ed25519PublicKey) else "ML_DSA_65"


def _key_hash(key: PublicKey) -> bytes:
    """The key's hash in a signature line: that of C2SP signed-note for Ed25519; for ML-DSA-65 with the type `0xff` and its name."""
    kind = b"\x01" if isinstance(key, Ed25519PublicKey) else b"\xffML-DSA-65"
    return hashlib.sha256(SIGNER.encode() + b"\n" + kind + key.public_bytes_raw()).digest()[:4]


def write_public_keys(keys: Iterable[PublicKey]) -> bytes:
    """Public keys as PEM blocks, one after another: the contents of `audit.pub`."""
    return b"".join(key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo) for key in keys)


def read_public_keys(pem: bytes) -> list[PublicKey]:
    """Read what `write_public_keys` wrote; raises ValueError when it holds anything else, or nothing."""
    blocks = _PEM.findall(pem)
    if not 0 < len(blocks) <= MAX_KEYS or _PEM.sub(b"", pem).strip():
        raise ValueError("expected PEM blocks of public keys")
    return [_checked(load_pem_public_key(block)) for block in blocks]


def read_key_der(der: bytes) -> PublicKey:
    """A public key from its SubjectPublicKeyInfo; raises ValueError."""
    try:
        return _checked(load_der_public_key(der))
    except UnsupportedAlgorithm as error:
        raise ValueError("expected a public key") from error


def _checked(key: object) -> PublicKey:
    if not isinstance(key, Ed25519PublicKey | MLDSA65PublicKey):
        raise ValueError("an audit key is an Ed25519 or ML-DSA-65 key")
    return key
