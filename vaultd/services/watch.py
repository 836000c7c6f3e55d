"""AdminService.Watch: message to engine call and back."""

from __future__ import annotations

import re
from contextlib import aclosing
from typing import TYPE_CHECKING, Any, Final

from vaultd.engine.watch import Scope
from vaultd.errors import InvalidArgument
from vaultd_client.v1 import watch_pb2 as pb

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterable

    from vaultd.engine.watch import WatchHub
    from vaultd.engine.watched import Event
    from vaultd.services.context import StreamContext

DEFAULT_HEARTBEAT_S: Final = 15.0
MESSAGE_BYTES: Final = 1024 * 1024
"""A revision may have tens of thousands of changes, and a transport takes no message above 4 MiB."""
_EVENT_BYTES: Final = 96
"""Of an event beside its name, at most."""
_TOKEN: Final = re.compile(r"w1\.([0-9]{1,18})")
_KINDS: Final[dict[str, Any]] = {
    name.removeprefix("RESOURCE_KIND_"): number for name, number in pb.ResourceKind.items()
}
_KIND_NAMES: Final = {number: name for name, number in _KINDS.items()}
_CHANGES: Final = {
    "create": pb.CHANGE_TYPE_CREATED,
    "update": pb.CHANGE_TYPE_UPDATED,
    "delete": pb.CHANGE_TYPE_DELETED,
}


def token_of(revision: int) -> str:
    """The resume token of a revision."""
    return f"w1.{revision}"


def start_of(request: pb.WatchRequest) -> int | None:
    """The revision after which to begin, None for now; raises InvalidArgument."""
    if not request.resume_token:
        if not request.HasField("after_revision"):
            return None
        if request.after_revision < 0:
            raise InvalidArgument("FIELD_RANGE", "after_revision must be 0 or more", field="after_revision")
        return request.after_revision
    if request.HasField("after_revision"):
        raise InvalidArgument("TWO_STARTS", "give resume_token or after_revision, not both", field="after_revision")
    match = _TOKEN.fullmatch(request.resume_token)
    if match is None:
        raise InvalidArgument(
            "RESUME_TOKEN_MALFORMED", "resume_token must be one that a Watch gave", field="resume_token"
        )
    return int(match[1])


def encode(events: Iterable[Event]) -> list[bytes]:
    """Responses with these events and nothing else, of about `MESSAGE_BYTES` at most; more of their fields may be appended."""
    parts = []
    response = pb.WatchResponse()
    size = 0
    for event in events:
        size += _EVENT_BYTES + len(event.name)
        if size > MESSAGE_BYTES:
            parts.append(response.SerializeToString())
            response, size = pb.WatchResponse(), 0
        message = response.events.add(
            revision=event.revision,
            kind=_KINDS[event.kind],
            name=event.name,
            change_type=_CHANGES[event.event],
            etag=event.etag,
        )
        message.time.FromMicroseconds(event.at_us)
    parts.append(response.SerializeToString())
    return parts


class WatchCalls:
    """Watch."""

    def __init__(self, hub: WatchHub) -> None:
        self._hub = hub
        self._last: tuple[int, str, bytes] = (-1, "", b"")
        """Revision, its token and both as fields: thousands of watchers come to the same revision at once."""

    async def Watch(self, request: pb.WatchRequest, context: StreamContext) -> AsyncIterator[bytes]:
        kinds = frozenset(_KIND_NAMES[number] for number in request.filter.kinds)
        scope = Scope(request.filter.resource_prefix or "/", kinds)
        interval = request.heartbeat_interval
        heartbeat_s = interval.ToNanoseconds() / 1e9 if interval.ByteSize() else DEFAULT_HEARTBEAT_S
        deliveries = self._hub.follow(context.caller, context.method, scope, start_of(request), heartbeat_s)
        async with aclosing(deliveries):
            async for batches, revision in deliveries:
                # Encoded fields of one message may be put one behind another: what all see alike is encoded once.
                token, tail = self._reached(revision)
                parts: list[bytes] = []
                size = 0
                for batch, mask in batches:
                    for part in batch.encoded(mask, encode):
                        if parts and size + len(part) > MESSAGE_BYTES:
                            yield b"".join(parts)  # without a token: more of this revision may follow
                            parts, size = [], 0
                        parts.append(part)
                        size += len(part)
                yield b"".join((*parts, tail))
                context.resume["resume_token"] = token

    def _reached(self, revision: int) -> tuple[str, bytes]:
        known, token, tail = self._last
        if known != revision:
            token = token_of(revision)
            tail = pb.WatchResponse(revision=revision, resume_token=token).SerializeToString()
            self._last = revision, token, tail
        return token, tail
