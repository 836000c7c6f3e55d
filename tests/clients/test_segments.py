"""Segments of encrypted streams: whatever is done to one, nothing is given out that was not written there."""

from __future__ import annotations

import io
import os
import shutil
import threading
from contextlib import suppress
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tink import BinaryKeysetReader, cleartext_keyset_handle, streaming_aead
from tink.proto import aes_gcm_hkdf_streaming_pb2, common_pb2, tink_pb2

from vaultd_client import DecryptionFailed
from vaultd_client.data_keys import DataKey, Forgotten
from vaultd_client.envelope_format import MAGIC, EnvelopeHeader, HeaderReader
from vaultd_client.envelope_io import EnvelopeFile, EnvelopeReader, EnvelopeWriter, write_all
from vaultd_client.segments import (
    HEADER_BYTES,
    MAX_SEGMENTS,
    SegmentCipher,
    SegmentOpener,
    SegmentSealer,
    StreamTooLong,
    read_stream,
)

SEGMENT, MIB = 64, 1 << 20
FIRST, OTHERS = SEGMENT - HEADER_BYTES - 16, SEGMENT - 16
KEY = DataKey(bytes(range(32)), b"wrapped")

plaintexts = st.integers(0, 6 * SEGMENT).map(lambda size: bytes(n % 251 for n in range(size)))
cuts = st.lists(st.integers(0, 8 * SEGMENT), max_size=12)


def pieces(data: bytes, at: list[int]) -> list[bytes]:
    """The data, cut at these places."""
    places = sorted({0, len(data), *(place for place in at if place < len(data))})
    return [data[begin:end] for begin, end in pairwise(places)]


def seal(data: list[bytes], info: bytes = b"info", size: int = SEGMENT) -> bytes:
    sealer = SegmentSealer(KEY.derive, info, size)
    return b"".join([*(sealed for piece in data for sealed in sealer.update(piece)), *sealer.finish()])


def read(data: list[bytes], info: bytes = b"info", size: int = SEGMENT) -> tuple[bytes, bool]:
    """What comes out, and whether it was the whole."""
    opener, out = SegmentOpener(KEY.derive, info, size), b""
    try:
        for piece in data:
            for opened in opener.update(piece):
                out += opened
        return out + opener.finish(), True
    except DecryptionFailed:
        return out, False


@given(plaintexts, cuts, cuts)
def test_what_is_sealed_in_any_pieces_opens_in_any_pieces(plaintext, at, again):
    sealed = seal(pieces(plaintext, at))
    segments = 1 + max(0, -(-(len(plaintext) - FIRST) // OTHERS))
    assert len(sealed) == HEADER_BYTES + len(plaintext) + 16 * segments
    assert read(pieces(sealed, again)) == (plaintext, True)


def harm(draw: st.DrawFn, sealed: bytes) -> bytes:
    """The stream, with something done to it."""
    segments = [
        sealed[HEADER_BYTES:SEGMENT],
        *(sealed[at : at + SEGMENT] for at in range(SEGMENT, len(sealed), SEGMENT)),
    ]
    head, count = sealed[:HEADER_BYTES], len(segments)
    one, other = draw(st.integers(0, count - 1)), draw(st.integers(0, count - 1))
    match draw(st.sampled_from(["flip", "cut", "drop", "swap", "repeat", "extend", "append"])):
        case "flip":
            bit = draw(st.integers(0, 8 * len(sealed) - 1))
            changed = bytearray(sealed)
            changed[bit // 8] ^= 1 << bit % 8
            return bytes(changed)
        case "cut":
            return sealed[: draw(st.integers(0, len(sealed) - 1))]
        case "drop":
            return head + b"".join(segments[:one] + segments[one + 1 :])
        case "swap":
            segments[one], segments[other] = segments[other], segments[one]
        case "repeat":
            segments.insert(other, segments[one])
        case "extend":
            return sealed + draw(st.binary(min_size=1, max_size=2 * SEGMENT))
        case "append":
            segments += segments[1:] or segments
    return head + b"".join(segments)


@settings(max_examples=250)
@given(st.data(), plaintexts, cuts)
def test_a_stream_that_was_changed_gives_only_whole_segments_that_were_written_there_and_then_an_error(
    data, plaintext, at
):
    sealed = seal([plaintext])
    changed = harm(data.draw, sealed)
    out, whole = read(pieces(changed, at))
    if changed == sealed:
        assert (out, whole) == (plaintext, True)
        return
    assert not whole
    assert plaintext.startswith(out)
    assert not out or (len(out) - FIRST) % OTHERS == 0


def test_a_changed_byte_keeps_its_own_segment_and_all_that_follow():
    plaintext = os.urandom(FIRST + 9 * OTHERS)
    sealed = bytearray(seal([plaintext]))
    sealed[5 * SEGMENT + 3] ^= 1
    assert read([bytes(sealed)]) == (plaintext[: FIRST + 4 * OTHERS], False)


@pytest.mark.parametrize("size", [0, 1, FIRST - 1, FIRST, FIRST + 1, FIRST + OTHERS, FIRST + OTHERS + 1])
def test_every_cut_is_refused(size):
    sealed = seal([bytes(size)])
    assert not any(read([sealed[:length]])[1] for length in range(len(sealed)))


def test_other_associated_data_and_other_keys_do_not_open():
    sealed = seal([b"data"])
    assert read([sealed], b"other") == (b"", False)
    other = SegmentOpener(DataKey(bytes(32), b"").derive, b"info", SEGMENT)
    assert list(other.update(sealed)) == []
    with pytest.raises(DecryptionFailed):
        other.finish()


def test_after_an_error_nothing_more_comes():
    sealed = bytearray(seal([bytes(FIRST + 3 * OTHERS)]))
    sealed[SEGMENT] ^= 1
    opener = SegmentOpener(KEY.derive, b"info", SEGMENT)
    opened = opener.update(bytes(sealed))
    assert next(opened) == bytes(FIRST)
    for again in (lambda: next(opened), opener.finish, lambda: list(opener.update(b""))):
        with pytest.raises(DecryptionFailed):
            again()
    sealer = SegmentSealer(KEY.derive, b"info", SEGMENT)
    list(sealer.finish())
    for more in (sealer.finish, lambda: sealer.update(b"")):
        with pytest.raises(ValueError, match="finished"):
            list(more())


@pytest.mark.parametrize("cut", [-1, MIB, MIB + 20])
def test_a_reader_of_a_stream_that_was_cut_never_comes_to_its_end(cut):
    header = EnvelopeHeader(b"wrapped")
    sealed = header.encode() + seal([bytes(2 * MIB)], size=header.segment_bytes)

    def open_stream(found: EnvelopeHeader) -> SegmentOpener:
        return SegmentOpener(KEY.derive, b"info", found.segment_bytes)

    assert EnvelopeReader(io.BytesIO(sealed), open_stream).read() == bytes(2 * MIB)
    reader = EnvelopeReader(io.BytesIO(sealed[:cut]), open_stream)
    with pytest.raises(DecryptionFailed):
        shutil.copyfileobj(reader, io.BytesIO())
    for _ in range(3):
        with pytest.raises(DecryptionFailed):
            reader.read(100)


def test_what_is_in_memory_once_is_not_there_twice():
    sealer = SegmentSealer(KEY.derive, b"info", SEGMENT)
    pieces = sealer.update(bytes(100 * SEGMENT))
    assert len(next(pieces)) == HEADER_BYTES
    assert [len(next(pieces)) for _ in range(3)] == [SEGMENT - HEADER_BYTES, SEGMENT, SEGMENT]


def test_no_number_is_used_twice_by_who_does_not_read_on():
    sealer = SegmentSealer(KEY.derive, b"info", SEGMENT)
    pieces = sealer.update(bytes(10 * SEGMENT))
    assert [len(next(pieces)) for _ in range(2)] == [HEADER_BYTES, SEGMENT - HEADER_BYTES]
    pieces.close()
    assert sealer._number == 1
    for more in (sealer.finish, lambda: sealer.update(b"")):  # it would open without what was not read
        with pytest.raises(ValueError, match="not all of it"):
            list(more())


def test_a_file_that_does_not_block_and_takes_nothing_is_an_error():
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    with open(reading, "rb"), open(writing, "wb", buffering=0) as sink, pytest.raises(BlockingIOError) as raised:
        write_all(sink, bytes(1 << 22))
    assert 0 < raised.value.characters_written < 1 << 22


class Full(io.BytesIO):
    """A file that fails once, at one of its writes."""

    def __init__(self, fails_at: int) -> None:
        super().__init__()
        self._until = fails_at

    def write(self, data) -> int:
        self._until -= 1
        if self._until == 0:
            raise TimeoutError("slow")
        return super().write(data)


@pytest.mark.parametrize("fails_at", [2, 3, 4])  # header of the stream, and segments
def test_after_a_write_that_failed_nothing_completes_the_stream(fails_at):
    def writer(sink: io.BytesIO) -> EnvelopeWriter:
        return EnvelopeWriter(sink, b"H", SegmentSealer(KEY.derive, b"info", SEGMENT))

    sink = Full(fails_at)
    out = writer(sink)
    with pytest.raises(TimeoutError):
        out.write(bytes(10 * SEGMENT))
    for again in (lambda: out.write(b"m"), out.close):
        with pytest.raises(OSError, match="not complete"):
            again()
    out.close()
    assert out.closed
    assert not read([sink.getvalue()[1:]])[1]
    sink = Full(fails_at)
    with pytest.raises(OSError), io.BufferedWriter(writer(sink), 100) as buffered:  # noqa: PT011  # either may be told
        buffered.write(bytes(10 * SEGMENT))
    assert not read([sink.getvalue()[1:]])[1]


def test_what_came_in_a_buffer_may_be_overwritten_there():
    sealer, buffer, out = SegmentSealer(KEY.derive, b"info", SEGMENT), bytearray(FIRST), b""
    for value in range(3):
        size = OTHERS if value else FIRST
        buffer[:] = bytes([value]) * size
        out += b"".join(sealer.update(memoryview(buffer)))
    out += b"".join(sealer.finish())
    assert read([out]) == (bytes(FIRST) + b"\1" * OTHERS + b"\2" * OTHERS, True)


@given(plaintexts, st.lists(st.tuples(st.integers(0, 7 * SEGMENT), st.integers(0, 3 * SEGMENT)), min_size=1))
def test_any_range_of_a_seekable_stream_is_what_was_written_there(plaintext, ranges):
    sealed = b"before" + seal([plaintext])
    cipher = read_stream(KEY.derive, b"info", SEGMENT, sealed[6 : 6 + HEADER_BYTES])
    file = io.BufferedReader(EnvelopeFile(io.BytesIO(sealed), cipher, 6))
    for at, size in ranges:
        file.seek(at)
        assert file.read(size) == plaintext[at : at + size]
    assert file.seek(0, io.SEEK_END) == len(plaintext)


@settings(max_examples=200)
@given(st.data(), plaintexts)
def test_a_seekable_stream_that_was_changed_gives_nothing_that_was_not_written_there(data, plaintext):
    sealed = seal([plaintext])
    changed = harm(data.draw, sealed)
    try:
        cipher = read_stream(KEY.derive, b"info", SEGMENT, changed[:HEADER_BYTES])
        file = EnvelopeFile(io.BytesIO(changed), cipher, 0)
    except DecryptionFailed:
        return
    assert file.seek(0, io.SEEK_END) == len(plaintext)
    for at in range(0, len(plaintext), OTHERS):
        file.seek(at)
        try:
            piece = file.read(OTHERS)
        except DecryptionFailed:
            continue
        assert plaintext[at:].startswith(piece)


@given(st.binary(max_size=80) | st.binary(max_size=40).map(lambda tail: MAGIC + b"\x14\x00\x05" + tail), cuts)
def test_whatever_comes_as_a_header_is_read_or_refused(data, at):
    reader, found = HeaderReader(), None
    try:
        for piece in pieces(data, at):
            found = found or reader.feed(piece)
    except DecryptionFailed:
        assert (
            data[: len(MAGIC)] != MAGIC or data[4] not in range(12, 25) or not 1 <= int.from_bytes(data[5:7]) <= 1_024
        )
        return
    if found is not None:
        header, rest = found
        assert data.startswith(header.encode() + rest)


def test_threads_that_use_a_data_key_while_it_is_forgotten_get_its_keys_or_an_error():
    """Never the keys of 32 zeros, which everybody knows."""
    right, zeros = KEY.derive(b"salt", b"info"), DataKey(bytes(32), b"").derive(b"salt", b"info")
    seen: set[bytes] = set()

    def use(key: DataKey) -> None:
        with suppress(Forgotten):
            while True:
                seen.add(key.derive(b"salt", b"info"))

    for _ in range(20):
        key = DataKey(bytes(range(32)), b"")
        threads = [threading.Thread(target=use, args=(key,)) for _ in range(3)]
        for thread in threads:
            thread.start()
        key.forget()
        for thread in threads:
            thread.join()
    assert seen <= {right}
    assert zeros != right


def test_a_stream_has_so_many_segments_and_no_more():
    cipher = SegmentCipher(bytes(32), bytes(7), SEGMENT)
    sealed = cipher.seal(MAX_SEGMENTS - 1, b"m", last=True)
    assert cipher.open(MAX_SEGMENTS - 1, sealed, last=True) == b"m"
    with pytest.raises(StreamTooLong):
        cipher.seal(MAX_SEGMENTS, b"m", last=True)
    with pytest.raises(DecryptionFailed):
        cipher.open(MAX_SEGMENTS, sealed, last=True)


# -- Tink ---------------------------------------------------------------------------------------------------------------


def tink_primitive(data_key: bytes, segment_bytes: int):
    """Tink's AES-GCM-HKDF streaming AEAD with a data key."""
    streaming_aead.register()
    params = aes_gcm_hkdf_streaming_pb2.AesGcmHkdfStreamingParams(
        ciphertext_segment_size=segment_bytes, derived_key_size=32, hkdf_hash_type=common_pb2.SHA256
    )
    key = aes_gcm_hkdf_streaming_pb2.AesGcmHkdfStreamingKey(params=params, key_value=data_key)
    keyset = tink_pb2.Keyset(primary_key_id=1)
    keyset.key.add(
        key_data=tink_pb2.KeyData(
            type_url="type.googleapis.com/google.crypto.tink.AesGcmHkdfStreamingKey",
            value=key.SerializeToString(),
            key_material_type=tink_pb2.KeyData.SYMMETRIC,
        ),
        status=tink_pb2.ENABLED,
        key_id=1,
        output_prefix_type=tink_pb2.RAW,
    )
    handle = cleartext_keyset_handle.read(BinaryKeysetReader(keyset.SerializeToString()))
    return handle.primitive(streaming_aead.StreamingAead)


@pytest.mark.parametrize("size", [0, 1, 100, (1 << 12) - 56, (1 << 12) - 55, 50_000])
def test_tink_reads_our_segments_and_we_read_tinks(size):
    tink, plaintext = tink_primitive(bytes(range(32)), 1 << 12), os.urandom(size)
    with tink.new_decrypting_stream(io.BytesIO(seal([plaintext], b"aad", 1 << 12)), b"aad") as stream:
        assert stream.read() == plaintext
    written = io.BytesIO()
    stream = tink.new_encrypting_stream(NotClosed(written), b"aad")
    stream.write(plaintext)
    stream.close()
    assert read([written.getvalue()], b"aad", 1 << 12) == (plaintext, True)


class NotClosed(io.RawIOBase):
    """Keeps what is written to it when Tink closes it."""

    def __init__(self, into: io.BytesIO) -> None:
        self._into = into

    def writable(self) -> bool:
        return True

    def write(self, data) -> int:
        return self._into.write(data)
