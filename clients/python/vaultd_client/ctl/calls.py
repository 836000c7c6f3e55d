"""Calls of the SDK by the name of an RPC and a request message."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from google.protobuf.message import Message

    from vaultd_client import Client
    from vaultd_client.info import CallInfo


def send(client: Client, name: str, request: Message, info: CallInfo | None = None) -> Any:
    """What the client's method `name` gives for a request: an answer, or an iterator of answers.  Raises VaultdError."""
    return getattr(client, name)(**arguments_of(request), info=info)


def arguments_of(request: Message) -> dict[str, Any]:
    """The fields of a request as the SDK's methods take them: those with presence only when they are set."""
    given: dict[str, Any] = {}
    for field in request.DESCRIPTOR.fields:
        if field.name.endswith("_crc32c"):
            continue  # the SDK fills them
        if field.is_repeated or not field.has_presence:
            given[field.name] = getattr(request, field.name)
        elif request.HasField(field.name):
            given[field.name] = getattr(request, field.name)
        elif field.message_type is not None and field.containing_oneof is None:
            given[field.name] = None  # an argument without a default, perhaps; the server says that it is required
    return given
