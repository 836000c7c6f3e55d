"""Every change of a log is found, and named by segment, line and number: with its files and a public key alone."""

from __future__ import annotations

import asyncio
import gzip
import random
import shutil
import zlib
from dataclasses import replace

import orjson
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.mldsa import MLDSA65PrivateKey
from test_audit_log import START, Clock, audit_log, largest_file, segment_paths

from vaultd.audit import heads, segments, upkeep
from vaultd.audit.blocks import StoredLeaves
from vaultd.audit.checkpoints import Signer
from vaultd.audit.lines import first_chain, link, take_apart
from vaultd.audit.reader import AuditReader, oldest_sequence
from vaultd.audit.tree import (
    consistency_proof,
    inclusion_proof,
    leaf_hash,
    verify_consistency,
    verify_inclusion,
)
from vaultd.audit.verify import verify_directory
from vaultd.audit.walk import BadRecord, Walk
from vaultd.errors import DataLoss, Unavailable

SEED = random.randrange(2**32)
SIGNER = Signer([Ed25519PrivateKey.generate()])
PUBLIC = SIGNER.public_keys
MAC_KEY = b"k" * 32
DAY_US = 86_400_000_000


async def checkpoint(log, signer=SIGNER):
    newest = log.checkpoint(signer, 7, b"s" * 16, 0)
    await log.keep(newest)
    return newest


async def write(directory, count=60, *, every=17, close=True, now=None, key=None, **options):
    """A log of records, some of them checkpoints, in several segments."""
    options = {"max_segment_bytes": 4_000, "now": now or Clock(), **options}
    async with audit_log(directory, **options) as log:
        if key is not None:
            log.use_key(key)
        for n in range(count):
            log.append({"event": "call", "n": n, "text": "x" * (n % 50)})
            if n % every == every - 1:
                await checkpoint(log)
        if close:
            await checkpoint(log)
        return log


def lines_of(directory):
    """(path, index in the file, line) of every record."""
    return [
        (path, at, line)
        for path in segment_paths(directory)
        for at, line in enumerate(path.read_bytes().splitlines(keepends=True))
    ]


def rewrite(path, lines):
    path.write_bytes(b"".join(lines))


def compress_all(directory):
    return upkeep.compress_closed(directory, max(number for number, _ in segments.list_segments(directory)) + 1)


@pytest.fixture(scope="module")
def original(tmp_path_factory):
    directory = tmp_path_factory.mktemp("original") / "audit"
    asyncio.run(write(directory))
    return directory


@pytest.fixture
def copy(original, tmp_path):
    return shutil.copytree(original, tmp_path / "audit")


def verdict_on(directory):
    """(segment, line, sequence) of the first bad record."""
    with pytest.raises(BadRecord) as bad:
        verify_directory(directory, keys=PUBLIC)
    return bad.value.place.segment, bad.value.place.line, bad.value.sequence


def test_an_untouched_log_verifies_compressed_or_not(copy):
    plain = verify_directory(copy, keys=PUBLIC)
    assert (plain.first, plain.last, plain.checkpoints, plain.unsigned) == (1, 64, 4, 0)
    assert plain.newest.size == 63
    assert compress_all(copy)
    assert segment_paths(copy) == []
    assert verify_directory(copy, keys=PUBLIC) == plain


def test_any_flipped_bit_names_its_record(copy):
    print(f"seed {SEED}")
    chooser = random.Random(SEED)
    for _ in range(60):
        path, at, line = chooser.choice(lines_of(copy))
        whole = path.read_bytes()
        before = sum(len(each) for each in whole.splitlines(keepends=True)[:at])
        place = before + chooser.randrange(len(line))
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 1 << chooser.randrange(8)]) + whole[place + 1 :])
        assert verdict_on(copy) == (path.name, at + 1, segments.sequence_of(line))
        path.write_bytes(whole)
    assert verify_directory(copy, keys=PUBLIC)


def test_a_dropped_record_is_named_whichever_it_is(copy):
    for path, at, line in lines_of(copy):
        whole = path.read_bytes()
        lines = whole.splitlines(keepends=True)
        rewrite(path, lines[:at] + lines[at + 1 :])
        assert verdict_on(copy)[2] == segments.sequence_of(line)
        path.write_bytes(whole)


def test_a_swapped_record_is_named_whichever_it_is(copy):
    print(f"seed {SEED}")
    chooser = random.Random(SEED)
    for _ in range(60):
        path = chooser.choice(segment_paths(copy))
        whole = path.read_bytes()
        lines = whole.splitlines(keepends=True)
        first, second = sorted(chooser.sample(range(len(lines)), 2))
        number = segments.sequence_of(lines[first])
        lines[first], lines[second] = lines[second], lines[first]
        rewrite(path, lines)
        assert verdict_on(copy) == (path.name, first + 1, number)
        path.write_bytes(whole)


def test_a_record_that_is_cut_short_is_named_whichever_it_is(copy):
    print(f"seed {SEED}")
    chooser = random.Random(SEED)
    for path, at, line in lines_of(copy):
        whole = path.read_bytes()
        lines = whole.splitlines(keepends=True)
        lines[at] = line[: chooser.randrange(1, len(line))]
        rewrite(path, lines)
        assert verdict_on(copy) == (path.name, at + 1, segments.sequence_of(line))
        path.write_bytes(whole)


def test_a_segment_that_was_cut_taken_away_or_doubled_is_found(copy):
    for path in segment_paths(copy):
        whole = path.read_bytes()
        number = segments.sequence_of(whole)
        path.unlink()
        assert verdict_on(copy)[2] == number
        path.write_bytes(b"")
        assert verdict_on(copy)[2] == number
        path.write_bytes(whole + whole.splitlines(keepends=True)[-1])
        assert verdict_on(copy)[2] in (64 + 1, segments.sequence_of(whole.splitlines()[-1]) + 1)
        path.write_bytes(whole)
    assert verify_directory(copy, keys=PUBLIC)


def carries_nothing(path, whole):
    """Whether a change is one of the bits that fill up the last byte of DEFLATE's output: no record is changed by it."""
    try:
        return gzip.decompress(path.read_bytes()) == gzip.decompress(whole)
    except (OSError, EOFError, zlib.error):
        return False


def test_any_flipped_bit_of_a_compressed_segment_is_found(copy):
    print(f"seed {SEED}")
    chooser = random.Random(SEED)
    compress_all(copy)
    paths = [path for _, path in segments.list_segments(copy)]
    for _ in range(60):
        path = chooser.choice(paths)
        whole = path.read_bytes()
        at = chooser.randrange(len(whole))
        path.write_bytes(whole[:at] + bytes([whole[at] ^ 1 << chooser.randrange(8)]) + whole[at + 1 :])
        first = segments.sequence_of(gzip.decompress(whole))
        records = gzip.decompress(whole).count(b"\n")
        if at == len(whole) - 9 and carries_nothing(path, whole):
            verify_directory(copy, keys=PUBLIC)
        else:
            segment, _, number = verdict_on(copy)
            assert segment == path.name.removesuffix(".gz")
            assert first <= number <= first + records
        path.write_bytes(whole)


def test_a_record_that_was_dropped_from_a_compressed_segment_is_named(copy):
    for path, at, line in lines_of(copy)[::7]:
        whole = path.read_bytes()
        lines = whole.splitlines(keepends=True)
        rewrite(path, lines[:at] + lines[at + 1 :])
        compress_all(copy)
        assert verdict_on(copy)[2] == segments.sequence_of(line)
        for _, packed in segments.list_segments(copy):
            packed.with_suffix("").write_bytes(gzip.decompress(packed.read_bytes()))
            packed.unlink()
        path.write_bytes(whole)


def test_hashes_that_were_computed_anew_are_found_at_the_next_checkpoint(copy):
    before = first_chain(segments.read_chain_id(copy))
    changed = {}
    for path, _, line in lines_of(copy):
        content = take_apart(line[:-1]).content.replace(b'"n":20,', b'"n":21,')
        made, before = link(before, content, None)
        changed.setdefault(path, []).append(made + b"\n")
    for path, lines in changed.items():
        rewrite(path, lines)
    with pytest.raises(BadRecord, match="is a checkpoint of other records: one of 18 to") as bad:
        verify_directory(copy, keys=PUBLIC)
    assert bad.value.sequence == 36


def test_any_flipped_bit_of_the_copy_of_the_newest_checkpoint_is_found(copy):
    print(f"seed {SEED}")
    chooser = random.Random(SEED)
    path = copy / heads.CHECKPOINT_FILE
    whole = path.read_bytes()
    for _ in range(60):
        at = chooser.randrange(len(whole))
        path.write_bytes(whole[:at] + bytes([whole[at] ^ 1 << chooser.randrange(8)]) + whole[at + 1 :])
        with pytest.raises((BadRecord, DataLoss)):
            verify_directory(copy, keys=PUBLIC)


def test_whatever_stands_in_a_segment_is_a_bad_record_and_no_accident(copy):
    print(f"seed {SEED}")
    chooser = random.Random(SEED)
    paths = segment_paths(copy)
    for _ in range(60):
        path = chooser.choice(paths)
        whole = path.read_bytes()
        at = chooser.randrange(len(whole))
        noise = chooser.randbytes(chooser.randrange(1, 200)) if chooser.random() < 0.5 else b'{"seq":1}\n'
        path.write_bytes(whole[:at] + noise + whole[at + chooser.randrange(2) * len(noise) :])
        with pytest.raises(BadRecord):
            verify_directory(copy, keys=PUBLIC)
        path.write_bytes(whole)


def test_a_checkpoint_of_another_key_or_another_log_is_found(copy):
    with pytest.raises(BadRecord, match="no signature of the key"):
        verify_directory(copy, keys=[Ed25519PrivateKey.generate().public_key()])
    (copy / "chain-id").write_text("00" * 16)
    with pytest.raises(BadRecord):
        verify_directory(copy, keys=PUBLIC)


async def test_a_log_without_a_checkpoint_does_not_verify_with_a_pinned_key(tmp_path):
    await write(tmp_path / "audit", 5, close=False)
    with pytest.raises(BadRecord, match="no checkpoint"):
        verify_directory(tmp_path / "audit", keys=PUBLIC)
    assert verify_directory(tmp_path / "audit").unsigned == 5
    await write(tmp_path / "empty", 0, close=False)
    with pytest.raises(BadRecord, match="no checkpoint"):
        verify_directory(tmp_path / "empty", keys=PUBLIC)


async def test_the_tail_after_the_last_checkpoint_needs_the_key_of_the_macs(tmp_path):
    """Somebody without the key ring changes a record after the newest checkpoint, and computes the hashes anew."""
    directory = tmp_path / "audit"
    await write(directory, 25, every=10, close=False, key=MAC_KEY)
    assert verify_directory(directory, keys=PUBLIC, mac_key=MAC_KEY).macs == 27
    for keep_macs in (True, False):
        shutil.copytree(directory, tmp_path / f"changed-{keep_macs}")
        before = first_chain(segments.read_chain_id(directory))
        for path in segment_paths(tmp_path / f"changed-{keep_macs}"):
            lines = []
            for line in path.read_bytes().splitlines():
                parts = take_apart(line)
                content = parts.content.replace(b'"n":23,', b'"code":"OK","n":23,')
                made, before = link(before, content, None)
                if (keep_macs or b'"n":23,' not in content) and made != line:
                    made = made[:-2] + b'","mac":"' + parts.mac.encode() + b'"}'
                lines.append(made + b"\n")
            rewrite(path, lines)
        assert verify_directory(tmp_path / f"changed-{keep_macs}", keys=PUBLIC).unsigned == 5
        with pytest.raises(BadRecord, match="MAC") as bad:
            verify_directory(tmp_path / f"changed-{keep_macs}", keys=PUBLIC, mac_key=MAC_KEY)
        assert bad.value.sequence == 26


async def test_records_after_sealing_have_macs_of_a_key_that_cannot_make_those_before(tmp_path):
    async with audit_log(tmp_path / "audit") as log:
        log.append({"n": 0})
        log.use_key(MAC_KEY)
        log.append({"n": 1})
        log.seal()
        log.append({"n": 2})
    assert verify_directory(tmp_path / "audit", mac_key=MAC_KEY).macs == 3
    events = [orjson.loads(line).get("event") for _, _, line in lines_of(tmp_path / "audit")]
    assert events == [None, None, "audit_sealed", None]


async def test_a_disk_that_fails_at_the_sealing_leaves_a_log_that_verifies(tmp_path):
    directory = tmp_path / "audit"
    async with audit_log(directory) as log:
        log.use_key(MAC_KEY)
        log.append({"n": 0})
        with largest_file(segment_paths(directory)[0].stat().st_size):
            log.seal()
        log.append({"n": 1})
        log.append({"n": 2})
    events = [orjson.loads(line).get("event") for _, _, line in lines_of(directory)]
    assert events == [None, "segment_abandoned", None, None]
    assert verify_directory(directory, mac_key=MAC_KEY).macs == 4


# -- what happens to a log that is no change of it ----------------------------------------------------------------------


async def test_a_log_that_was_interrupted_verifies(tmp_path):
    directory = tmp_path / "audit"
    async with audit_log(directory, max_segment_bytes=2_000) as log:
        log.append({"n": 0})
        await checkpoint(log)
        size = segment_paths(directory)[0].stat().st_size
        with largest_file(size + 30), pytest.raises(Unavailable):
            log.append({"n": 1})
        log.append({"n": 2})
        await checkpoint(log)
    segment = segment_paths(directory)[-1]
    segment.write_bytes(segment.read_bytes() + b'{"seq":99,"torn')
    with pytest.raises(BadRecord, match="cut short"):
        verify_directory(directory, keys=PUBLIC)
    async with audit_log(directory) as log:
        log.append({"n": 3})
        await checkpoint(log)
    assert verify_directory(directory, keys=PUBLIC).unsigned == 0


async def test_bytes_that_no_record_explains_are_found(tmp_path):
    directory = tmp_path / "audit"
    await write(directory, 60)
    first, *_ = segment_paths(directory)
    lines = first.read_bytes().count(b"\n")
    first.write_bytes(first.read_bytes() + b"more\n")
    with pytest.raises(BadRecord, match="no record explains") as bad:
        verify_directory(directory, keys=PUBLIC)
    assert (bad.value.place.segment, bad.value.place.line) == (first.name, lines + 1)


async def test_a_log_goes_on_over_restarts_and_reads_only_what_came_after_the_newest_checkpoint(tmp_path, monkeypatch):
    directory = tmp_path / "audit"
    for n in range(4):
        await write(directory, 40, every=13, close=bool(n % 2))
    taken = []
    take = Walk.take
    monkeypatch.setattr(Walk, "take", lambda walk, place, line: (taken.append(place), take(walk, place, line)))
    await write(directory, 1)
    assert len(taken) == 1  # the checkpoint with which the process before closed
    assert verify_directory(directory, keys=PUBLIC).last == 4 * 40 + 2 * 3 + 2 * 4 + 2


@pytest.mark.parametrize("at", [-1, -3])
async def test_a_tail_that_was_changed_stops_the_start(tmp_path, at):
    directory = tmp_path / "audit"
    await write(directory, 25, every=10, close=False)
    path = segment_paths(directory)[-1]
    lines = path.read_bytes().splitlines(keepends=True)
    lines[at] = lines[at].replace(b'"text"', b'"tExt"')
    rewrite(path, lines)
    with pytest.raises(DataLoss) as error:
        await write(directory, 1)
    assert error.value.reason == "AUDIT_TAMPERED"
    assert path.name in error.value.text


async def test_a_log_that_was_cut_off_before_its_newest_checkpoint_does_not_open(tmp_path):
    directory = tmp_path / "audit"
    await write(directory, 20, every=10)
    path = segment_paths(directory)[-1]
    rewrite(path, path.read_bytes().splitlines(keepends=True)[:-1])
    with pytest.raises(DataLoss) as error:
        await write(directory, 1)
    assert error.value.reason == "AUDIT_TAMPERED"


async def test_without_its_copy_the_newest_checkpoint_is_found_in_the_segments(tmp_path):
    directory = tmp_path / "audit"
    await write(directory, 20, every=10)
    (directory / heads.CHECKPOINT_FILE).unlink()
    compress_all(directory)
    await write(directory, 1)
    assert verify_directory(directory, keys=PUBLIC).last == 20 + 3 + 2


async def test_a_log_of_the_release_before_goes_on_and_says_where_its_chain_begins(tmp_path):
    directory = tmp_path / "audit"
    directory.mkdir(mode=0o700)
    (directory / "chain-id").write_text("ab" * 16 + "\n")
    old = [b'{"seq":%d,"time":"2025-11-24T16:00:00.000123Z","event":"call"}\n' % n for n in range(1, 11)]
    (directory / "audit-20251124T160000Z-00000001.jsonl").write_bytes(b"".join(old[:6]))
    (directory / "audit-20251124T160001Z-00000002.jsonl").write_bytes(b"".join(old[6:]))
    for _ in range(2):
        async with audit_log(directory) as log:
            assert log.chain_id == bytes.fromhex("ab" * 16)
            log.append({"event": "call"})
    assert verify_directory(directory).first == 11
    await write(directory, 20, every=10)
    verdict = verify_directory(directory, keys=PUBLIC)
    assert (verdict.first, verdict.last, verdict.newest.first) == (11, 13 + 23, 11)
    begins = orjson.loads(lines_of(directory)[10][2])
    assert (begins["seq"], begins["event"]) == (11, "chain_begins")
    assert begins["previous_leaf"] == leaf_hash(old[-1][:-1]).hex()


# -- ML-DSA -------------------------------------------------------------------------------------------------------------


async def test_a_second_signature_counts_from_the_first_checkpoint_that_has_it(tmp_path):
    directory = tmp_path / "audit"
    ed25519, mldsa = Ed25519PrivateKey.generate(), MLDSA65PrivateKey.generate()
    both = Signer([ed25519, mldsa])
    async with audit_log(directory, max_segment_bytes=4_000) as log:
        for signer in (Signer([ed25519]), both, both):
            log.append({})
            await checkpoint(log, signer)
    assert verify_directory(directory, keys=both.public_keys).checkpoints == 3
    async with audit_log(directory) as log:
        log.append({})
        await checkpoint(log, Signer([ed25519]))
    assert verify_directory(directory, keys=[ed25519.public_key()]).checkpoints == 4
    with pytest.raises(BadRecord, match="no signature of the key"):
        verify_directory(directory, keys=both.public_keys)


# -- pruning ------------------------------------------------------------------------------------------------------------


async def old_and_new(directory):
    """A log whose records of the first day fill several segments, and those of the second some more."""
    clock = Clock()
    await write(directory, 60, now=clock)
    clock.next = START + DAY_US
    await write(directory, 30, now=clock)
    return clock


def prune(directory, before_us, needed=10**9):
    chain_id = segments.read_chain_id(directory)
    removal = upkeep.plan_removal(directory, chain_id, before_us, SIGNER, heads.read_newest(directory).head, needed)
    if removal is not None:
        upkeep.remove(directory, removal, SIGNER)
    return removal


async def test_what_is_old_goes_and_the_rest_still_verifies_and_goes_on(tmp_path):
    directory = tmp_path / "audit"
    await old_and_new(directory)
    compress_all(directory)
    whole = verify_directory(directory, keys=PUBLIC)
    removal = prune(directory, START + DAY_US)
    assert 40 < removal.through < 64  # a segment goes when the next one begins before the time
    assert oldest_sequence(directory) == removal.through + 1
    rest = verify_directory(directory, keys=PUBLIC)
    assert (rest.pruned, rest.first, rest.last, rest.newest) == (removal.through, 1, whole.last, whole.newest)
    assert verify_directory(directory).last == whole.last  # with the keys that the file names
    assert prune(directory, START + DAY_US) is None
    await write(directory, 5)
    assert verify_directory(directory, keys=PUBLIC).last > whole.last
    (directory / heads.PRUNED_FILE).unlink()
    with pytest.raises(BadRecord):
        verify_directory(directory, keys=PUBLIC)


async def test_what_somebody_still_needs_or_no_checkpoint_covers_stays(tmp_path):
    directory = tmp_path / "audit"
    await old_and_new(directory)
    newest = heads.read_newest(directory).head
    chain_id = segments.read_chain_id(directory)
    assert upkeep.plan_removal(directory, chain_id, START, SIGNER, newest, 10**9) is None
    assert upkeep.plan_removal(directory, chain_id, START + DAY_US, SIGNER, newest, 30).through < 30
    early = heads.newest_of(next(line[:-1] for _, _, line in lines_of(directory) if b'"checkpoint"' in line)).head
    assert early.size < newest.size
    again = upkeep.plan_removal(directory, chain_id, START + 2 * DAY_US, SIGNER, early, 10**9)
    assert again is None


async def test_a_segment_before_an_empty_one_goes_only_when_its_records_may(tmp_path):
    """A, B, an empty one, C: that A may go says nothing of B."""
    directory = tmp_path / "audit"
    await old_and_new(directory)
    first, second, *rest = segment_paths(directory)
    for path in reversed(rest):
        number = int(path.stem.rsplit("-", 1)[1])
        path.rename(path.with_name(path.name.replace(f"-{number:08d}", f"-{number + 1:08d}")))
    empty = second.with_name(second.name.replace("-00000002", "-00000003"))
    empty.touch()
    begins_us = upkeep._first_time(second)
    assert prune(directory, begins_us + 1).paths == (first,)
    assert verify_directory(directory, keys=PUBLIC).pruned == oldest_sequence(directory) - 1
    assert prune(directory, START + DAY_US).paths[:2] == (second, empty)
    assert verify_directory(directory, keys=PUBLIC).pruned == oldest_sequence(directory) - 1


async def test_a_log_that_does_not_verify_is_not_pruned(tmp_path):
    directory = tmp_path / "audit"
    await old_and_new(directory)
    path = segment_paths(directory)[1]
    path.write_bytes(path.read_bytes().replace(b"x", b"y", 1))
    before = sorted(directory.iterdir())
    with pytest.raises(BadRecord):
        prune(directory, START + DAY_US)
    assert sorted(directory.iterdir()) == before


async def test_a_crash_between_saying_and_removing_does_no_harm(tmp_path):
    directory = tmp_path / "audit"
    await old_and_new(directory)
    kept = shutil.copytree(directory, tmp_path / "kept")
    through = prune(directory, START + DAY_US).through
    shutil.copy(directory / heads.PRUNED_FILE, kept / heads.PRUNED_FILE)
    assert verify_directory(kept, keys=PUBLIC).pruned == through
    await write(kept, 3)
    assert verify_directory(kept, keys=PUBLIC).pruned == through


@pytest.mark.parametrize("change", [b'"frontier":["', b"vaultd-audit/", b"first 1"])
async def test_a_changed_beginning_is_found(tmp_path, change):
    directory = tmp_path / "audit"
    await old_and_new(directory)
    prune(directory, START + DAY_US)
    path = directory / heads.PRUNED_FILE
    path.write_bytes(path.read_bytes().replace(change, change[:-1] + b"~"))
    with pytest.raises(DataLoss) as error:
        verify_directory(directory, keys=PUBLIC)
    assert error.value.reason == "AUDIT_TAMPERED"


def begin_after(directory, newest, note, keys):
    """Forge `pruned`: what stands before a checkpoint and the segment of it is gone."""
    heads.write_pruned(directory, note, newest.peaks, keys, 1)
    for path in segment_paths(directory):
        lines = path.read_bytes().splitlines(keepends=True)
        left = [line for line in lines if segments.sequence_of(line) > newest.head.last]
        rewrite(path, left) if left else path.unlink()


@pytest.mark.parametrize("own_key", [False, True])
async def test_nobody_cuts_history_with_a_checkpoint_or_a_key_of_his_own(copy, own_key):
    newest = heads.newest_of(next(line[:-1] for _, _, line in lines_of(copy) if b'"checkpoint"' in line))
    other = Signer([Ed25519PrivateKey.generate()])
    note = other.sign(replace(newest.head, pruned=True)) if own_key else newest.note
    begin_after(copy, newest, note, (other if own_key else SIGNER).public_keys)
    with pytest.raises(DataLoss) as error:
        verify_directory(copy, keys=PUBLIC)
    assert error.value.reason == "AUDIT_TAMPERED"
    with pytest.raises(DataLoss) as error:
        prune(copy, START + DAY_US)
    assert error.value.reason == "AUDIT_TAMPERED"


async def test_a_log_that_begins_later_needs_a_checkpoint_as_any_other(tmp_path):
    directory = tmp_path / "audit"
    await old_and_new(directory)
    prune(directory, START + DAY_US)
    for path in segment_paths(directory):
        path.unlink()
    (directory / heads.CHECKPOINT_FILE).unlink()
    with pytest.raises(BadRecord, match="no checkpoint"):
        verify_directory(directory, keys=PUBLIC)


# -- proofs -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("with_files", [True, False])
async def test_proofs_from_stored_hashes_hold_in_every_tree(tmp_path, with_files):
    print(f"seed {SEED}")
    chooser = random.Random(SEED)
    directory = tmp_path / "audit"
    tops = []
    async with audit_log(directory, max_segment_bytes=40_000) as log:
        for n in range(1_500):
            log.append({"n": n})
            if n in {300, 900, 1_499}:
                tops.append(await checkpoint(log))
    reader = AuditReader(directory)
    lines = [record.line for record in reader.read(limit=2_000)]
    reader.close()
    if not with_files:
        (directory / "tree-8").unlink()
    else:
        assert (directory / "tree-8").stat().st_size == 32 * (1_502 // 256)
    stored = StoredLeaves(directory, 1)
    for newest in tops:
        head = newest.head
        for index in chooser.sample(range(head.size), 20):
            path = inclusion_proof(stored, index, head.size)
            assert verify_inclusion(leaf_hash(lines[index]), index, head.size, path, head.root)
    first, *_, last = (newest.head for newest in tops)
    path = consistency_proof(stored, first.size, last.size)
    assert verify_consistency(first.size, last.size, path, first.root, last.root)
