"""How rows are sealed: what associated data binds, what the hashes promise, and that a ring survives its dump."""

from __future__ import annotations

import os
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vaultd.engine.sealing import KeyRing, MultisetHash, Sealer, metadata_aad, pack, secret_aad
from vaultd.errors import DataLoss
from vaultd.secret import Secret
from vaultd.store.base import Row, RowKey

SEALER = Sealer(KeyRing.create().with_new_term(retiring=""))
KEY = RowKey("key_version", "default", "k", 3)
PARTS = st.lists(
    st.one_of(st.none(), st.integers(-(2**63), 2**63 - 1), st.binary(max_size=12), st.text(max_size=6)), max_size=6
)
DETERMINISTIC = settings(derandomize=True, database=None, deadline=None, max_examples=300)

EDITS = {
    "kind": lambda row: replace(row, key=row.key._replace(kind="key")),
    "scope": lambda row: replace(row, key=row.key._replace(scope="other")),
    "id": lambda row: replace(row, key=row.key._replace(id="l")),
    "version": lambda row: replace(row, key=row.key._replace(version=4)),
    "uid": lambda row: replace(row, uid=bytes(16)),
    "state": lambda row: replace(row, state="ENABLED"),
    "due_at": lambda row: replace(row, due_at=None),
    "revision": lambda row: replace(row, revision=8),
    "term": lambda row: replace(row, term=1),
    "an unknown term": lambda row: replace(row, term=99),
    "secret": lambda row: replace(row, secret=os.urandom(60)),
    "no secret": lambda row: replace(row, secret=None),
}
OF_THE_SECRET = ("kind", "scope", "id", "version", "uid", "term", "an unknown term", "secret", "no secret")


def sealed_row() -> Row:
    uid = bytes(range(16))
    secret = SEALER.seal(b"material", secret_aad(KEY, uid, SEALER.term))
    row = Row(KEY, uid, "DISABLED", 123, 7, SEALER.term, b"", secret)
    return replace(row, sealed=SEALER.seal(b'{"a":1}', metadata_aad(row)))


def flat(parts: list) -> list[tuple[int, object]]:
    """What pack tells apart: None, numbers, and bytes (text is its UTF-8 bytes)."""
    return [(0, None) if part is None else (1, part) if isinstance(part, int) else (2, _raw(part)) for part in parts]


def _raw(part: str | bytes) -> bytes:
    return part.encode() if isinstance(part, str) else part


@DETERMINISTIC
@given(PARTS, PARTS)
def test_pack_gives_equal_bytes_only_for_equal_lists(one, two):
    assert (pack(*one) == pack(*two)) == (flat(one) == flat(two))


@DETERMINISTIC
@given(st.lists(st.binary(max_size=4), max_size=4), st.integers(0, 16))
def test_pack_cannot_be_confused_by_moving_a_boundary(parts, at):
    joined = b"".join(parts)
    split = [joined[:at], joined[at:]]
    assert (pack(*parts) == pack(*split)) == (parts == split)


def test_a_sealed_row_opens():
    assert SEALER.open_row(sealed_row()) == b'{"a":1}'


def test_sealed_material_opens():
    assert SEALER.open_secret(sealed_row()).expose("test") == b"material"


@pytest.mark.parametrize("column", EDITS)
def test_metadata_does_not_open_with_another(column):
    with pytest.raises(DataLoss) as lost:
        SEALER.open_row(EDITS[column](sealed_row()))
    assert lost.value.reason == "ROW_TAMPERED"


@pytest.mark.parametrize("column", OF_THE_SECRET)
def test_material_does_not_open_with_another(column):
    with pytest.raises(DataLoss):
        SEALER.open_secret(EDITS[column](sealed_row()))


def test_metadata_does_not_open_as_material():
    row = sealed_row()
    with pytest.raises(DataLoss):
        SEALER.open_secret(replace(row, secret=row.sealed))


def test_material_does_not_open_as_metadata():
    row = sealed_row()
    with pytest.raises(DataLoss):
        SEALER.open_row(replace(row, sealed=row.secret))


@pytest.mark.parametrize("length", [0, 11, 12, 27])
def test_a_truncated_blob_does_not_open(length):
    row = sealed_row()
    with pytest.raises(DataLoss):
        SEALER.open_row(replace(row, sealed=row.sealed[:length]))


def test_no_flipped_bit_of_a_blob_opens():
    row = sealed_row()
    for at in range(len(row.sealed) * 8):
        blob = bytearray(row.sealed)
        blob[at // 8] ^= 1 << at % 8
        with pytest.raises(DataLoss):
            SEALER.open_row(replace(row, sealed=bytes(blob)))


def test_a_row_of_another_ring_does_not_open():
    with pytest.raises(DataLoss):
        Sealer(KeyRing.create().with_new_term(retiring="")).open_row(sealed_row())


def test_the_error_of_a_tampered_row_names_no_resource():
    with pytest.raises(DataLoss) as lost:
        SEALER.open_row(EDITS["state"](sealed_row()))
    assert "k" not in lost.value.metadata.values()


@pytest.mark.parametrize("column", [*EDITS, "sealed"])
def test_the_row_hash_covers(column):
    edits = {**EDITS, "sealed": lambda row: replace(row, sealed=row.sealed[:-1] + b"\x00")}
    row = replace(sealed_row(), sealed=b"\x01" * 40)
    assert SEALER.row_hash(edits[column](row)) != SEALER.row_hash(row)


def test_the_row_hash_is_keyed():
    row = sealed_row()
    assert Sealer(KeyRing.create()).row_hash(row) != SEALER.row_hash(row)


def test_the_row_hash_survives_new_terms():
    row, ring = sealed_row(), SEALER.ring
    assert Sealer(ring.with_new_term(retiring="").without_terms_before(3)).row_hash(row) == SEALER.row_hash(row)


def test_a_ring_survives_its_dump():
    ring = KeyRing.create().with_new_term(retiring="").with_new_term(retiring="0123456789abcdef")
    loaded = KeyRing.load(ring.dump())
    assert loaded.dump().expose("test") == ring.dump().expose("test")
    assert (loaded.generation, loaded.term, sorted(loaded.terms)) == (3, 3, [1, 2, 3])
    assert loaded.retiring == "0123456789abcdef"


def test_a_ring_without_its_old_terms_keeps_the_newest():
    ring = KeyRing.create().with_new_term(retiring="").without_terms_before(2)
    assert (ring.generation, ring.term, list(ring.terms)) == (3, 2, [2])


def test_a_ring_names_the_root_key_it_replaced_until_that_is_retired():
    ring = KeyRing.create().with_new_term(retiring="old")
    assert ring.without_terms_before(2).retiring == "old"
    done = ring.with_nothing_retiring()
    assert (done.retiring, done.generation, done.terms) == ("", 3, ring.terms)


def test_the_dump_of_a_ring_is_of_the_documented_format():
    ring = KeyRing(7, Secret(b"d" * 32), {2: Secret(b"b" * 32), 1: Secret(b"a" * 32)}, "ref")
    terms = b"\0\0\0\1" + b"a" * 32 + b"\0\0\0\2" + b"b" * 32
    assert ring.dump().expose("test") == b"VRG1\0\0\0\7" + b"d" * 32 + b"\0\3ref" + terms


@pytest.mark.parametrize(
    "rest",
    [
        b"\0\1" + b"\0\0\0\1" + b"a" * 32,
        b"\0\3a f" + b"\0\0\0\1" + b"a" * 32,
        b"\0\1\xff" + b"\0\0\0\1" + b"a" * 32,
        b"\xff\xffref" + b"\0\0\0\1" + b"a" * 32,
        b"\0\0" + (b"\0\0\0\1" + b"a" * 32) * 2,
        b"\0\0" + b"\0\0\0\2" + b"a" * 32 + b"\0\0\0\1" + b"a" * 32,
        b"\0\0",
    ],
    ids=["long ref", "space in ref", "ref not ASCII", "length past the end", "term twice", "descending", "no term"],
)
def test_a_ring_that_no_vaultd_dumps_is_refused(rest):
    with pytest.raises(DataLoss) as lost:
        KeyRing.load(Secret(b"VRG1\0\0\0\1" + b"d" * 32 + rest))
    assert lost.value.reason == "KEY_RING_CORRUPT"


@pytest.mark.parametrize("cut", [0, 3, 4, 8, 40, 41, 42, -1])
def test_a_damaged_dump_of_a_ring_is_refused(cut):
    dumped = KeyRing.create().dump().expose("test")
    with pytest.raises(DataLoss) as lost:
        KeyRing.load(Secret(dumped[:cut]))
    assert lost.value.reason == "KEY_RING_CORRUPT"


def test_a_ring_of_another_format_is_refused():
    dumped = KeyRing.create().dump().expose("test")
    with pytest.raises(DataLoss):
        KeyRing.load(Secret(b"VRG2" + dumped[4:]))


def test_a_ring_does_not_print_its_keys():
    ring = KeyRing.create()
    assert ring.digest_key.expose("test").hex() not in repr(ring)
    assert "<secret 32 B>" in repr(ring)


@DETERMINISTIC
@given(st.lists(st.integers(0, 2**256 - 1), max_size=12), st.randoms(use_true_random=False))
def test_a_multiset_hash_does_not_depend_on_order(terms, shuffler):
    one, two, shuffled = MultisetHash(), MultisetHash(), list(terms)
    shuffler.shuffle(shuffled)
    for term in terms:
        one.add(term)
    for term in shuffled:
        two.add(term)
    assert one == two


@DETERMINISTIC
@given(st.lists(st.integers(0, 2**256 - 1), min_size=1, max_size=8), st.data())
def test_a_term_that_leaves_a_multiset_hash_leaves_nothing(terms, data):
    gone = data.draw(st.sampled_from(terms))
    rest = MultisetHash()
    for term in terms:
        rest.add(term)
    rest.remove(gone)
    wanted = MultisetHash()
    kept = list(terms)
    kept.remove(gone)
    for term in kept:
        wanted.add(term)
    assert rest == wanted


def test_a_term_counts_as_often_as_it_was_added():
    once, twice = MultisetHash(), MultisetHash()
    once.add(0)
    twice.add(0)
    twice.add(0)
    assert once != twice


@DETERMINISTIC
@given(st.integers(0, 2**256 - 1), st.integers(-(2**40), 2**40))
def test_a_multiset_hash_survives_its_dump(total, count):
    assert MultisetHash.load(MultisetHash(total, count).dump()) == MultisetHash(total, count)
