"""Page tokens: opaque, authenticated, and bound to the query that they continue.  A token is never an authorisation."""

from __future__ import annotations

import base64
import binascii
import hmac
import itertools
from typing import TYPE_CHECKING, Final

from vaultd.errors import InvalidArgument

if TYPE_CHECKING:
    from collections.abc import Iterable

    from vaultd.engine.ledger import Ledger

DEFAULT_PAGE: Final = 100
MAX_PAGE: Final = 1000
MAX_PAGE_BYTES: Final = 2 * 1024 * 1024
"""What a page holds at most, whatever its size in items: an answer must fit in a message of 4 MiB."""
_MAC_BYTES: Final = 16


def page_limit(page_size: int) -> int:
    """The number of items of a page; raises InvalidArgument for a negative size."""
    if page_size < 0:
        raise InvalidArgument("PAGE_SIZE_NEGATIVE", "page_size must not be negative", field="page_size")
    return min(page_size or DEFAULT_PAGE, MAX_PAGE)


def page_length(sizes: Iterable[int], limit: int) -> int:
    """How many items of these sizes go on a page of `limit` items: one at least, where there is one."""
    total = length = 0
    for size in itertools.islice(sizes, limit):
        total += size
        if length and total > MAX_PAGE_BYTES:
            break
        length += 1
    return length


def page_token(ledger: Ledger, query: str, last: str) -> str:
    """The token of the page after `last`."""
    mac = ledger.sealer.token_mac("page", query, last)
    return base64.urlsafe_b64encode(mac + last.encode()).decode().rstrip("=")


def page_start(ledger: Ledger, query: str, token: str) -> str:
    """Where the page of a token starts (after this id; empty for the first page); raises InvalidArgument."""
    if not token:
        return ""
    try:
        raw = base64.b64decode(token + "=" * (-len(token) % 4), altchars=b"-_", validate=True)
        last = raw[_MAC_BYTES:].decode()
    except (binascii.Error, ValueError):
        raw, last = b"", ""
    if not hmac.compare_digest(raw[:_MAC_BYTES], ledger.sealer.token_mac("page", query, last)):
        raise InvalidArgument(
            "PAGE_TOKEN", "page_token is not one that this list gave; start again without it", field="page_token"
        )
    return last
