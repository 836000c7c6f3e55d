"""Writes the Python stubs of `protos/vaultd/v1` into `vaultd_client/v1`, and the SDK's methods, with a
description of all RPCs, into `vaultd_client/generated`;
`--check` compares instead of writing.

protoc names the Python package after the proto package, `vaultd.v1`, which would collide with the server's own package
`vaultd`; the one rewrite below moves the imports to `vaultd_client.v1`.  Descriptors keep their proto names.
"""

from __future__ import annotations

import filecmp
import re
import sys
import tempfile
from importlib.resources import files
from pathlib import Path

from grpc_tools import protoc

from generate_api import write as write_api
from generate_methods import write as write_methods

HERE = Path(__file__).resolve().parent
PROTOS = HERE.parent.parent / "protos"
STUBS = HERE / "vaultd_client" / "v1"
METHODS = HERE / "vaultd_client" / "generated"


def generate(stubs: Path, methods: Path) -> None:
    """Generate messages, type stubs and service stubs for every proto of package vaultd.v1, and the methods of the SDK."""
    sources = sorted(str(path) for path in (PROTOS / "vaultd" / "v1").glob("*.proto"))
    with tempfile.TemporaryDirectory() as scratch:
        described = Path(scratch) / "descriptors"
        arguments = [f"--descriptor_set_out={described}", "--include_source_info", "--include_imports"]
        arguments += [f"-I{PROTOS}", f"--python_out={scratch}", f"--pyi_out={scratch}", f"--grpc_python_out={scratch}"]
        include = str(files("grpc_tools") / "_proto")
        if protoc.main(["protoc", *arguments, f"-I{include}", *sources]) != 0:
            raise SystemExit("protoc failed: see its message above")
        for path in sorted((Path(scratch) / "vaultd" / "v1").iterdir()):
            text = re.sub(r"^from vaultd\.v1 import", "from vaultd_client.v1 import", path.read_text(), flags=re.M)
            (stubs / path.name).write_text(text)
        write_methods(described.read_bytes(), methods)
        write_api(described.read_bytes(), methods)


def main() -> None:
    if sys.argv[1:] != ["--check"]:
        generate(STUBS, METHODS)
        return
    with tempfile.TemporaryDirectory() as stubs, tempfile.TemporaryDirectory() as methods:
        generate(Path(stubs), Path(methods))
        wrong = [name for fresh, kept in ((stubs, STUBS), (methods, METHODS)) for name in _differing(Path(fresh), kept)]
        if wrong:
            raise SystemExit(f"stubs do not match the protos, run `make generate`: {', '.join(wrong)}")


def _differing(fresh: Path, kept: Path) -> list[str]:
    names = sorted(path.name for path in fresh.iterdir())
    _, differing, missing = filecmp.cmpfiles(fresh, kept, names, shallow=False)
    return [*differing, *missing]


if __name__ == "__main__":
    main()
