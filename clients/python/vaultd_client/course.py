"""The course of one call: which endpoint next, and whether and when again.  It waits for nothing itself."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from vaultd_client.batching import too_late
from vaultd_client.endpoints import Endpoint, Endpoints, is_failure
from vaultd_client.retries import load_service_config, wait_before_retry

if TYPE_CHECKING:
    from collections.abc import Sequence

    from vaultd_client.errors import VaultdError
    from vaultd_client.info import CallInfo
    from vaultd_client.method import Method

SILENT_AFTER_S: Final = 1.0


class Pilot:
    """What the calls of one client share: endpoints, the published config, and the budget of retries."""

    def __init__(self, addresses: Sequence[str]) -> None:
        self.endpoints = Endpoints(addresses)
        self.config = load_service_config()
        self.budget = self.config.budget()


class Course:
    """One call, from its first attempt to its end.  Times are those of the clock that the deadline is of."""

    __slots__ = ("_begun", "_deadline", "_endpoint", "_method", "_pilot", "_tried", "attempts")

    def __init__(self, pilot: Pilot, method: Method[Any, Any], deadline: float) -> None:
        self._pilot = pilot
        self._method = method
        self._deadline = deadline
        self._tried: list[Endpoint] = []
        self._endpoint: Endpoint | None = None
        self._begun = 0.0
        self.attempts = 0

    def next(self, now: float) -> Endpoint:
        """Where the next attempt goes.  Raises DeadlineExceeded, or CircuitOpen."""
        if now >= self._deadline:
            raise too_late(self._method)
        self.attempts += 1
        self._begun = now
        self._endpoint = None
        self._endpoint = self._pilot.endpoints.pick(now, self._tried, self._method.path)
        return self._endpoint

    def answered(self, info: CallInfo | None) -> None:
        """The attempt got its answer."""
        if self._endpoint is not None:
            self._endpoint.answered()
            if info is not None:
                info.attempts, info.address = self.attempts, self._endpoint.address
        self._pilot.budget.succeeded()

    def failed(self, error: VaultdError, now: float, info: CallInfo | None) -> float | None:
        """The attempt failed: how long to wait before the next one, or None when there must be none."""
        pilot, endpoint, failed = self._pilot, self._endpoint, is_failure(error)
        if info is not None:
            info.attempts, info.request_id = self.attempts, error.request_id
        if endpoint is not None:
            self._tried.append(endpoint)
            if info is not None:
                info.address = endpoint.address
            if failed and self._speaks_against_endpoint(error, now):
                endpoint.failed(now)
            elif error.refusal.answered:
                endpoint.answered()
        retry, method = pilot.config.retry, self._method
        wait_s = wait_before_retry(retry, pilot.budget, method, error, self.attempts, self._deadline - now)
        may = method.may_retry and self.attempts < retry.max_attempts and now < self._deadline
        if failed and may and pilot.endpoints.untried(now, self._tried):
            wait_s = 0.0  # another endpoint takes over at once
        if info is not None and wait_s is not None:
            info.repeated(error, wait_s)
        return wait_s

    def _speaks_against_endpoint(self, error: VaultdError, now: float) -> bool:
        """A server that answers is left alone only where there are others: its reason says more than an open circuit.  Who gave it
        less than a second cannot know that it is silent."""
        if error.refusal.answered:
            return self._pilot.endpoints.several
        return error.code == "UNAVAILABLE" or now - self._begun >= SILENT_AFTER_S
