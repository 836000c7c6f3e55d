"""The Envoy host: a real Envoy terminates TLS and HTTP/2, and calls the chain in its own process through ASGI (pyvoy).

Nothing here imports grpc: the process of an Envoy does not need it.
"""
