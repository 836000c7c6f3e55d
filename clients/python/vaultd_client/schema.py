"""Checks documents against the JSON schemas of this package, and reads YAML without its surprises.

The part of JSON Schema that those two files use, and no more: an unknown keyword is a fault of the schema.
"""

from __future__ import annotations

import json
import re
from importlib.resources import files
from typing import Any, Final

import yaml

_TYPES: Final[dict[str, type]] = {"object": dict, "array": list, "string": str}
_NOTES: Final = {"$schema", "$defs", "title", "description"}


class DocumentInvalid(Exception):
    """A document does not fit its schema; the text begins with the path of the fault."""


class _Loader(yaml.SafeLoader):
    """SafeLoader that refuses a key that is given twice, and leaves times as they are written."""


def _mapping(loader: _Loader, node: yaml.MappingNode) -> dict[Any, Any]:
    keys = [loader.construct_object(key) for key, _ in node.value]
    if len(set(map(str, keys))) != len(keys):
        raise DocumentInvalid(f"line {node.start_mark.line + 1}: a key is given twice")
    return dict(zip(keys, (loader.construct_object(value, deep=True) for _, value in node.value), strict=True))


def _as_text(loader: _Loader, node: yaml.ScalarNode) -> str:
    del loader
    return str(node.value)


_Loader.add_constructor(yaml.resolver.BaseResolver.DEFAULT_MAPPING_TAG, _mapping)
_Loader.add_constructor("tag:yaml.org,2002:timestamp", _as_text)


def load_yaml(text: str) -> object:
    """Read a YAML document; raises DocumentInvalid."""
    try:
        return yaml.load(text, Loader=_Loader)  # noqa: S506  # a SafeLoader
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f"line {mark.line + 1}: " if mark is not None else ""
        raise DocumentInvalid(f"{where}this is no YAML: {getattr(error, 'problem', error)}") from None


def load_schema(name: str) -> dict[str, Any]:
    """Read a schema of this package: `policy` or `policy-test`."""
    text = (files("vaultd_client") / "schemas" / f"{name}.schema.json").read_text(encoding="utf-8")
    schema: dict[str, Any] = json.loads(text)
    return schema


def check(value: object, schema: dict[str, Any], root: dict[str, Any], path: str = "") -> None:
    """Raise DocumentInvalid unless a value fits."""
    at = path or "the document"
    for keyword, wanted in schema.items():
        if keyword in _NOTES:
            continue
        if keyword == "$ref":
            check(value, root["$defs"][wanted.rpartition("/")[2]], root, path)
        elif keyword == "type":
            if not isinstance(value, _TYPES[wanted]):
                raise DocumentInvalid(f"{at} must be {_article(wanted)}{_hint(wanted)}")
        elif keyword == "enum":
            if value not in wanted:
                raise DocumentInvalid(f"{at} must be {' or '.join(wanted)}")
        elif keyword == "required":
            for key in wanted:
                if isinstance(value, dict) and key not in value:
                    raise DocumentInvalid(f"{at} lacks `{key}`")
        elif keyword in {"minItems", "minLength"}:
            if isinstance(value, list | str) and len(value) < wanted:
                raise DocumentInvalid(f"{at} is empty")
        elif keyword == "maxLength":
            if isinstance(value, str) and len(value) > wanted:
                raise DocumentInvalid(f"{at} may be at most {wanted} characters")
        elif keyword == "pattern":
            if isinstance(value, str) and not re.search(wanted.replace("$", r"\Z"), value):
                raise DocumentInvalid(f"{at} must match {wanted}")
        elif keyword == "items":
            for index, item in enumerate(value if isinstance(value, list) else ()):
                check(item, wanted, root, f"{path}[{index}]")
        elif keyword in {"properties", "additionalProperties"}:
            if keyword == "properties" and isinstance(value, dict):
                _check_properties(value, schema, root, path)
            elif keyword == "additionalProperties" and "properties" not in schema and isinstance(value, dict):
                for key, item in value.items():
                    check(item, wanted, root, f"{path}.{key}".lstrip("."))
        else:
            raise AssertionError(f"the schema has a keyword that is not known here: {keyword}")


def _check_properties(value: dict[str, Any], schema: dict[str, Any], root: dict[str, Any], path: str) -> None:
    known = schema["properties"]
    for key, item in value.items():
        if key not in known:
            raise DocumentInvalid(f"{path or 'the document'} has `{key}`, which is not one of {', '.join(known)}")
        check(item, known[key], root, f"{path}.{key}".lstrip("."))


def _article(kind: str) -> str:
    return {"object": "a mapping", "array": "a list", "string": "text"}[kind]


def _hint(kind: str) -> str:
    return "; quote what YAML reads as a number or true" if kind == "string" else ""
