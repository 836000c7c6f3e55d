"""What a backend is: the only place where key bytes are used.

A backend knows algorithms by their wire name (`RSA_PSS_3072_SHA256`), which fixes every parameter.  It holds no policy,
no resource names and no state of versions; `tests/contract/backend.py` is the contract that each one passes.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum, IntEnum
from typing import TYPE_CHECKING, NamedTuple, Protocol, runtime_checkable

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from vaultd.errors import VaultdError
    from vaultd.secret import Secret


class OpKind(Enum):
    """What is asked of a handle: its input, its context, and its output.

    Where no context is named it is empty; one that is not is refused with InvalidArgument, CONTEXT_NOT_SUPPORTED.
    """

    ENCRYPT = "encrypt"
    """data: plaintext; context: associated data; out: nonce || ciphertext || tag (AEAD), OAEP or HPKE `enc || ct`."""
    DECRYPT = "decrypt"
    """data: what ENCRYPT gave; context: associated data; out: plaintext; raises DecryptionFailed."""
    SIGN_MESSAGE = "sign_message"
    """data: message; out: signature, ECDSA as DER."""
    SIGN_DIGEST = "sign_digest"
    """data: digest of the algorithm's length; out: signature, ECDSA as DER."""
    VERIFY_MESSAGE = "verify_message"
    """data: message; context: signature; out: b""; raises InvalidSignature.  Public handles only."""
    VERIFY_DIGEST = "verify_digest"
    """data: digest; context: signature; out: b""; raises InvalidSignature.  Public handles only."""
    MAC = "mac"
    """data: message; out: the code."""
    VERIFY_MAC = "verify_mac"
    """data: message; context: the code, whole; out: b""; raises InvalidSignature."""
    WRAP = "wrap"
    """data: key material; out: RFC 5649 wrapping."""
    UNWRAP = "unwrap"
    """data: wrapping; out: key material; raises DecryptionFailed."""
    ENCAPSULATE = "encapsulate"
    """data: b""; out: shared secret (32 bytes) || ciphertext.  Public handles only."""
    DECAPSULATE = "decapsulate"
    """data: ciphertext; out: shared secret; raises InvalidArgument for a wrong length."""
    DERIVE = "derive"
    """data: peer's public key, point, raw or SPKI DER; out: shared secret; raises InvalidArgument for a bad point."""


class Operation(NamedTuple):
    """One use of a handle."""

    kind: OpKind
    data: bytes
    context: bytes = b""


@dataclass(frozen=True, slots=True)
class Material:
    """What the store keeps of a key version.

    secret: the material, to be sealed by the caller; None for a key in a token.
    reference: names the key in its token; b"" for software keys.
    public_key: DER SubjectPublicKeyInfo, or the bare encoding where none is standardised; b"" for symmetric keys.
    attestation: what a token said of the key when it was made or taken over; empty for software keys.
    """

    secret: Secret | None
    reference: bytes
    public_key: bytes
    attestation: Mapping[str, str | bool] = field(default_factory=dict)


class Revealed(NamedTuple):
    """Key material in the form in which it leaves, and its public part as the private one gives it."""

    secret: Secret
    """Raw bytes of symmetric keys and of HPKE_MLKEM768_X25519; PKCS#8 DER of all other key pairs.  `import_material` takes it."""
    public_key: bytes


class TokenKey(NamedTuple):
    """A key that is in a token already: its CKA_ID, its CKA_LABEL, or both, in the slot of a name ("": the first)."""

    slot: str
    object_id: bytes
    label: str


class Handle(Protocol):
    """A loaded key, ready for use, and opaque outside its backend."""

    inline: bool
    """True when `perform` takes microseconds and may run on the event loop."""
    in_turns: bool
    """True when batches may run there too, in turns: what `perform` takes is more than microseconds, and less than what threads
    that pass the interpreter's lock back and forth lose over it."""

    def perform(self, operation: Operation) -> bytes:
        """Do it now, on this thread.  Raises VaultdError; InvalidArgument when the kind does not fit the algorithm."""
        ...


@runtime_checkable
class BulkEncryption(Protocol):
    """What a handle may do besides, where `inline` is true: encrypt many messages in one go."""

    def encrypt_many(self, messages: Sequence[tuple[bytes, bytes]]) -> list[bytes]:
        """What ENCRYPT gives for each pair of data and context, in order."""
        ...


class Lane(IntEnum):
    """Who waits for whom in a bounded queue."""

    ONLINE = 0
    BATCH = 1
    KEY_GENERATION = 2


class Backend(Protocol):
    """Uses key material.  Every method may raise Unavailable; deadlines are `time.monotonic()` seconds or None."""

    protection_level: str
    """`SOFTWARE`, `HSM` or `HSM_ENVELOPE`."""

    def unsupported(self, algorithm: str) -> str | None:
        """Say why the algorithm cannot be used here, or None when it can."""
        ...

    def reserve(self) -> bytes:
        """Choose the reference of a key that is about to be made, to be recorded first; b"" where failures leave nothing.

        A key that was made, and whose record was lost in a crash, is found by its reference and destroyed.
        """
        ...

    async def generate(self, algorithm: str, label: str, reference: bytes = b"") -> Material:
        """Make a new key.  `label` is what an operator reads in a token; `reference` is what `reserve` chose."""
        ...

    async def import_material(self, algorithm: str, secret: Secret, label: str, reference: bytes = b"") -> Material:
        """Take material in: raw bytes for symmetric and raw-encoded keys, PKCS#8 DER for RSA and EC.

        Raises InvalidArgument, reason MATERIAL_MISMATCH, when it does not fit the algorithm.
        """
        ...

    async def adopt(self, algorithm: str, source: TokenKey) -> Material:
        """Take over a key that a token holds already.  Nothing in the token changes.

        Raises FailedPrecondition: ADOPTION_UNSUPPORTED where there is no token, TOKEN_KEY_NOT_FOUND, or HSM_REFUSED when
        the object does not fit the algorithm.
        """
        ...

    async def reveal(self, algorithm: str, material: Material) -> Revealed:
        """Give the material away: for export, and to check what was stored.

        Raises FailedPrecondition, reason HSM_KEY_NOT_EXPORTABLE, for a key in a token; InvalidArgument, reason
        MATERIAL_MISMATCH, for bytes that are no key of the algorithm.
        """
        ...

    async def load(self, algorithm: str, material: Material) -> Handle:
        """Make a handle for the private or symmetric part."""
        ...

    def load_public(self, algorithm: str, public_key: bytes) -> Handle:
        """Make a handle for the public part: VERIFY, ENCAPSULATE, ENCRYPT to a public key.  Always software."""
        ...

    async def use(
        self, handle: Handle, operation: Operation, deadline: float | None, lane: Lane = Lane.ONLINE
    ) -> bytes:
        """Do one operation.  Raises ResourceExhausted at once when the queue is full or the deadline cannot be met."""
        ...

    async def use_many(
        self, work: Sequence[tuple[Handle, Operation]], deadline: float | None
    ) -> list[bytes | VaultdError]:
        """Do many operations, spread over the workers; one outcome each, in order.  An item fails by itself.

        Raises, with nothing done, what `use` raises at once: a deadline that is past or cannot be met, a full queue.  Where
        only some of the handles are affected, that is their items' outcome.
        """
        ...

    async def destroy(self, material: Material) -> None:
        """Erase a key.  Idempotent."""
        ...

    async def random_bytes(self, length: int) -> bytes:
        """Random bytes of cryptographic quality."""
        ...

    async def close(self) -> None:
        """Stop workers; queued operations fail with Unavailable."""
        ...
