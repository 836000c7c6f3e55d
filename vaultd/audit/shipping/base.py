"""What a sink is: something that takes batches of records, in order, and says when it has them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Literal, Protocol

if TYPE_CHECKING:
    from collections.abc import Sequence

MAX_BATCH_RECORDS: Final = 256
MAX_BATCH_BYTES: Final = 512 * 1024
"""Of lines; one line may be longer by itself."""

Format = Literal["json", "ocsf"]
Failure = Literal["connection", "certificate", "credential", "timeout", "refused", "storage", "internal"]
"""Why a delivery failed: out of reach; not whom we trust; our own credential; silent; answered no; the log's own files; us."""


@dataclass(frozen=True, slots=True)
class Record:
    """One record as it is in the log."""

    sequence: int
    line: bytes
    """Without the newline; the receipt's leaf hash is over these bytes."""
    fields: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Origin:
    """Where records come from."""

    chain_id: str
    host: str
    version: str


class DeliveryFailed(Exception):
    """The sink does not have the batch, or did not say so.  The text says what to look at, and holds nothing of records."""

    def __init__(self, kind: Failure, text: str, *, doubtful: bool = False) -> None:
        super().__init__(text)
        self.kind = kind
        self.text = text
        self.doubtful = doubtful
        """The batch before this one may be lost as well: send it again."""


class Sink(Protocol):
    """Takes batches in order, one at a time.

    A sink holds no records between calls, retries nothing and starts no tasks of its own: the worker does that.
    """

    def encode(self, records: Sequence[Record]) -> Any:
        """Make of records what `deliver` sends, anew for each attempt.  Runs on a thread of the worker, and may read
        small files.  Raises DeliveryFailed.
        """
        ...

    async def deliver(self, batch: Any) -> int:
        """Send a batch; returns once the sink has it, with how many of its records it will never take.

        May be cancelled.  Raises DeliveryFailed.
        """
        ...

    async def close(self) -> None:
        """Give up connections.  Idempotent; does not wait for the other side."""
        ...
