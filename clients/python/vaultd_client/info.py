"""What a call leaves behind besides its answer."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Iterable

    from vaultd_client.errors import VaultdError
    from vaultd_client.v1.resources_pb2 import AuditReceipt

REQUEST_ID_KEY: Final = "vaultd-request-id"
RECEIPT_KEY: Final = "vaultd-receipt-bin"


@dataclass(slots=True)
class CallInfo:
    """Filled by the call that it is handed to: `info = CallInfo(); await client.encrypt(..., info=info)`.

    request_id: what the server calls the call in its audit log and in its errors.  receipt: the place of its audit record; calls
    that travelled in one batch share both.  items: how many travelled together.  attempts: how often it was sent.
    """

    request_id: str = ""
    receipt: AuditReceipt | None = None
    address: str = ""
    items: int = 1
    attempts: int = 0

    def take(self, trailing: Iterable[tuple[str, Any]] | None) -> None:
        """Read a call's trailing metadata."""
        from vaultd_client.v1.resources_pb2 import AuditReceipt

        for key, value in trailing or ():
            if key == REQUEST_ID_KEY:
                self.request_id = str(value)
            elif key == RECEIPT_KEY:
                self.receipt = AuditReceipt.FromString(value)

    def repeated(self, error: VaultdError, wait_s: float) -> None:
        """Told when a call is sent again, and why; what is kept of it is in `attempts`."""

    def take_from(self, other: CallInfo, items: int) -> None:
        """Take over what is known of the batch that a call travelled in."""
        self.request_id, self.receipt = other.request_id, other.receipt
        self.address, self.attempts, self.items = other.address, other.attempts, items
