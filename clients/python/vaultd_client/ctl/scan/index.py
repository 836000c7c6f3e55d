"""Fingerprints in a file, so that who scans needs no secret."""

from __future__ import annotations

import base64
import binascii
import datetime
import hashlib
import json
import os
import secrets
import tempfile
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from vaultd_client.ctl.failures import fail
from vaultd_client.ctl.scan.fingerprints import Fingerprint, digest_of, tag_of
from vaultd_client.ctl.scan.marks import marks_of
from vaultd_client.v1 import secrets_pb2

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

    from vaultd_client import Client
    from vaultd_client.ctl.progress import Bar

FORMAT: Final = "vaultd-scan-index/1"
SEAL_DOMAIN: Final = b"vaultd scan index v1\x00"
SALT_BYTES: Final = 16
BATCH: Final = 1_000
BATCH_BYTES: Final = 3_000_000
MAX_PAYLOAD: Final = 64 * 1024
UNREADABLE: Final = frozenset({"PERMISSION_DENIED", "FAILED_PRECONDITION", "NOT_FOUND"})
"""What is wrong with one version: not allowed, not in force, gone.  Anything else is wrong with the whole of it."""


@dataclass(frozen=True, slots=True)
class Stored:
    """What was read of the vault's secrets."""

    payloads: Mapping[str, bytes]
    unreadable: int


def read_secrets(client: Client, names: Iterable[str], bar: Bar) -> Stored:
    """All enabled versions of secrets that the caller may read.  Raises VaultdError."""
    from vaultd_client.errors import error_of_status

    versions: list[str] = []
    for name in names:
        versions += _versions_of(client, name)
    payloads: dict[str, bytes] = {}
    unreadable = 0
    size = BATCH_BYTES // MAX_PAYLOAD
    for begin in range(0, len(versions), size):
        chunk = versions[begin : begin + size]
        for result in client.batch_access_secret_versions([{"name": name} for name in chunk]).results:
            if result.WhichOneof("outcome") == "result":
                payloads[result.result.version] = result.result.payload
                continue
            error = error_of_status(result.status, "BatchAccessSecretVersions")
            if error.code not in UNREADABLE:
                raise error
            unreadable += 1
        bar.update(begin + len(chunk), len(versions))
    return Stored(payloads, unreadable)


def _versions_of(client: Client, name: str) -> list[str]:
    """The enabled versions of a secret; who may not see which there are has the one in service."""
    from vaultd_client.errors import PermissionDenied

    found: list[str] = []
    token = ""
    while True:
        try:
            page = client.list_secret_versions(name, page_size=1_000, page_token=token)
        except PermissionDenied:
            return [name]
        found += [one.name for one in page.secret_versions if one.state == secrets_pb2.SECRET_VERSION_STATE_ENABLED]
        token = page.next_page_token
        if not token:
            return found


def secret_names(client: Client, vault: str) -> list[str]:
    """The secrets of a vault.  Raises VaultdError."""
    names: list[str] = []
    token = ""
    while True:
        page = client.list_secrets(vault, page_size=1_000, page_token=token)
        names += [one.name for one in page.secrets]
        token = page.next_page_token
        if not token:
            return names


def fingerprints_at_hand(stored: Stored, salt: bytes, min_length: int) -> tuple[list[Fingerprint], list[str]]:
    """Fingerprints for this process alone, and the versions that have none."""
    made: list[Fingerprint] = []
    bare: list[str] = []
    for version, payload in stored.payloads.items():
        marks = marks_of(payload, min_length)
        if not marks:
            bare.append(version)
        made += [
            Fingerprint(version, tag_of(salt, mark.content), digest_of(mark.content), mark.length) for mark in marks
        ]
    return made, bare


@dataclass(frozen=True, slots=True)
class Index:
    """The file, as it is read."""

    key_version: str
    salt: bytes
    min_length: int
    create_time: datetime.datetime
    fingerprints: tuple[Fingerprint, ...]


def make_index(client: Client, key: str, stored: Stored, min_length: int) -> tuple[dict[str, Any], list[str]]:
    """The file's content, and the versions without a fingerprint.  Needs `crypto.generate_mac` on the key.  Raises VaultdError."""
    salt = secrets.token_bytes(SALT_BYTES)
    at_hand, bare = fingerprints_at_hand(stored, salt, min_length)
    key_version, macs = _macs(client, key, [one.proof for one in at_hand])
    versions: dict[str, list[dict[str, Any]]] = {}
    for one, mac in zip(at_hand, macs, strict=True):
        entry: dict[str, Any] = {"tag": one.tag, "mac": base64.b64encode(mac).decode()}
        if one.length:
            entry["length"] = one.length
        versions.setdefault(one.version, []).append(entry)
    for entries in versions.values():
        entries.sort(key=lambda entry: str(entry["mac"]))  # in no order that says something
    document: dict[str, Any] = {
        "format": FORMAT,
        "create_time": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "key_version": key_version,
        "salt": base64.b64encode(salt).decode(),
        "min_length": min_length,
        "versions": dict(sorted(versions.items())),
    }
    _, (seal,) = _macs(client, key_version, [_digest(document)])
    document["seal"] = base64.b64encode(seal).decode()
    return document, bare


def _macs(client: Client, key: str, digests: list[bytes]) -> tuple[str, list[bytes]]:
    """A MAC of each digest, all by one version of the key."""
    from vaultd_client.errors import error_of_status

    version, macs = "", list[bytes]()
    if not digests:
        return client.generate_mac(key, b"").key_version, macs
    for begin in range(0, len(digests), BATCH):
        items = [{"name": version or key, "data": digest} for digest in digests[begin : begin + BATCH]]
        for result in client.batch_generate_mac(items).results:
            if result.WhichOneof("outcome") == "status":
                raise error_of_status(result.status, "BatchGenerateMac")
            version = version or result.result.key_version
            if result.result.key_version != version:
                fail(f"{key} was rotated meanwhile: make the index again")
            macs.append(result.result.mac)
    return version, macs


def _digest(document: Mapping[str, Any]) -> bytes:
    text = json.dumps({**document, "seal": None}, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(SEAL_DOMAIN + text.encode()).digest()


def write_index(path: Path, document: Mapping[str, Any]) -> None:
    """Put the file in place of the one before; atomic.  All may read it.  Raises OSError."""
    # A name that nobody can guess, since others may write to the directory and put a link there.
    descriptor, fresh = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.write(json.dumps(document, indent=1) + "\n")
            os.fchmod(descriptor, 0o644)
        os.replace(fresh, path)
    except BaseException:
        os.unlink(fresh)
        raise


def read_index(path: Path, client: Client) -> Index:
    """Read the file, and have the vault say that it is whole and its own.  Raises Refused, VaultdError."""
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
        if document["format"] != FORMAT:
            fail(
                f"{path} has format `{document['format']}`, and not {FORMAT}: make it again, or install a newer vaultctl"
            )
        salt, seal = (base64.b64decode(document[name], validate=True) for name in ("salt", "seal"))
        found = tuple(
            Fingerprint(
                version, int(one["tag"]), base64.b64decode(one["mac"], validate=True), int(one.get("length", 0))
            )
            for version, entries in document["versions"].items()
            for one in entries
        )
        index = Index(
            str(document["key_version"]),
            salt,
            int(document["min_length"]),
            datetime.datetime.fromisoformat(document["create_time"]),
            found,
        )
    except (ValueError, KeyError, TypeError, AttributeError, binascii.Error):
        fail(f"{path} is no index of `vaultctl scan index`")
    if not client.verify_mac(index.key_version, _digest(document), seal).valid:
        fail(f"{path} was changed after it was made: make it again")
    return index
