"""Each sink by itself, against a receiver on a real socket."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
import os
import re

import grpc
import orjson
import pytest

from harness import FakeClock
from receivers import otlp_receiver, server_context, syslog_receiver, webhook_receiver
from vaultd.audit.shipping.base import DeliveryFailed, Origin, Record
from vaultd.audit.shipping.otlp import OtlpSink
from vaultd.audit.shipping.stdout import StdoutSink
from vaultd.audit.shipping.syslog import SyslogSink
from vaultd.audit.shipping.transport import Connection, TlsFiles
from vaultd.audit.shipping.webhook import WebhookSink
from vaultd.devpki import create_dev_pki

ORIGIN = Origin("ab" * 16, "vault-1", "9.9.9")
KEY = b"k" * 32


@pytest.fixture(scope="module")
def tls(tmp_path_factory):
    directory = tmp_path_factory.mktemp("pki")
    create_dev_pki(directory, hosts=["127.0.0.1"])
    return directory


@pytest.fixture(scope="module")
def strangers(tmp_path_factory):
    directory = tmp_path_factory.mktemp("strangers")
    create_dev_pki(directory, hosts=["127.0.0.1"])
    return directory


def record(sequence: int, **fields) -> Record:
    full = {"seq": sequence, "time": "2026-11-24T02:55:00.000123Z", "event": "call", "code": "OK", **fields}
    return Record(sequence, orjson.dumps(full), full)


def line(one: Record) -> bytes:
    return one.line


async def send(sink, *records: Record) -> int:
    return await sink.deliver(await asyncio.to_thread(sink.encode, records))


async def send_until_it_fails(sink, one: Record) -> None:
    while True:  # that the other side is gone is seen a moment later
        await send(sink, one)
        await asyncio.sleep(0)


def private(path, content: bytes):
    path.write_bytes(content)
    path.chmod(0o600)
    return path


class TestSyslog:
    def sink(self, receiver, tls_files=None):
        return SyslogSink(Connection("127.0.0.1", receiver.port, tls_files), line, ORIGIN, "audit")

    async def test_messages_are_rfc_5424_with_octet_counts(self):
        async with syslog_receiver() as receiver:
            sink = self.sink(receiver)
            await send(sink, record(1), record(2, code="PERMISSION_DENIED"), record(3, code=None, event="recovered"))
            got = await receiver.wait_for(3)
            await sink.close()
        shape = re.compile(rb"<(\d+)>1 (\S+) vault-1 vaultd (\S+) (\S+) \[meta sequenceId=\"(\d+)\"\] (\{.*\})")
        parsed = [shape.fullmatch(one).groups() for one in got]
        assert [int(one[0]) for one in parsed] == [13 * 8 + 6, 13 * 8 + 4, 13 * 8 + 2]
        assert parsed[0][1:5] == (b"2026-11-24T02:55:00.000123Z", b"ab" * 16, b"call", b"1")
        assert parsed[2][3] == b"recovered"
        assert [one[5] for one in parsed] == [
            record(1).line,
            record(2, code="PERMISSION_DENIED").line,
            record(3, code=None, event="recovered").line,
        ]

    async def test_sequence_ids_stay_within_their_range(self):
        sink = SyslogSink(Connection("127.0.0.1", 1, None), line, ORIGIN, "local0")
        assert b'sequenceId="2147483647"' in sink.encode([record(2**31 - 1)])
        assert b'sequenceId="1"' in sink.encode([record(2**31)])

    async def test_a_receiver_with_a_certificate_of_ours_is_trusted_and_sees_our_own(self, tls):
        async with syslog_receiver(server_context(tls, clients=True)) as receiver:
            sink = self.sink(receiver, TlsFiles(tls / "ca.crt", tls / "app.crt", tls / "app.key"))
            await send(sink, record(1))
            assert len(await receiver.wait_for(1)) == 1
            await sink.close()

    async def test_a_receiver_of_other_authorities_gets_nothing(self, tls, strangers):
        async with syslog_receiver(server_context(strangers)) as receiver:
            sink = self.sink(receiver, TlsFiles(tls / "ca.crt"))
            with pytest.raises(DeliveryFailed) as failed:
                await send(sink, record(1))
            assert failed.value.kind == "certificate"
            assert not receiver.lines

    async def test_what_a_stopped_receiver_does_not_take_is_not_acknowledged(self):
        async with syslog_receiver() as receiver:
            receiver.reading.clear()
            sink = self.sink(receiver)
            big = record(1, padding="x" * 64 * 1024 * 1024)  # more than the buffers of both sides hold
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.5):
                    await send(sink, big)
            await sink.close()

    async def test_a_broken_connection_puts_the_batch_before_it_in_doubt(self):
        async with syslog_receiver() as receiver:
            sink = self.sink(receiver)
            await send(sink, record(1))
            await receiver.wait_for(1)
            port = receiver.port
        async with syslog_receiver(port=port) as receiver:
            with pytest.raises(DeliveryFailed) as failed:
                await send_until_it_fails(sink, record(2))
            assert failed.value.doubtful
            await send(sink, record(2))
            assert receiver.connections == 1
            await sink.close()

    async def test_nobody_there_is_a_failed_connection(self):
        async with syslog_receiver() as receiver:
            sink = self.sink(receiver)
        with pytest.raises(DeliveryFailed) as failed:
            await send(sink, record(1))
        assert (failed.value.kind, failed.value.doubtful) == ("connection", False)


class TestOtlp:
    def sink(self, receiver, files=None, token_file=None):
        return OtlpSink(f"127.0.0.1:{receiver.port}", files, token_file, line, ORIGIN)

    async def test_a_collector_of_the_official_protos_understands_a_record(self, tls, tmp_path):
        async with otlp_receiver(tls) as receiver:
            sink = self.sink(receiver, TlsFiles(tls / "ca.crt"), private(tmp_path / "token", b"t0ken\n"))
            sent = record(
                7, method="/vaultd.v1.CryptoService/Sign", trace_id="0af7651916cd43dd8448eb211c80319c", reason="X"
            )
            assert await send(sink, sent) == 0
            await sink.close()
        resource = receiver.requests[0].resource_logs[0]
        log = resource.scope_logs[0].log_records[0]
        assert log.body.string_value.encode() == sent.line
        assert log.time_unix_nano == 1795488900_000123_000
        assert (log.severity_text, log.event_name) == ("INFO", "vaultd.audit.call")
        assert log.trace_id.hex() == "0af7651916cd43dd8448eb211c80319c"
        attributes = {one.key: one.value for one in log.attributes}
        assert attributes["vaultd.audit.sequence"].int_value == 7
        assert attributes["rpc.method"].string_value == "/vaultd.v1.CryptoService/Sign"
        assert {one.key: one.value.string_value for one in resource.resource.attributes} == {
            "service.name": "vaultd",
            "service.version": "9.9.9",
            "service.instance.id": "ab" * 16,
            "host.name": "vault-1",
        }
        assert receiver.metadata[0]["authorization"] == "Bearer t0ken"

    async def test_rejected_records_are_reported(self):
        async with otlp_receiver(None) as receiver:
            receiver.rejects = 2
            sink = self.sink(receiver)
            assert await send(sink, record(1), record(2), record(3)) == 2
            await sink.close()

    async def test_a_refusal_and_an_absent_collector_are_told_apart(self):
        async with otlp_receiver(None) as receiver:
            receiver.code = grpc.StatusCode.PERMISSION_DENIED
            sink = self.sink(receiver)
            with pytest.raises(DeliveryFailed) as refused:
                await send(sink, record(1))
        with pytest.raises(DeliveryFailed) as absent:
            await send(sink, record(1))
        assert (refused.value.kind, absent.value.kind) == ("refused", "connection")
        await sink.close()

    async def test_a_collector_that_comes_back_is_found_at_the_next_attempt(self):
        async with otlp_receiver(None) as receiver:
            sink, port = self.sink(receiver), receiver.port
        with pytest.raises(DeliveryFailed):
            await send(sink, record(1))
        async with otlp_receiver(None, port):
            assert await send(sink, record(1)) == 0
            await sink.close()

    async def test_a_collector_of_other_authorities_gets_nothing(self, tls, strangers):
        async with otlp_receiver(strangers) as receiver:
            sink = self.sink(receiver, TlsFiles(tls / "ca.crt"))
            with pytest.raises(DeliveryFailed):
                await send(sink, record(1))
            assert not receiver.lines
            await sink.close()


class TestWebhook:
    def sink(self, receiver, tls, tmp_path, *, token_file=None, path="/in?x=1"):
        secret = private(tmp_path / "secret", b"whsec_" + base64.b64encode(KEY))
        url = f"https://127.0.0.1:{receiver.port}{path}"
        return WebhookSink(url, TlsFiles(tls / "ca.crt"), secret, token_file, line, ORIGIN, FakeClock())

    async def test_a_batch_is_lines_with_a_signature_over_id_time_and_body(self, tls, tmp_path):
        async with webhook_receiver(server_context(tls)) as receiver:
            sink = self.sink(receiver, tls, tmp_path, token_file=private(tmp_path / "token", b"t0ken"))
            await send(sink, record(5), record(6))
            await sink.close()
        headers, body = receiver.requests[0]
        assert body == record(5).line + b"\n" + record(6).line + b"\n"
        assert headers["webhook-id"] == f"{'ab' * 16}-5-6"
        assert headers["webhook-timestamp"] == "1800000000"
        signed = f"{headers['webhook-id']}.{headers['webhook-timestamp']}.".encode() + body
        expected = base64.b64encode(hmac.new(KEY, signed, hashlib.sha256).digest()).decode()
        assert headers["webhook-signature"] == f"v1,{expected}"
        assert headers["authorization"] == "Bearer t0ken"
        assert headers["content-type"] == "application/x-ndjson"

    async def test_a_connection_is_kept_and_made_again_when_the_receiver_ends_it(self, tls, tmp_path):
        async with webhook_receiver(server_context(tls)) as receiver:
            sink = self.sink(receiver, tls, tmp_path)
            for sequence in range(1, 4):
                await send(sink, record(sequence))
            assert receiver.connections == 1
            receiver.close_after_answer = True
            await send(sink, record(4))
            failures = 0
            while len(receiver.lines) < 5:
                try:
                    await send(sink, record(5))
                except DeliveryFailed:
                    failures += 1
            assert failures <= 1
            assert receiver.connections == 2
            await sink.close()

    @pytest.mark.parametrize("status", [302, 400, 500])
    async def test_only_an_answer_of_success_counts(self, tls, tmp_path, status):
        async with webhook_receiver(server_context(tls)) as receiver:
            receiver.status = status
            sink = self.sink(receiver, tls, tmp_path)
            with pytest.raises(DeliveryFailed) as failed:
                await send(sink, record(1))
            assert (failed.value.kind, str(failed.value)) == ("refused", f"the receiver answered HTTP {status}")
            receiver.status = 204 if status == 302 else 200
            await sink.close()

    async def test_a_receiver_of_other_authorities_gets_nothing(self, tls, strangers, tmp_path):
        async with webhook_receiver(server_context(strangers)) as receiver:
            sink = self.sink(receiver, tls, tmp_path)
            with pytest.raises(DeliveryFailed) as failed:
                await send(sink, record(1))
            assert failed.value.kind == "certificate"
            assert not receiver.requests

    async def test_an_answer_that_is_not_http_is_a_refusal(self, tls, tmp_path):
        async def babble(reader, writer):
            await reader.read(100)
            writer.write(b"220 mail.example.org ESMTP\r\n\r\n")

        server = await asyncio.start_server(babble, "127.0.0.1", 0, ssl=server_context(tls))
        async with server:
            receiver = type("Port", (), {"port": server.sockets[0].getsockname()[1]})
            sink = self.sink(receiver, tls, tmp_path)
            with pytest.raises(DeliveryFailed) as failed:
                await send(sink, record(1))
            assert failed.value.kind == "refused"

    @pytest.mark.parametrize(
        ("content", "mode", "says"),
        [(b"!", 0o600, "not base64"), (b"YWJj", 0o600, "at least 24"), (base64.b64encode(KEY), 0o644, "open to other")],
    )
    async def test_a_secret_that_is_no_secret_is_not_used(self, tls, tmp_path, content, mode, says):
        sink = self.sink(type("Port", (), {"port": 1}), tls, tmp_path)
        (tmp_path / "secret").write_bytes(content)
        (tmp_path / "secret").chmod(mode)
        with pytest.raises(DeliveryFailed, match=says) as failed:
            await send(sink, record(1))
        assert failed.value.kind == "credential"


class TestStdout:
    async def test_records_are_lines(self):
        reading, writing = os.pipe()
        await send(StdoutSink(line, writing), record(1), record(2))
        os.close(writing)
        with os.fdopen(reading, "rb") as pipe:
            assert pipe.read().splitlines() == [record(1).line, record(2).line]

    async def test_a_pipe_that_nobody_reads_blocks_no_loop_and_no_line_is_cut(self):
        reading, writing = os.pipe()
        sink = StdoutSink(line, writing)
        big = record(1, padding="x" * 1_000_000)
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.1):
                await send(sink, big)
        again = asyncio.create_task(send(sink, record(2)))
        expected = len(big.line) + len(record(2).line) + 2
        got = b""
        while len(got) < expected:
            got += await asyncio.to_thread(os.read, reading, 65_536)
        await again
        assert got.splitlines() == [big.line, record(2).line]
        os.close(writing)
        os.close(reading)

    async def test_a_closed_pipe_is_a_failure(self):
        reading, writing = os.pipe()
        os.close(reading)
        with pytest.raises(DeliveryFailed) as failed:
            await send(StdoutSink(line, writing), record(1))
        assert failed.value.kind == "connection"
        os.close(writing)


async def test_tls_files_that_cannot_be_read_are_named(tmp_path):
    connection = Connection("127.0.0.1", 1, TlsFiles(tmp_path / "absent"))
    with pytest.raises(DeliveryFailed, match="cannot be read"):
        await connection.streams()
    (tmp_path / "absent").write_text("no certificate")
    with pytest.raises(DeliveryFailed, match="cannot be read"):
        await connection.streams()
