"""Damaged certificates, own and sent along: refused as unauthenticated, or taken for what they are; never anything else."""

from __future__ import annotations

import base64
import random

import pytest

from harness import FakeClock
from pki import DER, Authority
from vaultd.errors import Unauthenticated
from vaultd.interceptors.certificates import TrustBundle, examine
from vaultd.interceptors.crl import CrlError, parse_crl_file

NAME = "spiffe://a.example/app"
MUTATIONS = 4_000
# Some damage is only warned of by the library today.
pytestmark = pytest.mark.filterwarnings("ignore::cryptography.utils.CryptographyDeprecationWarning")


def pem(der: bytes) -> bytes:
    return b"-----BEGIN CERTIFICATE-----\n" + base64.encodebytes(der) + b"-----END CERTIFICATE-----\n"


def mutated(der: bytes, dice: random.Random) -> bytes:
    """A few bytes changed, taken out or doubled."""
    changed = bytearray(der)
    for _ in range(dice.choice((1, 1, 2, 8))):
        at = dice.randrange(len(changed))
        kind = dice.randrange(3)
        if kind == 0:
            changed[at] = dice.randrange(256)
        elif kind == 1:
            del changed[at]
        else:
            changed.insert(at, changed[at])
    return bytes(changed)


@pytest.fixture(scope="module")
def issued(tmp_path_factory):
    authority = Authority()
    stem = tmp_path_factory.mktemp("pki") / "app"
    return authority, authority.issue(stem, uris=[NAME])


@pytest.mark.slow
@pytest.mark.parametrize("place", ["own", "sent along"])
def test_a_damaged_certificate_is_refused_or_harmless(issued, place):
    authority, leaf = issued
    clock, dice = FakeClock(), random.Random(20261126)
    lists = parse_crl_file(authority.crl(now_us=clock.us), [authority.certificate])
    own = leaf.public_bytes(DER)
    for with_list in (None, lists):
        bundle = TrustBundle("a", (authority.certificate,), trust_domain="a.example", revocations=with_list)
        for _ in range(MUTATIONS // 4):
            damaged = mutated(own, dice)
            chain = pem(damaged) if place == "own" else pem(own) + pem(damaged)
            try:
                vouched = examine([bundle], chain, clock.us)
            except Unauthenticated:
                continue
            assert vouched.principal == NAME


@pytest.mark.slow
def test_a_damaged_list_is_refused(issued):
    authority, leaf = issued
    clock, dice = FakeClock(), random.Random(20261126)
    whole = authority.crl([leaf.serial_number], now_us=clock.us, encoding=DER)
    for _ in range(MUTATIONS // 4):
        damaged = mutated(whole, dice)
        try:
            found = parse_crl_file(damaged, [authority.certificate])
        except CrlError:
            continue
        assert found.serials == (frozenset({leaf.serial_number}),)
