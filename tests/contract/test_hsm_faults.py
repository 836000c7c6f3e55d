"""What becomes of calls when a token, its module or the worker fails: never a wrong result, never a locked PIN."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

import softhsm
from vaultd.backends.base import Lane, Material, Operation, OpKind, TokenKey
from vaultd.backends.pkcs11.backend import HsmBackend
from vaultd.backends.pkcs11.messages import Verb
from vaultd.backends.pkcs11.slot import Request, SlotState
from vaultd.backends.software import SoftwareBackend
from vaultd.errors import DeadlineExceeded, FailedPrecondition, NotFound, ResourceExhausted, Unavailable, VaultdError
from vaultd.secret import Secret

MESSAGE = Operation(OpKind.SIGN_MESSAGE, b"a message")
FAULTS = ("close", "logout", "removed", "error", "crash", "hang")
OPERATION_S = 3.0
"""After which an operation hangs: longer than a machine may stand still."""


@pytest.fixture(scope="module")
def faulty(tmp_path_factory):
    return softhsm.FaultyToken(tmp_path_factory.mktemp("faulty"))


class Rig:
    """A slot on a faulty token, a signing key in it, and what health was told."""

    def __init__(self, token, **changes):
        self.token = token
        self.health = []
        settings = softhsm.slot_settings(
            token.token,
            selector=token.selector,
            environment=token.environment,
            operation_timeout_s=OPERATION_S,
            **changes,
        )
        self.slot = softhsm.make_slot(settings, lambda name, serving: self.health.append((name, serving)))
        self.software = SoftwareBackend()
        self.backend = HsmBackend([self.slot], self.software)
        self.material = None

    async def start(self):
        await self.slot.open()
        self.material = await self.backend.generate("EC_P256_SHA256", "faults")
        self.handle = await self.backend.load("EC_P256_SHA256", self.material)
        self.public = self.backend.load_public("EC_P256_SHA256", self.material.public_key)

    async def sign(self, deadline_s=None):
        """Sign, and verify what came."""
        deadline = time.monotonic() + deadline_s if deadline_s is not None else None
        signature = await self.backend.use(self.handle, MESSAGE, deadline)
        await self.backend.use(self.public, Operation(OpKind.VERIFY_MESSAGE, MESSAGE.data, signature), None)
        return True

    async def close(self):
        await self.backend.close()
        await self.software.close()


@pytest.fixture
async def rig(faulty):
    rig = Rig(faulty)
    await rig.start()
    yield rig
    await rig.close()


async def until(condition, limit_s=60.0):
    """Wait for what other processes do."""
    end = time.monotonic() + limit_s
    while not condition():
        assert time.monotonic() < end, "it did not come about"
        await asyncio.sleep(0.01)


@pytest.mark.parametrize("fault", FAULTS)
async def test_fault_under_load_costs_no_call(rig, fault):
    logins = rig.token.logins
    rig.token.tell(fault)
    assert all(await asyncio.gather(*(rig.sign() for _ in range(64))))
    assert rig.token.took(fault)
    assert rig.slot.state is SlotState.SERVING
    assert rig.token.logins - logins <= 2
    assert rig.health[1:] == [("main", False), ("main", True)]


async def test_killed_worker_costs_no_call(rig):
    pending = [asyncio.create_task(rig.sign()) for _ in range(64)]
    await asyncio.sleep(0)
    os.kill(rig.slot.worker_pid, signal.SIGKILL)
    assert all(await asyncio.gather(*pending))


async def test_killed_worker_costs_no_key_that_was_being_made(rig):
    making = [asyncio.create_task(rig.backend.generate("RSA_PSS_2048_SHA256", f"key {at}")) for at in range(4)]
    await asyncio.sleep(0.05)
    os.kill(rig.slot.worker_pid, signal.SIGKILL)
    made = await asyncio.gather(*making)
    for material in made:
        object_id = bytes.fromhex(material.reference.decode().rpartition("/")[2])
        request = Request("FIND", Verb.FIND, (object_id, "RSA_PSS_2048_SHA256", ""))
        assert await rig.slot.ask(request, None, Lane.KEY_GENERATION)
        await rig.backend.destroy(material)


async def test_call_whose_request_kills_two_workers_is_given_up(rig):
    rig.token.tell("crash")
    pending = asyncio.create_task(rig.sign())
    await until(lambda: rig.token.took("crash"))
    rig.token.tell("crash")
    with pytest.raises(Unavailable) as caught:
        await pending
    assert caught.value.reason == "HSM_UNAVAILABLE"
    assert rig.token.took("crash")
    assert await rig.sign()


async def test_token_that_is_taken_away_and_comes_back(rig):
    logins = rig.token.logins
    rig.token.take_away()
    try:
        with pytest.raises(Unavailable) as caught:
            await rig.sign()
        assert caught.value.reason == "HSM_UNAVAILABLE"
        assert caught.value.retry_after_s
        assert rig.slot.state is SlotState.DOWN
        assert rig.health[-1] == ("main", False)
        # Refused at once, with nothing to wait for.
        with pytest.raises(Unavailable):
            await rig.sign(deadline_s=60)
    finally:
        rig.token.bring_back()
    await until(lambda: rig.slot.state is SlotState.SERVING)
    assert await rig.sign()
    assert rig.token.logins - logins <= 2


async def test_token_that_comes_and_goes_is_down_each_time_that_it_is_away(rig):
    for _ in range(3):
        rig.token.take_away()
        try:
            with pytest.raises(Unavailable) as caught:
                await rig.sign()
            assert caught.value.reason == "HSM_UNAVAILABLE"
            assert rig.health[-1] == ("main", False)
        finally:
            rig.token.bring_back()
        await until(lambda: rig.slot.state is SlotState.SERVING)
        assert await rig.sign()


async def test_nothing_is_taken_for_destroyed_or_absent_while_the_token_is_away(rig):
    source = TokenKey("", bytes.fromhex(rig.material.reference.decode().rpartition("/")[2]), "")
    rig.token.take_away()
    try:
        for act in (rig.backend.destroy(rig.material), rig.backend.adopt("EC_P256_SHA256", source)):
            with pytest.raises(Unavailable):
                await act
    finally:
        rig.token.bring_back()
    await until(lambda: rig.slot.state is SlotState.SERVING)
    assert await rig.backend.adopt("EC_P256_SHA256", source)
    await rig.backend.destroy(rig.material)
    with pytest.raises(NotFound):
        await rig.backend.adopt("EC_P256_SHA256", source)


async def test_token_that_fails_while_a_public_key_is_read_has_not_refused_the_key(rig):
    rig.token.tell("point")
    assert await rig.backend.generate("EC_P256_SHA256", "read again")
    assert rig.token.took("point")


async def test_session_that_hangs_is_noticed_though_others_answer(rig):
    going = [asyncio.create_task(sign_for_ever(rig)) for _ in range(4)]
    try:
        rig.token.tell("hang")
        await until(lambda: rig.token.took("hang"))
        assert all(await asyncio.gather(*(rig.sign() for _ in range(32))))
        await until(lambda: rig.slot.recoveries == 1)
    finally:
        for task in going:
            task.cancel()
        ended = await asyncio.gather(*going, return_exceptions=True)
    assert all(isinstance(one, asyncio.CancelledError) for one in ended)


async def sign_for_ever(rig):
    while await rig.sign():
        pass


async def test_key_that_is_destroyed_while_it_is_used_harms_no_other(rig):
    right, refused, rounds = set(), set(), 0
    while rounds < 6 or not refused:  # a batch may be over before its key is destroyed
        rounds += 1
        ended = await rig.backend.generate("AES_256_KWP", "ended")
        handle = await rig.backend.load("AES_256_KWP", ended)
        using = asyncio.create_task(rig.backend.use_many([(handle, Operation(OpKind.WRAP, bytes(16)))] * 1_000, None))
        await until(lambda: rig.slot._in_flight)
        await rig.backend.destroy(ended)
        outcomes = await using
        refused |= {outcome.reason for outcome in outcomes if isinstance(outcome, VaultdError)}
        right.add(len({outcome for outcome in outcomes if isinstance(outcome, bytes)}))
    assert refused == {"KEY_VERSION_DESTROYED"}
    assert right <= {0, 1}  # one key wraps the same bytes in one way
    assert rig.slot.recoveries == 0


async def test_destruction_does_not_wait_for_all_keys_that_are_to_be_made(rig):
    making = [asyncio.create_task(rig.backend.generate("RSA_PSS_2048_SHA256", f"key {at}")) for at in range(6)]
    await until(lambda: rig.slot._in_flight)
    await rig.backend.destroy(rig.material)
    assert not all(task.done() for task in making)
    for material in await asyncio.gather(*making):
        await rig.backend.destroy(material)


async def test_object_that_the_token_lost_is_never_not_found_and_harms_no_other(rig):
    lost = await rig.backend.generate("EC_P256_SHA256", "lost")
    handle = await rig.backend.load("EC_P256_SHA256", lost)
    other = Rig(rig.token)
    await other.slot.open()
    await other.backend.destroy(lost)
    await other.close()
    assert await rig.sign()  # a worker that nobody has used for a while is not believed so easily
    for _ in range(3):
        with pytest.raises(Unavailable) as caught:
            await rig.backend.use(handle, MESSAGE, None)
        assert caught.value.reason == "HSM_KEY_MISSING"
        assert await rig.sign()
    assert rig.slot.recoveries == 0


async def test_refused_pin_is_tried_once_until_it_is_another(faulty):
    pin = [Secret(b"not the pin")]
    rig = Rig(faulty, read_pin=lambda: pin[0])
    logins = faulty.logins
    try:
        await rig.slot.open()
        assert rig.slot.state is SlotState.DOWN
        with pytest.raises(Unavailable) as caught:
            rig.slot.submit([Request("RANDOM", Verb.RANDOM, (8,))], None, Lane.ONLINE)
        assert "PIN" in caught.value.text
        for _ in range(3):
            rig.slot._nudge.set()
            await asyncio.sleep(0.05)
        assert faulty.logins - logins == 1
        pin[0] = Secret((faulty.token / "pin").read_bytes().strip())
        await until(lambda: rig.slot.state is SlotState.SERVING)
        assert faulty.logins - logins == 2
    finally:
        await rig.close()


class Turns:
    """The turn to log in, of two slots as of two workers of one server."""

    def __init__(self):
        self.refused = b""
        self.lacking = None
        self.held = asyncio.Lock()

    @asynccontextmanager
    async def login(self, slot):
        del slot
        async with self.held:
            yield self


async def test_of_two_that_use_a_token_one_tries_a_wrong_pin(faulty):
    pin, turns = [Secret(b"not the pin")], Turns()
    rigs = [Rig(faulty, read_pin=lambda: pin[0], login=turns.login) for _ in range(2)]
    for rig in rigs:
        rig.slot.lacking = None  # as in a process that has asked no token yet
    logins = faulty.logins
    try:
        await asyncio.gather(*(rig.slot.open() for rig in rigs))
        assert [rig.slot.state for rig in rigs] == [SlotState.DOWN, SlotState.DOWN]
        assert faulty.logins - logins == sum(rig.slot.logins for rig in rigs) == 1
        pin[0] = Secret((faulty.token / "pin").read_bytes().strip())
        await until(lambda: all(rig.slot.state is SlotState.SERVING for rig in rigs))
        assert rigs[0].slot.lacking == rigs[1].slot.lacking == turns.lacking
    finally:
        for rig in rigs:
            await rig.close()


async def test_unreadable_pin_is_an_operators_matter_and_no_login(faulty):
    def unreadable():
        raise FailedPrecondition("HSM_PIN_MISSING", "the PIN file cannot be read")

    rig = Rig(faulty, read_pin=unreadable)
    logins = faulty.logins
    try:
        await rig.slot.open()
        assert rig.slot.state is SlotState.DOWN
        rig.slot.lacking = None
        with pytest.raises(Unavailable):
            rig.backend.unsupported("AES_256_GCM")
        assert faulty.logins == logins
    finally:
        await rig.close()


async def test_module_without_locking_is_served_by_one_thread(tmp_path):
    rig = Rig(softhsm.FaultyToken(tmp_path, FAULT_NO_LOCKING="1"), sessions=4)
    try:
        await rig.start()
        assert rig.slot._threads == 1
        assert all(await asyncio.gather(*(rig.sign() for _ in range(64))))
    finally:
        await rig.close()


async def test_module_that_is_no_module_is_down_and_says_so(tmp_path):
    rig = Rig(softhsm.FaultyToken(tmp_path, FAULT_MODULE="/dev/null"))
    try:
        await rig.slot.open()
        assert rig.slot.state is SlotState.DOWN
    finally:
        await rig.close()


async def test_full_queue_and_past_deadlines_are_refused_at_once(faulty):
    rig = Rig(faulty, max_queued=8)
    try:
        await rig.start()
        request = Request("RANDOM", Verb.RANDOM, (8,))
        with pytest.raises(ResourceExhausted):
            rig.slot.submit([request] * 9, None, Lane.BATCH)
        with pytest.raises(DeadlineExceeded):
            rig.slot.submit([request], time.monotonic() - 1, Lane.ONLINE)
        assert len(await rig.slot.ask(request, None, Lane.ONLINE)) == 8
    finally:
        await rig.close()


async def test_deadline_shorter_than_a_recovery_is_refused_while_one_is_under_way(rig):
    os.kill(rig.slot.worker_pid, signal.SIGKILL)
    await until(lambda: rig.slot.state is SlotState.RECOVERING)
    with pytest.raises(Unavailable):
        await rig.sign(deadline_s=0.05)
    assert await rig.sign(deadline_s=60)


async def test_closed_slot_leaves_no_process(faulty):
    rig = Rig(faulty)
    await rig.start()
    pid = rig.slot.worker_pid
    os.kill(pid, 0)
    await rig.close()
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)
    with pytest.raises(Unavailable):
        await rig.sign()


async def test_wrong_tag_is_told_from_a_sick_token(rig):
    material = await rig.backend.generate("AES_256_GCM", "tags")
    handle = await rig.backend.load("AES_256_GCM", material)
    sealed = await rig.backend.use(handle, Operation(OpKind.ENCRYPT, b"text", b"a"), None)
    with pytest.raises(VaultdError) as caught:
        await rig.backend.use(handle, Operation(OpKind.DECRYPT, sealed, b"b"), None)
    assert caught.value.reason == "DECRYPTION_FAILED"
    assert rig.slot.recoveries == 0
    rig.token.tell("error")
    assert await rig.backend.use(handle, Operation(OpKind.DECRYPT, sealed, b"a"), None) == b"text"
    assert rig.slot.recoveries == 1


async def test_token_that_is_down_costs_a_batch_no_item_of_another_token(rig, tmp_path):
    other = softhsm.make_slot(softhsm.slot_settings(tmp_path / "other", name="other"), lambda name, serving: None)
    await other.open()
    backend = HsmBackend([other, rig.slot], rig.software)
    try:
        there = await backend.generate("EC_P256_SHA256", "there")
        work = [(await backend.load("EC_P256_SHA256", material), MESSAGE) for material in (there, rig.material)]
        await other.close()
        refused, signature = await backend.use_many(work, None)
        assert isinstance(refused, Unavailable)
        verify = Operation(OpKind.VERIFY_MESSAGE, MESSAGE.data, signature)
        await rig.software.use(rig.public, verify, None)
    finally:
        await other.close()


async def test_key_of_a_slot_that_is_not_configured_is_unavailable(rig):
    with pytest.raises(Unavailable) as caught:
        await rig.backend.load("EC_P256_SHA256", Material(None, b"elsewhere/00", b""))
    assert caught.value.reason == "HSM_SLOT_UNKNOWN"


async def test_pin_is_in_no_command_line_and_no_environment_of_the_worker(rig):
    process = Path("/proc", str(rig.slot.worker_pid))
    pin = (rig.token.token / "pin").read_bytes().strip()
    for name in ("cmdline", "environ"):
        assert pin not in (process / name).read_bytes()


async def test_worker_leaves_it_to_its_server_to_stop(rig):
    """A terminal's Ctrl-C and systemd's stop signal every process at once, and the server still answers calls under way."""
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        os.kill(rig.slot.worker_pid, number)
        assert await rig.sign()
    assert rig.slot.recoveries == 0
