"""Random quotas and calls against a model that is too simple to be wrong: exact fractions, no caches, no plans."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vaultd.engine.buckets import Window
from vaultd.engine.model import EACH_PRINCIPAL, Quota
from vaultd.engine.quotas import Method, RateLimiter, counts, place_of
from vaultd.errors import ResourceExhausted

NS = 1_000_000_000
PRINCIPALS = ("spiffe://example.org/a", "spiffe://example.org/b", "dns:c.example.org")
METHODS = {
    "/vaultd.v1.CryptoService/Encrypt": Method("CryptoService.Encrypt", "symmetric"),
    "/vaultd.v1.CryptoService/BatchEncrypt": Method("CryptoService.Encrypt", "symmetric"),
    "/vaultd.v1.CryptoService/Sign": Method("CryptoService.Sign", "asymmetric"),
    "/vaultd.v1.KeysService/GetKey": Method("KeysService.GetKey", "read"),
}
PLACES = ("/", "vaults/a", "vaults/a/keys/k", "vaults/a/keys/l", "vaults/b", "vaults/b/keys/k")


class FakeClock:
    """A clock in whole nanoseconds, near zero so that seconds as floats are exact."""

    ns = 0

    def now_us(self) -> int:
        return self.ns // 1000

    def monotonic_s(self) -> float:
        return self.ns / NS


windows = st.lists(
    st.builds(Window, st.integers(1, 12), st.sampled_from([1_000, 1_000_000, 7_000_000]), st.integers(0, 12)),
    min_size=1,
    max_size=3,
    unique_by=lambda window: window.period_us,
).map(tuple)
quotas = st.lists(
    st.tuples(
        st.sampled_from(["", EACH_PRINCIPAL, *PRINCIPALS]),
        st.sampled_from(PLACES),
        st.sets(st.sampled_from(["symmetric", "asymmetric", "read"])).map(tuple),
        st.sets(st.sampled_from(["CryptoService.Encrypt", "CryptoService.Sign"])).map(tuple),
        windows,
    ),
    max_size=6,
).map(lambda rows: [Quota("", f"q{at}", bytes([at]) * 16, *row, 0, 0, 1) for at, row in enumerate(rows)])
calls = st.lists(
    st.tuples(
        st.sampled_from(PRINCIPALS),
        st.sampled_from(sorted(METHODS)),
        st.sampled_from(PLACES[1:]),
        st.integers(1, 4),
        st.integers(1, 3),
        st.sampled_from([0, 1, 1_000_000, 250_000_000, NS, 3 * NS]),
    ),
    max_size=60,
)


@dataclass
class Level:
    """Tokens in a window, as a fraction."""

    tokens: Fraction
    at_ns: int = 0


class Model:
    """All quotas, looked through for each call."""

    def __init__(self, all_quotas: list[Quota]) -> None:
        self._quotas = all_quotas
        self._levels: dict[tuple[bytes, str, int], Level] = {}

    def _level(self, quota: Quota, window: Window, principal: str, now_ns: int) -> Level:
        owner = "" if quota.subject == "" else principal
        level = self._levels.setdefault((quota.uid, owner, window.period_us), Level(Fraction(window.burst), now_ns))
        gained = Fraction((now_ns - level.at_ns) * window.count, window.period_us * 1_000)
        level.tokens, level.at_ns = min(Fraction(window.burst), level.tokens + gained), now_ns
        return level

    def admit(self, principal: str, path: str, resource: str, now_ns: int, cost: int, *, at_root: bool) -> bool:
        spent = []
        for quota in self._quotas:
            covers = quota.resource in ({"/"} if at_root else {resource, "/".join(resource.split("/")[:2])})
            if covers and counts(quota, principal, METHODS[path]):
                spent += [(self._level(quota, window, principal, now_ns), cost) for window in quota.windows]
        if any(level.tokens < cost for level, cost in spent):
            return False
        for level, cost in spent:
            level.tokens -= cost
        return True


@settings(max_examples=300, deadline=None)
@given(quotas, calls)
def test_calls_are_admitted_as_by_the_naive_model(all_quotas: list[Quota], made: list[tuple]) -> None:
    clock, model = FakeClock(), Model(all_quotas)
    limiter = RateLimiter([], METHODS, clock)
    limiter.install(all_quotas)
    for principal, path, resource, cost, uses, later_ns in made:
        clock.ns += later_ns
        for at_root in (True, False):
            try:
                if at_root:
                    limiter.admit(principal, path, cost)
                else:
                    limiter.admit_use(principal, path, [place_of(resource)], uses, 1, uses, 0)
            except ResourceExhausted:
                admitted = False
            else:
                admitted = True
            spent = cost if at_root else uses
            assert admitted is model.admit(principal, path, resource, clock.ns, spent, at_root=at_root)


def quota(number: int, resource: str, *all_windows: Window, subject: str = EACH_PRINCIPAL, **fields: tuple) -> Quota:
    values = {"classes": (), "methods": (), **fields}
    return Quota(
        "", f"q{number}", bytes([number]) * 16, subject, resource, *values.values(), all_windows, 0, 0, revision=1
    )


def made(*all_quotas: Quota) -> tuple[RateLimiter, FakeClock]:
    clock = FakeClock()
    limiter = RateLimiter([], METHODS, clock)
    limiter.install(all_quotas)
    return limiter, clock


ENCRYPT, BATCH, SIGN, GET = sorted(METHODS)[1], sorted(METHODS)[0], sorted(METHODS)[2], sorted(METHODS)[3]
SECOND = 1_000_000
KEY = [("a", "k")]


def use(limiter: RateLimiter, principal: str = PRINCIPALS[0], uses: int = 1, weight: int = 1, path: str = SIGN) -> None:
    limiter.admit_use(principal, path, KEY, uses, weight, uses, 0)


def test_an_operation_that_weighs_more_costs_more() -> None:
    limiter, _ = made(quota(1, "vaults/a/keys/k", Window(10, SECOND)))
    use(limiter, weight=8)
    with pytest.raises(ResourceExhausted):
        use(limiter, weight=8)
    use(limiter, uses=2)


def test_one_operation_never_weighs_more_than_a_window_holds() -> None:
    limiter, clock = made(quota(1, "vaults/a/keys/k", Window(5, SECOND)))
    use(limiter, weight=100)
    clock.ns += NS
    use(limiter, weight=100)


def test_many_operations_of_one_call_may_cost_more_than_a_window_will_ever_hold() -> None:
    limiter, _ = made(quota(1, "vaults/a/keys/k", Window(5, SECOND)))
    with pytest.raises(ResourceExhausted) as caught:
        use(limiter, uses=6)
    assert (caught.value.reason, caught.value.retry_after_s) == ("COST_ABOVE_QUOTA", None)


@pytest.mark.parametrize("weight", [1, 3, 5, 50])
def test_who_waits_as_told_is_admitted_though_the_message_is_counted_again(weight: int) -> None:
    limiter, clock = made(quota(1, "/", Window(5, SECOND)))
    limiter.admit(PRINCIPALS[0], SIGN, 5)
    for _ in range(3):
        try:
            limiter.admit(PRINCIPALS[0], SIGN, 1)
            limiter.admit_use(PRINCIPALS[0], SIGN, KEY, 1, weight, 1, 1)
        except ResourceExhausted as refused:
            clock.ns += round((refused.retry_after_s or 0) * NS)
        else:
            return
    raise AssertionError("refused again and again")


def test_a_batch_is_counted_as_the_method_that_it_repeats() -> None:
    limiter, _ = made(quota(1, "/", Window(3, SECOND), methods=("CryptoService.Encrypt",)))
    limiter.admit(PRINCIPALS[0], ENCRYPT, 2)
    with pytest.raises(ResourceExhausted):
        limiter.admit(PRINCIPALS[0], BATCH, 2)
    limiter.admit(PRINCIPALS[0], SIGN, 100)


def test_a_shared_quota_is_one_count_and_names_its_resource() -> None:
    limiter, _ = made(quota(1, "vaults/a", Window(3, SECOND), subject=""))
    use(limiter, PRINCIPALS[0], 2)
    with pytest.raises(ResourceExhausted) as caught:
        use(limiter, PRINCIPALS[1], 2)
    assert caught.value.metadata == {"quota": "quotas/q1/per_1s", "subject": "vaults/a"}


def test_a_vaults_quota_counts_a_call_on_two_of_its_keys_once() -> None:
    limiter, _ = made(quota(1, "vaults/a", Window(1, SECOND)))
    limiter.admit_use(PRINCIPALS[0], ENCRYPT, [("a", "k"), ("a", "l")], 1, 1, 1, 0)


def test_what_a_quota_refuses_is_spent_in_no_other() -> None:
    limiter, _ = made(quota(1, "vaults/a", Window(5, SECOND)), quota(2, "vaults/a/keys/k", Window(1, SECOND)))
    use(limiter)
    for _ in range(10):
        with pytest.raises(ResourceExhausted):
            use(limiter)
    limiter.admit_use(PRINCIPALS[0], SIGN, [("a", "l")], 4, 1, 4, 0)


def test_names_that_callers_invent_are_not_kept() -> None:
    limiter, _ = made(quota(1, "vaults/a", Window(10**6, SECOND)))
    for number in range(1_000):
        limiter.admit_use(PRINCIPALS[0], SIGN, [("a", f"invented-{number}"), (f"v{number}", "k")], 1, 1, 1, 0)
    assert len(limiter._accounts[PRINCIPALS[0]].placed) == 1


def test_counts_of_quotas_that_did_not_change_go_on() -> None:
    first, second = quota(1, "vaults/a", Window(2, SECOND)), quota(2, "vaults/a/keys/k", Window(2, SECOND))
    limiter, _ = made(first, second)
    use(limiter)
    limiter.install([first, quota(2, "vaults/a/keys/k", Window(3, SECOND))])
    use(limiter)
    with pytest.raises(ResourceExhausted, match="quotas/q1"):
        use(limiter)


def test_a_deleted_quota_refuses_nothing_any_more() -> None:
    limiter, _ = made(quota(1, "vaults/a", Window(1, SECOND)))
    use(limiter)
    limiter.install([])
    use(limiter, uses=100)


class TickingClock(FakeClock):
    """A clock that moves on whenever it is looked at, as real ones do."""

    def monotonic_s(self) -> float:
        self.ns += 1_000
        return self.ns / NS


def test_a_first_call_that_costs_a_whole_window_is_admitted() -> None:
    limiter = RateLimiter([], METHODS, TickingClock())
    limiter.install([quota(1, "/", Window(1, 3_600 * SECOND)), quota(2, "vaults/a/keys/k", Window(1, 3_600 * SECOND))])
    limiter.admit(PRINCIPALS[0], SIGN, 1)
    use(limiter)


@pytest.mark.parametrize(
    ("name", "place"),
    [
        ("/", ("", "")),
        ("vaults", ("", "")),
        ("vaults/a", ("a", "")),
        ("vaults/a/keys/k", ("a", "k")),
        ("vaults/a/keys/k/versions/3", ("a", "k")),
        ("vaults/a/secrets/s", ("a", "")),
    ],
)
def test_the_place_of_a_name(name: str, place: tuple[str, str]) -> None:
    assert place_of(name) == place
