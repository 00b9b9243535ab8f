"""A real API server admits every object of every overlay, and every pod as `restricted`."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from kgents.deploy.findings import condition
from tests.cluster.installation import NAMESPACE, Cluster, Installation
from tests.support.manifests import OVERLAYS, ROOT, objects_of, pod_of, rendered
from tests.support.waiting import wait_until

MODULES = {
    "sigs.k8s.io/gateway-api@v1.4.1": ["config/crd/standard/gateway.networking.k8s.io_*.yaml"],
    "github.com/cert-manager/cert-manager@v1.19.1": ["deploy/crds/*.yaml"],
    "github.com/external-secrets/external-secrets@v0.16.2": [
        "config/crds/bases/external-secrets.io_externalsecrets.yaml"
    ],
    "github.com/prometheus-operator/prometheus-operator@v0.85.0": [
        "example/prometheus-operator-crd/monitoring.coreos.com_podmonitors.yaml",
        "example/prometheus-operator-crd/monitoring.coreos.com_prometheusrules.yaml",
        "example/prometheus-operator-crd/monitoring.coreos.com_servicemonitors.yaml",
    ],
}
"""Where the definitions of the kinds are that others bring; they are fetched when the tests run."""
KONG = "configuration.konghq.com/"
"""Kong's own kinds. Their definitions can't be had here, so no server can say whether it would admit them."""


@pytest.fixture(scope="module", autouse=True)
def kinds(installation: Installation) -> None:
    """The cluster knows the kinds of the Gateway API and of cert-manager."""
    for module, patterns in MODULES.items():
        folder = fetched(module)
        files = [path for pattern in patterns for path in sorted(folder.glob(pattern))]
        assert files, module
        arguments = [f"--filename={path}" for path in files]
        installation.cluster.kubectl("apply", "--server-side", "--force-conflicts", *arguments)
        wait_until(
            lambda arguments=arguments: are_established(installation.cluster, arguments), seconds=60, what=module
        )


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


def refused(cluster: Cluster, objects: Sequence[Any]) -> str:
    """What the API server has against objects; empty where it admits them all."""
    given = json.dumps({"apiVersion": "v1", "kind": "List", "items": objects})
    try:
        cluster.kubectl(
            *("apply", "--server-side", "--force-conflicts", "--dry-run=server", "--field-manager=test"),
            *("--validate=strict", "--filename=-"),
            given=given,
        )
    except RuntimeError as error:
        return str(error)
    return ""


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_every_object_is_admitted(installation: Installation, overlay: str) -> None:
    objects = [each for each in rendered(overlay) if not each["apiVersion"].startswith(KONG)]
    for each in objects:
        if each["kind"] == "Job":
            each["metadata"]["name"] += "-admitted"  # one that ran can't be changed
    assert not refused(installation.cluster, objects)


@pytest.mark.parametrize("component", ["ingress", "ingress-tls", "autoscaling-runs", "loki", "promtail"])
def test_every_object_of_a_component_is_admitted(installation: Installation, component: str) -> None:
    components = {"ingress-tls": ["ingress", "ingress-tls"]}.get(component, [component])
    objects = objects_of(installation.overlay(components=components))
    found = [each for each in objects if each["kind"] not in ("Job", "StatefulSet")]
    assert not refused(installation.cluster, [each for each in found if not each["apiVersion"].startswith(KONG)])


def pod(each: Any, spec: dict[str, Any]) -> dict[str, Any]:
    """A pod of a workload, in the namespace that takes only restricted ones; its account may not be there."""
    spec = {key: value for key, value in spec.items() if key != "serviceAccountName"}
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": f"admitted-{each['metadata']['name']}", "namespace": NAMESPACE},
        "spec": {"restartPolicy": "Never"} | spec,
    }


def without_the_node(spec: dict[str, Any]) -> dict[str, Any]:
    """The log collector's pod without what is not restricted."""
    volumes = [{"name": each["name"], "emptyDir": {}} if "hostPath" in each else each for each in spec["volumes"]]
    return {**spec, "volumes": volumes}


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_every_pod_is_admitted_as_restricted(installation: Installation, overlay: str) -> None:
    pods = [
        pod(each, spec if each["kind"] != "DaemonSet" else without_the_node(spec))
        for each in rendered(overlay)
        if (spec := pod_of(each)) is not None
    ]
    assert len(pods) >= 5
    assert not refused(installation.cluster, pods)


def test_the_log_collector_is_not_restricted_for_a_folder_of_the_node_alone(installation: Installation) -> None:
    each = next(each for each in rendered("conformance") if each["kind"] == "DaemonSet")
    spec = pod_of(each)
    assert spec is not None
    assert [volume["hostPath"] for volume in spec["volumes"] if "hostPath" in volume] == [
        {"path": "/var/log/pods", "type": "Directory"}
    ]
    assert "hostPath" in refused(installation.cluster, [pod(each, spec)])


def test_a_pod_that_is_not_restricted_is_refused(installation: Installation) -> None:
    """The control of the test above."""
    each = next(each for each in rendered("kind") if each["metadata"]["name"] == "kgents-meter" and pod_of(each))
    spec = pod_of(each)
    assert spec is not None
    spec["containers"][0]["securityContext"]["allowPrivilegeEscalation"] = True
    said = refused(installation.cluster, [pod(each, spec)])
    assert "allowPrivilegeEscalation" in said


def test_the_example_of_external_secrets_is_admitted(installation: Installation) -> None:
    assert not refused(installation.cluster, objects_of(ROOT / "deploy" / "examples" / "external-secrets"))
