"""Profiles: named sets of settings in `~/.config/vaultd/config.yaml` (XDG_CONFIG_HOME), for vaultctl and for `from_env()`.

There is no login and no stored session: a profile names files, or a command that prints a token, and never holds a secret.
"""

from __future__ import annotations

import os
import stat
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from vaultd_client.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Mapping

PROFILE: Final = "VAULTD_PROFILE"
_PATHS: Final = ("ca", "certificate", "key", "token_file")
_VARIABLES: Final = {
    "address": "VAULTD_ADDR",
    "ca": "VAULTD_CA",
    "certificate": "VAULTD_CERT",
    "key": "VAULTD_KEY",
    "server_name": "VAULTD_SERVER_NAME",
    "token_file": "VAULTD_TOKEN_FILE",
}
_CREDENTIALS: Final = ("VAULTD_CERT", "VAULTD_KEY", "VAULTD_TOKEN_FILE")


@dataclass(frozen=True, slots=True)
class Profile:
    """What a profile says.  Paths are absolute."""

    name: str
    address: str
    ca: str | None = None
    certificate: str | None = None
    key: str | None = None
    token_file: str | None = None
    token_command: tuple[str, ...] = ()
    server_name: str | None = None
    vault: str | None = None
    output: str | None = None
    needs: tuple[str, ...] = ()

    def variables(self) -> dict[str, str]:
        """The same as variables VAULTD_*."""
        values = asdict(self)
        return {variable: values[name] for name, variable in _VARIABLES.items() if values[name]}

    def below(self, said: Mapping[str, str]) -> tuple[dict[str, str], tuple[str, ...]]:
        """Variables that go before the profile, filled up from it; and the command for a token, if it is still in force.

        Credentials go together: where one of them is said, none of the profile's is taken.
        """
        mine = self.variables()
        command = self.token_command
        if any(said.get(name) for name in _CREDENTIALS):
            mine = {name: value for name, value in mine.items() if name not in _CREDENTIALS}
            command = ()
        return {**mine, **{name: value for name, value in said.items() if value}}, command


@dataclass(frozen=True, slots=True)
class ProfileFile:
    """The file: its profiles, and the current one."""

    path: Path
    current: str | None
    profiles: Mapping[str, Profile]

    def get(self, name: str) -> Profile:
        """A profile.  Raises ConfigurationError."""
        if name not in self.profiles:
            known = f"there are {', '.join(sorted(self.profiles))}" if self.profiles else "there is none"
            raise ConfigurationError(f"{self.path} has no profile `{name}`; {known}")
        return self.profiles[name]


def config_path(variables: Mapping[str, str] | None = None) -> Path:
    """Where the file is, whether it is there or not."""
    found = os.environ if variables is None else variables
    base = found.get("XDG_CONFIG_HOME") or str(Path(found.get("HOME") or Path.home()) / ".config")
    return Path(base) / "vaultd" / "config.yaml"


def read_profiles(path: Path) -> ProfileFile:
    """Read the file; one that is not there has no profiles.  Raises ConfigurationError, also when others may write to it: it can
    name a command."""
    from vaultd_client.schema import DocumentInvalid, check, load_schema, load_yaml

    try:
        status = path.stat()
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return ProfileFile(path, None, {})
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"{path} cannot be read: {error}") from None
    if stat.S_IMODE(status.st_mode) & 0o022 or status.st_uid not in {0, os.geteuid()}:
        raise ConfigurationError(
            f"others may write to {path}, which can name a command: `chmod 600 {path}`, and look at it"
        )
    try:
        document: Any = load_yaml(text) or {}
        schema = load_schema("client-config")
        check(document, schema, schema)
        profiles = {name: _profile(name, values, path) for name, values in (document.get("profiles") or {}).items()}
    except DocumentInvalid as error:
        raise ConfigurationError(f"{path}: {error}") from None
    return ProfileFile(path, document.get("current"), profiles)


def _profile(name: str, values: dict[str, Any], path: Path) -> Profile:
    from vaultd_client.schema import DocumentInvalid

    if ("certificate" in values) != ("key" in values):
        raise DocumentInvalid(f"profiles.{name}: `certificate` and `key` go together")
    if len({"certificate", "token_file", "token_command"} & set(values)) > 1:
        raise DocumentInvalid(f"profiles.{name}: say one of `certificate`, `token_file` and `token_command`")
    found = dict(values)
    for key in _PATHS:
        if key in found:
            found[key] = str(path.parent / Path(found[key]).expanduser())
    for key in ("token_command", "needs"):
        found[key] = tuple(found.get(key, ()))
    return Profile(name=name, **found)


def write_profiles(path: Path, document: Mapping[str, Any]) -> None:
    """Write the file, 0600, in place of the one that is there; atomic.  Raises ConfigurationError, OSError."""
    import tempfile

    import yaml

    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    text = yaml.safe_dump(dict(document), sort_keys=False, allow_unicode=True)
    with tempfile.NamedTemporaryFile("w", dir=path.parent, prefix=".config", delete=False, encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    try:
        read_profiles(Path(file.name))
    except ConfigurationError:
        Path(file.name).unlink()
        raise
    Path(file.name).replace(path)
