"""What callers know of keys, what they were told, and whether it is true.

An answer that does not hold is `wrong`, a refusal that nothing explains is `unexpected`.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter, deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from itertools import count
from typing import Any

import grpc
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa
from google.rpc import error_details_pb2, status_pb2

PARENT = "vaults/default"
OP_TIMEOUT_S = 120.0
REPEAT_S = 0.1
LONGEST_REPEAT_S = 120.0
AGED = "UNAVAILABLE max connection age"
"""The server ends connections after five minutes, and calls on them half a minute later: a change that still waits for its
turn in the token is asked again, on another connection."""
EXAMPLES = 20
"""Wrong and unexpected answers that are told in full; the rest is counted."""

ALGORITHMS = {
    "EC_P256_SHA256": "SIGN",
    "EC_P384_SHA384": "SIGN",
    "RSA_PSS_2048_SHA256": "SIGN",
    "RSA_PKCS1_2048_SHA256": "SIGN",
    "ED25519": "SIGN",
    "AES_256_GCM": "ENCRYPT_DECRYPT",
    "HMAC_SHA256": "MAC",
    "AES_256_CMAC": "MAC",
    "AES_256_KWP": "WRAP",
    "ECDH_P256": "KEY_AGREEMENT",
    "RSA_PSS_4096_SHA256": "SIGN",
}
"""What callers make keys of, and the purpose that goes with it."""
LARGE = "RSA_PSS_4096_SHA256"

Method = Any
Expected = Callable[[], Iterable[str]]
"""Reasons that are right when they come: asked for at that moment, since other callers go on meanwhile."""
TOKENLESS = frozenset({"GetPublicKey", "DeleteKey", "PurgeKey", "DestroyKeyVersion"})
"""Calls that are answered without the token."""


@dataclass
class Key:
    """A key as callers know it.  `doomed`: versions whose destruction somebody asked for."""

    name: str
    algorithm: str
    newest: int = 1
    doomed: set[int] = field(default_factory=set)
    own: bool = False

    def version(self, number: int) -> str:
        return f"{self.name}/versions/{number}"

    def live(self) -> list[int]:
        return [number for number in range(1, self.newest + 1) if number not in self.doomed]


@dataclass(frozen=True)
class Sealed:
    """A ciphertext and what must come of it."""

    key: Key
    number: int
    ciphertext: bytes
    plaintext: bytes
    associated_data: bytes


class Tally:
    """What callers got.  `on_token_answer` hears when each call that a token answered began and ended."""

    def __init__(self) -> None:
        self.calls: Counter[str] = Counter()
        self.items = 0
        self.refusals: Counter[str] = Counter()
        self.wrong: Counter[str] = Counter()
        self.unexpected: Counter[str] = Counter()
        self.examples: list[str] = []
        self.slowest_s: dict[str, float] = {}
        self.on_token_answer: Callable[[float, float], None] = lambda began_s, ended_s: None

    def answered(self, what: str, began_s: float) -> None:
        ended_s = time.monotonic()
        self.calls[what] += 1
        self.slowest_s[what] = max(self.slowest_s.get(what, 0.0), ended_s - began_s)
        if what not in TOKENLESS:
            self.on_token_answer(began_s, ended_s)

    def is_wrong(self, what: str, of: str) -> None:
        self.wrong[what] += 1
        self._tell(f"wrong: {what}: {of}")

    def is_unexpected(self, what: str, of: str) -> None:
        self.unexpected[what] += 1
        self._tell(f"unexpected: {what}: {of}")

    def _tell(self, example: str) -> None:
        if len(self.examples) < EXAMPLES:
            self.examples.append(example)

    def violations(self) -> int:
        return self.wrong.total() + self.unexpected.total()


class Vault:
    """What all callers know together."""

    def __init__(self, permitted: Iterable[grpc.StatusCode], known_mac: bytes = b"") -> None:
        self.permitted = frozenset(permitted)
        self.known_mac = known_mac
        self.keys: dict[str, Key] = {}
        self.publics: dict[str, Any] = {}
        self.sealed: deque[Sealed] = deque(maxlen=3_000)
        self.macs: dict[tuple[str, bytes], bytes] = {}
        self.drawn: set[bytes] = set()

    def shared(self, purpose: str) -> list[Key]:
        return [key for key in self.keys.values() if not key.own and ALGORITHMS[key.algorithm] == purpose]


def reason_in(status: Any) -> str:
    """The stable reason of a status; the text of one without."""
    info = error_details_pb2.ErrorInfo()
    for detail in status.details:
        if detail.Unpack(info):
            return str(info.reason)
    return str(status.message)


def refusal_of(error: grpc.aio.AioRpcError) -> tuple[grpc.StatusCode, str]:
    """Code and reason; those that the client's own library made have no reason."""
    for key, value in error.trailing_metadata() or ():
        if key == "grpc-status-details-bin":
            return error.code(), reason_in(status_pb2.Status.FromString(value))
    return error.code(), error.details() or ""


def code_of(number: int) -> grpc.StatusCode:
    return next(code for code in grpc.StatusCode if code.value[0] == number)


def signature_holds(public: Any, message: bytes, signature: bytes, algorithm: str) -> bool:
    """Whether the signature is this key's for this message."""
    try:
        if isinstance(public, ed25519.Ed25519PublicKey):
            public.verify(signature, message)
        elif isinstance(public, rsa.RSAPublicKey):
            pss = padding.PSS(padding.MGF1(hashes.SHA256()), 32)
            public.verify(signature, message, pss if "PSS" in algorithm else padding.PKCS1v15(), hashes.SHA256())
        else:
            digest = hashes.SHA384() if algorithm.endswith("384") else hashes.SHA256()
            public.verify(signature, message, ec.ECDSA(digest))
    except InvalidSignature:
        return False
    return True


class Asker:
    """Makes calls for one caller, and tells the tally how they ended."""

    def __init__(self, name: str, vault: Vault, tally: Tally) -> None:
        self.name = name
        self._vault = vault
        self._tally = tally
        self._numbers = count(1)

    def fresh(self) -> int:
        """A number that this caller did not have before."""
        return next(self._numbers)

    async def ask(self, what: str, method: Method, request: Any, expected: Expected = tuple) -> Any:
        """The answer, or None for a refusal; one that is neither permitted nor expected is noted."""
        return (await self._try(what, method, request, expected))[0]

    async def _try(self, what: str, method: Method, request: Any, expected: Expected = tuple) -> tuple[Any, bool]:
        """The answer, or None and whether the refusal may be another answer later."""
        began_s = time.monotonic()
        try:
            answer = await method(request, timeout=OP_TIMEOUT_S)
        except grpc.aio.AioRpcError as error:
            return None, self._refused(what, *refusal_of(error), expected)
        self._tally.answered(what, began_s)
        self._tally.items += 1
        return answer, False

    async def ask_many(self, what: str, method: Method, request: Any, expected: Expected = tuple) -> list[Any]:
        """An answer or None for each item."""
        began_s = time.monotonic()
        try:
            answer = await method(request, timeout=OP_TIMEOUT_S)
        except grpc.aio.AioRpcError as error:
            self._refused(what, *refusal_of(error), expected)
            return []
        if len(answer.results) != len(request.items):
            self._tally.is_wrong(what, "not a result for each item")
        results = []
        for result in answer.results:
            if result.WhichOneof("outcome") == "result":
                results.append(result.result)
            else:
                results.append(None)
                self._refused(f"{what} item", code_of(result.status.code), reason_in(result.status), expected)
        done = sum(result is not None for result in results)
        if done:
            self._tally.answered(what, began_s)
        self._tally.items += done
        return results

    async def insist(self, what: str, method: Method, request: Any) -> Any:
        """Repeat a change, or a question, while it is refused for reasons that pass; a change keeps its request id."""
        if "request_id" in request.DESCRIPTOR.fields_by_name:
            request.request_id = f"{self.name}-{self.fresh()}"
        end_s = time.monotonic() + LONGEST_REPEAT_S
        while True:
            answer, passes = await self._try(what, method, request)
            if not passes:
                return answer
            if time.monotonic() > end_s:
                self._tally.is_unexpected(f"{what} is refused for minutes", self.name)
                return None
            await asyncio.sleep(REPEAT_S)

    def _refused(self, what: str, code: grpc.StatusCode, reason: str, expected: Expected) -> bool:
        said = f"{code.name} {reason}"
        if code in self._vault.permitted or said == AGED:
            self._tally.refusals[said] += 1
            return True
        if reason in expected():
            self._tally.refusals[f"{said} (asked for)"] += 1
        else:
            self._tally.is_unexpected(f"{what} {said}", self.name)
        return False
