"""JWTs signed by remote keys through PyJWT and joserfc, each verified by the other with the published key set."""

from __future__ import annotations

import time

import joserfc.jwt
import jwt
import pytest
from cryptography.exceptions import UnsupportedAlgorithm
from joserfc.errors import BadSignatureError
from joserfc.jwk import KeySet, OKPKey, RSAKey

from clients.sdk_rig import VAULT, server_in_a_thread, sync_client
from vaultd_client import UsageError
from vaultd_client.integrations.jose import joserfc_key, jwks, thumbprint
from vaultd_client.integrations.private_keys import remote_private_key

ALGORITHMS = {
    "RS256": "RSA_PKCS1_2048_SHA256",
    "RS512": "RSA_PKCS1_3072_SHA512",
    "PS256": "RSA_PSS_2048_SHA256",
    "ES256": "EC_P256_SHA256",
    "ES384": "EC_P384_SHA384",
    "ES512": "EC_P521_SHA512",
    "EdDSA": "ED25519",
}
LIBRARIES_STILL_SAY_EDDSA = pytest.mark.filterwarnings("ignore:EdDSA is deprecated")


def name_of(algorithm: str) -> str:
    return f"{VAULT}/keys/{algorithm.lower()}"


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    with server_in_a_thread(tmp_path_factory.mktemp("jose")) as server, sync_client(server, "admin") as admin:
        for jose, algorithm in {**ALGORITHMS, "rotated": "ED25519"}.items():
            key = {"purpose": "KEY_PURPOSE_SIGN", "algorithm": f"ALGORITHM_{algorithm}"}
            admin.create_key(VAULT, jose.lower(), key)
        yield server


@pytest.fixture(scope="module")
def vault(server):
    with sync_client(server, "admin") as vault:
        yield vault


@pytest.fixture(scope="module")
def published(vault):
    return jwks(vault, map(name_of, ALGORITHMS))


def claims() -> dict:
    return {"sub": "orders", "exp": int(time.time()) + 60}


def verify_with_pyjwt(token: str, published: dict, algorithm: str) -> dict:
    keys = jwt.PyJWKSet.from_dict(published)
    return jwt.decode(token, keys[jwt.get_unverified_header(token)["kid"]], algorithms=[algorithm])


@LIBRARIES_STILL_SAY_EDDSA
@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_pyjwt_signs_and_joserfc_verifies(vault, published, algorithm):
    key = remote_private_key(vault, name_of(algorithm))
    token = jwt.encode(claims(), key, algorithm, headers={"kid": key.kid})
    keys = KeySet.import_key_set(published)
    verified = joserfc.jwt.decode(token, keys, algorithms=[algorithm])
    assert verified.claims["sub"] == "orders"
    assert verified.header["kid"] == f"{name_of(algorithm)}/versions/1"
    head, body, signature = token.split(".")
    with pytest.raises(BadSignatureError):
        joserfc.jwt.decode(
            f"{head}.{body[:-1]}{'A' if body[-1] != 'A' else 'E'}.{signature}", keys, algorithms=[algorithm]
        )


@LIBRARIES_STILL_SAY_EDDSA
@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_joserfc_signs_and_pyjwt_verifies(vault, published, algorithm):
    key = joserfc_key(remote_private_key(vault, name_of(algorithm)))
    header = {"alg": algorithm, "kid": key.kid}
    token = joserfc.jwt.encode(header, claims(), key, algorithms=[algorithm])
    assert verify_with_pyjwt(token, published, algorithm)["sub"] == "orders"


def test_the_fully_specified_name_of_ed25519_verifies_with_the_same_set(vault, published):
    key = joserfc_key(remote_private_key(vault, name_of("EdDSA")))
    token = joserfc.jwt.encode({"alg": "Ed25519", "kid": key.kid}, claims(), key, algorithms=["Ed25519"])
    keys = KeySet.import_key_set(published)
    assert joserfc.jwt.decode(token, keys, algorithms=["Ed25519"]).claims["sub"] == "orders"


def test_another_algorithm_than_that_of_the_key_is_refused(vault):
    key = remote_private_key(vault, name_of("RS256"))
    with pytest.raises(UnsupportedAlgorithm, match="RSA_PSS_2048_SHA256"):
        jwt.encode(claims(), key, "PS256")


def test_a_thumbprint_is_what_other_libraries_compute(vault, published):
    by_thumbprint = jwks(vault, map(name_of, ALGORITHMS), kid=thumbprint)
    for jwk, named in zip(by_thumbprint["keys"], published["keys"], strict=True):
        kinds = {"RSA": RSAKey, "OKP": OKPKey}
        if jwk["kty"] in kinds:
            assert jwk["kid"] == kinds[jwk["kty"]].import_key(named).thumbprint()
        assert {**jwk, "kid": named["kid"]} == named
    key = joserfc_key(remote_private_key(vault, name_of("ES256")), kid=thumbprint)
    assert key.kid == key.thumbprint()
    token = joserfc.jwt.encode({"alg": "ES256", "kid": key.kid}, claims(), key)
    assert verify_with_pyjwt(token, by_thumbprint, "ES256")["sub"] == "orders"


def test_a_set_has_every_enabled_version_and_no_other(vault):
    name = name_of("rotated")
    vault.rotate_key(name)
    vault.rotate_key(name)
    vault.disable_key_version(f"{name}/versions/2")
    found = jwks(vault, [name])["keys"]
    assert [jwk["kid"] for jwk in found] == [f"{name}/versions/3", f"{name}/versions/1"]
    assert all(set(jwk) == {"kty", "crv", "x", "use", "kid"} for jwk in found)


def test_no_library_gets_the_private_part(vault):
    key = remote_private_key(vault, name_of("ES256"))
    assert "d" not in joserfc_key(key).as_dict(private=True)
    with pytest.raises(UsageError, match="stays in the vault"):
        joserfc_key(key).as_pem(private=True)
    with pytest.raises(UsageError, match="stays in the vault"):
        jwt.algorithms.ECAlgorithm.to_jwk(key)
