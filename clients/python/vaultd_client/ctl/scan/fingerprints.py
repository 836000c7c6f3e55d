"""The comparison.  A tag of 16 bits, keyed by a public salt, says of nearly all pieces of a file that they are no secret; of the
few that are left, the vault says whether they are, by a MAC that only it can make.
"""

from __future__ import annotations

import hashlib
import hmac
from collections import defaultdict
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Final, Protocol

from vaultd_client.ctl.scan.marks import MIN_LENGTH, SHORTEST

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from vaultd_client import Client

DOMAIN: Final = b"vaultd scan v1\x00"
BATCH: Final = 1_000


@dataclass(frozen=True, slots=True)
class Fingerprint:
    """What is known of a mark without its being known.  proof: a MAC of the vault, or, while secrets are at hand, the digest."""

    version: str
    tag: int
    proof: bytes
    length: int = 0


@dataclass(frozen=True, slots=True)
class Place:
    """Where in which file, and how it is written down there."""

    path: str
    line: int
    how: str


@dataclass(frozen=True, slots=True)
class Hit:
    """A copy of a version of a secret."""

    place: Place
    version: str


class Prover(Protocol):
    """Says which of some suspicions are right."""

    def right(self, suspicions: Sequence[tuple[bytes, Fingerprint]]) -> list[bool]: ...


def tag_of(salt: bytes, content: bytes) -> int:
    """16 bits of a mark."""
    return int.from_bytes(_keyed(salt)(content).digest(), "big")


def _keyed(salt: bytes) -> Callable[[bytes], Any]:
    return partial(hashlib.blake2b, digest_size=2, key=salt)


def digest_of(content: bytes) -> bytes:
    """What is sent to the vault in place of a piece of a file."""
    return hashlib.sha256(DOMAIN + content).digest()


class AtHand:
    """Knows the digests of the secrets themselves, in memory only."""

    def right(self, suspicions: Sequence[tuple[bytes, Fingerprint]]) -> list[bool]:
        """Compare."""
        return [hmac.compare_digest(digest, one.proof) for digest, one in suspicions]


class ByVault:
    """Asks the vault; needs `crypto.verify_mac` on the key.  Raises VaultdError."""

    def __init__(self, client: Client, key_version: str) -> None:
        self._client = client
        self._key_version = key_version

    def right(self, suspicions: Sequence[tuple[bytes, Fingerprint]]) -> list[bool]:
        """Have MACs verified, many at a time."""
        from vaultd_client.errors import error_of_status

        answers: list[bool] = []
        for begin in range(0, len(suspicions), BATCH):
            chunk = suspicions[begin : begin + BATCH]
            items = [{"name": self._key_version, "data": digest, "mac": one.proof} for digest, one in chunk]
            for result in self._client.batch_verify_mac(items).results:
                if result.WhichOneof("outcome") == "status":
                    raise error_of_status(result.status, "BatchVerifyMac")
                answers.append(result.result.valid)
        return answers


class Matcher:
    """Takes pieces of files, and tells the copies of secrets among them."""

    def __init__(
        self, fingerprints: Iterable[Fingerprint], salt: bytes, prover: Prover, min_length: int = MIN_LENGTH
    ) -> None:
        self._by_tag: dict[int, list[Fingerprint]] = defaultdict(list)
        for one in fingerprints:
            self._by_tag[one.tag].append(one)
        self._hash = _keyed(salt)
        self._tags = {tag.to_bytes(2, "big") for tag in self._by_tag}
        self._prover = prover
        self._suspicions: dict[tuple[bytes, Fingerprint], list[Place]] = {}
        self.lengths = {one.length for found in self._by_tag.values() for one in found if one.length}
        self.min_length = max(SHORTEST, min_length)

    def suspects(self, content: bytes) -> bool:
        """Whether a piece may be a mark; nearly always it is not."""
        return self._hash(content).digest() in self._tags

    def add(self, content: bytes, place: Place) -> None:
        """Keep a piece that may be a mark."""
        digest = digest_of(content)
        for one in self._by_tag.get(int.from_bytes(self._hash(content).digest(), "big"), ()):
            if not one.length or one.length == len(content):
                self._suspicions.setdefault((digest, one), []).append(place)

    def hits(self) -> list[Hit]:
        """The copies, in order of their places."""
        suspicions = list(self._suspicions)
        answers = self._prover.right(suspicions) if suspicions else []
        found = {
            Hit(place, one.version): None
            for (digest, one), right in zip(suspicions, answers, strict=True)
            if right
            for place in self._suspicions[digest, one]
        }
        return sorted(found, key=lambda hit: (hit.place.path, hit.place.line, hit.version, hit.place.how))
