"""Two calls of a module for each use of a key: room for its answers, its errors, and what it may write."""

from __future__ import annotations

import ctypes

import pytest
from pkcs11 import exceptions

from vaultd.backends.pkcs11 import direct

OK, BUFFER_TOO_SMALL = 0, 0x150


class Module:
    """Functions as a module has them: what they were asked, and an answer."""

    def __init__(self, answer: bytes = b"an answer", init: int = OK, act: int = OK) -> None:
        self.calls: list[str] = []
        self.answer = answer
        self.sign = self.encrypt = self.decrypt = (self._init, self._act)
        self._results = (init, act)

    def _init(self, session: int, mechanism: int, key: int) -> int:
        self.calls.append(f"init {session} {key}")
        return self._results[0]

    def _act(self, session: int, data: bytes, data_bytes: int, room: int, length: int) -> int:
        self.calls.append("act")
        if self._results[1] != OK:
            return self._results[1]
        told = ctypes.c_ulong.from_address(length)
        room_bytes, told.value = told.value, len(self.answer)
        if room_bytes < len(self.answer):
            return BUFFER_TOO_SMALL
        ctypes.memmove(room, self.answer, len(self.answer))
        return OK


class Session:
    handle = 7


def use(module: Module) -> direct.DirectSession:
    return direct.DirectSession(Session(), module)


def test_a_use_is_two_calls():
    module = Module()
    assert use(module).sign(3, 0, b"data") == b"an answer"
    assert module.calls == ["init 7 3", "act"]


@pytest.mark.parametrize("size", [0, 1, 8 * 1024, 8 * 1024 + 1, 1_000_000])
def test_an_answer_of_any_length_is_given_room_without_a_second_beginning(size):
    module = Module(bytes(range(256)) * (size // 256) + bytes(size % 256))
    session = use(module)
    assert session.decrypt(3, 0, b"data") == module.answer
    assert module.calls.count("init 7 3") == 1
    assert session.decrypt(3, 0, b"data") == module.answer
    assert len(module.calls) <= 5


def test_input_is_answered_in_one_go_when_the_answer_is_about_as_long():
    module = Module(bytes(70_016))
    assert use(module).encrypt(3, 0, bytes(70_000)) == module.answer
    assert module.calls == ["init 7 3", "act"]


@pytest.mark.parametrize("at", ["init", "act"])
@pytest.mark.parametrize(
    ("result", "error"),
    [
        (0x005, exceptions.GeneralError),
        (0x040, exceptions.EncryptedDataInvalid),
        (0x060, exceptions.KeyHandleInvalid),
        (0x0B3, exceptions.SessionHandleInvalid),
        (0x8000_0001, exceptions.PKCS11Error),
    ],
)
def test_an_error_is_the_one_that_python_pkcs11_would_raise(at, result, error):
    module = Module(**{at: result})
    with pytest.raises(exceptions.PKCS11Error) as raised:
        use(module).sign(3, 0, b"data")
    assert type(raised.value) is error


def test_a_module_that_writes_over_the_nonce_does_not_reach_the_callers():
    mechanism = direct.GcmMechanism()
    nonce = bytes.fromhex("00112233445566778899aabb")
    mechanism.set(nonce, b"")
    parameter = ctypes.c_void_p.from_address(mechanism.address + ctypes.sizeof(ctypes.c_ulong)).value
    written = ctypes.c_void_p.from_address(parameter).value
    assert ctypes.string_at(written, 12) == nonce
    ctypes.memset(written, 0x55, 12)
    assert nonce == bytes.fromhex("00112233445566778899aabb")


def test_a_nonce_of_another_length_is_refused():
    with pytest.raises(ValueError, match="another length"):
        direct.GcmMechanism().set(bytes(11), b"")
