"""Ports that are known before anybody listens on them."""

from __future__ import annotations

import secrets
import socket
from pathlib import Path


def free_port() -> int:
    """A port of 127.0.0.1 that nobody has, and that the kernel gives to nobody by itself before it is asked for."""
    first, last = map(int, Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split())
    candidates = [*range(10_000, first), *range(last + 1, 65_536)]
    while True:
        port = secrets.choice(candidates)
        with socket.socket() as unused:
            try:
                unused.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
