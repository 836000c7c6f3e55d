"""PKCS#11 URIs (RFC 7512), as far as they name a token, its module and its PIN."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import Final
from urllib.parse import unquote_to_bytes

_TOKEN: Final = {"token": "label", "serial": "serial", "manufacturer": "manufacturer", "model": "model"}
_QUERY: Final = {"module-path": "module", "pin-source": "pin_path"}


@dataclass(frozen=True, slots=True)
class TokenSelector:
    """Which token of which module, and where its PIN is kept.  Empty: not said."""

    module: str = ""
    label: str = ""
    serial: str = ""
    manufacturer: str = ""
    model: str = ""
    pin_path: str = ""

    def merged(self, other: TokenSelector) -> TokenSelector:
        """Both together; raises ValueError where they say different things."""
        merged = self
        for field in fields(self):
            mine, theirs = getattr(self, field.name), getattr(other, field.name)
            if mine and theirs and mine != theirs:
                raise ValueError(f"the uri and the settings beside it contradict each other: {field.name}")
            merged = replace(merged, **{field.name: mine or theirs})
        return merged


def parse_uri(uri: str) -> TokenSelector:
    """Read a URI of a token.  Raises ValueError, without quoting it, when it is not one or holds a PIN."""
    scheme, separator, rest = uri.partition(":")
    if scheme != "pkcs11" or not separator:
        raise ValueError("uri must begin with pkcs11:")
    path, _, query = rest.partition("?")
    said: dict[str, str] = {}
    for part, known, delimiter in ((path, _TOKEN, ";"), (query, _QUERY, "&")):
        for attribute in filter(None, part.split(delimiter)):
            name, separator, value = attribute.partition("=")
            if name == "pin-value":
                raise ValueError("uri must not hold a PIN: use pin, or pin-source")
            if name not in known or not separator:
                raise ValueError(f"uri may hold {', '.join([*_TOKEN, *_QUERY])} and nothing else")
            if known[name] in said:
                raise ValueError(f"uri names {name} twice")
            try:
                said[known[name]] = unquote_to_bytes(value).decode()
            except UnicodeDecodeError:
                raise ValueError(f"uri: {name} is not UTF-8") from None
    if said.get("pin_path", "").startswith("file:"):
        said["pin_path"] = said["pin_path"].removeprefix("file:").removeprefix("//")
    if said.get("pin_path", "/")[0] != "/":
        raise ValueError("uri: pin-source must be an absolute path, or file: and one")
    return TokenSelector(**said)
