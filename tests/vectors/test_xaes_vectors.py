"""XAES-256-GCM against the vectors of https://c2sp.org/XAES-256-GCM."""

from __future__ import annotations

import hashlib
from concurrent.futures import ThreadPoolExecutor

import pytest

from vaultd.backends.base import OpKind
from vaultd.backends.xaes import XAES256GCM
from vaultd.errors import DecryptionFailed
from vectors.published import open_vault

NONCE = b"ABCDEFGHIJKLMNOPQRSTUVWX"
PLAINTEXT = b"XAES-256-GCM"
# The most significant bit of L is 0 for the first key and 1 for the second.
SINGLE = [
    (b"\x01" * 32, b"", "ce546ef63c9cc60765923609b33a9a1974e96e52daf2fcf7075e2271"),
    (b"\x03" * 32, b"c2sp.org/XAES-256-GCM", "986ec1832593df5443a179437fd083bf3fdb41abd740a21f71eb769d"),
]
ACCUMULATED_10_000 = "e6b9edf2df6cec60c8cbd864e2211b597fb69a529160cd040d56c0c210081939"
LONGEST_INPUT_BYTES = 10_000 * (32 + 24 + 2 * 256)


@pytest.mark.parametrize(("key", "aad", "ciphertext"), SINGLE)
def test_published_message_is_sealed(key, aad, ciphertext):
    assert XAES256GCM(key)._encrypt_with_nonce(NONCE, PLAINTEXT, aad).hex() == ciphertext


@pytest.mark.parametrize(("key", "aad", "ciphertext"), SINGLE)
async def test_published_message_opens_through_the_backend(key, aad, ciphertext):
    sealed = NONCE + bytes.fromhex(ciphertext)
    async with open_vault() as vault:
        handle = (await vault.take_in("XAES_256_GCM", key)).private
        assert await vault.use(handle, OpKind.DECRYPT, sealed, aad) == PLAINTEXT
        with pytest.raises(DecryptionFailed):
            await vault.use(handle, OpKind.DECRYPT, sealed, aad + b"\0")


@pytest.mark.slow
def test_accumulated_randomised_vectors():
    stream = memoryview(hashlib.shake_128(b"").digest(LONGEST_INPUT_BYTES))
    assert stream[:16].hex() == "7f9c2ba4e88f827d616045507605853e"
    position = 0

    def take(size: int) -> bytes:
        nonlocal position
        position += size
        return bytes(stream[position - size : position])

    accumulated = hashlib.shake_128()
    for _ in range(10_000):
        key, nonce = take(32), take(24)
        plaintext = take(take(1)[0])
        aad = take(take(1)[0])
        cipher = XAES256GCM(key)
        ciphertext = cipher._encrypt_with_nonce(nonce, plaintext, aad)
        assert cipher.decrypt(nonce + ciphertext, aad) == plaintext
        accumulated.update(ciphertext)
    assert accumulated.hexdigest(32) == ACCUMULATED_10_000


def test_encryption_is_what_the_vectors_prove_under_a_random_nonce():
    cipher = XAES256GCM(bytes(range(32)))
    for size in (0, 1, 64, 1000):
        sealed = cipher.encrypt(bytes(size), b"aad")
        assert sealed[24:] == cipher._encrypt_with_nonce(sealed[:24], bytes(size), b"aad")


def test_many_messages_are_encrypted_as_one_is_each_under_a_nonce_of_its_own():
    cipher = XAES256GCM(bytes(range(32)))
    messages = [(b"m" * size, b"aad" * (size % 3)) for size in (0, 1, 64, 1000, 64, 0)]
    sealed = cipher.encrypt_many(messages)
    assert len({each[:24] for each in sealed}) == len(messages)
    for each, (plaintext, aad) in zip(sealed, messages, strict=True):
        assert each[24:] == cipher._encrypt_with_nonce(each[:24], plaintext, aad)
    assert cipher.encrypt_many([]) == []


def test_threads_share_a_key_without_mixing_blocks():
    cipher = XAES256GCM(bytes(range(32)))

    def seal_and_open(worker: int) -> bool:
        messages = [b"%d:%d" % (worker, number) for number in range(2000)]
        return all(cipher.decrypt(cipher.encrypt(message, b""), b"") == message for message in messages)

    with ThreadPoolExecutor(4) as threads:
        assert list(threads.map(seal_and_open, range(4))) == [True] * 4


@pytest.mark.parametrize("size", [0, 16, 31, 33])
def test_key_of_another_length_is_refused(size):
    with pytest.raises(ValueError, match="32 bytes"):
        XAES256GCM(bytes(size))
