"""What `kgents deploy` brings into a real cluster works."""

from __future__ import annotations

import time

import httpx2

from tests.cluster.installation import NAMESPACE, Installation
from tests.cluster.test_changes import restarted


def test_every_workload_has_its_replicas(installation: Installation) -> None:
    wanted = {"kgents-api": 2, "kgents-worker": 2, "kgents-nats": 3, "kgents-postgres": 1, "kgents-meter": 1}
    found = {
        each["metadata"]["name"]: each["status"].get("readyReplicas", 0)
        for kind in ("deployments", "statefulsets")
        for each in installation.cluster.get(kind)["items"]
    }
    assert found == wanted


def test_health_says_that_bus_and_meter_are_connected(installation: Installation) -> None:
    answer = httpx2.get(f"{installation.url}/health/saas", trust_env=False, timeout=10)
    assert answer.status_code == 200
    report = answer.json()
    assert report["status"] == "ok"
    assert {name: report["components"][name]["status"] for name in ("sql", "nats", "meter")} == dict.fromkeys(
        ("sql", "nats", "meter"), "connected"
    )


def test_the_servers_of_the_bus_are_on_three_nodes(installation: Installation) -> None:
    pods = installation.cluster.kubectl(
        "get", "pods", f"-n{NAMESPACE}", "-lapp.kubernetes.io/name=kgents-nats", "-ojsonpath={.items[*].spec.nodeName}"
    )
    assert len(set(pods.split())) == 3


def test_pods_are_admitted_as_restricted(installation: Installation) -> None:
    labels = installation.cluster.get("namespace", NAMESPACE, "default")["metadata"]["labels"]
    assert labels["pod-security.kubernetes.io/enforce"] == "restricted"


def test_a_dry_run_shows_what_would_change_and_changes_nothing(installation: Installation) -> None:
    before = installation.cluster.get("deployment", "kgents-api")["metadata"]["generation"]
    value = str(time.time_ns())
    overlay = installation.overlay(restarted("kgents-api", value))
    done = installation.cluster.kgents("deploy", f"--overlay={overlay}", "--dry-run")
    assert done.returncode == 0, done.stderr
    changes = [line for line in done.stdout.splitlines() if line.startswith(("+ ", "- "))]
    assert any(f'kgents.dev/changed: "{value}"' in line for line in changes), done.stdout
    assert installation.cluster.get("deployment", "kgents-api")["metadata"]["generation"] == before
