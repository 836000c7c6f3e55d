"""Keeps the keys of token issuers: from a file, from a URL, or from where the issuer's discovery document says.

Nothing here is on the path of a call but `refresh`, which a call with an unknown key may wait for: one fetch for all that wait,
at most one in `min_refresh_s`, and no more than MAX_WAITING at once.
"""

from __future__ import annotations

import asyncio
import math
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import orjson
import structlog

from vaultd.errors import VaultdError
from vaultd.hosts.https import FetchError, FetchLimits, check_url, client_context, get_json
from vaultd.interceptors.jose import MAX_JWKS_BYTES, JwksError, parse_jwks

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from vaultd.engine.clock import Clock
    from vaultd.interceptors.issuers import Issuer
    from vaultd.interceptors.jose import VerificationKey

MAX_WAITING: Final = 64
MAX_CREDENTIAL_BYTES: Final = 16 * 1024
WELL_KNOWN: Final = "/.well-known/openid-configuration"
_log = structlog.get_logger("vaultd")


@dataclass(frozen=True, slots=True)
class KeysLocation:
    """Where an issuer's keys are: exactly one of `file`, `url`, and discovery at the issuer when neither is set."""

    file: Path | None = None
    url: str = ""
    ca_file: Path | None = None
    token_file: Path | None = None
    allow_http: bool = False
    refresh_s: float = 300.0
    min_refresh_s: float = 10.0
    stale_s: float = 3_600.0
    timeout_s: float = 5.0


class IssuerKeys:
    """Loads an issuer's keys and keeps them fresh; `on_change` hears whether the issuer has keys that can be used."""

    def __init__(
        self, issuer: Issuer, location: KeysLocation, clock: Clock, on_change: Callable[[str, bool], None]
    ) -> None:
        self._issuer = issuer
        self._location = location
        self._clock = clock
        self._on_change = on_change
        self._task: asyncio.Task[None] | None = None
        self._waiting = 0
        self._attempted_s = -math.inf
        self._loaded_s = -math.inf
        self._stamp: object = None
        self._closed = False
        if location.file is None:
            issuer.source = self

    # -- when -----------------------------------------------------------------------------------------------------------

    async def tick(self) -> None:
        """Start what is due, without waiting for it, and drop keys that are too old.  Called about twice a second."""
        now_s = self._clock.monotonic_s()
        if self._location.file is not None:
            await self._follow_file(self._location.file)
        else:
            due_s = self._loaded_s + self._location.refresh_s
            if now_s >= due_s and now_s - self._attempted_s >= self._location.min_refresh_s:
                self._start(now_s)
            if self._issuer.keys and now_s - self._loaded_s >= self._location.stale_s:
                self._issuer.put({})
                _log.error(
                    "issuer_keys_stale", issuer=self._issuer.rules.id, advice="its tokens are refused until they load"
                )
        self._on_change(self._issuer.rules.id, bool(self._issuer.keys))

    async def refresh(self) -> bool:
        """Wait for one attempt to get the keys, where one may be made now; False where it may not."""
        now_s = self._clock.monotonic_s()
        if self._waiting >= MAX_WAITING:
            return False
        if self._task is None:
            if self._closed or now_s - self._attempted_s < self._location.min_refresh_s:
                return False
            self._start(now_s)
        self._waiting += 1
        try:
            if self._task is not None:
                await asyncio.wait([self._task], timeout=self._location.timeout_s)
        finally:
            self._waiting -= 1
        return True

    def _start(self, now_s: float) -> None:
        if self._task is None and not self._closed:
            self._attempted_s = now_s
            self._task = asyncio.get_running_loop().create_task(self._load())
            self._task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._task = None
        if not task.cancelled() and task.exception() is not None:
            _log.error("incident", incident="issuer keys", exc_info=task.exception())

    async def close(self) -> None:
        """End a fetch that is under way."""
        self._closed = True
        if self._task is not None:
            self._task.cancel()
            with suppress(asyncio.CancelledError):
                await self._task

    # -- what -----------------------------------------------------------------------------------------------------------

    async def _load(self) -> None:
        rules = self._issuer.rules
        try:
            keys = parse_jwks(await self._fetch(), rules.algorithms)
        except (FetchError, JwksError) as error:
            _log.warning("issuer_keys_failed", issuer=rules.id, problem=str(error))
            return
        self._loaded_s = self._clock.monotonic_s()
        try:
            self._take(keys)
        except VaultdError as error:  # the keys are in force; that they are is said again by the next tick
            _log.warning("background_failed", reason=error.reason)

    def _take(self, keys: dict[str, VerificationKey]) -> None:
        before = set(self._issuer.keys)
        self._issuer.put(keys)
        if before != set(keys):
            _log.info("issuer_keys", issuer=self._issuer.rules.id, keys=len(keys))
        self._on_change(self._issuer.rules.id, True)

    async def _fetch(self) -> bytes:
        location = self._location
        limits = FetchLimits(location.timeout_s, MAX_JWKS_BYTES)
        bearer = "" if location.token_file is None else await asyncio.to_thread(_read_credential, location.token_file)

        def context() -> Any:
            return client_context(location.ca_file)

        if location.url:
            return await get_json(location.url, context, limits, bearer)
        issuer = self._issuer.rules.issuer
        found = await get_json(issuer.rstrip("/") + WELL_KNOWN, context, limits)
        return await get_json(_jwks_uri(found, issuer, allow_http=location.allow_http), context, limits)

    async def _follow_file(self, file: Path) -> None:
        stamp = _stamp(file)
        if stamp == self._stamp:
            return
        self._stamp = stamp
        try:
            content = await asyncio.to_thread(_read_bounded, file, MAX_JWKS_BYTES + 1)
            self._take(parse_jwks(content, self._issuer.rules.algorithms))
        except OSError:
            _log.error("issuer_keys_failed", issuer=self._issuer.rules.id, problem="the file cannot be read")
        except JwksError as error:
            _log.error("issuer_keys_failed", issuer=self._issuer.rules.id, problem=str(error))


def _jwks_uri(document: bytes, issuer: str, *, allow_http: bool) -> str:
    """Where a discovery document says that the keys are; raises FetchError."""
    try:
        values = orjson.loads(document)
    except orjson.JSONDecodeError:
        raise FetchError("the discovery document is not JSON") from None
    if not isinstance(values, dict) or values.get("issuer") != issuer:
        raise FetchError("the discovery document is of another issuer")
    uri = values.get("jwks_uri")
    try:
        if not isinstance(uri, str):
            raise ValueError("it is missing")
        check_url(uri, allow_http=allow_http)
    except ValueError as error:
        raise FetchError(f"jwks_uri of the discovery document: {error}") from None
    return uri


def _stamp(file: Path) -> object:
    try:
        stat = file.stat()
    except OSError:
        return "missing"
    return stat.st_mtime_ns, stat.st_ino, stat.st_size


def _read_bounded(file: Path, most: int) -> bytes:
    with file.open("rb") as stream:
        return stream.read(most)


def _read_credential(file: Path) -> str:
    try:
        text = _read_bounded(file, MAX_CREDENTIAL_BYTES).decode("ascii").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise FetchError("the token file cannot be read") from error
    if not text.isprintable() or " " in text:
        raise FetchError("the token file does not hold a token")
    return text
