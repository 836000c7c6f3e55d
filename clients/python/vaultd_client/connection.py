"""A channel to one address, of either client, and its callables."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, Generic, TypeVar

if TYPE_CHECKING:
    import grpc

    from vaultd_client.method import Method

CLOSE_GRACE_S: Final = 30.0
"""How long calls on a connection with old certificates may go on."""

Channel = TypeVar("Channel", bound="grpc.Channel | grpc.aio.Channel")


class Connection(Generic[Channel]):
    """Makes what calls a method once, when it is first called."""

    __slots__ = ("_callables", "channel")

    def __init__(self, channel: Channel) -> None:
        self.channel = channel
        self._callables: dict[str, Any] = {}

    def callable(self, method: Method[Any, Any], kind: str) -> Any:
        """What calls a method; kind is gRPC's: `unary_unary` and so on."""
        found = self._callables.get(method.path)
        if found is None:
            make = getattr(self.channel, kind)
            found = make(method.path, method.request.SerializeToString, method.response.FromString)
            self._callables[method.path] = found
        return found
