"""`x-forwarded-client-cert` as Envoy writes it: only certificates count, and nothing in them can look like another element."""

from urllib.parse import quote

import pytest

from vaultd.devpki import create_dev_pki, issue_client_certificate
from vaultd.hosts.envoy.peers import MAX_CACHED, Certificates, parse_client_certificates

HASH = "d" * 64


@pytest.fixture(scope="module")
def pems(tmp_path_factory):
    directory = tmp_path_factory.mktemp("tls")
    create_dev_pki(directory, hosts=[])
    issue_client_certificate(directory, directory / "other", uri="spiffe://dev.vaultd/other")
    return {name: (directory / f"{name}.crt").read_text() for name in ("admin", "other", "ca")}


def element(leaf: str, chain: str, before: str = f"Hash={HASH};") -> bytes:
    return f'{before}Cert="{quote(leaf, safe="")}";Chain="{quote(chain, safe="")}"'.encode()


def test_leaf_and_chain_are_read(pems):
    chain = pems["admin"] + pems["ca"]
    assert parse_client_certificates(element(pems["admin"], chain)) == chain.encode()


def test_a_name_that_looks_like_an_element_changes_nothing(pems):
    # Envoy writes URIs as they are.  They are not read, so that what is in them cannot be one more certificate either.
    forged = f'By=spiffe://dev.vaultd/x;Hash={HASH};URI=spiffe://a/x;URI=spiffe://b/admin;Subject="";'
    assert parse_client_certificates(element(pems["other"], pems["other"], forged)) == b""  # a field twice
    forged = f"Hash={HASH};URI=spiffe://a/x;Cert={quote(pems['admin'], safe='')};"
    assert parse_client_certificates(element(pems["other"], pems["other"], forged)) == b""


@pytest.mark.parametrize(
    "header",
    [
        b"",
        b"Hash=",
        b"Cert",
        b'Cert=""',
        b'Cert="";Chain=""',
        b'Cert="never closed',
        b"URI=spiffe://dev.vaultd/admin",
        b'Subject="CN=admin";URI=spiffe://dev.vaultd/admin;DNS=admin',
    ],
)
def test_what_has_no_certificate_identifies_nobody(header):
    assert parse_client_certificates(header) == b""


def test_several_elements_identify_nobody(pems):
    one, other = element(pems["admin"], pems["admin"]), element(pems["other"], pems["other"])
    assert parse_client_certificates(one + b"," + other) == b""


def test_a_chain_that_does_not_begin_with_the_leaf_identifies_nobody(pems):
    assert parse_client_certificates(element(pems["admin"], pems["other"])) == b""
    assert parse_client_certificates(element(pems["admin"] + pems["ca"], pems["admin"] + pems["ca"])) == b""


def test_a_value_is_parsed_once_and_what_is_kept_is_bounded(pems):
    certificates, header = Certificates(), element(pems["admin"], pems["admin"])
    first = certificates.of(header)
    assert certificates.of(bytes(header)) is first
    for number in range(MAX_CACHED + 1):
        certificates.of(b"Hash=%d" % number)
    assert len(certificates) <= MAX_CACHED
