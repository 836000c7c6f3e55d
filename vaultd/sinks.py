"""The audit sinks as they are configured, and what carries records to each of them."""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING

from vaultd import __version__
from vaultd.audit.shipping.base import DeliveryFailed, Origin
from vaultd.audit.shipping.credentials import read_secret, read_token
from vaultd.audit.shipping.cursor import CursorFile
from vaultd.audit.shipping.ocsf import OcsfFormat
from vaultd.audit.shipping.settings import OtlpSinkSection, StdoutSinkSection, SyslogSinkSection, WebhookSinkSection
from vaultd.audit.shipping.stdout import StdoutSink
from vaultd.audit.shipping.syslog import SyslogSink
from vaultd.audit.shipping.transport import Connection, TlsFiles
from vaultd.audit.shipping.webhook import WebhookSink
from vaultd.audit.shipping.worker import SinkWorker, WorkerSettings
from vaultd.config import ConfigError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from vaultd.audit.log import AuditLog
    from vaultd.audit.shipping.base import Record, Sink
    from vaultd.audit.shipping.settings import SinkSection
    from vaultd.config import AuditSection
    from vaultd.engine.clock import Clock


def sinks_mutations_need(sections: Sequence[SinkSection]) -> list[str]:
    """Names of sinks without which nothing is changed."""
    return [section.name for section in sections if section.required]


def sinks_every_call_needs(sections: Sequence[SinkSection]) -> list[str]:
    """Names of sinks without which no call is answered."""
    return [section.name for section in sections if section.required and section.require == "all"]


def origin_of(chain_id: bytes) -> Origin:
    """Where the records of a chain come from, as sinks say it."""
    return Origin(chain_id.hex(), socket.gethostname(), __version__)


def make_sink(section: SinkSection, origin: Origin, clock: Clock) -> Sink:
    """A sink as it is configured.  Nothing is connected yet."""
    encode: Callable[[Record], bytes] = OcsfFormat(origin) if section.format == "ocsf" else _line
    if isinstance(section, StdoutSinkSection):
        return StdoutSink(encode)
    tls = TlsFiles(section.ca_file, section.certificate, section.key)
    if isinstance(section, SyslogSinkSection):
        connection = Connection(section.host, section.port, tls if section.tls else None)
        host = Origin(origin.chain_id, section.hostname or origin.host, origin.version)
        return SyslogSink(connection, encode, host, section.facility)
    if isinstance(section, OtlpSinkSection):
        # Here, since it imports grpc, which a server in Envoy does not need otherwise.
        from vaultd.audit.shipping.otlp import OtlpSink

        return OtlpSink(section.address, tls if section.tls else None, section.token_file, encode, origin)
    return WebhookSink(section.url, tls, section.secret_file, section.token_file, encode, origin, clock)


def check_files(sections: Sequence[SinkSection]) -> None:
    """Raise ConfigError when a file that a sink names cannot be used.  Blocks."""
    for section in sections:
        if isinstance(section, StdoutSinkSection):
            continue
        try:
            TlsFiles(section.ca_file, section.certificate, section.key).context()
            if isinstance(section, WebhookSinkSection):
                read_secret(section.secret_file)
            if not isinstance(section, SyslogSinkSection) and section.token_file is not None:
                read_token(section.token_file)
        except DeliveryFailed as failure:
            raise ConfigError(f"audit.sinks: {section.name}: {failure.text}") from failure


def make_workers(
    audit: AuditSection,
    log: AuditLog,
    clock: Clock,
    on_change: Callable[[str, bool, str], None],
    on_incident: Callable[[str, BaseException], None],
) -> list[SinkWorker]:
    """What carries the records of an open log to each configured sink."""
    origin = origin_of(log.chain_id)
    return [
        SinkWorker(
            WorkerSettings(section.name, section.timeout_s, section.hold_s, section.start == "newest"),
            make_sink(section, origin, clock),
            audit.directory,
            CursorFile(audit.directory, section.name),
            origin.chain_id,
            lambda: log.sequence,
            clock,
            on_change,
            on_incident,
        )
        for section in audit.sinks
    ]


def _line(record: Record) -> bytes:
    return record.line
