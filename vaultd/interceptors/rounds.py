"""Calls that are recorded together: those that one round of the event loop served, for hosts that can wait for its end."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from vaultd.errors import VaultdError
from vaultd.interceptors.audit import RECEIPT_KEY
from vaultd.interceptors.call import Reply
from vaultd.interceptors.errors import known_error
from vaultd.interceptors.trace import REQUEST_ID_KEY

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable

    from vaultd.interceptors.audit import AuditStep, Entry

MOST: Final = 64
"""Calls of one write: some 30 KiB."""
HELD: Final = Reply(b"", 0, "", ())
"""What stands for an answer that is given to `Call.answer` later."""


class Round:
    """Calls that were served and are neither recorded nor answered.

    They are recorded with one write when the round is over, and answered after it; all are refused when the write fails.
    `ended` is told of each, with its outcome; `refuse` makes the answer of one that cannot be recorded.  What goes wrong with one
    call is reported to `on_incident`, and the others are answered.
    """

    def __init__(
        self,
        audit: AuditStep,
        ended: Callable[[Entry], None],
        refuse: Callable[[Entry, Exception], Reply],
        on_incident: Callable[[str, BaseException], None],
    ) -> None:
        self._audit = audit
        self._on_incident = on_incident
        self._ended = ended
        self._refuse = refuse
        self._served: list[tuple[Entry, bytes]] = []

    def add(self, loop: asyncio.AbstractEventLoop, entry: Entry, body: bytes) -> Reply:
        """Record and answer a call at the end of the round."""
        entry.handed_over = True
        if not self._served:
            loop.call_soon(self.end)
        self._served.append((entry, body))
        if len(self._served) >= MOST:
            self.end()
        return HELD

    def end(self) -> None:
        """Record and answer what there is."""
        served, self._served = self._served, []
        if not served:
            return
        try:
            receipts = self._audit.outcomes(served)
        except VaultdError as error:
            replies = [self._refuse(entry, error) for entry, _ in served]
        except Exception:  # one of them cannot be written: not the others' fault
            replies = [self._record(entry, body) for entry, body in served]
        else:
            replies = [_served(entry, body, receipt) for (entry, body), receipt in zip(served, receipts, strict=True)]
        for entry, _ in served:
            self._apart(self._ended, entry)
        for (entry, _), reply in zip(served, replies, strict=True):
            if entry.call.answer is not None:
                self._apart(entry.call.answer, reply)

    def _apart(self, act: Callable[[Any], None], argument: Any) -> None:
        try:
            act(argument)
        except Exception as error:  # the others want their answers
            known_error(error, self._on_incident)

    def _record(self, entry: Entry, body: bytes) -> Reply:
        try:
            return _served(entry, body, *self._audit.outcomes([(entry, body)]))
        except Exception as error:  # as in the chain: what is not a VaultdError is INTERNAL with an incident id
            return self._refuse(entry, error)


def _served(entry: Entry, body: bytes, receipt: bytes) -> Reply:
    entry.outcome = ("OK", "", len(body))
    return Reply(body, 0, "", ((REQUEST_ID_KEY, entry.request_id), (RECEIPT_KEY, receipt)))
