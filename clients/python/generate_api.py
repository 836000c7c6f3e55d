"""Writes `vaultd_client/generated/api.json`: the RPCs of package vaultd.v1 and what their requests are made of, with the comments
of the protos, which compiled stubs do not have.  vaultctl makes its commands of it, without loading a stub before there is a
call.
"""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any

from google.protobuf.descriptor_pb2 import FieldDescriptorProto, FileDescriptorSet

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

F = FieldDescriptorProto
SCALARS = {
    F.TYPE_STRING: "string",
    F.TYPE_BYTES: "bytes",
    F.TYPE_BOOL: "bool",
    F.TYPE_DOUBLE: "double",
    F.TYPE_INT32: "int",
    F.TYPE_INT64: "int",
    F.TYPE_UINT32: "int",
    F.TYPE_UINT64: "int",
    F.TYPE_FIXED32: "int",
}
MESSAGE, ENUM, SERVICE, FIELD, VALUE, NESTED, ONEOF = 4, 5, 6, 2, 2, 3, 8
"""Numbers of what source paths lead through, in the messages of descriptor.proto."""


class Api:
    """What the descriptors say."""

    def __init__(self, files: FileDescriptorSet) -> None:
        self.messages: dict[str, Any] = {}
        self.enums: dict[str, Any] = {}
        self.methods: dict[str, Any] = {}
        for file in files.file:
            comments = {
                tuple(location.path): " ".join(location.leading_comments.split())
                for location in file.source_code_info.location
            }
            for path, message, name in _messages(file):
                self.messages[f".{file.package}.{name}"] = self._message(path, message, comments)
            for number, enum in enumerate(file.enum_type):
                self.enums[f".{file.package}.{enum.name}"] = _values(enum, (ENUM, number), comments)
            if file.package == "vaultd.v1":
                for number, service in enumerate(file.service):
                    for position, rpc in enumerate(service.method):
                        comment = comments[SERVICE, number, FIELD, position]
                        self.methods[rpc.name] = _method(service, rpc, comment)

    def _message(self, path: tuple[int, ...], message: Any, comments: dict[tuple[int, ...], str]) -> Any:
        fields = []
        for number, field in enumerate(message.field):
            if field.name.endswith("_crc32c"):
                continue  # the SDK's business
            told: dict[str, Any] = {"name": field.name, "type": self._type(field)}
            if field.label == F.LABEL_REPEATED:
                told["repeated"] = True
            if field.proto3_optional:
                told["optional"] = True
            elif field.HasField("oneof_index"):
                told["oneof"] = message.oneof_decl[field.oneof_index].name
            told["comment"] = comments.get((*path, FIELD, number), "")
            fields.append(told)
        if message.options.map_entry:
            return {"map": [field["type"] for field in fields]}
        return {"fields": fields}

    @staticmethod
    def _type(field: Any) -> str:
        if field.type in {F.TYPE_MESSAGE, F.TYPE_ENUM}:
            return str(field.type_name)
        return SCALARS[field.type]

    def document(self) -> dict[str, Any]:
        """What requests are made of, and no more."""
        messages: dict[str, Any] = {}
        enums: dict[str, Any] = {}
        waiting = [method["request"] for method in self.methods.values()]
        while waiting:
            name = waiting.pop()
            if name in messages or name in enums or not name.startswith("."):
                continue
            if name in self.enums:
                enums[name] = self.enums[name]
            elif name.startswith(".vaultd.v1."):
                messages[name] = self.messages[name]
                fields = self.messages[name].get("fields", ())
                waiting += [field["type"] for field in fields] + self.messages[name].get("map", [])
        return {
            "methods": self.methods,
            "messages": dict(sorted(messages.items())),
            "enums": dict(sorted(enums.items())),
        }


def _method(service: Any, rpc: Any, comment: str) -> dict[str, Any]:
    told = {
        "path": f"/vaultd.v1.{service.name}/{rpc.name}",
        "snake": re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", rpc.name).lower(),
        "request": rpc.input_type,
        "response": rpc.output_type,
        "comment": comment,
    }
    if rpc.client_streaming:
        told["client_streaming"] = True
    if rpc.server_streaming:
        told["server_streaming"] = True
    return told


def _values(enum: Any, path: tuple[int, ...], comments: dict[tuple[int, ...], str]) -> dict[str, Any]:
    prefix = enum.value[0].name.removesuffix("UNSPECIFIED")
    named = [
        (one.name.removeprefix(prefix), comments.get((*path, VALUE, number), ""))
        for number, one in enumerate(enum.value)
    ]
    return {"prefix": prefix, "values": dict(named[1:])}


def _messages(file: Any) -> Iterator[tuple[tuple[int, ...], Any, str]]:
    def walk(path: tuple[int, ...], message: Any, name: str) -> Iterator[tuple[tuple[int, ...], Any, str]]:
        yield path, message, name
        for number, nested in enumerate(message.nested_type):
            yield from walk((*path, NESTED, number), nested, f"{name}.{nested.name}")

    for number, message in enumerate(file.message_type):
        yield from walk((MESSAGE, number), message, message.name)


def write(descriptors: bytes, into: Path) -> None:
    """Write the description into a directory."""
    document = Api(FileDescriptorSet.FromString(descriptors)).document()
    (into / "api.json").write_text(json.dumps(document, indent=1, ensure_ascii=False) + "\n")
