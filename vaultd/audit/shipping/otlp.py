"""OTLP logs over gRPC: an ExportLogsServiceRequest for each batch, of the official protos.

Acknowledged means that the collector answered Export with OK.  What a collector rejects in a partial success must not be
sent again (OTLP specification): it is counted, and calls that wait for those records are told that they were not delivered.
"""

from __future__ import annotations

import asyncio
from datetime import datetime
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import grpc
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest, ExportLogsServiceResponse
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, InstrumentationScope, KeyValue
from opentelemetry.proto.logs.v1.logs_pb2 import LogRecord, ResourceLogs, ScopeLogs, SeverityNumber
from opentelemetry.proto.resource.v1.resource_pb2 import Resource

from vaultd.audit.shipping.base import DeliveryFailed
from vaultd.audit.shipping.credentials import read_token
from vaultd.audit.shipping.severity import Severity, severity_of

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from vaultd.audit.shipping.base import Origin, Record
    from vaultd.audit.shipping.transport import TlsFiles
    from vaultd.secret import Secret

EXPORT: Final = "/opentelemetry.proto.collector.logs.v1.LogsService/Export"
SCOPE: Final = "vaultd.audit"
_SEVERITIES: Final = {
    Severity.INFO: (SeverityNumber.SEVERITY_NUMBER_INFO, "INFO"),
    Severity.NOTICE: (SeverityNumber.SEVERITY_NUMBER_INFO2, "NOTICE"),
    Severity.WARNING: (SeverityNumber.SEVERITY_NUMBER_WARN, "WARN"),
    Severity.ERROR: (SeverityNumber.SEVERITY_NUMBER_ERROR, "ERROR"),
    Severity.CRITICAL: (SeverityNumber.SEVERITY_NUMBER_FATAL, "CRITICAL"),
}
_ATTRIBUTES: Final = {
    "seq": "vaultd.audit.sequence",
    "method": "rpc.method",
    "principal": "vaultd.principal",
    "code": "rpc.response.status_code",
    "reason": "error.type",
    "id": "vaultd.request_id",
}
"""Fields that a collector may want to route by, and the attributes that hold them; the body has all of them."""
_TRACE_ID_BYTES: Final = 16


class Export(NamedTuple):
    """One request, serialised, and the token that goes with it."""

    request: bytes
    token: Secret | None


class OtlpSink:
    """One channel, kept open; gRPC itself connects it again."""

    def __init__(
        self,
        address: str,
        tls: TlsFiles | None,
        token_file: Path | None,
        format_record: Callable[[Record], bytes],
        origin: Origin,
    ) -> None:
        self._address = address
        self._tls = tls
        self._token_file = token_file
        self._format = format_record
        self._resource = Resource(
            attributes=[
                _attribute("service.name", "vaultd"),
                _attribute("service.version", origin.version),
                _attribute("service.instance.id", origin.chain_id),
                _attribute("host.name", origin.host),
            ]
        )
        self._scope = InstrumentationScope(name=SCOPE, version=origin.version)
        self._attribute = lru_cache(maxsize=1024)(_attribute)  # methods, callers and codes come again and again
        self._stamps: tuple[tuple[int, int], ...] = ()
        self._channel: grpc.aio.Channel | None = None

    def encode(self, records: Sequence[Record]) -> Export:
        scope = ScopeLogs(scope=self._scope, log_records=[self._log_record(record) for record in records])
        request = ExportLogsServiceRequest(resource_logs=[ResourceLogs(resource=self._resource, scope_logs=[scope])])
        token = read_token(self._token_file) if self._token_file is not None else None
        return Export(request.SerializeToString(), token)

    def _log_record(self, record: Record) -> LogRecord:
        fields = record.fields
        number, text = _SEVERITIES[severity_of(fields)]
        time_ns = _unix_ns(fields.get("time"))
        event = fields.get("event")
        return LogRecord(
            time_unix_nano=time_ns,
            observed_time_unix_nano=time_ns,
            severity_number=number,
            severity_text=text,
            body=AnyValue(string_value=self._format(record).decode()),
            attributes=[
                self._attribute(name, value)
                for field, name in _ATTRIBUTES.items()
                if isinstance(value := fields.get(field), str | int)
            ],
            trace_id=_trace_id(fields.get("trace_id")),
            event_name=f"vaultd.audit.{event}" if isinstance(event, str) else "",
        )

    async def deliver(self, batch: Export) -> int:
        channel = await self._connected()
        metadata = []
        if batch.token is not None:
            metadata.append(("authorization", f"Bearer {batch.token.expose('collector').decode()}"))
        try:
            answer: bytes = await channel.unary_unary(EXPORT, None, None)(batch.request, metadata=metadata)
        except asyncio.CancelledError:
            # A connection that somebody on the way forgot looks open for a quarter of an hour: the next attempt has its own.
            await self.close()
            raise
        except grpc.aio.AioRpcError as error:
            if error.code() in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED):
                await (
                    self.close()
                )  # a channel backs off for up to two minutes; the worker has its own idea of when to try
                raise DeliveryFailed("connection", "the collector cannot be reached, or is not trusted") from error
            raise DeliveryFailed("refused", f"the collector answered {error.code().name}") from error
        rejected: int = ExportLogsServiceResponse.FromString(answer).partial_success.rejected_log_records
        return rejected

    async def _connected(self) -> grpc.aio.Channel:
        stamps = self._tls.stamps() if self._tls is not None else ()
        if self._channel is None or stamps != self._stamps:
            await self.close()
            options = [("grpc.use_local_subchannel_pool", 1), ("grpc.enable_retries", 0)]
            if self._tls is None:
                self._channel = grpc.aio.insecure_channel(self._address, options)
            else:
                credentials = grpc.ssl_channel_credentials(*await asyncio.to_thread(self._tls.read))
                self._channel = grpc.aio.secure_channel(self._address, credentials, options)
            self._stamps = stamps
        return self._channel

    async def close(self) -> None:
        channel, self._channel = self._channel, None
        if channel is not None:
            await channel.close(grace=None)


def _attribute(key: str, value: Any) -> KeyValue:
    if isinstance(value, int) and not isinstance(value, bool):
        return KeyValue(key=key, value=AnyValue(int_value=value))
    return KeyValue(key=key, value=AnyValue(string_value=str(value)))


def _trace_id(text: Any) -> bytes:
    """16 bytes, or none: anything else makes collectors drop the record."""
    try:
        trace_id = bytes.fromhex(text) if isinstance(text, str) else b""
    except ValueError:
        return b""
    return trace_id if len(trace_id) == _TRACE_ID_BYTES else b""


def _unix_ns(text: Any) -> int:
    moment = datetime.fromisoformat(text) if isinstance(text, str) else None
    if moment is None:
        return 0
    return int(moment.replace(microsecond=0).timestamp()) * 1_000_000_000 + moment.microsecond * 1_000
