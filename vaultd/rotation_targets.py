"""Makes rotators of the configuration's targets, and reads the credentials that they log in with."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path
from typing import TYPE_CHECKING, Final

import orjson

from vaultd.backends.private_files import NotPrivate, read_private_file
from vaultd.engine.clock import SECOND_US
from vaultd.engine.rotations import RotationTarget
from vaultd.errors import VaultdError
from vaultd.hosts.https import FetchError, FetchLimits, client_context, post, request_target
from vaultd.rotation_config import PostgresTargetSection
from vaultd.rotators.base import RotatorFailed
from vaultd.rotators.postgres import Login, PostgresRotator, PostgresSettings
from vaultd.rotators.webhook import MAX_ANSWER_BYTES, PostFailed, WebhookRotator, WebhookSettings
from vaultd.secret import Secret

if TYPE_CHECKING:
    import ssl
    from collections.abc import Awaitable, Callable, Sequence

    from vaultd.engine.clock import Clock
    from vaultd.rotation_config import (
        CredentialSection,
        PostgresAdminSection,
        RotationSection,
        TargetSection,
        WebhookTargetSection,
    )
    from vaultd.rotators.base import Rotator

    ReadSecret = Callable[[str], Awaitable[Secret]]

MAX_CREDENTIAL_BYTES: Final = 4_096
MIN_KEY_BYTES: Final = 32


class Credential:
    """A credential of vaultd's own, read anew for each use; a variable is read once, and taken out of the environment."""

    def __init__(self, section: CredentialSection, read_secret: ReadSecret) -> None:
        self._path = section.path
        self._secret = section.secret
        self._read_secret = read_secret
        self._value: Secret | None = None
        if section.credential is not None:
            directory = os.environ.get("CREDENTIALS_DIRECTORY", "")
            self._path = Path(directory or "/nonexistent", section.credential)
        elif section.environment is not None:
            self._value = Secret(os.environ.pop(section.environment, "").encode())

    async def read(self) -> Secret:
        """Raises RotatorFailed, CREDENTIAL_MISSING."""
        if self._secret is not None:
            try:
                return await self._read_secret(self._secret)
            except VaultdError as error:
                raise _missing(
                    f"the secret that the target's credential is in cannot be read: {error.reason}"
                ) from None
        value = self._value if self._path is None else await asyncio.to_thread(_read_file, self._path)
        if not value:
            raise _missing("the target's credential is empty, or its variable is not set")
        return value


def _read_file(path: Path) -> Secret:
    try:
        content = read_private_file(
            path, forbidden_mode=0o027, owners=(0, os.geteuid()), max_bytes=MAX_CREDENTIAL_BYTES
        )
    except NotPrivate as error:
        raise _missing(f"the file of the target's credential {error}") from None
    except OSError:
        raise _missing("the file of the target's credential cannot be read") from None
    return Secret(content.rstrip(b"\r\n"))


def _missing(text: str) -> RotatorFailed:
    return RotatorFailed("CREDENTIAL_MISSING", text, untouched=True)


class AdminLogin:
    """The role that changes passwords: of the configuration, or of a secret with `username` and `password`."""

    def __init__(self, section: PostgresAdminSection, read_secret: ReadSecret) -> None:
        self._username = section.username
        self._password = Credential(section.password, read_secret)

    async def read(self) -> Login:
        """Raises RotatorFailed, CREDENTIAL_MISSING."""
        value = await self._password.read()
        if self._username is not None:
            return Login(self._username, value)
        try:
            members = orjson.loads(value.expose("the admin's name and password"))
            return Login(str(members["username"]), Secret(str(members["password"]).encode()))
        except (orjson.JSONDecodeError, KeyError, TypeError):
            raise _missing("the admin's secret must be a JSON object with username and password") from None


def make_targets(section: RotationSection, read_secret: ReadSecret, clock: Clock) -> list[RotationTarget]:
    """What the configuration names.  Nothing is connected to."""
    return [
        RotationTarget(target.name, frozenset(target.secrets), _make_rotator(target, read_secret, clock))
        for target in section.targets
    ]


def _make_rotator(target: TargetSection, read_secret: ReadSecret, clock: Clock) -> Rotator:
    if isinstance(target, PostgresTargetSection):
        return _make_postgres(target, read_secret)
    return _make_webhook(target, read_secret, clock)


def _make_postgres(target: PostgresTargetSection, read_secret: ReadSecret) -> PostgresRotator:
    settings = PostgresSettings(
        host=target.host,
        port=target.port,
        database=target.database,
        users=target.users,
        tls=target.tls.mode,
        ca_file=target.tls.ca_file,
        scram_iterations=target.scram_iterations,
        timeout_s=target.timeout_s,
    )
    return PostgresRotator(settings, AdminLogin(target.admin, read_secret).read)


def _make_webhook(target: WebhookTargetSection, read_secret: ReadSecret, clock: Clock) -> WebhookRotator:
    key = Credential(target.hmac_key, read_secret)
    limits = FetchLimits(target.timeout_s, MAX_ANSWER_BYTES)

    def context() -> ssl.SSLContext:
        made = client_context(target.ca_file)
        if target.certificate is not None and target.key is not None:
            try:
                made.load_cert_chain(target.certificate, target.key)
            except OSError as error:
                raise FetchError("certificate and key cannot be read", sent=False) from error
        return made

    async def send(headers: Sequence[tuple[str, str]], body: bytes) -> tuple[int, bytes]:
        try:
            return await post(target.url, context, limits, headers, body)
        except FetchError as error:
            raise PostFailed(error.text, sent=error.sent) from None

    async def read_key() -> Secret:
        value = await key.read()
        if len(value) < MIN_KEY_BYTES:
            raise _missing(f"hmac_key must be at least {MIN_KEY_BYTES} bytes")
        return value

    settings = WebhookSettings(request_target(target.url), target.timeout_s)
    return WebhookRotator(settings, send, read_key, lambda: clock.now_us() // SECOND_US)
