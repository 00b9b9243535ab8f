"""The log collector in a real cluster: on every node, and what the containers there write arrives."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from pathlib import Path
from secrets import token_hex
from typing import Any

import httpx2
import pytest

from tests.cluster.installation import NAMESPACE, Installation
from tests.support.log_store import Line, decoded, lines_of
from tests.support.waiting import wait_until

LOKI = "kgents-loki"
MINE = {"app.kubernetes.io/name": "a-test"}
PROGRAM = Path(__file__).with_name("log_store.py")


class Store:
    """The store in the cluster, and the lines that came there."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._requests = 0
        self.lines: list[Line] = []

    def look(self) -> list[Line]:
        """All lines until now. Raises Refused where Loki would have refused."""
        answer = httpx2.get(f"{self._url}/{self._requests}", trust_env=False, timeout=30)
        for request in answer.text.splitlines():
            path, headers, body = json.loads(request)
            self.lines += lines_of(decoded(path, headers, base64.b64decode(body)))
            self._requests += 1
        return self.lines

    def with_trace(self, trace_id: str) -> list[Line]:
        """The lines of a trace."""
        return [line for line in self.look() if line.metadata.get("trace_id") == trace_id]


def pod(installation: Installation, name: str, command: list[str], **container: Any) -> dict[str, Any]:
    """A pod that runs Python of the image of kgents."""
    image = installation.cluster.get("deployment", "kgents-api")["spec"]["template"]["spec"]["containers"][0]["image"]
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "namespace": NAMESPACE, "labels": {"app.kubernetes.io/name": name}},
        "spec": {
            "containers": [
                {
                    "name": "python",
                    "image": image,
                    "imagePullPolicy": "IfNotPresent",
                    "command": ["/opt/kgents/bin/python", *command],
                    "securityContext": {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}},
                    **container,
                }
            ],
            "restartPolicy": "Never",
            "automountServiceAccountToken": False,
            "terminationGracePeriodSeconds": 0,
            "securityContext": {
                "runAsNonRoot": True,
                "runAsUser": 65532,
                "seccompProfile": {"type": "RuntimeDefault"},
            },
            "volumes": [{"name": "program", "configMap": {"name": LOKI, "optional": True}}],
        },
    }


def store_objects(installation: Installation) -> list[dict[str, Any]]:
    metadata = {"name": LOKI, "namespace": NAMESPACE}
    return [
        {"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": {PROGRAM.name: PROGRAM.read_text()}},
        pod(
            installation,
            LOKI,
            [f"/program/{PROGRAM.name}"],
            readinessProbe={"httpGet": {"path": "/0", "port": 3100}, "periodSeconds": 1},
            volumeMounts=[{"name": "program", "mountPath": "/program"}],
        ),
        {
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": metadata,
            "spec": {"selector": {"app.kubernetes.io/name": LOKI}, "ports": [{"name": "http", "port": 3100}]},
        },
    ]


@pytest.fixture(scope="module")
def early(installation: Installation) -> Iterator[str]:
    """A line that is written while there is no Loki."""
    line = f"written early, {token_hex(8)}"
    name = f"early-{token_hex(4)}"
    installation.cluster.apply(pod(installation, name, ["-c", f"print({line!r})"]))
    done = ("--for=jsonpath={.status.phase}=Succeeded", "--timeout=60s")
    installation.cluster.kubectl("wait", f"pod/{name}", f"-n{NAMESPACE}", *done)
    yield line
    installation.cluster.kubectl("delete", "pod", name, f"-n{NAMESPACE}")


@pytest.fixture(scope="module")
def store(installation: Installation, early: str) -> Iterator[Store]:
    """Where Loki's Service leads, for as long as the tests of this module take."""
    installation.cluster.apply(*store_objects(installation))
    installation.cluster.kubectl("wait", f"pod/{LOKI}", f"-n{NAMESPACE}", "--for=condition=Ready", "--timeout=60s")
    yield Store(f"http://{installation.address(LOKI)}:3100")
    for kind in ("pod", "service", "configmap"):
        installation.cluster.kubectl("delete", kind, LOKI, f"-n{NAMESPACE}")


def let_through() -> list[dict[str, Any]]:
    """Policies by which pods that are no Service's reach what the API reaches."""
    mine = {"matchLabels": MINE}
    rules = {
        "to": {"podSelector": mine, "policyTypes": ["Egress"], "egress": [{}]},
        "from": {"podSelector": {}, "policyTypes": ["Ingress"], "ingress": [{"from": [{"podSelector": mine}]}]},
    }
    return [
        {
            "apiVersion": "networking.k8s.io/v1",
            "kind": "NetworkPolicy",
            "metadata": {"name": f"a-test-{direction}", "namespace": NAMESPACE},
            "spec": spec,
        }
        for direction, spec in rules.items()
    ]


@pytest.fixture
def everywhere(installation: Installation) -> Iterator[dict[str, str]]:
    """An API pod on every node, beside those of its Deployment: the nodes by the pods' addresses."""
    template = installation.cluster.get("deployment", "kgents-api")["spec"]["template"]["spec"]
    nodes = [each["metadata"]["name"] for each in installation.cluster.get("nodes")["items"]]
    names = {node: f"kgents-api-7d9c4b5f6c-x2x4{letter}" for node, letter in zip(nodes, "bcdfghjkl", strict=False)}
    policies = [each["metadata"]["name"] for each in let_through()]
    try:
        installation.cluster.apply(*let_through())
        for node, name in names.items():
            metadata = {"name": name, "namespace": NAMESPACE, "labels": MINE}
            spec = {**template, "nodeName": node}
            installation.cluster.apply({"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec})
        wait = ("--for=condition=Ready", "--timeout=110s")
        installation.cluster.kubectl("wait", "pods", *names.values(), f"-n{NAMESPACE}", *wait)
        yield {installation.cluster.get("pod", name)["status"]["podIP"]: node for node, name in names.items()}
    finally:
        known = (f"-n{NAMESPACE}", "--ignore-not-found")
        installation.cluster.kubectl("delete", "pods", *names.values(), *known, "--grace-period=1")
        installation.cluster.kubectl("delete", "networkpolicies", *policies, *known)


def test_it_is_on_every_node(installation: Installation) -> None:
    found = installation.cluster.get("daemonset", "kgents-log-collector", "kgents-logs")["status"]
    nodes = installation.cluster.get("nodes")["items"]
    assert found["numberReady"] == found["desiredNumberScheduled"] == len(nodes)


def test_what_was_written_before_loki_was_there_arrives(store: Store, early: str) -> None:
    wait_until(lambda: early in [line.text for line in store.look()], seconds=60)
    assert {frozenset(line.labels) for line in store.lines} == {frozenset(("namespace", "app", "component", "level"))}
    assert {line.labels["namespace"] for line in store.lines} == {NAMESPACE}


def test_a_requests_line_arrives_with_its_trace_from_every_node(
    installation: Installation, store: Store, everywhere: dict[str, str]
) -> None:
    with installation.admin() as admin:
        tenant = admin.post("/v1/tenants", json={"name": f"logs {token_hex(4)}"}).json()["id"]
        key = admin.post(f"/v1/tenants/{tenant}/api-keys", json={"name": "logs", "role": "owner"}).json()["token"]
    traces = {token_hex(16): address for address in everywhere}
    for trace_id, address in traces.items():
        headers = {"traceparent": f"00-{trace_id}-{token_hex(8)}-01", "Authorization": f"Bearer {key}"}
        answer = httpx2.get(f"http://{address}:8080/v1/agents", headers=headers, trust_env=False, timeout=30)
        assert answer.status_code == 200
    for trace_id, address in traces.items():
        wait_until(lambda it=trace_id: store.with_trace(it), seconds=30, what=f"a line from {everywhere[address]}")
        line = store.with_trace(trace_id)[0]
        assert line.labels == {"namespace": NAMESPACE, "app": "kgents", "component": "api", "level": "info"}
        assert (line.metadata["node"], line.metadata["tenant_id"]) == (everywhere[address], tenant)
        assert json.loads(line.text)["event"] == "request"
