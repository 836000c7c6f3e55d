"""Root keys in a file, from a passphrase, and from a credential."""

from __future__ import annotations

import asyncio
import base64
import os
import re
import signal
import subprocess
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytest

import softhsm
from contract.root_key import AAD, RING, RootKeyContract, opened
from vaultd.backends.base import Lane
from vaultd.backends.pkcs11.messages import Verb
from vaultd.backends.pkcs11.root_key import Pkcs11RootKey
from vaultd.backends.pkcs11.slot import Request
from vaultd.backends.rootkeys import (
    Argon2Cost,
    CredentialRootKey,
    FileRootKey,
    PassphraseRootKey,
    new_root_key_line,
)
from vaultd.errors import DataLoss, FailedPrecondition, InvalidArgument, Unavailable, VaultdError
from vaultd.secret import Secret

if TYPE_CHECKING:
    from pathlib import Path

CHEAP = Argon2Cost(iterations=2, lanes=1, memory_kib=19 * 1024)
PASSPHRASE = Secret(b"correct horse battery staple")


@dataclass
class FilePlace:
    path: Path
    passphrase: Secret | None = None

    def connect(self):
        return FileRootKey(self.path)

    def operator_rotates(self):
        pass


class PassphrasePlace:
    passphrase = PASSPHRASE

    def connect(self):
        return PassphraseRootKey(CHEAP)

    def operator_rotates(self):
        pass


@dataclass
class CredentialPlace:
    path: Path
    passphrase: Secret | None = None

    def connect(self):
        return CredentialRootKey(str(self.path))

    def operator_rotates(self):
        self.path.write_text(f"{new_root_key_line()}\n{self.path.read_text()}")


@dataclass
class EnvironmentPlace:
    monkeypatch: pytest.MonkeyPatch
    value: str
    passphrase: Secret | None = None

    def connect(self):
        self.monkeypatch.setenv("VAULTD_TEST_ROOT_KEY", self.value)
        return CredentialRootKey("env:VAULTD_TEST_ROOT_KEY")


def private_file(path: Path, content: str | bytes) -> Path:
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    path.chmod(0o600)
    return path


def refs_in(path: Path) -> list[str]:
    return [line.split()[1] for line in path.read_text().splitlines()]


async def reason_of(call) -> str:
    with pytest.raises(VaultdError) as error:
        await call
    return error.value.reason


async def turns_of_the_loop(count: int) -> None:
    loop = asyncio.get_running_loop()
    for _ in range(count):
        turn = loop.create_future()
        loop.call_soon(turn.set_result, None)
        await turn


class TestFileContract(RootKeyContract):
    @pytest.fixture
    def place(self, tmp_path):
        return FilePlace(tmp_path / "root.key")


class TestPassphraseContract(RootKeyContract):
    @pytest.fixture
    def place(self):
        return PassphrasePlace()


class TestCredentialContract(RootKeyContract):
    @pytest.fixture
    def place(self, tmp_path):
        return CredentialPlace(private_file(tmp_path / "credential", new_root_key_line()))


class TestBareCredentialContract(RootKeyContract):
    @pytest.fixture
    def place(self, tmp_path):
        return CredentialPlace(private_file(tmp_path / "credential", f"{os.urandom(32).hex()}\n"))


class TestFile:
    async def test_the_file_is_private_and_of_the_documented_format(self, tmp_path):
        path = tmp_path / "root.key"
        ref = await FileRootKey(path).create(None)
        assert path.stat().st_mode & 0o7777 == 0o600
        mark, written_ref, key = path.read_text().removesuffix("\n").split(" ")
        assert (mark, written_ref) == ("vaultd-root-key-v1", ref)
        assert re.fullmatch(r"[0-9a-f]{16}", ref)
        assert len(base64.b64decode(key, validate=True)) == 32

    async def test_create_with_a_key_there_makes_another_for_it_may_be_of_another_vault(self, tmp_path):
        path = tmp_path / "root.key"
        theirs = await FileRootKey(path).create(None)
        ours = await FileRootKey(path).create(None)
        assert refs_in(path) == [ours, theirs]

    @pytest.mark.parametrize("mode", [0o644, 0o640, 0o604, 0o660, 0o601])
    async def test_a_file_open_to_others_is_refused_at_every_load(self, tmp_path, mode):
        path = tmp_path / "root.key"
        provider = FileRootKey(path)
        ref = await provider.create(None)
        path.chmod(mode)
        assert await reason_of(provider.create(None)) == "ROOT_KEY_FILE_MODE"
        assert await reason_of(provider.wrap(ref, RING, AAD)) == "ROOT_KEY_FILE_MODE"
        assert await reason_of(provider.prepare_next(None)) == "ROOT_KEY_FILE_MODE"
        assert await reason_of(provider.retire(ref)) == "ROOT_KEY_FILE_MODE"

    async def test_a_symbolic_link_and_a_directory_are_refused(self, tmp_path):
        await FileRootKey(tmp_path / "real").create(None)
        (tmp_path / "link").symlink_to(tmp_path / "real")
        (tmp_path / "dir").mkdir(mode=0o700)
        assert await reason_of(FileRootKey(tmp_path / "link").create(None)) == "ROOT_KEY_FILE_MODE"
        assert await reason_of(FileRootKey(tmp_path / "dir").create(None)) == "ROOT_KEY_FILE_MODE"

    async def test_a_file_that_is_gone_is_missing_and_is_not_made_anew(self, tmp_path):
        path = tmp_path / "root.key"
        provider = FileRootKey(path)
        ref = await provider.create(None)
        wrapped = await provider.wrap(ref, RING, AAD)
        path.unlink()
        assert await reason_of(provider.unwrap(ref, wrapped, AAD, None)) == "ROOT_KEY_MISSING"
        assert await reason_of(provider.prepare_next(None)) == "ROOT_KEY_MISSING"
        assert not path.exists()

    async def test_a_directory_that_is_not_there_is_missing(self, tmp_path):
        assert await reason_of(FileRootKey(tmp_path / "none" / "root.key").create(None)) == "ROOT_KEY_MISSING"

    async def test_a_path_that_cannot_be_used_is_unavailable(self, tmp_path):
        private_file(tmp_path / "file", "x")
        with pytest.raises(Unavailable) as error:
            await FileRootKey(tmp_path / "file" / "root.key").create(None)
        assert error.value.reason == "ROOT_KEY_UNAVAILABLE"

    async def test_a_file_cut_at_any_byte_never_gives_a_wrong_key(self, tmp_path):
        path = tmp_path / "root.key"
        provider = FileRootKey(path)
        old = await provider.create(None)
        wrapped = await provider.wrap(old, RING, AAD)
        await provider.prepare_next(None)
        content = path.read_bytes()
        for size in range(len(content) - 1):
            private_file(path, content[:size])
            with pytest.raises((DataLoss, FailedPrecondition)) as error:
                await provider.unwrap(old, wrapped, AAD, None)
            assert error.value.reason in {"ROOT_KEY_FILE_INVALID", "ROOT_KEY_MISSING"}
        private_file(path, content[:-1])  # the last newline is not part of a key
        assert opened(await provider.unwrap(old, wrapped, AAD, None)) == opened(RING)

    @pytest.mark.parametrize(
        "content",
        [
            b"",
            b"\n",
            b"# only a comment\n",
            b"vaultd-root-key-v2 0011223344556677 " + base64.b64encode(b"k" * 32) + b"\n",
            b"vaultd-root-key-v1 0011223344556677 " + base64.b64encode(b"k" * 31) + b"\n",
            b"vaultd-root-key-v1 0011223344556677 " + base64.b64encode(b"k" * 32) + b" more\n",
            b"vaultd-root-key-v1 001122334455667 " + base64.b64encode(b"k" * 32) + b"\n",
            (b"vaultd-root-key-v1 0011223344556677 " + base64.b64encode(b"k" * 32) + b"\n") * 2,
            base64.b64encode(b"k" * 32) + b"\n",
            b"\xff\xfe\n",
            b"#" * 20_000,
        ],
    )
    async def test_a_damaged_file_is_refused_and_never_overwritten(self, tmp_path, content):
        path = private_file(tmp_path / "root.key", content)
        assert await reason_of(FileRootKey(path).create(None)) == "ROOT_KEY_FILE_INVALID"
        assert await reason_of(FileRootKey(path).prepare_next(None)) == "ROOT_KEY_FILE_INVALID"
        assert path.read_bytes() == content

    async def test_another_key_under_the_same_ref_is_a_mismatch(self, tmp_path):
        path = tmp_path / "root.key"
        provider = FileRootKey(path)
        ref = await provider.create(None)
        wrapped = await provider.wrap(ref, RING, AAD)
        private_file(path, f"vaultd-root-key-v1 {ref} {base64.b64encode(os.urandom(32)).decode()}\n")
        assert await reason_of(provider.unwrap(ref, wrapped, AAD, None)) == "ROOT_KEY_MISMATCH"

    async def test_retire_takes_the_named_line_away_and_no_other(self, tmp_path):
        path = tmp_path / "root.key"
        provider = FileRootKey(path)
        old = await provider.create(None)
        theirs = await FileRootKey(path).create(None)
        new = await provider.prepare_next(None)
        await provider.unwrap(new, await provider.wrap(new, RING, AAD), AAD, None)
        await provider.retire("0123456789abcdef")
        assert refs_in(path) == [new, theirs, old]
        for _ in range(2):
            await provider.retire(old)
            assert refs_in(path) == [new, theirs]
        assert await reason_of(provider.wrap(old, RING, AAD)) == "ROOT_KEY_MISSING"

    async def test_retire_refuses_the_line_in_use(self, tmp_path):
        path = tmp_path / "root.key"
        provider = FileRootKey(path)
        ref = await provider.create(None)
        await provider.prepare_next(None)
        assert await reason_of(provider.retire(ref)) == "ROOT_KEY_NOT_ROTATED"
        assert ref in refs_in(path)

    async def test_retire_refuses_the_last_line(self, tmp_path):
        path = tmp_path / "root.key"
        ref = await FileRootKey(path).create(None)
        assert await reason_of(FileRootKey(path).retire(ref)) == "ROOT_KEY_NOT_ROTATED"
        assert refs_in(path) == [ref]

    async def test_a_first_line_that_is_not_ours_is_never_taken_for_the_next(self, tmp_path):
        path = tmp_path / "root.key"
        provider = FileRootKey(path)
        ours = await provider.create(None)
        theirs = await FileRootKey(path).create(None)
        new = await provider.prepare_next(None)
        assert refs_in(path) == [new, theirs, ours]

    async def test_a_file_takes_64_lines_and_then_says_that_it_is_full(self, tmp_path):
        path = private_file(tmp_path / "root.key", "".join(f"{new_root_key_line()}\n" for _ in range(63)))
        provider = FileRootKey(path)
        await provider.prepare_next(None)
        content = path.read_bytes()
        assert await reason_of(provider.prepare_next(None)) == "ROOT_KEY_FILE_FULL"
        assert await reason_of(provider.create(None)) == "ROOT_KEY_FILE_FULL"
        assert path.read_bytes() == content

    async def test_a_process_that_knows_no_key_in_use_drops_none(self, tmp_path):
        path = tmp_path / "root.key"
        refs = {await FileRootKey(path).create(None)}
        for _ in range(3):
            refs.add(await FileRootKey(path).prepare_next(None))
        assert {line.split()[1] for line in path.read_text().splitlines()} == refs
        assert len(refs) == 4

    async def test_processes_that_rotate_at_once_lose_no_key(self, tmp_path):
        path = tmp_path / "root.key"
        await FileRootKey(path).create(None)
        refs = await asyncio.gather(*(FileRootKey(path).prepare_next(None) for _ in range(20)))
        kept = {line.split()[1] for line in path.read_text().splitlines()}
        assert len(set(refs)) == 20
        assert set(refs) <= kept

    @pytest.mark.slow
    @pytest.mark.parametrize("failpoint", ["root_key.temporary_written", "root_key.prepared"])
    async def test_a_process_killed_while_it_rotates_leaves_the_old_key(self, tmp_path, failpoint):
        path = tmp_path / "root.key"
        provider = FileRootKey(path)
        ref = await provider.create(None)
        wrapped = await provider.wrap(ref, RING, AAD)
        program = (
            "import asyncio, pathlib, sys; from vaultd.backends.rootkeys import FileRootKey;"
            "asyncio.run(FileRootKey(pathlib.Path(sys.argv[1])).prepare_next(None))"
        )
        process = await asyncio.to_thread(
            subprocess.run,
            [sys.executable, "-c", program, str(path)],
            env={**os.environ, "VAULTD_FAILPOINT": failpoint},
            check=False,
        )
        assert process.returncode == -signal.SIGKILL
        after = FileRootKey(path)
        assert opened(await after.unwrap(ref, wrapped, AAD, None)) == opened(RING)
        new = await after.prepare_next(None)
        under_new = await after.wrap(new, RING, AAD)
        await after.unwrap(new, under_new, AAD, None)
        await after.retire(ref)
        assert opened(await FileRootKey(path).unwrap(new, under_new, AAD, None)) == opened(RING)
        assert {p.name for p in tmp_path.iterdir()} == {"root.key", "root.key.lock"}


class TestPassphrase:
    async def test_the_ref_carries_parameters_and_salt_and_no_secret(self):
        ref = await PassphraseRootKey(CHEAP).create(PASSPHRASE)
        assert re.fullmatch(r"argon2id:v=1,t=2,p=1,m=19456,salt=[0-9a-f]{32},check=[0-9a-f]{16}", ref)

    async def test_the_default_cost_is_64_mib_three_times(self):
        ref = await PassphraseRootKey().create(PASSPHRASE)
        assert ref.startswith("argon2id:v=1,t=3,p=4,m=65536,salt=")

    async def test_a_wrong_passphrase_is_said_to_be_wrong(self):
        provider = PassphraseRootKey(CHEAP)
        ref = await provider.create(PASSPHRASE)
        wrapped = await provider.wrap(ref, RING, AAD)
        for wrong in (b"correct horse battery stable", b"", b"x" * 2000):
            with pytest.raises(InvalidArgument) as error:
                await PassphraseRootKey(CHEAP).unwrap(ref, wrapped, AAD, Secret(wrong))
            assert error.value.reason == "WRONG_PASSPHRASE"

    async def test_a_wrong_passphrase_is_refused_while_the_key_is_in_memory(self):
        provider = PassphraseRootKey(CHEAP)
        ref = await provider.create(PASSPHRASE)
        wrapped = await provider.wrap(ref, RING, AAD)
        assert await reason_of(provider.unwrap(ref, wrapped, AAD, Secret(b"x" * 20))) == "WRONG_PASSPHRASE"

    async def test_the_right_passphrase_on_a_damaged_ring_is_a_mismatch(self):
        provider = PassphraseRootKey(CHEAP)
        ref = await provider.create(PASSPHRASE)
        wrapped = await provider.wrap(ref, RING, AAD)
        damaged = wrapped[:-1] + bytes([wrapped[-1] ^ 1])
        assert await reason_of(PassphraseRootKey(CHEAP).unwrap(ref, damaged, AAD, PASSPHRASE)) == "ROOT_KEY_MISMATCH"

    @pytest.mark.parametrize(("size", "accepted"), [(0, False), (11, False), (12, True), (1024, True), (1025, False)])
    async def test_a_new_passphrase_has_12_to_1024_bytes(self, size, accepted):
        provider = PassphraseRootKey(CHEAP)
        for make in (provider.create, provider.prepare_next):
            if accepted:
                await make(Secret(b"p" * size))
            else:
                assert await reason_of(make(Secret(b"p" * size))) == "PASSPHRASE_LENGTH"

    async def test_no_passphrase_is_asked_for(self):
        provider = PassphraseRootKey(CHEAP)
        ref = await provider.create(PASSPHRASE)
        wrapped = await provider.wrap(ref, RING, AAD)
        provider.forget()
        assert await reason_of(provider.create(None)) == "PASSPHRASE_REQUIRED"
        assert await reason_of(provider.prepare_next(None)) == "PASSPHRASE_REQUIRED"
        assert await reason_of(provider.unwrap(ref, wrapped, AAD, None)) == "PASSPHRASE_REQUIRED"

    async def test_forget_drops_the_key_until_the_next_unwrap(self):
        provider = PassphraseRootKey(CHEAP)
        ref = await provider.create(PASSPHRASE)
        wrapped = await provider.wrap(ref, RING, AAD)
        provider.forget()
        assert await reason_of(provider.wrap(ref, RING, AAD)) == "ROOT_KEY_MISSING"
        assert opened(await provider.unwrap(ref, wrapped, AAD, PASSPHRASE)) == opened(RING)
        await provider.wrap(ref, RING, AAD)

    async def test_an_unwrap_under_way_at_seal_leaves_no_key_behind(self):
        provider = PassphraseRootKey(CHEAP)
        ref = await provider.create(PASSPHRASE)
        wrapped = await provider.wrap(ref, RING, AAD)
        unwrapping = asyncio.create_task(provider.unwrap(ref, wrapped, AAD, PASSPHRASE))
        await turns_of_the_loop(3)  # the derivation has begun
        provider.forget()
        await unwrapping
        assert await reason_of(provider.wrap(ref, RING, AAD)) == "ROOT_KEY_MISSING"

    async def test_retire_drops_the_named_key_and_no_other(self):
        provider = PassphraseRootKey(CHEAP)
        another = Secret(b"another passphrase")
        old = await provider.create(PASSPHRASE)
        new = await provider.prepare_next(another)
        assert await reason_of(provider.retire(old)) == "ROOT_KEY_NOT_ROTATED"
        await provider.unwrap(new, await provider.wrap(new, RING, AAD), AAD, another)
        await provider.retire(old)
        assert await reason_of(provider.wrap(old, RING, AAD)) == "ROOT_KEY_MISSING"
        assert await reason_of(provider.retire(new)) == "ROOT_KEY_NOT_ROTATED"
        await provider.wrap(new, RING, AAD)

    @pytest.mark.parametrize(
        ("old", "new"),
        [
            ("t=2", "t=1"),
            ("t=2", "t=17"),
            ("t=2", "t=9999"),
            ("t=2", "t=02"),
            ("p=1", "p=17"),
            ("p=1", "p=0"),
            ("m=19456", "m=8"),
            ("m=19456", "m=524289"),
            ("m=19456", "m=4294967296"),
            ("v=1", "v=2"),
            ("salt=", "salt=00"),
            ("check=", "check=0"),
            ("argon2id:", "argon2i:"),
            ("check=", "x=1,check="),
        ],
    )
    async def test_edited_parameters_out_of_bounds_are_refused_before_any_work(self, old, new):
        provider = PassphraseRootKey(CHEAP)
        ref = await provider.create(PASSPHRASE)
        wrapped = await provider.wrap(ref, RING, AAD)
        assert old in ref
        edited = ref.replace(old, new, 1)
        assert await reason_of(provider.unwrap(edited, wrapped, AAD, PASSPHRASE)) == "ROOT_KEY_MISMATCH"

    async def test_edited_parameters_within_bounds_give_no_key(self):
        provider = PassphraseRootKey(CHEAP)
        ref = await provider.create(PASSPHRASE)
        wrapped = await provider.wrap(ref, RING, AAD)
        salt = re.search(r"salt=([0-9a-f]{32})", ref)[1]
        for edited in (ref.replace("t=2", "t=3"), ref.replace("p=1", "p=2"), ref.replace(salt, "0" * 32)):
            assert await reason_of(provider.unwrap(edited, wrapped, AAD, PASSPHRASE)) == "WRONG_PASSPHRASE"

    @pytest.mark.parametrize("cost", [(1, 1, 19456), (17, 1, 19456), (2, 0, 19456), (2, 17, 19456), (2, 1, 8192)])
    def test_a_cost_out_of_bounds_cannot_exist(self, cost):
        with pytest.raises(ValueError, match="out of bounds"):
            Argon2Cost(*cost)


class TestCredential:
    async def test_create_and_rotate_read_the_first_line(self, tmp_path):
        lines = [new_root_key_line() for _ in range(2)]
        path = private_file(tmp_path / "credential", f"# made by hand\n{lines[0]}\n\n")
        provider = CredentialRootKey(str(path))
        old = await provider.create(None)
        assert old == lines[0].split()[1]
        private_file(path, f"{lines[1]}\n{lines[0]}\n")
        assert await provider.prepare_next(None) == lines[1].split()[1]

    async def test_not_rotated_tells_the_operator_what_to_do(self, tmp_path):
        provider = CredentialRootKey(str(private_file(tmp_path / "credential", new_root_key_line())))
        ref = await provider.create(None)
        with pytest.raises(FailedPrecondition) as error:
            await provider.prepare_next(None)
        assert error.value.reason == "ROOT_KEY_NOT_ROTATED"
        assert "first line" in error.value.text
        await provider.retire(ref)

    async def test_rotation_is_refused_when_the_old_key_is_already_gone(self, tmp_path):
        path = private_file(tmp_path / "credential", new_root_key_line())
        provider = CredentialRootKey(str(path))
        await provider.create(None)
        private_file(path, new_root_key_line())
        assert await reason_of(provider.prepare_next(None)) == "ROOT_KEY_MISSING"

    async def test_retire_never_writes_the_file(self, tmp_path):
        path = private_file(tmp_path / "credential", f"{new_root_key_line()}\n{new_root_key_line()}\n")
        path.chmod(0o400)
        content = path.read_bytes()
        provider = CredentialRootKey(str(path))
        await provider.retire(await provider.create(None))
        assert path.read_bytes() == content
        assert [p.name for p in tmp_path.iterdir()] == ["credential"]

    async def test_hex_and_base64_of_one_key_have_one_ref_that_is_not_its_plain_hash(self, tmp_path):
        key = os.urandom(32)
        texts = (key.hex(), key.hex().upper(), base64.b64encode(key).decode())
        refs = {
            await CredentialRootKey(str(private_file(tmp_path / "credential", text))).create(None) for text in texts
        }
        assert len(refs) == 1
        assert re.fullmatch(r"sha256:[0-9a-f]{16}", refs.pop())

    async def test_a_bare_key_has_the_same_ref_in_every_release(self, tmp_path):
        path = private_file(tmp_path / "credential", bytes(range(32)).hex())
        assert await CredentialRootKey(str(path)).create(None) == "sha256:ad2a246d74e53b97"

    async def test_a_wrapping_of_the_first_release_opens_in_every_release(self, tmp_path):
        path = private_file(tmp_path / "credential", bytes(range(32)).hex())
        wrapped = bytes.fromhex(
            "01477c95a72898899d5b23878a947d6edfdf4ec9a835cd808f77aecb821807377d7b6e7e176563c3c36c252289301bba"
            "d7efe81d01f09268efad3cde8e35067f44cc2cb6342a02492c9b74108b56d15a8b5d"
        )
        provider = CredentialRootKey(str(path))
        ref = await provider.create(None)
        assert opened(await provider.unwrap(ref, wrapped, AAD, None)) == opened(RING)

    @pytest.mark.parametrize(
        "text", ["", "0" * 63, "0" * 66, "A" * 43, "not a key", base64.b64encode(b"k" * 33).decode()]
    )
    async def test_what_is_no_key_is_refused(self, tmp_path, text):
        path = private_file(tmp_path / "credential", text)
        assert await reason_of(CredentialRootKey(str(path)).create(None)) == "ROOT_KEY_FILE_INVALID"

    @pytest.mark.parametrize(("mode", "accepted"), [(0o400, True), (0o440, True), (0o604, False), (0o620, False)])
    async def test_a_group_of_a_service_may_read_and_nobody_else(self, tmp_path, mode, accepted):
        path = private_file(tmp_path / "credential", new_root_key_line())
        path.chmod(mode)
        provider = CredentialRootKey(str(path))
        if accepted:
            await provider.create(None)
        else:
            assert await reason_of(provider.create(None)) == "ROOT_KEY_FILE_MODE"

    async def test_a_mounted_link_is_followed(self, tmp_path):
        line = new_root_key_line()
        private_file(tmp_path / "real", line)
        (tmp_path / "link").symlink_to("real")
        assert await CredentialRootKey(str(tmp_path / "link")).create(None) == line.split()[1]

    async def test_a_systemd_credential_is_found_by_name(self, tmp_path, monkeypatch):
        line = new_root_key_line()
        private_file(tmp_path / "vaultd-root", line)
        monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(tmp_path))
        assert await CredentialRootKey("vaultd-root").create(None) == line.split()[1]

    def test_a_credential_without_its_directory_is_missing(self, monkeypatch):
        monkeypatch.delenv("CREDENTIALS_DIRECTORY", raising=False)
        with pytest.raises(FailedPrecondition) as error:
            CredentialRootKey("vaultd-root")
        assert error.value.reason == "ROOT_KEY_MISSING"

    @pytest.mark.parametrize("source", ["", "../root", "a/b", ".hidden", "env:", "env:A B", "file:x y"])
    def test_a_source_that_is_no_source_is_refused(self, source, monkeypatch, tmp_path):
        monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(tmp_path))
        with pytest.raises(FailedPrecondition) as error:
            CredentialRootKey(source)
        assert error.value.reason == "ROOT_KEY_SOURCE"

    async def test_the_environment_variable_is_taken_away_and_keeps_working(self, monkeypatch):
        provider = EnvironmentPlace(monkeypatch, new_root_key_line()).connect()
        assert "VAULTD_TEST_ROOT_KEY" not in os.environ
        ref = await provider.create(None)
        wrapped = await provider.wrap(ref, RING, AAD)
        assert opened(await provider.unwrap(ref, wrapped, AAD, None)) == opened(RING)
        assert await reason_of(provider.prepare_next(None)) == "ROOT_KEY_NOT_ROTATED"

    async def test_a_restart_with_two_lines_in_the_environment_rotates(self, monkeypatch):
        old_line, new_line = new_root_key_line(), new_root_key_line()
        before = EnvironmentPlace(monkeypatch, old_line).connect()
        old = await before.create(None)
        wrapped = await before.wrap(old, RING, AAD)
        after = EnvironmentPlace(monkeypatch, f"{new_line}\n{old_line}").connect()
        await after.unwrap(old, wrapped, AAD, None)
        assert await after.prepare_next(None) == new_line.split()[1]

    def test_a_variable_that_is_not_set_is_missing(self, monkeypatch):
        monkeypatch.delenv("VAULTD_TEST_ROOT_KEY", raising=False)
        with pytest.raises(FailedPrecondition) as error:
            CredentialRootKey("env:VAULTD_TEST_ROOT_KEY")
        assert error.value.reason == "ROOT_KEY_MISSING"

    def test_no_two_new_lines_are_alike(self):
        lines = [new_root_key_line().split() for _ in range(100)]
        assert len({line[1] for line in lines}) == len({line[2] for line in lines}) == 100


class TokenPlace:
    """A SoftHSM token.  Each process has a worker of its own; all of them are ended after the test."""

    passphrase = None

    def __init__(self, directory: Path) -> None:
        self._settings = softhsm.slot_settings(directory)
        self.slots = []

    def connect(self):
        self.slots.append(softhsm.make_slot(self._settings, lambda name, serving: None))
        return OpenedLater(self.slots[-1])

    def operator_rotates(self):
        pass


class OpenedLater(Pkcs11RootKey):
    """Opens its slot with the first request: `connect` is not a coroutine, and the server opens slots beforehand."""

    async def _ask(self, request, lane):
        if not self._slot._tasks:
            await self._slot.open()
        return await super()._ask(request, lane)


class TestPkcs11RootKey(RootKeyContract):
    @pytest.fixture
    async def place(self, tmp_path_factory, request):
        directory = tmp_path_factory.getbasetemp() / "root-token"
        place = TokenPlace(directory)
        yield place
        for slot in place.slots:
            await slot.close()

    async def test_root_key_that_the_token_lost_is_missing(self, place):
        provider = place.connect()
        ref = await provider.create(None)
        wrapped = await provider.wrap(ref, RING, AAD)
        with pytest.raises(FailedPrecondition) as error:
            await provider.unwrap("00" * 16, wrapped, AAD, None)
        assert error.value.reason == "ROOT_KEY_MISSING"
        assert opened(await provider.unwrap(ref, wrapped, AAD, None)) == opened(RING)

    async def test_root_key_never_leaves_the_token(self, place):
        provider = place.connect()
        ref = await provider.create(None)
        request = Request("FIND", Verb.FIND, (bytes.fromhex(ref), "AES_256_GCM", ""))
        told = (await place.slots[0].ask(request, None, Lane.KEY_GENERATION))["attestation"]
        assert (told["sensitive"], told["extractable"], told["local"]) == (True, False, True)
