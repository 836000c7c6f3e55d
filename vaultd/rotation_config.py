"""The `rotation` section of the configuration: targets of rotations, and how rotations are run."""

from __future__ import annotations

import re
from pathlib import Path  # noqa: TC003  # pydantic reads the annotations
from typing import Annotated, Final, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from vaultd.hosts.https import check_url, is_loopback
from vaultd.names import ID

_ROLE: Final = r"^[a-z_][a-z0-9_$]{0,62}$"
_SECRET: Final = re.compile(rf"vaults/{ID}/secrets/{ID}")
_VAULT: Final = re.compile(rf"vaults/{ID}")


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)


class CredentialSection(_Section):
    """Where a credential of vaultd's own is: a file, a systemd credential, a variable, or a secret of this vault."""

    path: Path | None = None
    credential: str | None = Field(default=None, pattern=r"^[A-Za-z0-9._-]{1,255}$")
    environment: str | None = Field(default=None, pattern=r"^[A-Z][A-Z0-9_]{0,127}$")
    secret: str | None = None

    @model_validator(mode="after")
    def _one_source(self) -> CredentialSection:
        if [self.path, self.credential, self.environment, self.secret].count(None) != 3:
            raise ValueError("set exactly one of path, credential, environment and secret")
        if self.secret is not None and not _SECRET.fullmatch(self.secret):
            raise ValueError("secret must be a full name, vaults/{vault}/secrets/{secret}")
        return self


class _Target(_Section):
    """What all targets have.  `secrets`: what may be rotated here, by full name, or all of a vault by the vault's name."""

    name: str = Field(pattern=r"^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$")
    secrets: tuple[str, ...] = Field(min_length=1, max_length=1_000)
    timeout_s: float = Field(default=10.0, gt=0, le=60)

    @field_validator("secrets")
    @classmethod
    def _names(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        if not all(_SECRET.fullmatch(name) or _VAULT.fullmatch(name) for name in value):
            raise ValueError("each must be vaults/{vault}/secrets/{secret}, or vaults/{vault}")
        return value


class PostgresTlsSection(_Section):
    """How connections to PostgreSQL are protected.  `disable` is for this machine only."""

    mode: Literal["verify-full", "verify-ca", "disable"] = "verify-full"
    ca_file: Path | None = None

    @model_validator(mode="after")
    def _authority(self) -> PostgresTlsSection:
        if self.mode == "verify-ca" and self.ca_file is None:
            raise ValueError("verify-ca needs ca_file: any host with a certificate of a public authority would do")
        return self


class PostgresAdminSection(_Section):
    """Whom vaultd logs in as to change passwords: a role and its password, or a secret that holds both."""

    username: str | None = Field(default=None, pattern=_ROLE)
    password: CredentialSection

    @model_validator(mode="after")
    def _whole(self) -> PostgresAdminSection:
        if (self.username is None) != (self.password.secret is not None):
            raise ValueError("set username, unless password is a secret: that holds username and password")
        return self


class PostgresTargetSection(_Target):
    """Two roles of a PostgreSQL server that take turns."""

    type: Literal["postgres"]
    host: str = Field(pattern=r"^[A-Za-z0-9.:_-]{1,255}$")
    port: int = Field(default=5432, ge=1, le=65_535)
    database: str = Field(pattern=r"^[A-Za-z0-9_$.-]{1,63}$")
    users: tuple[Annotated[str, Field(pattern=_ROLE)], Annotated[str, Field(pattern=_ROLE)]]
    admin: PostgresAdminSection
    tls: PostgresTlsSection = PostgresTlsSection()
    scram_iterations: int = Field(default=4_096, ge=4_096, le=1_000_000)

    @model_validator(mode="after")
    def _roles(self) -> PostgresTargetSection:
        if self.users[0] == self.users[1]:
            raise ValueError("users: two different roles take turns")
        if self.admin.username in self.users:
            raise ValueError("admin.username: the role that changes passwords is not one of users")
        if len(self.secrets) != 1 or not _SECRET.fullmatch(self.secrets[0]):
            raise ValueError("secrets: two roles belong to exactly one secret, by its full name")
        if self.secrets[0] == self.admin.password.secret:
            raise ValueError("admin.password: the secret that is rotated cannot hold the admin's password")
        if self.tls.mode == "disable" and not is_loopback(self.host):
            raise ValueError("tls.mode: disable is for a server on this machine only")
        return self


class WebhookTargetSection(_Target):
    """A service of yours that does the stages, over HTTPS with a signed body."""

    type: Literal["webhook"]
    url: str = Field(max_length=2_048)
    ca_file: Path
    certificate: Path | None = None
    key: Path | None = None
    hmac_key: CredentialSection

    @model_validator(mode="after")
    def _sound(self) -> WebhookTargetSection:
        check_url(self.url, allow_http=False)
        if (self.certificate is None) != (self.key is None):
            raise ValueError("certificate and key go together")
        if self.hmac_key.secret in self.secrets:
            raise ValueError("hmac_key: the secret that is rotated cannot hold the key of its own webhook")
        return self


TargetSection = PostgresTargetSection | WebhookTargetSection


class RotationSection(_Section):
    """Where secrets are rotated, how many at once, and how often what failed is tried again."""

    targets: tuple[Annotated[TargetSection, Field(discriminator="type")], ...] = Field(default=(), max_length=1_000)
    concurrency: int = Field(default=8, ge=1, le=256)
    lease_s: float = Field(default=60.0, ge=1, le=3_600)
    max_attempts: int = Field(default=5, ge=1, le=100)
    backoff_s: float = Field(default=1.0, gt=0, le=3_600)
    max_backoff_s: float = Field(default=300.0, gt=0, le=86_400)
    retry_s: float = Field(default=300.0, gt=0, le=86_400)
    max_retry_s: float = Field(default=21_600.0, gt=0, le=7 * 86_400)

    @model_validator(mode="after")
    def _consistent(self) -> RotationSection:
        names = [target.name for target in self.targets]
        if len(set(names)) != len(names):
            raise ValueError("targets: two have one name")
        roles = [
            (target.host, target.port, user)
            for target in self.targets
            if isinstance(target, PostgresTargetSection)
            for user in target.users
        ]
        if len(set(roles)) != len(roles):
            raise ValueError("targets: two have a role of one server in common")
        if any(target.timeout_s * 2 > self.lease_s for target in self.targets):
            raise ValueError("lease_s must be at least twice every target's timeout_s")
        if self.max_backoff_s < self.backoff_s or self.max_retry_s < self.retry_s:
            raise ValueError("max_backoff_s and max_retry_s must not be less than backoff_s and retry_s")
        return self
