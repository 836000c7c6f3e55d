"""Typed settings from one YAML file, with overrides from the environment (`VAULTD_STORE__PATH=...`).

Unknown keys are errors.  Errors name the path of the key and never quote its value.  Relative paths are taken from the
directory of the file.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Final, Literal

import yaml
from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    StrictBool,
    StrictInt,
    StrictStr,
    ValidationError,
    field_validator,
    model_validator,
)
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict, SettingsError

from vaultd.audit.shipping.settings import SinkSection  # noqa: TC001  # pydantic reads the annotations
from vaultd.backends.pkcs11.uri import TokenSelector, parse_uri
from vaultd.engine.buckets import Window
from vaultd.engine.clock import SECOND_US
from vaultd.errors import VaultdError
from vaultd.rotation_config import RotationSection

MAX_FILE_BYTES: Final = 8 * 1024 * 1024


class ConfigError(Exception):
    """The configuration cannot be used.  Each line of the text names a key and says what is wrong with it."""


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)


class TlsSection(_Section):
    """The server's certificate.  Files are read again when they change and on SIGHUP."""

    certificate: Path
    key: Path


class TrustBundleSection(_Section):
    """Certificate authorities, and the one kind of name that they may vouch for."""

    name: str = Field(min_length=1, max_length=64)
    ca: Path
    crl: Path | None = None
    trust_domain: str = Field(default="", max_length=255, pattern=r"^[a-z0-9._-]*$")
    dns_suffixes: tuple[str, ...] = ()

    @model_validator(mode="after")
    def _one_kind(self) -> TrustBundleSection:
        if bool(self.trust_domain) == bool(self.dns_suffixes):
            raise ValueError("set exactly one of trust_domain and dns_suffixes")
        return self


class WindowSection(_Section):
    """A further window of a rate limit: `count` every `period_s`, `burst` of it at once (0: all of it)."""

    count: int = Field(ge=1, le=10**12)
    period_s: float = Field(ge=0.001, le=366 * 86_400)
    burst: int = Field(default=0, ge=0, le=10**12)


class RateSection(_Section):
    """A rate limit: `per_second` on average, `burst` at once, and in each further window what that says."""

    per_second: int = Field(ge=1, le=10_000_000)
    burst: int = Field(ge=1, le=100_000_000)
    windows: tuple[WindowSection, ...] = Field(default=(), max_length=7)

    @model_validator(mode="after")
    def _periods(self) -> RateSection:
        periods = [1_000_000, *(round(window.period_s * 1_000_000) for window in self.windows)]
        if len(set(periods)) < len(periods):
            raise ValueError("windows: each must have a period of its own, and not of one second")
        return self

    def all_windows(self) -> tuple[Window, ...]:
        """The windows as quotas have them, that of a second first."""
        further = (Window(more.count, round(more.period_s * SECOND_US), more.burst) for more in self.windows)
        return Window(self.per_second, SECOND_US, self.burst), *further


class KubernetesSection(_Section):
    """Service accounts that may call: of these namespaces, or these `namespace/name`; with neither, all of the cluster."""

    namespaces: tuple[str, ...] = ()
    service_accounts: tuple[str, ...] = ()

    @field_validator("service_accounts")
    @classmethod
    def _both_parts(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        if any(len(account.split("/")) != 2 for account in value):
            raise ValueError("each must be namespace/name")
        return value


ClaimValues = tuple[StrictBool | StrictInt | StrictStr, ...]


class IssuerSection(_Section):
    """Who issues tokens, where its keys are, and what its tokens must say."""

    id: str = Field(pattern=r"^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$")
    issuer: str = Field(pattern=r"^[!-~]{1,512}$")
    audiences: tuple[str, ...] = Field(min_length=1, max_length=16)
    algorithms: tuple[
        Literal["RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA"], ...
    ] = Field(default=("RS256", "ES256"), min_length=1)
    jwks_file: Path | None = None
    jwks_url: str = Field(default="", max_length=2_048)
    discovery: bool = False
    ca_file: Path | None = None
    token_file: Path | None = None
    allow_http: bool = False
    refresh_s: float = Field(default=300.0, ge=10, le=86_400)
    min_refresh_s: float = Field(default=10.0, ge=1, le=3_600)
    stale_s: float = Field(default=3_600.0, ge=60, le=7 * 86_400)
    timeout_s: float = Field(default=5.0, gt=0, le=30)
    bound_claims: dict[str, ClaimValues] = Field(default_factory=dict, max_length=16)
    claims: tuple[str, ...] = Field(default=(), max_length=16)
    kubernetes: KubernetesSection | None = None
    leeway_s: int = Field(default=30, ge=0, le=300)
    max_lifetime_s: int = Field(default=86_400, ge=60, le=366 * 86_400)

    @field_validator("bound_claims", mode="before")
    @classmethod
    def _one_is_a_list(cls, value: Any) -> Any:
        if not isinstance(value, dict):
            return value
        return {name: list(one) if isinstance(one, list | tuple) else [one] for name, one in value.items()}

    @model_validator(mode="after")
    def _keys(self) -> IssuerSection:
        from vaultd.hosts.https import check_url

        if [self.jwks_file is not None, bool(self.jwks_url), self.discovery].count(True) != 1:
            raise ValueError("set exactly one of jwks_file, jwks_url and discovery")
        if self.jwks_url or self.discovery:
            check_url(self.jwks_url or self.issuer, allow_http=self.allow_http)
        if self.token_file is not None and not self.jwks_url.startswith("https:"):
            raise ValueError("token_file goes with a jwks_url of https, and is sent nowhere else")
        if self.stale_s < self.refresh_s:
            raise ValueError("stale_s must not be less than refresh_s")
        if any(not values for values in self.bound_claims.values()):
            raise ValueError("bound_claims: each claim needs a value")
        return self


class PairSection(_Section):
    """A client certificate and a token that may come together, and which of the two is the principal."""

    trust_bundle: str
    issuer: str
    principal: Literal["certificate", "token"]


class JwtSection(_Section):
    """Bearer tokens as identities."""

    issuers: tuple[IssuerSection, ...] = Field(default=(), max_length=32)
    pairs: tuple[PairSection, ...] = ()
    checks_per_address: RateSection = RateSection(per_second=200, burst=2_000)

    @model_validator(mode="after")
    def _distinct(self) -> JwtSection:
        ids = [section.id for section in self.issuers]
        if len(set(ids)) != len(ids) or len({section.issuer for section in self.issuers}) != len(ids):
            raise ValueError("two issuers have one id, or one issuer URL")
        if len({(pair.trust_bundle, pair.issuer) for pair in self.pairs}) != len(self.pairs):
            raise ValueError("pairs: two are of one trust bundle and issuer")
        if any(pair.issuer not in ids for pair in self.pairs):
            raise ValueError("pairs: no issuer has this id")
        return self


class StoreSection(_Section):
    """Durable rows."""

    path: Path
    feed_poll_ms: int = Field(default=100, ge=10, le=10_000)


class PinSection(_Section):
    """Where the PIN of a token is kept: a file, a systemd credential, or a variable."""

    path: Path | None = None
    credential: str | None = Field(default=None, pattern=r"^[A-Za-z0-9._-]{1,255}$")
    environment: str | None = Field(default=None, pattern=r"^[A-Z][A-Z0-9_]{0,127}$")

    @model_validator(mode="after")
    def _one_source(self) -> PinSection:
        if [self.path, self.credential, self.environment].count(None) != 2:
            raise ValueError("set exactly one of path, credential and environment")
        return self


class HsmSection(_Section):
    """A slot: one token of one PKCS#11 module.  New keys are made in the first slot of the list.

    `name` is stored with the keys: it must not change.  The token is chosen by label, serial number or an RFC 7512 URI; what
    they say of the same thing must be the same.
    """

    name: str = Field(pattern=r"^[a-z0-9]([a-z0-9-]{0,30}[a-z0-9])?$")
    module: Path | None = None
    token_label: str = Field(default="", max_length=32)
    token_serial: str = Field(default="", max_length=16)
    uri: str = Field(default="", max_length=2_048)
    pin: PinSection | None = None
    sessions: int = Field(default=0, ge=0, le=256, description="0: as many as there are cores")
    max_queued: int = Field(default=20_000, ge=1, le=1_000_000)
    operation_timeout_s: float = Field(default=10.0, gt=0, le=600)
    generation_timeout_s: float = Field(default=120.0, gt=0, le=3_600)
    environment: dict[str, str] = Field(default_factory=dict, description="variables for the module")

    @model_validator(mode="after")
    def _token(self) -> HsmSection:
        self.resolved()
        return self

    def resolved(self) -> TokenSelector:
        """What all the ways of saying it come to; raises ValueError when they contradict each other."""
        said = TokenSelector(
            module=str(self.module) if self.module is not None else "",
            label=self.token_label,
            serial=self.token_serial,
            pin_path=str(self.pin.path) if self.pin is not None and self.pin.path is not None else "",
        )
        selector = said.merged(parse_uri(self.uri)) if self.uri else said
        if not selector.module:
            raise ValueError("set module, or module-path in uri")
        if not (selector.label or selector.serial):
            raise ValueError("set token_label or token_serial, or token or serial in uri")
        if self.pin is None and not selector.pin_path:
            raise ValueError("set pin, or pin-source in uri")
        if self.pin is not None and self.pin.path is None and selector.pin_path:
            raise ValueError("pin and the uri's pin-source contradict each other")
        return selector


class RootKeySection(_Section):
    """What wraps the key ring: a file (development), a passphrase (given to Unseal), a credential, or a token's key."""

    provider: Literal["file", "passphrase", "credential", "pkcs11"]
    slot: str | None = Field(default=None, pattern=r"^[a-z0-9-]{1,32}$")
    path: Path | None = None
    credential: str | None = Field(default=None, pattern=r"^[A-Za-z0-9._-]{1,255}$")
    environment: str | None = Field(default=None, pattern=r"^[A-Z][A-Z0-9_]{0,127}$")

    @model_validator(mode="after")
    def _source(self) -> RootKeySection:
        given = {
            name
            for name, value in (
                ("path", self.path),
                ("credential", self.credential),
                ("environment", self.environment),
                ("slot", self.slot),
            )
            if value
        }
        allowed = {"file": {"path"}, "pkcs11": {"slot"}, "credential": {"path", "credential", "environment"}}
        wanted = {"file": 1, "passphrase": 0, "credential": 1, "pkcs11": 1}[self.provider]
        if len(given) != wanted or not given <= allowed.get(self.provider, set()):
            needs = {
                "pkcs11": "provider `pkcs11` needs slot, the name of one of hsm",
                "file": "provider `file` needs path",
                "passphrase": "provider `passphrase` takes nothing else",
                "credential": "provider `credential` needs exactly one of path, credential, environment",
            }
            raise ValueError(needs[self.provider])
        return self


class AuditSection(_Section):
    """The audit log: where it is, what waits for the disk, when it is signed, how long it is kept, and where records go."""

    directory: Path
    sync: tuple[Literal["mutation", "admin", "read", "symmetric", "asymmetric"], ...] = ("mutation",)
    batch_items: bool = False
    checkpoint_interval_s: float = Field(default=10.0, ge=0.1, le=86_400)
    post_quantum: bool = False
    min_free_bytes: int = Field(default=64 * 1024 * 1024, ge=0, le=2**50, description="0: not looked at")
    segment_bytes: int = Field(default=256 * 1024 * 1024, ge=1_024, le=2**34)
    segment_age_s: float = Field(default=86_400.0, ge=1, le=366 * 86_400)
    compress: bool = True
    compress_after_s: float = Field(default=60.0, ge=0, le=366 * 86_400)
    retention_days: float = Field(default=0.0, ge=0, le=36_600, description="0: kept for ever")
    sinks: tuple[SinkSection, ...] = Field(default=(), max_length=16)

    @field_validator("sinks")
    @classmethod
    def _distinct(cls, value: tuple[SinkSection, ...]) -> tuple[SinkSection, ...]:
        if len({section.name for section in value}) != len(value):
            raise ValueError("two sinks have one name")
        if sum(section.kind == "stdout" for section in value) > 1:
            raise ValueError("there is one standard output")
        return value


def _rate(per_second: int, burst: int) -> RateSection:
    return RateSection(per_second=per_second, burst=burst)


class LimitsSection(_Section):
    """What one principal may ask, by class of operation; and calls in flight."""

    symmetric: RateSection = _rate(200_000, 400_000)
    asymmetric: RateSection = _rate(50_000, 100_000)
    read: RateSection = _rate(5_000, 10_000)
    mutation: RateSection = _rate(2_000, 4_000)
    admin: RateSection = _rate(50, 100)
    unary_in_flight: int = Field(default=512, ge=1, le=100_000)
    unary_in_flight_per_principal: int = Field(default=256, ge=1, le=100_000)
    overload_delay_ms: int = Field(default=50, ge=0, le=10_000, description="0: nothing is shed")
    streams: int = Field(default=2_000, ge=1, le=1_000_000)
    streams_per_principal: int = Field(default=1_024, ge=1, le=1_000_000)
    stream_mib: int = Field(default=512, ge=8, le=1_048_576)
    stream_mib_per_principal: int = Field(default=128, ge=8, le=1_048_576)
    receive_timeout_s: float = Field(default=10.0, gt=0, le=300)
    unary_timeout_s: float = Field(default=30.0, gt=0, le=600)
    least_deadline_ms: int = Field(default=50, ge=0, le=10_000)
    messages_per_version: int | None = Field(default=None, ge=1_024, le=2**32)


class LifecycleSection(_Section):
    """Delays that protect against haste."""

    default_destroy_delay_s: int = Field(default=30 * 86_400, ge=0, le=120 * 86_400)
    min_destroy_delay_s: int = Field(default=86_400, ge=0, le=120 * 86_400)
    deletion_retention_s: int = Field(default=30 * 86_400, ge=0, le=365 * 86_400)
    scheduler_interval_ms: int = Field(default=1_000, ge=10, le=60_000)


class SecretsSection(_Section):
    """Secrets in memory: sealed as they are stored, so that an access need not ask the store."""

    max_cached_mib: int = Field(default=64, ge=1, le=65_536)


class BackendSection(_Section):
    """The software backend."""

    threads: int = Field(default=0, ge=0, le=256, description="0: as many as there are cores")
    max_queued: int = Field(default=20_000, ge=1, le=1_000_000)
    max_cached_keys: int = Field(default=100_000, ge=1, le=100_000_000)


class LogSection(_Section):
    """The server's own log, on standard error."""

    level: Literal["debug", "info", "warning", "error"] = "info"
    format: Literal["json", "console"] = "json"


HOST_PORT: Final = r"^((\[[0-9a-fA-F:]+\]|[A-Za-z0-9.-]+):[0-9]{1,5})?$"


class MetricsSection(_Section):
    """Metrics and plain HTTP health, on a listener without TLS: loopback, unless the address says otherwise."""

    listen: Annotated[str, Field(pattern=HOST_PORT)] = ""
    max_vaults: int = Field(default=100, ge=0, le=10_000)
    max_principals: int = Field(default=20, ge=0, le=1_000)
    push_interval_s: float = Field(default=0.0, ge=0, le=3_600, description="0: not pushed; needs otlp.endpoint")


class OtlpSection(_Section):
    """The OpenTelemetry collector, over gRPC: traces go there, and metrics where `metrics.push_interval_s` says so."""

    endpoint: str = Field(default="", max_length=512, pattern=r"^(https?://[A-Za-z0-9.\-\[\]:]+)?$")
    ca: Path | None = None
    certificate: Path | None = None
    key: Path | None = None
    timeout_s: float = Field(default=5.0, gt=0, le=60)
    resource: dict[str, str] = Field(default_factory=dict, max_length=32)

    @model_validator(mode="after")
    def _tls(self) -> OtlpSection:
        if (self.certificate is None) != (self.key is None):
            raise ValueError("certificate and key go together")
        if (self.ca or self.certificate) and not self.endpoint.startswith("https:"):
            raise ValueError("ca, certificate and key are for an endpoint of https")
        return self


class TracesSection(_Section):
    """Which calls are traced, where there is a collector."""

    ratio: float = Field(default=0.0, ge=0, le=1)
    follow_parent: bool = True
    max_per_second: int = Field(default=100, ge=1, le=100_000)
    max_queued: int = Field(default=2_048, ge=1, le=1_000_000)


class EnvoySection(_Section):
    """The Envoy of `host: envoy`."""

    concurrency: int = Field(default=1, ge=1, le=64, description="threads of Envoy, beside the one that runs Python")
    max_connections: int = Field(default=10_000, ge=1, le=1_000_000)


class Settings(BaseSettings):
    """All that is in force."""

    model_config = SettingsConfigDict(
        extra="forbid", frozen=True, hide_input_in_errors=True, env_prefix="VAULTD_", env_nested_delimiter="__"
    )

    listen: Annotated[str, Field(pattern=r"^(\[[0-9a-fA-F:]+\]|[A-Za-z0-9.-]+):[0-9]{1,5}$")] = "127.0.0.1:7443"
    listen_tls: Annotated[str, Field(pattern=r"^((\[[0-9a-fA-F:]+\]|[A-Za-z0-9.-]+):[0-9]{1,5})?$")] = ""
    host: Literal["grpc", "envoy"] = "grpc"
    envoy: EnvoySection = EnvoySection()
    jwt: JwtSection = JwtSection()
    tls: TlsSection
    trust_bundles: tuple[TrustBundleSection, ...] = Field(min_length=1)
    operators: tuple[str, ...] = ()
    store: StoreSection
    root_key: RootKeySection
    audit: AuditSection
    limits: LimitsSection = LimitsSection()
    lifecycle: LifecycleSection = LifecycleSection()
    rotation: RotationSection = RotationSection()
    secrets: SecretsSection = SecretsSection()
    software: BackendSection = BackendSection()
    hsm: tuple[HsmSection, ...] = ()
    log: LogSection = LogSection()
    metrics: MetricsSection = MetricsSection()
    otlp: OtlpSection = OtlpSection()
    traces: TracesSection = TracesSection()
    reflection: bool = False
    workers: int = Field(default=1, ge=1, le=64)
    drain_grace_s: float = Field(default=20.0, ge=0, le=600)

    def host_problem(self) -> str:
        """Why host and workers do not go together; empty when they do."""
        if self.host == "envoy" and self.workers > 1:
            return "workers: an Envoy has one process that serves; leave workers at 1, or take host grpc"
        return ""

    @model_validator(mode="after")
    def _host(self) -> Settings:
        if problem := self.host_problem():
            raise ValueError(problem)
        return self

    @field_validator("listen", "listen_tls")
    @classmethod
    def _port(cls, value: str) -> str:
        if value and int(value.rpartition(":")[2]) > 65_535:
            raise ValueError("the port must be 0 to 65535")
        return value

    @field_validator("trust_bundles")
    @classmethod
    def _bundles(cls, value: tuple[TrustBundleSection, ...]) -> tuple[TrustBundleSection, ...]:
        if len({section.name for section in value}) != len(value):
            raise ValueError("two bundles have one name")
        return value

    @model_validator(mode="after")
    def _tokens(self) -> Settings:
        bundles = {section.name for section in self.trust_bundles}
        if any(pair.trust_bundle not in bundles for pair in self.jwt.pairs):
            raise ValueError("jwt.pairs: no trust bundle has this name")
        if self.listen_tls and not self.jwt.issuers:
            raise ValueError("listen_tls: only callers with a token get in there; set jwt.issuers")
        return self

    @model_validator(mode="after")
    def _collector(self) -> Settings:
        if self.metrics.push_interval_s and not self.otlp.endpoint:
            raise ValueError("metrics.push_interval_s: set otlp.endpoint, where they go")
        if self.traces.ratio and not self.otlp.endpoint:
            raise ValueError("traces.ratio: set otlp.endpoint, where they go")
        return self

    @model_validator(mode="after")
    def _slots(self) -> Settings:
        names = [section.name for section in self.hsm]
        if len(names) != len(set(names)):
            raise ValueError("hsm: two slots have one name")
        if self.root_key.provider == "pkcs11" and self.root_key.slot not in names:
            raise ValueError("root_key.slot: no slot of this name in hsm")
        return self

    @field_validator("operators")
    @classmethod
    def _principals(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        from vaultd.engine.policy import is_principal

        if not all(is_principal(principal) for principal in value):
            raise ValueError("each must be a principal such as spiffe://example.org/operator or dns:ops.example.org")
        return value

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """The environment overrides the file."""
        del settings_cls, dotenv_settings, file_secret_settings
        return env_settings, init_settings


class _StrictLoader(yaml.SafeLoader):
    """Safe YAML without its two traps: duplicate keys are errors, and aliases are refused."""

    def compose_node(self, parent: Any, index: Any) -> Any:
        if self.check_event(yaml.AliasEvent):
            raise yaml.YAMLError("aliases are not allowed")
        return super().compose_node(parent, index)

    def construct_mapping(self, node: Any, deep: bool = False) -> dict[Any, Any]:
        keys = [self.construct_object(key, deep=True) for key, _ in node.value]
        if len(keys) != len(set(map(str, keys))):
            raise yaml.YAMLError(f"line {node.start_mark.line + 1}: a key appears twice")
        return super().construct_mapping(node, deep=deep)


def read_yaml(path: Path) -> Any:
    """Read a YAML file; raises ConfigError with the line of what is wrong."""
    try:
        if path.stat().st_size > MAX_FILE_BYTES:
            raise ConfigError(f"{path}: larger than {MAX_FILE_BYTES} bytes")
        text = path.read_text(encoding="utf-8")
        return yaml.load(text, Loader=_StrictLoader)  # noqa: S506  # a SafeLoader
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not UTF-8"
        raise ConfigError(f"{path}: {reason}") from error
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 0
        raise ConfigError(f"{path}: line {line}: {error.problem}") from error
    except yaml.YAMLError as error:
        raise ConfigError(f"{path}: {error}") from error


def load_settings(path: Path) -> Settings:
    """Read and check a configuration file; raises ConfigError with one line per bad or unknown key."""
    document = read_yaml(path)
    if not isinstance(document, dict):
        raise ConfigError(f"{path}: the file must be a mapping of keys")
    try:
        settings = Settings(**{str(key): value for key, value in document.items()})
    except ValidationError as error:
        lines = []
        for problem in error.errors(include_input=False, include_url=False, include_context=False):
            where = ".".join(str(part) for part in problem["loc"]) or "configuration"
            lines.append(f"{where}: {problem['msg']}")
        raise ConfigError("\n".join(lines)) from None
    except SettingsError as error:
        raise ConfigError(f"environment: {error}; nested keys are spelled VAULTD_SECTION__KEY") from None
    except VaultdError as error:
        raise ConfigError(error.text) from None
    placed: Settings = _absolute(settings, path.resolve().parent)
    return placed


def _absolute(value: Any, base: Path) -> Any:
    """Take relative paths from the directory of the file."""
    changes: dict[str, Any] = {}
    for name in type(value).model_fields:
        inner = getattr(value, name)
        if isinstance(inner, Path):
            changes[name] = base / inner
        elif isinstance(inner, BaseModel):
            changes[name] = _absolute(inner, base)
        elif isinstance(inner, tuple) and inner and isinstance(inner[0], BaseModel):
            changes[name] = tuple(_absolute(item, base) for item in inner)
    return value.model_copy(update=changes)
