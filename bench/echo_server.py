"""The baseline: a bare grpc.aio server that sends back what it gets.  `python -m bench.echo_server TLS_DIRECTORY`.

An ordinary unary handler on bytes, no interceptors, the options and the mTLS of vaultd's own host.
"""

from __future__ import annotations

import asyncio
import signal
import sys
from pathlib import Path
from typing import Any, Final

import grpc

from vaultd.hosts.grpcio import MAX_RPCS, OPTIONS

METHOD: Final = "/bench.Echo/Echo"


async def _echo(request: bytes, context: Any) -> bytes:
    del context
    return request


async def _serve(tls: Path) -> None:
    server = grpc.aio.server(options=OPTIONS, maximum_concurrent_rpcs=MAX_RPCS, compression=None)
    handler = grpc.unary_unary_rpc_method_handler(_echo)
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("bench.Echo", {"Echo": handler}),))
    credentials = grpc.ssl_server_credentials(
        [((tls / "server.key").read_bytes(), (tls / "server.crt").read_bytes())],
        root_certificates=(tls / "ca.crt").read_bytes(),
        require_client_auth=True,
    )
    port = server.add_secure_port("127.0.0.1:0", credentials)
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    await server.start()
    print(f"ready 127.0.0.1:{port}", flush=True)
    await stop.wait()
    await server.stop(1)


if __name__ == "__main__":
    asyncio.run(_serve(Path(sys.argv[1])))
