"""Ciphertexts of released versions: each opens in every later one, through the same code as a call to Decrypt.

Entries of the files in `compat/` are added and never changed.
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from vaultd.backends.software import SoftwareBackend
from vaultd.engine.algorithms import ALGORITHMS, ProtectionLevel
from vaultd.engine.catalog import HEADER_BYTES, KeyCatalog, LoadedKey, LoadedVersion, ciphertext_header
from vaultd.engine.clock import SystemClock
from vaultd.engine.ledger import Ledger
from vaultd.engine.model import Key, KeyState, KeyVersion, VersionState
from vaultd.engine.sealing import KeyRing, Sealer, secret_aad
from vaultd.engine.transit import DecryptItem, Transit
from vaultd.engine.usage import BudgetBook, UsageBook
from vaultd.errors import DecryptionFailed
from vaultd.names import KeyRef
from vaultd.secret import Secret
from vaultd.store.base import Row, RowKey
from vaultd.store.sqlite import SqliteStore

VECTORS = json.loads((Path(__file__).parent / "compat" / "ciphertexts-v1.json").read_text())["vectors"]
NAMES = [f"{vector['algorithm']}-{at % 4}" for at, vector in enumerate(VECTORS)]
KEY = KeyRef("default", "compat", 0)


def raw(vector, field):
    return bytes.fromhex(vector[field])


async def transit_with(vector, directory):
    """A Transit whose catalog holds the vector's key, imported into the backend and sealed like a stored row."""
    clock, backend = SystemClock(), SoftwareBackend()
    ledger = Ledger(SqliteStore(directory / "unopened.db"), clock)
    sealer = Sealer(KeyRing.create())
    ledger.install(sealer)
    usage, budgets = UsageBook(ledger), BudgetBook(ledger, None)
    catalog = KeyCatalog(ledger, {ProtectionLevel.SOFTWARE: backend}, usage, budgets)
    uid, number, algorithm = raw(vector, "uid"), vector["version"], ALGORITHMS[vector["algorithm"]]
    material = await backend.import_material(algorithm.name, Secret(raw(vector, "key")), "compat")
    at = RowKey("key_version", KEY.vault, KEY.key, number)
    sealed = sealer.seal(material.secret.expose("seal for the test"), secret_aad(at, uid, sealer.term))
    row = Row(at, uid, VersionState.ENABLED.value, None, 1, sealer.term, b"", sealed)
    level = ProtectionLevel.SOFTWARE
    key = Key(
        vault=KEY.vault,
        id=KEY.key,
        uid=uid,
        algorithm=algorithm,
        protection_level=level,
        labels={},
        rotation_period_us=None,
        next_rotation_us=None,
        expire_us=None,
        exportable=False,
        destroy_delay_us=0,
        purge_protection=False,
        state=KeyState.ACTIVE,
        primary=number,
        newest=number,
        create_us=0,
        update_us=0,
    )
    version = KeyVersion(
        KEY.vault, KEY.key, uid, number, VersionState.ENABLED, algorithm, level, b"", b"", imported=True, create_us=0
    )
    loaded = LoadedVersion(version, row, backend, backend, usage.counter(uid, number), None)
    catalog._loaded[KEY.vault, KEY.key] = LoadedKey(key, {number: loaded})
    return Transit(catalog, ledger, clock)


@pytest.mark.parametrize("vector", VECTORS, ids=NAMES)
async def test_a_ciphertext_of_a_released_version_opens(vector, tmp_path):
    transit = await transit_with(vector, tmp_path)
    item = DecryptItem(KEY, raw(vector, "ciphertext"), raw(vector, "associated_data"))
    plaintext, version = await transit.decrypt(item, None)
    assert plaintext == raw(vector, "plaintext")
    assert version.version.number == vector["version"]


@pytest.mark.parametrize("vector", VECTORS, ids=NAMES)
async def test_its_header_is_bound_to_it(vector, tmp_path):
    other = {**vector, "version": vector["version"] + 1}
    transit = await transit_with(other, tmp_path)
    forged = ciphertext_header(raw(other, "uid"), other["version"]) + raw(vector, "ciphertext")[HEADER_BYTES:]
    with pytest.raises(DecryptionFailed):
        await transit.decrypt(DecryptItem(KEY, forged, raw(vector, "associated_data")), None)


@pytest.mark.parametrize("vector", VECTORS, ids=NAMES)
def test_its_layout_is_header_nonce_and_output(vector):
    sealed, nonce = raw(vector, "ciphertext"), raw(vector, "nonce")
    tag_bytes = 16
    assert sealed.startswith(ciphertext_header(raw(vector, "uid"), vector["version"]) + nonce)
    assert len(sealed) == HEADER_BYTES + len(nonce) + len(raw(vector, "plaintext")) + tag_bytes


def test_every_self_describing_algorithm_has_ciphertexts():
    described = {algorithm.name for algorithm in ALGORITHMS.values() if algorithm.self_describing}
    assert described == {vector["algorithm"] for vector in VECTORS}
