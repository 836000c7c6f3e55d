"""Writes the SDK's methods, its table of RPCs and its service config from the descriptors of `protos/vaultd/v1`.

A new RPC needs nothing here.  What the generator reads off the protos: a field whose comment begins `Required.` or `Required,` is
an argument without a default; `X_crc32c` is the checksum of X and no argument; an RPC named `BatchX` or `BatchXs` whose request
is a list `items` of X's requests, and whose results hold X's answers, is the batch of X; an RPC may be repeated as it is when its
comment says `Idempotent` or `safe to repeat`, and with a request id when its request has one; and an RPC named `ListX` with
`page_token`, `next_page_token` and one list in its answer is a list of many pages, over which `iter_x` goes.
"""

from __future__ import annotations

import json
import keyword
import re
import subprocess
import sys
import textwrap
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from google.protobuf.descriptor_pb2 import FieldDescriptorProto, FileDescriptorSet

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

F = FieldDescriptorProto
SCALARS = {
    F.TYPE_STRING: ("str", '""'),
    F.TYPE_BYTES: ("bytes", 'b""'),
    F.TYPE_BOOL: ("bool", "False"),
    F.TYPE_DOUBLE: ("float", "0.0"),
    F.TYPE_FLOAT: ("float", "0.0"),
}
INTEGER = ("int", "0")
WELL_KNOWN = {
    ".google.protobuf.Timestamp": "datetime.datetime | timestamp_pb2.Timestamp",
    ".google.protobuf.Duration": "datetime.timedelta | duration_pb2.Duration",
}
PACKAGES = {"vaultd.v1": "vaultd_client.v1", "google.protobuf": "google.protobuf", "google.rpc": "google.rpc"}
RESERVED = {"close", "from_env", "reencrypt", "self", "timeout_s", "info", "requests", *keyword.kwlist}
"""Names that clients and methods have already."""
TIMEOUTS_S = {"CryptoService": "10s"}
"""Others make keys, or write: 30 s, which is also the server's own bound."""
RETRY_POLICY = {
    "maxAttempts": 5,
    "initialBackoff": "0.1s",
    "maxBackoff": "1s",
    "backoffMultiplier": 2,
    "retryableStatusCodes": ["UNAVAILABLE"],
}
RETRY_THROTTLING = {"maxTokens": 100, "tokenRatio": 0.1}


@dataclass(frozen=True)
class Parameter:
    """An argument of a method: a field of its request."""

    name: str
    type: str
    default: str  # "" where there is none
    required: bool
    alternative: bool  # one of a oneof, of which exactly one must be given


@dataclass
class Rpc:
    """One RPC, as the templates need it."""

    service: str
    name: str
    comment: str
    request: str
    response: str
    client_streaming: bool
    server_streaming: bool
    parameters: list[Parameter] = field(default_factory=list)
    has_request_id: bool = False
    checksums: list[tuple[str, list[str]]] = field(default_factory=list)
    answer_checksums: list[tuple[str, list[str]]] = field(default_factory=list)
    single: Rpc | None = None
    batch: Rpc | None = None
    rows: tuple[str, str] | None = None  # of a list of many pages: the field of its rows, and their message

    @property
    def snake(self) -> str:
        return re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", self.name).lower()

    @property
    def iterator(self) -> str:
        """The name of the method that goes over all pages."""
        return f"iter_{self.snake.removeprefix('list_')}"

    @property
    def constant(self) -> str:
        return self.snake.upper()

    @property
    def path(self) -> str:
        return f"/vaultd.v1.{self.service}/{self.name}"

    @property
    def repeatable(self) -> bool:
        """Whether a repeat does no harm, without a request id."""
        if self.client_streaming or self.server_streaming:
            return False
        mended = re.search(r"Idempotent with request_id|Not idempotent without request_id", self.comment)
        return not mended and bool(re.search(r"\bIdempotent\b|[Ss]afe to repeat", self.comment))


class Protos:
    """What the descriptors say."""

    def __init__(self, files: FileDescriptorSet) -> None:
        self._modules: dict[str, str] = {}
        self.packages: dict[str, str] = {}
        self._messages: dict[str, Any] = {}
        self._comments: dict[str, str] = {}
        self.rpcs: list[Rpc] = []
        for file in files.file:
            module = file.name.removesuffix(".proto").split("/")[-1] + "_pb2"
            self.packages[module] = PACKAGES[file.package]
            for path, message, names in _messages(file):
                full = f".{file.package}.{'.'.join(names)}"
                self._messages[full] = message
                self._modules[full] = f"{module}.{'.'.join(names)}"
                self._read_comments(file, path, full)
            for enum in file.enum_type:
                self._modules[f".{file.package}.{enum.name}"] = f"{module}.{enum.name}"
        for file in files.file:
            if file.package == "vaultd.v1":
                self._add_services(file)
        self._find_batches()

    def _read_comments(self, file: Any, path: tuple[int, ...], full: str) -> None:
        for location in file.source_code_info.location:
            where = tuple(location.path)
            if where[: len(path)] == path and len(where) == len(path) + 2:
                kind, number = where[len(path) :]
                self._comments[f"{full}/{kind}/{number}"] = " ".join(location.leading_comments.split())

    def _add_services(self, file: Any) -> None:
        comments = {tuple(one.path): one.leading_comments for one in file.source_code_info.location}
        for at, service in enumerate(file.service):
            for number, method in enumerate(service.method):
                rpc = Rpc(
                    service=service.name,
                    name=method.name,
                    comment=" ".join(comments[(6, at, 2, number)].split()),
                    request=method.input_type,
                    response=method.output_type,
                    client_streaming=method.client_streaming,
                    server_streaming=method.server_streaming,
                )
                fields = [one.name for one in self._messages[rpc.request].field]
                rpc.has_request_id = "request_id" in fields
                rpc.checksums = self._checksums(rpc.request)
                rpc.answer_checksums = self._checksums(rpc.response)
                rpc.parameters = list(self._parameters(rpc.request))
                rpc.rows = self._rows(rpc)
                self.rpcs.append(rpc)
        names = [rpc.snake for rpc in self.rpcs] + [rpc.iterator for rpc in self.rpcs if rpc.rows is not None]
        taken = {name for name in names if names.count(name) > 1 or name in RESERVED}
        taken |= {one.name for rpc in self.rpcs for one in rpc.parameters if one.name in RESERVED}
        if taken:
            raise SystemExit(f"RPCs or fields of requests whose names the SDK has already: {', '.join(sorted(taken))}")

    def _rows(self, rpc: Rpc) -> tuple[str, str] | None:
        asked = {one.name for one in self._messages[rpc.request].field}
        answered = self._messages[rpc.response].field
        rows = [one for one in answered if one.label == F.LABEL_REPEATED and one.type == F.TYPE_MESSAGE]
        if not rpc.name.startswith("List") or "page_token" not in asked or len(rows) != 1:
            return None
        return (rows[0].name, rows[0].type_name) if "next_page_token" in {one.name for one in answered} else None

    def _checksums(self, message: str) -> list[tuple[str, list[str]]]:
        found = []
        fields = self._messages[message].field
        oneofs = [one.name for one in self._messages[message].oneof_decl]
        for one in fields:
            if one.name.endswith("_crc32c"):
                covered = one.name.removesuffix("_crc32c")
                members = [
                    each.name
                    for each in fields
                    if each.name == covered or (_in_oneof(each) and oneofs[each.oneof_index] == covered)
                ]
                if not members:
                    raise SystemExit(f"{message}.{one.name} is the checksum of nothing")
                found.append((one.name, members))
        return found

    def _parameters(self, message: str) -> Iterator[Parameter]:
        for number, one in enumerate(self._messages[message].field):
            if one.name.endswith("_crc32c"):
                continue
            required = bool(re.match(r"Required[.,]", self._comments.get(f"{message}/2/{number}", "")))
            if _in_oneof(one):
                comment = self._comments.get(f"{message}/8/{one.oneof_index}", "")
                alternative = bool(re.match(r"Required[.,]", comment))
                yield Parameter(one.name, f"{self._type(one)} | None", "None", False, alternative)
                continue
            kind, default = self._type(one), self._default(one)
            if default == "None" and not required:
                kind += " | None"
            yield Parameter(one.name, kind, "" if required else default, required, False)

    def _type(self, one: Any) -> str:
        if one.label == F.LABEL_REPEATED:
            entry = self._messages.get(one.type_name)
            if entry is not None and entry.options.map_entry:
                key, value = (self._type(each) for each in entry.field)
                return f"Mapping[{key}, {value}]"
            return f"Iterable[{self._single_type(one)}]"
        return self._single_type(one)

    def _single_type(self, one: Any) -> str:
        if one.type == F.TYPE_ENUM:
            return f"{self._modules[one.type_name]} | str"
        if one.type == F.TYPE_MESSAGE:
            known = WELL_KNOWN.get(one.type_name)
            return known or f"{self.python(one.type_name)} | Mapping[str, Any]"
        return SCALARS.get(one.type, INTEGER)[0]

    def _default(self, one: Any) -> str:
        if one.label == F.LABEL_REPEATED:
            entry = self._messages.get(one.type_name)
            return "None" if entry is not None and entry.options.map_entry else "()"
        if one.type in {F.TYPE_ENUM, F.TYPE_MESSAGE} or one.proto3_optional:
            return "None"
        return SCALARS.get(one.type, INTEGER)[1]

    def _find_batches(self) -> None:
        by_types: dict[tuple[str, str], list[Rpc]] = {}
        for rpc in self.rpcs:
            if not (rpc.client_streaming or rpc.server_streaming):
                by_types.setdefault((rpc.request, rpc.response), []).append(rpc)
        for rpc in self.rpcs:
            items = {one.name: one for one in self._messages[rpc.request].field}
            results = {one.name: one for one in self._messages[rpc.response].field}
            if set(items) != {"items"} or set(results) != {"results"}:
                continue
            outcome = {one.name: one for one in self._messages[results["results"].type_name].field}
            if set(outcome) != {"result", "status"}:
                continue
            for single in by_types.get((items["items"].type_name, outcome["result"].type_name), ()):
                if rpc.name in {f"Batch{single.name}", f"Batch{single.name}s"}:
                    rpc.single, single.batch = single, rpc

    def python(self, full: str) -> str:
        """How generated code names a message."""
        return self._modules[full]


def _in_oneof(one: Any) -> bool:
    return one.HasField("oneof_index") and not one.proto3_optional


def _messages(file: Any) -> Iterator[tuple[tuple[int, ...], Any, list[str]]]:
    def walk(path: tuple[int, ...], message: Any, names: list[str]) -> Iterator[tuple[tuple[int, ...], Any, list[str]]]:
        yield path, message, names
        for number, nested in enumerate(message.nested_type):
            yield from walk((*path, 3, number), nested, [*names, nested.name])

    for number, message in enumerate(file.message_type):
        yield from walk((4, number), message, [message.name])


# -- templates ----------------------------------------------------------------------------------------------------------


def table(protos: Protos) -> str:
    """The table of RPCs."""
    lines = []
    for rpc in sorted(protos.rpcs, key=lambda rpc: rpc.single is not None):  # a batch names its single
        request, response = protos.python(rpc.request), protos.python(rpc.response)
        lines.append(f"{rpc.constant}: Final[Method[{request}, {response}]] = Method(")
        lines.append(f'    "{rpc.path}",\n    {request},\n    {response},')
        lines.append(f"    repeatable={rpc.repeatable},")
        if rpc.has_request_id:
            lines.append("    has_request_id=True,")
        for name, checksums in (("checksums", rpc.checksums), ("answer_checksums", rpc.answer_checksums)):
            if checksums:
                lines.append(f"    {name}={tuple((crc, tuple(members)) for crc, members in checksums)!r},")
        if rpc.single is not None:
            lines.append(f"    single={rpc.single.constant},")
        lines.append(")")
    lines.append("BATCHES: Final[Mapping[Method[Any, Any], Method[Any, Any]]] = {")
    lines += [f"    {rpc.constant}: {rpc.batch.constant}," for rpc in protos.rpcs if rpc.batch is not None]
    lines.append("}")
    lines.append('"""The batch of each RPC that has one: concurrent calls of these travel together."""')
    head = [
        '"""The RPCs of package vaultd.v1.  Generated from the protos by generate_methods.py: `make generate`."""',
        "from __future__ import annotations",
        "from typing import TYPE_CHECKING, Any, Final",
        *_imports(protos, "\n".join(lines), lazy=False),
        "from vaultd_client.method import Method",
        "if TYPE_CHECKING:",
        "    from collections.abc import Mapping",
        "",
    ]
    return "\n".join([*head, *lines, ""])


def methods(protos: Protos, *, asynchronous: bool) -> str:
    """A class with one method per RPC."""
    lines = []
    for rpc in protos.rpcs:
        lines += _method(protos, rpc, asynchronous=asynchronous)
    text = "\n".join(lines)
    kind, pages = ("Async", "pages_async") if asynchronous else ("Sync", "pages")
    typing = [name for name in ("Any", "overload") if re.search(rf"\b{name}\b", text)]
    abstract = [
        name
        for name in ("AsyncIterable", "AsyncIterator", "Iterable", "Iterator", "Mapping")
        if re.search(rf"(?<![A-Za-z]){name}\[", text)
    ]
    head = [
        f'"""One method per RPC, {"async" if asynchronous else "blocking"}.  Generated from the protos by '
        'generate_methods.py: `make generate`."""',
        "from __future__ import annotations",
        f"from typing import {', '.join(['TYPE_CHECKING', *typing])}",
        "from vaultd_client.generated import table",
        *_imports(protos, text, lazy=False, constructed=True),
        f"from vaultd_client.method import {kind}Calls",
        *([f"from vaultd_client.paging import {pages}"] if f" {pages}(" in text else []),
        "if TYPE_CHECKING:",
        *(["    import datetime"] if "datetime." in text else []),
        f"    from collections.abc import {', '.join(abstract)}",
        *(f"    {line}" for line in _imports(protos, text, lazy=True)),
        "    from vaultd_client.info import CallInfo",
        f"class {kind}Methods({kind}Calls):",
        f'    """Every RPC of package vaultd.v1; `{kind.replace("Sync", "")}Client` is the class to use."""',
        "    __slots__ = ()",
    ]
    return "\n".join([*head, text, ""])


def _imports(protos: Protos, text: str, *, lazy: bool, constructed: bool = False) -> list[str]:
    """Imports of the stubs that a text uses; constructed: those that it needs when it runs, lazy: the others."""
    used = set(re.findall(r"\b(\w+_pb2)\.", text))
    running = set(re.findall(r"(\w+_pb2)(?:\.\w+)+\(", text)) if constructed or lazy else used
    wanted = sorted(used - running if lazy else running)
    by_package: dict[str, list[str]] = {}
    for name in wanted:
        by_package.setdefault(protos.packages[name], []).append(name)
    return [f"from {package} import {', '.join(names)}" for package, names in sorted(by_package.items())]


def _method(protos: Protos, rpc: Rpc, *, asynchronous: bool) -> Iterator[str]:
    response = protos.python(rpc.response)
    if rpc.server_streaming or rpc.client_streaming:
        yield from _stream(protos, rpc, asynchronous=asynchronous)
        return
    alternatives = [one for one in rpc.parameters if one.alternative]
    begin = "async def" if asynchronous else "def"
    tail = ["timeout_s: float | None = None", "info: CallInfo | None = None"]
    for chosen in alternatives:
        yield "    @overload"
        yield f"    {begin} {rpc.snake}(self, {_overload(rpc, chosen, tail)}) -> {response}: ..."
    yield f"    {begin} {rpc.snake}(self, {_signature(rpc, tail)}) -> {response}:"
    yield _docstring(rpc)
    if alternatives:
        given = ", ".join(one.name for one in alternatives)
        told = " or ".join(one.name for one in alternatives)
        yield f"        if ({given}).count(None) != {len(alternatives) - 1}:"
        yield f'            raise TypeError("{rpc.snake}() takes {told}, exactly one of them")'
        for one in rpc.parameters[rpc.parameters.index(alternatives[0]) :]:
            if one.required:
                yield f"        if {one.name} is None:"
                yield f'            raise TypeError("{rpc.snake}() needs {one.name}")'
    yield f"        request = {_construct(protos, rpc)}"
    wait = "await " if asynchronous else ""
    yield f"        return {wait}self._unary(table.{rpc.constant}, request, timeout_s, info)"
    if rpc.rows is not None:
        yield from _iterator(protos, rpc, *rpc.rows, asynchronous=asynchronous)


def _iterator(protos: Protos, rpc: Rpc, rows: str, message: str, *, asynchronous: bool) -> Iterator[str]:
    prefix, wait, pages = ("Async", "async ", "pages_async") if asynchronous else ("", "", "pages")
    arguments = _signature(rpc, ["timeout_s: float | None = None"])
    yield f"    {wait}def {rpc.iterator}(self, {arguments}) -> {prefix}Iterator[{protos.python(message)}]:"
    yield f'        """Goes over all pages of {rpc.snake}; each is asked for, within timeout_s, when the one before it was read."""'
    yield f"        request = {_construct(protos, rpc)}"
    yield f"        {wait}for page in {pages}(self, table.{rpc.constant}, request, timeout_s):"
    if asynchronous:
        yield f"            for row in page.{rows}:"
        yield "                yield row"
    else:
        yield f"            yield from page.{rows}"


def _stream(protos: Protos, rpc: Rpc, *, asynchronous: bool) -> Iterator[str]:
    request, response = protos.python(rpc.request), protos.python(rpc.response)
    prefix = "Async" if asynchronous else ""
    tail = ["timeout_s: float | None = None", "info: CallInfo | None = None"]
    kind = {(False, True): "server_stream", (True, True): "bidi_stream", (True, False): "client_stream"}
    call = f"self._{kind[rpc.client_streaming, rpc.server_streaming]}(table.{rpc.constant}, %s, timeout_s, info)"
    answer = f"{prefix}Iterator[{response}]" if rpc.server_streaming else response
    begin = "async def" if asynchronous and not rpc.server_streaming else "def"
    wait = "await " if begin == "async def" else ""
    if rpc.client_streaming:
        yield f"    {begin} {rpc.snake}(self, requests: {prefix}Iterable[{request}], *, {', '.join(tail)}) -> {answer}:"
        yield _docstring(rpc)
        yield f"        return {wait}{call % 'requests'}"
    else:
        yield f"    {begin} {rpc.snake}(self, {_signature(rpc, tail)}) -> {answer}:"
        yield _docstring(rpc)
        yield f"        request = {_construct(protos, rpc)}"
        yield f"        return {wait}{call % 'request'}"


def _construct(protos: Protos, rpc: Rpc) -> str:
    arguments = ", ".join(f"{one.name}={one.name}" for one in rpc.parameters)
    return f"{protos.python(rpc.request)}({arguments})"


def _signature(rpc: Rpc, tail: list[str]) -> str:
    alternatives = [one for one in rpc.parameters if one.alternative]
    first = alternatives[0] if alternatives else None
    positional, named, seen = [], [], False
    for one in rpc.parameters:
        seen = seen or one is first
        if one.required or one is first:
            default = f" = {one.default}" if one.default else " | None = None" if seen else ""
            positional.append(f"{one.name}: {one.type}{default}")
    for one in rpc.parameters:
        if not one.required and one is not first:
            (named if first else positional).append(f"{one.name}: {one.type} = {one.default}")
    return ", ".join([*positional, "*", *named, *tail])


def _overload(rpc: Rpc, chosen: Parameter, tail: list[str]) -> str:
    alternatives = [one for one in rpc.parameters if one.alternative]
    positional, named, by_name = [], [], chosen is not alternatives[0]
    for one in rpc.parameters:
        place = positional if not by_name else named
        if one is chosen:
            place.append(f"{one.name}: {one.type.removesuffix(' | None')}")
        elif one.required:
            before = rpc.parameters.index(one) < rpc.parameters.index(alternatives[0])
            (positional if before else place).append(f"{one.name}: {one.type}")
    optional = [f"{one.name}: {one.type} = ..." for one in rpc.parameters if not one.required and not one.alternative]
    return ", ".join([*positional, "*", *named, *optional, *(one.replace("= None", "= ...") for one in tail)])


def _docstring(rpc: Rpc) -> str:
    text = rpc.comment.replace("\\", "\\\\")
    if len(text) < 100:
        return f'        """{text}"""'
    first, _, rest = text.partition(". ")
    first = textwrap.fill(f"{first}.", 112)
    return textwrap.indent(f'"""{first}\n\n{textwrap.fill(rest, 112)}\n"""', "        ")


def service_config(protos: Protos) -> str:
    """The service config that is published: deadlines, and what may be repeated."""
    entries = []
    for service in dict.fromkeys(rpc.service for rpc in protos.rpcs):
        for by_id in (False, True):
            names = [
                {"service": f"vaultd.v1.{service}", "method": rpc.name}
                for rpc in protos.rpcs
                if rpc.service == service and (rpc.has_request_id and not rpc.repeatable if by_id else rpc.repeatable)
            ]
            if names:
                timeout = TIMEOUTS_S.get(service, "30s")
                entries.append({"name": names, "timeout": timeout, "retryPolicy": RETRY_POLICY})
        timeout = TIMEOUTS_S.get(service, "30s")
        entries.append({"name": [{"service": f"vaultd.v1.{service}"}], "timeout": timeout})
    document = {
        "loadBalancingConfig": [{"round_robin": {}}],
        "methodConfig": entries,
        "retryThrottling": RETRY_THROTTLING,
    }
    text = json.dumps(document, indent=1)
    return re.sub(r'\{\s+("service": "[^"]*")(?:,\s+("method": "[^"]*"))?\s+\}', _one_line, text) + "\n"


def _one_line(found: re.Match[str]) -> str:
    return f"{{{', '.join(part for part in found.groups() if part)}}}"


def write(descriptors: bytes, into: Path) -> None:
    """Write all files, formatted, into a directory."""
    protos = Protos(FileDescriptorSet.FromString(descriptors))
    (into / "table.py").write_text(_formatted(table(protos)))
    (into / "aio.py").write_text(_formatted(methods(protos, asynchronous=True)))
    (into / "sync.py").write_text(_formatted(methods(protos, asynchronous=False)))
    (into / "service_config.json").write_text(service_config(protos))


def _formatted(text: str) -> str:
    for arguments in (["check", "--select", "I", "--fix", "--quiet"], ["format", "--quiet"]):
        command = [
            sys.executable,
            "-m",
            "ruff",
            *arguments,
            "--stdin-filename",
            "clients/python/vaultd_client/generated/x.py",
            "-",
        ]
        text = subprocess.run(command, input=text, capture_output=True, text=True, check=True).stdout  # noqa: S603  # our own
    return text
