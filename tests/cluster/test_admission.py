"""A real API server admits every object of every overlay, and every pod as `restricted`."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import pytest

from tests.cluster import kinds
from tests.cluster.installation import NAMESPACE, Cluster, Installation
from tests.support.manifests import OVERLAYS, ROOT, objects_of, pod_of, rendered


@pytest.fixture(scope="module", autouse=True)
def known(installation: Installation) -> None:
    """The cluster knows the kinds that others bring."""
    kinds.bring(installation.cluster)


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
    objects = rendered(overlay)
    for each in objects:
        if each["kind"] == "Job":
            each["metadata"]["name"] += "-admitted"  # one that ran can't be changed
    assert not refused(installation.cluster, objects)


@pytest.mark.parametrize("component", ["ingress", "ingress-tls", "autoscaling-runs", "loki", "promtail"])
def test_every_object_of_a_component_is_admitted(installation: Installation, component: str) -> None:
    components = {"ingress-tls": ["ingress", "ingress-tls"]}.get(component, [component])
    objects = objects_of(installation.overlay(components=components))
    assert not refused(installation.cluster, [each for each in objects if each["kind"] not in ("Job", "StatefulSet")])


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
