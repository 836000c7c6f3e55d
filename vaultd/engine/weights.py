"""What an operation weighs in quotas: 1, but for those that keep a processor busy for much longer than a call does.

A weight is the processor time of the operation in units of a cheap call, about a third of a millisecond, rounded.  Making
keys is rated below its time, since it has a lane of its own with one operation at a time for each free thread.
"""

from __future__ import annotations

from types import MappingProxyType
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Mapping

PRIVATE: Final = "private"
GENERATE: Final = "generate"


def _rsa(weights: Mapping[int, int]) -> dict[str, int]:
    schemes = [f"{scheme}_{{bits}}_SHA{digest}" for scheme in ("RSA_PSS", "RSA_PKCS1") for digest in (256, 512)]
    schemes.append("RSA_OAEP_{bits}_SHA256")
    table = {scheme.format(bits=bits): weight for scheme in schemes for bits, weight in weights.items()}
    return {**table, "RSA_OAEP_4096_SHA512": weights[4096]}


WEIGHTS: Final[Mapping[str, Mapping[str, int]]] = MappingProxyType(
    {
        PRIVATE: MappingProxyType(
            {
                **_rsa({2048: 2, 3072: 4, 4096: 8}),
                "EC_SECP256K1_SHA256": 2,
                "ML_DSA_44": 2,
                "ML_DSA_65": 4,
                "ML_DSA_87": 4,
            }
        ),
        GENERATE: MappingProxyType(_rsa({2048: 20, 3072: 50, 4096: 100})),
    }
)
"""Kind of operation -> algorithm -> weight; what is not listed weighs 1."""

KINDS: Final[Mapping[str, str]] = MappingProxyType(
    {
        "CryptoService.Sign": PRIVATE,
        "CryptoService.Decrypt": PRIVATE,
        "CryptoService.ReEncrypt": PRIVATE,
        "CryptoService.Decapsulate": PRIVATE,
        "CryptoService.DeriveSharedSecret": PRIVATE,
        "KeysService.CreateKey": GENERATE,
        "KeysService.RotateKey": GENERATE,
        "KeysService.ImportKeyVersion": GENERATE,
    }
)
"""Method -> what it does with a key; of the others every call weighs 1.  A batch is the method that it repeats."""


def weight_of(kind: str, algorithm: str) -> int:
    """The weight of one operation."""
    return WEIGHTS[kind].get(algorithm, 1)
