"""Root-key providers: where the key that wraps the key ring lives.

A provider wraps and unwraps; it never gives its key away, so that a token can be one later.  Three are here:

    file        FileRootKey        keys in a 0600 file that vaultd writes itself (development, single machines)
    passphrase  PassphraseRootKey  Argon2id over what the operator types at unseal; nothing is stored but a salt
    credential  CredentialRootKey  a systemd credential, a mounted file or an environment variable, never written

Formats, fixed for ever by their version marks (docs/formats.md):

    key line    `vaultd-root-key-v1 <ref> <base64 of 32 bytes>`, newest first; `#` begins a comment line
    ref         16 hex digits, random; `sha256:` + 16 of a bare credential; `argon2id:v=1,...` of a passphrase
    wrapping    0x01 || salt (16) || nonce (12) || AES-256-GCM ciphertext and tag
                  key = HKDF-SHA256(root key, salt, info "vaultd/root-key/wrap/v1")
                  associated data = "vaultd/root-key/wrap/v1" || len(ref) as two bytes || ref || the caller's

The salt gives every wrapping a key of its own, so the root key has no message limit.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import fcntl
import hashlib
import hmac
import os
import re
import stat
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.argon2 import Argon2id
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from vaultd import failpoints
from vaultd.errors import DataLoss, FailedPrecondition, InvalidArgument, Unavailable
from vaultd.secret import Secret

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

KEY_BYTES = 32
MIN_PASSPHRASE_BYTES = 12
MAX_PASSPHRASE_BYTES = 1024

_LINE_MARK = "vaultd-root-key-v1"
_REF = re.compile(r"[0-9a-f]{16}")
_BARE_REF = re.compile(r"sha256:[0-9a-f]{16}")
_MAX_FILE_BYTES = 16 * 1024
_MAX_KEYS = 64

_WRAP_FORMAT = b"\x01"
_WRAP_INFO = b"vaultd/root-key/wrap/v1"
_REF_INFO = b"vaultd/root-key/ref/v1"
_CHECK_INFO = b"vaultd/root-key/passphrase-check/v1"
_SALT_BYTES = 16
_NONCE_BYTES = 12
_TAG_BYTES = 16


class RootKeyProvider(Protocol):
    """Wraps the key ring.  Methods may raise Unavailable when the place of the key cannot be reached.

    Rotation: `prepare_next`, wrap the ring with the new ref, commit and read it back, then `retire` the others.  A
    crash anywhere in between leaves the root key of the committed ring usable.
    """

    kind: str
    """`file`, `passphrase` or `credential`."""
    needs_passphrase: bool
    """Whether create, unwrap and prepare_next want a passphrase; the others ignore it."""

    async def create(self, passphrase: Secret | None) -> str:
        """Ensure that a root key exists, durable before return; return its ref.

        Idempotent: an existing key is kept.
        """
        ...

    async def wrap(self, ref: str, plaintext: Secret, aad: bytes) -> bytes:
        """Encrypt and bind to ref and aad.  Raises FailedPrecondition ROOT_KEY_MISSING."""
        ...

    async def unwrap(self, ref: str, wrapped: bytes, aad: bytes, passphrase: Secret | None) -> Secret:
        """Decrypt what `wrap` gave for the same ref and aad.

        Raises DataLoss ROOT_KEY_MISMATCH, InvalidArgument WRONG_PASSPHRASE or FailedPrecondition ROOT_KEY_MISSING.
        """
        ...

    async def prepare_next(self, passphrase: Secret | None) -> str:
        """Make a fresh root key beside the old one, durable before return; return its ref.

        After a crash it may be called again: a key left over is used or ignored, never in the way.
        """
        ...

    async def retire(self, keep: str) -> None:
        """Forget every root key but `keep`.  Idempotent.  Raises FailedPrecondition ROOT_KEY_MISSING and keeps all."""
        ...


@dataclass(frozen=True, slots=True)
class _RootKey:
    ref: str
    key: Secret


@dataclass(frozen=True, slots=True)
class Argon2Cost:
    """The price of one guess.

    Bounded, since an edited row must not cost the server its memory or the key its strength.
    """

    iterations: int = 3
    lanes: int = 4
    memory_kib: int = 64 * 1024

    def __post_init__(self) -> None:
        if not (2 <= self.iterations <= 16 and 1 <= self.lanes <= 16 and 19 * 1024 <= self.memory_kib <= 512 * 1024):
            raise ValueError("Argon2id cost out of bounds: iterations 2-16, lanes 1-16, memory 19-512 MiB")


def new_root_key_line() -> str:
    """A fresh root key as a line for a key file or credential, without its newline.  It is a secret."""
    return _format_line(_new_root_key())


class FileRootKey:
    """Root keys in a text file of key lines, owned by this user and closed to everyone else.

    Written by replacing the whole file: a crash leaves the old or the new one.  The keys are read for each use and not
    kept.
    """

    kind = "file"
    needs_passphrase = False

    def __init__(self, path: Path) -> None:
        self._path = path
        self._in_use: str | None = None

    async def create(self, passphrase: Secret | None) -> str:
        """Use the first line of the file, or write a file with one."""
        del passphrase
        self._in_use = await asyncio.to_thread(self._create)
        return self._in_use

    async def wrap(self, ref: str, plaintext: Secret, aad: bytes) -> bytes:
        """See RootKeyProvider."""
        keys = await asyncio.to_thread(self._load)
        return _wrap(_find(keys, ref), plaintext, aad)

    async def unwrap(self, ref: str, wrapped: bytes, aad: bytes, passphrase: Secret | None) -> Secret:
        """See RootKeyProvider."""
        del passphrase
        keys = await asyncio.to_thread(self._load)
        plaintext = _unwrap(_find(keys, ref), wrapped, aad)
        self._in_use = ref
        return plaintext

    async def prepare_next(self, passphrase: Secret | None) -> str:
        """Put a new line first.  A first line that is not the one in use is left from a crash, and is used."""
        del passphrase
        return await asyncio.to_thread(self._prepare_next)

    async def retire(self, keep: str) -> None:
        """See RootKeyProvider."""
        await asyncio.to_thread(self._retire, keep)

    def _create(self) -> str:
        with self._exclusive():
            if self._exists():
                keys = self._load()
                self._write(keys)  # again, because the writer may have crashed before the directory was synced
            else:
                keys = [_new_root_key()]
                self._write(keys)
        failpoints.hit("root_key.created")
        return keys[0].ref

    def _prepare_next(self) -> str:
        with self._exclusive():
            keys = self._load()
            left_over = self._in_use is not None and keys[0].ref != self._in_use
            if not left_over:
                if len(keys) >= _MAX_KEYS:
                    raise FailedPrecondition(
                        "ROOT_KEY_FILE_FULL",
                        "the root key file holds too many keys: finish a rotation to retire the old ones",
                    )
                keys = [_new_root_key(), *keys]
            self._write(keys)  # a line left over too: its writer may have crashed before the directory was synced
        failpoints.hit("root_key.prepared")
        return keys[0].ref

    def _retire(self, keep: str) -> None:
        with self._exclusive():
            keys = self._load()
            kept = _find(keys, keep)
            if len(keys) > 1:
                self._write([kept])
        failpoints.hit("root_key.retired")

    @contextmanager
    def _exclusive(self) -> Iterator[None]:
        """Hold the lock file beside the key file: two processes that rotate must not lose each other's line."""
        with _mapped_os_errors():
            try:
                lock = os.open(
                    f"{self._path}.lock",
                    os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW,
                    stat.S_IRUSR | stat.S_IWUSR,
                )
            except FileNotFoundError as e:
                raise _missing("the directory of the root key file does not exist") from e
            try:
                fcntl.flock(lock, fcntl.LOCK_EX)
                yield
            finally:
                os.close(lock)

    def _exists(self) -> bool:
        return os.path.lexists(self._path)

    def _load(self) -> list[_RootKey]:
        with _mapped_os_errors():
            if self._path.is_symlink():
                raise _file_mode("the root key file is a symbolic link")
            content = _read_key_file(self._path, os.O_NOFOLLOW, forbidden_mode=0o077, owners=(os.geteuid(),))
        return _parse_keys(content, _parse_line)

    def _write(self, keys: Sequence[_RootKey]) -> None:
        """Replace the file and sync its directory; the temporary name is fixed, so a crash leaves at most one."""
        content = "".join(f"{_format_line(key)}\n" for key in keys).encode()
        temporary = self._path.with_name(f"{self._path.name}.tmp")
        with _mapped_os_errors():
            temporary.unlink(missing_ok=True)
            fd = os.open(
                temporary,
                os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW,
                stat.S_IRUSR | stat.S_IWUSR,
            )
            with os.fdopen(fd, "wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            failpoints.hit("root_key.temporary_written")
            temporary.rename(self._path)
            _sync_directory(self._path.parent)


class PassphraseRootKey:
    """A root key derived from a passphrase by Argon2id.

    The ref holds everything but the passphrase, so the ring's row is all there is to keep:

        argon2id:v=1,t=<iterations>,p=<lanes>,m=<KiB>,salt=<32 hex digits>,check=<16 hex digits>

    `check` is 8 bytes of HKDF over the derived key: it tells a wrong passphrase from a damaged ring, and tells a
    guesser nothing that the wrapped ring beside it does not.  Derived keys stay in memory from create, unwrap or
    prepare_next until `forget` or `retire`, so that the ring can be wrapped anew while unsealed.
    """

    kind = "passphrase"
    needs_passphrase = True

    _FORMAT = re.compile(
        r"argon2id:v=1,t=(?P<t>[1-9][0-9]{0,3}),p=(?P<p>[1-9][0-9]{0,3}),m=(?P<m>[1-9][0-9]{0,9}),"
        r"salt=(?P<salt>[0-9a-f]{32}),check=(?P<check>[0-9a-f]{16})"
    )

    def __init__(self, cost: Argon2Cost | None = None) -> None:
        self._cost = cost or Argon2Cost()
        self._keys: dict[str, _RootKey] = {}
        self._one_at_a_time = asyncio.Lock()  # each derivation takes all of `memory_kib`
        self._forgotten = 0

    async def create(self, passphrase: Secret | None) -> str:
        """Derive a key with a fresh salt.  Nothing is stored here: the key is durable once the ref is."""
        ref = await self._derive_new(passphrase)
        failpoints.hit("root_key.created")
        return ref

    async def wrap(self, ref: str, plaintext: Secret, aad: bytes) -> bytes:
        """See RootKeyProvider.  Needs a key in memory."""
        key = self._keys.get(ref)
        if key is None:
            raise _missing("the root key is not in memory: unseal with the passphrase first")
        return _wrap(key, plaintext, aad)

    async def unwrap(self, ref: str, wrapped: bytes, aad: bytes, passphrase: Secret | None) -> Secret:
        """See RootKeyProvider.  Without a passphrase, the key in memory is used (reading back after a rotation)."""
        if passphrase is None and ref in self._keys:
            return _unwrap(self._keys[ref], wrapped, aad)
        if passphrase is None:
            raise _passphrase_required()
        cost, salt, check = self._parse_ref(ref)
        if len(passphrase) > MAX_PASSPHRASE_BYTES:
            raise _wrong_passphrase()
        epoch = self._forgotten
        key = await self._derive(passphrase, cost, salt)
        if not hmac.compare_digest(_check_value(key), check):
            raise _wrong_passphrase()
        root_key = _RootKey(ref, key)
        plaintext = _unwrap(root_key, wrapped, aad)
        self._remember(root_key, epoch)
        return plaintext

    async def prepare_next(self, passphrase: Secret | None) -> str:
        """Derive a key with a fresh salt from the old passphrase or a new one."""
        ref = await self._derive_new(passphrase)
        failpoints.hit("root_key.prepared")
        return ref

    async def retire(self, keep: str) -> None:
        """Drop all keys but one from memory; a ref that no row holds any more is a key that nothing is wrapped with."""
        if keep not in self._keys:
            raise _missing("the root key to keep is not in memory: unseal with the passphrase first")
        self._keys = {keep: self._keys[keep]}
        failpoints.hit("root_key.retired")

    def forget(self) -> None:
        """Drop every key from memory, at seal.  Derivations under way do not bring one back."""
        self._keys.clear()
        self._forgotten += 1

    async def _derive_new(self, passphrase: Secret | None) -> str:
        if passphrase is None:
            raise _passphrase_required()
        if not MIN_PASSPHRASE_BYTES <= len(passphrase) <= MAX_PASSPHRASE_BYTES:
            raise InvalidArgument(
                "PASSPHRASE_LENGTH",
                f"the passphrase must have {MIN_PASSPHRASE_BYTES} to {MAX_PASSPHRASE_BYTES} bytes",
                field="passphrase",
            )
        epoch = self._forgotten
        salt = os.urandom(_SALT_BYTES)
        cost = self._cost
        key = await self._derive(passphrase, cost, salt)
        ref = (
            f"argon2id:v=1,t={cost.iterations},p={cost.lanes},m={cost.memory_kib},"
            f"salt={salt.hex()},check={_check_value(key).hex()}"
        )
        self._remember(_RootKey(ref, key), epoch)
        return ref

    async def _derive(self, passphrase: Secret, cost: Argon2Cost, salt: bytes) -> Secret:
        async with self._one_at_a_time:
            return await asyncio.to_thread(_argon2id, passphrase, cost, salt)

    def _remember(self, key: _RootKey, epoch: int) -> None:
        if epoch == self._forgotten:
            self._keys[key.ref] = key

    def _parse_ref(self, ref: str) -> tuple[Argon2Cost, bytes, bytes]:
        match = self._FORMAT.fullmatch(ref)
        if match is None:
            raise _mismatch("the key ring names a root key that is not of a passphrase")
        try:
            cost = Argon2Cost(iterations=int(match["t"]), lanes=int(match["p"]), memory_kib=int(match["m"]))
        except ValueError as e:
            raise _mismatch("the key ring names Argon2id parameters that vaultd never writes") from e
        return cost, bytes.fromhex(match["salt"]), bytes.fromhex(match["check"])


class CredentialRootKey:
    """Root keys that somebody else provides, never written: lines like the key file's, or bare keys in base64 or hex.

    source: `env:NAME`, an absolute path, or the name of a systemd credential (`$CREDENTIALS_DIRECTORY/NAME`).  A file
    is read for each use; a variable is read here, once, and taken out of `os.environ` so that no child process inherits
    it (the kernel's /proc/self/environ keeps its first state: prefer a credential).
    """

    kind = "credential"
    needs_passphrase = False

    _ENVIRONMENT = re.compile(r"env:([A-Za-z_][A-Za-z0-9_]*)")
    _CREDENTIAL = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9._-]{0,254}")

    def __init__(self, source: str) -> None:
        self._in_use: str | None = None
        self._path: Path | None = None
        self._from_environment: list[_RootKey] = []
        if variable := self._ENVIRONMENT.fullmatch(source):
            content = os.environ.pop(variable[1], None)
            if content is None:
                raise _missing("the environment variable that should hold the root key is not set")
            self._from_environment = _parse_keys(content.encode(), _parse_line_or_bare_key)
        elif source.startswith("/"):
            self._path = Path(source)
        elif self._CREDENTIAL.fullmatch(source):
            directory = os.environ.get("CREDENTIALS_DIRECTORY", "")
            if not directory.startswith("/"):
                raise _missing(
                    "CREDENTIALS_DIRECTORY is not set: start vaultd with LoadCredential= or name an absolute path"
                )
            self._path = Path(directory, source)
        else:
            raise FailedPrecondition(
                "ROOT_KEY_SOURCE",
                "the root key source must be env:NAME, an absolute path or the name of a systemd credential",
            )

    async def create(self, passphrase: Secret | None) -> str:
        """Return the ref of the first line; the operator made it durable."""
        del passphrase
        keys = await asyncio.to_thread(self._load)
        self._in_use = keys[0].ref
        failpoints.hit("root_key.created")
        return self._in_use

    async def wrap(self, ref: str, plaintext: Secret, aad: bytes) -> bytes:
        """See RootKeyProvider."""
        keys = await asyncio.to_thread(self._load)
        return _wrap(_find(keys, ref), plaintext, aad)

    async def unwrap(self, ref: str, wrapped: bytes, aad: bytes, passphrase: Secret | None) -> Secret:
        """See RootKeyProvider."""
        del passphrase
        keys = await asyncio.to_thread(self._load)
        plaintext = _unwrap(_find(keys, ref), wrapped, aad)
        self._in_use = ref
        return plaintext

    async def prepare_next(self, passphrase: Secret | None) -> str:
        """Read again and return the first line's ref.

        Raises FailedPrecondition ROOT_KEY_NOT_ROTATED when that is the key in use, ROOT_KEY_MISSING when the key in use
        is gone: it must stay below until the rotation is over.
        """
        del passphrase
        keys = await asyncio.to_thread(self._load)
        in_use = self._in_use or keys[-1].ref
        if keys[0].ref == in_use:
            raise FailedPrecondition(
                "ROOT_KEY_NOT_ROTATED",
                "put a new key on the first line of the credential and keep the old one on the line below, "
                "restart vaultd if the credential is loaded at start, then rotate again",
            )
        _find(keys, in_use)
        failpoints.hit("root_key.prepared")
        return keys[0].ref

    async def retire(self, keep: str) -> None:
        """Do nothing: vaultd never writes a credential.  The operator takes the old line away after the rotation."""

    def _load(self) -> list[_RootKey]:
        if self._path is None:
            return self._from_environment
        with _mapped_os_errors():
            # systemd shows its ACL as group bits, and Kubernetes mounts symbolic links to files of root: both are in
            # order.
            content = _read_key_file(self._path, 0, forbidden_mode=0o027, owners=(0, os.geteuid()))
        return _parse_keys(content, _parse_line_or_bare_key)


def _new_root_key() -> _RootKey:
    return _RootKey(os.urandom(8).hex(), Secret(os.urandom(KEY_BYTES)))


def _find(keys: Sequence[_RootKey], ref: str) -> _RootKey:
    for key in keys:
        if key.ref == ref:
            return key
    raise _missing("the root key that the key ring names is not there: restore its key file or credential")


def _wrap(key: _RootKey, plaintext: Secret, aad: bytes) -> bytes:
    salt, nonce = os.urandom(_SALT_BYTES), os.urandom(_NONCE_BYTES)
    cipher = AESGCM(_derive(key.key, _WRAP_INFO, KEY_BYTES, salt))
    sealed = cipher.encrypt(nonce, plaintext.expose("sealed under the root key"), _bound(key.ref, aad))
    return _WRAP_FORMAT + salt + nonce + sealed


def _unwrap(key: _RootKey, wrapped: bytes, aad: bytes) -> Secret:
    header_bytes = len(_WRAP_FORMAT) + _SALT_BYTES + _NONCE_BYTES
    if len(wrapped) < header_bytes + _TAG_BYTES or not wrapped.startswith(_WRAP_FORMAT):
        raise _mismatch("the wrapped key ring is damaged or of a newer vaultd")
    salt = wrapped[len(_WRAP_FORMAT) : len(_WRAP_FORMAT) + _SALT_BYTES]
    nonce = wrapped[len(_WRAP_FORMAT) + _SALT_BYTES : header_bytes]
    cipher = AESGCM(_derive(key.key, _WRAP_INFO, KEY_BYTES, salt))
    try:
        return Secret(cipher.decrypt(nonce, wrapped[header_bytes:], _bound(key.ref, aad)))
    except InvalidTag as e:
        raise _mismatch("the key ring does not open with the root key that it names") from e


def _bound(ref: str, aad: bytes) -> bytes:
    name = ref.encode()
    return _WRAP_INFO + len(name).to_bytes(2, "big") + name + aad


def _derive(key: Secret, info: bytes, length: int, salt: bytes | None = None) -> bytes:
    return HKDF(hashes.SHA256(), length, salt, info).derive(key.expose("HKDF of the root key"))


def _check_value(key: Secret) -> bytes:
    return _derive(key, _CHECK_INFO, 8)


def _argon2id(passphrase: Secret, cost: Argon2Cost, salt: bytes) -> Secret:
    kdf = Argon2id(
        salt=salt, length=KEY_BYTES, iterations=cost.iterations, lanes=cost.lanes, memory_cost=cost.memory_kib
    )
    return Secret(kdf.derive(passphrase.expose("Argon2id of the passphrase")))


def _format_line(key: _RootKey) -> str:
    encoded = base64.b64encode(key.key.expose("written to the key file or printed for the operator"))
    return f"{_LINE_MARK} {key.ref} {encoded.decode()}"


class _LineParser(Protocol):
    def __call__(self, line: str) -> _RootKey | None: ...


def _parse_keys(content: bytes, parse: _LineParser) -> list[_RootKey]:
    """Parse all lines or raise DataLoss ROOT_KEY_FILE_INVALID; at least one, no ref twice.

    Texts never carry content.
    """
    try:
        lines = content.decode("ascii").split("\n")
    except UnicodeDecodeError as e:
        raise _file_invalid("it is not text") from e
    keys: list[_RootKey] = []
    for number, raw in enumerate(lines, start=1):
        line = raw.strip()
        if not line or line.startswith("#"):
            continue
        key = parse(line)
        if key is None:
            raise _file_invalid(f"line {number} is damaged or of a newer vaultd")
        if any(key.ref == other.ref for other in keys):
            raise _file_invalid(f"line {number} repeats a key or its name")
        keys.append(key)
    if not keys:
        raise _file_invalid("it holds no key")
    return keys


def _parse_line(line: str) -> _RootKey | None:
    fields = line.split(" ")
    if len(fields) != 3 or fields[0] != _LINE_MARK or not (_REF.fullmatch(fields[1]) or _BARE_REF.fullmatch(fields[1])):
        return None
    key = _decode_base64_key(fields[2])
    return _RootKey(fields[1], key) if key else None


def _parse_line_or_bare_key(line: str) -> _RootKey | None:
    if line.startswith(_LINE_MARK):
        return _parse_line(line)
    # 64 hex digits are also base64, but of 48 bytes: the two cannot be confused.
    key = _decode_base64_key(line) or _decode_hex_key(line)
    if key is None:
        return None
    return _RootKey(f"sha256:{hashlib.sha256(_derive(key, _REF_INFO, KEY_BYTES)).hexdigest()[:16]}", key)


def _decode_base64_key(text: str) -> Secret | None:
    try:
        key = base64.b64decode(text, validate=True)
    except binascii.Error:
        return None
    return Secret(key) if len(key) == KEY_BYTES else None


def _decode_hex_key(text: str) -> Secret | None:
    return Secret(bytes.fromhex(text)) if re.fullmatch(r"[0-9a-fA-F]{64}", text) else None


def _read_key_file(path: Path, flags: int, *, forbidden_mode: int, owners: Sequence[int]) -> bytes:
    """Read a whole key file after checking the opened file itself, so that it cannot be exchanged in between."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | flags)
    except FileNotFoundError as e:
        raise _missing("the root key file does not exist") from e
    try:
        status = os.fstat(fd)
        if not stat.S_ISREG(status.st_mode):
            raise _file_mode("the root key file is not a regular file")
        if status.st_uid not in owners:
            raise _file_mode("the root key file belongs to another user")
        if status.st_mode & forbidden_mode:
            raise _file_mode("the root key file is open to other users: chmod 600 it, and rotate the root key")
        with os.fdopen(fd, "rb", closefd=False) as file:
            content = file.read(_MAX_FILE_BYTES + 1)
    finally:
        os.close(fd)
    if len(content) > _MAX_FILE_BYTES:
        raise _file_invalid("it is too long")
    return content


def _sync_directory(path: Path) -> None:
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


@contextmanager
def _mapped_os_errors() -> Iterator[None]:
    try:
        yield
    except OSError as e:
        text = f"the root key cannot be read or written: {os.strerror(e.errno) if e.errno else 'I/O error'}"
        raise Unavailable("ROOT_KEY_UNAVAILABLE", text, retry_after_s=1) from e


def _missing(text: str) -> FailedPrecondition:
    return FailedPrecondition("ROOT_KEY_MISSING", text)


def _file_mode(text: str) -> FailedPrecondition:
    return FailedPrecondition("ROOT_KEY_FILE_MODE", text)


def _mismatch(text: str) -> DataLoss:
    return DataLoss("ROOT_KEY_MISMATCH", text)


def _file_invalid(text: str) -> DataLoss:
    return DataLoss("ROOT_KEY_FILE_INVALID", f"the root key file or credential cannot be used: {text}")


def _wrong_passphrase() -> InvalidArgument:
    return InvalidArgument("WRONG_PASSPHRASE", "the passphrase is not the one of this vault", field="passphrase")


def _passphrase_required() -> InvalidArgument:
    return InvalidArgument("PASSPHRASE_REQUIRED", "this vault needs its passphrase", field="passphrase")
