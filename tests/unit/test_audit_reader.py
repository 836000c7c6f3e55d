"""Reading a log in order, while it is written, over segments that close, are compressed, or are abandoned."""

from __future__ import annotations

import gzip
from threading import get_ident

import pytest
from test_audit_log import START, Clock, audit_log, largest_file, segment_paths

from vaultd.audit.reader import AuditReader, RecordsMissing, oldest_sequence, sequence_at
from vaultd.engine.audit_tail import AuditTail, RecordFilter
from vaultd.errors import Unavailable


def compress(path):
    """As the upkeep of the log does."""
    whole = path.with_name(f"{path.name}.gz")
    whole.write_bytes(gzip.compress(path.read_bytes()))
    path.unlink()


def numbers(records):
    return [record.sequence for record in records]


async def test_records_come_once_and_in_order_and_more_come_when_they_are_written(tmp_path):
    reader = AuditReader(tmp_path / "audit")
    async with audit_log(tmp_path / "audit", max_segment_bytes=400) as log:
        assert reader.read() == []
        for n in range(20):
            log.append({"n": n})
        assert numbers(reader.read(limit=7)) == list(range(1, 8))
        assert numbers(reader.read()) == list(range(8, 21))
        assert reader.read() == []
        log.append({"n": 20})
        (record,) = reader.read()
        assert record.sequence == reader.last == 21
        assert b'"n":20' in record.line
        assert record.segment == segment_paths(tmp_path / "audit")[-1].name
    reader.close()


async def test_a_read_ends_after_so_many_bytes_and_gives_one_record_at_least(tmp_path):
    async with audit_log(tmp_path / "audit") as log:
        for _ in range(8):
            log.append({"text": "x" * 300_000})
    reader = AuditReader(tmp_path / "audit")
    assert [numbers(reader.read()) for _ in range(3)] == [[1, 2, 3, 4], [5, 6, 7, 8], []]
    reader.close()
    reader = AuditReader(tmp_path / "audit")
    assert numbers(reader.read(max_bytes=1)) == [1]
    reader.close()


async def test_a_tail_parses_records_off_the_event_loop(tmp_path, monkeypatch):
    threads = set()
    wants = RecordFilter.wants
    monkeypatch.setattr(RecordFilter, "wants", lambda self, line: threads.add(get_ident()) or wants(self, line))
    async with audit_log(tmp_path / "audit") as log:
        for n in range(5):
            log.append({"event": "odd" if n % 2 else "even"})
        following = AuditTail(log).follow(
            RecordFilter(events=frozenset({"odd"})), after=0, start_us=None, to_end=True, heartbeat_s=60.0
        )
        assert [(numbers(found), last) async for found, last in following] == [([], 0), ([2, 4], 5)]
    assert threads
    assert get_ident() not in threads


async def test_a_reader_begins_behind_any_record_in_any_segment(tmp_path):
    async with audit_log(tmp_path / "audit", max_segment_bytes=300) as log:
        for n in range(30):
            log.append({"n": n})
    paths = segment_paths(tmp_path / "audit")
    for path in paths[: len(paths) // 2]:
        compress(path)
    for after in range(31):
        reader = AuditReader(tmp_path / "audit", after)
        assert numbers(reader.read()) == list(range(after + 1, 31))
        reader.close()


async def test_a_segment_that_is_compressed_under_a_reader_is_read_to_its_end(tmp_path):
    async with audit_log(tmp_path / "audit", max_segment_bytes=300) as log:
        for n in range(30):
            log.append({"n": n})
        reader = AuditReader(tmp_path / "audit")
        assert numbers(reader.read(limit=2)) == [1, 2]
        for path in segment_paths(tmp_path / "audit")[:-1]:
            compress(path)
        assert numbers(reader.read()) == list(range(3, 31))
    reader.close()


async def test_records_that_are_gone_are_said_to_be_and_reading_goes_on(tmp_path):
    async with audit_log(tmp_path / "audit", max_segment_bytes=300) as log:
        for n in range(30):
            log.append({"n": n})
    paths = segment_paths(tmp_path / "audit")
    paths[0].unlink()
    paths[2].unlink()
    reader = AuditReader(tmp_path / "audit")
    seen, missing = [], []
    while True:
        try:
            records = reader.read()
        except RecordsMissing as gap:
            missing += range(gap.first_missing, gap.next_sequence)
            continue
        if not records:
            break
        seen += numbers(records)
    reader.close()
    assert sorted(seen + missing) == list(range(1, 31))
    assert missing[0] == 1
    assert oldest_sequence(tmp_path / "audit") == seen[0]


async def test_what_stands_behind_the_last_record_of_an_abandoned_segment_is_no_record(tmp_path):
    async with audit_log(tmp_path / "audit") as log:
        log.append({"n": 0})
        (segment,) = segment_paths(tmp_path / "audit")
        with largest_file(segment.stat().st_size + 10), pytest.raises(Unavailable):
            log.append({"n": 1})
        with segment.open("ab") as file:
            file.write(b'cut\n{"seq":2,"time":"x","forged":true}\n')
        log.append({"n": 2})
    reader = AuditReader(tmp_path / "audit")
    assert [b"forged" in record.line for record in reader.read()] == [False, False, False]
    reader.close()


async def test_what_others_append_is_not_read_where_the_writer_is_asked(tmp_path):
    async with audit_log(tmp_path / "audit") as log:
        log.append({"n": 0})
        with segment_paths(tmp_path / "audit")[0].open("ab") as file:
            file.write(b'{"seq":2,"time":"x","forged":true}\n')
        reader = AuditReader(tmp_path / "audit", newest=lambda: log.sequence)
        assert numbers(reader.read()) == [1]
        log.check()
        assert [b"forged" in record.line for record in reader.read()] == [False]
    reader.close()


async def test_a_time_is_found_in_the_segment_that_holds_it(tmp_path):
    clock = Clock()
    async with audit_log(tmp_path / "audit", now=clock, max_segment_bytes=300) as log:
        for n in range(30):
            clock.next = START + n * 1_000_000
            log.append({"n": n})
    reader = AuditReader(tmp_path / "audit")
    records = reader.read()
    reader.close()
    firsts = {record.segment: record.sequence for record in reversed(records)}
    for n, record in enumerate(records):
        assert sequence_at(tmp_path / "audit", START + n * 1_000_000) == firsts[record.segment]
    assert sequence_at(tmp_path / "audit", 0) == 1
