"""The client of envelope.py, in a process of its own: what it needs of memory is its own, too.

One JSON line on standard output.  Reads VAULTD_*.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import random
import re
import statistics
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from vaultd_client import Client, DecryptionFailed, EnvelopeAead, LocalKeys, SecretCache

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

MIB = 1 << 20
FIRST = MIB - 56
OTHERS = MIB - 16
STREAM_MIB = 24
TURNS = 500
HARMS = ("flip", "cut", "drop", "swap", "repeat", "extend", "splice")


class Source:
    """Bytes that are made as they are asked for: the keystream of AES-256-CTR, and a digest of what was given."""

    def __init__(self, seed: int) -> None:
        key = hashlib.sha256(b"%d" % seed).digest()
        self._next = Cipher(algorithms.AES(key), modes.CTR(bytes(16))).encryptor().update
        self.digest = hashlib.sha256()

    def pieces(self, mib: int) -> Iterator[bytes]:
        zeros = bytes(MIB)
        for _ in range(mib):
            piece = self._next(zeros)
            self.digest.update(piece)
            yield piece


def peak_mib() -> float:
    """The most memory that this process ever had.  Not getrusage's ru_maxrss, which is never less than its parent had."""
    found = re.search(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())
    if found is None:
        raise SystemExit("this system does not say how much memory a process had")
    return int(found[1]) / 1024


def timed(pieces: Iterable[bytes]) -> float:
    """Seconds that it takes to go through them."""
    began = time.perf_counter()
    for _ in pieces:
        pass
    return time.perf_counter() - began


def there_and_back(aead: EnvelopeAead, mib: int, seed: int) -> dict[str, object]:
    """Encrypt piped into decrypt, and nothing kept."""
    before, source, received, size = peak_mib(), Source(seed), hashlib.sha256(), 0
    began, cpu_began = time.perf_counter(), time.process_time()
    for piece in aead.decrypt_chunks(aead.encrypt_chunks(source.pieces(mib))):
        received.update(piece)
        size += len(piece)
    took, cpu_took = time.perf_counter() - began, time.process_time() - cpu_began
    return {
        "gib": mib / 1024,
        "same": size == mib * MIB and received.digest() == source.digest.digest(),
        "gib_per_s": round(mib / 1024 / took, 2),
        "gib_per_cpu_s": round(mib / 1024 / cpu_took, 2),
        "peak_mib_before": round(before),
        "peak_mib": round(peak_mib()),
    }


def speeds(aead: EnvelopeAead, mib: int) -> dict[str, float]:
    """GiB/s of each half by itself, and of bare AES-256-GCM over the same pieces; the best of three, taken in turns."""
    pieces = [Source(1)._next(bytes(MIB))] * mib
    bare, nonce = AESGCM(bytes(32)), bytes(12)
    sealed = list(aead.encrypt_chunks(pieces))
    acts: dict[str, Callable[[], Iterable[bytes]]] = {
        "bare_gib_per_s": lambda: (bare.encrypt(nonce, piece, None) for piece in pieces),
        "encrypt_gib_per_s": lambda: aead.encrypt_chunks(pieces),
        "decrypt_gib_per_s": lambda: aead.decrypt_chunks(sealed),
    }
    took = {name: min(timed(act()) for _ in range(3)) for name, act in acts.items()}
    return {name: round(mib / 1024 / seconds, 2) for name, seconds in took.items()}


def beside_calls(client: Client, aead: EnvelopeAead) -> dict[str, dict[str, float]]:
    """Microseconds of what is done here, and of the call that it replaces: medians, taken in turns."""
    plaintext = bytes(1024)
    signer = client.create_key("vaults/default", "signer", {"purpose": "KEY_PURPOSE_SIGN"}).name
    secret = client.create_secret("vaults/default", "secret", payload=plaintext).name
    signature = client.sign(signer, plaintext).signature
    sealed, called = aead.encrypt(plaintext), client.encrypt(aead.key_name, plaintext).ciphertext
    with LocalKeys(client) as local, SecretCache(client) as secrets:
        pairs: dict[str, tuple[Callable[[], object], Callable[[], object]]] = {
            "encrypt 1 KiB": (lambda: aead.encrypt(plaintext), lambda: client.encrypt(aead.key_name, plaintext)),
            "decrypt 1 KiB": (lambda: aead.decrypt(sealed), lambda: client.decrypt(aead.key_name, called)),
            "verify P-256": (
                lambda: local.verify(signer, plaintext, signature),
                lambda: client.verify(signer, plaintext, signature),
            ),
            "a secret": (lambda: secrets.get(secret), lambda: client.access_secret_version(secret)),
        }
        return {name: dict(zip(("here", "call"), medians_us(*pair), strict=True)) for name, pair in pairs.items()}


def medians_us(*acts: Callable[[], object]) -> list[float]:
    """The median of each, over TURNS turns."""
    took: list[list[float]] = [[] for _ in acts]
    for _ in range(TURNS):
        for act, times in zip(acts, took, strict=True):
            began = time.perf_counter()
            act()
            times.append(time.perf_counter() - began)
    return [round(statistics.median(times[TURNS // 10 :]) * 1e6, 1) for times in took]


def harmed(draw: random.Random, head: bytes, segments: list[bytes], other: list[bytes]) -> tuple[str, list[bytes]]:
    """A stream with something done to it."""
    harm, segments = draw.choice(HARMS), list(segments)
    one, two = draw.sample(range(len(segments)), 2)
    if harm == "flip":
        changed = bytearray(segments[one])
        changed[draw.randrange(len(changed))] ^= 1 << draw.randrange(8)
        segments[one] = bytes(changed)
    elif harm == "cut":
        segments = segments[:one] + [segments[one][: draw.randrange(len(segments[one]))]] * draw.randrange(2)
    elif harm == "drop":
        del segments[one]
    elif harm == "swap":
        segments[one], segments[two] = segments[two], segments[one]
    elif harm == "repeat":
        segments.insert(two, segments[one])
    elif harm == "extend":
        segments.append(draw.choice([b"x", segments[one], bytes(MIB)]))
    else:
        segments[one] = other[one]  # of another stream under the same data key's key
    return harm, [head, *segments]


def harms(aead: EnvelopeAead, count: int, seed: int) -> dict[str, object]:
    """Damage a stream again and again: each time it must fail, and what came out until then be a beginning of the plaintext."""
    draw = random.Random(seed)
    plaintext = b"".join(Source(seed).pieces(STREAM_MIB))

    def sealed() -> tuple[bytes, list[bytes]]:
        whole = b"".join(aead.encrypt_chunks([plaintext]))
        begin = 47 + int.from_bytes(whole[5:7], "big")
        first = begin + MIB - 40
        return whole[:begin], [whole[begin:first], *(whole[at : at + MIB] for at in range(first, len(whole), MIB))]

    (head, segments), (_, other) = sealed(), sealed()
    done: dict[str, int] = {}
    for _ in range(count):
        harm, pieces = harmed(draw, head, segments, other)
        until = next((at for at, (a, b) in enumerate(zip(pieces[1:], segments, strict=False)) if a != b), len(segments))
        out = bytearray()
        try:
            for piece in aead.decrypt_chunks(pieces):
                out += piece
        except DecryptionFailed:
            done[harm] = done.get(harm, 0) + 1
        else:
            return {"accepted": harm, "seed": seed}
        # Not one byte of the first segment that is not as it was written, nor of any behind it.
        most = FIRST + (until - 1) * OTHERS if until else 0
        if len(out) > most or not plaintext.startswith(out):
            return {"released": len(out), "allowed": most, "harm": harm, "seed": seed}
    return {"refused": done}


def main() -> None:
    """Do it all; the caller judges."""
    parser = argparse.ArgumentParser()
    parser.add_argument("key")
    parser.add_argument("--gib", type=float, default=10)
    parser.add_argument("--harms", type=int, default=200)
    parser.add_argument("--seed", type=int, default=1)
    wanted = parser.parse_args()
    with Client.from_env() as client, EnvelopeAead(client, wanted.key) as aead:
        there_and_back(aead, 8, wanted.seed)  # what a first use costs is there before the long one
        report: dict[str, object] = {"stream": there_and_back(aead, int(wanted.gib * 1024), wanted.seed)}
        report["harms"] = harms(aead, wanted.harms, wanted.seed)
        report["speed"] = speeds(aead, 64)
        report["us"] = beside_calls(client, aead)
    json.dump(report, sys.stdout)


if __name__ == "__main__":
    main()
