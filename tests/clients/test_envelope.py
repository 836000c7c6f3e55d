"""Envelope encryption against a real server: messages, streams, data keys and what becomes of them."""

from __future__ import annotations

import asyncio
import io
import json
import os
import shutil
from contextlib import suppress
from itertools import count
from pathlib import Path

import pytest
import pytest_asyncio
from sdk_rig import PATIENT, VAULT, Audit, async_client, sync_client
from test_segments import tink_primitive

from harness import APP, running_server
from vaultd_client import AsyncEnvelopeAead, DataKeyLimits, DecryptionFailed, EnvelopeAead, FailedPrecondition
from vaultd_client.data_keys import DataKey, DataKeys, Forgotten
from vaultd_client.envelope_format import DATA_KEY_CONTEXT, HeaderReader
from vaultd_client.errors import Refusal, make_error
from vaultd_client.flows import run
from vaultd_client.segments import SegmentCipher, SegmentOpener
from vaultd_client.watching import Changes

pytestmark = pytest.mark.asyncio(loop_scope="module")
MIB = 1 << 20
ROOT = Path(__file__).resolve().parents[2]
VECTORS = json.loads((ROOT / "tests/vectors/compat/envelope-v1.json").read_text())
DOCUMENT = (ROOT / "docs/envelope.md").read_text()


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def server(tmp_path_factory):
    roles = ("crypto-user", "secret-reader")  # the latter may watch, and is shown nothing of keys
    policy = {"bindings": [{"members": [APP], "role": role, "resource": VAULT} for role in roles]}
    async with running_server(tmp_path_factory.mktemp("envelope"), policy=policy, **PATIENT) as server:
        yield server


@pytest_asyncio.fixture(loop_scope="module")
async def admin(server):
    async with async_client(server, "admin") as client:
        yield client


KEYS = count()


@pytest_asyncio.fixture(loop_scope="module")
async def key(admin):
    """A key of each test's own."""
    return (await admin.create_key(VAULT, f"envelope-{next(KEYS)}", {"purpose": "KEY_PURPOSE_ENCRYPT_DECRYPT"})).name


async def live(client) -> None:
    """Wait until the client follows changes."""
    await asyncio.wait_for(asyncio.wrap_future(client.follow_changes().when_live()), 60)


def made(audit: Audit) -> list[str]:
    return [method for method in audit.methods() if method in {"GenerateDataKey", "Decrypt"}]


# -- messages -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [0, 1, 1000, MIB - 56, MIB - 55, 3 * MIB + 5])
async def test_a_message_comes_back_with_its_associated_data_only(admin, key, size):
    plaintext = os.urandom(size)
    async with AsyncEnvelopeAead(admin, key) as aead:
        sealed = await aead.encrypt(plaintext, b"order 1")
        assert await aead.decrypt(sealed, b"order 1") == plaintext
        with pytest.raises(DecryptionFailed):
            await aead.decrypt(sealed, b"order 2")


async def test_a_thousand_messages_cost_one_data_key_to_write_and_one_call_to_read(server, admin, key):
    await live(admin)
    audit = Audit(server)
    async with AsyncEnvelopeAead(admin, key) as aead:
        sealed = await asyncio.gather(*(aead.encrypt(b"%d" % n) for n in range(1000)))
        assert len({one[-40:] for one in sealed}) == 1000
    assert made(audit) == ["GenerateDataKey"]
    async with AsyncEnvelopeAead(admin, key) as other:
        opened = await asyncio.gather(*(other.decrypt(one) for one in sealed))
    assert opened == [b"%d" % n for n in range(1000)]
    assert made(audit) == ["GenerateDataKey", "Decrypt"]


async def test_a_data_key_is_for_so_many_messages_and_bytes(server, admin, key):
    await live(admin)
    audit = Audit(server)
    async with AsyncEnvelopeAead(admin, key, DataKeyLimits(max_messages=3)) as aead:
        for _ in range(7):
            await aead.encrypt(b"m")
    assert made(audit) == ["GenerateDataKey"] * 3
    audit = Audit(server)
    async with AsyncEnvelopeAead(admin, key, DataKeyLimits(max_bytes=100)) as aead:
        for size in (60, 40, 1, 101, 99):
            await aead.encrypt(bytes(size))
    assert made(audit) == ["GenerateDataKey"] * 3  # 60 + 40; 1 + 99; 101 has one of its own


async def test_keys_for_opening_are_bounded(server, admin, key):
    async with AsyncEnvelopeAead(admin, key, DataKeyLimits(max_messages=1, max_opened=2)) as aead:
        first, second, third = [await aead.encrypt(b"m") for _ in range(3)]
        audit = Audit(server)
        for sealed in (first, second, second, third, second, first):
            await aead.decrypt(sealed)
    assert made(audit) == ["Decrypt"] * 4


@pytest.mark.parametrize("change", ["rotate", "disable", "delete"])
async def test_data_keys_are_dropped_when_watch_tells_of_a_change(admin, key, change):
    await live(admin)
    async with AsyncEnvelopeAead(admin, key) as aead:
        sealed = await aead.encrypt(b"m")
        assert await aead.decrypt(sealed) == b"m"
        told = Told(admin.follow_changes(), key)
        if change == "rotate":
            await admin.rotate_key(key)
            await told.wait()
            again = await aead.encrypt(b"m")
            header, _ = HeaderReader().feed(again)
            assert int.from_bytes(header.wrapped[17:21], "big") == 2
            assert await aead.decrypt(sealed) == b"m"
            return
        await (admin.disable_key_version(f"{key}/versions/1") if change == "disable" else admin.delete_key(key))
        await told.wait()
        for act in (aead.encrypt(b"m"), aead.decrypt(sealed)):
            with pytest.raises(FailedPrecondition):
                await act


class Told:
    """Waits until a change of a resource was told to everybody who listens."""

    def __init__(self, changes, resource: str) -> None:
        self._changes, self._resource = changes, resource
        self._event = asyncio.Event()
        self._loop = asyncio.get_running_loop()
        changes.subscribe(self)

    def changed(self, resource: str) -> None:
        if resource == self._resource:
            self._loop.call_soon_threadsafe(self._event.set)

    def missed(self) -> None:
        pass

    async def wait(self) -> None:
        await asyncio.wait_for(self._event.wait(), 60)
        self._changes.unsubscribe(self)


async def test_without_watch_data_keys_live_for_a_moment_only(server, admin, key):
    await live(admin)
    changes = admin.follow_changes()
    async with AsyncEnvelopeAead(admin, key) as aead:
        await aead.encrypt(b"m")
        at = changes.clock()
        changes.clock = lambda: at + 299
        changes._heard = at + 295
        audit = Audit(server)
        await aead.encrypt(b"m")  # watched, and not of age
        assert made(audit) == []
        changes._heard = at + 285
        await aead.encrypt(b"m")  # Watch is silent for too long
        assert made(audit) == ["GenerateDataKey"]


async def test_who_may_not_get_the_key_is_not_told_and_keeps_data_keys_for_a_moment_only(server, admin, key):
    async with async_client(server, "app") as app:
        await live(app)
        changes = app.follow_changes()
        async with AsyncEnvelopeAead(app, key) as aead:
            audit = Audit(server)
            await aead.encrypt(b"m")
            await aead.encrypt(b"m")
            assert made(audit) == ["GenerateDataKey"]
            at = changes.clock()
            changes.clock = lambda: at + 10
            changes._heard = at + 10
            await aead.encrypt(b"m")
            assert made(audit) == ["GenerateDataKey"] * 2


async def test_closed_envelopes_have_forgotten_their_keys(admin, key):
    await live(admin)
    aead = AsyncEnvelopeAead(admin, key)
    await aead.encrypt(b"m")
    (kept,) = aead._envelopes.keys._kept.values()
    assert len(kept.key._material) == 32
    aead.close()
    assert kept.key._material == b""
    with pytest.raises(Forgotten):
        kept.key.derive(b"salt", b"info")
    sealed = await aead.encrypt(b"m")  # one that is used again begins anew, and listens again
    told = Told(admin.follow_changes(), key)
    await admin.rotate_key(key)
    await told.wait()
    assert not aead._envelopes.keys._kept
    assert await aead.decrypt(sealed) == b"m"
    aead.close()


async def test_a_data_key_that_was_made_for_something_else_does_not_open(admin, key):
    other = await admin.generate_data_key(key, 32, include_plaintext=True)
    async with AsyncEnvelopeAead(admin, key) as aead:
        sealed = bytearray(await aead.encrypt(b"m"))
        length = int.from_bytes(sealed[5:7], "big")
        sealed[7 : 7 + length] = other.data_keys[0].wrapped
        with pytest.raises(DecryptionFailed):
            await aead.decrypt(bytes(sealed))


async def test_no_changed_byte_and_no_cut_is_taken(admin, key):
    async with AsyncEnvelopeAead(admin, key) as aead:
        sealed = await aead.encrypt(b"m" * 5, b"aad")
        changed = [sealed[:at] + bytes([sealed[at] ^ 1]) + sealed[at + 1 :] for at in range(len(sealed))]
        cut = [sealed[:at] for at in range(len(sealed))]
        outcomes = await asyncio.gather(*(aead.decrypt(one, b"aad") for one in changed + cut), return_exceptions=True)
    assert {type(one) for one in outcomes} == {DecryptionFailed}


# -- streams ------------------------------------------------------------------------------------------------------------


async def chunks(data: bytes, size: int):
    for at in range(0, len(data), size):
        yield data[at : at + size]


async def test_streams_messages_and_readers_of_threads_are_one_format(server, admin, key):
    plaintext = os.urandom(3 * MIB + 17)
    async with AsyncEnvelopeAead(admin, key) as aead:
        sealed = b"".join([piece async for piece in aead.encrypt_chunks(chunks(plaintext, 100_000), b"aad")])
        pieces = [piece async for piece in aead.decrypt_chunks(chunks(sealed, 77_777), b"aad")]
        assert b"".join(pieces) == plaintext
        assert max(map(len, pieces)) <= MIB
        assert await aead.decrypt(sealed, b"aad") == plaintext

    def blocking() -> None:
        with sync_client(server, "admin") as client, EnvelopeAead(client, key) as aead:
            assert b"".join(aead.decrypt_chunks([sealed[:3], sealed[3:200], sealed[200:]], b"aad")) == plaintext
            assert aead.open_reader(io.BytesIO(sealed), b"aad").read() == plaintext
            sink = io.BytesIO()
            with aead.open_writer(sink, b"aad") as writer:
                for at in range(0, len(plaintext), 300_000):
                    writer.write(plaintext[at : at + 300_000])
            assert aead.decrypt(sink.getvalue(), b"aad") == plaintext
            assert aead.decrypt(aead.encrypt(plaintext, b"aad"), b"aad") == plaintext
            assert aead.decrypt(b"".join(aead.encrypt_chunks([plaintext[:5], plaintext[5:]]))) == plaintext

    await asyncio.to_thread(blocking)


async def test_a_writer_that_is_left_by_an_exception_leaves_nothing_that_opens(server, key):
    def blocking() -> None:
        with sync_client(server, "admin") as client, EnvelopeAead(client, key) as aead:
            sink = io.BytesIO()
            with suppress(RuntimeError), aead.open_writer(sink) as writer:
                writer.write(bytes(2 * MIB))
                raise RuntimeError
            with pytest.raises(DecryptionFailed):
                aead.decrypt(sink.getvalue())
            reader, out = aead.open_reader(io.BytesIO(sink.getvalue())), io.BytesIO()
            with pytest.raises(DecryptionFailed):
                shutil.copyfileobj(reader, out)
            with pytest.raises(DecryptionFailed):
                reader.read(1)
            assert 0 < len(out.getvalue()) <= MIB
            with pytest.raises(DecryptionFailed):
                aead.open_file(io.BytesIO(sink.getvalue()))
            forgotten = io.BytesIO()
            aead.open_writer(forgotten).write(b"m")
            with pytest.raises(DecryptionFailed):
                aead.decrypt(forgotten.getvalue())

    await asyncio.to_thread(blocking)


async def test_ranges_are_read_without_the_rest(server, key):
    plaintext = os.urandom(5 * MIB + 3)

    def blocking() -> None:
        with sync_client(server, "admin") as client, EnvelopeAead(client, key) as aead:
            sealed = aead.encrypt(plaintext)
            source = Counting(sealed)
            file = io.BufferedReader(aead.open_file(source))
            for at, size in (
                (0, 5),
                (MIB - 60, 20),
                (3 * MIB, 2 * MIB),
                (len(plaintext) - 4, 10),
                (len(plaintext) + 5, 1),
            ):
                file.seek(at)
                assert file.read(size) == plaintext[at : at + size]
            assert file.seek(-2, os.SEEK_END) == len(plaintext) - 2
            assert file.read() == plaintext[-2:]
            file.seek(MIB)
            source.taken = 0
            assert file.read(1) == plaintext[MIB : MIB + 1]
            assert 0 < source.taken <= MIB
            behind = io.BytesIO(b"of another kind" + sealed)
            behind.seek(-len(sealed), os.SEEK_END)
            file = aead.open_file(behind)
            file.seek(3 * MIB)
            assert file.read(10) == plaintext[3 * MIB :][:10]
            for harmed in (sealed[:-1], sealed[: -MIB - 20], sealed + b"x", sealed[: 2 * MIB]):
                with pytest.raises(DecryptionFailed):
                    aead.open_file(io.BytesIO(harmed))
            moved = bytearray(sealed)
            moved[2 * MIB + 1000] ^= 1
            file = aead.open_file(io.BytesIO(moved))
            file.seek(4 * MIB)
            assert file.read(10) == plaintext[4 * MIB :][:10]
            file.seek(2 * MIB)
            with pytest.raises(DecryptionFailed):
                file.read(10)
            for size in (0, 1, MIB - 56, MIB - 55):
                assert aead.open_file(io.BytesIO(aead.encrypt(plaintext[:size]))).read() == plaintext[:size]

    await asyncio.to_thread(blocking)


class Counting(io.BytesIO):
    """Counts what is read."""

    taken = 0

    def read(self, size=-1):
        found = super().read(size)
        self.taken += len(found)
        return found


async def test_tink_reads_a_stream_with_its_data_key(admin, key):
    plaintext = os.urandom(2 * MIB + 9)
    async with AsyncEnvelopeAead(admin, key) as aead:
        sealed = await aead.encrypt(plaintext, b"aad")
    header, body = HeaderReader().feed(sealed)
    data_key = (await admin.decrypt(key, header.wrapped, DATA_KEY_CONTEXT)).plaintext
    tink = tink_primitive(data_key, header.segment_bytes)
    with tink.new_decrypting_stream(io.BytesIO(body), header.encode() + b"aad") as stream:
        assert stream.read() == plaintext


# -- what is written down -----------------------------------------------------------------------------------------------


async def test_the_vector_of_the_document_is_one_of_the_files():
    short = next(vector for vector in VECTORS if vector["name"] == "short")
    for name, value in short.items():
        assert name == "name" or f"\n{name:<17} {value}\n" in DOCUMENT


@pytest.mark.parametrize("vector", VECTORS, ids=lambda vector: vector["name"])
async def test_what_a_released_version_wrote_opens(vector):
    header, body = HeaderReader().feed(bytes.fromhex(vector["ciphertext"]))
    assert header.wrapped.hex() == vector["wrapped_data_key"]
    key = DataKey(bytes.fromhex(vector["data_key"]), header.wrapped)
    info = header.info(bytes.fromhex(vector["associated_data"]))
    opener = SegmentOpener(key.derive, info, header.segment_bytes)
    assert b"".join([*opener.update(body), opener.finish()]).hex() == vector["plaintext"]
    salt, prefix = body[1:33], body[33:40]
    stream_key = key.derive(salt, info)
    assert stream_key.hex() == vector["stream_key"]
    cipher = SegmentCipher(stream_key, prefix, header.segment_bytes)
    plaintext = bytes.fromhex(vector["plaintext"])
    cut = header.segment_bytes - 56
    segments = [plaintext[:cut], *(plaintext[at : at + cut + 40] for at in range(cut, len(plaintext), cut + 40))]
    again = [cipher.seal(n, one, last=n == len(segments) - 1) for n, one in enumerate(segments)]
    assert body[:40] + b"".join(again) == body


async def test_a_data_key_does_not_leave_its_process_by_accident():
    import pickle

    key = DataKey(bytes(32), b"")
    assert repr(key) == "<data key>"
    with pytest.raises(TypeError):
        pickle.dumps(key)


async def test_an_envelope_key_name_is_asked_of_the_vault_as_it_is(server):
    def blocking() -> None:
        with sync_client(server, "admin") as client, pytest.raises(Exception, match="INVALID"):
            run(DataKeys("nonsense", DataKeyLimits()).fresh(), client)

    await asyncio.to_thread(blocking)


@pytest.mark.parametrize(("code", "again"), [("PERMISSION_DENIED", False), ("NOT_FOUND", False), ("UNAVAILABLE", True)])
async def test_only_a_refusal_to_show_the_key_is_remembered(code, again):
    changes, keys = Changes(), DataKeys(f"{VAULT}/keys/k", DataKeyLimits())

    def ends(flow, step) -> bool:
        with pytest.raises(StopIteration) as ended:
            step(flow)
        return ended.value.value

    asked = keys._is_shown(changes)
    next(asked)
    assert ends(asked, lambda flow: flow.throw(make_error(Refusal(code, "", code), "GetKey"))) is False
    asked = keys._is_shown(changes)
    if again:
        next(asked)
        assert ends(asked, lambda flow: flow.send(None)) is True
    else:
        assert ends(asked, next) is False
