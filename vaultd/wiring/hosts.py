"""The host that the configuration names."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from vaultd.config import Settings
    from vaultd.interceptors.chain import Chain
    from vaultd.wiring.tls import TlsFiles


class Host(Protocol):
    """How calls arrive."""

    async def start(self, listen: str, listen_tls: str) -> tuple[int, int]:
        """Bind and serve; returns the ports, 0 for what is not configured.  Raises OSError when one cannot be bound."""
        ...

    async def refresh(self) -> None:
        """Put changed certificate files in force."""
        ...

    async def stop(self, grace_s: float) -> None:
        """Refuse new calls, let those under way finish within the grace, then end them."""
        ...


def make_host(settings: Settings, chain: Chain, tls: TlsFiles, *, share_port: bool) -> Host:
    """A host that does not listen yet.  Neither needs what the other one imports.

    share_port: other workers listen on the same port, and the kernel deals out connections.
    """
    if settings.host == "envoy":
        from vaultd.hosts.envoy.host import EnvoyHost

        return EnvoyHost(chain, tls.read, tls.differ, tls.refused)
    from vaultd.hosts.grpcio import GrpcHost

    return GrpcHost(chain, tls.read, tls.changed, share_port=share_port)
