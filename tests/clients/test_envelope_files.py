"""Files: encrypted and decrypted whole or not at all, by the SDK and by `vaultctl file`."""

from __future__ import annotations

import asyncio
import os
import signal
import stat
import sys
import threading
from typing import TYPE_CHECKING

import pytest
import pytest_asyncio
from sdk_rig import AEAD, PATIENT, async_client, create_keys, sync_client

from commandline import VAULTCTL, ctl, environment_of, vaultctl
from harness import running_server
from vaultd_client import AsyncEnvelopeAead, DecryptionFailed, EnvelopeAead
from vaultd_client.files import new_file

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.asyncio(loop_scope="module")
MIB = 1 << 20


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def server(tmp_path_factory):
    async with running_server(tmp_path_factory.mktemp("files"), **PATIENT) as server:
        await create_keys(server)
        yield server


def mode_of(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


async def test_a_file_comes_back_and_progress_is_told(server, tmp_path):
    plain, sealed, opened = (tmp_path / name for name in ("plain", "sealed", "opened"))
    plain.write_bytes(os.urandom(2 * MIB + 5))
    told: list[int] = []
    async with async_client(server) as client, AsyncEnvelopeAead(client, AEAD) as aead:
        await aead.encrypt_file(plain, sealed, b"aad", progress=told.append)
        assert told == [MIB - 56, 2 * MIB - 72, 2 * MIB + 5]
        await aead.decrypt_file(sealed, opened, b"aad", progress=told.append)
        assert told[-1] > 2 * MIB
    assert opened.read_bytes() == plain.read_bytes()
    assert [mode_of(path) for path in (sealed, opened)] == [0o600] * 2
    assert sorted(path.name for path in tmp_path.iterdir()) == ["opened", "plain", "sealed"]


async def test_what_fails_leaves_nothing_and_what_exists_stays(server, tmp_path):
    plain, sealed, opened = (tmp_path / name for name in ("plain", "sealed", "opened"))
    plain.write_bytes(os.urandom(3 * MIB))

    def blocking() -> None:
        with sync_client(server) as client, EnvelopeAead(client, AEAD) as aead:
            aead.encrypt_file(plain, sealed)
            whole = sealed.read_bytes()
            sealed.write_bytes(whole[:-1])
            with pytest.raises(DecryptionFailed):
                aead.decrypt_file(sealed, opened)
            with pytest.raises(DecryptionFailed):
                aead.decrypt_file(plain, opened)
            with pytest.raises(FileNotFoundError):
                aead.encrypt_file(tmp_path / "nowhere", opened)
            with pytest.raises(FileNotFoundError):
                aead.encrypt_file(plain, tmp_path / "nowhere" / "sealed")
            opened.write_bytes(b"mine")
            with pytest.raises(FileExistsError):
                aead.encrypt_file(plain, opened)
            with pytest.raises(DecryptionFailed):
                aead.decrypt_file(sealed, opened, overwrite=True)
            assert opened.read_bytes() == b"mine"
            sealed.write_bytes(whole)
            aead.decrypt_file(sealed, opened, overwrite=True)
            aead.encrypt_file(plain, plain, overwrite=True)
            assert aead.decrypt(plain.read_bytes()) == opened.read_bytes()

    await asyncio.to_thread(blocking)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["opened", "plain", "sealed"]


@pytest.mark.parametrize("size", [5, 3 * MIB])
async def test_who_is_cancelled_gets_no_file_afterwards(server, tmp_path, size):
    plain, sealed, opened = (tmp_path / name for name in ("plain", "sealed", "opened"))
    plain.write_bytes(os.urandom(size))
    loop = asyncio.get_running_loop()

    async def cancel(write, source: Path, target: Path) -> None:
        begun, goes_on = asyncio.Event(), threading.Event()

        def progress(done: int) -> None:
            loop.call_soon_threadsafe(begun.set)
            goes_on.wait(60)

        writing = asyncio.create_task(write(source, target, progress=progress))
        await asyncio.wait_for(begun.wait(), 60)
        writing.cancel()
        await asyncio.sleep(0)
        goes_on.set()
        with pytest.raises(asyncio.CancelledError):
            await writing

    async with async_client(server) as client, AsyncEnvelopeAead(client, AEAD) as aead:
        await cancel(aead.encrypt_file, plain, sealed)
        assert list(tmp_path.iterdir()) == [plain]
        await aead.encrypt_file(plain, sealed)
        await cancel(aead.decrypt_file, sealed, opened)
    assert sorted(tmp_path.iterdir()) == [plain, sealed]


async def test_a_file_that_somebody_makes_meanwhile_is_not_replaced(tmp_path):
    target = tmp_path / "target"

    def write() -> None:
        with new_file(target, overwrite=False) as file:
            file.write(b"ours")
            target.write_bytes(b"theirs")

    with pytest.raises(FileExistsError):
        write()
    assert target.read_bytes() == b"theirs"
    (tmp_path / "link").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(FileExistsError), new_file(tmp_path / "link", overwrite=False):
        pass
    assert sorted(path.name for path in tmp_path.iterdir()) == ["link", "target"]


# -- vaultctl file ------------------------------------------------------------------------------------------------------


async def test_vaultctl_encrypts_and_decrypts_files(server, tmp_path):
    plain, sealed, opened = (tmp_path / name for name in ("plain", "sealed", "opened"))
    plain.write_bytes(os.urandom(MIB))
    words = ("--associated-data", "backup 7")
    assert (await ctl(server, "file", "encrypt", "aead", plain, sealed, *words, identity="app")).exit_code == 0
    again = await ctl(server, "file", "encrypt", AEAD, plain, sealed, *words)
    assert (again.exit_code, "--overwrite" in again.stderr) == (2, True)
    assert (await ctl(server, "file", "decrypt", AEAD, sealed, opened, "--overwrite", *words)).exit_code == 0
    assert opened.read_bytes() == plain.read_bytes()
    refused = await ctl(server, "file", "decrypt", AEAD, sealed, tmp_path / "other")
    assert (refused.exit_code, "DECRYPTION_FAILED" in refused.stderr) == (1, True)
    absent = await ctl(server, "file", "encrypt", "nowhere", plain, tmp_path / "other")
    assert (absent.exit_code, "KEY_NOT_FOUND" in absent.stderr) == (3, True)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["opened", "plain", "sealed"]


async def test_vaultctl_is_a_filter(server, tmp_path):
    plaintext = os.urandom(MIB + 100)
    done = await ctl(server, "file", "encrypt", AEAD, "-", "-", data=plaintext)
    assert done.exit_code == 0
    sealed = done.stdout_bytes
    back = await ctl(server, "file", "decrypt", AEAD, "-", "-", data=sealed)
    assert (back.exit_code, back.stdout_bytes == plaintext) == (0, True)
    cut = await ctl(server, "file", "decrypt", AEAD, "-", "-", data=sealed[:-1])
    assert (cut.exit_code, "DECRYPTION_FAILED" in cut.stderr) == (1, True)
    assert plaintext.startswith(cut.stdout_bytes)
    code, _, error = await vaultctl(server, "file", "decrypt", AEAD, "-", str(tmp_path / "none"), data=b"no stream")
    assert (code, "DECRYPTION_FAILED" in error) == (1, True)
    assert list(tmp_path.iterdir()) == []


AS_BY_DEFAULT = (
    "import os, signal, sys; signal.signal(signal.SIGHUP, signal.SIG_DFL); os.execv(sys.argv[1], sys.argv[1:])"
)
"""Whoever runs the tests may ignore SIGHUP, which a process hands down."""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
async def test_vaultctl_that_is_ended_leaves_no_part_of_a_file(server, tmp_path, number):
    async with async_client(server) as client, AsyncEnvelopeAead(client, AEAD) as aead:
        sealed = await aead.encrypt(bytes(3 * MIB))
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", AS_BY_DEFAULT, VAULTCTL, "file", "decrypt", AEAD, "-", str(tmp_path / "opened")),
        env={**os.environ, **environment_of(server)},
        stdin=asyncio.subprocess.PIPE,
    )
    process.stdin.write(sealed[:-1])
    await process.stdin.drain()  # so most of it was read
    assert [path.suffix for path in tmp_path.iterdir()] == [".part"]
    process.send_signal(number)
    assert await process.wait() == 128 + number
    assert list(tmp_path.iterdir()) == []
    process.stdin.close()


# -- memory -------------------------------------------------------------------------------------------------------------

PROGRAM = r"""
import hashlib, re, sys
from pathlib import Path
from vaultd_client import Client, EnvelopeAead

def zeros(digest, mib):
    piece = bytes(1 << 20)
    for _ in range(mib):
        digest.update(piece)
        yield piece

with Client.from_env() as client, EnvelopeAead(client, sys.argv[1]) as aead:
    def there_and_back(mib):
        sent, received = hashlib.sha256(), hashlib.sha256()
        for piece in aead.decrypt_chunks(aead.encrypt_chunks(zeros(sent, mib))):
            received.update(piece)
        assert sent.digest() == received.digest()
        # Not of getrusage: that begins with the peak of the process that started this one.
        return int(re.search(r"VmHWM:\s+(\d+)", Path("/proc/self/status").read_text())[1]) // 1024
    print(there_and_back(8), there_and_back(256))
"""


@pytest.mark.slow
async def test_a_longer_stream_takes_no_more_memory(server):
    tls = server.directory / "tls"
    environment = {"VAULTD_ADDR": server.address, "VAULTD_CA": str(tls / "ca.crt")}
    environment |= {"VAULTD_CERT": str(tls / "app.crt"), "VAULTD_KEY": str(tls / "app.key")}
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-W", "error", "-c", PROGRAM, AEAD), env=environment, stdout=asyncio.subprocess.PIPE
    )
    out, _ = await process.communicate()
    short, long = map(int, out.split())
    assert long < 200
    assert long - short < 16


async def test_vaultctl_has_a_progress_bar_on_a_terminal_and_leaves_devices_alone(server, tmp_path):
    (tmp_path / "plain").write_bytes(bytes(3 * MIB))
    ours, terminal = os.openpty()
    try:
        words = ("file", "encrypt", AEAD, str(tmp_path / "plain"), str(tmp_path / "sealed"))
        environment = {**os.environ, **environment_of(server), "TERM": "xterm"}
        process = await asyncio.create_subprocess_exec(VAULTCTL, *words, env=environment, stderr=terminal)
        assert await process.wait() == 0
        shown = await asyncio.to_thread(os.read, ours, 65_536)
    finally:
        os.close(ours)
        os.close(terminal)
    assert b"encrypting" in shown
    os.mkfifo(tmp_path / "pipe")
    done = await ctl(server, "file", "decrypt", AEAD, tmp_path / "sealed", tmp_path / "pipe", "--overwrite")
    assert (done.exit_code, "if it is a file" in done.stderr) == (2, True)
    assert (tmp_path / "pipe").is_fifo()
