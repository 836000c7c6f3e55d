"""Answers that are encoded by hand are byte for byte what the Protobuf library writes, and reads."""

from __future__ import annotations

import google_crc32c
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vaultd.audit.log import Receipt
from vaultd.interceptors.audit import serialize
from vaultd.services.encoding import (
    bytes_field,
    checksum_field,
    head,
    source_field,
    value_answer,
    varint,
    verdict_answer,
)
from vaultd_client.v1 import crypto_pb2 as pb
from vaultd_client.v1 import secrets_pb2
from vaultd_client.v1.resources_pb2 import AuditReceipt

SIZES = st.sampled_from([0, 1, 2, 15, 64, 127, 128, 129, 255, 256, 16_383, 16_384, 70_000])
VALUES = st.one_of(st.binary(max_size=200), SIZES.map(lambda size: b"\x80" * size))
ID = st.from_regex(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?", fullmatch=True)
NAMES = st.builds("vaults/{}/keys/{}/versions/{}".format, ID, ID, st.integers(1, 999_999_999))
VALUE_ANSWERS = [
    (pb.EncryptResponse, "ciphertext"),
    (pb.DecryptResponse, "plaintext"),
    (pb.SignResponse, "signature"),
    (pb.GenerateMacResponse, "mac"),
    (pb.WrapKeyResponse, "wrapped_key"),
    (pb.UnwrapKeyResponse, "key_material"),
]


@pytest.mark.parametrize(("response", "field"), VALUE_ANSWERS)
@settings(max_examples=60, deadline=None)
@given(value=VALUES, name=NAMES, checked=st.booleans())
def test_a_value_is_encoded_as_the_library_does(response, field, value, name, checked):
    message = response(**{field: value}, key_version=name)
    encoded = value_answer(value, name)
    if checked:
        crc = google_crc32c.value(value)
        setattr(message, f"{field}_crc32c", crc)
        encoded += checksum_field(crc)
    assert encoded == message.SerializeToString()
    assert response.FromString(encoded) == message


@pytest.mark.parametrize("response", [pb.VerifyResponse, pb.VerifyMacResponse])
@pytest.mark.parametrize("valid", [True, False])
@settings(max_examples=20, deadline=None)
@given(name=NAMES)
def test_a_verdict_is_encoded_as_the_library_does(response, valid, name):
    assert verdict_answer(valid, name) == response(valid=valid, key_version=name).SerializeToString()


@settings(max_examples=60, deadline=None)
@given(value=VALUES, name=NAMES, source=NAMES, checked=st.booleans())
def test_a_reencryption_is_encoded_as_the_library_does(value, name, source, checked):
    message = pb.ReEncryptResponse(ciphertext=value, key_version=name, source_key_version=source)
    encoded = value_answer(value, name) + source_field(source)
    if checked:
        message.ciphertext_crc32c = google_crc32c.value(value)
        encoded += checksum_field(google_crc32c.value(value))
    assert encoded == message.SerializeToString()


@settings(max_examples=60, deadline=None)
@given(value=VALUES.filter(bool), name=NAMES, crc=st.integers(0, 2**32 - 1), kind=st.text(max_size=128))
def test_a_payload_sealed_or_described_is_encoded_as_the_library_does(value, name, crc, kind):
    described = secrets_pb2.AccessSecretVersionResponse(content_type=kind)
    described.metadata["owner"] = kind
    described.expire_time.seconds = crc + 1
    sealed = secrets_pb2.AccessSecretVersionResponse(version=name, sealed_payload=value, sealed_payload_crc32c=crc)
    sealed.MergeFrom(described)
    said = described.SerializeToString(deterministic=True)
    encoded = value_answer(b"", name) + bytes_field(4, value) + said + checksum_field(crc, 21)
    assert encoded == sealed.SerializeToString(deterministic=True)


@settings(max_examples=100, deadline=None)
@given(lengths=st.lists(SIZES, min_size=1, max_size=20))
def test_results_are_framed_as_the_library_does(lengths):
    message, framed = pb.BatchEncryptResponse(), b""
    for at, length in enumerate(lengths):
        if at % 3 == 2:
            message.results.add().status.message = "x" * length
            inner = bytes(message.results[-1].status.SerializeToString())
            framed += head(1, len(head(2, len(inner)) + inner)) + head(2, len(inner)) + inner
        else:
            message.results.add().result.ciphertext = bytes(length)
            inner = bytes(message.results[-1].result.SerializeToString())
            framed += head(1, len(head(1, len(inner)) + inner)) + head(1, len(inner)) + inner
    assert framed == message.SerializeToString()


@given(st.integers(0, 2**63 - 1))
def test_a_varint_ends_where_its_last_group_does(number):
    encoded = varint(number)
    assert [byte >> 7 for byte in encoded] == [1] * (len(encoded) - 1) + [0]
    assert sum((byte & 0x7F) << 7 * at for at, byte in enumerate(encoded)) == number


@given(st.binary(min_size=16, max_size=16), st.integers(1, 2**62), st.binary(min_size=32, max_size=32))
def test_a_receipt_is_encoded_as_the_library_does(chain_id, sequence, leaf_hash):
    receipt = AuditReceipt(chain_id=chain_id, sequence=sequence, leaf_hash=leaf_hash)
    assert serialize(Receipt(chain_id, sequence, leaf_hash)) == receipt.SerializeToString()
