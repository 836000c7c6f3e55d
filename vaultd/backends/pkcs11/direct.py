"""Uses of a key as two calls of the module: C_SignInit and C_Sign, and so on.  Worker side.

python-pkcs11 calls a third time, to be told how long the answer is: one more round trip to a token that is elsewhere.  An
answer here has room enough from the start.  Everything that is not such a use stays with python-pkcs11.
"""

from __future__ import annotations

import ctypes
from typing import TYPE_CHECKING, Any, Final

from pkcs11 import Mechanism, exceptions

if TYPE_CHECKING:
    from collections.abc import Callable

NONCE_BYTES: Final = 12
TAG_BITS: Final = 128
_CKR_OK: Final = 0
_CKR_BUFFER_TOO_SMALL: Final = 0x150
_FIRST_ROOM_BYTES: Final = 8 * 1024
_LONGER_BYTES: Final = 1024
"""By how much an answer may be longer than what was asked: tags, blocks, and the signature of any key."""

_FUNCTIONS: Final = 68
_SESSION_INFO = 15
_ENCRYPT_INIT, _ENCRYPT, _DECRYPT_INIT, _DECRYPT, _SIGN_INIT, _SIGN = 29, 30, 33, 34, 42, 43
"""Their places in a CK_FUNCTION_LIST, behind its version, which takes a pointer's room (PKCS#11 2.40, pkcs11f.h)."""

_ERRORS: Final[dict[int, type[exceptions.PKCS11Error]]] = {
    0x002: exceptions.HostMemory,
    0x005: exceptions.GeneralError,
    0x006: exceptions.FunctionFailed,
    0x007: exceptions.ArgumentsBad,
    0x020: exceptions.DataInvalid,
    0x021: exceptions.DataLenRange,
    0x030: exceptions.DeviceError,
    0x031: exceptions.DeviceMemory,
    0x032: exceptions.DeviceRemoved,
    0x040: exceptions.EncryptedDataInvalid,
    0x041: exceptions.EncryptedDataLenRange,
    0x050: exceptions.FunctionCancelled,
    0x054: exceptions.FunctionNotSupported,
    0x060: exceptions.KeyHandleInvalid,
    0x062: exceptions.KeySizeRange,
    0x063: exceptions.KeyTypeInconsistent,
    0x070: exceptions.MechanismInvalid,
    0x071: exceptions.MechanismParamInvalid,
    0x082: exceptions.ObjectHandleInvalid,
    0x090: exceptions.OperationActive,
    0x091: exceptions.OperationNotInitialized,
    0x0B0: exceptions.SessionClosed,
    0x0B3: exceptions.SessionHandleInvalid,
    0x0E0: exceptions.TokenNotPresent,
    0x0E1: exceptions.TokenNotRecognised,
    0x101: exceptions.UserNotLoggedIn,
    0x200: exceptions.FunctionRejected,
}
"""What python-pkcs11 raises for them, too."""

_Init = ctypes.CFUNCTYPE(ctypes.c_ulong, ctypes.c_ulong, ctypes.c_void_p, ctypes.c_ulong)
_Act = ctypes.CFUNCTYPE(
    ctypes.c_ulong, ctypes.c_ulong, ctypes.c_char_p, ctypes.c_ulong, ctypes.c_void_p, ctypes.c_void_p
)
_Inform = ctypes.CFUNCTYPE(ctypes.c_ulong, ctypes.c_ulong, ctypes.c_void_p)
# CFUNCTYPE gives up the GIL around each call, so that other sessions go on.


class _Mechanism(ctypes.Structure):
    _fields_ = (("kind", ctypes.c_ulong), ("parameter", ctypes.c_void_p), ("parameter_bytes", ctypes.c_ulong))


class PssParameter(ctypes.Structure):
    """CK_RSA_PKCS_PSS_PARAMS."""

    _fields_ = tuple((name, ctypes.c_ulong) for name in ("hash", "mgf", "salt_bytes"))


class OaepParameter(ctypes.Structure):
    """CK_RSA_PKCS_OAEP_PARAMS, for an empty label."""

    _fields_ = (
        *((name, ctypes.c_ulong) for name in ("hash", "mgf", "source")),
        ("label", ctypes.c_void_p),
        ("label_bytes", ctypes.c_ulong),
    )


class _GcmParameter(ctypes.Structure):
    _fields_ = (
        ("nonce", ctypes.c_void_p),
        ("nonce_bytes", ctypes.c_ulong),
        ("nonce_bits", ctypes.c_ulong),
        ("associated", ctypes.c_char_p),
        ("associated_bytes", ctypes.c_ulong),
        ("tag_bits", ctypes.c_ulong),
    )


class FixedMechanism:
    """A mechanism whose parameter is always the same; all sessions share it, and no module writes into it."""

    def __init__(self, kind: int, parameter: ctypes.Structure | None = None) -> None:
        self._parameter = parameter
        self._mechanism = _Mechanism(kind, None, 0)
        if parameter is not None:
            self._mechanism = _Mechanism(kind, ctypes.addressof(parameter), ctypes.sizeof(parameter))
        self.address = ctypes.addressof(self._mechanism)


class GcmMechanism:
    """AES-GCM with the nonce and the associated data of one operation after the other; of one session."""

    def __init__(self) -> None:
        # A copy: some tokens draw a nonce of their own and write it over the one that they were given.
        self._nonce = (ctypes.c_char * NONCE_BYTES)()
        nonce = ctypes.addressof(self._nonce)
        self._parameter = _GcmParameter(nonce, NONCE_BYTES, 8 * NONCE_BYTES, b"", 0, TAG_BITS)
        parameter = ctypes.addressof(self._parameter)
        self._mechanism = _Mechanism(Mechanism.AES_GCM, parameter, ctypes.sizeof(self._parameter))
        self.address = ctypes.addressof(self._mechanism)

    def set(self, nonce: bytes, associated: bytes) -> None:
        """Take what the next operation is done with.  The associated data is never NULL: SoftHSM 2.6.1 would crash."""
        if len(nonce) != NONCE_BYTES:
            raise ValueError("a nonce of another length")
        self._nonce.raw = nonce
        self._parameter.associated = associated
        self._parameter.associated_bytes = len(associated)


class _SessionInfo(ctypes.Structure):
    _fields_ = tuple((name, ctypes.c_ulong) for name in ("slot", "state", "flags", "device_error"))


class ModuleFunctions:
    """The functions of a module's list, which is all that it must export."""

    def __init__(self, module: ctypes.CDLL) -> None:
        address = ctypes.c_void_p()
        if module.C_GetFunctionList(ctypes.byref(address)) != _CKR_OK or not address.value:
            raise exceptions.FunctionNotSupported
        listed = (ctypes.c_void_p * _FUNCTIONS).from_address(address.value + ctypes.sizeof(address))
        self.session_info = _Inform(listed[_SESSION_INFO] or 0)
        self.sign = (_Init(listed[_SIGN_INIT] or 0), _Act(listed[_SIGN] or 0))
        self.encrypt = (_Init(listed[_ENCRYPT_INIT] or 0), _Act(listed[_ENCRYPT] or 0))
        self.decrypt = (_Init(listed[_DECRYPT_INIT] or 0), _Act(listed[_DECRYPT] or 0))


class DirectSession:
    """Uses keys in one session of python-pkcs11, on one thread at a time."""

    def __init__(self, session: Any, functions: ModuleFunctions) -> None:
        self.session = session
        self.gcm = GcmMechanism()
        self._handle = int(session.handle)
        self._functions = functions
        self._length = ctypes.c_ulong()
        self._length_address = ctypes.addressof(self._length)
        self._make_room(_FIRST_ROOM_BYTES)

    def _make_room(self, room_bytes: int) -> None:
        self._room = (ctypes.c_char * room_bytes)()
        self._room_address = ctypes.addressof(self._room)
        self._room_bytes = room_bytes

    def state(self) -> int:
        """C_GetSessionInfo: what kind of session it is, and whether it is logged in.  Raises PKCS11Error."""
        info = _SessionInfo()
        result = self._functions.session_info(self._handle, ctypes.addressof(info))
        if result != _CKR_OK:
            raise _error(result)
        return int(info.state)

    def sign(self, key: int, mechanism: int, data: bytes) -> bytes:
        """C_SignInit and C_Sign with a key's handle and a mechanism's address.  Raises PKCS11Error."""
        return self._use(self._functions.sign, key, mechanism, data)

    def encrypt(self, key: int, mechanism: int, data: bytes) -> bytes:
        """C_EncryptInit and C_Encrypt."""
        return self._use(self._functions.encrypt, key, mechanism, data)

    def decrypt(self, key: int, mechanism: int, data: bytes) -> bytes:
        """C_DecryptInit and C_Decrypt."""
        return self._use(self._functions.decrypt, key, mechanism, data)

    def _use(
        self, functions: tuple[Callable[..., int], Callable[..., int]], key: int, mechanism: int, data: bytes
    ) -> bytes:
        init, act = functions
        result = init(self._handle, mechanism, key)
        if result != _CKR_OK:
            raise _error(result)
        if len(data) + _LONGER_BYTES > self._room_bytes:
            self._make_room(len(data) + _LONGER_BYTES)
        self._length.value = self._room_bytes
        result = act(self._handle, data, len(data), self._room_address, self._length_address)
        if result == _CKR_BUFFER_TOO_SMALL:
            # Which leaves the operation under way, and says what it needs.
            self._make_room(max(self._length.value, 2 * self._room_bytes))
            self._length.value = self._room_bytes
            result = act(self._handle, data, len(data), self._room_address, self._length_address)
        if result != _CKR_OK:
            raise _error(result)
        return ctypes.string_at(self._room, self._length.value)


def _error(result: int) -> exceptions.PKCS11Error:
    kind = _ERRORS.get(result)
    return kind() if kind is not None else exceptions.PKCS11Error(f"CKR {result:#x}")
