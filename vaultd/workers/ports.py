"""The addresses that all workers listen on, held by the supervisor.

Each worker has listening sockets of its own (SO_REUSEPORT), among which the kernel deals out connections.  The supervisor's
socket is bound and never listens: it chooses the port where that is 0, keeps it while workers come and go, and makes a second
server fail at the start instead of sharing it.
"""

from __future__ import annotations

import socket


class HeldPort:
    """An address that is bound and not listened on.  Raises OSError when somebody has it."""

    def __init__(self, address: str) -> None:
        host, _, port = address.rpartition(":")
        self._host = host
        (family, kind, protocol, _, target), *_ = socket.getaddrinfo(
            host.strip("[]"), int(port), type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )
        self._socket = socket.socket(family, kind, protocol)
        try:
            # Without the option first: whoever listens there, with it or not, is in the way.
            with socket.socket(family, kind, protocol) as alone:
                alone.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                alone.bind(target)
                target = alone.getsockname()
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            self._socket.bind(target)
        except OSError as error:
            self._socket.close()
            raise OSError(f"cannot listen on {address}; is another process using it?") from error
        self.port: int = self._socket.getsockname()[1]

    @property
    def address(self) -> str:
        """HOST:PORT, with the port that was chosen."""
        return f"{self._host}:{self.port}"

    def close(self) -> None:
        """Give the port free."""
        self._socket.close()
