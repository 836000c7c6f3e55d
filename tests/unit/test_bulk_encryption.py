"""Ciphers that encrypt many messages in one go do to each what they do to one."""

from __future__ import annotations

import pytest

from vaultd.backends.base import BulkEncryption, Operation, OpKind
from vaultd.backends.software import SoftwareBackend

ALGORITHMS = ["AES_128_GCM", "AES_256_GCM", "AES_256_GCM_SIV", "CHACHA20_POLY1305", "XAES_256_GCM"]


@pytest.mark.parametrize("algorithm", ALGORITHMS)
async def test_each_message_opens_with_its_own_context_and_no_nonce_comes_twice(algorithm):
    backend = SoftwareBackend()
    handle = await backend.load(algorithm, await backend.generate(algorithm, ""))
    assert isinstance(handle, BulkEncryption)
    messages = [(b"p" * (at % 70), b"context" * (at % 3)) for at in range(300)]
    sealed = handle.encrypt_many(messages)
    assert len({each[:12] for each in sealed}) == len(messages)
    opened = [
        handle.perform(Operation(OpKind.DECRYPT, each, context))
        for each, (_, context) in zip(sealed, messages, strict=True)
    ]
    assert opened == [data for data, _ in messages]


async def test_deterministic_encryption_goes_one_by_one():
    backend = SoftwareBackend()
    handle = await backend.load("AES_256_SIV", await backend.generate("AES_256_SIV", ""))
    assert not isinstance(handle, BulkEncryption)
