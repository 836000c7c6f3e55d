"""The PostgreSQL rotator against a real server."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import orjson
import pytest

from ports import free_port
from postgres import ADMIN, ADMIN_PASSWORD, DATABASE, USERS, Postgres
from vaultd.rotators.base import RotatorFailed, Step, Value
from vaultd.rotators.postgres import Login, PostgresRotator, PostgresSettings
from vaultd.rotators.scram import scram_verifier
from vaultd.secret import Secret

NAME = "vaults/default/secrets/orders-db"


def settings_of(server: Postgres, **changes) -> PostgresSettings:
    values = {
        "host": "127.0.0.1",
        "port": server.port,
        "database": DATABASE,
        "users": USERS,
        "tls": "verify-full",
        "ca_file": server.ca_file,
        "scram_iterations": 4096,
        "timeout_s": 5.0,
    }
    return PostgresSettings(**{**values, **changes})


def rotator_of(server: Postgres, admin: str = ADMIN, password: str = ADMIN_PASSWORD, **changes) -> PostgresRotator:
    async def read() -> Login:
        return Login(admin, Secret(password.encode()))

    return PostgresRotator(settings_of(server, **changes), read)


@pytest.fixture
def rotator(server):
    return rotator_of(server)


def generator(password: str):
    async def generate() -> Value:
        return Value(Secret(password.encode()))

    return generate


def login(payload: Secret) -> tuple[str, str]:
    members = orjson.loads(payload.expose("test"))
    return members["username"], members["password"]


async def created(rotator: PostgresRotator, password: str, old: Secret | None = None) -> Step:
    step = Step(NAME, "run", old, None)
    return replace(step, new=(await rotator.create(step, generator(password))).payload)


async def refused(call) -> RotatorFailed:
    with pytest.raises(RotatorFailed) as caught:
        await call
    return caught.value


def test_the_verifier_is_the_one_of_rfc_7677():
    # RFC 7677, section 3: user "user", password "pencil".  Its ServerSignature follows from the ServerKey.
    verifier = scram_verifier(Secret(b"pencil"), 4096, bytes.fromhex("5b6d99689d1235 8eec a04b 14 1236 fa 81"))
    assert verifier == (
        "SCRAM-SHA-256$4096:W22ZaJ0SNY7soEsUEjb6gQ==$WG5d8oPm3OtcPnkdi4Uo7BkeZkBFzpcXkuLmtbsT4qY=:"
        "wfPLwcE6nTWhTAmQ7tl2KeoiWGPlZqQxSrmfPwDl2dU="
    )


async def test_two_roles_take_turns(server, rotator):
    first = await created(rotator, "first password")
    await rotator.set(first)
    await rotator.test(first)
    await rotator.retire(first)
    assert login(first.new) == (USERS[0], "first password")
    assert await server.logs_in(*login(first.new))

    second = await created(rotator, "second password", first.new)
    await rotator.set(second)
    await rotator.test(second)
    assert login(second.new) == (USERS[1], "second password")
    assert await server.logs_in(*login(first.new))
    await rotator.retire(second)
    assert not await server.logs_in(*login(first.new))
    assert await server.logs_in(*login(second.new))

    third = await created(rotator, "third password", second.new)
    assert login(third.new)[0] == USERS[0]


async def test_every_stage_can_be_repeated(server, rotator):
    first = await created(rotator, "password 1")
    second = await created(rotator, "password 2", first.new)
    for step in (first, second):
        for stage in (rotator.set, rotator.set, rotator.test, rotator.test, rotator.retire, rotator.retire):
            await stage(step)
    assert await server.logs_in(*login(second.new))
    for _ in range(2):
        await rotator.roll_back(second)
    assert not server.has_password(USERS[1])


async def test_rolling_back_leaves_the_old_password_alone(server, rotator):
    first = await created(rotator, "stays")
    await rotator.set(first)
    second = await created(rotator, "goes", first.new)
    await rotator.set(second)
    await rotator.roll_back(second)
    assert await server.logs_in(*login(first.new))
    assert not server.has_password(USERS[1])


async def test_the_server_never_sees_a_password(server, rotator):
    step = await created(rotator, "canary-7f3a9c")
    await rotator.set(step)
    await rotator.test(step)
    assert "ALTER ROLE" in server.log
    assert "canary-7f3a9c" not in server.log


async def test_other_members_of_the_payload_are_kept(rotator):
    old = Secret(orjson.dumps({"username": USERS[0], "password": "x", "options": "-c statement_timeout=5s"}))
    new = await rotator.create(Step(NAME, "run", old, None), generator("y"))
    members = orjson.loads(new.payload.expose("test"))
    assert new.content_type == "application/json"
    assert members["options"] == "-c statement_timeout=5s"
    assert (members["username"], members["password"], members["dbname"]) == (USERS[1], "y", DATABASE)


@pytest.mark.parametrize("payload", [b"hunter2", b'"orders_a"', b'{"username": "postgres"}', b"{}", b"\xff"])
async def test_a_payload_that_does_not_say_who_is_in_use_stops_everything(rotator, payload):
    error = await refused(rotator.create(Step(NAME, "run", Secret(payload), None), generator("x")))
    assert (error.reason, error.lasting) == ("PAYLOAD_UNKNOWN", True)


async def test_a_payload_that_was_destroyed_does_not_say_who_is_in_use_either(rotator):
    step = Step(NAME, "run", None, None, old_lost=True)
    new = Secret(orjson.dumps({"username": USERS[0], "password": "x"}))
    for call in (rotator.create(step, generator("x")), rotator.set(replace(step, new=new))):
        error = await refused(call)
        assert (error.reason, error.lasting, error.untouched) == ("PAYLOAD_UNKNOWN", True, True)


@pytest.mark.parametrize("password", ["", "with\nnewline", "p\u00e4ss"])
async def test_a_password_that_saslprep_would_change_is_refused(rotator, password):
    error = await refused(created(rotator, password))
    assert (error.reason, error.lasting) == ("PASSWORD_NOT_PLAIN", True)


async def test_the_role_in_use_is_never_changed(server, rotator):
    step = await created(rotator, "in use")
    await rotator.set(step)
    same = replace(step, old=step.new)
    assert (await refused(rotator.set(same))).reason == "ROLE_IN_USE"
    assert (await refused(rotator.roll_back(same))).reason == "ROLE_IN_USE"
    assert await server.logs_in(*login(step.new))


async def test_an_admin_who_is_refused_is_said_to_be(server):
    rotator = rotator_of(server, password="wrong, canary-11")
    error = await refused(rotator.set(await created(rotator, "x")))
    assert (error.reason, error.lasting, error.untouched) == ("POSTGRES_LOGIN_REFUSED", True, True)
    assert "canary" not in error.text


async def test_an_admin_without_the_right_is_said_to_be_one(server):
    rotator = rotator_of(server, admin="bystander", password="bystander")
    error = await refused(rotator.set(await created(rotator, "canary-12")))
    assert (error.reason, error.lasting) == ("POSTGRES_STATEMENT_REFUSED", True)
    assert "42501" in error.text
    assert "SCRAM" not in error.text


async def test_a_role_that_does_not_exist_is_said_not_to(server):
    rotator = rotator_of(server, users=("nobody_a", "nobody_b"))
    error = await refused(rotator.set(await created(rotator, "x")))
    assert (error.reason, "42704" in error.text) == ("POSTGRES_STATEMENT_REFUSED", True)


async def test_a_new_password_that_does_not_log_in_fails_its_test(server, rotator):
    step = await created(rotator, "never set")
    assert (await refused(rotator.test(step))).reason == "POSTGRES_LOGIN_REFUSED"


async def test_a_server_that_is_away_is_worth_another_try(server):
    rotator = rotator_of(server, port=free_port())
    error = await refused(rotator.set(await created(rotator, "x")))
    assert (error.reason, error.lasting, error.untouched) == ("UNREACHABLE", False, True)


async def test_a_certificate_of_another_authority_is_refused(server, tmp_path):
    from pki import Authority

    other = tmp_path / "other.crt"
    other.write_bytes(Authority().pem())
    rotator = rotator_of(server, ca_file=other)
    assert (await refused(rotator.set(await created(rotator, "x")))).reason == "TLS_REFUSED"


async def test_the_name_in_the_certificate_counts_unless_it_is_said_not_to(server):
    elsewhere = "127.0.0.2"  # where the server listens, too, and what its certificate does not name
    strict = rotator_of(server, host=elsewhere)
    assert (await refused(strict.set(await created(strict, "x")))).reason == "TLS_REFUSED"
    lenient = rotator_of(server, host=elsewhere, tls="verify-ca")
    await lenient.set(await created(lenient, "x"))


async def test_a_server_without_tls_gets_no_password(server):
    async def refuse_tls(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        seen.append(await reader.readexactly(8))
        writer.write(b"N")
        seen.append(await reader.read(64))
        writer.close()
        over.set()

    seen: list[bytes] = []
    over = asyncio.Event()
    plain = await asyncio.start_server(refuse_tls, "127.0.0.1", 0)
    async with plain:
        rotator = rotator_of(server, port=plain.sockets[0].getsockname()[1])
        error = await refused(rotator.set(await created(rotator, "x")))
        await asyncio.wait_for(over.wait(), 10)
    assert error.reason == "UNREACHABLE"
    assert seen[1:] == [b""]


async def test_the_environment_is_not_asked(server, rotator, monkeypatch):
    for name, value in {
        "PGHOST": "203.0.113.1",
        "PGPORT": "1",
        "PGUSER": "postgres",
        "PGPASSWORD": "wrong",
        "PGSSLMODE": "disable",
        "PGDATABASE": "postgres",
        "PGSSLROOTCERT": "/nonexistent",
        "PGTARGETSESSIONATTRS": "standby",
    }.items():
        monkeypatch.setenv(name, value)
    step = await created(rotator, "as configured")
    await rotator.set(step)
    await rotator.test(step)
