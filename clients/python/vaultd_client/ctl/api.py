"""The RPCs, and what their requests are made of: generated/api.json, read without a stub being loaded."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping


@dataclass(frozen=True, slots=True)
class Field:
    """A field of a message."""

    name: str
    type: str
    comment: str
    repeated: bool = False
    optional: bool = False
    oneof: str = ""

    @property
    def is_required(self) -> bool:
        return self.comment.startswith(("Required.", "Required,"))

    @property
    def is_output(self) -> bool:
        """Whether the server alone sets it.  `Output only unless ...` is a field that callers may set, too."""
        return self.comment.startswith("Output only") and not self.comment.startswith("Output only unless")


@dataclass(frozen=True, slots=True)
class Rpc:
    """An RPC.  snake: the name of the SDK's method."""

    name: str
    path: str
    snake: str
    request: str
    response: str
    comment: str
    client_streaming: bool = False
    server_streaming: bool = False


@cache
def _document() -> Mapping[str, Any]:
    text = (files("vaultd_client") / "generated" / "api.json").read_text(encoding="utf-8")
    document: Mapping[str, Any] = json.loads(text)
    return document


def rpc_names() -> list[str]:
    """Names of all RPCs."""
    return list(_document()["methods"])


def rpc_of(name: str) -> Rpc:
    """An RPC by its name.  Raises KeyError."""
    return Rpc(name, **_document()["methods"][name])


def fields_of(message: str) -> list[Field]:
    """The fields of a message, by its full name with the leading dot."""
    return [Field(**field) for field in _document()["messages"][message]["fields"]]


def is_message(type_name: str) -> bool:
    """Whether a type is a message of vaultd's own, and no map."""
    return "fields" in _document()["messages"].get(type_name, ())


def is_map(type_name: str) -> bool:
    return "map" in _document()["messages"].get(type_name, ())


def enum_of(type_name: str) -> tuple[str, list[str]] | None:
    """What the names of an enum's values begin with, and the rest of each but the unspecified one; None for no enum."""
    found = _document()["enums"].get(type_name)
    return None if found is None else (found["prefix"], list(found["values"]))
