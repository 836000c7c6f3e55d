"""`vaultctl file`: files and pipes of any size, encrypted here with a data key of the vault."""

from __future__ import annotations

import os
import signal
import sys
import threading
from contextlib import contextmanager, nullcontext
from typing import TYPE_CHECKING, BinaryIO

import click

from vaultd_client.ctl.commands import Group
from vaultd_client.ctl.failures import fail
from vaultd_client.ctl.names import ResourceName
from vaultd_client.ctl.progress import progress

if TYPE_CHECKING:
    from collections.abc import Iterator
    from contextlib import AbstractContextManager

    from vaultd_client.ctl.session import Session

PIPE = "-"
ENDING = (signal.SIGTERM, signal.SIGHUP)
KEY = click.argument("key", type=ResourceName("key"), metavar="KEY")
SOURCE = click.argument("source", type=click.Path(dir_okay=False, exists=True, allow_dash=True))
TARGET = click.argument("target", type=click.Path(dir_okay=False, allow_dash=True))
CONTEXT = click.option(
    "--associated-data",
    default="",
    metavar="TEXT",
    help="Bound to what is encrypted, and not in it: decrypting takes the same.",
)
OVERWRITE = click.option("--overwrite", is_flag=True, help="Replace TARGET when there is one.")


@click.group(cls=Group)
def file() -> None:
    """Encrypt and decrypt files and pipes of any size.

    The vault makes a data key and keeps the key that opens it; the data does not leave this machine.
    """


@file.command()
@KEY
@SOURCE
@TARGET
@CONTEXT
@OVERWRITE
@click.pass_obj
def encrypt(session: Session, key: str, source: str, target: str, associated_data: str, overwrite: bool) -> None:
    """Encrypt SOURCE to TARGET; `-` is standard input or output.

    KEY is an ENCRYPT_DECRYPT key: `vaults/VAULT/keys/KEY`, or its id.  A TARGET that is a file is there when all of it is.
    """
    _carry(session, key, source, target, associated_data, overwrite, "encrypting")


@file.command()
@KEY
@SOURCE
@TARGET
@CONTEXT
@OVERWRITE
@click.pass_obj
def decrypt(session: Session, key: str, source: str, target: str, associated_data: str, overwrite: bool) -> None:
    """Decrypt SOURCE to TARGET; `-` is standard input or output.

    What goes to standard output is authentic; that it is the whole is known only when the exit code is 0.
    """
    _carry(session, key, source, target, associated_data, overwrite, "decrypting")


def _carry(
    session: Session, key: str, source: str, target: str, associated_data: str, overwrite: bool, work: str
) -> None:
    from vaultd_client import EnvelopeAead

    try:
        with (
            _ended_by_signals(),
            EnvelopeAead(session.client(), key) as aead,
            _source(source) as file,
            _sink(target, overwrite) as sink,
            progress(work, _size_of(file), is_bytes=True) as bar,
        ):
            act = aead.encrypt_stream if work == "encrypting" else aead.decrypt_stream
            act(file, sink, associated_data.encode(), progress=bar.update)
    except FileExistsError:
        fail(f"{target} exists: choose another name, or say --overwrite if it is a file")
    except BrokenPipeError:
        raise
    except OSError as error:
        fail(f"{error.filename or 'standard input or output'}: {error.strerror}")


@contextmanager
def _ended_by_signals() -> Iterator[None]:
    """What ends a process at once ends this block as an error does, so that no part of a file is left."""
    if threading.current_thread() is not threading.main_thread():
        yield  # of a program that runs us: signals are its own affair
        return

    ours = [each for each in ENDING if signal.getsignal(each) is signal.SIG_DFL]  # what nohup ignores stays ignored

    def end(number: int, _frame: object) -> None:
        for each in ours:
            signal.signal(each, signal.SIG_IGN)  # a second one does not end the cleaning up
        raise SystemExit(128 + number)

    for each in ours:
        signal.signal(each, end)
    try:
        yield
    finally:
        for each in ours:
            signal.signal(each, signal.SIG_DFL)


def _source(name: str) -> AbstractContextManager[BinaryIO]:
    return nullcontext(sys.stdin.buffer) if name == PIPE else open(name, "rb", buffering=0)


@contextmanager
def _sink(name: str, overwrite: bool) -> Iterator[BinaryIO]:
    if name == PIPE:
        yield sys.stdout.buffer
        sys.stdout.buffer.flush()
        return
    from vaultd_client.files import new_file

    with new_file(name, overwrite=overwrite) as sink:
        yield sink


def _size_of(source: BinaryIO) -> int | None:
    """How many bytes there will be; None where nobody knows before the end."""
    try:
        return os.fstat(source.fileno()).st_size or None
    except OSError:  # nothing of the operating system's, such as a program's own standard input
        return None
