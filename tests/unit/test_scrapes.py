"""One page of metrics from those of several workers."""

from prometheus_client.parser import text_string_to_metric_families

from vaultd.workers.scrapes import merge

PAGE = """# HELP calls_total Calls
# TYPE calls_total counter
calls_total{method="a b",code="0"} %d.0
calls_total{} 1.0
# HELP up Whether
# TYPE up gauge
up 1.0
# HELP keys Keys there are
# TYPE keys gauge
keys{type="key"} 7.0
"""


def test_each_sample_has_its_worker_and_each_family_stands_once():
    page = merge({1: PAGE % 5, 0: PAGE % 3}, {"keys"})
    families = {family.name: family for family in text_string_to_metric_families(page)}
    calls = {(s.labels["worker"], s.labels.get("method", "")): s.value for s in families["calls"].samples}
    assert calls == {("0", "a b"): 3, ("0", ""): 1, ("1", "a b"): 5, ("1", ""): 1}
    assert [(s.labels, s.value) for s in families["up"].samples] == [({"worker": "0"}, 1), ({"worker": "1"}, 1)]
    assert [(s.labels, s.value) for s in families["keys"].samples] == [({"type": "key"}, 7)]
    assert page.count("# TYPE calls_total") == 1


def test_openmetrics_ends_once():
    assert merge({0: "# TYPE up gauge\nup 1.0\n# EOF\n", 1: "# TYPE up gauge\nup 1.0\n# EOF\n"}, ()).count("# EOF") == 1
    assert merge({0: "# TYPE up gauge\nup 1.0\n# EOF\n"}, ()).endswith("# EOF\n")


def test_no_worker_is_an_empty_page():
    assert merge({}, ()) == ""
