"""The Merkle tree against its definition in RFC 9162, and signed notes."""

from __future__ import annotations

import base64
import hashlib
import random

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.mldsa import MLDSA65PrivateKey

from vaultd.audit.checkpoints import (
    NoteInvalid,
    Signer,
    TreeHead,
    read_head,
    read_public_keys,
    verify_note,
    write_public_keys,
)
from vaultd.audit.tree import (
    Frontier,
    consistency_proof,
    inclusion_proof,
    leaf_hash,
    node_hash,
    verify_consistency,
    verify_inclusion,
)

LEAVES = [leaf_hash(b"%d" % n) for n in range(300)]
SEED = random.randrange(2**32)


def naive_root(leaves):
    """MTH of RFC 9162, section 2.1.1, as it is written there."""
    if not leaves:
        return hashlib.sha256(b"").digest()
    if len(leaves) == 1:
        return leaves[0]
    split = 1
    while split * 2 < len(leaves):
        split *= 2
    return node_hash(naive_root(leaves[:split]), naive_root(leaves[split:]))


class InMemory:
    def range_root(self, start, end):
        return naive_root(LEAVES[start:end])


def test_a_frontier_has_the_root_of_its_leaves_however_they_came():
    for size in [*range(40), 255, 256, 257, 300]:
        whole = Frontier()
        whole.extend(LEAVES[:size])
        assert whole.root() == naive_root(LEAVES[:size])
        half = Frontier()
        half.extend(LEAVES[: size // 2])
        resumed = Frontier(half.size, half.peaks)
        resumed.extend(LEAVES[size // 2 : size])
        assert (resumed.size, resumed.root()) == (size, whole.root())


def test_a_frontier_gives_the_root_of_each_block():
    blocks = []
    frontier = Frontier(on_block=lambda level, root: blocks.append((level, root)))
    frontier.extend([leaf_hash(b"%d" % n) for n in range(700)])
    assert blocks == [(8, naive_root([leaf_hash(b"%d" % n) for n in range(at, at + 256)])) for at in (0, 256)]


@pytest.mark.parametrize(("size", "peaks"), [(1, []), (0, [b"x" * 32]), (3, [b"x" * 32]), (1, [b"short"])])
def test_a_frontier_that_does_not_fit_its_size_is_refused(size, peaks):
    with pytest.raises(ValueError, match="frontier"):
        Frontier(size, peaks)


def test_inclusion_proofs_prove_each_leaf_and_no_other():
    for size in [*range(1, 34), 64, 100]:
        root = naive_root(LEAVES[:size])
        for index in range(size):
            path = inclusion_proof(InMemory(), index, size)
            assert verify_inclusion(LEAVES[index], index, size, path, root)
            assert not verify_inclusion(LEAVES[index + 1], index, size, path, root)
            assert not verify_inclusion(LEAVES[index], index, size, [*path, root], root)
            assert not verify_inclusion(LEAVES[index], (index + 1) % size, size, path, root) or size == 1
            if path:
                assert not verify_inclusion(LEAVES[index], index, size, path[:-1], root)
    assert not verify_inclusion(LEAVES[0], 1, 1, [], LEAVES[0])


def test_consistency_proofs_prove_that_nothing_was_changed():
    for second in [*range(1, 34), 100]:
        for first in range(1, second + 1):
            old, new = naive_root(LEAVES[:first]), naive_root(LEAVES[:second])
            path = consistency_proof(InMemory(), first, second)
            assert verify_consistency(first, second, path, old, new)
            assert not verify_consistency(first, second, path, LEAVES[299], new)
            assert not verify_consistency(first, second, path, old, LEAVES[299])
            if path:
                assert not verify_consistency(first, second, path[:-1], old, new)
                assert not verify_consistency(first, second, [*path, old], old, new)


# -- notes --------------------------------------------------------------------------------------------------------------

HEAD = TreeHead(b"c" * 16, 12, b"r" * 32, 1, b"h" * 32, "2026-11-26T03:00:00.000000Z", 77, b"s" * 16, 10)


def test_a_note_is_read_back_and_needs_every_key_that_is_asked_for():
    ed25519, mldsa, other = Ed25519PrivateKey.generate(), MLDSA65PrivateKey.generate(), Ed25519PrivateKey.generate()
    note = Signer([ed25519, mldsa]).sign(HEAD)
    assert verify_note(note, [ed25519.public_key()]) == HEAD
    assert verify_note(note, [ed25519.public_key(), mldsa.public_key()]) == HEAD
    for keys in ([], [other.public_key()], [ed25519.public_key(), other.public_key()]):
        with pytest.raises(NoteInvalid):
            verify_note(note, keys)
    with pytest.raises(NoteInvalid, match="no signature"):
        verify_note(Signer([ed25519]).sign(HEAD), [ed25519.public_key(), mldsa.public_key()])


def test_no_byte_of_a_note_can_be_changed():
    print(f"seed {SEED}")
    chooser = random.Random(SEED)
    key = Ed25519PrivateKey.generate()
    note = Signer([key]).sign(HEAD)
    for at in range(len(note)):
        changed = note[:at] + chr(ord(note[at]) ^ (1 << chooser.randrange(7))) + note[at + 1 :]
        try:
            assert verify_note(changed, [key.public_key()]) == HEAD
        except NoteInvalid:
            continue
        assert "— vaultd-audit" in note[:at]  # bits of base64 that carry nothing
        assert at >= len(note) - 5


def test_a_note_is_what_other_tools_of_signed_notes_take():
    """C2SP signed-note: text, empty line, `— name base64(key hash || signature)`; the key hash covers name, type and key."""
    key = Ed25519PrivateKey.generate()
    raw = key.public_key().public_bytes_raw()
    text, _, tail = Signer([key]).sign(HEAD).partition("\n\n")
    dash, name, encoded = tail.split(" ")
    signature = base64.b64decode(encoded)
    assert (dash, name) == ("—", "vaultd-audit")
    assert signature[:4] == hashlib.sha256(b"vaultd-audit\n\x01" + raw).digest()[:4]
    key.public_key().verify(signature[4:], f"{text}\n".encode())
    assert text.split("\n")[:3] == ["vaultd-audit/" + HEAD.chain_id.hex(), "12", base64.b64encode(HEAD.root).decode()]


def test_public_keys_are_read_back_and_nothing_else_is():
    keys = [Ed25519PrivateKey.generate().public_key(), MLDSA65PrivateKey.generate().public_key()]
    pem = write_public_keys(keys)
    assert read_public_keys(pem) == keys
    for bad in (b"", b"nonsense", pem + b"x", pem.replace(b"M", b"-", 1)):
        with pytest.raises(ValueError, match="key"):
            read_public_keys(bad)


@pytest.mark.parametrize("note", ["", "\n\n", "a\n\nb\n", Signer([Ed25519PrivateKey.generate()]).sign(HEAD) + "x"])
def test_what_is_no_note_is_refused(note):
    with pytest.raises(NoteInvalid):
        read_head(note)
