"""The operations kit by itself: rules, dashboards, runbooks, and how they belong together."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path

import pytest
import yaml
from google.protobuf import descriptor_pool

from vaultd.config import load_settings
from vaultd.interceptors.rules import RULES
from vaultd.telemetry.metrics import METRICS, Kind
from vaultd_client.v1 import admin_pb2, crypto_pb2, keys_pb2, secrets_pb2  # noqa: F401  # into the pool of descriptors

ROOT = Path(__file__).parents[2]
PROMETHEUS = ROOT / "deploy/prometheus"
RULE_FILES = sorted((PROMETHEUS / "rules").glob("*.yml"))
DASHBOARDS = sorted((ROOT / "deploy/grafana").glob("*.json"))
RUNBOOKS = ROOT / "docs/runbooks"


def rules() -> list[dict]:
    return [
        rule for path in RULE_FILES for group in yaml.safe_load(path.read_text())["groups"] for rule in group["rules"]
    ]


ALERTS = {rule["alert"]: rule for rule in rules() if "alert" in rule}
RECORDED = {rule["record"] for rule in rules() if "record" in rule}


def panels(dashboard: dict) -> list[dict]:
    return [panel for panel in dashboard["panels"] if panel["type"] != "row"]


def expressions(path: Path) -> list[str]:
    return [target["expr"] for panel in panels(json.loads(path.read_text())) for target in panel["targets"]]


def metric_names() -> set[str]:
    """Every name that a server can answer a scrape with, and those that Prometheus makes."""
    names = {"up", "ALERTS"}
    for metric in METRICS.values():
        if metric.kind is Kind.HISTOGRAM:
            names |= {f"{metric.prometheus}_{suffix}" for suffix in ("bucket", "sum", "count")}
        else:
            names.add(metric.prometheus)
    return names


def named_in(expression: str) -> set[str]:
    """The metrics that an expression names."""
    without_labels = re.sub(r"\{[^}]*\}|\b(?:by|on|without)\s*\([^)]*\)|\"[^\"]*\"", " ", expression)
    return set(re.findall(r"\b(?:vaultd|rpc)[a-zA-Z0-9_:]+|\bup\b|\bALERTS\b", without_labels))


def promtool(*arguments: str | Path) -> str:
    done = subprocess.run(["promtool", *map(str, arguments)], capture_output=True, text=True, timeout=110)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_promtool_accepts_the_rules_and_the_configuration():
    found = re.findall(r"(\d+) rules found", promtool("check", "rules", *RULE_FILES))
    assert sum(map(int, found)) == len(rules()) > 50
    promtool("check", "config", PROMETHEUS / "prometheus.yml")


@pytest.mark.slow
@pytest.mark.parametrize("path", sorted((PROMETHEUS / "tests").glob("*.yml")), ids=lambda path: path.stem)
def test_alerts_fire_when_they_should(path):
    assert "SUCCESS" in promtool("test", "rules", path)


def test_rules_and_dashboards_name_metrics_that_there_are():
    known = metric_names() | RECORDED
    for rule in rules():
        assert named_in(rule["expr"]) <= known, rule
    for path in DASHBOARDS:
        for expression in expressions(path):
            assert named_in(expression), expression
            assert named_in(expression) <= known, (path.name, expression)


def test_every_metric_is_on_a_dashboard_or_in_a_rule():
    used = {name for rule in rules() for name in named_in(rule["expr"])}
    used |= {name for path in DASHBOARDS for expression in expressions(path) for name in named_in(expression)}
    for metric in METRICS.values():
        assert any(name == metric.prometheus or name.startswith(f"{metric.prometheus}_") for name in used), metric.name


def test_streams_burn_no_budget():
    """They end with UNAVAILABLE when a server drains, and last as long as they like."""
    (excluded,) = {
        match for rule in rules() for match in re.findall(r'rpc_method!~"\.\+/\(([^B)][^)]*)\)"', rule["expr"])
    }
    for path in {rule.method for rule in RULES if not rule.open}:
        service, name = path.strip("/").split("/")
        method = descriptor_pool.Default().FindServiceByName(service).methods_by_name[name]
        if method.server_streaming or method.client_streaming:
            assert name in excluded.split("|"), path


def test_every_alert_says_whom_it_is_for_and_has_a_runbook():
    for name, rule in ALERTS.items():
        assert rule["labels"]["severity"] in {"page", "ticket"}
        assert rule["labels"]["service"] == "vaultd"
        assert {"summary", "description", "runbook"} <= rule["annotations"].keys()
        page = ROOT / rule["annotations"]["runbook"]
        assert page == RUNBOOKS / f"{name}.md"
        text = page.read_text()
        assert text.startswith(f"# {name}\n")
        for section in ("## What it means", "## What to look at", "## What to do"):
            assert section in text, (name, section)


def test_there_is_no_runbook_without_its_alert_and_the_index_has_all():
    assert {path.stem for path in RUNBOOKS.glob("*.md")} - {"README"} == set(ALERTS)
    index = (RUNBOOKS / "README.md").read_text()
    for name, rule in ALERTS.items():
        assert re.search(rf"\[{name}\]\({name}\.md\) \| {rule['labels']['severity']} \|", index), name


def test_burn_rates_look_at_two_windows_and_the_objectives_are_those_of_the_docs():
    text = (ROOT / "docs/slo.md").read_text()
    assert "99.95 %" in text
    assert "99 %" in text
    for name in ("VaultdErrorBudgetBurnFast", "VaultdLatencyBudgetBurnFast"):
        assert {"1h", "5m", "6h", "30m"} == set(re.findall(r"ratio_rate(\w+)", ALERTS[name]["expr"]))
    assert " * 0.0005" in ALERTS["VaultdErrorBudgetBurnFast"]["expr"]


@pytest.mark.parametrize("path", DASHBOARDS, ids=lambda path: path.stem)
def test_a_dashboard_can_be_imported_anywhere(path):
    dashboard = json.loads(path.read_text())
    ids = [panel["id"] for panel in dashboard["panels"]]
    assert len(set(ids)) == len(ids)
    assert dashboard["uid"].startswith("vaultd-")
    for panel in panels(dashboard):
        assert panel["description"]
        for target in panel["targets"]:
            assert target["datasource"] == {"type": "prometheus", "uid": "${datasource}"}
            assert 'job="$job"' in target["expr"] or "ALERTS" in target["expr"]


def test_there_are_dashboards_for_executives_for_who_is_on_call_and_to_debug():
    assert {path.stem for path in DASHBOARDS} == {"executive", "on-call", "debug"}


@pytest.mark.parametrize("path", sorted((ROOT / "deploy").rglob("config*.yaml")), ids=lambda path: path.parent.name)
def test_the_configurations_of_the_kit_are_valid(path, tmp_path):
    settings = load_settings(path)
    assert settings.metrics.listen
