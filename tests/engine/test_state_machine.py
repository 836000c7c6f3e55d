"""Random histories of keys, with crashes in the middle of changes, against a model of the documented state machine."""

from __future__ import annotations

import asyncio
import tempfile
from copy import deepcopy
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import invariant, precondition, rule

from engine.crashes import CrashingEngine, CrashingHistories, Refused
from engine.engines import DAY_US, HOUR_US, move_us
from harness import FakeClock
from vaultd.engine.algorithms import Purpose
from vaultd.engine.key_specs import KeySpec, KeyUpdate
from vaultd.engine.transit import DecryptItem, EncryptItem, SignItem, VerifyItem
from vaultd.names import KeyRef
from vaultd.secret import Secret

RETENTION_US = 3 * DAY_US
DESTROY_DELAY_US = DAY_US
NAMES = st.sampled_from(["a", "b", "c"])
NUMBERS = st.integers(1, 4)


@dataclass
class ModelVersion:
    state: str = "ENABLED"
    destroy_us: int | None = None


@dataclass
class ModelKey:
    signs: bool
    period_us: int | None
    rotation_us: int | None
    state: str = "ACTIVE"
    primary: int = 1
    purge_us: int | None = None
    versions: dict[int, ModelVersion] = field(default_factory=lambda: {1: ModelVersion()})
    minimum: int = 0
    floor: int = 0
    """The newest number before the key was restored."""

    @property
    def newest(self) -> int:
        return max(self.floor, *self.versions)

    def rotate(self, now_us: int, *, keep_primary: bool = False) -> int:
        number = self.newest + 1
        self.versions[number] = ModelVersion()
        self.primary = self.primary if keep_primary else number
        self.rotation_us = now_us + self.period_us if self.period_us else None
        return number


class Model:
    """The rules, as DESIGN.md and the protos state them.  Each method raises Refused(reason) or moves the model."""

    def __init__(self) -> None:
        self.keys: dict[str, ModelKey] = {}

    def key(self, name: str) -> ModelKey:
        key = self.keys.get(name)
        if key is None or key.state == "PURGED":
            raise Refused("KEY_NOT_FOUND")
        return key

    def active(self, name: str) -> ModelKey:
        key = self.key(name)
        if key.state == "DELETED":
            raise Refused("KEY_DELETED")
        return key

    def version(self, name: str, number: int) -> tuple[ModelKey, ModelVersion]:
        key = self.active(name)
        if number not in key.versions:
            raise Refused("KEY_VERSION_NOT_FOUND")
        return key, key.versions[number]

    def usable(self, name: str, number: int) -> int:
        number = number or self.active(name).primary
        key, found = self.version(name, number)
        if found.state != "ENABLED":
            raise Refused(f"KEY_VERSION_{found.state}")
        if number < key.minimum:
            raise Refused("KEY_VERSION_BELOW_MINIMUM")
        return number

    def opens(self, name: str, number: int) -> int:
        """Of a ciphertext, whose header names a version."""
        if number not in self.active(name).versions:
            raise Refused("DECRYPTION_FAILED")  # it was made after the backup that the key was restored from
        return self.usable(name, number)

    def set_minimum(self, name: str, number: int) -> None:
        key = self.active(name)
        if number > key.primary:
            raise Refused("MIN_DECRYPT_VERSION_RANGE")
        key.minimum = number

    def restore_key(self, name: str, backup: ModelKey, now_us: int) -> None:
        if self.keys[name].state != "PURGED":
            raise Refused("KEY_EXISTS")
        back = deepcopy(backup)
        back.floor = self.keys[name].newest
        for found in back.versions.values():
            if found.state == "DESTROY_SCHEDULED" and found.destroy_us is not None:
                found.destroy_us = max(found.destroy_us, now_us + DESTROY_DELAY_US)
        self.keys[name] = back

    def create(self, name: str, *, signs: bool, period_us: int | None, now_us: int) -> None:
        if name in self.keys:  # purged ones too: a name is never reborn
            raise Refused("KEY_EXISTS")
        self.keys[name] = ModelKey(signs, period_us, now_us + period_us if period_us else None)

    def set_primary(self, name: str, number: int) -> None:
        self.active(name).primary = self.usable(name, number)

    def enable(self, name: str, number: int) -> None:
        _, found = self.version(name, number)
        if found.state.startswith("DESTROY"):
            raise Refused(f"KEY_VERSION_{found.state}")
        found.state = "ENABLED"

    def disable(self, name: str, number: int) -> None:
        _, found = self.version(name, number)
        if found.state.startswith("DESTROY"):
            raise Refused(f"KEY_VERSION_{found.state}")
        found.state = "DISABLED"

    def destroy(self, name: str, number: int, now_us: int) -> None:
        _, found = self.version(name, number)
        if not found.state.startswith("DESTROY"):
            found.state, found.destroy_us = "DESTROY_SCHEDULED", now_us + DESTROY_DELAY_US

    def restore(self, name: str, number: int) -> None:
        _, found = self.version(name, number)
        if found.state == "DESTROYED":
            raise Refused("KEY_VERSION_DESTROYED")
        if found.state == "DESTROY_SCHEDULED":
            found.state, found.destroy_us = "DISABLED", None

    def delete(self, name: str, now_us: int) -> None:
        key = self.key(name)
        if key.state == "ACTIVE":
            key.state, key.purge_us = "DELETED", now_us + RETENTION_US

    def undelete(self, name: str) -> None:
        key = self.key(name)
        key.state, key.purge_us = "ACTIVE", None

    def purge(self, name: str) -> None:
        key = self.key(name)
        if key.state != "DELETED":
            raise Refused("KEY_NOT_DELETED")
        key.state = "PURGED"

    def tick(self, now_us: int) -> None:
        for key in self.keys.values():
            for found in key.versions.values():
                if found.state == "DESTROY_SCHEDULED" and found.destroy_us is not None and found.destroy_us <= now_us:
                    found.state = "DESTROYED"
            if key.state == "DELETED" and key.purge_us is not None and key.purge_us <= now_us:
                key.state = "PURGED"
            elif key.state == "ACTIVE" and key.rotation_us is not None and key.rotation_us <= now_us:
                key.rotate(now_us)


class KeyHistories(CrashingHistories):
    def __init__(self) -> None:
        super().__init__()
        self.loop = asyncio.Runner()
        self.directory = tempfile.TemporaryDirectory()
        self.clock = FakeClock()
        lifecycle = {"min_destroy_delay_s": 0, "deletion_retention_s": RETENTION_US // 1_000_000}
        self.engine = CrashingEngine(Path(self.directory.name), self.clock, lifecycle=lifecycle)
        self.loop.run(self.engine.start())
        self.model = Model()
        self.sealed: list[tuple[str, int, bytes]] = []
        self.signed: list[tuple[str, int, bytes]] = []
        self.seen: dict[str, tuple[Any, str]] = {}
        self.backups: list[tuple[str, bytes, ModelKey]] = []

    def teardown(self) -> None:
        self.loop.run(self.engine.stop())
        self.loop.close()
        self.directory.cleanup()

    @property
    def lifecycle(self) -> Any:
        return self.opened.lifecycle

    @staticmethod
    def ref(name: str, number: int = 0) -> KeyRef:
        return KeyRef("default", name, number)

    @rule(name=NAMES, signs=st.booleans(), period_us=st.sampled_from([None, HOUR_US]))
    def create(self, name: str, signs: bool, period_us: int | None) -> None:
        purpose, algorithm = (Purpose.SIGN, "ED25519") if signs else (Purpose.ENCRYPT_DECRYPT, None)
        spec = KeySpec(purpose, algorithm, rotation_period_us=period_us, destroy_delay_us=DESTROY_DELAY_US)
        self.mutate(
            lambda: self.model.create(name, signs=signs, period_us=period_us, now_us=self.clock.us),
            lambda request: self.lifecycle.create_key(request, "default", name, spec),
        )

    @rule(name=NAMES, keep_primary=st.booleans())
    def rotate(self, name: str, keep_primary: bool) -> None:
        self.mutate(
            lambda: self.model.active(name).rotate(self.clock.us, keep_primary=keep_primary),
            lambda request: self.opened.key_versions.rotate_key(request, self.ref(name), keep_primary=keep_primary),
        )

    @rule(name=NAMES, number=NUMBERS, call=st.sampled_from(["set_primary", "enable", "disable", "destroy", "restore"]))
    def change_version(self, name: str, number: int, call: str) -> None:
        now = (self.clock.us,) if call == "destroy" else ()
        act = call if call == "set_primary" else f"{call}_version"
        self.mutate(
            lambda: getattr(self.model, call)(name, number, *now),
            lambda request: getattr(self.opened.key_versions, act)(request, self.ref(name, number), ""),
        )

    @rule(name=NAMES, call=st.sampled_from(["delete", "undelete", "purge"]))
    def delete_undelete_or_purge(self, name: str, call: str) -> None:
        self.change_key(name, call)

    def change_key(self, name: str, call: str) -> None:
        now = (self.clock.us,) if call == "delete" else ()
        self.mutate(
            lambda: getattr(self.model, call)(name, *now),
            lambda request: getattr(self.lifecycle, f"{call}_key")(request, self.ref(name), ""),
        )

    @rule(name=NAMES, number=NUMBERS)
    def set_minimum(self, name: str, number: int) -> None:
        update = KeyUpdate({"min_decrypt": number})
        self.mutate(
            lambda: self.model.set_minimum(name, number),
            lambda request: self.lifecycle.update_key(request, self.ref(name), update),
        )

    @rule(name=NAMES, keep_primary=st.booleans())
    def import_version(self, name: str, keep_primary: bool) -> None:
        async def material() -> Secret:
            return Secret(bytes(32))

        async def nothing(*_: Any) -> None:
            return None

        def call(request: Any) -> Any:
            algorithm = "ED25519" if self.model.keys[name].signs else "XAES_256_GCM"
            return self.opened.key_versions.import_version(
                request, self.ref(name), "", algorithm, material, nothing, keep_primary=keep_primary
            )

        if name in self.model.keys:
            self.mutate(lambda: self.model.active(name).rotate(self.clock.us, keep_primary=keep_primary), call)

    @rule(name=NAMES)
    def back_up(self, name: str) -> None:
        backup = self.both(
            lambda: self.model.active(name).state, lambda: self.opened.engine.key_backups.back_up(self.ref(name))
        )
        if backup is not None:
            self.backups.append((name, backup.blob, deepcopy(self.model.keys[name])))

    @precondition(lambda self: self.backups)
    @rule(data=st.data(), gone=st.booleans())
    def restore_a_backup(self, data: st.DataObject, gone: bool) -> None:
        name, blob, kept = data.draw(st.sampled_from(self.backups))
        if gone and self.model.keys[name].state != "PURGED":
            for call in ("delete", "purge"):
                self.change_key(name, call)
        self.mutate(
            lambda: self.model.restore_key(name, kept, self.clock.us),
            lambda request: self.opened.engine.key_backups.restore(request, "default", blob),
        )
        if self.model.keys[name].floor:  # the same content as before the purge may be there again, as another resource
            prefix = f"{self.ref(name)}/"
            self.seen = {seen: etag for seen, etag in self.seen.items() if not f"{seen}/".startswith(prefix)}

    @rule(us=st.sampled_from([1, HOUR_US - 1, HOUR_US, DAY_US - 1, DAY_US, RETENTION_US]))
    def time_passes(self, us: int) -> None:
        move_us(self.clock, us)
        self.tick()
        self.model.tick(self.clock.us)

    @rule(name=NAMES, number=st.integers(0, 4))
    def use(self, name: str, number: int) -> None:
        found = self.model.keys.get(name)
        ref = self.ref(name, number)
        if found is not None and found.signs:
            call = lambda: self.opened.transit.sign(SignItem(ref, b"message"), None)  # noqa: E731  # a thunk for `both`
            made = self.signed
        else:
            call = lambda: self.opened.transit.encrypt(EncryptItem(ref, b"plaintext"), None)  # noqa: E731  # as above
            made = self.sealed
        answer = self.both(lambda: self.model.usable(name, number), call)
        if answer is not None:
            value, used = answer
            made.append((name, used.version.number, value))
            assert not number or used.version.number == number

    @precondition(lambda self: self.sealed)
    @rule(data=st.data())
    def decrypt_an_old_ciphertext(self, data: st.DataObject) -> None:
        name, number, ciphertext = data.draw(st.sampled_from(self.sealed))
        answer = self.both(
            lambda: self.model.opens(name, number),
            lambda: self.opened.transit.decrypt(DecryptItem(self.ref(name), ciphertext), None),
        )
        assert answer is None or answer[0] == b"plaintext"

    @precondition(lambda self: self.signed)
    @rule(data=st.data())
    def verify_an_old_signature(self, data: st.DataObject) -> None:
        name, number, signature = data.draw(st.sampled_from(self.signed))
        answer = self.both(
            lambda: self.model.usable(name, number),
            lambda: self.opened.transit.verify(VerifyItem(self.ref(name, number), b"message", signature), None),
        )
        assert answer is None or answer[0] is True

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
        listed = {key.id: key for key in await self.opened.keys.list_keys("default", "", 100, deleted=True)}
        assert set(listed) == {name for name, key in self.model.keys.items() if key.state != "PURGED"}
        for name, key in listed.items():
            wanted = self.model.keys[name]
            assert (key.state.value, key.primary, key.newest) == (wanted.state, wanted.primary, wanted.newest)
            assert key.min_decrypt == wanted.minimum
            assert (key.next_rotation_us, key.purge_us) == (wanted.rotation_us, wanted.purge_us)
            self.compare_etag(key)
            for found in await self.opened.keys.list_versions(self.ref(name)):
                assert found.state.value == wanted.versions[found.number].state
                self.compare_etag(found)

    def compare_etag(self, resource: Any) -> None:
        """An etag changes exactly when anything else of the resource does."""
        content = replace(resource, revision=0)
        before = self.seen.get(resource.name)
        if before is not None:
            assert (before[0] == content) == (before[1] == resource.etag)
        self.seen[resource.name] = (content, resource.etag)


KeyHistories.TestCase.settings = settings(
    max_examples=15,
    stateful_step_count=40,
    deadline=None,
    derandomize=True,
    print_blob=True,
    database=None,
    suppress_health_check=list(HealthCheck),
)
TestHistoriesOfKeysFollowTheModel = KeyHistories.TestCase
