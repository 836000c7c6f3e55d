"""What the generator makes of RPCs that the protos may get: streams, batches of other names, and names that are taken."""

from __future__ import annotations

import ast
import re
import sys
from pathlib import Path

import pytest
from grpc_tools import protoc

PYTHON = Path(__file__).resolve().parents[2] / "clients/python"
PROTO = """
syntax = "proto3";
package vaultd.v1;
service ThingsService {
  // Reads a thing. Idempotent.
  rpc ReadThing(ReadThingRequest) returns (ReadThingResponse);
  // Reads many things. Idempotent.
  rpc BatchReadThings(BatchReadThingsRequest) returns (BatchReadThingsResponse);
  // Says what changes. Caller needs nothing. Ends when the caller ends it.
  rpc Follow(FollowRequest) returns (stream ReadThingResponse);
  // Takes and gives.
  rpc Converse(stream ReadThingRequest) returns (stream ReadThingResponse);
  // Takes many. Not idempotent without request_id.
  rpc Upload(stream ReadThingRequest) returns (ReadThingResponse);
  // Reads a thing in another way. Idempotent.
  rpc ReadThingSlowly(ReadThingRequest) returns (ReadThingResponse);
  // Changes a thing. Idempotent with request_id.
  rpc %s(ChangeRequest) returns (ReadThingResponse);
  // Lists things. Idempotent.
  rpc ListThings(ListThingsRequest) returns (ListThingsResponse);
  // Lists what is always short. Idempotent.
  rpc ListFewThings(ListThingsRequest) returns (ListFewThingsResponse);
}
message ListThingsRequest {
  // Required. Of what.
  string parent = 1;
  string page_token = 2;
}
message ListThingsResponse {
  repeated ReadThingRequest things = 1;
  string next_page_token = 2;
}
message ListFewThingsResponse { repeated ReadThingRequest things = 1; }
message Error { int32 code = 1; }
message ReadThingRequest {
  // Required. Its name.
  string name = 1;
  // Optional. At most 8.
  int32 depth = 2;
}
message ReadThingResponse {
  bytes payload = 1;
  optional fixed32 payload_crc32c = 2;
}
message BatchReadThingsRequest { repeated ReadThingRequest items = 1; }
message BatchReadThingsResponse {
  message Result { oneof outcome { ReadThingResponse result = 1; Error status = 2; } }
  repeated Result results = 1;
}
message FollowRequest { repeated string names = 1; }
message ChangeRequest {
  // Required. What to change.
  map<string, string> labels = 1;
  // Required. To what.
  oneof to { string text = 2; bytes raw = 3; }
  // Optional.
  string request_id = 4;
  ReadThingRequest other = 5;
}
"""


@pytest.fixture
def generated(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(str(PYTHON))
    import generate_methods

    def generate(name: str = "ChangeThing"):
        (tmp_path / "things.proto").write_text(PROTO % name)
        out = tmp_path / "descriptors"
        arguments = [f"-I{tmp_path}", f"--descriptor_set_out={out}", "--include_source_info", "--include_imports"]
        assert protoc.main(["protoc", *arguments, str(tmp_path / "things.proto")]) == 0
        generate_methods.write(out.read_bytes(), tmp_path)
        return {path.name: path.read_text() for path in tmp_path.glob("*.py")}

    yield generate
    sys.modules.pop("generate_methods", None)


def signatures(text: str) -> dict[str, str]:
    """Of each method, its arguments and result; of overloads the last."""
    owner = next(node for node in ast.parse(text).body if isinstance(node, ast.ClassDef))
    functions = [node for node in owner.body if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)]
    kind = {ast.FunctionDef: "def", ast.AsyncFunctionDef: "async def"}
    ignored = ", *, timeout_s: float | None=None, info: CallInfo | None=None"
    return {
        each.name: f"{kind[type(each)]} ({ast.unparse(each.args).replace(ignored, '')}) -> {ast.unparse(each.returns)}"
        for each in functions
    }


def test_streams_and_unary_rpcs_get_typed_methods(generated):
    files = generated()
    request, response = "things_pb2.ReadThingRequest", "things_pb2.ReadThingResponse"
    found = signatures(files["aio.py"])
    assert found["read_thing"] == f"async def (self, name: str, depth: int=0) -> {response}"
    assert found["follow"] == f"def (self, names: Iterable[str]=()) -> AsyncIterator[{response}]"
    assert found["converse"] == f"def (self, requests: AsyncIterable[{request}]) -> AsyncIterator[{response}]"
    assert found["upload"] == f"async def (self, requests: AsyncIterable[{request}]) -> {response}"
    found = signatures(files["sync.py"])
    assert found["follow"] == f"def (self, names: Iterable[str]=()) -> Iterator[{response}]"
    assert found["upload"] == f"def (self, requests: Iterable[{request}]) -> {response}"
    change = "self, labels: Mapping[str, str], text: str | None=None, *, raw: bytes | None=None"
    assert found["change_thing"].startswith(f"def ({change}, request_id: str=''")
    assert files["sync.py"].count("@overload") == 2


def test_a_list_of_many_pages_can_be_gone_over(generated):
    files = generated()
    found = signatures(files["aio.py"])
    assert found["iter_things"].startswith("async def (self, parent: str, page_token: str=''")
    assert found["iter_things"].endswith("-> AsyncIterator[things_pb2.ReadThingRequest]")
    assert signatures(files["sync.py"])["iter_things"].endswith("-> Iterator[things_pb2.ReadThingRequest]")
    assert "iter_few_things" not in found
    with pytest.raises(SystemExit, match="iter_things"):
        generated("IterThings")


def test_a_batch_is_known_by_its_shape_and_retries_by_their_comments(generated):
    table = generated()["table.py"]
    assert table.split("BATCHES: ")[1].count("BATCH_READ_THINGS") == 1
    assert "    READ_THING: BATCH_READ_THINGS,\n" in table
    assert 'answer_checksums=(("payload_crc32c", ("payload",)),)' in table
    repeatable = dict(
        re.findall(r"^([A-Z_]+): Final\[Method\[.*?repeatable=(\w+),", table, flags=re.MULTILINE | re.DOTALL)
    )
    assert repeatable == {
        "READ_THING": "True",
        "BATCH_READ_THINGS": "True",
        "FOLLOW": "False",
        "CONVERSE": "False",
        "UPLOAD": "False",
        "READ_THING_SLOWLY": "True",
        "CHANGE_THING": "False",
        "LIST_THINGS": "True",
        "LIST_FEW_THINGS": "True",
    }


def test_a_name_that_clients_have_already_is_refused(generated):
    with pytest.raises(SystemExit, match="close"):
        generated("Close")
