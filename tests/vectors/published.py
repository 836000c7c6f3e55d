"""Reads the vector files of the `cryptography_vectors` package, and brings their keys into a software backend."""

from __future__ import annotations

from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import cryptography_vectors
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat

from vaultd.backends.base import Operation
from vaultd.backends.software import SoftwareBackend
from vaultd.secret import Secret

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

    from vaultd.backends.base import Handle, OpKind

ROOT = Path(cryptography_vectors.__file__).parent

Record = dict[str, str]


def read_lines(path: str) -> Iterator[str]:
    """The lines of a file that are neither comments nor empty, `[section]` lines among them."""
    with (ROOT / path).open(encoding="ascii") as file:
        for line in file:
            text = line.strip()
            if text and not text.startswith("#"):
                yield text


def read_records(path: str, first: str) -> Iterator[Record]:
    """The records of a `name = value` file, each beginning with the field `first`, in lower case.

    A record carries the `[section]` it is in (`section`), and fields that stood above the first record of that section.
    A bare word, FAIL, is a field with the value `yes`.
    """
    section, heading, record = "", Record(), Record()
    for text in read_lines(path):
        if text.startswith("["):
            if first in record:
                yield record
            # Several bracketed lines in a row are one heading.
            section = f"{section} {text}" if not record and section else text
            heading, record = Record(), Record()
            continue
        name, separator, value = (part.strip() for part in text.partition("="))
        name = name.lower()
        if name == first and first in record:
            yield record
            record = Record()
        if not record:
            record = {**heading, "section": section}
        record[name] = value if separator else "yes"
        if first not in record:
            heading[name] = record[name]
    if first in record:
        yield record


def every(records: Iterator[Record], step: int) -> list[Record]:
    """A sample that is the same each time: every step-th record."""
    return list(records)[::step]


class Loaded(NamedTuple):
    """A key of a vector file."""

    private: Handle
    public: Handle | None
    public_key: bytes


class Vault:
    """A software backend, as a vector test needs it."""

    def __init__(self, backend: SoftwareBackend) -> None:
        self.backend = backend

    async def take_in(self, algorithm: str, material: bytes) -> Loaded:
        """Import a key and load it."""
        stored = await self.backend.import_material(algorithm, Secret(material), "vector")
        public = self.backend.load_public(algorithm, stored.public_key) if stored.public_key else None
        return Loaded(await self.backend.load(algorithm, stored), public, stored.public_key)

    async def use(self, handle: Handle | None, kind: OpKind, data: bytes, context: bytes = b"") -> bytes:
        """One operation."""
        assert handle is not None
        return await self.backend.use(handle, Operation(kind, data, context), None)


@asynccontextmanager
async def open_vault() -> AsyncIterator[Vault]:
    """A vault that is closed at the end."""
    backend = SoftwareBackend()
    try:
        yield Vault(backend)
    finally:
        await backend.close()


def ec_material(curve: ec.EllipticCurve, scalar: int) -> bytes:
    """PKCS#8 of a private scalar."""
    return ec.derive_private_key(scalar, curve).private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption())


def ec_public(curve: ec.EllipticCurve, x: int, y: int) -> bytes:
    """SubjectPublicKeyInfo of a point.  Raises ValueError when it is not on the curve."""
    public = ec.EllipticCurvePublicNumbers(x, y, curve).public_key()
    return public.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


def rsa_material(p: int, q: int, d: int, e: int) -> bytes:
    """PKCS#8 of an RSA key of two primes."""
    numbers = rsa.RSAPrivateNumbers(
        p,
        q,
        d,
        rsa.rsa_crt_dmp1(d, p),
        rsa.rsa_crt_dmq1(d, q),
        rsa.rsa_crt_iqmp(p, q),
        rsa.RSAPublicNumbers(e, p * q),
    )
    return numbers.private_key().private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption())


def rsa_public(n: int, e: int) -> bytes:
    """SubjectPublicKeyInfo of an RSA key."""
    return rsa.RSAPublicNumbers(e, n).public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
