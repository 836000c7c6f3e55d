"""How rows are sealed: the key ring, its terms, and the hash that binds rows together.

    root key (a provider's) -> key ring -> term keys -> rows

A row is sealed twice: `sealed` holds its metadata, `secret` its key material.  The associated data of `sealed` is every
readable column and the hash of `secret`, so an edited or swapped column or blob does not open.  The associated data of
`secret` is what never changes (kind, scope, id, version, uid, term), so that a change of state need not open key material.
"""

from __future__ import annotations

import hashlib
import hmac
import os
import struct
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.ciphers.aead import AESGCMSIV
from cryptography.hazmat.primitives.kdf.hkdf import HKDFExpand

from vaultd.errors import DataLoss, Unavailable
from vaultd.secret import Secret

if TYPE_CHECKING:
    from collections.abc import Mapping

    from vaultd.store.base import Row, RowKey

NONCE_BYTES: Final = 12
KEY_BYTES: Final = 32
_MAGIC: Final = b"VRG1"
_RING_HEADER_BYTES: Final = len(_MAGIC) + 4 + KEY_BYTES + 2
BACKUP_MAGIC: Final = b"VKB1"
SALT_BYTES: Final = 32
_BACKUP_HEAD_BYTES: Final = len(BACKUP_MAGIC) + SALT_BYTES
_HASH_MODULUS: Final = 2**256


def pack(*parts: bytes | str | int | None) -> bytes:
    """Concatenate parts so that no two lists give the same bytes: each has a type byte and a length."""
    out = bytearray()
    for part in parts:
        if part is None:
            out += b"\x00"
        elif isinstance(part, int):
            out += b"\x01" + struct.pack(">q", part)
        else:
            raw = part.encode() if isinstance(part, str) else part
            out += b"\x02" + struct.pack(">I", len(raw)) + raw
    return bytes(out)


def row_lost(key: RowKey) -> DataLoss:
    """The error for a row that fails its integrity check; names the row and says what to do."""
    return DataLoss(
        "ROW_TAMPERED",
        "a stored row fails its integrity check and was not used; run `vaultd check-store` and restore from a backup",
        metadata={"kind": key.kind, "scope": key.scope},
    )


def sealed_error() -> Unavailable:
    """The error of every call that needs keys while there are none."""
    return Unavailable("SEALED", "the vault is sealed; an operator must call AdminService.Unseal", retry_after_s=5)


@dataclass(frozen=True, slots=True)
class KeyRing:
    """Term keys by number, and the key of the row hash.  `generation` rises with every change."""

    generation: int
    digest_key: Secret
    terms: Mapping[int, Secret]
    retiring: str = ""
    """The ref of the root key that this ring no longer needs and that is still to be retired; empty when none is."""

    @classmethod
    def create(cls) -> KeyRing:
        """Make the first ring."""
        return cls(1, Secret(os.urandom(KEY_BYTES)), {1: Secret(os.urandom(KEY_BYTES))})

    @property
    def term(self) -> int:
        """The newest term, which seals new rows."""
        return max(self.terms)

    def with_new_term(self, *, retiring: str) -> KeyRing:
        """Return the ring of the next generation, with one more term; the root key `retiring` wraps the one before it."""
        terms = {**self.terms, self.term + 1: Secret(os.urandom(KEY_BYTES))}
        return replace(self, generation=self.generation + 1, terms=terms, retiring=retiring)

    def with_nothing_retiring(self) -> KeyRing:
        """Return the ring of the next generation, once the root key that it replaced is retired."""
        return replace(self, generation=self.generation + 1, retiring="")

    def without_terms_before(self, term: int) -> KeyRing:
        """Return the ring of the next generation, without terms that nothing is sealed under."""
        kept = {number: key for number, key in self.terms.items() if number >= term}
        return replace(self, generation=self.generation + 1, terms=kept)

    def dump(self) -> Secret:
        """Serialise, to be wrapped by a root key."""
        out = _MAGIC + struct.pack(">I", self.generation) + self.digest_key.expose("wrapped by the root key")
        out += struct.pack(">H", len(self.retiring)) + self.retiring.encode("ascii")
        for number, key in sorted(self.terms.items()):
            out += struct.pack(">I", number) + key.expose("wrapped by the root key")
        return Secret(out)

    @classmethod
    def load(cls, dumped: Secret) -> KeyRing:
        """Rebuild from `dump`; raises DataLoss."""
        raw = dumped.expose("rebuild the key ring")
        if raw[:4] != _MAGIC or len(raw) < _RING_HEADER_BYTES:
            raise _ring_unreadable()
        ref_end = _RING_HEADER_BYTES + struct.unpack_from(">H", raw, _RING_HEADER_BYTES - 2)[0]
        ref, body = raw[_RING_HEADER_BYTES:ref_end], raw[ref_end:]
        if not all(0x20 < byte < 0x7F for byte in ref) or not body or len(body) % (4 + KEY_BYTES):
            raise _ring_unreadable()
        numbers = [struct.unpack_from(">I", body, at)[0] for at in range(0, len(body), 4 + KEY_BYTES)]
        if numbers != sorted(set(numbers)):
            raise _ring_unreadable()
        keys = [Secret(body[at + 4 : at + 4 + KEY_BYTES]) for at in range(0, len(body), 4 + KEY_BYTES)]
        generation, digest_key = struct.unpack_from(">I", raw, 4)[0], Secret(raw[8 : 8 + KEY_BYTES])
        return cls(generation, digest_key, dict(zip(numbers, keys, strict=True)), ref.decode("ascii"))


def _ring_unreadable() -> DataLoss:
    return DataLoss("KEY_RING_CORRUPT", "the key ring is not readable; restore from a backup")


class Sealer:
    """Seals and opens with the terms of one ring.  AES-256-GCM-SIV: a repeated nonce would reveal equality only."""

    def __init__(self, ring: KeyRing) -> None:
        self.ring = ring
        self.term = ring.term
        self._aeads = {
            term: AESGCMSIV(
                HKDFExpand(hashes.SHA256(), KEY_BYTES, b"vaultd rows v1").derive(key.expose("derive the row key"))
            )
            for term, key in ring.terms.items()
        }
        self._digest_key = ring.digest_key.expose("key of the row hash")
        self._backup_key = HKDFExpand(hashes.SHA256(), KEY_BYTES, b"vaultd key backups v1").derive(self._digest_key)
        self._token_key = HKDFExpand(hashes.SHA256(), KEY_BYTES, b"vaultd tokens v1").derive(self._digest_key)

    def derived_key(self, label: str) -> bytes:
        """A key of 32 bytes for another purpose; the same in every term and generation of this ring."""
        return HKDFExpand(hashes.SHA256(), KEY_BYTES, label.encode()).derive(self._digest_key)

    def seal(self, plaintext: bytes, aad: bytes) -> bytes:
        """Seal under the newest term; nonce || ciphertext || tag."""
        nonce = os.urandom(NONCE_BYTES)
        return nonce + self._aeads[self.term].encrypt(nonce, plaintext, aad)

    def open(self, term: int, blob: bytes, aad: bytes) -> bytes | None:
        """Open, or None when it does not open.  Raises KeyError for a term that this ring lacks."""
        aead = self._aeads[term]
        try:
            return aead.decrypt(blob[:NONCE_BYTES], blob[NONCE_BYTES:], aad)
        except (InvalidTag, ValueError):
            return None

    def knows(self, term: int) -> bool:
        """Whether the ring has this term."""
        return term in self._aeads

    def open_row(self, row: Row) -> bytes:
        """Open a row's metadata; raises DataLoss."""
        plaintext = self.open(row.term, row.sealed, metadata_aad(row)) if self.knows(row.term) else None
        if plaintext is None:
            raise row_lost(row.key)
        return plaintext

    def open_secret(self, row: Row) -> Secret:
        """Open a row's key material; raises DataLoss."""
        blob = row.secret
        opened = (
            self.open(row.term, blob, secret_aad(row.key, row.uid, row.term)) if blob and self.knows(row.term) else None
        )
        if opened is None:
            raise row_lost(row.key)
        return Secret(opened)

    # Backups of keys are sealed under the one key of the ring that no rotation changes and every restored store has; each
    # under a key of its own, so that they have no message limit.

    def seal_backup(self, plaintext: bytes) -> bytes:
        """Seal a key's backup: magic || salt || nonce || ciphertext || tag."""
        head = BACKUP_MAGIC + os.urandom(SALT_BYTES)
        nonce = os.urandom(NONCE_BYTES)
        return head + nonce + self._backup_aead(head).encrypt(nonce, plaintext, head)

    def open_backup(self, blob: bytes) -> bytes | None:
        """Open what `seal_backup` gave, or None when it does not open."""
        head, nonce = blob[:_BACKUP_HEAD_BYTES], blob[_BACKUP_HEAD_BYTES : _BACKUP_HEAD_BYTES + NONCE_BYTES]
        if not head.startswith(BACKUP_MAGIC) or len(nonce) < NONCE_BYTES:
            return None
        try:
            return self._backup_aead(head).decrypt(nonce, blob[_BACKUP_HEAD_BYTES + NONCE_BYTES :], head)
        except (InvalidTag, ValueError):
            return None

    def _backup_aead(self, head: bytes) -> AESGCMSIV:
        info = b"vaultd key backup v1" + head[len(BACKUP_MAGIC) :]
        return AESGCMSIV(HKDFExpand(hashes.SHA256(), KEY_BYTES, info).derive(self._backup_key))

    def row_hash(self, row: Row) -> int:
        """The keyed hash of a whole row, a term of its scope's digest."""
        key = row.key
        image = pack(*key, row.uid, row.state, row.due_at, row.revision, row.term, row.sealed, row.secret)
        return int.from_bytes(hmac.digest(self._digest_key, image, "sha256"), "big")

    def image_hash(self, *parts: bytes | str | int | None) -> int:
        """The keyed hash of anything else that a digest covers."""
        return int.from_bytes(hmac.digest(self._digest_key, pack("image", *parts), "sha256"), "big")

    def token_mac(self, *parts: bytes | str | int | None) -> bytes:
        """16 bytes that authenticate a page token or name a stored answer."""
        return hmac.digest(self._token_key, pack(*parts), "sha256")[:16]


def metadata_aad(row: Row) -> bytes:
    """What the sealed metadata of a row is bound to."""
    secret_hash = hashlib.sha256(row.secret).digest() if row.secret is not None else None
    return pack("row", *row.key, row.uid, row.state, row.due_at, row.revision, row.term, secret_hash)


def secret_aad(key: RowKey, uid: bytes, term: int) -> bytes:
    """What sealed key material is bound to."""
    return pack("secret", *key, uid, term)


@dataclass(slots=True)
class MultisetHash:
    """A sum of keyed hashes: rows enter and leave in any order (MSet-Add-Hash; the sum itself is only stored sealed)."""

    total: int = 0
    count: int = 0

    def add(self, term: int) -> None:
        self.total = (self.total + term) % _HASH_MODULUS
        self.count += 1

    def remove(self, term: int) -> None:
        self.total = (self.total - term) % _HASH_MODULUS
        self.count -= 1

    def dump(self) -> bytes:
        return self.total.to_bytes(32, "big") + struct.pack(">q", self.count)

    @classmethod
    def load(cls, raw: bytes) -> MultisetHash:
        return cls(int.from_bytes(raw[:32], "big"), struct.unpack(">q", raw[32:])[0])
