"""When a call is sent again, how long it may take, and how much of that a client may do: the published service config.

`generated/service_config.json` is a gRPC service config (gRFC A6) that clients in every language can use.  The SDK reads it and
does the work itself, because gRPC knows neither RetryInfo nor other endpoints.
"""

from __future__ import annotations

import json
import random
from dataclasses import dataclass
from importlib.resources import files
from typing import TYPE_CHECKING, Any, Final

from vaultd_client.errors import CircuitOpen

if TYPE_CHECKING:
    from vaultd_client.errors import VaultdError
    from vaultd_client.method import Method

MAX_WAIT_S: Final = 60.0
"""Who is asked to wait longer than this is told so instead."""


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """Attempts and backoff.  Full jitter: a wait is anything up to its bound, so that callers who failed together come apart."""

    max_attempts: int
    initial_backoff_s: float
    max_backoff_s: float
    multiplier: float

    def backoff_s(self, attempts: int) -> float:
        """The wait after so many attempts."""
        bound = min(self.max_backoff_s, self.initial_backoff_s * self.multiplier ** (attempts - 1))
        return random.uniform(0, bound)  # noqa: S311  # spreads load, guards nothing


class RetryBudget:
    """Keeps retries from multiplying the load of a server that fails (gRFC A6, retryThrottling).

    Each failure takes a token, each success gives back a part of one; below half of them nothing is retried.
    """

    def __init__(self, max_tokens: float, token_ratio: float) -> None:
        self._max = self._tokens = max_tokens
        self._ratio = token_ratio

    def failed(self) -> None:
        """A call failed in a way that is retried."""
        self._tokens = max(0.0, self._tokens - 1)

    def succeeded(self) -> None:
        """A call was answered."""
        if self._tokens < self._max:
            self._tokens = min(self._max, self._tokens + self._ratio)

    @property
    def allows_retry(self) -> bool:
        """Whether there is enough left."""
        return self._tokens > self._max / 2


class ServiceConfig:
    """What the published file says."""

    def __init__(self, document: dict[str, Any]) -> None:
        self._timeouts_s: dict[str, float] = {}
        policy: dict[str, Any] = {}
        for entry in document["methodConfig"]:
            policy = entry.get("retryPolicy", policy)
            for name in entry["name"]:
                if "method" not in name:
                    self._timeouts_s[name["service"]] = _seconds(entry["timeout"])
        self.retry = RetryPolicy(
            max_attempts=policy["maxAttempts"],
            initial_backoff_s=_seconds(policy["initialBackoff"]),
            max_backoff_s=_seconds(policy["maxBackoff"]),
            multiplier=policy["backoffMultiplier"],
        )
        self._throttling = document["retryThrottling"]

    def budget(self) -> RetryBudget:
        """A fresh budget: each client has its own."""
        return RetryBudget(self._throttling["maxTokens"], self._throttling["tokenRatio"])

    def timeout_s(self, method: Method[Any, Any]) -> float:
        """How long a call may take, all attempts together."""
        return self._timeouts_s.get(method.path[1:].partition("/")[0], 30.0)


def load_service_config() -> ServiceConfig:
    """Read the file of this package."""
    text = (files("vaultd_client") / "generated" / "service_config.json").read_text(encoding="utf-8")
    return ServiceConfig(json.loads(text))


def wait_before_retry(
    policy: RetryPolicy, budget: RetryBudget, method: Method[Any, Any], error: VaultdError, attempts: int, left_s: float
) -> float | None:
    """How long to wait before a call is sent again, or None when it must not be.

    Retried are UNAVAILABLE, and what the server itself says will pass (RetryInfo); and only calls that may happen twice.
    """
    asked_s = error.retry_delay_s
    if error.code != "UNAVAILABLE" and asked_s is None:
        return None
    if not isinstance(error, CircuitOpen):  # nothing was sent
        budget.failed()
    if not method.may_retry or attempts >= policy.max_attempts or not budget.allows_retry:
        return None
    wait_s = policy.backoff_s(attempts)
    if asked_s is not None:
        wait_s += asked_s
    return wait_s if wait_s < min(left_s, MAX_WAIT_S) else None


def _seconds(text: str) -> float:
    return float(text.removesuffix("s"))
