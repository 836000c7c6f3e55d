"""The unit, the image and the manifests keep what docs/operations.md says of them."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml

from vaultd.config import load_settings

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "deploy"
MANIFESTS = [
    document
    for path in sorted((DEPLOY / "kubernetes").glob("*.yaml"))
    if path.name not in {"config.yaml", "kustomization.yaml"}
    for document in yaml.safe_load_all(path.read_text())
]


def of_kind(kind: str) -> list[dict]:
    return [document for document in MANIFESTS if document["kind"] == kind]


def unit() -> dict[str, list[str]]:
    lines = (DEPLOY / "systemd/vaultd.service").read_text().splitlines()
    found: dict[str, list[str]] = {}
    for line in lines:
        if "=" in line and not line.startswith("#"):
            key, value = line.split("=", 1)
            found.setdefault(key, []).append(value)
    return found


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("User", "vaultd"),
        ("LimitNOFILE", "65536"),
        ("LimitCORE", "0"),
        ("MemorySwapMax", "0"),
        ("NoNewPrivileges", "yes"),
        ("CapabilityBoundingSet", ""),
        ("ProtectSystem", "strict"),
        ("ProtectHome", "yes"),
        ("PrivateTmp", "yes"),
        ("PrivateDevices", "yes"),
        ("MemoryDenyWriteExecute", "yes"),
        ("RestrictNamespaces", "yes"),
        ("SystemCallArchitectures", "native"),
        ("UMask", "0077"),
        ("StateDirectoryMode", "0700"),
        ("KillSignal", "SIGTERM"),
        ("Restart", "on-failure"),
    ],
)
def test_the_unit_is_hardened(setting, value):
    assert unit()[setting] == [value]


def test_the_unit_gives_a_server_the_time_to_drain():
    settings = load_settings(DEPLOY / "systemd/config.yaml")
    assert int(unit()["TimeoutStopSec"][0]) > settings.drain_grace_s
    assert "kill -HUP" in unit()["ExecReload"][0]
    assert unit()["SystemCallFilter"] == ["@system-service", "~@privileged @resources"]


def test_the_image_runs_as_nobody_in_particular_and_builds_from_what_is_there():
    text = (DEPLOY / "docker/Dockerfile").read_text()
    assert re.findall(r"^USER (.*)$", text, re.MULTILINE) == ["65532:65532"]
    assert "--require-hashes -r requirements.lock" in text
    assert not re.search(r"curl|wget|apt-get", text)
    allowed = {line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")}
    copied = {
        source for line in re.findall(r"^COPY (?!--from)(.*) \S+$", text, re.MULTILINE) for source in line.split()
    }
    assert copied == allowed
    assert all((ROOT / source).exists() for source in copied)


def test_pods_run_without_root_privileges_or_a_writable_root():
    (workload,) = of_kind("StatefulSet")
    pod = workload["spec"]["template"]["spec"]
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert pod["automountServiceAccountToken"] is False
    assert pod["enableServiceLinks"] is False
    for container in (*pod["initContainers"], *pod["containers"]):
        assert container["securityContext"] == {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        }
        assert container["resources"]["limits"]["memory"]


def test_probes_ask_the_pages_that_there_are_and_ports_are_those_of_the_configuration():
    (workload,) = of_kind("StatefulSet")
    settings = load_settings(DEPLOY / "kubernetes/config.yaml")
    pod = workload["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    ports = {port["name"]: port["containerPort"] for port in container["ports"]}
    assert ports == {"grpc": int(settings.listen[-4:]), "metrics": int(settings.metrics.listen[-4:])}
    assert container["readinessProbe"]["httpGet"]["path"] == "/readyz"
    assert container["livenessProbe"]["httpGet"]["path"] == "/healthz"
    assert pod["terminationGracePeriodSeconds"] > settings.drain_grace_s


def test_nobody_reaches_a_pod_but_callers_and_the_monitoring():
    policies = {policy["metadata"]["name"]: policy["spec"] for policy in of_kind("NetworkPolicy")}
    assert policies["default-deny"] == {"podSelector": {}, "policyTypes": ["Ingress", "Egress"]}
    by_port = {rule["ports"][0]["port"]: rule["from"] for rule in policies["vaultd"]["ingress"]}
    assert by_port.keys() == {7443, 9464}
    assert all(peer.get("podSelector") for peers in by_port.values() for peer in peers)
    assert by_port[9464][0]["namespaceSelector"]["matchLabels"] == {"kubernetes.io/metadata.name": "monitoring"}


def test_every_manifest_is_applied():
    kustomization = yaml.safe_load((DEPLOY / "kubernetes/kustomization.yaml").read_text())
    names = {path.name for path in (DEPLOY / "kubernetes").glob("*.yaml")}
    assert set(kustomization["resources"]) == names - {"kustomization.yaml", "config.yaml"}
