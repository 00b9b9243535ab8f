"""A real Prometheus with the component's own files finds every process of kgents in the cluster, and evaluates alerts.

Debian's Prometheus is built without Kubernetes' discovery: what that says of pods is made here of the same objects, so
that the relabelling of the component's job chooses and names them.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.cluster.installation import ROOT, Installation
from tests.cluster.test_ready import verdicts
from tests.support.prometheus import Prometheus
from tests.support.waiting import wait_until

COMPONENT = ROOT / "deploy/components/prometheus-rules"
JOB: dict[str, Any] = yaml.safe_load((COMPONENT / "kgents.scrape.yaml").read_text())["scrape_configs"][0]


def running(installation: Installation) -> list[dict[str, Any]]:
    """The pods that are to be discovered: those that run, and are not about to end."""
    namespaces = JOB["kubernetes_sd_configs"][0]["namespaces"]["names"]
    pods = [pod for namespace in namespaces for pod in installation.cluster.get("pods", namespace=namespace)["items"]]
    return [pod for pod in pods if pod["status"]["phase"] == "Running" and "deletionTimestamp" not in pod["metadata"]]


def discovered(pod: dict[str, Any]) -> dict[str, Any]:
    """A pod's targets by Kubernetes' discovery with the role `pod`, as Prometheus' documentation of it has them."""
    about = pod["metadata"]
    facts = {"namespace": about["namespace"], "pod_name": about["name"], "pod_ip": pod["status"]["podIP"]}
    for kind in ("label", "annotation"):
        named = about.get(f"{kind}s", {}).items()
        facts |= {f"pod_{kind}_{re.sub(r'[^a-zA-Z0-9_]', '_', name)}": value for name, value in named}
    ports = [port for each in pod["spec"]["containers"] for port in each.get("ports", ())]
    return {
        "targets": [f"{facts['pod_ip']}:{port['containerPort']}" for port in ports] or [facts["pod_ip"]],
        "labels": {f"__meta_kubernetes_{name}": value for name, value in facts.items()},
    }


@pytest.fixture
def targets(tmp_path: Path) -> Path:
    """The file in which Prometheus finds what is discovered."""
    return tmp_path / "targets.json"


@pytest.fixture
def prometheus(tmp_path: Path, targets: Path) -> Iterator[Prometheus]:
    job = dict(JOB) | {"file_sd_configs": [{"files": [str(targets)]}], "scrape_interval": "1s"}
    assert job.pop("kubernetes_sd_configs")[0]["role"] == "pod"
    groups = yaml.safe_load((COMPONENT / "kgents.rules.yaml").read_text())["groups"]
    server = Prometheus(tmp_path / "prometheus", [job], groups)
    yield server
    server.stop()


def test_every_process_is_scraped_and_every_alert_is_evaluated(
    installation: Installation, prometheus: Prometheus, targets: Path, tmp_path: Path
) -> None:
    def scraped() -> bool:
        """All pods that ask for it are, now: others may still end that an earlier test has replaced."""
        found = running(installation)
        text = json.dumps([discovered(pod) for pod in found])
        if not targets.exists() or targets.read_text() != text:
            unfinished = targets.with_suffix(".new")
            unfinished.write_text(text)
            unfinished.rename(targets)
        pods = {
            (pod["metadata"]["namespace"], pod["metadata"]["name"])
            for pod in found
            if pod["metadata"]["labels"].get("app.kubernetes.io/name") in ("kgents", "kgents-log-collector")
            and pod["metadata"].get("annotations", {}).get("prometheus.io/scrape") == "true"
        }
        seen = {(each["metric"]["namespace"], each["metric"]["pod"]) for each in prometheus.query("up == 1")}
        return len(pods) >= 7 and pods <= seen  # two of the API, two workers, three collectors

    wait_until(scraped, seconds=120, what="all are scraped")
    components = {each["metric"]["component"] for each in prometheus.query("kgents_build_info")}
    assert components == {"api", "worker"}

    found = verdicts(installation, tmp_path, "L5", options=(f"--prometheus={prometheus.url}",))["L5"]
    assert found["verdict"] == "pass", found["detail"]
