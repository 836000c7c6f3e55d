"""An Envoy with a server in it, for all tests that leave it as it was."""

import asyncio

import pytest

from network.process import Process, Remote, create_key


@pytest.fixture(scope="session")
def process(tmp_path_factory):
    """A server with the key `k`."""
    running = Process(tmp_path_factory.mktemp("envoy") / "served", host="envoy")
    try:
        asyncio.run(_prepare(running))
        yield running
    finally:
        running.kill()


async def _prepare(running: Process) -> None:
    server = Remote(running)
    await create_key(server.admin, "k")
    await server.close()


@pytest.fixture
async def server(process):
    remote = Remote(process)
    yield remote
    await remote.close()
