"""pydantic-settings with a source that is a vault."""

from __future__ import annotations

import traceback
from typing import Annotated

import pytest
from pydantic import AliasChoices, BaseModel, Field, SecretBytes, SecretStr, ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict, SettingsError

from clients.sdk_rig import VAULT, Audit, identity, server_in_a_thread, sync_client
from harness import APP
from vaultd_client import Client
from vaultd_client.integrations.pydantic import VaultdSecret, VaultdSettingsSource

POLICY = {
    "bindings": [
        {"members": [APP], "role": "crypto-user", "resource": "vaults/default"},
        {"members": [APP], "role": "secret-reader", "resource": "vaults/default"},
    ]
}
PAYLOADS = {
    "db": b'{"username": "orders_a", "password": "hunter2", "port": 5432}',
    "api-token": b"t0ken",
    "binary": b"\xff\x00\xfe",
    "limits": b"[1, 2]",
    "withdrawn": b"s3cret",
}


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    directory = tmp_path_factory.mktemp("settings")
    with server_in_a_thread(directory, policy=POLICY) as server, sync_client(server, "admin") as admin:
        for secret_id, payload in PAYLOADS.items():
            admin.create_secret(VAULT, secret_id, payload=payload)
        admin.add_secret_version(f"{VAULT}/secrets/api-token", b"newer", keep_current=True)
        admin.disable_secret_version(f"{VAULT}/secrets/withdrawn/versions/1")
        yield server


@pytest.fixture(scope="module")
def vault(server):
    with sync_client(server) as vault:
        yield vault


def settings_of(fields: dict, *sources_after: str, source=VaultdSettingsSource, base=BaseSettings, **options):
    """A class of settings whose sources are arguments, environment, vault."""

    class Settings(base):
        __annotations__ = fields

        @classmethod
        def settings_customise_sources(cls, settings_cls, init_settings, env_settings, **_others):
            return init_settings, env_settings, source(settings_cls, **options)

    return Settings


class Database(BaseModel):
    host: str = "localhost"
    username: Annotated[SecretStr, VaultdSecret("db#username")]
    password: Annotated[SecretStr | None, VaultdSecret("db#password")] = None


class Parent(BaseModel):
    token: Annotated[SecretStr, VaultdSecret("api-token")]
    child: Child | None = None


class Child(BaseModel):
    password: Annotated[SecretStr | None, VaultdSecret("db#password")] = None
    parent: Parent | None = None


class Orders(BaseSettings):
    """What a service would write."""

    model_config = SettingsConfigDict(env_prefix="ORDERS_", env_nested_delimiter="__")

    database: Database
    token: Annotated[SecretStr, VaultdSecret(f"{VAULT}/secrets/api-token")]
    next_token: Annotated[SecretStr, VaultdSecret("api-token/versions/latest")]
    key: Annotated[SecretBytes, VaultdSecret("binary")]
    debug: bool = False

    @classmethod
    def settings_customise_sources(
        cls, settings_cls, init_settings, env_settings, dotenv_settings, file_secret_settings
    ):
        return init_settings, env_settings, VaultdSettingsSource(settings_cls)


@pytest.fixture
def environment(server, monkeypatch):
    names = {"ca": "VAULTD_CA", "certificate": "VAULTD_CERT", "key": "VAULTD_KEY"}
    for argument, path in identity(server.directory / "tls", "app").items():
        monkeypatch.setenv(names[argument], str(path))
    monkeypatch.setenv("VAULTD_ADDR", server.address)


@pytest.mark.usefixtures("environment")
def test_fields_of_all_models_are_filled_by_one_call(server, monkeypatch):
    monkeypatch.setenv("ORDERS_DEBUG", "true")
    monkeypatch.setenv("ORDERS_DATABASE__HOST", "db.internal")
    audit = Audit(server)
    orders = Orders()
    assert orders.database.username.get_secret_value() == "orders_a"
    assert orders.database.password.get_secret_value() == "hunter2"
    assert (orders.token.get_secret_value(), orders.next_token.get_secret_value()) == ("t0ken", "newer")
    assert orders.key.get_secret_value() == PAYLOADS["binary"]
    assert (orders.debug, orders.database.host) == (True, "db.internal")
    assert audit.methods() == ["BatchAccessSecretVersions"]
    assert audit.items() == [4]  # the secret of two fields is asked for once


@pytest.mark.usefixtures("environment")
def test_what_sources_before_it_give_is_not_asked_for(server, monkeypatch):
    monkeypatch.setenv("ORDERS_DATABASE__PASSWORD", "from the environment")
    monkeypatch.setenv("ORDERS_KEY", "k")
    audit = Audit(server)
    orders = Orders(token="argument")
    assert orders.database.password.get_secret_value() == "from the environment"
    assert orders.token.get_secret_value() == "argument"
    assert audit.items() == [2]


def test_models_that_refer_to_each_other_are_looked_at_once(vault):
    settings = settings_of({"parent": Parent}, client=vault)().parent
    assert settings.token.get_secret_value() == "t0ken"
    assert settings.child.password.get_secret_value() == "hunter2"
    assert settings.child.parent is None


def test_without_anything_missing_no_vault_is_needed(monkeypatch):
    monkeypatch.delenv("VAULTD_ADDR", raising=False)
    given = {"database": {"username": "u", "password": "p"}, "token": "t", "next_token": "n", "key": b"k"}
    assert Orders(**given).database.username.get_secret_value() == "u"
    with pytest.raises(
        SettingsError, match=r"no secrets for token \(vaults/default/secrets/api-token\): VAULTD_ADDR is not set"
    ):
        Orders(**{name: value for name, value in given.items() if name != "token"})


def test_fields_can_be_named_where_the_settings_are_not_ours(vault):
    secrets = {"token": "api-token", "database.username": "vaultd://vaults/default/secrets/db#username"}

    class Inner(BaseModel):
        username: SecretStr

    settings = settings_of({"token": SecretStr, "database": Inner}, client=vault, secrets=secrets)()
    assert (settings.token.get_secret_value(), settings.database.username.get_secret_value()) == ("t0ken", "orders_a")
    with pytest.raises(ValueError, match="Settings has no field tokn"):
        settings_of({"token": SecretStr}, client=vault, secrets={"tokn": "api-token"})()


def test_the_name_of_a_secret_alone_is_of_the_vault_of_the_source(vault):
    fields = {"token": Annotated[SecretStr, VaultdSecret("api-token")]}
    with pytest.raises(SettingsError, match=r"token \(vaults/production/secrets/api-token\): PERMISSION_DENIED"):
        settings_of(fields, client=vault, vault="vaults/production")()


def test_aliases_and_types_are_those_of_the_model(vault):
    class Hidden(BaseSettings):
        model_config = SettingsConfigDict(hide_input_in_errors=True)

    fields = {
        "token": Annotated[SecretStr, Field(validation_alias="TOKEN"), VaultdSecret("api-token")],
        "other": Annotated[SecretStr, Field(validation_alias=AliasChoices("a", "b")), VaultdSecret("api-token")],
        "port": Annotated[int, VaultdSecret("db#port")],
        "limits": Annotated[list[int], VaultdSecret("limits")],
        "raw": Annotated[bytes, VaultdSecret("binary")],
    }
    settings = settings_of(fields, base=Hidden, client=vault)()
    assert (settings.token.get_secret_value(), settings.other.get_secret_value()) == ("t0ken", "t0ken")
    assert (settings.port, settings.limits, settings.raw) == (5432, [1, 2], PAYLOADS["binary"])


def test_every_field_that_failed_is_named_with_its_secret_and_no_value(vault):
    fields = {
        "missing": Annotated[SecretStr, VaultdSecret("nothing")],
        "withdrawn": Annotated[SecretStr, VaultdSecret("withdrawn")],
        "member": Annotated[SecretStr, VaultdSecret("db#nobody")],
        "text": Annotated[SecretStr, VaultdSecret("binary")],
        "fine": Annotated[SecretStr, VaultdSecret("api-token")],
    }
    with pytest.raises(SettingsError) as refused:
        settings_of(fields, client=vault)()
    told = str(refused.value)
    for field, secret in (
        ("missing", "nothing"),
        ("withdrawn", "withdrawn"),
        ("member", "db#nobody"),
        ("text", "binary"),
    ):
        assert f"{field} ({VAULT}/secrets/{secret}): " in told
    assert "SECRET_VERSION_DISABLED" in told
    assert "is no JSON object with a member 'nobody'" in told
    assert "fine" not in told
    error, seen = refused.value, ""
    while error is not None:
        seen += "".join(traceback.format_exception(error)) + repr(vars(error))
        error = error.__cause__ or error.__context__
    assert not any(value in seen for value in ("hunter2", "orders_a", "s3cret", "t0ken", "\\xff"))


def test_a_field_that_errors_would_show_is_refused_before_anything_is_asked(vault):
    with pytest.raises(ValueError, match="token would be shown in errors of validation: make it a SecretStr"):
        settings_of({"token": Annotated[str, VaultdSecret("api-token")]}, client=vault)()
    short = {"token": Annotated[SecretStr, Field(max_length=2), VaultdSecret("api-token")]}
    with pytest.raises(ValidationError) as invalid:
        settings_of(short, client=vault)()
    assert "t0ken" not in str(invalid.value)


def test_a_vault_that_is_not_there_is_said_with_the_fields(tmp_path):
    fields = {"token": Annotated[SecretStr, VaultdSecret("api-token")]}
    with Client("127.0.0.1:1", token=lambda: "t", timeout_s=0.2) as gone:
        with pytest.raises(SettingsError, match=r"no secrets for token \(vaults/default/secrets/api-token\): "):
            settings_of(fields, client=gone)()
    with pytest.raises(ValueError, match="a reference is vaultd://vaults/VAULT/secrets/SECRET"):
        settings_of({"token": Annotated[SecretStr, VaultdSecret("no/secret")]}, client=gone)()
