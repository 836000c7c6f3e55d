"""gRPC framing of the Envoy host: messages cut anywhere, what is refused, and how a status is written."""

import random

import pytest

from vaultd.errors import InvalidArgument, ResourceExhausted, Unimplemented
from vaultd.hosts.envoy.wire import (
    MAX_MESSAGE_BYTES,
    Messages,
    decode_binary,
    encode_message,
    encode_trailing,
    frame,
    is_grpc,
    only_message,
    parse_timeout,
    status_headers,
)


def taken(pieces):
    """Every message of a body that comes in these pieces."""
    messages, found = Messages(), []
    for piece in pieces:
        messages.feed(piece)
        while (message := messages.take()) is not None:
            found.append(message)
    messages.require_whole()
    return found


def cut(body: bytes, chance: random.Random) -> list[bytes]:
    pieces = []
    while body:
        size = chance.randint(1, max(1, min(len(body), chance.choice([1, 3, 7, 100, 100_000]))))
        pieces.append(body[:size])
        body = body[size:]
    return pieces


@pytest.mark.parametrize("seed", range(50))
def test_messages_are_the_same_however_the_body_is_cut(seed):
    chance = random.Random(seed)
    sent = [chance.randbytes(chance.choice([0, 1, 4, 5, 6, 200, 70_000])) for _ in range(chance.randint(0, 20))]
    assert taken(cut(b"".join(map(frame, sent)), chance)) == sent


@pytest.mark.parametrize("message", [b"", b"x", bytes(200), bytes(MAX_MESSAGE_BYTES)])
def test_a_body_of_one_whole_message_is_told_from_every_other(message):
    body = frame(message)
    assert only_message(body) == message
    for other in (b"", body[:4], body[:-1], body + b"\0", body + body, b"\1" + body[1:], b"\xff" + body[1:]):
        assert only_message(other) is None
    assert only_message(frame(bytes(MAX_MESSAGE_BYTES + 1))) is None


def test_an_empty_message_is_a_message():
    assert taken([frame(b"")]) == [b""]


def test_the_largest_message_is_taken_and_one_byte_more_is_refused_at_its_prefix():
    assert taken([frame(bytes(MAX_MESSAGE_BYTES))]) == [bytes(MAX_MESSAGE_BYTES)]
    messages = Messages()
    messages.feed(b"\0" + (MAX_MESSAGE_BYTES + 1).to_bytes(4, "big"))
    with pytest.raises(ResourceExhausted) as refused:
        messages.take()
    assert refused.value.reason == "MESSAGE_TOO_LARGE"


@pytest.mark.parametrize("flag", [1, 2, 255])
def test_a_flag_that_says_compressed_is_refused(flag):
    messages = Messages()
    messages.feed(bytes([flag]) + frame(b"x")[1:])
    with pytest.raises(Unimplemented) as refused:
        messages.take()
    assert refused.value.reason == "COMPRESSION_UNSUPPORTED"


@pytest.mark.parametrize("kept", [1, 4, 5, 7])
def test_a_body_that_ends_within_a_message_is_refused(kept):
    with pytest.raises(InvalidArgument) as refused:
        taken([frame(b"first"), frame(b"abc")[:kept]])
    assert refused.value.reason == "MESSAGE_TRUNCATED"


@pytest.mark.parametrize(
    ("value", "seconds"),
    [(b"1S", 1.0), (b"250m", 0.25), (b"5u", 5e-6), (b"7n", 7e-9), (b"2M", 120.0), (b"1H", 3600.0), (b"0S", 0.0)],
)
def test_a_timeout_is_read_in_its_unit(value, seconds):
    assert parse_timeout(value) == pytest.approx(seconds)


@pytest.mark.parametrize("value", [b"", b"S", b"1", b"1s", b"-1S", b"1.5S", b"123456789S", b"1 S", "\u0661S".encode()])
def test_what_is_no_timeout_is_none(value):
    assert parse_timeout(value) is None


def test_binary_values_go_out_without_padding_and_come_in_with_or_without():
    assert encode_trailing([("a-bin", b"\xff\xfe"), ("b", "text")]) == [(b"a-bin", b"//4"), (b"b", b"text")]
    assert decode_binary(b"//4") == decode_binary(b"//4=") == b"\xff\xfe"
    assert decode_binary(b"not base64!") is None


def test_a_message_is_ascii_on_the_wire():
    assert encode_message("100 % of `ü`\n") == b"100 %25 of `%C3%BC`%0A"


def test_a_status_has_its_code_text_and_trailing_metadata():
    assert status_headers(0, "", ()) == [(b"grpc-status", b"0")]
    assert status_headers(5, "no", (("x", "y"),)) == [(b"grpc-status", b"5"), (b"grpc-message", b"no"), (b"x", b"y")]


@pytest.mark.parametrize("value", [b"application/grpc", b"application/grpc+proto", b"Application/gRPC;charset=utf-8"])
def test_grpc_is_told_by_its_content_type(value):
    assert is_grpc(value)


@pytest.mark.parametrize("value", [b"", b"application/json", b"application/grpc-web", b"application/grpcx"])
def test_other_content_types_are_not_grpc(value):
    assert not is_grpc(value)
