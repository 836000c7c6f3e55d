"""`vaultctl crypto reencrypt-all`: a file of ciphertexts to the newest version of a key."""

from __future__ import annotations

import base64
import binascii
import os
import sys
from contextlib import ExitStack, contextmanager
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, Final

import click

from vaultd_client.ctl.commands import Command
from vaultd_client.ctl.failures import FAILED, Refused, fail
from vaultd_client.ctl.names import ResourceName
from vaultd_client.ctl.progress import progress
from vaultd_client.envelope_io import write_all
from vaultd_client.errors import VaultdError, error_of_status
from vaultd_client.files import new_file
from vaultd_client.v1 import crypto_pb2 as pb

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from vaultd_client.ctl.session import Session

ITEMS: Final = 500
BYTES: Final = 2_000_000


@click.command(cls=Command)
@click.argument("key", type=ResourceName("key"), metavar="KEY")
@click.argument("file", default="-", metavar="[FILE]")
@click.option(
    "--to", "destination", type=ResourceName("key"), metavar="KEY", help="Another key of the vault to encrypt under."
)
@click.option(
    "--out", type=click.Path(path_type=Path), metavar="FILE", help="A new file, 0600; standard output by default."
)
@click.pass_obj
def reencrypt_all(session: Session, key: str, file: str, destination: str | None, out: Path | None) -> None:
    """Move many ciphertexts of KEY to its newest version; no plaintext leaves the server.

    FILE has one ciphertext a line, in base64, and behind it, after a tab, its associated data in base64 if there are any.
    What comes out has as many lines, in the same order. What could not be moved stays as it was, is named on standard error,
    and makes the exit code 1. A line that is no base64 ends it, and the file of --out is there as a whole or not at all.
    """
    with ExitStack() as stack:
        # What is no ASCII is no base64 either, and is told as that.
        lines = stack.enter_context(click.open_file(file, encoding="ascii", errors="surrogateescape"))
        size = os.path.getsize(file) if file != "-" else None
        target = stack.enter_context(_opened(out))
        first = next(lines, None)
        if first is None:
            return  # the server refuses a stream without a request
        bar = stack.enter_context(progress("ciphertexts", size, is_bytes=size is not None))
        job = _Job(chain([first], lines))
        done = 0
        try:
            for response in session.client().re_encrypt_stream(job.requests(key, destination or "")):
                for result in response.results:
                    job.answered(result)
                ready = "".join(f"{line}\n" for line in job.ready()).encode()
                write_all(target, ready)
                target.flush()
                done += len(ready)
                bar.update(done)
                report = response.report
        except VaultdError as error:
            raise job.trouble or error from None
    told = f"{report.moved} moved, {report.unchanged} on the newest version already, {report.failed} failed"
    click.echo(told, err=True)
    for number, why in job.failures:
        click.echo(f"{file}:{number}: {why}", err=True)
    if job.failures:
        raise Refused(f"{len(job.failures)} ciphertexts could not be moved", FAILED)


@contextmanager
def _opened(out: Path | None) -> Iterator[BinaryIO]:
    if out is None:
        yield sys.stdout.buffer
        return
    try:
        with new_file(out, overwrite=False) as target:
            yield target
    except FileExistsError:
        fail(f"{out} exists: choose another name")


class _Job:
    """Lines on their way: those that were sent, and the answers that wait for earlier ones."""

    def __init__(self, lines: Iterable[str]) -> None:
        self._lines = lines
        self._sent: dict[int, str] = {}
        self._done: dict[int, str] = {}
        self._next = 1
        self.failures: list[tuple[int, str]] = []
        self.trouble: Exception | None = None

    def requests(self, source: str, destination: str) -> Iterator[pb.ReEncryptStreamRequest]:
        """The messages to send.  gRPC takes them in a thread of its own, as fast as the server reads."""
        request = pb.ReEncryptStreamRequest(source_name=source, destination_name=destination)
        size = 0
        try:
            for number, line in enumerate(self._lines, start=1):
                item = self._item(number, line)
                self._sent[number] = line.rstrip("\r\n")
                request.items.append(item)
                size += item.ByteSize()
                if len(request.items) >= ITEMS or size >= BYTES:
                    yield request
                    request, size = pb.ReEncryptStreamRequest(), 0
            if request.items:
                yield request
        except Exception as error:  # it is kept, since gRPC tells nobody of it
            self.trouble = error
            raise

    @staticmethod
    def _item(number: int, line: str) -> pb.ReEncryptStreamItem:
        try:
            ciphertext, _, associated = line.rstrip("\r\n").partition("\t")
            return pb.ReEncryptStreamItem(
                id=number,
                ciphertext=base64.b64decode(ciphertext, validate=True),
                associated_data=base64.b64decode(associated, validate=True),
            )
        except (ValueError, binascii.Error):
            fail(f"line {number} is no base64")

    def answered(self, result: pb.ReEncryptStreamResult) -> None:
        """Take one answer."""
        line = self._sent.pop(result.id)
        if result.WhichOneof("outcome") == "status":
            self.failures.append((result.id, str(error_of_status(result.status, "ReEncryptStream"))))
        elif not result.unchanged:
            _, tab, associated = line.partition("\t")
            line = base64.b64encode(result.result.ciphertext).decode() + tab + associated
        self._done[result.id] = line

    def ready(self) -> Iterator[str]:
        """Lines whose turn has come."""
        while self._next in self._done:
            yield self._done.pop(self._next)
            self._next += 1
