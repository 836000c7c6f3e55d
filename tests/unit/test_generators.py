"""Generated values keep their rules, and are uniform over all that do."""

from __future__ import annotations

import base64
import itertools
from collections import Counter

import pytest
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    PublicFormat,
    load_pem_private_key,
    load_pem_public_key,
)
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from vaultd.engine import generators
from vaultd.engine.generators import (
    CLASSES,
    BytesEncoding,
    KeyPairRules,
    KeyPairType,
    PasswordRules,
    RandomBytesRules,
    check_rules,
    generate,
)
from vaultd.errors import InvalidArgument


def value(rules) -> bytes:
    return generate(rules).payload.expose("test")


def test_the_classes_are_printable_ascii_each_character_once():
    assert sorted("".join(CLASSES.values())) == [chr(code) for code in range(0x21, 0x7F)]


@settings(deadline=None)
@given(
    length=st.integers(8, 128),
    least=st.dictionaries(st.sampled_from(list(CLASSES)), st.integers(0, 20), min_size=1),
    excluded=st.text(st.sampled_from("".join(CLASSES.values())), max_size=40),
)
def test_a_password_keeps_its_rules(length, least, excluded):
    rules = PasswordRules(length, least, excluded)
    try:
        check_rules(rules)
    except InvalidArgument:
        assume(False)
    password = value(rules).decode()
    assert len(password) == length
    assert not set(password) & set(excluded)
    counts = {name: sum(char in CLASSES[name] for char in password) for name in CLASSES}
    assert all(counts[name] >= least[name] if name in least else counts[name] == 0 for name in CLASSES)


def test_every_password_that_keeps_the_rules_is_as_likely_as_any_other(monkeypatch):
    # Small enough to count: four characters of {a, b} and {1}, at least one of each.
    monkeypatch.setattr(generators, "CLASSES", {"lowercase": "ab", "digits": "1"})
    rules = PasswordRules(4, {"lowercase": 1, "digits": 1})
    possible = {"".join(p) for p in itertools.product("ab1", repeat=4) if "1" in p and set(p) & {"a", "b"}}
    drawn = 200 * len(possible)
    seen = Counter(value(rules).decode() for _ in range(drawn))
    assert set(seen) == possible
    # Chi-squared with 63 degrees of freedom: 120 is passed by chance once in 100,000 runs.
    assert sum((count - 200) ** 2 / 200 for count in seen.values()) < 125


def test_there_is_no_modulo_bias():
    seen = Counter(b"".join(value(PasswordRules(128)) for _ in range(500)))
    expected = 500 * 128 / 62
    assert len(seen) == 62
    # 61 degrees of freedom, as above.  A byte modulo 62 would give the first eight characters a quarter more.
    assert sum((count - expected) ** 2 / expected for count in seen.values()) < 122


@pytest.mark.parametrize(
    "rules",
    [
        PasswordRules(7),
        PasswordRules(129),
        PasswordRules(32, {}),
        PasswordRules(32, {"digits": 0}, excluded="0123456789"),
        PasswordRules(8, {"digits": 5, "lowercase": 4}),
        PasswordRules(8, {"digits": -1, "lowercase": 0}),
        PasswordRules(8, {"digits": 0}),  # 10^8: fewer than 2^40
        RandomBytesRules(15),
        RandomBytesRules(4097),
    ],
)
def test_rules_that_cannot_be_kept_or_protect_nothing_are_refused(rules):
    with pytest.raises(InvalidArgument) as caught:
        check_rules(rules)
    assert caught.value.reason == "GENERATOR_RULES"


def test_random_bytes_are_written_down_as_asked():
    decoders = {
        BytesEncoding.RAW: bytes,
        BytesEncoding.HEX: lambda coded: bytes.fromhex(coded.decode()),
        BytesEncoding.BASE64: base64.b64decode,
        BytesEncoding.BASE64URL: lambda coded: base64.urlsafe_b64decode(coded + b"=" * (-len(coded) % 4)),
    }
    for encoding, decode in decoders.items():
        coded = value(RandomBytesRules(32, encoding))
        assert len(decode(coded)) == 32
        assert b"=" not in coded or encoding in {BytesEncoding.BASE64, BytesEncoding.RAW}


@pytest.mark.parametrize("kind", [kind for kind in KeyPairType if kind is not KeyPairType.RSA_4096])
def test_a_key_pair_is_a_private_key_and_its_public_one(kind):
    made = generate(KeyPairRules(kind))
    private = load_pem_private_key(made.payload.expose("test"), None)
    public = load_pem_public_key(made.metadata["public_key"].encode())
    form = (Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    assert private.public_key().public_bytes(*form) == public.public_bytes(*form)
    assert "PRIVATE" not in made.metadata["public_key"]
