"""A loaded PKCS#11 module and the sessions into one of its tokens.  Worker side."""

from __future__ import annotations

import ctypes
from typing import TYPE_CHECKING, Any, Final

import pkcs11
from pkcs11 import Attribute, exceptions

from vaultd.backends.pkcs11.direct import DirectSession, ModuleFunctions
from vaultd.backends.pkcs11.mechanisms import WAYS

if TYPE_CHECKING:
    from vaultd.backends.pkcs11.messages import Hello

_CKF_OS_LOCKING_OK: Final = 2
_CKR_OK: Final = 0
_MAX_HANDLES: Final = 10_000
"""Key handles that a session keeps; the oldest found goes first."""

GONE: Final = (
    exceptions.NoSuchKey,
    exceptions.KeyHandleInvalid,
    exceptions.ObjectHandleInvalid,
    exceptions.UnwrappingKeyHandleInvalid,
    exceptions.WrappingKeyHandleInvalid,
)
"""What a token says when it does not show an object, or no longer."""


class TokenRefused(Exception):
    """The token cannot be entered, and trying again would not help: the text is for the operator."""


class TokenAbsent(Exception):
    """The module does not show the token now; the text is for the operator."""


class ObjectRefused(Exception):
    """The object cannot be used as asked; the text says why."""


class _InitializeArguments(ctypes.Structure):
    _fields_ = (
        *((name, ctypes.c_void_p) for name in ("create", "destroy", "lock", "unlock")),
        ("flags", ctypes.c_ulong),
        ("reserved", ctypes.c_void_p),
    )


def open_module(path: str) -> tuple[Any, bool]:
    """Load a module; return it, and whether several threads may use it.

    python-pkcs11 calls C_Initialize(NULL), after which a module need not lock anything.  It is initialised again with
    CKF_OS_LOCKING_OK; one that refuses (CKR_CANT_LOCK) is left to a single thread.
    """
    library = pkcs11.lib(path)
    shared = ctypes.CDLL(path)
    arguments = _InitializeArguments(flags=_CKF_OS_LOCKING_OK)
    if shared.C_Finalize(None) != _CKR_OK:
        return library, False
    if shared.C_Initialize(ctypes.byref(arguments)) == _CKR_OK:
        return library, True
    if shared.C_Initialize(None) != _CKR_OK:
        raise TokenRefused("the module does not initialise")
    return library, False


def find_token(library: Any, hello: Hello) -> Any:
    """Find the one token that fits; what is empty is not looked at."""
    wanted: dict[str, Any] = {}
    if hello.token_label:
        wanted["token_label"] = hello.token_label
    if hello.token_serial:
        wanted["token_serial"] = hello.token_serial.encode()
    tokens = [
        token
        for token in library.get_tokens(**wanted)
        if hello.manufacturer in {"", token.manufacturer_id} and hello.model in {"", token.model}
    ]
    if not tokens:
        raise TokenAbsent("the module shows no such token")
    if len(tokens) > 1:
        raise TokenRefused("more than one token fits: configure token_serial, too")
    return tokens[0]


def log_in(token: Any, pin: str) -> Any:
    """Open the management session and log in, once: nothing here tries a PIN again."""
    try:
        return token.open(rw=True, user_pin=pin)
    except (exceptions.PinIncorrect, exceptions.PinInvalid, exceptions.PinLenRange) as error:
        raise TokenRefused("the token refuses the PIN") from error
    except (exceptions.PinLocked, exceptions.PinExpired, exceptions.UserPinNotInitialized) as error:
        raise TokenRefused("the token's PIN is locked, expired or not set") from error


class KeyFinder:
    """The keys that one session has found, by CKA_ID and algorithm."""

    def __init__(self, direct: DirectSession) -> None:
        self.direct = direct
        self.session = direct.session
        self._found: dict[tuple[bytes, str], Any] = {}
        self._logged_in = direct.state()

    def sees_all(self) -> bool:
        """Whether the token is there and we are logged in.  If not, what is not found may exist all the same."""
        try:
            self.session.token.slot.get_token()
            return self.direct.state() == self._logged_in
        except exceptions.PKCS11Error:
            return False

    def key(self, object_id: bytes, algorithm: str) -> Any:
        """The secret or private key of this id; raises NoSuchKey, or ObjectRefused when two have it."""
        at = (object_id, algorithm)
        key = self._found.get(at)
        if key is None:
            key = find_key(self.session, algorithm, {Attribute.ID: object_id})
            if len(self._found) >= _MAX_HANDLES:
                del self._found[next(iter(self._found))]
            self._found[at] = key
        return key

    def forget(self, object_id: bytes, algorithm: str) -> None:
        """Drop a handle that no longer works."""
        self._found.pop((object_id, algorithm), None)


def find_key(session: Any, algorithm: str, wanted: dict[Attribute, Any]) -> Any:
    """Find the one secret or private key with these attributes; raises NoSuchKey or ObjectRefused."""
    way = WAYS[algorithm]
    found = list(session.get_objects({**wanted, Attribute.CLASS: way.object_class}))
    if not found:
        raise exceptions.NoSuchKey
    if len(found) > 1:
        raise ObjectRefused("more than one object of the token fits; give them different ids")
    if found[0][Attribute.KEY_TYPE] != way.key_type:
        raise ObjectRefused("the token's object is of another key type than the algorithm's")
    return found[0]


def objects_of(session: Any, object_id: bytes) -> tuple[list[Any], list[Any]]:
    """The secret and private keys of this id, and the public ones.  One search: it takes longer the more a token holds."""
    found = [(one[Attribute.CLASS], one) for one in session.get_objects({Attribute.ID: object_id})]
    keys = [one for kind, one in found if kind in {pkcs11.ObjectClass.SECRET_KEY, pkcs11.ObjectClass.PRIVATE_KEY}]
    return keys, [one for kind, one in found if kind == pkcs11.ObjectClass.PUBLIC_KEY]


def may_be_destroyed(key: Any) -> bool:
    """CKA_DESTROYABLE; modules before PKCS#11 2.40 do not tell."""
    try:
        return key[Attribute.DESTROYABLE] is not False
    except exceptions.PKCS11Error:
        return True


_ATTESTED: Final = {
    "sensitive": Attribute.SENSITIVE,
    "always_sensitive": Attribute.ALWAYS_SENSITIVE,
    "extractable": Attribute.EXTRACTABLE,
    "never_extractable": Attribute.NEVER_EXTRACTABLE,
    "local": Attribute.LOCAL,
}


def attest(key: Any, token: dict[str, str]) -> dict[str, Any]:
    """What the token says of a key.  An attribute that it does not tell is left out."""
    told: dict[str, Any] = dict(token)
    for name, attribute in _ATTESTED.items():
        try:
            told[name] = bool(key[attribute])
        except exceptions.PKCS11Error:
            continue
    told["object_label"] = str(key[Attribute.LABEL] or "")
    told["object_id"] = bytes(key[Attribute.ID]).hex()
    return told


def public_parts(session: Any, private: Any, public: Any | None, object_id: bytes) -> dict[str, bytes]:
    """The public key as the token has it: `modulus` and `exponent`, or `point` (CKA_EC_POINT) and `parameters`."""
    if public is None:
        _, beside = objects_of(session, object_id)
        public = beside[0] if beside else private
    names = (
        {"modulus": Attribute.MODULUS, "exponent": Attribute.PUBLIC_EXPONENT}
        if private[Attribute.KEY_TYPE] == pkcs11.KeyType.RSA
        else {"point": Attribute.EC_POINT, "parameters": Attribute.EC_PARAMS}
    )
    try:
        return {name: bytes(public[attribute]) for name, attribute in names.items()}
    except (exceptions.AttributeTypeInvalid, exceptions.AttributeSensitive) as error:
        raise ObjectRefused(
            "the token has no public key object of this id; store one beside the private key"
        ) from error


def describe(token: Any) -> dict[str, str]:
    """What identifies a token."""
    return {
        "token_label": token.label,
        "token_serial": token.serial.decode("utf-8", "replace").strip(),
        "manufacturer": token.manufacturer_id,
        "model": token.model,
        "firmware_version": ".".join(map(str, token.firmware_version)),
    }


def connect(hello: Hello) -> tuple[Any, DirectSession, list[DirectSession], bool]:
    """Enter the token: returns it, the management session, the sessions for uses, and whether several threads may run."""
    library, threads = open_module(hello.module)
    token = find_token(library, hello)
    functions = ModuleFunctions(ctypes.CDLL(hello.module))
    management = DirectSession(log_in(token, hello.pin), functions)
    if not threads:
        return token, management, [management], False
    # The login is the process's: sessions that are opened from here on need no PIN.
    return token, management, [DirectSession(token.open(), functions) for _ in range(hello.sessions)], True
