"""Passwords of two PostgreSQL roles that take turns: while one is in use, the other gets a new password.

The payload is a JSON object with `engine`, `host`, `port`, `dbname`, `username` and `password`; other members of the payload
before are kept.  Roles are never created, and nothing of them is changed but the password.  What the server gets to see is a
SCRAM verifier.
"""

from __future__ import annotations

import asyncio
import ssl
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, NoReturn

import asyncpg
import orjson

from vaultd.rotators.base import RotatorFailed, Value
from vaultd.rotators.scram import is_plain, scram_verifier
from vaultd.secret import Secret

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable
    from pathlib import Path

    from vaultd.rotators.base import Step

APPLICATION: Final = "vaultd rotation"
LASTING_STATES: Final = {
    "28": "POSTGRES_LOGIN_REFUSED",  # invalid authorization: wrong password, no role of this name, pg_hba.conf
    "42": "POSTGRES_STATEMENT_REFUSED",  # 42501 insufficient privilege, 42704 no such role
    "3D": "POSTGRES_NO_DATABASE",
}


@dataclass(frozen=True, slots=True)
class Login:
    """A role and its password."""

    username: str
    password: Secret


@dataclass(frozen=True, slots=True)
class PostgresSettings:
    """A target.  ca_file: None is the system's authorities.  tls: `verify-full`, `verify-ca` or `disable`."""

    host: str
    port: int
    database: str
    users: tuple[str, str]
    tls: str
    ca_file: Path | None
    scram_iterations: int
    timeout_s: float


class PostgresRotator:
    """Sets, tests and clears the passwords of two roles, as a role that may.

    `read_admin` gives that role and its password, and is asked anew for each connection.
    """

    def __init__(self, settings: PostgresSettings, read_admin: Callable[[], Awaitable[Login]]) -> None:
        self._settings = settings
        self._read_admin = read_admin

    @property
    def timeout_s(self) -> float:
        return self._settings.timeout_s

    @property
    def passwords_only(self) -> bool:
        return True

    async def create(self, step: Step, generate: Callable[[], Awaitable[Value]]) -> Value:
        """Say who is next, with which password.  Asks nobody."""
        old = self._members_in_use(step)
        user = self._other(old["username"]) if old else self._settings.users[0]
        password = (await generate()).payload.expose("the new password, in a payload that the vault seals")
        if not is_plain(password):
            raise RotatorFailed(
                "PASSWORD_NOT_PLAIN",
                "a password of PostgreSQL must be printable ASCII; change the generator",
                lasting=True,
                untouched=True,
            )
        settings = self._settings
        new = {
            **old,
            "engine": "postgres",
            "host": settings.host,
            "port": settings.port,
            "dbname": settings.database,
            "username": user,
            "password": password.decode("ascii"),
        }
        return Value(Secret(orjson.dumps(new)), "application/json")

    async def set(self, step: Step) -> None:
        login = self._login(step.new)
        self._require_not_in_use(login.username, self._members_in_use(step))
        # A thread: many iterations take their time, and the digests let go of the interpreter.
        verifier = await asyncio.to_thread(scram_verifier, login.password, self._settings.scram_iterations)
        await self._alter(login.username, f"'{verifier}'")

    async def test(self, step: Step) -> None:
        login = self._login(step.new)
        async with self._connection(login) as connection:
            user, standby = await connection.fetchrow("SELECT session_user::text, pg_is_in_recovery()")
        if user != login.username:
            raise RotatorFailed("POSTGRES_OTHER_USER", "the server maps the role to another one", lasting=True)
        if standby:
            raise RotatorFailed("POSTGRES_STANDBY", "the server is a standby; name the primary", lasting=True)

    async def retire(self, step: Step) -> None:
        """Clear the password of the other role, whatever it was: both belong to this secret."""
        await self._alter(self._other(self._login(step.new).username), "NULL")

    async def roll_back(self, step: Step) -> None:
        login = self._login(step.new)
        if not step.old_lost:  # else `create` saw to it: a run whose old payload was lost before does not get here
            self._require_not_in_use(login.username, self._members_in_use(step))
        await self._alter(login.username, "NULL")

    # -- payloads -------------------------------------------------------------------------------------------------------

    def _members(self, payload: Secret | None) -> dict[str, Any]:
        raw = payload.expose("read the role's name and password") if payload is not None else b""
        try:
            members = orjson.loads(raw)
        except orjson.JSONDecodeError:
            members = None
        # Whose password is in use must be known, or the next one might be set on the role that clients log in as.
        if not isinstance(members, dict) or members.get("username") not in self._settings.users:
            raise RotatorFailed(
                "PAYLOAD_UNKNOWN",
                "the secret's payload must be a JSON object whose username is one of the target's users",
                lasting=True,
                untouched=True,
            )
        return members

    def _members_in_use(self, step: Step) -> dict[str, Any]:
        """Those of the payload in service; none when the secret had nothing yet."""
        if step.old_lost:
            raise RotatorFailed(
                "PAYLOAD_UNKNOWN",
                "the version in service was destroyed, and with it which role is in use; call AddSecretVersion with a payload "
                "whose username says it, and rotate again",
                lasting=True,
                untouched=True,
            )
        return self._members(step.old) if step.old is not None else {}

    def _other(self, user: str) -> str:
        first, second = self._settings.users
        return second if user == first else first

    def _login(self, payload: Secret | None) -> Login:
        members = self._members(payload)
        return Login(members["username"], Secret(str(members.get("password", "")).encode()))

    @staticmethod
    def _require_not_in_use(user: str, in_use: dict[str, Any]) -> None:
        if in_use.get("username") == user:
            raise RotatorFailed(
                "ROLE_IN_USE", "the role that clients log in as is never changed", lasting=True, untouched=True
            )

    # -- the server -----------------------------------------------------------------------------------------------------

    async def _alter(self, user: str, password: str) -> None:
        admin = await self._read_admin()
        if admin.username in self._settings.users:
            raise RotatorFailed(
                "ADMIN_IS_USER", "the role that changes passwords is one of users", lasting=True, untouched=True
            )
        async with self._connection(admin, writes=True) as connection:
            # Utility statements take no parameters.  `user` is one of the configuration's, whose pattern knows no quotes; a
            # verifier is base64.
            await connection.execute(f'ALTER ROLE "{user}" PASSWORD {password}')

    @asynccontextmanager
    async def _connection(self, login: Login, *, writes: bool = False) -> AsyncIterator[Any]:
        """A connection of a role; what goes wrong with it is a RotatorFailed.  With `writes`, to a primary only."""
        settings, connection = self._settings, None
        try:
            # Everything is said, so that nothing of the environment (PGSERVICE, PGPASSWORD, .pgpass) is asked.
            connection = await asyncpg.connect(
                host=settings.host,
                port=settings.port,
                user=login.username,
                password=login.password.expose("log in to PostgreSQL").decode("utf-8"),
                database=settings.database,
                ssl=self._tls(),
                timeout=settings.timeout_s,
                command_timeout=settings.timeout_s,
                target_session_attrs="read-write" if writes else "any",
                server_settings={"application_name": APPLICATION},
                statement_cache_size=0,
            )
            yield connection
        except RotatorFailed:
            raise
        except Exception as error:  # asyncpg has no common base: each kind is told apart below
            _explain(error, connected=connection is not None)
        finally:
            if connection is not None:
                connection.terminate()  # nothing is left to be said, and a peer that hangs is not waited for

    def _tls(self) -> ssl.SSLContext | bool:
        settings = self._settings
        if settings.tls == "disable":
            return False
        ca_file = str(settings.ca_file) if settings.ca_file is not None else None
        context = ssl.create_default_context(cafile=ca_file)
        context.check_hostname = settings.tls == "verify-full"
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        return context


def _explain(error: Exception, *, connected: bool) -> NoReturn:
    """Raise RotatorFailed in our words: the server's may quote the statement."""
    untouched = not connected
    if isinstance(error, asyncpg.PostgresError):
        state = str(error.sqlstate or "")
        reason = LASTING_STATES.get(state[:2], "POSTGRES_ERROR")
        raise RotatorFailed(
            reason,
            f"PostgreSQL answered SQLSTATE {state}; its log says more",
            lasting=state[:2] in LASTING_STATES,
            untouched=untouched,
        ) from None
    if isinstance(error, ssl.SSLError):
        raise RotatorFailed(
            "TLS_REFUSED", "the server's certificate is not one that ca_file vouches for", untouched=untouched
        ) from None
    if isinstance(error, OSError | TimeoutError | asyncpg.InterfaceError | asyncpg.InternalClientError):
        raise RotatorFailed(
            "UNREACHABLE", "PostgreSQL does not answer, or does not speak TLS", untouched=untouched
        ) from None
    raise error
