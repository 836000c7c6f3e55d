"""vaultctl, as a process of its own and within this one, as an identity of a running server."""

from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path
from typing import Any

from click.testing import CliRunner

from vaultd_client.vaultctl import main

VAULTCTL = Path(sys.executable).with_name("vaultctl")


def environment_of(server: Any, identity: str = "admin") -> dict[str, str]:
    """What vaultctl needs to know to be the identity whose certificate is `tls/{identity}.crt`."""
    tls = server.directory / "tls"
    return {
        "VAULTD_ADDR": server.address,
        "VAULTD_CA": str(tls / "ca.crt"),
        "VAULTD_CERT": str(tls / f"{identity}.crt"),
        "VAULTD_KEY": str(tls / f"{identity}.key"),
        "XDG_CONFIG_HOME": str(server.directory / "config"),
    }


async def vaultctl(
    server: Any, *arguments: str, identity: str = "admin", data: bytes | None = None, **environment: str
) -> tuple[int, str, str]:
    """Run the command; return exit code, output and error output."""
    process = await asyncio.create_subprocess_exec(
        *(VAULTCTL, *arguments),
        env={**os.environ, **environment_of(server, identity), **environment},
        stdin=asyncio.subprocess.DEVNULL if data is None else asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    out, err = await process.communicate(data)
    assert "Traceback" not in err.decode()
    assert "a fault of vaultctl" not in err.decode()
    return process.returncode or 0, out.decode(), err.decode()


async def ctl(server: Any, *arguments: Any, data: bytes = b"", identity: str = "admin", **environment: str) -> Any:
    """The command within this process, on a thread: click's result, with exit_code, stdout, stdout_bytes and stderr."""
    words = [str(argument) for argument in arguments]
    environ = {**environment_of(server, identity), **environment}
    done = await asyncio.to_thread(CliRunner().invoke, main, words, input=data, env=environ)
    assert done.exception is None or isinstance(done.exception, SystemExit), done.exception
    assert "a fault of vaultctl" not in done.stderr, done.stderr
    return done


async def run_here(server: Any, *arguments: str, **options: Any) -> tuple[int, str, str]:
    """As `vaultctl`, without the price of a process."""
    done = await ctl(server, *arguments, **options)
    return done.exit_code, done.stdout, done.stderr
