"""pytest inside Envoy: servers under test are then where `--host envoy` has them, and tests still reach into them.

pyvoy loads `app`; Envoy starts with no listener, and each server under test adds its own.
"""

from __future__ import annotations

import asyncio
import json
import os
import socket
import sys
import threading
from typing import Any

import uvloop

from vaultd.envoy_inside import VARIABLE, enter
from vaultd.hosts.envoy import embedding
from vaultd.hosts.transport import restrict_transport


class Policy(asyncio.DefaultEventLoopPolicy):
    """Tests run on the kind of loop that the server has in Envoy."""

    def new_event_loop(self) -> asyncio.AbstractEventLoop:
        return uvloop.Loop()


async def nothing(scope: dict[str, Any], receive: Any, send: Any) -> None:
    """No request gets here: the listener of this application has no socket."""


def run(control: int) -> None:
    """Run pytest with the arguments that the parent sends, and leave with its exit code."""
    restrict_transport()  # as tests/conftest.py does: the harness imports grpc
    import pytest

    import harness

    harness.HOST = "envoy"
    with socket.socket(fileno=control) as parent, parent.makefile("r") as lines:
        arguments = json.loads(lines.readline())["arguments"]
    asyncio.set_event_loop_policy(Policy())
    code = 3
    try:
        # The main thread is Envoy's: timeouts cannot use signals here.
        code = pytest.main(["--timeout-method=thread", *arguments])
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def __getattr__(name: str) -> Any:
    if name != "app":
        raise AttributeError(name)
    said = json.loads(os.environ.pop(VARIABLE))
    enter(said)
    embedding.LoopShare(uvloop.Loop).install()
    threading.Thread(target=run, args=(said["control"],), name="pytest").start()
    return nothing
