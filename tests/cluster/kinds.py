"""Kinds that others bring: their definitions are fetched as Go modules when the tests run, and given to the cluster."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Sequence
from pathlib import Path

from kgents.deploy.findings import condition
from tests.cluster.installation import Cluster
from tests.support.waiting import wait_until

MODULES = {
    "sigs.k8s.io/gateway-api@v1.4.1": ["config/crd/standard/gateway.networking.k8s.io_*.yaml"],
    "github.com/cert-manager/cert-manager@v1.19.1": ["deploy/crds/*.yaml"],
    "github.com/external-secrets/external-secrets@v0.16.2": [
        "config/crds/bases/external-secrets.io_externalsecrets.yaml"
    ],
    "github.com/kong/kubernetes-configuration@v1.4.0": [
        "config/crd/ingress-controller/configuration.konghq.com_kongplugins.yaml",
        "config/crd/ingress-controller/configuration.konghq.com_kongupstreampolicies.yaml",
    ],
    "github.com/prometheus-operator/prometheus-operator@v0.85.0": [
        "example/prometheus-operator-crd/monitoring.coreos.com_podmonitors.yaml",
        "example/prometheus-operator-crd/monitoring.coreos.com_prometheusrules.yaml",
        "example/prometheus-operator-crd/monitoring.coreos.com_servicemonitors.yaml",
    ],
}


def bring(cluster: Cluster) -> None:
    """Have the cluster know all of them."""
    for module, patterns in MODULES.items():
        folder = fetched(module)
        files = [path for pattern in patterns for path in sorted(folder.glob(pattern))]
        assert files, module
        arguments = [f"--filename={path}" for path in files]
        cluster.kubectl("apply", "--server-side", "--force-conflicts", *arguments)
        wait_until(lambda arguments=arguments: are_established(cluster, arguments), seconds=60, what=module)


def are_established(cluster: Cluster, files: Sequence[str]) -> bool:
    """Whether the server serves the kinds. `kubectl wait` gives up on one that has no condition at all yet."""
    found = json.loads(cluster.kubectl("get", *files, "--output=json"))
    return all(condition(kind, "Established") is not None for kind in found.get("items", [found]))


def fetched(module: str) -> Path:
    """The folder of a Go module, fetched where it is not there yet."""
    done = subprocess.run(
        ["go", "mod", "download", "-json", module], cwd="/", check=True, capture_output=True, text=True, timeout=300
    )
    return Path(json.loads(done.stdout)["Dir"])
