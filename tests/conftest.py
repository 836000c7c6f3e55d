"""Runs before any test module is imported, and so before grpc is."""

from vaultd.hosts.transport import restrict_transport

restrict_transport()
