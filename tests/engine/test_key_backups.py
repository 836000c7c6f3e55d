"""Export, and backups of single keys: what leaves, what comes back, and what does not."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import orjson
import pytest
import pytest_asyncio

from contract.backend import ALL_ALGORITHMS, outside_material
from engine.engines import DAY_US, OpenEngine, intent, move_us, open_engine, query, version
from harness import FakeClock
from vaultd.backends.base import Material
from vaultd.engine import key_backups
from vaultd.engine.algorithms import ALGORITHMS, ProtectionLevel, Purpose
from vaultd.engine.key_export import read_recipient
from vaultd.engine.key_specs import KeyUpdate
from vaultd.engine.key_wrapping import WrappingMethod
from vaultd.engine.sealing import KeyRing, Sealer
from vaultd.engine.transit import DecryptItem
from vaultd.errors import VaultdError
from vaultd.names import KeyRef
from vaultd.secret import Secret
from vaultd.store.base import RowKey
from vaultd_client import key_wrapping as client
from vaultd_client.v1 import key_transfer_pb2 as pb

HYBRID = WrappingMethod.HPKE_MLKEM768_X25519

pytestmark = pytest.mark.asyncio(loop_scope="module")


async def refused(awaitable) -> str:
    with pytest.raises(VaultdError) as caught:
        await awaitable
    return caught.value.reason


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def vault(tmp_path_factory):
    async with open_engine(tmp_path_factory.mktemp("transfer")) as opened:
        yield opened


_counter = iter(range(1, 1_000_000))


async def fresh(opened, **spec) -> KeyRef:
    return await opened.create(f"k{next(_counter)}", **spec)


async def give_back(opened: OpenEngine, ref: KeyRef) -> bytes:
    """Back a key up, and purge it."""
    blob = (await opened.engine.key_backups.back_up(ref)).blob
    await opened.lifecycle.delete_key(intent(), ref, "")
    await opened.lifecycle.purge_key(intent(), ref, "")
    return blob


def restore(opened: OpenEngine, blob: bytes, vault: str = "default"):
    return opened.engine.key_backups.restore(intent(), vault, blob)


# -- export -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "algorithm", [name for name in ALL_ALGORITHMS if not name.startswith("RSA") or "PSS_2048" in name]
)
async def test_what_is_exported_is_the_key_and_can_be_imported(vault, algorithm):
    ref = await fresh(vault, purpose=ALGORITHMS[algorithm].purpose, algorithm=algorithm, exportable=True)
    recipient = client.Recipient()
    exported = await vault.engine.exports.export(intent(), ref, HYBRID, recipient.public_key_raw)
    assert (exported.version_name, exported.algorithm.name) == (f"{ref}/versions/1", algorithm)
    answer = pb.ExportKeyVersionResponse(key_version=exported.version_name, wrapped_key=exported.wrapped)
    material = recipient.open(answer)
    software = vault.engine.backends[ProtectionLevel.SOFTWARE]
    taken = await software.import_material(algorithm, Secret(material), "")
    row = (await vault.ledger.read(RowKey("key_version", ref.vault, ref.key, 1))).row
    assert taken.secret.expose("test") == vault.ledger.sealer.open_secret(row).expose("test")


async def test_a_key_that_is_not_exportable_is_not_exported(vault):
    ref = await fresh(vault)
    public = client.Recipient().public_key_raw
    assert await refused(vault.engine.exports.export(intent(), ref, HYBRID, public)) == "KEY_NOT_EXPORTABLE"


async def test_a_version_that_may_not_be_used_is_not_exported(vault):
    ref = await fresh(vault, exportable=True)
    public = client.Recipient().public_key_raw
    await vault.key_versions.rotate_key(intent(), ref)

    def export(number: int):
        return vault.engine.exports.export(intent(), version(ref, number), HYBRID, public)

    await vault.key_versions.disable_version(intent(), version(ref, 1), "")
    assert await refused(export(1)) == "KEY_VERSION_DISABLED"
    await vault.key_versions.enable_version(intent(), version(ref, 1), "")
    assert (await export(1)).version_name.endswith("/versions/1")
    await vault.lifecycle.update_key(intent(), ref, KeyUpdate({"min_decrypt": 2}))
    assert await refused(export(1)) == "KEY_VERSION_BELOW_MINIMUM"
    assert await refused(export(3)) == "KEY_VERSION_NOT_FOUND"
    await vault.lifecycle.delete_key(intent(), ref, "")
    assert await refused(export(2)) == "KEY_DELETED"


async def test_a_repeated_export_gives_the_same_wrapping_and_a_new_one_another(vault):
    ref = await fresh(vault, exportable=True)
    public = client.Recipient().public_key_raw
    first, again = [await vault.engine.exports.export(intent("same"), ref, HYBRID, public) for _ in range(2)]
    other = await vault.engine.exports.export(intent(), ref, HYBRID, public)
    assert first == again
    assert first.wrapped != other.wrapped


async def test_an_export_is_not_repeated_once_its_version_may_not_be_exported(vault):
    ref = await fresh(vault, exportable=True)
    public = client.Recipient().public_key_raw

    def export():
        return vault.engine.exports.export(intent(f"again-{ref}"), ref, HYBRID, public)

    first = await export()
    await vault.key_versions.rotate_key(intent(), ref)
    assert await export() == first
    await vault.key_versions.disable_version(intent(), version(ref, 1), "")
    assert await refused(export()) == "KEY_VERSION_DISABLED"
    await vault.key_versions.enable_version(intent(), version(ref, 1), "")
    assert await export() == first
    await vault.lifecycle.delete_key(intent(), ref, "")
    assert await refused(export()) == "KEY_DELETED"
    await vault.lifecycle.purge_key(intent(), ref, "")
    assert await refused(export()) == "KEY_NOT_FOUND"


async def test_a_recipients_key_must_be_one_of_the_method(vault):
    from cryptography.hazmat.primitives.asymmetric import ec, rsa
    from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

    def pem(key) -> str:
        return key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()

    rsa_3072 = pem(rsa.generate_private_key(65537, 3072))
    curve = pem(ec.generate_private_key(ec.SECP256R1()))
    raw, method = client.Recipient().public_key_raw, WrappingMethod
    ref = await fresh(vault, exportable=True)
    wrong = [
        (method.RSA_OAEP_3072_SHA256_AES_256_KWP, "", b""),
        (method.RSA_OAEP_3072_SHA256_AES_256_KWP, curve, b""),
        (method.RSA_OAEP_3072_SHA256_AES_256_KWP, "", raw),
        (method.RSA_OAEP_4096_SHA256_AES_256_KWP, rsa_3072, b""),
        (method.HPKE_X25519, rsa_3072, b""),
        (method.HPKE_X25519, "", bytes(31)),
        (method.HPKE_X25519, curve, bytes(32)),
        (method.HPKE_MLKEM768_X25519, "", raw[:-1]),
        (method.HPKE_MLKEM768_X25519, "", b"\xff" * len(raw)),
        (method.HPKE_MLKEM768_X25519, rsa_3072, b""),
        (method.HPKE_X25519, "-----BEGIN PUBLIC KEY-----", b""),
    ]
    for asked, text, given in wrong:
        with pytest.raises(VaultdError) as caught:
            await vault.engine.exports.export(intent(), ref, asked, read_recipient(asked, text, given))
        assert caught.value.reason == "PUBLIC_KEY_MISMATCH", (asked, text)
    for low_order in (bytes(32), b"\x01" + bytes(31)):
        recipient = read_recipient(method.HPKE_X25519, "", low_order)
        assert await refused(vault.engine.exports.export(intent(), ref, method.HPKE_X25519, recipient)) == "PUBLIC_KEY"


# -- backups ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "algorithm", [name for name in ALL_ALGORITHMS if not name.startswith("RSA") or "PSS_2048" in name]
)
async def test_a_key_of_every_algorithm_comes_back_as_it_was(vault, algorithm):
    ref = await fresh(vault, purpose=ALGORITHMS[algorithm].purpose, algorithm=algorithm)
    before = await vault.keys.get_key(ref)
    versions = await vault.keys.list_versions(ref)
    row = (await vault.ledger.read(RowKey("key_version", ref.vault, ref.key, 1))).row
    secret = vault.ledger.sealer.open_secret(row).expose("test")
    blob = await give_back(vault, ref)
    after = await restore(vault, blob)
    assert replace(after, revision=before.revision, update_us=before.update_us) == before
    again = await vault.keys.list_versions(ref)
    assert [replace(one, revision=0) for one in again] == [replace(one, revision=0) for one in versions]
    row = (await vault.ledger.read(RowKey("key_version", ref.vault, ref.key, 1))).row
    assert vault.ledger.sealer.open_secret(row).expose("test") == secret


async def test_all_versions_come_back_with_their_states(tmp_path):
    async with open_engine(tmp_path) as opened:
        ref = await opened.create(labels={"team": "a"}, destroy_delay_us=2 * DAY_US, exportable=True)
        sealed = [await opened.encrypt(ref)]
        for _ in range(3):
            await opened.key_versions.rotate_key(intent(), ref)
            sealed.append(await opened.encrypt(ref))
        await opened.key_versions.destroy_version(intent(), version(ref, 1), "")
        move_us(opened.clock, 2 * DAY_US)
        await opened.tick()
        await opened.key_versions.disable_version(intent(), version(ref, 2), "")
        await opened.key_versions.destroy_version(intent(), version(ref, 3), "")
        backup = await opened.engine.key_backups.back_up(ref)
        assert backup.versions == 4
        await opened.lifecycle.delete_key(intent(), ref, "")
        await opened.lifecycle.purge_key(intent(), ref, "")
        assert await refused(opened.decrypt(ref, sealed[3])) == "KEY_NOT_FOUND"
        move_us(opened.clock, DAY_US)
        key = await restore(opened, backup.blob)
        assert (key.primary, key.newest, dict(key.labels), key.exportable) == (4, 4, {"team": "a"}, True)
        states = [one.state.value for one in await opened.keys.list_versions(ref)]
        assert states == ["DESTROYED", "DISABLED", "DESTROY_SCHEDULED", "ENABLED"]
        # Whoever restores may want what was about to go: it has its whole delay again.
        third = await opened.keys.get_version(version(ref, 3))
        assert third.destroy_us == opened.clock.us + 2 * DAY_US
        assert await opened.decrypt(ref, sealed[3]) == b"plaintext"
        assert await refused(opened.decrypt(ref, sealed[2])) == "KEY_VERSION_DESTROY_SCHEDULED"
        await opened.key_versions.enable_version(intent(), version(ref, 2), "")
        assert await opened.decrypt(ref, sealed[1]) == b"plaintext"
        await opened.ledger.check(deep=True)


async def test_a_key_that_is_there_is_not_overwritten(vault):
    ref = await fresh(vault)
    blob = (await vault.engine.key_backups.back_up(ref)).blob
    assert await refused(restore(vault, blob)) == "KEY_EXISTS"
    await vault.lifecycle.delete_key(intent(), ref, "")
    assert await refused(restore(vault, blob)) == "KEY_EXISTS"
    await vault.lifecycle.purge_key(intent(), ref, "")
    assert (await restore(vault, blob)).id == ref.key
    assert await refused(restore(vault, blob)) == "KEY_EXISTS"


async def test_a_number_that_was_used_after_the_backup_is_not_used_again(vault):
    ref = await fresh(vault)
    backup = await vault.engine.key_backups.back_up(ref)
    await vault.key_versions.rotate_key(intent(), ref)
    lost = await vault.encrypt(ref)
    await vault.lifecycle.delete_key(intent(), ref, "")
    await vault.lifecycle.purge_key(intent(), ref, "")
    key = await restore(vault, backup.blob)
    assert (key.primary, key.newest) == (1, 2)
    assert (await vault.key_versions.rotate_key(intent(), ref)).number == 3
    assert await refused(vault.decrypt(ref, lost)) == "DECRYPTION_FAILED"


async def test_a_repeated_restore_answers_the_same(vault):
    blob = await give_back(vault, await fresh(vault))
    answers = [await vault.engine.key_backups.restore(intent("again"), "default", blob) for _ in range(2)]
    assert answers[0] == answers[1]


async def test_a_restored_key_is_in_use_at_once_and_usage_goes_on(vault):
    ref = await fresh(vault)
    sealed = await vault.encrypt(ref)
    uid = (await vault.keys.get_key(ref)).uid
    await restore(vault, await give_back(vault, ref))
    assert await vault.decrypt(ref, sealed) == b"plaintext"
    assert (await vault.engine.usage.totals(uid))[1].messages == 2


async def test_a_restored_version_whose_messages_are_counted_only_decrypts_and_is_rotated(tmp_path):
    async with open_engine(tmp_path) as opened:
        ref = await opened.create(algorithm="AES_256_GCM")
        sealed = await opened.encrypt(ref)
        await restore(opened, await give_back(opened, ref))
        assert await opened.decrypt(ref, sealed) == b"plaintext"
        uid = (await opened.keys.get_key(ref)).uid
        assert await opened.engine.budgets.messages_left(version(ref, 1), uid, 2**32) == 0
        assert await refused(opened.encrypt(ref)) == "MESSAGE_BUDGET_EXHAUSTED"
        await opened.tick()
        assert ("rotate", f"{ref}/versions/1", "MESSAGE_BUDGET") in opened.events
        assert await opened.primary(ref) == 2
        assert await opened.decrypt(ref, await opened.encrypt(ref)) == b"plaintext"
    async with open_engine(tmp_path) as opened:
        assert await refused(opened.encrypt(version(ref, 1))) == "MESSAGE_BUDGET_EXHAUSTED"


async def test_a_backup_opens_in_its_own_vault_only(vault):
    await vault.engine.vaults.create(intent(), "other", "", {})
    blob = await give_back(vault, await fresh(vault))
    assert await refused(restore(vault, blob, "other")) == "KEY_BACKUP_OF_ANOTHER_VAULT"


async def test_a_deleted_key_and_one_that_is_not_there_are_not_backed_up(vault):
    ref = await fresh(vault)
    await vault.lifecycle.delete_key(intent(), ref, "")
    assert await refused(vault.engine.key_backups.back_up(ref)) == "KEY_DELETED"
    await vault.lifecycle.purge_key(intent(), ref, "")
    assert await refused(vault.engine.key_backups.back_up(ref)) == "KEY_NOT_FOUND"


async def test_a_backup_of_too_many_versions_says_so(vault, monkeypatch):
    ref = await fresh(vault)
    monkeypatch.setattr(key_backups, "MAX_BACKUP_BYTES", 100)
    assert await refused(vault.engine.key_backups.back_up(ref)) == "KEY_BACKUP_TOO_LARGE"


async def test_no_altered_or_cut_backup_is_restored_and_all_are_told_the_same(vault):
    ref = await fresh(vault, purpose=Purpose.SIGN)
    blob = await give_back(vault, ref)
    altered = [blob[:at] + bytes([blob[at] ^ 1 << at % 8]) + blob[at + 1 :] for at in range(len(blob))]
    altered += [blob[:length] for length in range(0, len(blob), 7)]
    altered += [blob + b"\0", blob[1:], bytes(len(blob)), b"VKB1", b"VKB1" + bytes(44)]
    told = set()
    for one in altered:
        with pytest.raises(VaultdError) as caught:
            await restore(vault, one)
        told.add((caught.value.code, caught.value.reason, caught.value.text))
    assert {entry[:2] for entry in told} == {("INVALID_ARGUMENT", "KEY_BACKUP_UNREADABLE")}
    assert len(told) == 1
    assert (await restore(vault, blob)).id == ref.key


async def test_material_that_is_not_what_was_backed_up_is_found_before_anything_is_written(vault):
    """As a defect in a later release's reader would have it: sealed by the ring, and wrong inside."""
    ref = await fresh(vault, purpose=Purpose.SIGN)
    other = await fresh(vault, purpose=Purpose.SIGN)
    sealer = vault.ledger.sealer
    inside = [orjson.loads(sealer.open_backup(await give_back(vault, one))) for one in (ref, other)]
    revision = await vault.store.revision()
    for broken in (
        {"secret": inside[1]["versions"][0]["secret"]},
        {"check": inside[1]["versions"][0]["check"]},
        {"secret": "AAAA"},
    ):
        values = {**inside[0], "versions": [{**inside[0]["versions"][0], **broken}]}
        assert await refused(restore(vault, sealer.seal_backup(orjson.dumps(values)))) == "KEY_BACKUP_UNREADABLE"
    for broken in ({"format": 2}, {"key": {**inside[0]["key"], "algorithm": "AES_512_GCM"}}):
        blob = sealer.seal_backup(orjson.dumps({**inside[0], **broken}))
        assert await refused(restore(vault, blob)) == "KEY_BACKUP_NEWER"
    assert await vault.store.revision() == revision


async def test_a_backup_outlives_rotations_of_the_root_key(tmp_path):
    clock = FakeClock()
    async with open_engine(tmp_path, clock) as opened:
        ref = await opened.create()
        sealed = await opened.encrypt(ref)
        blob = await give_back(opened, ref)
        for _ in range(2):
            await opened.seal.rotate_root(intent(), None)
            await opened.tick()
        assert len(opened.ledger.sealer.ring.terms) == 1
    async with open_engine(tmp_path, clock) as opened:
        await restore(opened, blob)
        assert await opened.decrypt(ref, sealed) == b"plaintext"


async def test_a_backup_opens_on_a_server_restored_from_an_older_copy_of_the_store(tmp_path):
    """The key came after the copy: there is no trace of it."""
    old, new = tmp_path / "old", tmp_path / "new"
    old.mkdir()
    clock = FakeClock()
    async with open_engine(old, clock):
        pass
    shutil.copytree(old, new)
    async with open_engine(old, clock) as opened:
        ref = await opened.create(algorithm="AES_256_GCM")
        sealed = await opened.encrypt(ref)
        blob = (await opened.engine.key_backups.back_up(ref)).blob
    async with open_engine(new, clock) as opened:
        assert (await restore(opened, blob)).id == ref.key
        assert await opened.decrypt(ref, sealed) == b"plaintext"
        assert await refused(opened.encrypt(ref)) == "MESSAGE_BUDGET_EXHAUSTED"  # its twin may be in use


async def test_a_name_that_is_another_keys_there_is_not_given_to_it(tmp_path):
    old, new = tmp_path / "old", tmp_path / "new"
    old.mkdir()
    clock = FakeClock()
    async with open_engine(old, clock):
        pass
    shutil.copytree(old, new)
    async with open_engine(old, clock) as opened:
        await opened.create("taken")
        blob = (await opened.engine.key_backups.back_up(KeyRef("default", "taken", 0))).blob
    async with open_engine(new, clock) as opened:
        ref = await opened.create("taken")
        assert await refused(restore(opened, blob)) == "KEY_EXISTS"
        await opened.lifecycle.delete_key(intent(), ref, "")
        await opened.lifecycle.purge_key(intent(), ref, "")
        assert await refused(restore(opened, blob)) == "KEY_EXISTS"


async def test_a_backup_does_not_open_with_another_ring(tmp_path, vault):
    blob = await give_back(vault, await fresh(vault))
    async with open_engine(tmp_path) as other:
        assert await refused(restore(other, blob)) == "KEY_BACKUP_UNREADABLE"


@pytest.mark.slow
@pytest.mark.parametrize("failpoint", ["key_backup.checked", "ledger.flushed", "ledger.committed"])
async def test_a_process_that_is_killed_while_it_restores_leaves_the_whole_key_or_nothing(tmp_path, failpoint):
    async with open_engine(tmp_path) as opened:
        ref = await opened.create()
        for _ in range(3):
            await opened.key_versions.rotate_key(intent(), ref)
        sealed = await opened.encrypt(ref)
        (tmp_path / "key.backup").write_bytes(await give_back(opened, ref))
    child = await asyncio.create_subprocess_exec(
        *(sys.executable, str(Path(__file__).with_name("restore_key_once.py")), str(tmp_path)),
        env={**os.environ, "VAULTD_FAILPOINT": failpoint},
        stdout=subprocess.PIPE,
    )
    said, _ = await child.communicate()
    assert (child.returncode, said) == (-signal.SIGKILL, b"unsealed\n")
    async with open_engine(tmp_path) as opened:
        await opened.ledger.check(deep=True)
        if failpoint != "ledger.committed":
            assert await refused(opened.keys.get_key(ref)) == "KEY_NOT_FOUND"
            assert query(tmp_path / "vault.db", "SELECT count(*) FROM records WHERE kind = 'key_version'") == [(0,)]
        blob = (tmp_path / "key.backup").read_bytes()
        key = await opened.engine.key_backups.restore(
            intent("restore"), "default", blob
        )  # a retry, after the commit, too
        assert key.newest == 4
        assert await opened.decrypt(ref, sealed) == b"plaintext"


async def test_a_sealed_vault_backs_up_restores_and_exports_nothing(tmp_path):
    async with open_engine(tmp_path) as opened:
        ref = await opened.create(exportable=True)
        blob = (await opened.engine.key_backups.back_up(ref)).blob
        await opened.seal.seal()
        assert await refused(opened.engine.key_backups.back_up(ref)) == "SEALED"
        assert await refused(restore(opened, blob)) == "SEALED"
        public = client.Recipient().public_key_raw
        assert await refused(opened.engine.exports.export(intent(), ref, HYBRID, public)) == "SEALED"


async def test_a_stored_pair_that_does_not_fit_is_found_when_it_is_backed_up(vault):
    ref = await fresh(vault, purpose=Purpose.SIGN)
    found = await vault.keys.get_version(version(ref, 1))
    other = await vault.engine.backends[ProtectionLevel.SOFTWARE].generate("EC_P256_SHA256", "")
    async with vault.ledger.change() as changes:
        await changes.put_resource("key_version", found, secret=other.secret)
    assert await refused(vault.engine.key_backups.back_up(ref)) == "KEY_PAIR_MISMATCH"


async def test_backups_of_the_same_key_differ_and_two_rings_share_nothing():
    one, other = Sealer(KeyRing.create()), Sealer(KeyRing.create())
    blobs = {one.seal_backup(b"the same") for _ in range(10)}
    assert len({blob[4:36] for blob in blobs}) == 10
    assert all(one.open_backup(blob) == b"the same" and other.open_backup(blob) is None for blob in blobs)


# -- minimum version ----------------------------------------------------------------------------------------------------


async def three_versions(opened) -> tuple[KeyRef, list[bytes]]:
    ref = await fresh(opened)
    sealed = [await opened.encrypt(ref)]
    for _ in range(2):
        await opened.key_versions.rotate_key(intent(), ref)
        sealed.append(await opened.encrypt(ref))
    return ref, sealed


def minimum(opened, ref: KeyRef, number: int, etag: str = ""):
    return opened.lifecycle.update_key(intent(), ref, KeyUpdate({"min_decrypt": number}, etag))


async def test_versions_below_the_minimum_are_out_of_use_until_it_is_lowered(vault):
    ref, sealed = await three_versions(vault)
    assert (await minimum(vault, ref, 3)).min_decrypt == 3
    for old in sealed[:2]:
        assert await refused(vault.decrypt(ref, old)) == "KEY_VERSION_BELOW_MINIMUM"
        item = DecryptItem(ref, old)
        (answer,) = await vault.transit.decrypt_many([item], None)
        assert answer.reason == "KEY_VERSION_BELOW_MINIMUM"
    assert await refused(vault.encrypt(version(ref, 2))) == "KEY_VERSION_BELOW_MINIMUM"
    assert await vault.decrypt(ref, sealed[2]) == b"plaintext"
    assert (await minimum(vault, ref, 2)).min_decrypt == 2
    assert await vault.decrypt(ref, sealed[1]) == b"plaintext"
    assert await refused(vault.decrypt(ref, sealed[0])) == "KEY_VERSION_BELOW_MINIMUM"
    await minimum(vault, ref, 0)
    assert await vault.decrypt(ref, sealed[0]) == b"plaintext"


async def test_a_disabled_version_below_the_minimum_says_that_it_is_disabled(vault):
    ref, sealed = await three_versions(vault)
    await vault.key_versions.disable_version(intent(), version(ref, 1), "")
    await minimum(vault, ref, 2)
    assert await refused(vault.decrypt(ref, sealed[0])) == "KEY_VERSION_DISABLED"


async def test_the_minimum_is_at_most_the_primary_version(vault):
    ref, _ = await three_versions(vault)
    for wrong in (-1, 4, 2**31 - 1):
        assert await refused(minimum(vault, ref, wrong)) == "MIN_DECRYPT_VERSION_RANGE"
    await vault.key_versions.set_primary(intent(), version(ref, 2), "")
    assert await refused(minimum(vault, ref, 3)) == "MIN_DECRYPT_VERSION_RANGE"
    await minimum(vault, ref, 2)
    assert await refused(vault.key_versions.set_primary(intent(), version(ref, 1), "")) == "KEY_VERSION_BELOW_MINIMUM"
    key = await vault.keys.get_key(ref)
    assert await refused(minimum(vault, ref, 1, '"1"')) == "ETAG_MISMATCH"
    assert (await minimum(vault, ref, 1, key.etag)).etag != key.etag


async def test_what_is_below_the_minimum_is_not_reencrypted_and_inspection_tells_it(vault):
    from vaultd.engine.transit import ReEncryptItem

    ref, sealed = await three_versions(vault)
    await minimum(vault, ref, 2)
    assert (
        await refused(vault.transit.reencrypt(ReEncryptItem(ref, sealed[0], b"", ref, b""), None))
        == "KEY_VERSION_BELOW_MINIMUM"
    )
    assert (
        await vault.transit.reencrypt(ReEncryptItem(ref, sealed[1], b"", ref, b""), None)
    ).version.version.number == 3
    told = [await vault.transit.inspect(ref, one) for one in sealed]
    assert [one.below_minimum for one in told] == [True, False, False]
    assert [one.needs_reencrypt for one in told] == [True, True, False]


async def test_a_minimum_holds_in_another_process_after_its_next_poll(tmp_path):
    clock = FakeClock()
    async with open_engine(tmp_path, clock) as one, open_engine(tmp_path, clock) as two:
        ref, sealed = await three_versions(one)
        assert await two.decrypt(ref, sealed[0]) == b"plaintext"
        await minimum(one, ref, 2)
        await two.engine.feed.poll()
        assert await refused(two.decrypt(ref, sealed[0])) == "KEY_VERSION_BELOW_MINIMUM"


async def test_a_software_key_without_its_material_is_not_revealed(vault):
    software = vault.engine.backends[ProtectionLevel.SOFTWARE]
    assert await refused(software.reveal("AES_256_GCM", Material(None, b"", b""))) == "MATERIAL_MISMATCH"
    wrong = Material(Secret(outside_material("AES_128_GCM")), b"", b"")
    assert await refused(software.reveal("AES_256_GCM", wrong)) == "MATERIAL_MISMATCH"
