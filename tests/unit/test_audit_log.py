"""The audit log on a real file system: what it promises after crashes, full disks, failed syncs and deleted files."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import hashlib
import hmac
import itertools
import os
import resource
import signal
import subprocess
import sys
import threading
import time
from typing import TYPE_CHECKING

import orjson
import pytest

from vaultd.audit import upkeep
from vaultd.audit.log import AuditLog
from vaultd.audit.reader import AuditReader
from vaultd.audit.verify import verify_directory
from vaultd.errors import FailedPrecondition, Unavailable

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

START = 1_764_000_000_000_123  # 2025-11-24T16:00:00.000123Z


class Clock:
    """Unix microseconds; one more with each look."""

    def __init__(self, start: int = START) -> None:
        self.next = start

    def __call__(self) -> int:
        self.next += 1
        return self.next - 1


class Disk:
    """fdatasync that fails or blocks when told to, and counts."""

    def __init__(self) -> None:
        self.error: int | None = None
        self.calls = 0
        self.started = threading.Event()
        self.go_on = threading.Event()
        self.go_on.set()

    def fdatasync(self, fd: int) -> None:
        self.calls += 1
        self.started.set()
        assert self.go_on.wait(60)
        if self.error is not None:
            raise OSError(self.error, os.strerror(self.error))
        os.fdatasync(fd)


@contextlib.asynccontextmanager
async def audit_log(directory: Path, **options):
    log = AuditLog(directory, **{"now": Clock(), **options})
    await log.open()
    try:
        yield log
    finally:
        with contextlib.suppress(Unavailable):
            await log.close()


@contextlib.contextmanager
def largest_file(size: int) -> Iterator[None]:
    """No file of this process may grow beyond `size`: writes are cut short there, then fail, as on a full disk."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def segment_paths(directory: Path) -> list[Path]:
    return sorted(directory.glob("audit-*.jsonl"), key=lambda path: int(path.stem.rsplit("-", 1)[1]))


def whole_lines(directory: Path) -> list[bytes]:
    """Every newline-terminated line of every segment, in order."""
    return [
        line.removesuffix(b"\n")
        for path in segment_paths(directory)
        for line in path.read_bytes().splitlines(keepends=True)
        if line.endswith(b"\n")
    ]


def records(directory: Path) -> list[dict[str, object]]:
    return [orjson.loads(line) for line in whole_lines(directory)]


def assert_gapless(directory: Path) -> None:
    sequences = [record["seq"] for record in records(directory)]
    assert sequences == list(range(1, len(sequences) + 1))


async def test_a_line_carries_sequence_time_and_the_fields_in_this_order_and_then_its_chain_hash(tmp_path):
    async with audit_log(tmp_path / "audit", now=lambda: START, chain_id=b"c" * 16) as log:
        log.append({"event": "call", "n": 1, "text": "a\nb"})
        log.append({})
    contents = [
        b'{"seq":1,"time":"2025-11-24T16:00:00.000123Z","event":"call","n":1,"text":"a\\nb"',
        b'{"seq":2,"time":"2025-11-24T16:00:00.000123Z"',
    ]
    first = hashlib.sha256(hashlib.sha256(b"vaultd audit chain v1\n" + b"c" * 16).digest() + contents[0])
    second = hashlib.sha256(first.digest() + contents[1])
    assert whole_lines(tmp_path / "audit") == [
        content + b',"chain":"' + chain.hexdigest().encode() + b'"}'
        for content, chain in zip(contents, (first, second), strict=True)
    ]


async def test_with_the_key_ring_a_line_ends_in_a_mac_of_its_chain_hash(tmp_path):
    async with audit_log(tmp_path / "audit") as log:
        log.append({})
        log.use_key(b"k" * 32)
        log.append({"n": 1})
    plain, maced = records(tmp_path / "audit")
    assert list(plain) == ["seq", "time", "chain"]
    assert list(maced) == ["seq", "time", "n", "chain", "mac"]
    assert maced["mac"] == hmac.new(b"k" * 32, bytes.fromhex(maced["chain"]), "sha256").hexdigest()[:32]


async def test_the_receipt_is_the_leaf_hash_of_the_line(tmp_path):
    async with audit_log(tmp_path / "audit", chain_id=b"c" * 16) as log:
        receipts = [log.append({"n": n}) for n in range(3)]
    for number, (receipt, line) in enumerate(zip(receipts, whole_lines(tmp_path / "audit"), strict=True), start=1):
        assert receipt.chain_id == b"c" * 16
        assert receipt.sequence == number
        assert receipt.leaf_hash == hashlib.sha256(b"\x00" + line).digest()


async def test_a_line_is_in_the_file_when_append_returns(tmp_path):
    async with audit_log(tmp_path / "audit") as log:
        log.append({"n": 1})
        assert [record["n"] for record in records(tmp_path / "audit")] == [1]


@pytest.mark.parametrize(
    "record", [{"seq": 1}, {"time": "now"}, {"chain": ""}, {"mac": ""}, {"x": b"bytes"}, {"x": object()}]
)
async def test_a_record_that_is_no_record_uses_no_number(tmp_path, record):
    async with audit_log(tmp_path / "audit") as log:
        with pytest.raises((TypeError, ValueError)):
            log.append(record)
        assert log.serving
        assert log.append({}).sequence == 1


async def test_directory_and_files_are_private_and_named_by_time_and_number(tmp_path):
    async with audit_log(tmp_path / "audit") as log:
        log.append({})
        assert (tmp_path / "audit").stat().st_mode & 0o7777 == 0o700
        assert {p.stat().st_mode & 0o7777 for p in (tmp_path / "audit").iterdir()} == {0o600}
        assert [p.name for p in segment_paths(tmp_path / "audit")] == ["audit-20251124T160000Z-00000001.jsonl"]


async def test_a_directory_open_to_others_is_refused(tmp_path):
    (tmp_path / "audit").mkdir()
    (tmp_path / "audit").chmod(0o750)
    with pytest.raises(FailedPrecondition) as error:
        await AuditLog(tmp_path / "audit", now=Clock()).open()
    assert error.value.reason == "AUDIT_DIRECTORY_MODE"


async def test_a_directory_that_cannot_be_made_is_unavailable(tmp_path):
    (tmp_path / "file").write_text("")
    log = AuditLog(tmp_path / "file" / "audit", now=Clock())
    with pytest.raises(Unavailable) as error:
        await log.open()
    assert (error.value.reason, error.value.retry_after_s) == ("AUDIT_UNAVAILABLE", 1)
    assert not log.serving


async def test_before_open_and_after_close_nothing_is_appended(tmp_path):
    log = AuditLog(tmp_path / "audit", now=Clock())
    with pytest.raises(Unavailable):
        log.append({})
    await log.open()
    await log.close()
    await log.close()
    log.check()
    assert not log.serving
    with pytest.raises(Unavailable):
        log.append({})
    with pytest.raises(Unavailable):
        await log.append_durable({})


# Restarts


async def test_sequence_and_chain_go_on_across_restarts(tmp_path):
    chain_ids = set()
    for restart in range(4):
        async with audit_log(tmp_path / "audit") as log:
            chain_ids.add(log.chain_id)
            assert [log.append({"restart": restart}).sequence for _ in range(3)] == [restart * 3 + n for n in (1, 2, 3)]
    assert len(chain_ids) == 1
    assert len(chain_ids.pop()) == 16
    assert len(segment_paths(tmp_path / "audit")) == 4
    assert_gapless(tmp_path / "audit")


async def test_restarts_without_a_record_change_nothing(tmp_path):
    chain_ids = set()
    for _ in range(3):
        async with audit_log(tmp_path / "audit") as log:
            chain_ids.add(log.chain_id)
    async with audit_log(tmp_path / "audit") as log:
        assert log.append({}).sequence == 1
    async with audit_log(tmp_path / "audit"):
        pass
    async with audit_log(tmp_path / "audit") as log:
        assert log.append({}).sequence == 2
        chain_ids.add(log.chain_id)
    assert len(chain_ids) == 1


async def test_a_clock_set_back_does_not_confuse_the_order_of_segments(tmp_path):
    async with audit_log(tmp_path / "audit", now=Clock(START)) as log:
        log.append({})
    async with audit_log(tmp_path / "audit", now=Clock(START - 10**15)) as log:
        log.append({})
    async with audit_log(tmp_path / "audit", now=Clock(0)) as log:
        assert log.append({}).sequence == 3
    assert_gapless(tmp_path / "audit")


@pytest.mark.parametrize(
    "torn", [b"{", b'{"seq":3,"time":"2025-11-24T16:00:00', b'{"seq":3}', b"\0" * 5000, b"\0\0\n", b'{"n":1}\n[]\n']
)
async def test_a_torn_tail_is_moved_aside_and_recorded_first(tmp_path, torn):
    async with audit_log(tmp_path / "audit") as log:
        log.append({})
        log.append({})
    (segment,) = segment_paths(tmp_path / "audit")
    whole = segment.read_bytes()
    segment.write_bytes(whole + torn)

    async with audit_log(tmp_path / "audit") as log:
        assert log.append({"event": "call"}).sequence == 4
    assert segment.read_bytes() == whole
    kept = tmp_path / "audit" / f"{segment.name}.torn"
    assert kept.read_bytes() == torn
    assert kept.stat().st_mode & 0o7777 == 0o600
    recovered = records(tmp_path / "audit")[2]
    assert {key: recovered[key] for key in ("seq", "event", "segment", "torn_bytes", "torn_file")} == {
        "seq": 3,
        "event": "recovered",
        "segment": segment.name,
        "torn_bytes": len(torn),
        "torn_file": kept.name,
    }
    assert_gapless(tmp_path / "audit")


async def test_a_crash_during_recovery_loses_nothing(tmp_path):
    async with audit_log(tmp_path / "audit") as log:
        log.append({})
    (segment,) = segment_paths(tmp_path / "audit")
    segment.write_bytes(segment.read_bytes() + b"torn")
    (tmp_path / "audit" / f"{segment.name}.torn").write_bytes(b"to")  # the copy began, the cut did not
    async with audit_log(tmp_path / "audit") as log:
        assert log.append({}).sequence == 3
    assert (tmp_path / "audit" / f"{segment.name}.1.torn").read_bytes() == b"torn"


async def test_the_first_record_of_a_log_can_be_torn(tmp_path):
    async with audit_log(tmp_path / "audit") as log:
        chain_id = log.chain_id
    (segment,) = segment_paths(tmp_path / "audit")
    segment.write_bytes(b'{"seq":1')
    async with audit_log(tmp_path / "audit") as log:
        assert log.append({}).sequence == 2
        assert log.chain_id == chain_id
    assert records(tmp_path / "audit")[0]["event"] == "recovered"


async def test_the_last_record_is_found_behind_lines_longer_than_what_is_read_at_once(tmp_path):
    async with audit_log(tmp_path / "audit") as log:
        log.append({})
        log.append({"long": "x" * 300_000})
    (segment,) = segment_paths(tmp_path / "audit")
    segment.write_bytes(segment.read_bytes() + b"y" * 200_000)
    async with audit_log(tmp_path / "audit") as log:
        assert log.append({}).sequence == 4


async def test_a_log_whose_segments_were_taken_away_begins_a_new_chain(tmp_path):
    async with audit_log(tmp_path / "audit") as log:
        log.append({})
        old = log.chain_id
    segment_paths(tmp_path / "audit")[0].unlink()
    async with audit_log(tmp_path / "audit") as log:
        assert log.chain_id != old
    (started,) = records(tmp_path / "audit")
    assert (started["seq"], started["event"], started["previous_chain_id"]) == (1, "chain_started", old.hex())


async def test_a_chain_id_that_is_gone_damaged_or_another_is_refused(tmp_path):
    directory = tmp_path / "audit"
    async with audit_log(directory) as log:
        log.append({})
        chain_id = log.chain_id

    async def refusal(**options) -> str:
        with pytest.raises(FailedPrecondition) as error:
            await AuditLog(directory, now=Clock(), **options).open()
        return error.value.reason

    assert await refusal(chain_id=b"x" * 16) == "AUDIT_CHAIN_MISMATCH"
    (directory / "chain-id").write_text("00ff")
    assert await refusal() == "AUDIT_CHAIN_ID_INVALID"
    (directory / "chain-id").unlink()
    assert await refusal() == "AUDIT_CHAIN_ID_INVALID"
    async with audit_log(directory, chain_id=chain_id) as log:
        assert log.append({}).sequence == 2


@pytest.mark.slow
async def test_a_process_killed_by_sigkill_loses_no_acknowledged_record(tmp_path):
    program = (
        "import asyncio, itertools, pathlib, sys\n"
        "from vaultd.audit.log import AuditLog\n"
        "async def main():\n"
        "    log = AuditLog(pathlib.Path(sys.argv[1]), now=lambda: 0)\n"
        "    await log.open()\n"
        "    for n in itertools.count():\n"
        "        sys.stdout.write(f'{log.append({}).sequence}\\n'); sys.stdout.flush()\n"
        "asyncio.run(main())\n"
    )

    def killed_while_it_appends() -> list[int]:
        command = [sys.executable, "-c", program, str(tmp_path / "audit")]
        with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
            lines = [process.stdout.readline() for _ in range(500)]
            process.send_signal(signal.SIGKILL)
            lines += process.stdout.read().splitlines(keepends=True)
        return [int(line) for line in lines if line.endswith(b"\n")]

    acknowledged = max(await asyncio.to_thread(killed_while_it_appends))
    async with audit_log(tmp_path / "audit") as log:
        assert log.append({}).sequence > acknowledged
    assert_gapless(tmp_path / "audit")


# One owner


async def test_a_directory_has_one_owner_at_a_time(tmp_path):
    async with audit_log(tmp_path / "audit"):
        with pytest.raises(FailedPrecondition) as error:
            await AuditLog(tmp_path / "audit", now=Clock()).open()
        assert error.value.reason == "AUDIT_DIRECTORY_IN_USE"
    async with audit_log(tmp_path / "audit") as log:
        log.append({})


async def test_another_process_cannot_open_the_directory(tmp_path):
    program = (
        "import asyncio, pathlib, sys\n"
        "from vaultd.audit.log import AuditLog\n"
        "from vaultd.errors import FailedPrecondition\n"
        "try: asyncio.run(AuditLog(pathlib.Path(sys.argv[1]), now=lambda: 0).open())\n"
        "except FailedPrecondition as e: print(e.reason)\n"
    )
    async with audit_log(tmp_path / "audit"):
        process = await asyncio.to_thread(
            subprocess.run,
            [sys.executable, "-c", program, str(tmp_path / "audit")],
            stdout=subprocess.PIPE,
            check=True,
            text=True,
        )
    assert process.stdout == "AUDIT_DIRECTORY_IN_USE\n"


async def test_a_failed_open_leaves_the_directory_free(tmp_path):
    async with audit_log(tmp_path / "audit") as log:
        log.append({})
    chain_id = (tmp_path / "audit" / "chain-id").read_text()
    (tmp_path / "audit" / "chain-id").write_text("damaged")
    failing = AuditLog(tmp_path / "audit", now=Clock())
    with pytest.raises(FailedPrecondition):
        await failing.open()
    (tmp_path / "audit" / "chain-id").write_text(chain_id)
    async with audit_log(tmp_path / "audit") as log:
        assert log.append({}).sequence == 2


# Writes that fail


async def test_a_full_disk_is_unavailable_and_leaves_no_litter_until_there_is_room(tmp_path):
    async with audit_log(tmp_path / "audit") as log:
        log.append({"n": 1})
        with largest_file(0):
            for _ in range(5):
                with pytest.raises(Unavailable) as error:
                    log.append({"n": 2})
                assert (error.value.reason, error.value.retry_after_s) == ("AUDIT_UNAVAILABLE", 1)
                assert not log.serving
                log.check()
                assert not log.serving
        assert len(segment_paths(tmp_path / "audit")) == 1
        receipt = log.append({"n": 3})
        assert log.serving
        assert receipt.sequence == 3
    first, fault, third = records(tmp_path / "audit")
    assert (first["n"], third["n"]) == (1, 3)
    assert (fault["event"], fault["reason"]) == ("segment_abandoned", "write_failed")
    assert_gapless(tmp_path / "audit")


async def test_a_line_cut_short_is_never_continued(tmp_path):
    async with audit_log(tmp_path / "audit") as log:
        log.append({"n": 1})
        (segment,) = segment_paths(tmp_path / "audit")
        size = segment.stat().st_size
        with largest_file(size + 10), pytest.raises(Unavailable):
            log.append({"n": 2})
        assert segment.stat().st_size == size + 10
        assert not log.serving
        log.append({"n": 3})
    assert segment.stat().st_size == size + 10
    fault = records(tmp_path / "audit")[1]
    assert (fault["event"], fault["segment"], fault["whole_bytes"]) == ("segment_abandoned", segment.name, size)
    assert [record.get("n") for record in records(tmp_path / "audit")] == [1, None, 3]
    assert_gapless(tmp_path / "audit")


async def test_lines_written_together_are_those_written_one_by_one(tmp_path):
    contents = [{"n": n, "text": "x" * n} for n in range(9)]
    receipts = []
    for name in ("one", "together"):
        async with audit_log(tmp_path / name, now=lambda: START, chain_id=b"c" * 16) as log:
            log.use_key(b"k" * 32)
            found = [log.append(record) for record in contents[:3]]
            found += log.append_all(contents[3:8]) if name == "together" else map(log.append, contents[3:8])
            receipts.append([*found, log.append(contents[8])])
    assert whole_lines(tmp_path / "one") == whole_lines(tmp_path / "together")
    assert receipts[0] == receipts[1]


async def test_lines_written_together_and_cut_short_are_refused_and_those_that_are_whole_stay(tmp_path):
    async with audit_log(tmp_path / "audit") as log:
        log.append({"n": 1})
        (segment,) = segment_paths(tmp_path / "audit")
        size = segment.stat().st_size
        with largest_file(size * 2 + 10), pytest.raises(Unavailable):
            log.append_all([{"n": 2}, {"n": 3}, {"n": 4}])
        assert not log.serving
        assert log.sequence == 2
        receipts = log.append_all([{"n": 5}, {"n": 6}])
        assert [receipt.sequence for receipt in receipts] == [4, 5]
    reader = AuditReader(tmp_path / "audit")
    read = [orjson.loads(record.line) for record in reader.read()]
    reader.close()
    assert [record.get("n") for record in read] == [1, 2, None, 5, 6]
    assert (read[2]["event"], read[2]["whole_bytes"]) == ("segment_abandoned", size * 2)
    assert verify_directory(tmp_path / "audit").last == 5


async def test_a_line_cut_short_before_a_restart_is_moved_aside(tmp_path):
    async with audit_log(tmp_path / "audit") as log:
        log.append({"n": 1})
        (segment,) = segment_paths(tmp_path / "audit")
        with largest_file(segment.stat().st_size + 10), pytest.raises(Unavailable):
            log.append({"n": 2})
    async with audit_log(tmp_path / "audit") as log:
        assert log.append({"n": 3}).sequence == 3
    assert [record.get("event") for record in records(tmp_path / "audit")] == [None, "recovered", None]


async def test_room_for_the_fault_but_not_for_the_record_is_no_room(tmp_path):
    async with audit_log(tmp_path / "audit") as log:
        with largest_file(400), pytest.raises(Unavailable):
            log.append({"long": "x" * 400})
        with largest_file(400), pytest.raises(Unavailable):
            log.append({"long": "x" * 400})
        assert len(segment_paths(tmp_path / "audit")) == 1
        assert log.sequence == 0
        with largest_file(400):
            assert log.append({"short": 1}).sequence == 2


async def test_check_recovers_without_traffic(tmp_path):
    async with audit_log(tmp_path / "audit") as log:
        with largest_file(0), pytest.raises(Unavailable):
            log.append({})
        assert not log.serving
        log.check()
        assert log.serving
        assert log.append({}).sequence == 2


# Files that change under the log


async def until_recorded(log, directory, event):
    """The record of an event, once the log's thread has done its work; bounded by the test's timeout."""
    while True:
        with contextlib.suppress(FileNotFoundError):  # a segment is on its way back to its place
            found = [record for record in records(directory) if record.get("event") == event]
            if found:
                return found[0]
        await asyncio.to_thread(lambda: None)


async def until_proved(log):
    """Until the sync of a new segment has ended; bounded by the test's timeout."""
    while log._proof is not None:
        await asyncio.to_thread(lambda: None)


async def until_serving(log):
    """Check until the log goes on; bounded by the test's timeout."""
    while not log.serving:
        log.check()
        await until_proved(log)
        await asyncio.to_thread(lambda: None)


async def test_a_deleted_segment_is_noticed_put_back_and_recorded_in_a_new_one(tmp_path):
    async with audit_log(tmp_path / "audit") as log:
        log.append({})
        (segment,) = segment_paths(tmp_path / "audit")
        whole = segment.read_bytes()
        segment.unlink()
        log.check()
        assert log.serving
        assert log.append({}).sequence == 3
        restored = await until_recorded(log, tmp_path / "audit", "segment_restored")
        assert (restored["segment"], restored["bytes"]) == (segment.name, len(whole))
        assert segment.read_bytes() == whole
        assert segment.stat().st_mode & 0o7777 == 0o600
    fault = records(tmp_path / "audit")[1]
    assert (fault["seq"], fault["event"], fault["reason"], fault["segment"]) == (
        2,
        "segment_abandoned",
        "deleted",
        segment.name,
    )
    assert_gapless(tmp_path / "audit")


async def test_a_segment_in_whose_place_another_was_put_is_put_back_and_the_other_kept(tmp_path):
    async with audit_log(tmp_path / "audit") as log:
        log.append({})
        (segment,) = segment_paths(tmp_path / "audit")
        whole = segment.read_bytes()
        segment.unlink()
        segment.write_bytes(b"forged")
        log.check()
        await until_recorded(log, tmp_path / "audit", "segment_restored")
    assert segment.read_bytes() == whole
    assert (tmp_path / "audit" / f"{segment.name}.foreign").read_bytes() == b"forged"
    assert_gapless(tmp_path / "audit")


async def test_what_others_append_to_a_segment_does_not_get_between_records(tmp_path):
    async with audit_log(tmp_path / "audit") as log:
        log.append({"n": 0})
        with segment_paths(tmp_path / "audit")[0].open("ab") as file:
            file.write(b"x" * 2_000)
        log.append({"n": 1})
        log.check()
        log.append({"n": 2})
    reader = AuditReader(tmp_path / "audit")
    assert [orjson.loads(record.line).get("n") for record in reader.read()] == [0, 1, None, 2]
    reader.close()


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda path: os.truncate(path, 5), "truncated"),
        (lambda path: path.open("ab").write(b"forged\n"), "written_by_others"),
        (lambda path: (path.rename(f"{path}.old"), path.write_bytes(b"")), "replaced"),
        (lambda path: (path.rename(f"{path}.old"), path.symlink_to(f"{path}.old")), "replaced"),
    ],
)
@pytest.mark.filterwarnings("ignore::ResourceWarning")
async def test_a_changed_segment_is_noticed(tmp_path, change, reason):
    async with audit_log(tmp_path / "audit") as log:
        log.append({})
        change(segment_paths(tmp_path / "audit")[0])
        log.check()
        assert log.append({}).sequence == 3
        last = segment_paths(tmp_path / "audit")[-1]
        assert orjson.loads(last.read_bytes().splitlines()[0])["reason"] == reason


async def test_an_untouched_segment_is_left_alone(tmp_path):
    async with audit_log(tmp_path / "audit") as log:
        for _ in range(5):
            log.append({})
            log.check()
        assert len(segment_paths(tmp_path / "audit")) == 1


async def test_a_directory_replaced_by_another_fails_closed_until_it_is_back(tmp_path):
    directory = tmp_path / "audit"
    async with audit_log(directory) as log:
        log.append({})
        directory.rename(tmp_path / "moved")
        log.check()
        assert not log.serving
        directory.mkdir(mode=0o700)
        (directory / "lock").touch(mode=0o600)
        log.check()
        assert not log.serving
        with pytest.raises(Unavailable):
            log.append({})
        assert [p.name for p in directory.iterdir()] == ["lock"]
        (directory / "lock").unlink()
        directory.rmdir()
        (tmp_path / "moved").rename(directory)
        assert log.append({}).sequence == 3
        assert log.serving


# Syncs


async def test_append_durable_returns_after_a_sync_and_append_does_not_wait(tmp_path):
    disk = Disk()
    async with audit_log(tmp_path / "audit", fdatasync=disk.fdatasync) as log:
        before = disk.calls
        log.append({})
        assert disk.calls == before
        receipt = await log.append_durable({})
        assert receipt.sequence == 2
        assert disk.calls == before + 1


async def test_waiters_share_syncs(tmp_path):
    disk = Disk()
    async with audit_log(tmp_path / "audit", fdatasync=disk.fdatasync) as log:
        before = disk.calls
        receipts = await asyncio.gather(*(log.append_durable({"n": n}) for n in range(500)))
        assert [receipt.sequence for receipt in receipts] == list(range(1, 501))
        assert disk.calls - before == 2  # one for the first, one for all that came while it ran


async def test_a_waiter_is_not_served_by_a_sync_that_began_before_its_line(tmp_path):
    disk = Disk()
    async with audit_log(tmp_path / "audit", fdatasync=disk.fdatasync) as log:
        disk.go_on.clear()
        disk.started.clear()
        first = asyncio.create_task(log.append_durable({}))
        await asyncio.to_thread(disk.started.wait)
        second = asyncio.create_task(log.append_durable({}))
        disk.started.clear()
        calls = disk.calls
        disk.go_on.set()
        await first
        await second
        assert disk.calls == calls + 1


async def test_a_cancelled_waiter_does_no_harm_to_the_others(tmp_path):
    disk = Disk()
    async with audit_log(tmp_path / "audit", fdatasync=disk.fdatasync) as log:
        disk.go_on.clear()
        disk.started.clear()
        tasks = [asyncio.create_task(log.append_durable({})) for _ in range(3)]
        await asyncio.to_thread(disk.started.wait)
        tasks[0].cancel()
        tasks[1].cancel()
        disk.go_on.set()
        assert (await tasks[2]).sequence == 3
        assert log.serving


async def test_a_failed_sync_fails_all_waiters_and_its_segment_is_never_used_again(tmp_path):
    disk = Disk()
    async with audit_log(tmp_path / "audit", fdatasync=disk.fdatasync) as log:
        await log.append_durable({"n": 0})
        (segment,) = segment_paths(tmp_path / "audit")
        durable = segment.stat().st_size
        disk.error = errno.EIO
        calls = disk.calls
        results = await asyncio.gather(*(log.append_durable({"n": n}) for n in range(1, 51)), return_exceptions=True)
        assert {type(result) for result in results} == {Unavailable}
        assert disk.calls == calls + 1
        assert not log.serving
        content = segment.read_bytes()

        disk.error = None
        await until_serving(log)
        receipt = await log.append_durable({"n": 51})
        assert log.serving
        assert segment.read_bytes() == content
    new = segment_paths(tmp_path / "audit")[-1]
    fault, record = (orjson.loads(line) for line in new.read_bytes().splitlines())
    assert (fault["event"], fault["reason"], fault["segment"]) == ("segment_abandoned", "sync_failed", segment.name)
    assert (fault["whole_bytes"], fault["durable_bytes"]) == (len(content), durable)
    assert (record["n"], record["seq"]) == (51, receipt.sequence)
    assert_gapless(tmp_path / "audit")


async def test_a_disk_that_keeps_failing_to_sync_serves_nothing_and_leaves_no_litter(tmp_path):
    disk = Disk()
    async with audit_log(tmp_path / "audit", fdatasync=disk.fdatasync) as log:
        disk.error = errno.EIO
        with pytest.raises(Unavailable):
            await log.append_durable({})
        for _ in range(20):
            with pytest.raises(Unavailable):
                log.append({})
            log.check()
            await until_proved(log)
            assert not log.serving
        assert len(segment_paths(tmp_path / "audit")) == 1
        disk.error = None
        await until_serving(log)
        assert log.append({}).sequence == 3


async def test_a_disk_that_fails_slowly_stalls_nobody_who_is_refused(tmp_path):
    disk, loop, threads = Disk(), threading.get_ident(), set()

    def fdatasync(fd: int) -> None:
        threads.add(threading.get_ident())
        disk.fdatasync(fd)

    proved = []
    options = {"fdatasync": fdatasync, "on_proved": lambda: proved.append(log.serving)}
    async with audit_log(tmp_path / "audit", **options) as log:
        await log.append_durable({})
        disk.error = errno.EIO
        with pytest.raises(Unavailable):
            await log.append_durable({})
        threads.clear()
        disk.go_on.clear()
        for _ in range(3):
            disk.started.clear()
            with pytest.raises(Unavailable):
                log.append({"while": "the new segment's sync is under way"})
            await asyncio.to_thread(disk.started.wait)
            log.check()
            assert not log.serving
            disk.go_on.set()
            await until_proved(log)
            disk.go_on.clear()
        assert threads
        assert loop not in threads
        assert not proved
        disk.go_on.set()
        disk.error = None
        await until_serving(log)
        assert proved == [True]
        await log.append_durable({"n": "after"})
    assert_gapless(tmp_path / "audit")
    assert verify_directory(tmp_path / "audit").last == len(records(tmp_path / "audit"))


async def test_what_goes_wrong_while_a_new_segment_is_proved_is_in_the_next_one(tmp_path):
    disk = Disk()
    async with audit_log(tmp_path / "audit", fdatasync=disk.fdatasync) as log:
        await log.append_durable({})
        disk.error = errno.EIO
        with pytest.raises(Unavailable):
            await log.append_durable({})
        disk.error = None
        disk.started.clear()
        disk.go_on.clear()
        log.check()
        await asyncio.to_thread(disk.started.wait)
        log.use_key(bytes(32))  # as unseal does
        log._rescued("audit-x.jsonl", 5)
        assert not log.serving
        disk.go_on.set()
        await until_serving(log)
        log.append({})
    written = records(tmp_path / "audit")
    assert [record.get("event") for record in written[2:]] == ["segment_abandoned", "segment_restored", None]
    assert all("mac" in record for record in written[2:])
    assert_gapless(tmp_path / "audit")


async def test_a_sync_that_comes_too_late_proves_nothing(tmp_path):
    disk = Disk()
    async with audit_log(tmp_path / "audit", fdatasync=disk.fdatasync, sync_timeout_s=0.1) as log:
        disk.error = errno.EIO
        with pytest.raises(Unavailable):
            await log.append_durable({})
        disk.error = None
        disk.go_on.clear()
        log.check()
        late_s = time.monotonic() + 0.2  # longer than a sync may take
        while time.monotonic() < late_s:
            await asyncio.to_thread(lambda: None)
        disk.go_on.set()
        await until_proved(log)
        assert not log.serving
        await until_serving(log)
        log.append({})
    assert_gapless(tmp_path / "audit")


@pytest.mark.parametrize("error", [None, errno.EIO])
async def test_a_log_can_be_closed_while_a_new_segment_is_proved(tmp_path, error):
    disk = Disk()
    log = AuditLog(tmp_path / "audit", now=Clock(), fdatasync=disk.fdatasync)
    await log.open()
    disk.error = errno.EIO
    with pytest.raises(Unavailable):
        await log.append_durable({})
    disk.error = error
    disk.started.clear()
    disk.go_on.clear()
    log.check()
    await asyncio.to_thread(disk.started.wait)
    closing = asyncio.create_task(log.close())
    await asyncio.to_thread(lambda: None)
    disk.go_on.set()
    await closing
    async with audit_log(tmp_path / "audit") as again:
        again.append({})
    assert_gapless(tmp_path / "audit")
    assert verify_directory(tmp_path / "audit").last == len(records(tmp_path / "audit"))


async def test_check_starts_a_sync_of_plain_appends_and_notices_its_failure(tmp_path):
    disk = Disk()
    async with audit_log(tmp_path / "audit", fdatasync=disk.fdatasync) as log:
        log.append({})
        before = disk.calls
        log.check()
        log.check()
        await log.append_durable({})  # comes after the sync that check began
        assert disk.calls == before + 2
        log.check()
        assert disk.calls == before + 2  # nothing new to sync
        log.append({})
        disk.error = errno.EIO
        log.check()
        with pytest.raises(Unavailable):
            await log.append_durable({})
        assert not log.serving


async def test_a_sync_that_hangs_fails_its_waiters_in_time_and_one_thread_at_most_hangs(tmp_path):
    disk = Disk()
    async with audit_log(tmp_path / "audit", fdatasync=disk.fdatasync, sync_timeout_s=0.01) as log:
        disk.go_on.clear()
        threads = threading.active_count()
        with pytest.raises(Unavailable):
            await log.append_durable({"n": 1})
        for _ in range(10):
            with pytest.raises(Unavailable):
                log.append({"n": 2})
        log.check()
        assert not log.serving
        assert threading.active_count() == threads
        disk.go_on.set()
        while not log.serving:  # bounded by the test's timeout: the thread reports back when its call returns
            await asyncio.to_thread(lambda: None)
            log.check()
        log.append({"n": 3})
    fault = records(tmp_path / "audit")[1]
    assert (fault["event"], fault["reason"]) == ("segment_abandoned", "sync_timed_out")
    assert_gapless(tmp_path / "audit")


async def test_a_deleted_segment_acknowledges_nothing_as_durable(tmp_path):
    async with audit_log(tmp_path / "audit") as log:
        segment_paths(tmp_path / "audit")[0].unlink()
        with pytest.raises(Unavailable):
            await log.append_durable({})
        assert not log.serving


async def test_close_syncs_and_says_when_it_could_not(tmp_path):
    disk = Disk()
    log = AuditLog(tmp_path / "audit", now=Clock(), fdatasync=disk.fdatasync)
    await log.open()
    log.append({})
    calls = disk.calls
    await log.close()
    assert disk.calls == calls + 1

    log = AuditLog(tmp_path / "audit", now=Clock(), fdatasync=disk.fdatasync)
    await log.open()
    log.append({})
    disk.error = errno.EIO
    with pytest.raises(Unavailable):
        await log.close()
    disk.error = None
    async with audit_log(tmp_path / "audit") as again:
        assert again.append({}).sequence == 3


# Segments that are full


async def test_a_full_segment_is_followed_by_another(tmp_path):
    async with audit_log(tmp_path / "audit", max_segment_bytes=1000) as log:
        for n in range(100):
            log.append({"n": n})
        await log.append_durable({"n": 100})
    assert len(segment_paths(tmp_path / "audit")) > 4
    assert max(path.stat().st_size for path in segment_paths(tmp_path / "audit")) < 1100
    assert [record["n"] for record in records(tmp_path / "audit")] == list(range(101))
    assert_gapless(tmp_path / "audit")


async def test_a_full_segment_is_synced_before_the_next_one_vouches_for_it(tmp_path):
    synced: list[int] = []

    def fdatasync(fd: int) -> None:
        synced.append(os.fstat(fd).st_ino)
        os.fdatasync(fd)

    async with audit_log(tmp_path / "audit", max_segment_bytes=1, fdatasync=fdatasync) as log:
        synced.clear()
        log.append({})
        log.append({})
        await log.append_durable({})
        assert synced == [path.stat().st_ino for path in segment_paths(tmp_path / "audit")]


async def test_a_full_segment_that_fails_to_sync_takes_the_next_one_with_it(tmp_path):
    disk = Disk()
    async with audit_log(tmp_path / "audit", max_segment_bytes=1, fdatasync=disk.fdatasync) as log:
        log.append({})
        disk.error = errno.EIO
        with pytest.raises(Unavailable):
            await log.append_durable({})
        disk.error = None
        await until_serving(log)
        log.append({})
    reasons = [record["reason"] for record in records(tmp_path / "audit") if "reason" in record]
    assert reasons == ["sync_failed", "previous_segment_sync_failed"]
    assert_gapless(tmp_path / "audit")


async def test_a_segment_whose_descriptor_is_closed_is_never_put_back_from_it(tmp_path, monkeypatch):
    """The number of the descriptor may be another file's by then, which would be written in its place."""
    rescued = []
    monkeypatch.setattr("vaultd.audit.log.segments.rescue", lambda path, fd, size: rescued.append(path.name))
    disk = Disk()
    async with audit_log(tmp_path / "audit", max_segment_bytes=1, fdatasync=disk.fdatasync) as log:
        log.append({})
        disk.error = errno.EIO
        with pytest.raises(Unavailable):
            await log.append_durable({})
        disk.error = None
        await until_serving(log)
        log.append({})
    full, open_then, *_ = segment_paths(tmp_path / "audit")
    assert full.name not in rescued
    assert rescued == [open_then.name]


async def test_a_full_segment_goes_on_when_no_other_can_be_made(tmp_path):
    directory = tmp_path / "audit"
    async with audit_log(directory, max_segment_bytes=200) as log:
        log.append({"long": "x" * 300})
        (directory / "lock").rename(directory / "away")  # as good as any reason for a new segment to be refused
        log.append({"n": 1})
        (directory / "away").rename(directory / "lock")
        assert log.serving
        for n in itertools.count(2):
            log.append({"n": n})
            if len(segment_paths(directory)) == 2:
                break
    assert_gapless(directory)


async def test_a_segment_that_no_other_could_follow_is_the_open_one_still(tmp_path):
    """Else it would be compressed, and its name taken away, while it is written."""
    directory = tmp_path / "audit"
    async with audit_log(directory, max_segment_bytes=200) as log:
        log.append({"long": "x" * 300})
        before = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (3, before[1]))  # no descriptor is left
        try:
            log.append({"n": 1})
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, before)
        (segment,) = segment_paths(directory)
        assert upkeep.compress_closed(directory, log.segment_number) == []
        log.check()
        assert log.serving
        assert segment.exists()
    assert len(records(directory)) == 2


async def test_an_abandoned_segment_is_durable_before_what_follows_vouches_for_it(tmp_path):
    synced = []

    def fdatasync(fd: int) -> None:
        synced.append(os.fstat(fd).st_ino)
        os.fdatasync(fd)

    directory = tmp_path / "audit"
    async with audit_log(directory, fdatasync=fdatasync) as log:
        log.append({"n": 0})
        (first,) = segment_paths(directory)
        with largest_file(first.stat().st_size), pytest.raises(Unavailable):
            log.append({"n": 1})
        synced.clear()
        await log.append_durable({"n": 2})
    assert synced[:2] == [path.stat().st_ino for path in segment_paths(directory)]


@pytest.mark.parametrize("full", [False, True])
async def test_a_segment_whose_sync_failed_is_written_anew_before_what_follows_vouches_for_it(tmp_path, full):
    disk = Disk()
    directory = tmp_path / "audit"
    async with audit_log(directory, fdatasync=disk.fdatasync, max_segment_bytes=1 if full else 10_000) as log:
        log.append({"n": 0})
        (first,) = segment_paths(directory)
        before, content = first.stat().st_ino, first.read_bytes()
        disk.error = errno.EIO
        with pytest.raises(Unavailable):
            await log.append_durable({"n": 1})
        disk.error = None
        await until_serving(log)
        await log.append_durable({"n": 2})
        assert first.stat().st_ino != before
        assert first.read_bytes().startswith(content)
    assert_gapless(directory)
    assert verify_directory(directory).last == len(records(directory))
