"""A source of pydantic-settings: fields that are secrets of a vault."""

from __future__ import annotations

import json
import types
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Union, get_args, get_origin

from pydantic import AliasChoices, BaseModel, SecretBytes, SecretStr
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsError

from vaultd_client.errors import ConfigurationError, VaultdError
from vaultd_client.secret_references import ReferenceInvalid, SecretReference, resolve
from vaultd_client.sync import Client

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from pydantic.fields import FieldInfo

Path = tuple[str, ...]
_MASKED: Final = (SecretStr, SecretBytes)


@dataclass(frozen=True, slots=True)
class VaultdSecret:
    """The mark of a field: which secret it is.  `password: Annotated[SecretStr, VaultdSecret("orders-db#password")]`

    The id of a secret in the vault of the source, or a full name; either with `/versions/N` or an alias, and with `#MEMBER` of a
    payload that is a JSON object.
    """

    secret: str


@dataclass(frozen=True, slots=True)
class _Wanted:
    path: Path
    """Keys of the values, from the outermost model on."""
    field: FieldInfo
    reference: SecretReference

    @property
    def label(self) -> str:
        return f"{'.'.join(self.path)} ({self.reference})"


class VaultdSettingsSource(PydanticBaseSettingsSource):
    """Fills the fields that are marked with VaultdSecret, or that `secrets` names, in models within models, too.

    It asks for nothing that a source before it in the order has given, for all the rest in one call, and for nothing at all when
    nothing is missing.  SettingsError names each field and secret that failed, and has no value in it.
    """

    def __init__(
        self,
        settings_cls: type[BaseSettings],
        client: Client | None = None,
        *,
        vault: str = "vaults/default",
        secrets: Mapping[str, str] | None = None,
    ) -> None:
        """client: Client.from_env() by default, made when it is needed and closed again.  vault: that of secrets without a full
        name.  secrets: by field, `database.password` within models.  Raises ValueError for what names no secret or no field.
        """
        super().__init__(settings_cls)
        self._client = client
        self._vault = vault
        left = dict(secrets or {})
        self._wanted = list(self._find((settings_cls,), (), (), left))
        if left:
            raise ValueError(f"{settings_cls.__name__} has no field {', '.join(left)}")

    def get_field_value(self, field: FieldInfo, field_name: str) -> tuple[Any, str, bool]:
        """Required by pydantic-settings; fields are not asked for one by one."""
        return None, field_name, False

    def __call__(self) -> dict[str, Any]:
        """The values, by the keys of the model.  Raises SettingsError."""
        missing = [one for one in self._wanted if not _given(self.current_state, one)]
        found: dict[str, Any] = {}
        problems = []
        values = self._resolve(missing) if missing else {}
        for one in missing:
            try:
                value = values[one.reference]
                if isinstance(value, Exception):
                    raise value
                inner = found
                for key in one.path[:-1]:
                    inner = inner.setdefault(key, {})
                inner[one.path[-1]] = self._typed(one.field, value)
            except (VaultdError, ReferenceInvalid) as error:
                problems.append(f"{one.label}: {error}")
        if problems:
            raise SettingsError("; ".join(problems))
        return found

    def _resolve(self, missing: list[_Wanted]) -> Mapping[SecretReference, bytes | Exception]:
        references = (one.reference for one in missing)
        try:
            if self._client is not None:
                return resolve(self._client, references)
            with Client.from_env() as client:
                return resolve(client, references)
        except (VaultdError, ConfigurationError) as error:
            labels = ", ".join(one.label for one in missing)
            raise SettingsError(f"no secrets for {labels}: {error}") from error

    def _find(
        self, models: tuple[type[BaseModel], ...], path: Path, names: Path, left: dict[str, str]
    ) -> Iterator[_Wanted]:
        """What is wanted of the last of the models, which are those on the path: one that is in itself has no end."""
        models[-1].model_rebuild(raise_errors=False)  # a model that it names may have been defined later
        for name, field in models[-1].model_fields.items():
            here, dotted = (*path, _key_of(name, field)), (*names, name)
            marks = [mark.secret for mark in field.metadata if isinstance(mark, VaultdSecret)]
            secret = left.pop(".".join(dotted), None) or next(iter(marks), None)
            kinds = set(_types_in(field.annotation))
            if secret is not None:
                full = secret if "vaults/" in secret else f"{self._vault}/secrets/{secret}"
                if not kinds.intersection(_MASKED) and not self.config.get("hide_input_in_errors"):
                    raise ValueError(
                        f"{'.'.join(dotted)} would be shown in errors of validation: make it a SecretStr or SecretBytes, or set "
                        "hide_input_in_errors in model_config"
                    )
                yield _Wanted(here, field, SecretReference.parse(full))
                continue
            for kind in kinds:
                if isinstance(kind, type) and issubclass(kind, BaseModel) and kind not in models:
                    yield from self._find((*models, kind), here, dotted, left)

    def _typed(self, field: FieldInfo, value: bytes) -> Any:
        kinds = set(_types_in(field.annotation))
        if SecretBytes in kinds:
            return SecretBytes(value)
        if bytes in kinds:
            return value
        try:
            text = value.decode()
            if SecretStr in kinds:
                return SecretStr(text)
            return json.loads(text) if self.field_is_complex(field) else text
        except ValueError:
            pass  # it carries the value, even as the context of another error
        wanted = "JSON" if self.field_is_complex(field) else "text (UTF-8); bytes and SecretBytes take any"
        raise ReferenceInvalid(f"its value is no {wanted}")


def _types_in(annotation: Any) -> Iterator[Any]:
    """The types that a field may be of: the members of a union, of which None is none."""
    if get_origin(annotation) in (Union, types.UnionType):
        for member in get_args(annotation):
            yield from _types_in(member)
    elif annotation is not type(None):
        yield annotation


def _key_of(name: str, field: FieldInfo) -> str:
    """What the model takes the field's value by."""
    alias = field.validation_alias
    if isinstance(alias, AliasChoices):
        alias = next((choice for choice in alias.choices if isinstance(choice, str)), None)
    return alias if isinstance(alias, str) else name


def _given(state: Any, wanted: _Wanted) -> bool:
    """Whether a source before ours has given the value."""
    for key in wanted.path:
        if isinstance(state, BaseModel):
            state = state.model_dump(exclude_unset=True)
        if not isinstance(state, dict) or key not in state:
            return False
        state = state[key]
    return True
