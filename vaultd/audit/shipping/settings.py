"""Sinks as they are configured.  Only the configuration file names sinks: no RPC adds, changes or removes one."""

from __future__ import annotations

from pathlib import Path  # noqa: TC003  # pydantic reads the annotations
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from vaultd.audit.shipping.syslog import FacilityName  # noqa: TC001  # as above
from vaultd.hosts.https import check_url, is_loopback

Address = Annotated[str, Field(pattern=r"^(\[[0-9a-fA-F:]+\]|[A-Za-z0-9.-]+):[0-9]{1,5}$", max_length=512)]


class _Sink(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)

    name: str = Field(pattern=r"^[a-z0-9]([a-z0-9-]{0,30}[a-z0-9])?$")
    format: Literal["json", "ocsf"] = "json"
    required: bool = False
    require: Literal["mutations", "all"] = "mutations"
    start: Literal["oldest", "newest"] = "oldest"
    timeout_s: float = Field(default=5.0, gt=0, le=60)
    hold_s: float = Field(default=7 * 86_400.0, ge=0, le=366 * 86_400)

    @model_validator(mode="after")
    def _of_what(self) -> _Sink:
        if self.name == "file":
            raise ValueError("the name `file` is that of the log's own files, in metrics")
        if "require" in self.model_fields_set and not self.required:
            raise ValueError("require says for which calls, and needs required: true")
        return self


class StdoutSinkSection(_Sink):
    """A line of JSON a record, on standard output."""

    kind: Literal["stdout"]


class _Remote(_Sink):
    ca_file: Path | None = None
    certificate: Path | None = None
    key: Path | None = None
    allow_plaintext: bool = False

    @model_validator(mode="after")
    def _pair(self) -> _Remote:
        if (self.certificate is None) != (self.key is None):
            raise ValueError("certificate and key go together")
        return self


class _Addressed(_Remote):
    address: Address
    tls: bool = True

    @model_validator(mode="after")
    def _plaintext(self) -> _Addressed:
        if int(self.port) > 65_535 or not int(self.port):
            raise ValueError("address: the port must be 1 to 65535")
        if not self.tls and not self.allow_plaintext and not is_loopback(self.host):
            raise ValueError("tls: false is for this machine only, unless allow_plaintext is set")
        if not self.tls and (self.ca_file or self.certificate):
            raise ValueError("ca_file and certificate go with tls")
        return self

    @property
    def host(self) -> str:
        """Without the brackets of an IPv6 address."""
        return self.address.rpartition(":")[0].strip("[]")

    @property
    def port(self) -> int:
        return int(self.address.rpartition(":")[2])


class SyslogSinkSection(_Addressed):
    """RFC 5424 over TLS or TCP."""

    kind: Literal["syslog"]
    facility: FacilityName = "audit"
    hostname: str = Field(default="", pattern=r"^[!-~]{0,255}$")


class OtlpSinkSection(_Addressed):
    """OTLP logs over gRPC."""

    kind: Literal["otlp"]
    token_file: Path | None = None

    @model_validator(mode="after")
    def _token(self) -> OtlpSinkSection:
        if self.token_file is not None and not self.tls and not is_loopback(self.host):
            raise ValueError("token_file goes with tls, and is sent nowhere else")
        return self


class WebhookSinkSection(_Remote):
    """Signed POSTs."""

    kind: Literal["webhook"]
    url: str = Field(max_length=2_048)
    secret_file: Path
    token_file: Path | None = None

    @model_validator(mode="after")
    def _url(self) -> WebhookSinkSection:
        secure = self.url.startswith("https:")
        check_url(
            self.url if secure or not self.allow_plaintext else f"https:{self.url.removeprefix('http:')}",
            allow_http=True,
        )
        if not secure and (self.ca_file or self.certificate):
            raise ValueError("ca_file and certificate go with https")
        if not secure and self.token_file is not None and self.allow_plaintext:
            raise ValueError("token_file goes with https, and is sent nowhere else")
        return self


SinkSection = Annotated[
    StdoutSinkSection | SyslogSinkSection | OtlpSinkSection | WebhookSinkSection, Field(discriminator="kind")
]
