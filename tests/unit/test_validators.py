"""What is said of many requests together is what the checks say of each."""

from __future__ import annotations

import google_crc32c
import pytest

from vaultd.errors import VaultdError
from vaultd.interceptors.validate import MAX_CIPHERTEXT, MAX_PLAINTEXT, compile_validator
from vaultd_client.v1 import crypto_pb2 as pb
from vaultd_client.v1 import keys_pb2


def passes(validator, request, *length: int) -> bool:
    try:
        validator.rest(request, *length)
    except VaultdError:
        return False
    return True


GOOD = [
    pb.EncryptRequest(plaintext=bytes(MAX_PLAINTEXT), associated_data=b"x"),
    pb.DecryptRequest(ciphertext=bytes(MAX_CIPHERTEXT)),
    pb.SignRequest(message=bytes(MAX_PLAINTEXT)),
    pb.SignRequest(digest=bytes(64), signature_encoding=1),
    pb.GenerateMacRequest(data=b"x"),
]
BAD = [
    pb.EncryptRequest(plaintext=bytes(MAX_PLAINTEXT + 1)),
    pb.EncryptRequest(associated_data=bytes(MAX_PLAINTEXT + 1)),
    pb.EncryptRequest(plaintext=b"x", plaintext_crc32c=1),
    pb.DecryptRequest(ciphertext=bytes(MAX_CIPHERTEXT + 1)),
    pb.SignRequest(digest=bytes(65)),
    pb.SignRequest(message=b"x", signature_encoding=77),
    pb.SignRequest(message=b"x", input_crc32c=1),
]


@pytest.mark.parametrize("request_type", [pb.EncryptRequest, pb.DecryptRequest, pb.SignRequest, pb.GenerateMacRequest])
def test_plain_are_those_that_pass_and_bring_no_checksum(request_type):
    validator = compile_validator(request_type, refuse_unknown=False)
    good = [request for request in GOOD if type(request) is request_type]
    bad = [request for request in BAD if type(request) is request_type]
    assert all(passes(validator, request) for request in good)
    assert not any(passes(validator, request) for request in bad)
    assert validator.plain(good)
    for request in bad:
        assert not validator.plain([*good * 20, request, *good * 20])


def test_a_checksum_is_always_looked_at_by_itself():
    validator = compile_validator(pb.EncryptRequest, refuse_unknown=False)
    request = pb.EncryptRequest(plaintext=b"x", plaintext_crc32c=google_crc32c.value(b"x"))
    assert passes(validator, request)
    assert not validator.plain([request])


def test_where_something_else_is_checked_nothing_is_plain():
    assert not compile_validator(pb.EncryptRequest, refuse_unknown=True).plain([pb.EncryptRequest()])
    assert not compile_validator(keys_pb2.ListKeysRequest, refuse_unknown=False).plain([keys_pb2.ListKeysRequest()])


@pytest.mark.parametrize("message", [*GOOD, *BAD, pb.VerifyMacRequest(data=b"x"), pb.VerifyMacRequest(mac=bytes(64))])
def test_the_length_of_a_request_changes_no_verdict_about_it(message):
    validator = compile_validator(type(message), refuse_unknown=False)
    assert passes(validator, message, message.ByteSize()) == passes(validator, message)
