"""ML-KEM and ML-DSA against the published known-answer tests, through the backend."""

from __future__ import annotations

from itertools import islice

import pytest
from cryptography.hazmat.primitives.asymmetric import mldsa

from vaultd.backends.base import OpKind
from vaultd.errors import InvalidSignature
from vectors.published import ROOT, open_vault, read_records

SAMPLE = 40


@pytest.mark.parametrize("bits", [768, 1024])
async def test_ml_kem_keys_and_secrets(bits):
    """`ct_n` is an encapsulation for another key: it must open to the secret of FIPS 203's implicit rejection."""
    checked = 0
    async with open_vault() as vault:
        for record in islice(read_records(f"asymmetric/MLKEM/kat_MLKEM_{bits}.rsp", "count"), SAMPLE):
            key = await vault.take_in(f"ML_KEM_{bits}", bytes.fromhex(record["d"] + record["z"]))
            assert key.public_key.hex().endswith(record["pk"])
            for ciphertext, secret in (("ct", "ss"), ("ct_n", "ss_n")):
                shared = await vault.use(key.private, OpKind.DECAPSULATE, bytes.fromhex(record[ciphertext]))
                assert shared.hex() == record[secret]
            checked += 1
    assert checked == SAMPLE


@pytest.mark.parametrize(
    ("level", "public_type"),
    [(44, mldsa.MLDSA44PublicKey), (65, mldsa.MLDSA65PublicKey), (87, mldsa.MLDSA87PublicKey)],
)
async def test_ml_dsa_keys_and_signatures(level, public_type):
    """The published signatures have contexts and ours an empty one, so that neither verifies as the other."""
    checked = 0
    async with open_vault() as vault:
        for record in islice(read_records(f"asymmetric/MLDSA/kat_MLDSA_{level}_det_pure.rsp", "count"), SAMPLE):
            key = await vault.take_in(f"ML_DSA_{level}", bytes.fromhex(record["xi"]))
            assert key.public_key.hex().endswith(record["pk"])
            message, context = bytes.fromhex(record["msg"]), bytes.fromhex(record["ctx"])
            published = bytes.fromhex(record["sm"])[: int(record["smlen"]) - int(record["mlen"])]
            outside = public_type.from_public_bytes(bytes.fromhex(record["pk"]))
            outside.verify(published, message, context)
            with pytest.raises(InvalidSignature):
                await vault.use(key.public, OpKind.VERIFY_MESSAGE, message, published)
            ours = await vault.use(key.private, OpKind.SIGN_MESSAGE, message)
            outside.verify(ours, message)
            assert await vault.use(key.public, OpKind.VERIFY_MESSAGE, message, ours) == b""
            assert len(ours) == len(published)
            checked += 1
    assert checked == SAMPLE


@pytest.mark.parametrize(("name", "algorithm"), [("MLDSA/mldsa44_priv", "ML_DSA_44"), ("MLKEM/mlkem768", "ML_KEM_768")])
async def test_published_pkcs8_is_taken_in(name, algorithm):
    async with open_vault() as vault:
        key = await vault.take_in(algorithm, (ROOT / "asymmetric" / f"{name}.der").read_bytes())
        if algorithm == "ML_DSA_44":
            assert key.public_key == (ROOT / "asymmetric/MLDSA/mldsa44_pub.der").read_bytes()
        else:
            made = await vault.use(key.public, OpKind.ENCAPSULATE, b"")
            assert await vault.use(key.private, OpKind.DECAPSULATE, made[32:]) == made[:32]
