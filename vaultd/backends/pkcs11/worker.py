"""The worker process: one module, one token, one login.  `python -m vaultd.backends.pkcs11.worker FD`.

Everything it needs, the PIN included, comes over the socket FD.  It ends when the socket does, and after the first fault:
the server starts another one, and nothing has to be mended in here.
"""

from __future__ import annotations

import ctypes
import os
import queue
import resource
import signal
import socket
import sys
import threading
import time
from collections import deque
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final

from pkcs11 import Attribute, Mechanism, exceptions

from vaultd.backends.base import Lane
from vaultd.backends.pkcs11 import mechanisms, module, probe
from vaultd.backends.pkcs11.messages import LAST_USE, Hello, Status, Verb, pack, unpacker

if TYPE_CHECKING:
    from collections.abc import Callable

    from vaultd.backends.pkcs11.direct import DirectSession

_RECEIVE_BYTES: Final = 256 * 1024
_PATIENCE_S: Final = 0.1

_BAD_DATA: Final = (
    exceptions.EncryptedDataInvalid,
    exceptions.EncryptedDataLenRange,
    exceptions.WrappedKeyInvalid,
    exceptions.WrappedKeyLenRange,
    exceptions.DataInvalid,
    exceptions.DataLenRange,
)
# SoftHSM 2.6.1 answers a wrong tag with CKR_GENERAL_ERROR, as it does when it is broken.
_DOUBTFUL: Final = (exceptions.GeneralError, exceptions.FunctionFailed, exceptions.ArgumentsBad)
_NEVER: Final = (
    exceptions.MechanismInvalid,
    exceptions.MechanismParamInvalid,
    exceptions.KeyTypeInconsistent,
    exceptions.KeySizeRange,
    exceptions.FunctionNotSupported,
    exceptions.FunctionRejected,
    exceptions.TokenWriteProtected,
    exceptions.TemplateInconsistent,
    exceptions.AttributeValueInvalid,
)

Request = list[Any]
Reply = tuple[int, Status, Any, int]


class Turns:
    """Lists of requests that wait for a thread: online ones first, unless one of the others has waited for too long.

    So a batch does not starve.  Threads look for what is online between the requests of a batch, too.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._waiting: queue.SimpleQueue[None] = queue.SimpleQueue()  # at least one for each list that nobody comes for
        self._lock = threading.Lock()
        self._online: deque[list[Request]] = deque()
        self._others: deque[tuple[float, list[Request]]] = deque()

    def put(self, lane: Lane, requests: list[Request]) -> None:
        """Add a list."""
        if lane == Lane.ONLINE:
            self._online.append(requests)
        else:
            self._others.append((self._clock(), requests))
        self._waiting.put(None)

    def take(self) -> tuple[bool, list[Request]]:
        """Wait for a list, and take it: whether it is online, and its requests."""
        while True:
            self._waiting.get()
            with self._lock:
                online, others = self._online, self._others
                if online and not (others and self._clock() - others[0][0] > _PATIENCE_S):
                    return True, online.popleft()
                if others:
                    return False, others.popleft()[1]

    def take_online(self) -> list[Request]:
        """Take a list that is online and waits; an empty one when there is none."""
        if not self._online:
            return []
        with self._lock:
            if not self._online:
                return []
            requests = self._online.popleft()
        with suppress(queue.Empty):
            self._waiting.get_nowait()
        return requests


class Worker:
    """Answers requests with a thread per session; those that make or destroy objects take turns in one session."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self._uses = Turns()
        self._management = Turns()
        self._outbox: deque[Reply] = deque()
        self._sending = threading.Lock()
        # SoftHSM loses objects from a search while others are made: what is missed is looked for again under this lock.
        self._objects = threading.Lock()
        self._token: dict[str, str] = {}

    def run(self) -> None:
        """Serve until the server closes the socket."""
        messages = self._messages()
        hello = Hello(*next(messages))
        try:
            token, management, sessions, threaded = module.connect(hello)
            self._token = module.describe(token)
            lacking = probe.capabilities(token, management) if hello.probe else None
        except module.TokenRefused as error:
            self._connection.sendall(pack({"refused": str(error)}))
            return
        except module.TokenAbsent as error:
            self._connection.sendall(pack({"absent": str(error)}))
            return
        except Exception as error:
            # Whatever a module does on the way in: the server waits, and tries again.
            self._connection.sendall(pack({"absent": type(error).__name__}))
            return
        self._connection.sendall(pack({"token": self._token, "lacking": lacking, "threads": len(sessions)}))
        uses = self._uses if threaded else self._management
        if threaded:
            for session in sessions:
                threading.Thread(target=self._serve, args=(self._uses, session), daemon=True).start()
        threading.Thread(target=self._serve, args=(self._management, management), daemon=True).start()
        for lane, requests in messages:
            (self._management if lane == Lane.KEY_GENERATION else uses).put(lane, requests)

    def _messages(self) -> Any:
        incoming = unpacker()
        while received := self._connection.recv(_RECEIVE_BYTES):
            incoming.feed(received)
            yield from incoming

    def _serve(self, turns: Turns, direct: DirectSession) -> None:
        finder = module.KeyFinder(direct)
        while True:
            online, requests = turns.take()
            for request in requests:
                self._do(finder, request)
                if not online and (overtaking := turns.take_online()):
                    for another in overtaking:
                        self._do(finder, another)
                    self._send()
            self._send()

    def _do(self, finder: module.KeyFinder, request: Request) -> None:
        number, verb, *arguments = request
        began = time.perf_counter_ns()
        status, payload = self._answer(finder, Verb(verb), arguments)
        self._outbox.append((number, status, payload, (time.perf_counter_ns() - began) // 1000))

    def _send(self) -> None:
        """Send all replies that there are: a thread that waits for its turn here finds its own sent along, perhaps."""
        with self._sending:
            replies = [self._outbox.popleft() for _ in range(len(self._outbox))]
            if replies:
                self._connection.sendall(pack(replies))

    def _answer(self, finder: module.KeyFinder, verb: Verb, arguments: list[Any]) -> tuple[Status, Any]:
        status, payload = self._try(finder, verb, arguments)
        looked = verb > LAST_USE or status in {Status.MISSING, Status.REFUSED}
        if looked and status is not Status.FAULT and not finder.sees_all():
            # An object that was not seen is not absent, and not destroyed.
            return Status.FAULT, "the token has gone, or has logged us out"
        return status, payload

    def _try(self, finder: module.KeyFinder, verb: Verb, arguments: list[Any]) -> tuple[Status, Any]:
        try:
            if verb is Verb.RANDOM:
                return Status.DONE, bytes(finder.session.generate_random(8 * arguments[0]))
            if verb <= LAST_USE:
                return self._use(finder, verb, arguments)
            with self._objects:
                try:
                    return Status.DONE, self._manage(finder, verb, arguments)
                except _DOUBTFUL:
                    # SoftHSM also fails when another session searches meanwhile; what was half done is undone first.
                    return Status.DONE, self._manage(finder, verb, arguments)
        except module.GONE:
            return Status.MISSING, None
        except module.ObjectRefused as error:
            return Status.REFUSED, str(error)
        except _NEVER as error:
            return Status.REFUSED, f"the token answers {type(error).__name__}"
        except Exception as error:  # a module may raise anything; the server looks at nothing but the name
            return Status.FAULT, type(error).__name__

    def _use(self, finder: module.KeyFinder, verb: Verb, arguments: list[Any]) -> tuple[Status, Any]:
        object_id, algorithm, *data = arguments
        try:
            key = self._find(finder, object_id, algorithm)
            try:
                return Status.DONE, mechanisms.perform(finder.direct, key, algorithm, verb, data)
            except module.GONE:
                # A handle of before: the object may have another one now.
                finder.forget(object_id, algorithm)
                key = self._find(finder, object_id, algorithm)
                return Status.DONE, mechanisms.perform(finder.direct, key, algorithm, verb, data)
        except _BAD_DATA:
            return Status.BAD_INPUT, None
        except _DOUBTFUL as error:
            if verb in {Verb.DECRYPT, Verb.UNWRAP} and self._is_sound(finder, object_id, algorithm):
                return Status.BAD_INPUT, None
            return Status.FAULT, type(error).__name__
        except AttributeError:
            return Status.REFUSED, "the token's object does not permit this use (CKA_SIGN, CKA_DECRYPT and so on)"

    def _find(self, finder: module.KeyFinder, object_id: bytes, algorithm: str) -> Any:
        try:
            return finder.key(object_id, algorithm)
        except (exceptions.NoSuchKey, exceptions.GeneralError, exceptions.ObjectHandleInvalid):
            with self._objects:
                return finder.key(object_id, algorithm)

    @staticmethod
    def _is_sound(finder: module.KeyFinder, object_id: bytes, algorithm: str) -> bool:
        """Whether the key works on data that is right, so that it was the caller's that was wrong.

        The nonce is always the same, and so is all that is encrypted with it; nothing of that leaves this process.
        """
        session, way = finder.session, mechanisms.WAYS[algorithm]
        try:
            key = finder.key(object_id, algorithm)
            if way.use is Mechanism.AES_GCM:
                made = mechanisms.perform(finder.direct, key, algorithm, Verb.ENCRYPT, [b"probe", bytes(12), b"probe"])
                return (
                    mechanisms.perform(finder.direct, key, algorithm, Verb.DECRYPT, [made, bytes(12), b"probe"])
                    == b"probe"
                )
            if way.use is Mechanism.AES_KEY_WRAP_PAD:
                made = mechanisms.perform(finder.direct, key, algorithm, Verb.WRAP, [bytes(16)])
                return mechanisms.perform(finder.direct, key, algorithm, Verb.UNWRAP, [made]) == bytes(16)
            return key[Attribute.KEY_TYPE] == way.key_type and len(session.generate_random(64)) == 8
        except (exceptions.PKCS11Error, AttributeError):
            return False

    # -- making and destroying objects, one at a time -------------------------------------------------------------------

    def _manage(self, finder: module.KeyFinder, verb: Verb, arguments: list[Any]) -> Any:
        session = finder.session
        if verb is Verb.DESTROY:
            destroy(session, arguments[0])
            return None
        if verb is Verb.FIND:
            return self._describe_existing(session, *arguments)
        object_id, algorithm, label, *wrapped = arguments
        # A worker before this one may have ended between making the object and telling.
        destroy(session, object_id)
        if verb is Verb.IMPORT:
            key = mechanisms.unwrap_into(session, algorithm, object_id, label, *wrapped)
            return {"attestation": module.attest(key, self._token)}
        key, public = mechanisms.generate(session, algorithm, object_id, label)
        made: dict[str, Any] = {"attestation": module.attest(key, self._token)}
        if public is not None:
            made["public"] = module.public_parts(session, key, public, object_id)
        return made

    def _describe_existing(self, session: Any, object_id: bytes, algorithm: str, label: str) -> dict[str, Any] | None:
        wanted = {
            attribute: value for attribute, value in ((Attribute.ID, object_id), (Attribute.LABEL, label)) if value
        }
        way = mechanisms.WAYS[algorithm]
        try:
            key = module.find_key(session, algorithm, wanted)
        except exceptions.NoSuchKey:
            return None
        found_id = bytes(key[Attribute.ID])
        if not found_id:
            raise module.ObjectRefused("the token's object has no CKA_ID; give it one")
        if len(module.objects_of(session, found_id)[0]) > 1:
            raise module.ObjectRefused("more than one key of the token has this CKA_ID; give them different ids")
        told: dict[str, Any] = {"object_id": found_id, "attestation": module.attest(key, self._token)}
        if way.symmetric:
            told["bits"] = 8 * int(key[Attribute.VALUE_LEN])
        else:
            told["public"] = module.public_parts(session, key, None, found_id)
        return told


def destroy(session: Any, object_id: bytes) -> None:
    """Destroy the key of this id and its public part; none is no error.  Raises ObjectRefused, with nothing destroyed.

    Ids that are drawn here are random.  When two keys have one, it was taken over, and the other key is not ours.
    """
    keys, public = module.objects_of(session, object_id)
    if len(keys) > 1:
        raise module.ObjectRefused(
            "another key of the token has the same CKA_ID, and neither is destroyed; change its id"
        )
    if not all(module.may_be_destroyed(one) for one in keys):
        raise module.ObjectRefused("the token's object may not be destroyed (CKA_DESTROYABLE)")
    for one in keys + public:
        one.destroy()


def _end(_: object) -> None:
    """Of a thread that cannot go on: the server has gone, or something failed that should not.  The rest must not linger."""
    os._exit(1)


def _ignore(*_: object) -> None:
    pass


def main() -> None:
    """Serve the socket whose number is the argument."""
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        # What stops a server is often sent to all its processes: calls under way are answered first, then the socket closes.
        signal.signal(number, signal.SIG_IGN)
    threading.excepthook = _end
    # python-pkcs11 ends searches when they are forgotten, in sessions that are gone, too.  Nobody needs to read of that.
    sys.excepthook = sys.unraisablehook = _ignore
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if sys.platform == "linux":
        set_dumpable = 4  # no other process of this user reads this memory
        ctypes.CDLL(None).prctl(set_dumpable, 0, 0, 0, 0)
    connection = socket.socket(fileno=int(sys.argv[1]))
    try:
        Worker(connection).run()
    except (OSError, StopIteration):
        pass  # the server has gone
    finally:
        # At once, whatever the module's threads are doing: the kernel closes what it holds.
        os._exit(0)


if __name__ == "__main__":
    main()
