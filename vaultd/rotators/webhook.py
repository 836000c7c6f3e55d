"""A service of the operator's does the stages: one signed HTTPS request each.  docs/rotation.md has the contract byte by byte.

What is asked where is the configuration's.  Nothing of the answer is shown to anybody but a reason of a closed alphabet.
"""

from __future__ import annotations

import hmac
import re
from base64 import b64decode, b64encode
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import orjson

from vaultd.rotators.base import RotatorFailed, Value
from vaultd.secret import Secret

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from vaultd.rotators.base import Step

    Headers = Sequence[tuple[str, str]]
    Post = Callable[[Headers, bytes], Awaitable[tuple[int, bytes]]]

MAX_ANSWER_BYTES: Final = 128 * 1024
MAX_PAYLOAD_BYTES: Final = 64 * 1024
TIMESTAMP_HEADER: Final = "Vaultd-Timestamp"
SIGNATURE_HEADER: Final = "Vaultd-Signature"
_REASON: Final = re.compile(r"[A-Z][A-Z0-9_]{0,47}")
_TRY_AGAIN: Final = frozenset({408, 425, 429})


class PostFailed(Exception):
    """There is no answer.  sent: whether the request may have arrived."""

    def __init__(self, text: str, *, sent: bool) -> None:
        super().__init__(text)
        self.text = text
        self.sent = sent


@dataclass(frozen=True, slots=True)
class WebhookSettings:
    """A target: the path and query of its URL, which the signature covers, and how long a stage may take."""

    path: str
    timeout_s: float


class WebhookRotator:
    """Posts each stage.  `post` knows the URL and the authorities; `read_key` gives the key of the signature."""

    def __init__(
        self,
        settings: WebhookSettings,
        post: Post,
        read_key: Callable[[], Awaitable[Secret]],
        now_s: Callable[[], int],
    ) -> None:
        self._settings = settings
        self._post = post
        self._read_key = read_key
        self._now_s = now_s

    @property
    def timeout_s(self) -> float:
        return self._settings.timeout_s

    @property
    def passwords_only(self) -> bool:
        return False

    async def create(self, step: Step, generate: Callable[[], Awaitable[Value]]) -> Value:
        """The generated value, or what the service answers instead."""
        value = await generate()
        answer = await self._ask("create", step, value.payload)
        if "payload" not in answer:
            return value
        try:
            payload = b64decode(answer["payload"], validate=True)
        except (TypeError, ValueError):
            payload = b""
        if not 1 <= len(payload) <= MAX_PAYLOAD_BYTES:
            raise RotatorFailed(
                "WEBHOOK_ANSWER", "payload must be 1 byte to 64 KiB of standard base64", lasting=True, untouched=True
            )
        return Value(Secret(payload))

    async def set(self, step: Step) -> None:
        await self._ask("set", step, step.new)

    async def test(self, step: Step) -> None:
        await self._ask("test", step, step.new)

    async def retire(self, step: Step) -> None:
        await self._ask("retire", step, step.new)

    async def roll_back(self, step: Step) -> None:
        await self._ask("roll_back", step, step.new)

    async def _ask(self, stage: str, step: Step, new: Secret | None) -> dict[str, Any]:
        body = orjson.dumps(
            {
                "version": 1,
                "stage": stage,
                "run": step.run,
                "secret": step.secret,
                "old": _coded(step.old),
                "new": _coded(new),
            }
        )
        timestamp = str(self._now_s())
        key = await self._read_key()
        headers = [
            ("Content-Type", "application/json"),
            (TIMESTAMP_HEADER, timestamp),
            (SIGNATURE_HEADER, f"v1={signature(key, timestamp, self._settings.path, body)}"),
        ]
        try:
            status, answer = await self._post(headers, body)
        except PostFailed as error:
            raise RotatorFailed("WEBHOOK_UNREACHABLE", error.text, untouched=not error.sent) from None
        return _understood(status, answer)


def signature(key: Secret, timestamp: str, path: str, body: bytes) -> str:
    """HMAC-SHA-256 in hex over `v1`, the timestamp, the path and query, each with a line feed after it, and the body."""
    message = f"v1\n{timestamp}\n{path}\n".encode("ascii") + body
    return hmac.digest(key.expose("sign the request of a webhook"), message, "sha256").hex()


def _coded(payload: Secret | None) -> str | None:
    return b64encode(payload.expose("hand over to the configured webhook")).decode("ascii") if payload else None


def _understood(status: int, body: bytes) -> dict[str, Any]:
    try:
        answer = orjson.loads(body) if body else {}
    except orjson.JSONDecodeError:
        answer = None
    if status == 200 and isinstance(answer, dict):
        return answer
    if status == 200:
        raise RotatorFailed("WEBHOOK_ANSWER", "the answer is not a JSON object")
    said = answer.get("reason") if isinstance(answer, dict) else None
    reason = said if isinstance(said, str) and _REASON.fullmatch(said) else "WEBHOOK_REFUSED"
    lasting = 400 <= status < 500 and status not in _TRY_AGAIN
    raise RotatorFailed(reason, f"the webhook answered HTTP {status}; its own log says more", lasting=lasting)
