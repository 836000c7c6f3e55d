"""Puts the server together.  The only package that names concrete classes."""

from vaultd.wiring.engine import Engine, build_engine
from vaultd.wiring.server import Server
from vaultd.wiring.sources import open_root_key, open_store
from vaultd.wiring.tls import TlsFiles

__all__ = ["Engine", "Server", "TlsFiles", "build_engine", "open_root_key", "open_store"]
