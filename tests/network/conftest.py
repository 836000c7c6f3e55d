"""One server process for all tests that leave it as it was, and clients of it for each test."""

import asyncio

import pytest

from network.process import HOLDERS, Process, Remote, create_key


@pytest.fixture(scope="session")
def process(tmp_path_factory):
    """A server with the key `k`."""
    running = Process(tmp_path_factory.mktemp("network") / "served")
    try:
        asyncio.run(_prepare(running))
        yield running
    finally:
        running.kill()


async def _prepare(running: Process) -> None:
    server = Remote(running)
    await create_key(server.admin, "k")
    await server.close()


@pytest.fixture(scope="session")
def holders():
    """Callers whose places nobody has taken yet."""
    return iter(HOLDERS)


@pytest.fixture
async def server(process):
    remote = Remote(process)
    yield remote
    await remote.close()
