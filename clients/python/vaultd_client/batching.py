"""How waiting calls become a batch, and a batch's answer theirs.  Both clients use this; neither waits here."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from vaultd_client.errors import DeadlineExceeded, Refusal, VaultdError, error_of_status

if TYPE_CHECKING:
    from collections import deque
    from collections.abc import Iterator, Sequence

    from vaultd_client.info import CallInfo
    from vaultd_client.method import Method
    from vaultd_client.settings import BatchLimits

ITEM_OVERHEAD_BYTES: Final = 512
"""What an answer may have over its request, and what a list adds; signatures that are longer are asked for again."""
DIVIDED: Final = {"INVALID_ARGUMENT", "RESOURCE_EXHAUSTED", "UNIMPLEMENTED"}
"""Refusals of a batch as a whole that its items, sent apart, may not meet."""


class Waiting:
    """A call that waits for company."""

    __slots__ = ("deadline", "info", "request", "size", "traceparent")

    def __init__(self, request: Any, deadline: float, info: CallInfo | None, traceparent: str | None) -> None:
        self.request = request
        self.deadline = deadline
        self.info = info
        self.traceparent = traceparent
        self.size: int = request.ByteSize() + ITEM_OVERHEAD_BYTES


def take_batch(pending: deque[Any], limits: BatchLimits) -> list[Any]:
    """Take from the front as many as fit; at least one."""
    if len(pending) <= limits.max_items and sum(one.size for one in pending) <= limits.max_bytes:
        taken = list(pending)
        pending.clear()
        return taken
    taken = [pending.popleft()]
    size = taken[0].size
    while pending and len(taken) < limits.max_items and size + pending[0].size <= limits.max_bytes:
        size += pending[0].size
        taken.append(pending.popleft())
    return taken


def answers(
    method: Method[Any, Any], batch: Sequence[Waiting], response: Any, info: CallInfo
) -> Iterator[Any | VaultdError | None]:
    """For each item its answer or its error, in order; None when the answer did not fit and the item is to be sent again."""
    results = response.results
    if len(results) != len(batch):
        refusal = Refusal("INTERNAL", "the server answered another number of items than it was asked", "BATCH_LENGTH")
        raise VaultdError(refusal, method.path)
    make = method.response
    for one, result in zip(batch, results, strict=True):
        if one.info is not None:
            one.info.take_from(info, len(batch))
        if result.HasField("result"):
            answer = make()  # of its own: a part of the response would keep the others' secrets in memory
            answer.MergeFrom(result.result)
            yield answer
            continue
        error = error_of_status(result.status, method.path, info.request_id)
        yield None if error.reason == "ANSWER_TOO_LARGE" and len(batch) > 1 else error


def too_late(method: Method[Any, Any]) -> DeadlineExceeded:
    """What a call raises that waited too long."""
    return DeadlineExceeded(
        Refusal("DEADLINE_EXCEEDED", "there was no answer in time", "DEADLINE_EXCEEDED"), method.path
    )


def divides(error: VaultdError, batch: Sequence[Waiting]) -> bool:
    """Whether a batch that was refused as a whole is sent again in two halves."""
    return len(batch) > 1 and error.code in DIVIDED and error.retry_delay_s is None


class Pace:
    """How long the calls of a lane usually take."""

    __slots__ = ("usual_s",)

    def __init__(self) -> None:
        self.usual_s = 0.0

    def took(self, seconds: float) -> None:
        """Learn from one."""
        self.usual_s += (seconds - self.usual_s) * 0.2

    @property
    def patience_s(self) -> float:
        """After this long a call is late, and others no longer wait for it: it may be of a slow key, or of a lost server."""
        return max(0.02, 3 * self.usual_s)

    def leaves_time(self, left_s: float) -> bool:
        """Whether a call with so much time left can afford to wait for the one under way."""
        return left_s > 4 * self.usual_s
