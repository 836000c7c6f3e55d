"""When the SDK sends a call again, and which endpoint it leaves alone: without a server, in a time of the test's own."""

from __future__ import annotations

import json
import random
import subprocess
import sys
from importlib.resources import files

import grpc
import pytest

from vaultd_client import CircuitOpen, VaultdError
from vaultd_client.endpoints import OPEN_S, OPENS_AFTER, Endpoint, Endpoints
from vaultd_client.errors import Refusal, make_error
from vaultd_client.generated import table
from vaultd_client.retries import RetryBudget, load_service_config, wait_before_retry


def refusal(code: str, **more) -> VaultdError:
    return make_error(Refusal(code, "", **more), "/m")


def test_a_circuit_lets_one_call_try_after_its_pause():
    endpoints = Endpoints(["a"])
    endpoint = endpoints.pick(0.0, (), "m")
    for _ in range(OPENS_AFTER):
        endpoint.failed(10.0)
    with pytest.raises(CircuitOpen) as raised:
        endpoints.pick(10.0, (), "m")
    assert 0 < raised.value.retry_delay_s <= OPEN_S
    assert endpoints.pick(10.0 + OPEN_S, (), "m") is endpoint
    with pytest.raises(CircuitOpen):
        endpoints.pick(10.0 + OPEN_S, (), "m")  # one is trying
    endpoint.answered()
    assert endpoints.pick(10.0 + OPEN_S, (), "m") is endpoint


def test_a_probe_that_never_comes_back_does_not_keep_the_circuit_open():
    endpoint = Endpoint("a")
    for _ in range(OPENS_AFTER):
        endpoint.failed(0.0)
    endpoint.tried(OPEN_S)
    assert endpoint.wait_s(OPEN_S) > 0
    assert endpoint.wait_s(2 * OPEN_S) == 0


# -- retries --------------------------------------------------------------------------------------------------------------

CONFIG = load_service_config()


def wait(error, *, method=table.ENCRYPT, attempts=1, left_s=10.0, budget=None):
    return wait_before_retry(CONFIG.retry, budget or CONFIG.budget(), method, error, attempts, left_s)


def test_only_unavailable_and_what_the_server_says_will_pass_is_retried():
    for code in ("INTERNAL", "DEADLINE_EXCEEDED", "ABORTED", "RESOURCE_EXHAUSTED", "CANCELLED", "DATA_LOSS"):
        assert wait(refusal(code)) is None
    assert wait(refusal("UNAVAILABLE")) is not None
    assert wait(refusal("RESOURCE_EXHAUSTED", retry_delay_s=0.2)) >= 0.2
    assert wait(refusal("RESOURCE_EXHAUSTED", retry_delay_s=20.0)) is None, "longer than the call may take"
    assert wait(refusal("UNAVAILABLE"), attempts=CONFIG.retry.max_attempts) is None


def test_a_call_that_may_not_happen_twice_is_never_retried():
    assert wait(refusal("UNAVAILABLE", retry_delay_s=0.1), method=table.INIT) is None
    assert wait(refusal("UNAVAILABLE"), method=table.ROTATE_KEY) is not None


def test_backoff_has_full_jitter_within_its_bounds():
    seed = random.randrange(2**32)
    print("seed", seed)
    random.seed(seed)
    for attempts, bound in ((1, 0.1), (2, 0.2), (3, 0.4), (4, 0.8), (9, 1.0)):
        waits = [CONFIG.retry.backoff_s(attempts) for _ in range(300)]
        assert min(waits) < bound / 10
        assert bound * 0.9 < max(waits) <= bound


def test_the_budget_ends_retries_while_everything_fails_and_comes_back_with_successes():
    budget = RetryBudget(10, 0.5)
    granted = [wait(refusal("UNAVAILABLE"), budget=budget) is not None for _ in range(8)]
    assert granted == [True] * 4 + [False] * 4
    for _ in range(10):
        budget.succeeded()
    assert wait(refusal("UNAVAILABLE"), budget=budget) is not None


def test_the_published_service_config_is_one_that_grpc_takes_and_names_no_mutation_without_a_request_id():
    text = (files("vaultd_client") / "generated/service_config.json").read_text()
    document = json.loads(text)
    named = {f"/{n['service']}/{n['method']}" for e in document["methodConfig"] for n in e["name"] if "method" in n}
    methods = [each for each in vars(table).values() if isinstance(each, table.Method)]
    assert named == {each.path for each in methods if each.may_retry}
    assert table.INIT in [each for each in methods if not each.may_retry]
    assert all(single.repeatable and batch.repeatable for single, batch in table.BATCHES.items())
    grpc.insecure_channel("127.0.0.1:1", options=[("grpc.service_config", text)]).close()
    assert CONFIG.timeout_s(table.ENCRYPT) == 10.0
    assert CONFIG.timeout_s(table.CREATE_KEY) == 30.0


def test_names_of_the_package_come_without_grpc():
    script = "import sys, vaultd_client, vaultd_client.v1.crypto_pb2; assert 'grpc' not in sys.modules; print(dir(vaultd_client))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=60)
    assert "AsyncClient" in done.stdout
