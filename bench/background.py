"""What other callers do meanwhile: batches of 10,000, and RSA-4096 keys, one after the other."""

from __future__ import annotations

import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

from bench.clients import Client, Pressure, Request, order

if TYPE_CHECKING:
    from collections.abc import Iterator

    from bench.cases import Api
    from bench.rig import Rig

MOST: Final = 10_000
"""Items of a batch, the limit."""


class KeyMaker:
    """A thread that has RSA-4096 keys generated until it is told to stop."""

    def __init__(self, api: Api) -> None:
        self._api = api
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="key-maker")
        self._failure: Exception | None = None
        self.made = 0

    def _run(self) -> None:
        try:
            for key_id in self._api.new_key_ids("rsa4096"):
                if self._stop.is_set():
                    return
                self._api.create_keys({key_id: ("SIGN", "RSA_PSS_4096_SHA256")})
                self.made += 1
        except Exception as error:
            self._failure = error

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """Wait for the key that is being made.  Raises what failed."""
        self._stop.set()
        self._thread.join()
        if self._failure is not None:
            raise self._failure


@contextmanager
def batches_at_work(rig: Rig, client: Client, request: Request, seconds: float) -> Iterator[None]:
    """For so many seconds, as another identity than the measured one.  Raises LoadFailed when one of their calls failed."""
    client.begin(order(rig.endpoint(rig.vaultd, "admin"), request, Pressure(1), seconds, 1))
    try:
        yield
    finally:
        client.end()


@contextmanager
def keys_at_work(rig: Rig) -> Iterator[None]:
    """Until the block ends.  Raises what failed."""
    keys = KeyMaker(rig.api)
    keys.start()
    try:
        yield
    finally:
        keys.stop()
