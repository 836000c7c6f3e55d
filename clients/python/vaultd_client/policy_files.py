"""Policies and their tests as files."""

from __future__ import annotations

import difflib
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import yaml

from vaultd_client.schema import DocumentInvalid, check, load_schema, load_yaml
from vaultd_client.v1 import policy_pb2 as pb

if TYPE_CHECKING:
    from pathlib import Path

SECTIONS: Final = ("roles", "groups", "bindings", "denies")


@dataclass(frozen=True, slots=True)
class PolicyTest:
    """One expectation, and where it is written."""

    name: str
    request: pb.TestPolicyRequest
    allow: bool


def read_policy(path: Path) -> pb.Policy:
    """Read a policy file; raises DocumentInvalid."""
    document = _read(path, "policy")
    return pb.Policy(
        roles=[pb.Role(**role) for role in document.get("roles", [])],
        groups=[pb.Group(**group) for group in document.get("groups", [])],
        bindings=[pb.Binding(**binding) for binding in document.get("bindings", [])],
        denies=[pb.Deny(**deny) for deny in document.get("denies", [])],
    )


def _read(path: Path, schema_name: str) -> dict[str, Any]:
    try:
        document = load_yaml(path.read_text(encoding="utf-8"))
        schema = load_schema(schema_name)
        check(document, schema, schema)
    except UnicodeDecodeError:
        raise DocumentInvalid(f"{path}: this is no UTF-8") from None
    except DocumentInvalid as error:
        raise DocumentInvalid(f"{path}: {error}") from None
    assert isinstance(document, dict)  # noqa: S101  # the schema says so
    return document


def dump_policy(policy: pb.Policy) -> str:
    """A policy as the YAML that `read_policy` reads; the same policy is always the same text."""
    document: dict[str, list[dict[str, Any]]] = {}
    for section in SECTIONS:
        entries = [_entry(entry) for entry in getattr(policy, section)]
        if entries:
            document[section] = entries
    return yaml.safe_dump(document, sort_keys=False, allow_unicode=True, width=1_000) if document else "{}\n"


def _entry(message: Any) -> dict[str, Any]:
    values: dict[str, Any] = {}
    for field in message.DESCRIPTOR.fields:
        value = getattr(message, field.name)
        if not isinstance(value, str):
            values[field.name] = list(value)
        elif value or field.name != "condition":
            values[field.name] = value
    return values


def diff_policies(server: pb.Policy, file: pb.Policy, resource: str, path: Path) -> str:
    """What applying the file would change, as a unified diff; empty when nothing would."""
    lines = difflib.unified_diff(
        dump_policy(server).splitlines(keepends=True),
        dump_policy(file).splitlines(keepends=True),
        f"server {resource}",
        str(path),
    )
    return "".join(lines)


def read_tests(path: Path) -> list[PolicyTest]:
    """Read a file of tests, and the policy that it names; raises DocumentInvalid."""
    document = _read(path, "policy-test")
    candidate = read_policy(path.parent / document["policy"]) if "policy" in document else None
    tests = []
    for index, entry in enumerate(document["tests"]):
        given = entry["given"]
        if ("call" in given) == ("permission" in given):
            raise DocumentInvalid(f"{path}: tests[{index}].given needs either `call` or `permission`")
        request = pb.TestPolicyRequest(
            resource=given["resource"],
            principal=given["identity"],
            permissions=[given["permission"]] if "permission" in given else [],
            circumstances=pb.Circumstances(
                method=given.get("call", ""),
                claims=json.dumps(given["claims"]) if "claims" in given else "",
                labels=given.get("labels", {}),
            ),
        )
        if "time" in given:
            try:
                request.circumstances.time.FromJsonString(given["time"])
            except ValueError:
                raise DocumentInvalid(f"{path}: tests[{index}].given.time is no time") from None
        if candidate is not None:
            request.policy.CopyFrom(candidate)
            request.policy_resource = document.get("resource", "/")
        what = given.get("call") or given["permission"]
        name = entry.get("name") or f"{given['identity']} {what} {given['resource']}"
        tests.append(PolicyTest(name, request, entry["expect"] == "allow"))
    return tests
