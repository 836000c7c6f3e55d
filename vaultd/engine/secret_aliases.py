"""What names the versions of a secret, and which are kept: `latest`, `current`, `previous`, and names of the caller's own."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Final

from vaultd.errors import FailedPrecondition, InvalidArgument, NotFound

if TYPE_CHECKING:
    from collections.abc import Sequence

    from vaultd.engine.model import StoredSecret
    from vaultd.names import SecretRef

LATEST: Final = "latest"
CURRENT: Final = "current"
PREVIOUS: Final = "previous"
DEFAULT_KEPT: Final = 100
MAX_KEPT: Final = 256
MAX_ALIASES: Final = 32


def secret_version_not_found() -> NotFound:
    """The error for a version or an alias that is not there."""
    return NotFound(
        "SECRET_VERSION_NOT_FOUND",
        "no such version or alias; GetSecret shows the aliases of a secret, ListSecretVersions its versions",
    )


def number_of(secret: StoredSecret, ref: SecretRef) -> int:
    """The number of the version that a name means, `current` for a bare name; raises NotFound."""
    alias = ref.alias or CURRENT
    if ref.version:
        return ref.version
    own = {LATEST: secret.latest, CURRENT: secret.current, PREVIOUS: secret.previous}
    number = own[alias] if alias in own else secret.aliases.get(alias, 0)
    if not number:
        raise secret_version_not_found()
    return number


def moved_to(secret: StoredSecret, number: int) -> StoredSecret:
    """The secret with another version in service."""
    if secret.current == number:
        return secret
    return replace(secret, current=number, previous=secret.current)


def require_movable(alias: str) -> None:
    """Raise InvalidArgument for an alias that follows by itself."""
    if alias in {LATEST, PREVIOUS}:
        raise InvalidArgument(
            "ALIAS_RESERVED",
            "`latest` and `previous` follow by themselves; set `current`, or a name of your own",
            field="alias",
        )


def named(secret: StoredSecret, alias: str, number: int) -> StoredSecret:
    """The secret with an alias that names a version; raises FailedPrecondition for one alias too many."""
    if alias == CURRENT:
        return moved_to(secret, number)
    aliases = {**secret.aliases, alias: number}
    if len(aliases) > MAX_ALIASES:
        raise FailedPrecondition(
            "TOO_MANY_ALIASES",
            f"a secret has at most {MAX_ALIASES} aliases; remove one with SetAlias without a version",
        )
    return replace(secret, aliases=aliases)


def sorted_out(secret: StoredSecret, now_us: int) -> tuple[StoredSecret, list[int]]:
    """The secret with its books in order, and the numbers of the versions that it no longer keeps."""
    named = {secret.latest, secret.current, secret.previous, *secret.aliases.values()}
    live = tuple((number, 0 if number in named else since_us or now_us) for number, since_us in secret.live)
    kept = secret.keep_versions or DEFAULT_KEPT
    surplus = [number for number, since_us in live[:-kept] if since_us]
    return without(replace(secret, live=live), surplus), surplus


def without(secret: StoredSecret, numbers: Sequence[int]) -> StoredSecret:
    """The secret whose books have these versions no more."""
    if not numbers:
        return secret
    gone = set(numbers)
    return replace(secret, live=tuple(entry for entry in secret.live if entry[0] not in gone))
