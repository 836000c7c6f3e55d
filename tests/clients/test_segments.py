"""Segments of encrypted streams: whatever is done to one, nothing is given out that was not written there."""

from __future__ import annotations

import io
import os
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tink import BinaryKeysetReader, cleartext_keyset_handle, streaming_aead
from tink.proto import aes_gcm_hkdf_streaming_pb2, common_pb2, tink_pb2

from vaultd_client import DecryptionFailed
from vaultd_client.data_keys import DataKey
from vaultd_client.segments import (
    HEADER_BYTES,
    MAX_SEGMENTS,
    SegmentCipher,
    SegmentOpener,
    SegmentSealer,
    StreamTooLong,
)

SEGMENT = 64
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
            out += b"".join(opener.update(piece))
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


@settings(max_examples=400)
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
    other.update(sealed)
    with pytest.raises(DecryptionFailed):
        other.finish()


def test_after_an_error_nothing_more_comes():
    sealed = bytearray(seal([bytes(FIRST + 3 * OTHERS)]))
    sealed[SEGMENT] ^= 1
    opener = SegmentOpener(KEY.derive, b"info", SEGMENT)
    assert opener.update(bytes(sealed)) == [bytes(FIRST)]
    for again in (opener.finish, lambda: opener.update(b"")):
        with pytest.raises(DecryptionFailed):
            again()


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
