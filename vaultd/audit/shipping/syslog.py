"""Syslog: RFC 5424 messages with octet counting, over TLS (RFC 5425) or TCP (RFC 6587).

Syslog has no acknowledgement.  What counts as one here is that the receiver's host has acknowledged every byte (Linux,
SIOCOUTQ): the data left this machine, and a receiver that dies before it reads them loses them.  So the batch before a
broken connection is sent again.
"""

from __future__ import annotations

import asyncio
import fcntl
import ssl
import struct
import sys
from typing import TYPE_CHECKING, Final, Literal

from vaultd.audit.shipping.base import DeliveryFailed
from vaultd.audit.shipping.severity import Severity, severity_of

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from vaultd.audit.shipping.base import Origin, Record
    from vaultd.audit.shipping.transport import Connection

FacilityName = Literal[
    "auth", "authpriv", "audit", "local0", "local1", "local2", "local3", "local4", "local5", "local6", "local7"
]
FACILITIES: Final[dict[str, int]] = {
    "auth": 4,
    "authpriv": 10,
    "audit": 13,
    **{f"local{number}": 16 + number for number in range(8)},
}
_SEVERITIES: Final = {
    Severity.CRITICAL: 2,
    Severity.ERROR: 3,
    Severity.WARNING: 4,
    Severity.NOTICE: 5,
    Severity.INFO: 6,
}
_MAX_SEQUENCE_ID: Final = 2_147_483_647
_SIOCOUTQ: Final = 0x5411
_FIRST_WAIT_S: Final = 0.001
_LONGEST_WAIT_S: Final = 0.1


class SyslogSink:
    """One connection, kept open."""

    def __init__(
        self, connection: Connection, format_record: Callable[[Record], bytes], origin: Origin, facility: FacilityName
    ) -> None:
        self._connection = connection
        self._format = format_record
        self._facility = FACILITIES[facility] * 8
        # PROCID: "a change in the value indicates there has been a discontinuity" (RFC 5424, 6.2.6), as with a new chain.
        self._middle = f" {_printable(origin.host, 255)} vaultd {_printable(origin.chain_id, 128)} ".encode()
        self._sent_before = False
        """Whether anything was sent on the present connection."""

    def encode(self, records: Sequence[Record]) -> bytes:
        return b"".join(self._frame(record) for record in records)

    def _frame(self, record: Record) -> bytes:
        """MSG-LEN SP SYSLOG-MSG (RFC 6587, 3.4.1)."""
        fields = record.fields
        priority = self._facility + _SEVERITIES[severity_of(fields)]
        kind = _printable(str(fields.get("event", "")), 32)
        sequence_id = (record.sequence - 1) % _MAX_SEQUENCE_ID + 1  # RFC 5424, 7.3.1: from 1 to 2^31-1, and around
        head = f'{kind} [meta sequenceId="{sequence_id}"] '.encode()
        message = b"<%d>1 %b%b%b%b" % (
            priority,
            _printable(str(fields.get("time", "")), 64).encode(),
            self._middle,
            head,
            self._format(record),
        )
        return b"%d %b" % (len(message), message)

    async def deliver(self, batch: bytes) -> int:
        connection = self._connection
        lost = self._sent_before and not connection.open
        if lost:
            self._sent_before = False
            connection.drop()
            raise DeliveryFailed("connection", "the receiver ended the connection", doubtful=True)
        _, writer = await connection.streams()
        doubtful, self._sent_before = self._sent_before, True
        try:
            writer.write(batch)
            await writer.drain()
            await self._acknowledged(writer)
        except (OSError, ssl.SSLError) as error:
            self._drop()
            raise DeliveryFailed("connection", "the connection broke", doubtful=doubtful) from error
        except asyncio.CancelledError:
            self._drop()  # half a frame may be out: the next one needs a fresh connection
            raise
        return 0

    async def _acknowledged(self, writer: asyncio.StreamWriter) -> None:
        """Wait until neither we nor the kernel hold anything that the other host has not acknowledged."""
        transport = writer.transport
        raw = transport.get_extra_info("socket")
        wait_s = _FIRST_WAIT_S
        while transport.get_write_buffer_size() or _unacknowledged_bytes(raw.fileno()):
            if transport.is_closing():
                raise ConnectionResetError
            await asyncio.sleep(wait_s)  # nothing tells us when: the kernel can only be asked
            wait_s = min(wait_s * 2, _LONGEST_WAIT_S)
        if not self._connection.open:
            raise ConnectionResetError

    def _drop(self) -> None:
        self._sent_before = False
        self._connection.drop()

    async def close(self) -> None:
        self._drop()


def _unacknowledged_bytes(fd: int) -> int:
    """What the kernel holds of a TCP connection's output; elsewhere than on Linux what it took counts as delivered."""
    if sys.platform != "linux":
        return 0
    count: int = struct.unpack("i", fcntl.ioctl(fd, _SIOCOUTQ, b"\0\0\0\0"))[0]
    return count


def _printable(text: str, limit: int) -> str:
    """Characters of a header field: `!` to `~` (RFC 5424, 6); `-` for nothing."""
    return "".join(c if "!" <= c <= "~" else "_" for c in text[:limit]) or "-"
