"""System calls that keep the interpreter do what those of `os` do."""

from __future__ import annotations

import errno
import os

import pytest

from vaultd.brief_calls import pwrite, random_nonce


@pytest.fixture
def file(tmp_path):
    fd = os.open(tmp_path / "file", os.O_RDWR | os.O_CREAT, 0o600)
    yield fd
    os.close(fd)


def test_what_is_written_stands_at_its_place_with_every_byte(file):
    content = bytes(range(256)) * 3

    assert pwrite(file, content, 0) == len(content)
    assert pwrite(file, b"\0end", 5_000_000_000) == 4

    assert os.pread(file, len(content), 0) == content
    assert os.pread(file, 100, 5_000_000_000) == b"\0end"


def test_what_cannot_be_written_is_an_error_that_says_why(tmp_path):
    (tmp_path / "file").touch()
    fd = os.open(tmp_path / "file", os.O_RDONLY)
    try:
        with pytest.raises(OSError, match="Bad file descriptor") as refused:
            pwrite(fd, b"x", 0)
    finally:
        os.close(fd)

    assert refused.value.errno == errno.EBADF
    with pytest.raises(OSError, match="Bad file descriptor") as gone:
        pwrite(-1, b"x", 0)
    assert gone.value.errno == errno.EBADF


@pytest.mark.parametrize("size", [12, 24])
def test_nonces_have_their_size_and_are_drawn_anew(size):
    drawn = {random_nonce(size) for _ in range(1_000)}

    assert len(drawn) == 1_000
    assert {len(nonce) for nonce in drawn} == {size}
    assert all(len({nonce[at] for nonce in drawn}) > 100 for at in range(size))
