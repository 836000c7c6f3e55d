"""AES-GCM, GCM-SIV, ChaCha20-Poly1305, AES-SIV, KWP, HMAC and CMAC against published vectors, through the backend."""

from __future__ import annotations

import hashlib

import pytest

from vaultd.backends.base import OpKind
from vaultd.errors import DecryptionFailed, InvalidSignature
from vectors.published import every, open_vault, read_records


async def check_opening(vault, algorithm, key, sealed, aad, plaintext):
    """`plaintext` None means that it must not open."""
    handle = (await vault.take_in(algorithm, key)).private
    if plaintext is None:
        with pytest.raises(DecryptionFailed):
            await vault.use(handle, OpKind.DECRYPT, sealed, aad)
    else:
        assert await vault.use(handle, OpKind.DECRYPT, sealed, aad) == plaintext


@pytest.mark.parametrize("bits", [128, 256])
async def test_aes_gcm_of_nist(bits):
    ours = "[IVlen = 96]", "[Taglen = 128]"
    records = [
        record
        for record in read_records(f"ciphers/AES/GCM/gcmDecrypt{bits}.rsp", "count")
        if all(line in record["section"] for line in ours)
    ]
    opened = 0
    async with open_vault() as vault:
        for record in records[::2]:
            key, iv, ct, aad, tag = (bytes.fromhex(record[name]) for name in ("key", "iv", "ct", "aad", "tag"))
            plaintext = None if "fail" in record else bytes.fromhex(record["pt"])
            opened += plaintext is not None
            await check_opening(vault, f"AES_{bits}_GCM", key, iv + ct + tag, aad, plaintext)
    assert len(records[::2]) > 150
    assert 50 < opened < len(records[::2])


async def test_aes_256_gcm_siv_of_rfc_8452():
    checked = 0
    async with open_vault() as vault:
        for record in read_records("ciphers/AES/GCM-SIV/openssl.txt", "count"):
            key, iv, aad, tag, plaintext, ct = (
                bytes.fromhex(record.get(name, "")) for name in ("key", "iv", "aad", "tag", "plaintext", "ciphertext")
            )
            if len(key) != 32:
                continue
            await check_opening(vault, "AES_256_GCM_SIV", key, iv + ct + tag, aad, plaintext)
            await check_opening(vault, "AES_256_GCM_SIV", key, iv + ct + tag, aad + b"\0", None)
            checked += 1
    assert checked >= 24


async def test_chacha20_poly1305_of_rfc_8439_and_openssl():
    opened = refused = 0
    async with open_vault() as vault:
        for record in read_records("ciphers/ChaCha20Poly1305/openssl.txt", "count"):
            key, iv, aad, tag, plaintext, ct = (
                bytes.fromhex(record.get(name, "")) for name in ("key", "iv", "aad", "tag", "plaintext", "ciphertext")
            )
            if len(iv) != 12 or len(tag) != 16:
                continue
            expected = None if "result" in record else plaintext
            await check_opening(vault, "CHACHA20_POLY1305", key, iv + ct + tag, aad, expected)
            opened += expected is not None
            refused += expected is None
    assert (opened, refused) == (4, 1)


async def test_chacha20_poly1305_of_rfc_8439_and_boringssl():
    def decode(value: str) -> bytes:
        return value.strip('"').encode() if value.startswith('"') else bytes.fromhex(value)

    checked = 0
    async with open_vault() as vault:
        for record in read_records("ciphers/ChaCha20Poly1305/boringssl.txt", "count"):
            key, nonce, plaintext, aad, ct, tag = (
                decode(record[name]) for name in ("key", "nonce", "in", "ad", "ct", "tag")
            )
            if len(nonce) != 12 or len(tag) != 16:
                continue
            await check_opening(vault, "CHACHA20_POLY1305", key, nonce + ct + tag, aad, plaintext)
            await check_opening(vault, "CHACHA20_POLY1305", key, nonce + ct + tag[:-1], aad, None)
            checked += 1
    assert checked >= 50


async def test_aes_256_siv_with_the_rfc_5297_vectors_of_openssl():
    records = [
        record
        for record in read_records("ciphers/AES/SIV/openssl.txt", "count")
        if len(record["key"]) == 128 and "aad" in record and "aad2" not in record
    ]
    async with open_vault() as vault:
        for record in records:
            key, aad, tag, plaintext, ct = (
                bytes.fromhex(record[name]) for name in ("key", "aad", "tag", "plaintext", "ciphertext")
            )
            handle = (await vault.take_in("AES_256_SIV", key)).private
            if "result" in record:
                with pytest.raises(DecryptionFailed):
                    await vault.use(handle, OpKind.DECRYPT, tag + ct, aad)
                continue
            assert await vault.use(handle, OpKind.ENCRYPT, plaintext, aad) == tag + ct
            assert await vault.use(handle, OpKind.DECRYPT, tag + ct, aad) == plaintext
    assert records


async def test_aes_256_kwp_of_nist_wraps():
    records = every(read_records("keywrap/kwtestvectors/KWP_AE_256.txt", "count"), 2)
    async with open_vault() as vault:
        for record in records:
            handle = (await vault.take_in("AES_256_KWP", bytes.fromhex(record["k"]))).private
            assert (await vault.use(handle, OpKind.WRAP, bytes.fromhex(record["p"]))).hex() == record["c"]
    assert len(records) >= 250


async def test_aes_256_kwp_of_nist_unwraps_or_refuses():
    records = every(read_records("keywrap/kwtestvectors/KWP_AD_256.txt", "count"), 2)
    refused = 0
    async with open_vault() as vault:
        for record in records:
            handle = (await vault.take_in("AES_256_KWP", bytes.fromhex(record["k"]))).private
            wrapped = bytes.fromhex(record["c"])
            if "fail" in record:
                refused += 1
                with pytest.raises(DecryptionFailed):
                    await vault.use(handle, OpKind.UNWRAP, wrapped)
            else:
                assert (await vault.use(handle, OpKind.UNWRAP, wrapped)).hex() == record["p"]
    assert 20 < refused < len(records)


@pytest.mark.parametrize(("bits", "block_bytes"), [(256, 64), (384, 128), (512, 128)])
async def test_hmac_of_rfc_4231(bits, block_bytes):
    """The RFC's keys have other lengths than ours; HMAC itself says which key of ours each of them is equal to."""
    checked = 0
    async with open_vault() as vault:
        for record in read_records(f"HMAC/rfc-4231-sha{bits}.txt", "len"):
            key, message, code = (bytes.fromhex(record[name]) for name in ("key", "msg", "md"))
            if len(key) > block_bytes:
                key = hashlib.new(f"sha{bits}", key).digest()
            handle = (await vault.take_in(f"HMAC_SHA{bits}", key.ljust(bits // 8, b"\0"))).private
            assert await vault.use(handle, OpKind.MAC, message) == code
            assert await vault.use(handle, OpKind.VERIFY_MAC, message, code) == b""
            with pytest.raises(InvalidSignature):
                await vault.use(handle, OpKind.VERIFY_MAC, message, code[:-1])
            checked += 1
    assert checked >= 6


async def test_aes_256_cmac_of_nist_sp_800_38b():
    records = list(read_records("CMAC/nist-800-38b-aes256.txt", "count"))
    async with open_vault() as vault:
        for record in records:
            handle = (await vault.take_in("AES_256_CMAC", bytes.fromhex(record["key"]))).private
            message = bytes.fromhex(record["message"])
            assert (await vault.use(handle, OpKind.MAC, message)).hex() == record["output"]
    assert len(records) == 4
