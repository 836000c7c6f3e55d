"""Several processes that are one server: the supervisor that keeps them, and what they say to each other through it.

Beside the wiring: knows processes, sockets and messages; no gRPC, no store, no keys.
"""
