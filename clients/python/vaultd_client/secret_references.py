"""Names of secrets in configuration: `vaultd://vaults/VAULT/secrets/SECRET`, and the values that they stand for."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Self

from vaultd_client.errors import VaultdError, error_of_status
from vaultd_client.generated.table import ACCESS_SECRET_VERSION
from vaultd_client.info import CallInfo

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from vaultd_client.sync import Client

SCHEME: Final = "vaultd://"
_NAME: Final = re.compile(
    r"(vaults/[a-z0-9-]{1,63}/secrets/[a-z0-9-]{1,63}(?:/versions/[a-z0-9-]{1,63})?)(?:#(.+))?", re.DOTALL
)
_TOO_LARGE: Final = "ANSWER_TOO_LARGE"


class ReferenceInvalid(ValueError):
    """It is no reference to a secret, or the secret has not what it asks for; the text says what to write."""


@dataclass(frozen=True, slots=True)
class SecretReference:
    """A secret, or one of its versions; and perhaps a member of the JSON object that it is."""

    name: str
    member: str = ""

    @classmethod
    def parse(cls, text: str) -> Self:
        """Of `vaults/VAULT/secrets/SECRET`, perhaps with `/versions/N` or an alias, with `#MEMBER`, with `vaultd://` before it.

        Raises ReferenceInvalid.
        """
        found = _NAME.fullmatch(text.removeprefix(SCHEME))
        if found is None:
            raise ReferenceInvalid(
                f"a reference is {SCHEME}vaults/VAULT/secrets/SECRET, perhaps with /versions/N or an alias, "
                "and #MEMBER of a JSON object"
            )
        return cls(found[1], found[2] or "")

    def __str__(self) -> str:
        return f"{self.name}#{self.member}" if self.member else self.name

    def value_of(self, payload: bytes) -> bytes:
        """The payload, or the member of it: a string as it is, anything else as JSON.  Raises ReferenceInvalid."""
        if not self.member:
            return payload
        value = _member(payload, self.member)
        if value is None:
            raise ReferenceInvalid(f"{self.name} is no JSON object with a member {self.member!r}")
        return (value if isinstance(value, str) else json.dumps(value)).encode()


def _member(payload: bytes, member: str) -> Any:
    # An error raised here would carry the payload, even as the context of another.
    try:
        return json.loads(payload)[member]
    except (ValueError, TypeError, LookupError):
        return None


def access_secrets(vault: Client, names: Iterable[str]) -> dict[str, bytes | VaultdError]:
    """The payload of each secret, or why it was refused, in one call; what did not fit into its answer is asked for again.

    Raises VaultdError when the call as a whole failed.
    """
    asked = list(dict.fromkeys(names))
    if not asked:
        return {}
    info = CallInfo()
    answer = vault.batch_access_secret_versions([{"name": name} for name in asked], info=info)
    payloads: dict[str, bytes | VaultdError] = {}
    for name, outcome in zip(asked, answer.results, strict=True):
        if outcome.HasField("result"):
            payloads[name] = outcome.result.payload
            continue
        error = error_of_status(outcome.status, ACCESS_SECRET_VERSION.path, info.request_id)
        payloads[name] = vault.access_secret_version(name).payload if error.reason == _TOO_LARGE else error
    return payloads


def resolve(vault: Client, references: Iterable[SecretReference]) -> Mapping[SecretReference, bytes | Exception]:
    """The value of each reference, or the VaultdError or ReferenceInvalid that keeps it from having one.

    One call for all.  Raises VaultdError when that failed as a whole.
    """
    wanted = list(dict.fromkeys(references))
    payloads = access_secrets(vault, (reference.name for reference in wanted))
    values: dict[SecretReference, bytes | Exception] = {}
    for reference in wanted:
        payload = payloads[reference.name]
        try:
            values[reference] = payload if isinstance(payload, VaultdError) else reference.value_of(payload)
        except ReferenceInvalid as error:
            values[reference] = error
    return values
