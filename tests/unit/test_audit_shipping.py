"""Workers over a real log and real receivers: at least once, in order, from the cursor on."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from contextlib import asynccontextmanager, nullcontext

import orjson
import pytest
import yaml

from harness import FakeClock
from receivers import otlp_receiver, syslog_receiver
from vaultd.audit.log import AuditLog
from vaultd.audit.shipping.cursor import CursorFile
from vaultd.audit.shipping.replay import Point, replay
from vaultd.audit.shipping.settings import OtlpSinkSection, SyslogSinkSection, WebhookSinkSection
from vaultd.audit.shipping.shipper import NOTHING, Shipper
from vaultd.audit.shipping.worker import SinkWorker, WorkerSettings
from vaultd.config import ConfigError
from vaultd.devpki import create_dev_pki
from vaultd.errors import FailedPrecondition, InvalidArgument, Unavailable
from vaultd.sinks import check_files, make_sink, origin_of


@pytest.fixture
def clock():
    return FakeClock()


@asynccontextmanager
async def opened(directory, clock):
    log = AuditLog(directory, now=clock.now_us)
    await log.open()
    try:
        yield log
    finally:
        await log.close()


class Changes:
    """What health hears."""

    def __init__(self):
        self.heard = []
        self._condition = asyncio.Condition()

    def __call__(self, name, serving, why):
        self.heard.append(serving)
        self._task = asyncio.ensure_future(self._notify())

    async def _notify(self):
        async with self._condition:
            self._condition.notify_all()

    async def until(self, serving):
        async with asyncio.timeout(60), self._condition:
            await self._condition.wait_for(lambda: self.heard[-1:] == [serving])


def worker_of(section, log, directory, clock, changes=None):
    return SinkWorker(
        WorkerSettings(section.name, section.timeout_s, section.hold_s, section.start == "newest"),
        make_sink(section, origin_of(log.chain_id), clock),
        directory,
        CursorFile(directory, section.name),
        log.chain_id.hex(),
        lambda: log.sequence,
        clock,
        changes or Changes(),
        lambda name, error: pytest.fail(f"{name}: {error!r}"),
    )


@asynccontextmanager
async def shipping(section, log, directory, clock, changes=None):
    shipper = Shipper([section.name], [section.name])
    shipper.start([worker_of(section, log, directory, clock, changes)])
    try:
        yield shipper
    finally:
        await shipper.close()


def otlp(receiver, **settings):
    return OtlpSinkSection(kind="otlp", name="collector", address=f"127.0.0.1:{receiver.port}", tls=False, **settings)


def syslog(receiver, **settings):
    return SyslogSinkSection(kind="syslog", name="siem", address=f"127.0.0.1:{receiver.port}", tls=False, **settings)


def append(log, count):
    for _ in range(count):
        log.append({"event": "x"})


def numbers(receiver):
    return [orjson.loads(line)["seq"] for line in receiver.lines]


async def test_every_record_arrives_once_and_in_order(tmp_path, clock):
    async with otlp_receiver(None) as receiver, opened(tmp_path / "a", clock) as log:
        append(log, 1_000)
        async with shipping(otlp(receiver), log, tmp_path / "a", clock) as shipper:
            append(log, 500)
            await shipper.call_delivered(log.sequence)
            figures = shipper.figures()[0]
        assert numbers(receiver) == list(range(1, 1_501))
        assert (figures.delivered, figures.expected, figures.lag_records, figures.lag_s) == (1_500, 1_500, 0, 0.0)


async def test_a_restart_goes_on_behind_the_cursor(tmp_path, clock):
    async with otlp_receiver(None) as receiver, opened(tmp_path / "a", clock) as log:
        append(log, 3)
        for _ in range(2):
            async with shipping(otlp(receiver), log, tmp_path / "a", clock):
                append(log, 2)
        assert numbers(receiver) == [1, 2, 3, 4, 5, 6, 7]


async def test_without_its_cursor_a_sink_gets_everything_again(tmp_path, clock):
    async with otlp_receiver(None) as receiver, opened(tmp_path / "a", clock) as log:
        append(log, 3)
        for _ in range(2):
            async with shipping(otlp(receiver), log, tmp_path / "a", clock):
                pass
            (tmp_path / "a/sinks/collector.cursor").write_bytes(b"{")
        assert numbers(receiver) == [1, 2, 3, 1, 2, 3]


async def test_a_new_sink_may_begin_with_the_newest_record(tmp_path, clock):
    changes = Changes()
    async with otlp_receiver(None) as receiver, opened(tmp_path / "a", clock) as log:
        append(log, 3)
        async with shipping(otlp(receiver, start="newest"), log, tmp_path / "a", clock, changes):
            await changes.until(True)
            append(log, 1)
        assert numbers(receiver) == [4]


async def test_a_record_with_the_number_of_a_lost_one_is_sent(tmp_path, clock):
    """A power loss may take records that were delivered already, and their numbers are given out again."""
    async with otlp_receiver(None) as receiver:
        async with opened(tmp_path / "a", clock) as log:
            append(log, 5)
            async with shipping(otlp(receiver), log, tmp_path / "a", clock):
                pass
        segment = next((tmp_path / "a").glob("*.jsonl"))
        segment.write_bytes(b"".join(segment.read_bytes().splitlines(keepends=True)[:3]))
        async with opened(tmp_path / "a", clock) as log:
            log.append({"event": "y"})
            log.append({"event": "z"})
            log.append({"event": "w"})
            async with shipping(otlp(receiver), log, tmp_path / "a", clock):
                pass
    assert [orjson.loads(line)["event"] for line in receiver.lines] == ["x"] * 5 + ["y", "z", "w"]
    assert numbers(receiver) == [1, 2, 3, 4, 5, 4, 5, 6]


async def test_a_chain_that_began_anew_is_sent_from_its_start(tmp_path, clock):
    async with otlp_receiver(None) as receiver:
        for _ in range(2):
            async with opened(tmp_path / "a", clock) as log:
                append(log, 2)
                async with shipping(otlp(receiver), log, tmp_path / "a", clock):
                    pass
            for segment in (tmp_path / "a").glob("*.jsonl"):
                segment.unlink()
        # The second chain begins with a record that says so.
        assert numbers(receiver) == [1, 2, 1, 2, 3]


async def test_an_absent_receiver_gets_everything_when_it_comes_back(tmp_path, clock):
    changes = Changes()
    async with otlp_receiver(None) as receiver:
        section = otlp(receiver)
    async with opened(tmp_path / "a", clock) as log, shipping(section, log, tmp_path / "a", clock, changes) as shipper:
        append(log, 10)
        await changes.until(False)
        with pytest.raises(Unavailable, match="did not acknowledge"):
            await shipper.mutation_delivered(log.sequence)
        with pytest.raises(Unavailable):
            shipper.require_for_mutation()
        assert shipper.figures()[0].failures["connection"] >= 1
        clock.advance(30)
        figures = shipper.figures()[0]
        assert (figures.lag_records, figures.lag_s, shipper.oldest_needed_sequence()) == (10, 30.0, 1)
        async with otlp_receiver(None, receiver.port) as receiver:
            await changes.until(True)
            await shipper.mutation_delivered(log.sequence)
            shipper.require_for_mutation()
            assert numbers(receiver) == list(range(1, 11))
            assert shipper.oldest_needed_sequence() == NOTHING


async def test_a_sink_too_far_behind_keeps_nothing_from_being_pruned(tmp_path, clock):
    changes = Changes()
    async with otlp_receiver(None) as receiver:
        section = otlp(receiver, hold_s=60)
    async with opened(tmp_path / "a", clock) as log, shipping(section, log, tmp_path / "a", clock, changes) as shipper:
        append(log, 2)
        await changes.until(False)
        clock.advance(60)
        assert shipper.oldest_needed_sequence() == 1
        clock.advance(0.001)
        assert shipper.oldest_needed_sequence() == NOTHING


async def test_a_call_does_not_wait_for_longer_than_it_may_and_the_next_not_at_all(tmp_path, clock):
    changes = Changes()
    async with otlp_receiver(None) as receiver, opened(tmp_path / "a", clock) as log:
        async with shipping(otlp(receiver), log, tmp_path / "a", clock, changes) as shipper:
            append(log, 1)
            await changes.until(True)
            receiver.reading.clear()
            append(log, 1)
            loop = asyncio.get_running_loop()
            began = loop.time()
            with pytest.raises(Unavailable) as refused:
                await shipper.mutation_delivered(log.sequence, 0.2)
            assert refused.value.reason == "AUDIT_SINK_UNAVAILABLE"
            assert 0.19 <= loop.time() - began
            with pytest.raises(Unavailable):
                await shipper.mutation_delivered(log.sequence, 3_600.0)  # no test waits for so long
            receiver.reading.set()
            await changes.until(True)
            assert await shipper.mutation_delivered(log.sequence, 3_600.0) > 3_000


async def test_records_that_a_collector_rejects_are_counted_and_not_waited_for_in_vain(tmp_path, clock):
    async with otlp_receiver(None) as receiver, opened(tmp_path / "a", clock) as log:
        receiver.rejects = 1
        append(log, 2)
        async with shipping(otlp(receiver), log, tmp_path / "a", clock) as shipper:
            with pytest.raises(Unavailable):
                await shipper.call_delivered(2)
            with pytest.raises(Unavailable):
                await shipper.call_delivered(1)
            receiver.rejects = 0
            append(log, 1)
            await shipper.call_delivered(3)
            figures = shipper.figures()[0]
            assert (figures.delivered, figures.expected, figures.rejected) == (2, 3, 1)


@pytest.mark.parametrize(("says", "counted"), [(-5, 0), (2**60, 2)])
async def test_a_collector_rejects_no_more_than_it_was_sent(tmp_path, clock, says, counted):
    async with otlp_receiver(None) as receiver, opened(tmp_path / "a", clock) as log:
        receiver.rejects = says
        append(log, 2)
        async with shipping(otlp(receiver), log, tmp_path / "a", clock) as shipper:
            with nullcontext() if not counted else pytest.raises(Unavailable):
                await shipper.call_delivered(2)
            figures = shipper.figures()[0]
            assert (figures.delivered, figures.rejected) == (2 - counted, counted)


async def test_the_batch_before_a_broken_syslog_connection_is_sent_again(tmp_path, clock):
    async with opened(tmp_path / "a", clock) as log:
        async with syslog_receiver() as receiver:
            shipper, changes = Shipper(["siem"]), Changes()
            shipper.start([worker_of(syslog(receiver), log, tmp_path / "a", clock, changes)])
            append(log, 2)
            await shipper.mutation_delivered(2)
            port = receiver.port
        async with syslog_receiver(port=port) as receiver:
            append(log, 1)
            await shipper.mutation_delivered(3)  # nobody is refused for it
            assert changes.heard == [True]
            got = await receiver.wait_for(3)
            assert [int(one.split(b'sequenceId="')[1].split(b'"')[0]) for one in got[:3]] == [1, 2, 3]
            await shipper.close()


async def test_records_that_are_gone_are_counted_and_nobody_is_told_that_they_were_delivered(tmp_path, clock):
    directory = tmp_path / "a"
    async with otlp_receiver(None) as receiver:
        async with opened(directory, clock) as log:
            append(log, 3)
            async with shipping(otlp(receiver), log, directory, clock) as shipper:
                await shipper.call_delivered(3)
            append(log, 2)
        gone = next(directory.glob("*.jsonl"))
        async with opened(directory, clock) as log:
            append(log, 1)
            gone.unlink()
            async with shipping(otlp(receiver), log, directory, clock) as shipper:
                await shipper.call_delivered(6)
                assert shipper.figures()[0].missing == 2
                with pytest.raises(Unavailable):
                    await shipper.call_delivered(4)


async def test_replay_sends_a_range_of_numbers_or_times_again(tmp_path, clock):
    directory = tmp_path / "a"
    async with otlp_receiver(None) as receiver, opened(directory, clock) as log:
        for _ in range(6):
            append(log, 1)
            clock.advance(60)
        sink = make_sink(otlp(receiver), origin_of(log.chain_id), clock)
        done = await replay(sink, directory, Point(sequence=2), Point(sequence=4), timeout_s=5)
        assert (done.records, done.first, done.last) == (3, 2, 4)
        assert numbers(receiver) == [2, 3, 4]
        receiver.lines.clear()
        times = [orjson.loads(line)["time"] for line in next(directory.glob("*.jsonl")).read_bytes().splitlines()]
        await replay(sink, directory, Point.parse(times[3]), None, timeout_s=5)
        assert numbers(receiver) == [4, 5, 6]
        receiver.lines.clear()
        await replay(sink, directory, Point(sequence=1), Point.parse(times[1]), timeout_s=5)
        assert numbers(receiver) == [1, 2]
        with pytest.raises(FailedPrecondition, match="no record"):
            await replay(sink, directory, Point(sequence=7), None, timeout_s=5)
        await sink.close()
    with pytest.raises(Unavailable, match=r"--from 3$"):
        await replay(sink, directory, Point(sequence=3), None, timeout_s=5, retry_s=0)


@pytest.mark.parametrize("text", ["0", "-1", "", "yesterday", "2026-11-26T03:00:00", "٣"])
def test_a_point_is_a_number_or_a_time_with_its_offset(text):
    with pytest.raises(InvalidArgument):
        Point.parse(text)


def test_check_config_names_the_sink_whose_file_cannot_be_used(tmp_path):
    secret = tmp_path / "secret"
    sink = WebhookSinkSection(kind="webhook", name="hook", url="https://127.0.0.1/", secret_file=secret)
    with pytest.raises(ConfigError, match="hook: secret_file cannot be read"):
        check_files([sink])
    secret.write_text("A" * 32)
    secret.chmod(0o600)
    check_files([sink])
    with pytest.raises(ConfigError, match="a file of ca_file"):
        check_files([sink.model_copy(update={"ca_file": secret})])


@pytest.mark.slow
async def test_the_command_replays_to_standard_output_and_says_what_it_did(tmp_path, clock):
    create_dev_pki(tmp_path / "tls", hosts=["127.0.0.1"])
    document = {
        "tls": {"certificate": "tls/server.crt", "key": "tls/server.key"},
        "trust_bundles": [{"name": "dev", "ca": "tls/ca.crt", "trust_domain": "dev.vaultd"}],
        "store": {"path": "vault.db"},
        "root_key": {"provider": "file", "path": "root.key"},
        "audit": {"directory": "audit", "sinks": [{"kind": "stdout", "name": "out", "format": "ocsf"}]},
    }
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(document))
    async with opened(tmp_path / "audit", clock) as log:
        append(log, 5)
        command = [sys.executable, "-m", "vaultd", "audit", "replay", "--config", str(tmp_path / "config.yaml")]
        done = await asyncio.to_thread(
            subprocess.run, [*command, "--sink", "out", "--from", "2", "--to", "4"], capture_output=True, check=True
        )
        events = [orjson.loads(line) for line in done.stdout.splitlines()]
        assert [event["metadata"]["uid"] for event in events] == [f"{log.chain_id.hex()}:{n}" for n in (2, 3, 4)]
        assert done.stderr.decode().strip() == "3 records, 2 to 4, were sent to out"
