"""What is kept of values that callers choose is bounded in number and in bytes."""

from vaultd.hosts.envoy import peers
from vaultd.interceptors.memo import Memo


def test_it_begins_anew_at_either_bound():
    memo: Memo[int, str] = Memo(most=3, most_bytes=100)
    for key in range(3):
        assert memo.keep(key, "x", 10) == "x"
    assert list(memo) == [0, 1, 2]
    memo.keep(3, "x", 90)
    assert list(memo) == [3]
    memo.keep(4, "x", 11)
    assert list(memo) == [4]
    memo.keep(4, "y", 11)
    memo.keep(5, "x", 89)
    assert memo == {4: "y", 5: "x"}
    memo.keep(6, "x", 101)
    assert memo == {}


def test_headers_of_clients_that_show_much_are_kept_up_to_their_bound(monkeypatch):
    monkeypatch.setattr(peers, "MAX_CACHED_BYTES", 1_000_000)
    certificates = peers.Certificates()
    for number in range(100):
        certificates.of(b"Hash=%d;" % number + b"Chain=" + b"x" * 40_000)
        assert len(certificates) <= 25
    assert len(certificates) > 0
