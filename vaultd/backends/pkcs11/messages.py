"""What the server and a worker process say to each other over their socket: a stream of MessagePack values.

    server -> worker   a Hello first, then [Lane, requests], what one thread is to do; a request is [number, verb, *arguments]
    worker -> server   a greeting first, then lists of replies: [number, Status, payload, microseconds of service]

Many requests, or replies, share a list and so a wake-up.
"""

from __future__ import annotations

from enum import IntEnum
from typing import Any, Final, NamedTuple

import msgpack

MAX_MESSAGE_BYTES: Final = 64 * 1024 * 1024


class Verb(IntEnum):
    """What is asked of a worker.  Those up to DERIVE use a key; the others are for its one management session."""

    SIGN = 1
    """object id, algorithm, data: a digest, or the message for algorithms that hash in the token."""
    ENCRYPT = 2
    """object id, algorithm, data, nonce, associated data."""
    DECRYPT = 3
    """object id, algorithm, data, nonce, associated data."""
    WRAP = 4
    """object id, algorithm, data: bytes to wrap as a secret key."""
    UNWRAP = 5
    """object id, algorithm, data: a wrapping of such bytes."""
    DERIVE = 6
    """object id, algorithm, data: the peer's uncompressed point."""
    RANDOM = 7
    """number of bytes."""
    GENERATE = 10
    """object id, algorithm, label."""
    IMPORT = 11
    """object id, algorithm, label, key-encryption key, the material wrapped with it (RFC 5649)."""
    DESTROY = 12
    """object id."""
    FIND = 13
    """object id, algorithm, label: an existing key by id, label or both; empty ones are not looked at.  None: no such key."""


LAST_USE: Final = Verb.RANDOM


class Status(IntEnum):
    """How a request ended."""

    DONE = 0
    """payload: the result."""
    BAD_INPUT = 1
    """The key refused the data, and works: a tag or wrapping that is not right."""
    REFUSED = 2
    """payload: why the token, or the object in it, will never do this."""
    MISSING = 3
    """The token does not show the object."""
    FAULT = 4
    """payload: the name of what went wrong.  The worker is of no more use."""


class Hello(NamedTuple):
    """The first message to a worker."""

    module: str
    token_label: str
    token_serial: str
    manufacturer: str
    model: str
    pin: str
    sessions: int
    probe: bool
    """Whether to find out what the token can do."""


def pack(message: object) -> bytes:
    """Encode one message."""
    return msgpack.packb(message, use_bin_type=True)  # type: ignore[no-any-return]  # msgpack has no types


def unpacker() -> Any:
    """A decoder that is fed with what arrives, and iterated over for the messages that are complete."""
    return msgpack.Unpacker(raw=False, use_list=True, max_buffer_size=MAX_MESSAGE_BYTES)
