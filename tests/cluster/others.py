"""What others tell of a cluster: a real kube-state-metrics and each kubelet's cAdvisor, in a real Prometheus."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import yaml

from cluster import build
from tests.cluster.installation import ROOT, Cluster
from tests.support.ports import free_port
from tests.support.process import ServerProcess
from tests.support.prometheus import Prometheus

RULES = ROOT / "deploy/components/prometheus-rules/kgents.rules.yaml"
RESOURCES = "daemonsets,deployments,horizontalpodautoscalers,pods"
INTERVAL = "3s"


@contextmanager
def others(cluster: Cluster, folder: Path) -> Iterator[Prometheus]:
    """A Prometheus that looks at them, without rules: what an alert asks for can be asked at any time."""
    port, own = free_port(), free_port()
    command: list[str | Path] = [build.build("kube-state-metrics") / "kube-state-metrics"]
    command += [f"--kubeconfig={cluster.kubeconfig}", f"--resources={RESOURCES}", "--host=127.0.0.1", f"--port={port}"]
    command += ["--telemetry-host=127.0.0.1", f"--telemetry-port={own}"]
    state = {
        "job_name": "kube-state-metrics",
        "honor_labels": True,
        "scrape_interval": INTERVAL,
        "static_configs": [{"targets": [f"127.0.0.1:{port}"]}],
    }
    with ExitStack() as stack:
        running = ServerProcess(command, folder / "kube-state-metrics.log")
        stack.callback(running.stop)
        server = Prometheus(folder / "prometheus", [state, *_kubelets(cluster, folder)], [])
        stack.callback(server.stop)
        yield server


def _kubelets(cluster: Cluster, folder: Path) -> list[dict[str, Any]]:
    """cAdvisor of every node, through the API server, as who the kubeconfig says."""
    known = yaml.safe_load(cluster.kubeconfig.read_text())
    server, user = known["clusters"][0]["cluster"], known["users"][0]["user"]
    files = {}
    for name, data in (
        ("ca_file", server["certificate-authority-data"]),
        ("cert_file", user["client-certificate-data"]),
        ("key_file", user["client-key-data"]),
    ):
        files[name] = folder / name
        files[name].write_bytes(base64.b64decode(data))
    nodes = [each["metadata"]["name"] for each in cluster.get("nodes")["items"]]
    return [
        {
            "job_name": f"cadvisor-{node}",
            "scheme": "https",
            "metrics_path": f"/api/v1/nodes/{node}/proxy/metrics/cadvisor",
            "scrape_interval": INTERVAL,
            "tls_config": {name: str(path) for name, path in files.items()},
            "static_configs": [{"targets": [server["server"].removeprefix("https://")]}],
        }
        for node in nodes
    ]


def asked_by(alert: str) -> str:
    """What an alert of ours asks for; it fires once that has an answer for long enough."""
    groups = yaml.safe_load(RULES.read_text())["groups"]
    (found,) = {str(rule["expr"]) for group in groups for rule in group["rules"] if rule.get("alert") == alert}
    return found
