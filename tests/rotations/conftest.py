"""One PostgreSQL for all modules of a test process: each leaves its roles able to log in, and sets passwords as it needs them."""

from __future__ import annotations

import pytest

from postgres import USERS, Postgres


@pytest.fixture(scope="session")
def running_postgres():
    with Postgres() as running:
        yield running


@pytest.fixture(scope="module")
def postgres(running_postgres):
    for user in USERS:
        running_postgres.sql(f"ALTER ROLE {user} LOGIN PASSWORD NULL")
    running_postgres.sql("ALTER ROLE rotator CREATEROLE")
    return running_postgres


@pytest.fixture(scope="module")
def server(postgres):
    """The same, where there is no other server."""
    return postgres
