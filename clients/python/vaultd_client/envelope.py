"""Envelope encryption: the vault makes and unwraps data keys, and the data is encrypted here.

What is encrypted here the vault does not see: its audit log has the calls that made and unwrapped data keys, and no other.
docs/envelope.md describes the bytes.
"""

from __future__ import annotations

import asyncio
import threading
from functools import partial
from typing import TYPE_CHECKING, Self

from vaultd_client.data_keys import DataKeyLimits, DataKeys, Forgotten
from vaultd_client.envelope_format import EnvelopeHeader, HeaderReader
from vaultd_client.envelope_io import EnvelopeFile, EnvelopeReader, EnvelopeWriter, read_header
from vaultd_client.files import decrypt_file, decrypt_stream, encrypt_file, encrypt_stream
from vaultd_client.flows import run, run_async
from vaultd_client.segments import HEADER_BYTES, SegmentOpener, SegmentSealer, cannot_open, read_stream

if TYPE_CHECKING:
    from collections.abc import AsyncIterable, AsyncIterator, Callable, Iterable, Iterator
    from typing import BinaryIO

    from vaultd_client.aio import AsyncClient
    from vaultd_client.data_keys import DataKey
    from vaultd_client.files import Progress
    from vaultd_client.flows import Flow
    from vaultd_client.segments import SegmentCipher
    from vaultd_client.settings import FilePath
    from vaultd_client.sync import Client


class _Envelopes:
    """What both classes do, as flows.  Messages share a data key for a while; each stream and file has one of its own."""

    def __init__(self, key_name: str, limits: DataKeyLimits) -> None:
        self.keys = DataKeys(key_name, limits)

    def encrypt(self, plaintext: bytes | bytearray | memoryview, associated_data: bytes) -> Flow[bytes]:
        while True:
            key = yield from self.keys.for_message(len(plaintext))
            try:
                before, sealer = _sealer(key, associated_data)
            except Forgotten:
                continue
            return b"".join([before, *sealer.update(plaintext), *sealer.finish()])

    def decrypt(self, ciphertext: bytes | bytearray | memoryview, associated_data: bytes) -> Flow[bytes]:
        found = HeaderReader().feed(ciphertext)
        if found is None:
            raise cannot_open()
        header, body = found
        while True:
            key = yield from self.keys.for_opening(header.wrapped)
            try:
                opener = SegmentOpener(key.derive, header.info(associated_data), header.segment_bytes)
                return b"".join([*opener.update(body), opener.finish()])
            except Forgotten:
                continue

    def seal_stream(self, associated_data: bytes) -> Flow[tuple[bytes, SegmentSealer]]:
        return _sealer((yield from self.keys.fresh()), associated_data)

    def open_stream(self, header: EnvelopeHeader, associated_data: bytes) -> Flow[SegmentOpener]:
        key = yield from self.keys.unwrapped(header.wrapped)
        return SegmentOpener(key.derive, header.info(associated_data), header.segment_bytes)

    def read_segments(
        self, header: EnvelopeHeader, stream_header: bytes, associated_data: bytes
    ) -> Flow[SegmentCipher]:
        key = yield from self.keys.unwrapped(header.wrapped)
        return read_stream(key.derive, header.info(associated_data), header.segment_bytes, stream_header)


def _sealer(key: DataKey, associated_data: bytes) -> tuple[bytes, SegmentSealer]:
    header = EnvelopeHeader(key.wrapped)
    return header.encode(), SegmentSealer(key.derive, header.info(associated_data), header.segment_bytes)


class EnvelopeAead:
    """Encrypts messages, streams and files of any size under one ENCRYPT_DECRYPT key of a vault.  Threads may share it.

    Messages take their data key from a cache, bounded by `limits` and dropped at once when Watch tells of a change of the key; each
    stream and file has a data key of its own.  The caller needs `crypto.generate_data_key` to encrypt, `crypto.decrypt` to decrypt,
    and `keys.get` to be told of changes: without it cached data keys live for `limits.max_unwatched_s` only.

    The cache serves whoever holds this object: callers with different tokens take one each, of a client each.
    """

    def __init__(self, client: Client, key_name: str, limits: DataKeyLimits | None = None) -> None:
        self.key_name = key_name
        self._client = client
        self._envelopes = _Envelopes(key_name, limits or DataKeyLimits())

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def close(self) -> None:
        """Forget all data keys.  Idempotent; the client stays open."""
        self._envelopes.keys.close()

    def encrypt(self, plaintext: bytes | bytearray | memoryview, associated_data: bytes = b"") -> bytes:
        """Encrypt a message, which is in memory as a whole.  Raises VaultdError when there is no data key."""
        return run(self._envelopes.encrypt(plaintext, associated_data), self._client)

    def decrypt(self, ciphertext: bytes | bytearray | memoryview, associated_data: bytes = b"") -> bytes:
        """Open what `encrypt`, a stream or a file gave.  Raises DecryptionFailed, and what Decrypt of its data key raises."""
        return run(self._envelopes.decrypt(ciphertext, associated_data), self._client)

    def encrypt_chunks(self, chunks: Iterable[bytes], associated_data: bytes = b"") -> Iterator[bytes]:
        """Encrypt a stream of any length, in constant memory.  What comes out is a stream only when it is complete."""
        before, sealer = run(self._envelopes.seal_stream(associated_data), self._client)
        yield before
        for chunk in chunks:
            yield from sealer.update(chunk)
        yield from sealer.finish()

    def decrypt_chunks(self, chunks: Iterable[bytes], associated_data: bytes = b"") -> Iterator[bytes]:
        """Decrypt a stream, in constant memory.  What comes out is authentic, and the whole of it once the iterator ended.

        Raises DecryptionFailed at the first segment that is not what was written there.
        """
        reader, opener = HeaderReader(), None
        for chunk in chunks:
            piece = chunk
            if opener is None:
                found = reader.feed(chunk)
                if found is None:
                    continue
                header, piece = found
                opener = run(self._envelopes.open_stream(header, associated_data), self._client)
            yield from opener.update(piece)
        if opener is None:
            raise cannot_open()
        yield opener.finish()

    def encrypt_stream(
        self, source: BinaryIO, sink: BinaryIO, associated_data: bytes = b"", *, progress: Progress | None = None
    ) -> None:
        """Encrypt what `source` has left to `sink`; neither is closed.  When it raises, what was written does not open."""
        before, sealer = run(self._envelopes.seal_stream(associated_data), self._client)
        encrypt_stream(source, sink, before, sealer, progress)

    def decrypt_stream(
        self, source: BinaryIO, sink: BinaryIO, associated_data: bytes = b"", *, progress: Progress | None = None
    ) -> None:
        """Decrypt what `source` has left to `sink`; neither is closed.  What it wrote before it raises is authentic, not the whole.

        Raises DecryptionFailed.
        """
        opener = run(self._envelopes.open_stream(read_header(source), associated_data), self._client)
        decrypt_stream(source, sink, opener, progress)

    def open_writer(self, sink: BinaryIO, associated_data: bytes = b"") -> EnvelopeWriter:
        """A file to write plaintext to; what is encrypted goes to `sink`, which stays open.  `close`, or the end of `with`,
        completes it; an exception in `with` leaves it incomplete, and such a stream does not open.
        """
        before, sealer = run(self._envelopes.seal_stream(associated_data), self._client)
        return EnvelopeWriter(sink, before, sealer)

    def open_reader(self, source: BinaryIO, associated_data: bytes = b"") -> EnvelopeReader:
        """A file to read plaintext from, in order; `source` need not be seekable.  Reading raises DecryptionFailed."""
        return EnvelopeReader(
            source, lambda header: run(self._envelopes.open_stream(header, associated_data), self._client)
        )

    def open_file(self, source: BinaryIO, associated_data: bytes = b"") -> EnvelopeFile:
        """A seekable file of the plaintext of what `source` has left: only the segments that are read are decrypted.  `source` must
        be seekable.

        The length is authenticated at once.  Raises DecryptionFailed.
        """
        header = read_header(source)
        start = source.tell()
        begin = source.read(HEADER_BYTES)
        cipher = run(self._envelopes.read_segments(header, begin, associated_data), self._client)
        return EnvelopeFile(source, cipher, start)

    def encrypt_file(
        self,
        source: FilePath,
        target: FilePath,
        associated_data: bytes = b"",
        *,
        overwrite: bool = False,
        progress: Progress | None = None,
    ) -> None:
        """Encrypt a file.  The target is complete, synced and 0600 when it appears; when anything fails there is none.

        progress: called with the number of bytes done so far.  Raises FileExistsError unless `overwrite`, OSError, VaultdError.
        """
        before, sealer = run(self._envelopes.seal_stream(associated_data), self._client)
        encrypt_file(source, target, before, sealer, overwrite=overwrite, progress=progress)

    def decrypt_file(
        self,
        source: FilePath,
        target: FilePath,
        associated_data: bytes = b"",
        *,
        overwrite: bool = False,
        progress: Progress | None = None,
    ) -> None:
        """Decrypt a file, as `encrypt_file` encrypts one; nothing of it can be read before all of it is authentic.

        Raises DecryptionFailed besides.
        """
        with open(source, "rb", buffering=0) as file:
            header = read_header(file)
            opener = run(self._envelopes.open_stream(header, associated_data), self._client)
            decrypt_file(file, target, opener, overwrite=overwrite, progress=progress)


class AsyncEnvelopeAead:
    """EnvelopeAead for AsyncClient.  Segments of 1 MiB are encrypted on the event loop, which takes about a millisecond; files are
    read and written in a thread.
    """

    def __init__(self, client: AsyncClient, key_name: str, limits: DataKeyLimits | None = None) -> None:
        self.key_name = key_name
        self._client = client
        self._envelopes = _Envelopes(key_name, limits or DataKeyLimits())

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *error: object) -> None:
        self.close()

    def close(self) -> None:
        """Forget all data keys.  Idempotent; the client stays open."""
        self._envelopes.keys.close()

    async def encrypt(self, plaintext: bytes | bytearray | memoryview, associated_data: bytes = b"") -> bytes:
        """Encrypt a message, which is in memory as a whole.  Raises VaultdError when there is no data key."""
        return await run_async(self._envelopes.encrypt(plaintext, associated_data), self._client)

    async def decrypt(self, ciphertext: bytes | bytearray | memoryview, associated_data: bytes = b"") -> bytes:
        """Open what `encrypt`, a stream or a file gave.  Raises DecryptionFailed, and what Decrypt of its data key raises."""
        return await run_async(self._envelopes.decrypt(ciphertext, associated_data), self._client)

    async def encrypt_chunks(self, chunks: AsyncIterable[bytes], associated_data: bytes = b"") -> AsyncIterator[bytes]:
        """Encrypt a stream of any length, in constant memory.  What comes out is a stream only when it is complete."""
        before, sealer = await run_async(self._envelopes.seal_stream(associated_data), self._client)
        yield before
        async for chunk in chunks:
            for sealed in sealer.update(chunk):
                yield sealed
        for sealed in sealer.finish():
            yield sealed

    async def decrypt_chunks(self, chunks: AsyncIterable[bytes], associated_data: bytes = b"") -> AsyncIterator[bytes]:
        """Decrypt a stream, in constant memory.  What comes out is authentic, and the whole of it once the iterator ended.

        Raises DecryptionFailed at the first segment that is not what was written there.
        """
        reader, opener = HeaderReader(), None
        async for chunk in chunks:
            piece = chunk
            if opener is None:
                found = reader.feed(chunk)
                if found is None:
                    continue
                header, piece = found
                opener = await run_async(self._envelopes.open_stream(header, associated_data), self._client)
            for opened in opener.update(piece):
                yield opened
        if opener is None:
            raise cannot_open()
        yield opener.finish()

    async def encrypt_file(
        self,
        source: FilePath,
        target: FilePath,
        associated_data: bytes = b"",
        *,
        overwrite: bool = False,
        progress: Progress | None = None,
    ) -> None:
        """As EnvelopeAead.encrypt_file; `progress` is called in another thread.  Who is cancelled waits for the piece under way;
        then there is no target.
        """
        before, sealer = await run_async(self._envelopes.seal_stream(associated_data), self._client)
        await _write_in_thread(partial(encrypt_file, source, target, before, sealer, overwrite=overwrite), progress)

    async def decrypt_file(
        self,
        source: FilePath,
        target: FilePath,
        associated_data: bytes = b"",
        *,
        overwrite: bool = False,
        progress: Progress | None = None,
    ) -> None:
        """As EnvelopeAead.decrypt_file, with progress and cancellation as of `encrypt_file`."""
        file = await asyncio.to_thread(open, source, "rb", 0)
        with file:
            header = await asyncio.to_thread(read_header, file)
            opener = await run_async(self._envelopes.open_stream(header, associated_data), self._client)
            await _write_in_thread(partial(decrypt_file, file, target, opener, overwrite=overwrite), progress)


class _Unwanted(Exception):
    """Whoever wanted the file was cancelled."""


async def _write_in_thread(write: Callable[..., None], progress: Progress | None) -> None:
    """Write a file in a thread, which when we are cancelled ends before we do, and without the file."""
    cancelled = threading.Event()

    def require_wanted() -> None:
        if cancelled.is_set():
            raise _Unwanted

    def report(done: int) -> None:
        require_wanted()
        if progress is not None:
            progress(done)

    writing = asyncio.create_task(asyncio.to_thread(write, progress=report, before_rename=require_wanted))
    try:
        await asyncio.wait({writing})
    except asyncio.CancelledError:
        cancelled.set()
        writing.add_done_callback(lambda ended: ended.cancelled() or ended.exception())  # nobody is told of it
        await asyncio.wait({writing})
        raise
    writing.result()
