"""ECDSA, ECDH, Ed25519, Ed448 and X25519 against published vectors, through the backend."""

from __future__ import annotations

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature

from vaultd.backends.base import OpKind
from vaultd.errors import InvalidArgument, InvalidSignature
from vectors.published import ec_material, ec_public, every, open_vault, read_lines, read_records

ECDSA = [
    ("EC_P256_SHA256", "[P-256,SHA-256]", ec.SECP256R1()),
    ("EC_P384_SHA384", "[P-384,SHA-384]", ec.SECP384R1()),
    ("EC_P521_SHA512", "[P-521,SHA-512]", ec.SECP521R1()),
]
ECDH = [("ECDH_P256", "[EC - SHA256]", ec.SECP256R1()), ("ECDH_P384", "[ED - SHA384]", ec.SECP384R1())]


@pytest.mark.parametrize(("algorithm", "section", "curve"), ECDSA)
async def test_ecdsa_signatures_of_nist_verify_or_do_not(algorithm, section, curve):
    records = [
        record
        for record in read_records("asymmetric/ECDSA/FIPS_186-3/SigVer.rsp", "msg")
        if record["section"] == section
    ]
    results = []
    async with open_vault() as vault:
        for record in records:
            x, y, r, s = (int(record[name], 16) for name in ("qx", "qy", "r", "s"))
            handle = vault.backend.load_public(algorithm, ec_public(curve, x, y))
            try:
                signature = encode_dss_signature(r, s)
                results.append(
                    await vault.use(handle, OpKind.VERIFY_MESSAGE, bytes.fromhex(record["msg"]), signature) == b""
                )
            except InvalidSignature:
                results.append(False)
    assert results == [record["result"].startswith("P") for record in records]
    assert set(results) == {True, False}


@pytest.mark.parametrize(
    ("algorithm", "section", "curve", "path"),
    [
        *((*row, "asymmetric/ECDSA/FIPS_186-3/SigGen.txt") for row in ECDSA),
        ("EC_SECP256K1_SHA256", "[K-256,SHA-256]", ec.SECP256K1(), "asymmetric/ECDSA/SECP256K1/SigGen.txt"),
    ],
)
async def test_published_ecdsa_keys_sign_and_verify(algorithm, section, curve, path):
    records = [record for record in read_records(path, "msg") if record["section"] == section]
    async with open_vault() as vault:
        for record in records:
            d, x, y, r, s = (int(record[name], 16) for name in ("d", "qx", "qy", "r", "s"))
            key = await vault.take_in(algorithm, ec_material(curve, d))
            assert key.public_key == ec_public(curve, x, y)
            message = bytes.fromhex(record["msg"])
            for signature in (encode_dss_signature(r, s), await vault.use(key.private, OpKind.SIGN_MESSAGE, message)):
                assert await vault.use(key.public, OpKind.VERIFY_MESSAGE, message, signature) == b""
            with pytest.raises(InvalidSignature):
                await vault.use(key.public, OpKind.VERIFY_MESSAGE, message, encode_dss_signature(r, s ^ 1))
    assert len(records) >= 10


@pytest.mark.parametrize(("algorithm", "section", "curve"), ECDH)
@pytest.mark.parametrize("role", ["init", "resp"])
async def test_ecdh_of_nist(algorithm, section, curve, role):
    """F records differ from sound ones in a point that is off its curve, or in a secret that is not what is shared."""
    path = f"asymmetric/ECDH/KASValidityTest_ECCStaticUnified_NOKC_ZZOnly_{role}.fax"
    agreed = refused = 0
    async with open_vault() as vault:
        for record in read_records(path, "count"):
            if record["section"] != section:
                continue
            private = ec.derive_private_key(int(record["dsiut"], 16), curve).public_key().public_numbers()
            if (private.x, private.y) != (int(record["qsiutx"], 16), int(record["qsiuty"], 16)):
                continue  # our own point is wrong: nothing that a peer can do
            size = (curve.key_size + 7) // 8
            peer = b"\x04" + b"".join(int(record[name], 16).to_bytes(size, "big") for name in ("qscavsx", "qscavsy"))
            key = await vault.take_in(algorithm, ec_material(curve, int(record["dsiut"], 16)))
            kind = record["result"][:3]
            if kind == "P (" or "Z changed" in record["result"]:
                shared = await vault.use(key.private, OpKind.DERIVE, peer)
                assert (shared == bytes.fromhex(record["z"])) is (kind == "P (")
                agreed += kind == "P ("
            elif "CAVS" in record["result"]:
                with pytest.raises(InvalidArgument) as caught:
                    await vault.use(key.private, OpKind.DERIVE, peer)
                assert caught.value.reason == "PEER_PUBLIC_KEY"
                refused += 1
    assert agreed >= 8
    assert refused >= 1


async def test_x25519_of_rfc_7748():
    records = list(read_records("asymmetric/X25519/rfc7748.txt", "count"))
    async with open_vault() as vault:
        for record in records:
            key = await vault.take_in("X25519", bytes.fromhex(record["input_scalar"]))
            shared = await vault.use(key.private, OpKind.DERIVE, bytes.fromhex(record["input_u"]))
            assert shared.hex() == record["output_u"]
    assert len(records) == 3


async def test_x25519_refuses_peers_of_low_order():
    low_order = [
        "0000000000000000000000000000000000000000000000000000000000000000",
        "0100000000000000000000000000000000000000000000000000000000000000",
        "e0eb7a7c3b41b8ae1656e3faf19fc46ada098deb9c32b1fd866205165f49b800",
        "5f9c95bca3508c24b1d0b1559c83ef5b04445cc4581c8e86d8224eddd09f1157",
        "ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
        "edffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
        "eeffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
    ]
    async with open_vault() as vault:
        key = await vault.take_in("X25519", bytes(range(32)))
        for peer in low_order:
            with pytest.raises(InvalidArgument) as caught:
                await vault.use(key.private, OpKind.DERIVE, bytes.fromhex(peer))
            assert caught.value.reason == "PEER_PUBLIC_KEY"


async def test_ed25519_signatures_are_those_of_its_authors():
    lines = list(read_lines("asymmetric/Ed25519/sign.input"))[::4]
    async with open_vault() as vault:
        for line in lines:
            secret, public, message, signed, _ = line.split(":")
            key = await vault.take_in("ED25519", bytes.fromhex(secret)[:32])
            assert key.public_key[-32:].hex() == public
            signature = await vault.use(key.private, OpKind.SIGN_MESSAGE, bytes.fromhex(message))
            assert (signature.hex() + message) == signed
            assert await vault.use(key.public, OpKind.VERIFY_MESSAGE, bytes.fromhex(message), signature) == b""
    assert len(lines) == 256


async def test_ed448_signatures_are_those_of_rfc_8032():
    checked = 0
    async with open_vault() as vault:
        for record in every(read_records("asymmetric/Ed448/rfc8032.txt", "count"), 1):
            if record.get("context"):
                continue
            key = await vault.take_in("ED448", bytes.fromhex(record["secret"]))
            assert key.public_key[-57:].hex() == record["public"]
            message = bytes.fromhex(record["message"])
            assert (await vault.use(key.private, OpKind.SIGN_MESSAGE, message)).hex() == record["signature"]
            checked += 1
    assert checked >= 7
