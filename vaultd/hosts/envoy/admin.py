"""Envoy's admin interface, over its socket in the private directory."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, Final

import h11
import orjson

if TYPE_CHECKING:
    from pathlib import Path

READ_BYTES: Final = 64 * 1024
TIMEOUT_S: Final = 5.0


async def ask(path: Path, target: str) -> Any:
    """The JSON of an answer.  Raises OSError when Envoy does not answer."""
    async with asyncio.timeout(TIMEOUT_S):
        reader, writer = await asyncio.open_unix_connection(str(path))
        try:
            connection = h11.Connection(h11.CLIENT)
            headers = [("Host", "envoy"), ("Connection", "close")]
            request = connection.send(h11.Request(method="GET", target=target, headers=headers)) or b""
            writer.write(request + (connection.send(h11.EndOfMessage()) or b""))
            body = bytearray()
            while True:
                event = connection.next_event()
                if event is h11.NEED_DATA:
                    connection.receive_data(await reader.read(READ_BYTES))
                elif isinstance(event, h11.Data):
                    body += event.data
                elif isinstance(event, h11.EndOfMessage):
                    return orjson.loads(body)
                elif isinstance(event, h11.ConnectionClosed):
                    raise OSError("Envoy's admin interface did not answer")
        finally:
            writer.close()


async def bound_ports(path: Path) -> dict[str, int]:
    """The ports of the listeners that are bound, by their names."""
    said = await ask(path, "/listeners?format=json")
    return {
        status["name"]: status["local_address"]["socket_address"]["port_value"]
        for status in said.get("listener_statuses", [])
    }


async def refused_listeners(path: Path) -> dict[str, str]:
    """Listeners that Envoy could not take up, and what it said."""
    said = await ask(path, "/config_dump?resource=dynamic_listeners")
    errors = [one["error_state"] for one in said.get("configs", []) if one.get("error_state")]
    return {error["failed_configuration"]["name"]: error.get("details", "") for error in errors}


async def secrets_in_force(path: Path) -> set[tuple[str, str]]:
    """The names and versions of the secrets that Envoy uses."""
    said = await ask(path, "/config_dump?resource=dynamic_active_secrets")
    return {(one["name"], one.get("version_info", "")) for one in said.get("configs", [])}
