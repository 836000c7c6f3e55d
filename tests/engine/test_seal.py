"""Making, opening, closing and re-wrapping the key ring, and dying at every step of it."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from engine.engines import DAY_US, POLICY, closed_engine, intent, move_us, open_engine, query, version
from harness import ADMIN, FakeClock, reason_of, running_server
from vaultd.backends.rootkeys import Argon2Cost, PassphraseRootKey, new_root_key_line
from vaultd.engine.ledger import Intent
from vaultd.engine.seal import SealState
from vaultd.errors import FailedPrecondition, InvalidArgument, Unavailable, VaultdError
from vaultd.names import KeyRef
from vaultd.secret import Secret
from vaultd_client.v1 import admin_pb2, crypto_pb2

if TYPE_CHECKING:
    from vaultd.store.base import RingRow

K = KeyRef("default", "k", 0)
PASSPHRASE = Secret(b"correct horse battery staple")
OTHER = Secret(b"incorrect horse battery staple")
BY_PASSPHRASE = {"root_key": {"provider": "passphrase"}}


@pytest.fixture
async def vault(tmp_path):
    async with open_engine(tmp_path) as opened:
        yield opened


# -- init ---------------------------------------------------------------------------------------------------------------


async def test_a_vault_is_initialised_once(vault):
    with pytest.raises(FailedPrecondition) as refused:
        await vault.seal.init(POLICY, None)
    assert refused.value.reason == "ALREADY_INITIALIZED"


async def test_a_refused_init_leaves_the_vault_unsealed(vault):
    ref = await vault.create()
    with pytest.raises(FailedPrecondition):
        await vault.seal.init(POLICY, None)
    assert await vault.encrypt(ref)


async def test_of_two_concurrent_inits_one_wins(tmp_path):
    async with closed_engine(tmp_path) as one, closed_engine(tmp_path) as two:
        outcomes = await asyncio.gather(
            one.seal.init(POLICY, None), two.seal.init(POLICY, None), return_exceptions=True
        )
        assert [type(outcome).__name__ for outcome in outcomes if outcome is not None] == ["FailedPrecondition"]


async def test_the_loser_of_two_inits_can_unseal(tmp_path):
    async with closed_engine(tmp_path) as one, closed_engine(tmp_path) as two:
        await asyncio.gather(one.seal.init(POLICY, None), two.seal.init(POLICY, None), return_exceptions=True)
        await one.seal.unseal(None)
        await two.seal.unseal(None)
        assert {one.seal.state, two.seal.state} == {SealState.UNSEALED}


async def test_a_vault_that_was_never_initialised_says_so(tmp_path):
    async with closed_engine(tmp_path) as vault:
        await vault.seal.start()
        with pytest.raises(FailedPrecondition) as refused:
            await vault.seal.unseal(None)
        assert refused.value.reason == "NOT_INITIALIZED"
        assert vault.seal_states == [SealState.UNINITIALIZED]


# -- seal and unseal ------------------------------------------------------------------------------------------------------


async def test_unsealing_again_changes_nothing(vault):
    await vault.create()
    sealer = vault.ledger.sealer
    await vault.seal.unseal(None)
    assert vault.ledger.sealer is sealer


CALLS = {
    "encrypt": lambda vault: vault.encrypt(K),
    "get": lambda vault: vault.keys.get_key(K),
    "get what is not there": lambda vault: vault.keys.get_key(KeyRef("default", "none", 0)),
    "list": lambda vault: vault.keys.list_keys("default", "", 10, deleted=False),
    "list where nothing is": lambda vault: vault.ledger.list("key", "none", "", 10, ()),
    "create": lambda vault: vault.create("other"),
    "rotate": lambda vault: vault.key_versions.rotate_key(intent(), K),
    "disable": lambda vault: vault.key_versions.disable_version(intent(), version(K, 1), ""),
    "vaults": lambda vault: vault.engine.vaults.list("", 10),
    "check": lambda vault: vault.ledger.check(),
    "rotate the root": lambda vault: vault.seal.rotate_root(intent(), None),
    "older terms": lambda vault: vault.seal.rows_on_older_terms(),
}


@pytest.mark.parametrize("call", CALLS)
async def test_a_sealed_vault_refuses(vault, call):
    await vault.create()
    await vault.encrypt(K)
    await vault.seal.seal()
    with pytest.raises(Unavailable) as refused:
        await CALLS[call](vault)
    assert refused.value.reason == "SEALED"


async def test_a_sealed_vault_forgets_its_keys(vault):
    await vault.create()
    await vault.encrypt(K)
    await vault.seal.seal()
    assert vault.engine.catalog.cached(K) is None
    assert not vault.engine.authority.loaded


async def test_a_sealed_vault_does_nothing_by_itself(tmp_path):
    clock = FakeClock()
    async with open_engine(tmp_path, clock) as vault:
        await vault.create(rotation_period_us=DAY_US)
        await vault.seal.seal()
        move_us(clock, DAY_US)
        await vault.tick()
        assert query(tmp_path / "vault.db", "SELECT count(*) FROM records WHERE kind = 'key_version'") == [(1,)]


async def test_an_unsealed_vault_uses_its_keys_again(vault):
    await vault.create()
    sealed = await vault.encrypt(K)
    await vault.seal.seal()
    await vault.seal.unseal(None)
    assert await vault.decrypt(K, sealed) == b"plaintext"


async def test_sealing_and_unsealing_are_told_to_health(vault):
    await vault.seal.seal()
    await vault.seal.unseal(None)
    assert vault.seal_states == [SealState.UNSEALED, SealState.SEALED, SealState.UNSEALED]


async def test_uses_under_way_when_the_vault_is_sealed_finish_or_are_refused(vault):
    await vault.create()

    async def use() -> str:
        try:
            await vault.encrypt(K)
        except Unavailable as error:
            return error.reason
        return ""

    uses = [asyncio.ensure_future(use()) for _ in range(50)]
    await vault.seal.seal()
    assert set(await asyncio.gather(*uses)) <= {"", "SEALED"}


# -- passphrase ---------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def by_passphrase(tmp_path_factory):
    """A vault under PASSPHRASE, made with the cheapest cost that is allowed."""
    directory = tmp_path_factory.mktemp("passphrase")
    asyncio.run(make_by_passphrase(directory))
    return directory


async def make_by_passphrase(directory) -> None:
    async with closed_engine(directory, **BY_PASSPHRASE) as vault:
        vault.seal._provider = PassphraseRootKey(Argon2Cost(iterations=2, lanes=1, memory_kib=19 * 1024))
        await vault.seal.init(POLICY, PASSPHRASE)
        await vault.create()


@pytest.fixture
def locked(by_passphrase, tmp_path):
    shutil.copy2(by_passphrase / "vault.db", tmp_path / "vault.db")
    return tmp_path


async def test_a_vault_under_a_passphrase_starts_sealed(locked):
    async with closed_engine(locked, **BY_PASSPHRASE) as vault:
        await vault.seal.start()
        assert vault.seal.state is SealState.SEALED


async def test_the_passphrase_opens_the_vault(locked):
    async with closed_engine(locked, **BY_PASSPHRASE) as vault:
        await vault.seal.start()
        await vault.seal.unseal(PASSPHRASE)
        assert await vault.encrypt(K)


async def test_a_wrong_passphrase_opens_nothing(locked):
    async with closed_engine(locked, **BY_PASSPHRASE) as vault:
        await vault.seal.start()
        with pytest.raises(InvalidArgument) as refused:
            await vault.seal.unseal(OTHER)
        assert (refused.value.reason, vault.seal.state) == ("WRONG_PASSPHRASE", SealState.SEALED)


@pytest.mark.parametrize("passphrase", [None, Secret(b"")])
async def test_a_missing_passphrase_is_asked_for(locked, passphrase):
    async with closed_engine(locked, **BY_PASSPHRASE) as vault:
        with pytest.raises(InvalidArgument) as refused:
            await vault.seal.unseal(passphrase)
        assert refused.value.reason == "PASSPHRASE_REQUIRED"


async def test_a_short_passphrase_makes_no_vault(tmp_path):
    async with closed_engine(tmp_path, **BY_PASSPHRASE) as vault:
        with pytest.raises(InvalidArgument):
            await vault.seal.init(POLICY, Secret(b"11 bytes..."))
        assert await vault.store.ring() is None


async def test_a_passphrase_for_a_key_file_is_refused(tmp_path):
    async with closed_engine(tmp_path) as vault:
        with pytest.raises(InvalidArgument) as refused:
            await vault.seal.init(POLICY, PASSPHRASE)
        assert refused.value.reason == "PASSPHRASE_REFUSED"


async def test_a_sealed_vault_needs_its_passphrase_again(locked):
    async with closed_engine(locked, **BY_PASSPHRASE) as vault:
        await vault.seal.unseal(PASSPHRASE)
        await vault.seal.seal()
        with pytest.raises(InvalidArgument):
            await vault.seal.unseal(OTHER)


async def test_a_rotation_to_a_new_passphrase_ends_the_old_one(locked):
    async with closed_engine(locked, **BY_PASSPHRASE) as vault:
        await vault.seal.unseal(PASSPHRASE)
        await vault.seal.rotate_root(intent(), OTHER)
        await vault.seal.seal()
        with pytest.raises(InvalidArgument):
            await vault.seal.unseal(PASSPHRASE)


async def test_a_rotation_to_a_new_passphrase_opens_with_it(locked):
    async with closed_engine(locked, **BY_PASSPHRASE) as vault:
        await vault.seal.unseal(PASSPHRASE)
        await vault.seal.rotate_root(intent(), OTHER)
    async with closed_engine(locked, **BY_PASSPHRASE) as vault:
        await vault.seal.unseal(OTHER)
        assert await vault.encrypt(K)


async def test_an_engine_that_cannot_open_the_new_ring_seals_itself(locked):
    async with closed_engine(locked, **BY_PASSPHRASE) as one, closed_engine(locked, **BY_PASSPHRASE) as two:
        await one.seal.unseal(PASSPHRASE)
        await two.seal.unseal(PASSPHRASE)
        await one.seal.rotate_root(intent(), OTHER)
        await two.engine.feed.poll()
        assert two.seal.state is SealState.SEALED


async def test_a_server_under_a_passphrase_is_made_sealed_and_opened_over_the_wire(tmp_path):
    async with running_server(tmp_path, initialize=False, **BY_PASSPHRASE) as server:
        admin = server.admin.admin
        await admin.Init(admin_pb2.InitRequest(admin_principals=[ADMIN], passphrase=b"correct horse battery"))
        await admin.Seal(admin_pb2.SealRequest())
        with pytest.raises(Exception, match="passphrase") as refused:
            await admin.Unseal(admin_pb2.UnsealRequest(passphrase=b"incorrect horse battery"))
        assert reason_of(refused.value) == "WRONG_PASSPHRASE"
        status = await admin.Unseal(admin_pb2.UnsealRequest(passphrase=b"correct horse battery"))
        assert status.seal_state == admin_pb2.SEAL_STATE_UNSEALED


# -- rotation -----------------------------------------------------------------------------------------------------------


async def test_a_rotation_keeps_every_ciphertext_open(vault):
    await vault.create()
    sealed = await vault.encrypt(K)
    await vault.seal.rotate_root(intent(), None)
    vault.engine.catalog.forget_all()
    assert await vault.decrypt(K, sealed) == b"plaintext"


async def test_a_rotation_is_answered_once_for_one_request(vault):
    request = Intent("p", "RotateRootKey", "once", b"body")
    await vault.seal.rotate_root(request, None)
    await vault.seal.rotate_root(request, None)
    assert vault.ledger.sealer.term == 2


async def test_a_rotation_retires_the_old_root_key(tmp_path, vault):
    before = (tmp_path / "root.key").read_bytes()
    await vault.seal.rotate_root(intent(), None)
    after = (tmp_path / "root.key").read_bytes()
    assert len(after.splitlines()) == 1
    assert after != before


async def test_two_vaults_on_one_root_key_file_rotate_without_harm_to_each_other(tmp_path):
    shared = {"root_key": {"provider": "file", "path": tmp_path / "root.key"}}
    one, two = tmp_path / "one", tmp_path / "two"
    one.mkdir()
    two.mkdir()
    async with open_engine(one, **shared) as first, open_engine(two, **shared) as second:
        await second.create()
        await first.seal.rotate_root(intent(), None)
    async with open_engine(two, **shared) as second:
        assert await second.encrypt(K)
    async with open_engine(one, **shared) as first:
        assert first.ledger.sealer.term == 2
        await first.seal.rotate_root(intent(), None)
    async with open_engine(two, **shared) as second:
        await second.seal.rotate_root(intent(), None)
        assert await second.encrypt(K)
    async with open_engine(one, **shared) as first:
        assert first.ledger.sealer.term == 3
    assert len(root_key_lines(tmp_path)) == 2


@pytest.mark.parametrize("at", [0, 1])
async def test_a_line_that_an_operator_put_in_the_file_survives_unseal_and_rotation(tmp_path, at):
    extra = new_root_key_line()
    async with open_engine(tmp_path):
        pass
    put_line(tmp_path, at, extra)
    async with open_engine(tmp_path) as vault:
        assert extra in root_key_lines(tmp_path)
        await vault.seal.rotate_root(intent(), None)
    async with open_engine(tmp_path):
        assert extra in root_key_lines(tmp_path)
    assert len(root_key_lines(tmp_path)) == 2


async def test_a_retired_line_that_an_operator_put_back_for_a_backup_stays(tmp_path):
    async with open_engine(tmp_path) as vault:
        [old] = root_key_lines(tmp_path)
        await vault.seal.rotate_root(intent(), None)
    put_line(tmp_path, 1, old)
    async with open_engine(tmp_path) as vault:
        assert old in root_key_lines(tmp_path)
        await vault.seal.rotate_root(intent(), None)
        assert old in root_key_lines(tmp_path)


async def test_an_unseal_with_nothing_to_retire_writes_nothing(tmp_path):
    async with open_engine(tmp_path) as vault:
        await vault.seal.rotate_root(intent(), None)
    ring, written = await stored_ring(tmp_path), (tmp_path / "root.key").stat().st_ino
    async with open_engine(tmp_path) as vault:
        assert vault.ledger.sealer.ring.retiring == ""
    assert await stored_ring(tmp_path) == ring
    assert (tmp_path / "root.key").stat().st_ino == written


async def test_two_processes_that_finish_one_rotation_both_unseal(killed_before_retiring):
    async with closed_engine(killed_before_retiring) as one, closed_engine(killed_before_retiring) as two:
        await asyncio.gather(one.seal.start(), two.seal.start())
        assert (one.seal.state, two.seal.state) == (SealState.UNSEALED, SealState.UNSEALED)
        await one.engine.feed.poll()
        await two.engine.feed.poll()
        assert one.ledger.sealer.ring.generation == two.ledger.sealer.ring.generation
    assert len(root_key_lines(killed_before_retiring)) == 1


def root_key_lines(directory: Path) -> list[str]:
    return (directory / "root.key").read_text().splitlines()


def put_line(directory: Path, at: int, line: str) -> None:
    lines = root_key_lines(directory)
    lines.insert(at, line)
    (directory / "root.key").write_text("".join(f"{each}\n" for each in lines))


async def stored_ring(directory: Path) -> RingRow | None:
    async with closed_engine(directory) as vault:
        return await vault.store.ring()


async def test_calls_go_on_while_the_root_key_is_rotated(tmp_path):
    async with running_server(tmp_path) as server:
        engine = server.server.engine
        from vaultd.engine.algorithms import Purpose
        from vaultd.engine.key_specs import KeySpec

        await engine.lifecycle.create_key(intent(), "default", "k", KeySpec(Purpose.ENCRYPT_DECRYPT))
        done = asyncio.Event()

        async def use() -> int:
            calls = 0
            while not done.is_set():
                await server.app.crypto.Encrypt(crypto_pb2.EncryptRequest(name=K.key_name, plaintext=b"x"))
                calls += 1
            return calls

        users = [asyncio.ensure_future(use()) for _ in range(4)]
        for _ in range(3):
            await server.admin.admin.RotateRootKey(admin_pb2.RotateRootKeyRequest())
        done.set()
        assert min(await asyncio.gather(*users)) > 0


async def test_keys_are_made_while_the_root_key_is_rotated(vault):
    creating = [asyncio.ensure_future(vault.create(f"k{number}")) for number in range(20)]
    for _ in range(3):
        await vault.seal.rotate_root(intent(), None)
    await asyncio.gather(*creating)
    assert await vault.ledger.check(deep=True)


async def test_rows_move_to_the_new_term_by_themselves(vault):
    for number in range(120):
        await vault.create(f"k{number}")
    await vault.seal.rotate_root(intent(), None)
    assert await vault.seal.rows_on_older_terms() > 240
    for _ in range(8):
        await vault.tick()
    assert await vault.seal.rows_on_older_terms() == 0


async def test_terms_that_nothing_needs_are_dropped(vault):
    await vault.create()
    await vault.seal.rotate_root(intent(), None)
    for _ in range(4):
        await vault.tick()
    assert list(vault.ledger.sealer.ring.terms) == [2]


async def test_a_vault_whose_old_terms_were_dropped_opens_again(tmp_path):
    async with open_engine(tmp_path) as vault:
        await vault.create()
        sealed = await vault.encrypt(K)
        await vault.seal.rotate_root(intent(), None)
        for _ in range(4):
            await vault.tick()
    async with open_engine(tmp_path) as vault:
        assert list(vault.ledger.sealer.ring.terms) == [2]
        assert await vault.decrypt(K, sealed) == b"plaintext"
        assert await vault.ledger.check(deep=True)


async def test_a_term_that_a_stored_answer_needs_is_kept(vault):
    await vault.create()
    await vault.key_versions.rotate_key(intent("once"), K)
    await vault.seal.rotate_root(intent(), None)
    for _ in range(4):
        await vault.tick()
    assert sorted(vault.ledger.sealer.ring.terms) == [1, 2]


async def test_resealing_changes_no_etag(vault):
    await vault.create()
    before = await vault.keys.get_key(K), await vault.keys.get_version(K)
    await vault.seal.rotate_root(intent(), None)
    for _ in range(4):
        await vault.tick()
    assert (await vault.keys.get_key(K), await vault.keys.get_version(K)) == before


async def test_a_copy_from_before_a_rotation_opens_with_the_root_key_of_then(tmp_path):
    async with open_engine(tmp_path) as vault:
        await vault.create()
        sealed = await vault.encrypt(K)
        backup = tmp_path / "backup"
        backup.mkdir()
        await vault.store.backup(backup / "vault.db")
        shutil.copy2(tmp_path / "root.key", backup / "root.key")
        await vault.seal.rotate_root(intent(), None)
    async with open_engine(backup) as vault:
        assert await vault.decrypt(K, sealed) == b"plaintext"


async def test_a_rotated_vault_does_not_open_with_only_the_old_root_key(tmp_path):
    async with open_engine(tmp_path) as vault:
        await vault.create()
        old = (tmp_path / "root.key").read_bytes()
        await vault.seal.rotate_root(intent(), None)
    (tmp_path / "root.key").write_bytes(old)
    async with closed_engine(tmp_path) as vault:
        with pytest.raises(VaultdError) as refused:
            await vault.seal.start()
        assert (refused.value.reason, vault.seal.state) == ("ROOT_KEY_MISSING", SealState.SEALED)


# -- dying on the way ---------------------------------------------------------------------------------------------------

DEATHS = [
    "seal.prepared",
    "seal.rewrapped",
    "seal.committed",
    "seal.read_back",
    "seal.retired",
    "root_key.prepared",
    "root_key.temporary_written",
    "root_key.temporary_written:2",
    "root_key.retired",
    *(
        f"{point}{at}"
        for point in ("ledger.flushed", "ledger.committed", "store.begin", "store.before_commit", "store.after_commit")
        for at in ("", ":2")
    ),
]
"""The first change of the process is the rotation; the second retires the old root key."""
LEFT_OVER = {
    "seal.prepared",
    "seal.rewrapped",
    "root_key.prepared",
    "ledger.flushed",
    "store.before_commit",
}
"""Deaths between the new line and the commit: no ring ever names that line, and it stays."""


@pytest.fixture(scope="module")
def rotated_before(tmp_path_factory):
    """A vault with a key, a ciphertext and one rotation behind it."""
    directory = tmp_path_factory.mktemp("before")
    asyncio.run(make_rotated(directory))
    return directory


async def make_rotated(directory) -> None:
    async with open_engine(directory) as vault:
        await vault.create()
        (directory / "ciphertext").write_bytes(await vault.encrypt(K))
        await vault.seal.rotate_root(intent(), None)
        await vault.create("l")


@pytest.fixture
def killed(rotated_before, tmp_path, request):
    """The vault after a process died at the failpoint while it rotated the root key, and where it died."""
    kill_while_rotating(rotated_before, tmp_path, request.param)
    return tmp_path, request.param


@pytest.fixture
def killed_before_retiring(rotated_before, tmp_path):
    kill_while_rotating(rotated_before, tmp_path, "seal.committed")
    return tmp_path


def kill_while_rotating(original: Path, directory: Path, failpoint: str) -> None:
    for name in ("vault.db", "root.key", "ciphertext"):
        shutil.copy2(original / name, directory / name)
    child = subprocess.run(
        [sys.executable, str(Path(__file__).with_name("rotate_root_once.py")), str(directory)],
        env={**os.environ, "VAULTD_FAILPOINT": failpoint},
        capture_output=True,
        timeout=60,
        check=False,
    )
    assert (child.returncode, child.stdout) == (-signal.SIGKILL, b"unsealed\n"), child.stderr


@pytest.mark.parametrize("killed", DEATHS, indirect=True)
async def test_a_vault_whose_rotation_was_killed_opens_and_rotates_again(killed):
    directory, failpoint = killed
    lines = 2 if failpoint in LEFT_OVER else 1
    sealed = (directory / "ciphertext").read_bytes()
    async with open_engine(directory) as vault:
        assert len(root_key_lines(directory)) == lines
        assert await vault.decrypt(K, sealed) == b"plaintext"
        assert await vault.ledger.check(deep=True)
        await vault.seal.rotate_root(intent(), None)
        for _ in range(5):
            await vault.tick()
        assert len(root_key_lines(directory)) == lines
    async with open_engine(directory) as vault:
        assert await vault.decrypt(K, sealed) == b"plaintext"
        assert await vault.encrypt(KeyRef("default", "l", 0))
