"""vaultd, a self-hosted key vault that speaks gRPC.

Calls go one way: hosts -> interceptors -> services -> engine -> backends | store.  `docs/architecture.md` is the map.
"""

__version__ = "0.1.0"
