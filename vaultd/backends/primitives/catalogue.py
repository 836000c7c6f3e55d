"""Every algorithm of `Algorithm` in resources.proto, by its wire name without the prefix."""

from __future__ import annotations

from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from cryptography.hazmat.primitives.asymmetric.ec import SECP256K1, SECP256R1, SECP384R1, SECP521R1
from cryptography.hazmat.primitives.hashes import SHA256, SHA384, SHA512

from vaultd.backends.primitives import hpke, kem, montgomery
from vaultd.backends.primitives import message_signatures as signatures
from vaultd.backends.primitives.aead import (
    DeterministicCipher,
    ExtendedNonceCipher,
    aes_gcm,
    aes_gcm_siv,
    chacha20_poly1305,
)
from vaultd.backends.primitives.elliptic import ecdh, ecdsa
from vaultd.backends.primitives.mac import aes_cmac, hmac_sha256, hmac_sha384, hmac_sha512
from vaultd.backends.primitives.rsa import rsa_oaep, rsa_pkcs1, rsa_pss
from vaultd.backends.primitives.scheme import KeyPairScheme, SymmetricScheme
from vaultd.backends.primitives.wrapping import PaddedKeyWrap

if TYPE_CHECKING:
    from collections.abc import Mapping

# Any: a scheme's key types matter inside it only.
Scheme = SymmetricScheme | KeyPairScheme[Any, Any]

SCHEMES: Mapping[str, Scheme] = MappingProxyType(
    {
        "AES_128_GCM": SymmetricScheme(16, aes_gcm),
        "AES_256_GCM": SymmetricScheme(32, aes_gcm),
        "XAES_256_GCM": SymmetricScheme(32, ExtendedNonceCipher),
        "AES_256_GCM_SIV": SymmetricScheme(32, aes_gcm_siv),
        "CHACHA20_POLY1305": SymmetricScheme(32, chacha20_poly1305),
        "AES_256_SIV": SymmetricScheme(64, DeterministicCipher),
        "AES_256_KWP": SymmetricScheme(32, PaddedKeyWrap),
        "RSA_OAEP_2048_SHA256": rsa_oaep(2048, SHA256()),
        "RSA_OAEP_3072_SHA256": rsa_oaep(3072, SHA256()),
        "RSA_OAEP_4096_SHA256": rsa_oaep(4096, SHA256()),
        "RSA_OAEP_4096_SHA512": rsa_oaep(4096, SHA512()),
        "RSA_PSS_2048_SHA256": rsa_pss(2048, SHA256()),
        "RSA_PSS_2048_SHA512": rsa_pss(2048, SHA512()),
        "RSA_PSS_3072_SHA256": rsa_pss(3072, SHA256()),
        "RSA_PSS_3072_SHA512": rsa_pss(3072, SHA512()),
        "RSA_PSS_4096_SHA256": rsa_pss(4096, SHA256()),
        "RSA_PSS_4096_SHA512": rsa_pss(4096, SHA512()),
        "RSA_PKCS1_2048_SHA256": rsa_pkcs1(2048, SHA256()),
        "RSA_PKCS1_2048_SHA512": rsa_pkcs1(2048, SHA512()),
        "RSA_PKCS1_3072_SHA256": rsa_pkcs1(3072, SHA256()),
        "RSA_PKCS1_3072_SHA512": rsa_pkcs1(3072, SHA512()),
        "RSA_PKCS1_4096_SHA256": rsa_pkcs1(4096, SHA256()),
        "RSA_PKCS1_4096_SHA512": rsa_pkcs1(4096, SHA512()),
        "EC_P256_SHA256": ecdsa(SECP256R1(), SHA256()),
        "EC_P384_SHA384": ecdsa(SECP384R1(), SHA384()),
        "EC_P521_SHA512": ecdsa(SECP521R1(), SHA512()),
        "EC_SECP256K1_SHA256": ecdsa(SECP256K1(), SHA256()),
        "ED25519": signatures.ED25519,
        "ED448": signatures.ED448,
        "HMAC_SHA256": SymmetricScheme(32, hmac_sha256),
        "HMAC_SHA384": SymmetricScheme(48, hmac_sha384),
        "HMAC_SHA512": SymmetricScheme(64, hmac_sha512),
        "AES_256_CMAC": SymmetricScheme(32, aes_cmac),
        "ECDH_P256": ecdh(SECP256R1()),
        "ECDH_P384": ecdh(SECP384R1()),
        "X25519": montgomery.X25519,
        "ML_KEM_768": kem.ML_KEM_768,
        "ML_KEM_1024": kem.ML_KEM_1024,
        "ML_DSA_44": signatures.ML_DSA_44,
        "ML_DSA_65": signatures.ML_DSA_65,
        "ML_DSA_87": signatures.ML_DSA_87,
        "HPKE_X25519": hpke.HPKE_X25519,
        "HPKE_MLKEM768_X25519": hpke.HPKE_MLKEM768_X25519,
    }
)
