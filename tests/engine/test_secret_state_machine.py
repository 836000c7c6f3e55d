"""Random histories of secrets, with crashes in the middle of changes, against a model of the documented rules."""

from __future__ import annotations

import asyncio
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import invariant, precondition, rule

from engine.crashes import CrashingEngine, CrashingHistories, Refused
from engine.engines import DAY_US, HOUR_US, move_us
from harness import FakeClock
from vaultd.engine.secret_access import AccessItem
from vaultd.engine.secrets import NewVersion, SecretSpec
from vaultd.names import SecretRef
from vaultd.secret import Secret

RETENTION_US = 3 * DAY_US
NAMES = st.sampled_from(["a", "b"])
NUMBERS = st.integers(1, 6)
WHICH = st.sampled_from(["", "latest", "current", "previous", "blue", "1", "2", "3", "4"])


@dataclass
class ModelVersion:
    payload: bytes
    expire_us: int | None
    state: str = "ENABLED"
    old_since_us: int = 0


@dataclass
class ModelSecret:
    kept: int
    ttl_us: int | None
    state: str = "ACTIVE"
    current: int = 0
    previous: int = 0
    aliases: dict[str, int] = field(default_factory=dict)
    purge_us: int | None = None
    versions: dict[int, ModelVersion] = field(default_factory=dict)

    @property
    def latest(self) -> int:
        return max(self.versions, default=0)

    @property
    def live(self) -> list[int]:
        return [number for number, found in sorted(self.versions.items()) if found.state != "DESTROYED"]

    def move(self, number: int) -> None:
        if number != self.current:
            self.current, self.previous = number, self.current

    def sort_out(self, now_us: int) -> None:
        """Old is what no alias names; what is old and not among the newest is destroyed."""
        named = {self.latest, self.current, self.previous, *self.aliases.values()}
        for number in self.live:
            found = self.versions[number]
            found.old_since_us = 0 if number in named else found.old_since_us or now_us
        for number in self.live[: -self.kept]:
            if number not in named:
                self.versions[number].state = "DESTROYED"


class Model:
    """The rules, as docs/secrets.md and the protos state them.  Each method raises Refused(reason) or moves the model."""

    def __init__(self) -> None:
        self.secrets: dict[str, ModelSecret] = {}

    def secret(self, name: str) -> ModelSecret:
        found = self.secrets.get(name)
        if found is None or found.state == "PURGED":
            raise Refused("SECRET_NOT_FOUND")
        return found

    def active(self, name: str) -> ModelSecret:
        found = self.secret(name)
        if found.state == "DELETED":
            raise Refused("SECRET_DELETED")
        return found

    def number(self, found: ModelSecret, which: str) -> int:
        own = {"": found.current, "latest": found.latest, "current": found.current, "previous": found.previous}
        number = int(which) if which.isdigit() else own.get(which, found.aliases.get(which, 0))
        if number not in found.versions:
            raise Refused("SECRET_VERSION_NOT_FOUND")
        return number

    def create(self, name: str, payload: bytes, kept: int, ttl_us: int | None, now_us: int) -> None:
        if name in self.secrets:  # purged ones too: a name is never reborn
            raise Refused("SECRET_EXISTS")
        self.secrets[name] = ModelSecret(kept, ttl_us)
        if payload:
            self.add(name, payload, None, False, now_us)

    def add(self, name: str, payload: bytes, expire_us: int | None, keep_current: bool, now_us: int) -> int:
        found = self.active(name)
        number = found.latest + 1
        found.versions[number] = ModelVersion(payload, expire_us)
        if not (keep_current and found.current):
            found.move(number)
        found.sort_out(now_us)
        return number

    def usable(self, found: ModelSecret, number: int, now_us: int) -> None:
        version = found.versions[number]
        if version.state != "ENABLED":
            raise Refused(f"SECRET_VERSION_{version.state}")
        if version.expire_us is not None and now_us >= version.expire_us:
            raise Refused("SECRET_VERSION_EXPIRED")

    def access(self, name: str, which: str, now_us: int) -> bytes:
        found = self.active(name)
        number = self.number(found, which)
        self.usable(found, number, now_us)
        return found.versions[number].payload

    def set_alias(self, name: str, alias: str, which: str, now_us: int) -> None:
        if alias in {"latest", "previous"}:
            raise Refused("ALIAS_RESERVED")
        found = self.active(name)
        number = self.number(found, which)
        self.usable(found, number, now_us)
        if alias == "current":
            if number == found.current:
                return
            found.move(number)
        elif found.aliases.get(alias) == number:
            return
        else:
            found.aliases[alias] = number
        found.sort_out(now_us)

    def remove_alias(self, name: str, alias: str, now_us: int) -> None:
        found = self.active(name)
        if found.aliases.pop(alias, None) is not None:
            found.sort_out(now_us)

    def set_state(self, name: str, number: int, state: str) -> None:
        found = self.active(name)
        if number not in found.versions:
            raise Refused("SECRET_VERSION_NOT_FOUND")
        if found.versions[number].state == "DESTROYED" and state != "DESTROYED":
            raise Refused("SECRET_VERSION_DESTROYED")
        found.versions[number].state = state

    def update(self, name: str, kept: int, ttl_us: int | None, now_us: int) -> None:
        found = self.active(name)
        if (found.kept, found.ttl_us) != (kept, ttl_us):
            found.kept, found.ttl_us = kept, ttl_us
            found.sort_out(now_us)

    def delete(self, name: str, now_us: int) -> None:
        found = self.secret(name)
        if found.state == "ACTIVE":
            found.state, found.purge_us = "DELETED", now_us + RETENTION_US

    def undelete(self, name: str) -> None:
        found = self.secret(name)
        found.state, found.purge_us = "ACTIVE", None

    def purge(self, name: str) -> None:
        found = self.secret(name)
        if found.state != "DELETED":
            raise Refused("SECRET_NOT_DELETED")
        found.state = "PURGED"

    def tick(self, now_us: int) -> None:
        for found in self.secrets.values():
            if found.state == "DELETED" and found.purge_us is not None and found.purge_us <= now_us:
                found.state = "PURGED"
            elif found.state == "ACTIVE" and found.ttl_us is not None:
                for number in found.live:
                    since_us = found.versions[number].old_since_us
                    if since_us and since_us + found.ttl_us <= now_us:
                        found.versions[number].state = "DESTROYED"


class SecretHistories(CrashingHistories):
    def __init__(self) -> None:
        super().__init__()
        self.loop = asyncio.Runner()
        self.directory = tempfile.TemporaryDirectory()
        self.clock = FakeClock()
        lifecycle = {"min_destroy_delay_s": 0, "deletion_retention_s": RETENTION_US // 1_000_000}
        self.engine = CrashingEngine(Path(self.directory.name), self.clock, lifecycle=lifecycle)
        self.loop.run(self.engine.start())
        self.model = Model()
        self.payloads = 0

    def teardown(self) -> None:
        self.loop.run(self.whole())
        self.loop.run(self.engine.stop())
        self.loop.close()
        self.directory.cleanup()

    async def whole(self) -> None:
        assert await self.opened.ledger.check(deep=True)

    @property
    def secrets(self) -> Any:
        return self.opened.engine.secrets

    @staticmethod
    def ref(name: str, which: str = "") -> SecretRef:
        return SecretRef("default", name, int(which)) if which.isdigit() else SecretRef("default", name, 0, which)

    def fresh(self) -> bytes:
        self.payloads += 1
        return f"payload {self.payloads}".encode() * (1 + self.payloads % 20)

    @rule(name=NAMES, filled=st.booleans(), kept=st.integers(1, 3), ttl_us=st.sampled_from([None, HOUR_US]))
    def create(self, name: str, filled: bool, kept: int, ttl_us: int | None) -> None:
        payload = self.fresh() if filled else b""
        spec = SecretSpec(keep_versions=kept, version_ttl_us=ttl_us)
        first = NewVersion(Secret(payload)) if filled else None
        self.mutate(
            lambda: self.model.create(name, payload, kept, ttl_us, self.clock.us),
            lambda request: self.secrets.create(request, "default", name, spec, first),
        )

    @rule(name=NAMES, keep_current=st.booleans(), lasts_us=st.sampled_from([None, 1, HOUR_US]))
    def add(self, name: str, keep_current: bool, lasts_us: int | None) -> None:
        payload, expire_us = self.fresh(), None if lasts_us is None else self.clock.us + lasts_us
        new = NewVersion(Secret(payload), expire_us=expire_us)
        self.mutate(
            lambda: self.model.add(name, payload, expire_us, keep_current, self.clock.us),
            lambda request: self.secrets.add_version(request, self.ref(name), new, keep_current=keep_current),
        )

    @rule(name=NAMES, alias=st.sampled_from(["current", "blue", "latest"]), which=WHICH)
    def set_alias(self, name: str, alias: str, which: str) -> None:
        self.mutate(
            lambda: self.model.set_alias(name, alias, which, self.clock.us),
            lambda request: self.secrets.set_alias(request, self.ref(name), alias, self.ref(name, which)),
        )

    @rule(name=NAMES)
    def remove_alias(self, name: str) -> None:
        self.mutate(
            lambda: self.model.remove_alias(name, "blue", self.clock.us),
            lambda request: self.secrets.remove_alias(request, self.ref(name), "blue"),
        )

    @rule(name=NAMES, number=NUMBERS, call=st.sampled_from(["enable", "disable", "destroy"]))
    def change_version(self, name: str, number: int, call: str) -> None:
        state = {"enable": "ENABLED", "disable": "DISABLED", "destroy": "DESTROYED"}[call]
        self.mutate(
            lambda: self.model.set_state(name, number, state),
            lambda request: getattr(self.secrets, f"{call}_version")(request, self.ref(name, str(number))),
        )

    @rule(name=NAMES, kept=st.integers(1, 3), ttl_us=st.sampled_from([None, HOUR_US, DAY_US]))
    def update(self, name: str, kept: int, ttl_us: int | None) -> None:
        fields = {"keep_versions": kept, "version_ttl_us": ttl_us}
        self.mutate(
            lambda: self.model.update(name, kept, ttl_us, self.clock.us),
            lambda request: self.secrets.update(request, self.ref(name), fields),
        )

    @rule(name=NAMES, call=st.sampled_from(["delete", "undelete", "purge"]))
    def change_secret(self, name: str, call: str) -> None:
        now = (self.clock.us,) if call == "delete" else ()
        self.mutate(
            lambda: getattr(self.model, call)(name, *now),
            lambda request: getattr(self.secrets, call)(request, self.ref(name)),
        )

    @rule(us=st.sampled_from([1, HOUR_US - 1, HOUR_US, DAY_US, RETENTION_US]))
    def time_passes(self, us: int) -> None:
        move_us(self.clock, us)
        self.tick()
        self.model.tick(self.clock.us)

    @rule(name=NAMES, which=WHICH)
    def access(self, name: str, which: str) -> None:
        wanted: list[bytes] = []
        ref = self.ref(name, which)
        answer = self.both(
            lambda: wanted.append(self.model.access(name, which, self.clock.us)),
            lambda: self.opened.engine.secret_access.access(AccessItem(str(ref)), None),
        )
        if answer is not None:
            assert answer[1].expose("compared with the model") == wanted[0]

    @precondition(lambda self: any(answer is not None for _, _, answer in self.requests))
    @rule(data=st.data())
    def retry_an_answered_request(self, data: st.DataObject) -> None:
        at_us, call, answer = data.draw(st.sampled_from([entry for entry in self.requests if entry[2] is not None]))
        if self.clock.us - at_us < DAY_US:
            assert self.loop.run(call()) == answer

    @invariant()
    def engine_and_model_agree(self) -> None:
        self.loop.run(self.compare())

    async def compare(self) -> None:
        listed = {secret.id: secret for secret in await self.secrets.list_secrets("default", "", 100, deleted=True)}
        assert set(listed) == {name for name, found in self.model.secrets.items() if found.state != "PURGED"}
        for name, secret in listed.items():
            wanted = self.model.secrets[name]
            assert (secret.state.value, secret.purge_us) == (wanted.state, wanted.purge_us)
            assert (secret.latest, secret.current, secret.previous) == (wanted.latest, wanted.current, wanted.previous)
            assert dict(secret.aliases) == wanted.aliases
            assert [number for number, _ in secret.live] == wanted.live
            for found in await self.secrets.list_versions(self.ref(name)):
                assert found.state.value == wanted.versions[found.number].state
                held = 0 if found.state.value == "DESTROYED" else len(wanted.versions[found.number].payload)
                assert found.payload_bytes == held


SecretHistories.TestCase.settings = settings(
    max_examples=15,
    stateful_step_count=40,
    deadline=None,
    derandomize=True,
    print_blob=True,
    database=None,
    suppress_health_check=list(HealthCheck),
)
TestHistoriesOfSecretsFollowTheModel = SecretHistories.TestCase
