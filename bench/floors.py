"""What the cryptography alone costs, in this process, with nothing around it."""

from __future__ import annotations

import os
import statistics
import time
from typing import TYPE_CHECKING

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from bench.cases import DATA

if TYPE_CHECKING:
    from collections.abc import Callable

_REPEATS = 7


def measure_floors(seconds: float) -> dict[str, float]:
    """CPU microseconds per operation, by name."""
    aead = AESGCM(os.urandom(32))
    p256 = ec.generate_private_key(ec.SECP256R1())
    curve = ed25519.Ed25519PrivateKey.generate()
    modulus = rsa.generate_private_key(65537, 2048)
    pss = padding.PSS(padding.MGF1(hashes.SHA256()), padding.PSS.DIGEST_LENGTH)
    ecdsa = ec.ECDSA(hashes.SHA256())
    operations: dict[str, Callable[[], object]] = {
        "AES-256-GCM 64 B, fresh nonce": lambda: aead.encrypt(os.urandom(12), DATA, None),
        "P-256 sign": lambda: p256.sign(DATA, ecdsa),
        "Ed25519 sign": lambda: curve.sign(DATA),
        "RSA-PSS-2048 sign": lambda: modulus.sign(DATA, pss, hashes.SHA256()),
    }
    return {name: _cpu_us(operation, seconds) for name, operation in operations.items()}


def _cpu_us(operation: Callable[[], object], seconds: float) -> float:
    began = time.thread_time()
    for _ in range(20):
        operation()
    count = max(10, int(seconds / _REPEATS / max((time.thread_time() - began) / 20, 1e-7)))
    samples = []
    for _ in range(_REPEATS):
        began = time.thread_time()
        for _ in range(count):
            operation()
        samples.append((time.thread_time() - began) / count * 1e6)
    return statistics.median(samples)
