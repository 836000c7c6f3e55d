"""Which token a slot is, and where its PIN is kept: every way of saying it, and what is refused."""

from __future__ import annotations

import os

import pytest
from pydantic import ValidationError

from vaultd.backends.pkcs11.pin import PinSource
from vaultd.backends.pkcs11.uri import TokenSelector, parse_uri
from vaultd.config import HsmSection
from vaultd.errors import FailedPrecondition

MODULE = "/usr/lib/module.so"
PIN = {"path": "/run/pin"}


def section(**values):
    return HsmSection(**{"name": "main", "module": MODULE, "token_label": "payments", "pin": PIN, **values})


def problem(**values) -> str:
    with pytest.raises(ValidationError) as caught:
        section(**values)
    return str(caught.value)


# -- RFC 7512 -----------------------------------------------------------------------------------------------------------


def test_uri_names_token_module_and_pin():
    path = "pkcs11:token=The%20Software%20token;serial=1234;manufacturer=Snake%20Oil;model=1.0"
    assert parse_uri(f"{path}?module-path=/m.so&pin-source=file:/etc/pin") == TokenSelector(
        "/m.so", "The Software token", "1234", "Snake Oil", "1.0", "/etc/pin"
    )


@pytest.mark.parametrize("source", ["file:/etc/pin", "file:///etc/pin", "/etc/pin", "%2Fetc%2Fpin"])
def test_pin_source_is_an_absolute_path_or_a_file_uri(source):
    assert parse_uri(f"pkcs11:token=a?pin-source={source}").pin_path == "/etc/pin"


@pytest.mark.parametrize(
    "uri",
    [
        "pkcs12:token=a",
        "token=a",
        "pkcs11:token",
        "pkcs11:object=key",
        "pkcs11:slot-id=0",
        "pkcs11:token=a;token=b",
        "pkcs11:token=%ff",
        "pkcs11:token=a?pin-value=1234",
        "pkcs11:token=a?pin-source=pin",
        "pkcs11:token=a?pin-source=|/bin/ask",
    ],
)
def test_other_uris_are_refused_without_being_quoted(uri):
    with pytest.raises(ValueError, match="uri") as caught:
        parse_uri(uri)
    assert "1234" not in str(caught.value)


# -- the section of the configuration -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "values",
    [
        {},
        {"token_label": "", "token_serial": "1234"},
        {"token_serial": "1234"},
        {"token_label": "", "uri": "pkcs11:token=payments"},
        {"uri": "pkcs11:token=payments;serial=1234"},
        {"module": None, "uri": f"pkcs11:?module-path={MODULE}"},
        {"pin": None, "uri": "pkcs11:?pin-source=/run/pin"},
        {"pin": {"environment": "TOKEN_PIN"}},
        {"pin": {"credential": "token-pin"}},
    ],
)
def test_token_may_be_said_in_every_way(values):
    selector = section(**values).resolved()
    assert selector.module == MODULE
    assert "payments" in selector.label or selector.serial == "1234"


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"uri": "pkcs11:token=other"}, "contradict each other: label"),
        ({"token_serial": "1", "uri": "pkcs11:serial=2"}, "contradict each other: serial"),
        ({"uri": "pkcs11:?module-path=/other.so"}, "contradict each other: module"),
        ({"uri": "pkcs11:?pin-source=/other"}, "contradict each other: pin_path"),
        ({"pin": {"environment": "TOKEN_PIN"}, "uri": "pkcs11:?pin-source=/run/pin"}, "contradict each other"),
        ({"module": None}, "set module"),
        ({"token_label": ""}, "set token_label or token_serial"),
        ({"pin": None}, "set pin"),
        ({"pin": {}}, "set exactly one of path, credential and environment"),
        ({"pin": {"path": "/a", "environment": "TOKEN_PIN"}}, "set exactly one"),
        ({"pin": {"value": "1234"}}, "Extra inputs are not permitted"),
        ({"sessions": 257}, "less than or equal to 256"),
        ({"name": "Main"}, "pattern"),
    ],
)
def test_contradictions_and_gaps_are_refused_with_the_reason(values, said):
    assert said in problem(**values)


def test_pin_in_a_wrong_place_is_not_quoted():
    assert "987654" not in problem(pin={"path": "/a", "value": "987654"})


# -- the PIN ------------------------------------------------------------------------------------------------------------


def pin_file(tmp_path, content: bytes = b"1234\n", mode: int = 0o600):
    path = tmp_path / "pin"
    path.write_bytes(content)
    path.chmod(mode)
    return path


def reason(source: PinSource) -> str:
    with pytest.raises(FailedPrecondition) as caught:
        source.read()
    assert "1234" not in caught.value.text
    return caught.value.reason


@pytest.mark.parametrize("mode", [0o400, 0o600, 0o640])
def test_pin_comes_from_a_private_file_without_its_newline(tmp_path, mode):
    assert PinSource(pin_file(tmp_path, mode=mode), None, None).read().expose("test") == b"1234"


@pytest.mark.parametrize("mode", [0o644, 0o660, 0o604, 0o602])
def test_pin_file_that_others_may_read_or_write_is_refused(tmp_path, mode):
    assert reason(PinSource(pin_file(tmp_path, mode=mode), None, None)) == "HSM_PIN_FILE_MODE"


@pytest.mark.parametrize("content", [b"", b"\n", b"1234" * 257])
def test_pin_file_that_is_empty_or_too_long_is_refused(tmp_path, content):
    assert reason(PinSource(pin_file(tmp_path, content), None, None)) == "HSM_PIN_MISSING"


def test_pin_file_that_is_missing_is_refused_and_read_again_when_it_is_there(tmp_path):
    source = PinSource(tmp_path / "pin", None, None)
    assert reason(source) == "HSM_PIN_MISSING"
    pin_file(tmp_path)
    assert source.read().expose("test") == b"1234"


def test_pin_comes_from_a_credential(tmp_path, monkeypatch):
    pin_file(tmp_path)
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(tmp_path))
    assert PinSource(None, "pin", None).read().expose("test") == b"1234"


def test_credential_without_its_directory_is_refused(monkeypatch):
    monkeypatch.delenv("CREDENTIALS_DIRECTORY", raising=False)
    with pytest.raises(FailedPrecondition):
        PinSource(None, "pin", None)


def test_pin_in_a_variable_is_taken_out_of_the_environment(monkeypatch):
    monkeypatch.setenv("TOKEN_PIN", "1234")
    source = PinSource(None, None, "TOKEN_PIN")
    assert "TOKEN_PIN" not in os.environ
    assert source.read().expose("test") == b"1234"
    with pytest.raises(FailedPrecondition):
        PinSource(None, None, "TOKEN_PIN")
