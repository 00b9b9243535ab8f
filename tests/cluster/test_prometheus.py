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

from tests.cluster.installation import NAMESPACE, ROOT, Installation
from tests.cluster.test_ready import verdicts
from tests.support.prometheus import Prometheus
from tests.support.waiting import wait_until

COMPONENT = ROOT / "deploy/components/prometheus-rules"


def discovered(installation: Installation, namespaces: list[str]) -> Iterator[dict[str, Any]]:
    """The targets of Kubernetes' discovery with the role `pod`, as Prometheus' documentation of it has them."""
    for namespace in namespaces:
        for pod in installation.cluster.get("pods", namespace=namespace)["items"]:
            facts = {"namespace": namespace, "pod_name": pod["metadata"]["name"], "pod_ip": pod["status"]["podIP"]}
            for kind in ("label", "annotation"):
                named = pod["metadata"].get(f"{kind}s", {}).items()
                facts |= {f"pod_{kind}_{re.sub(r'[^a-zA-Z0-9_]', '_', name)}": value for name, value in named}
            ports = [port for each in pod["spec"]["containers"] for port in each.get("ports", ())]
            yield {
                "targets": [f"{facts['pod_ip']}:{port['containerPort']}" for port in ports] or [facts["pod_ip"]],
                "labels": {f"__meta_kubernetes_{name}": value for name, value in facts.items()},
            }


@pytest.fixture
def prometheus(installation: Installation, tmp_path: Path) -> Iterator[Prometheus]:
    (job,) = yaml.safe_load((COMPONENT / "kgents.scrape.yaml").read_text())["scrape_configs"]
    (discovery,) = job.pop("kubernetes_sd_configs")
    assert discovery["role"] == "pod"
    targets = tmp_path / "targets.json"
    targets.write_text(json.dumps(list(discovered(installation, discovery["namespaces"]["names"]))))
    job |= {"file_sd_configs": [{"files": [str(targets)]}], "scrape_interval": "1s"}
    groups = yaml.safe_load((COMPONENT / "kgents.rules.yaml").read_text())["groups"]
    running = Prometheus(tmp_path / "prometheus", [job], groups)
    yield running
    running.stop()


def test_every_process_is_scraped_and_every_alert_is_evaluated(
    installation: Installation, prometheus: Prometheus, tmp_path: Path
) -> None:
    pods = {
        (namespace, pod["metadata"]["name"])
        for namespace, names in ((NAMESPACE, ("kgents",)), ("kgents-logs", ("kgents-log-collector",)))
        for pod in installation.cluster.get("pods", namespace=namespace)["items"]
        if pod["metadata"]["labels"].get("app.kubernetes.io/name") in names
        and pod["metadata"].get("annotations", {}).get("prometheus.io/scrape") == "true"
    }
    assert len(pods) >= 7, "two of the API, two workers, three collectors"

    wait_until(lambda: len(prometheus.query("up == 1")) >= len(pods), seconds=30, what="all are scraped")
    up = prometheus.query("up")
    assert {(each["metric"]["namespace"], each["metric"]["pod"]): each["value"][1] for each in up} == dict.fromkeys(
        pods, "1"
    )
    components = {each["metric"]["component"] for each in prometheus.query("kgents_build_info")}
    assert components == {"api", "worker"}

    found = verdicts(installation, tmp_path, "L5", options=(f"--prometheus={prometheus.url}",))["L5"]
    assert found["verdict"] == "pass", found["detail"]
