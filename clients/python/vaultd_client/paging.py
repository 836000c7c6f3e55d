"""Lists over all their pages."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

    from vaultd_client.method import AsyncCalls, Method, Request, Response, SyncCalls


def pages(
    calls: SyncCalls, method: Method[Request, Response], request: Request, timeout_s: float | None
) -> Iterator[Response]:
    """Each page, asked for when the one before it was read."""
    message: Any = request
    while True:
        page: Any = calls._unary(method, message, timeout_s, None)
        yield page
        if not page.next_page_token:
            return
        message.page_token = page.next_page_token


async def pages_async(
    calls: AsyncCalls, method: Method[Request, Response], request: Request, timeout_s: float | None
) -> AsyncIterator[Response]:
    """Each page, asked for when the one before it was read."""
    message: Any = request
    while True:
        page: Any = await calls._unary(method, message, timeout_s, None)
        yield page
        if not page.next_page_token:
            return
        message.page_token = page.next_page_token
