"""What can go wrong with a deployment: `kgents deploy` stops, brings back what was there, and says what it was; and
`kgents deploy status` says of each thing that is not ready why.
"""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import pytest

from tests.cluster.installation import NAMESPACE, Installation
from tests.cluster.test_backup import sql
from tests.cluster.test_changes import restarted
from tests.cluster.test_network_policies import PYTHON
from tests.support.waiting import wait_until

SECONDS = 12


def api(**spec: Any) -> dict[str, Any]:
    """A change of the API's pods."""
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": "kgents-api"},
        "spec": {"template": {"spec": spec}},
    }


def secrets_of(name: str) -> list[dict[str, Any]]:
    """The volume of secrets, from another secret."""
    return [{"name": "secrets", "projected": {"sources": [{"secret": {"name": name}}]}}]


@pytest.fixture(autouse=True)
def whole(installation: Installation) -> Any:
    """What was deployed before is what is there afterwards."""
    before = images_and_secrets(installation)
    yield
    assert images_and_secrets(installation) == before
    assert installation.health()["status"] == "ok"


def images_and_secrets(installation: Installation) -> Any:
    spec = installation.cluster.get("deployment", "kgents-api")["spec"]["template"]["spec"]
    return spec["containers"][0]["image"], spec["containers"][0].get("env"), spec["volumes"]


def test_a_secret_that_is_not_there(installation: Installation) -> None:
    done = installation.deploy(api(volumes=secrets_of("nothing")), seconds=SECONDS)
    assert done.returncode == 1
    assert 'secret "nothing" not found' in done.stderr
    assert "What was deployed before is back." in done.stderr


def test_a_secret_that_is_wrong(installation: Installation) -> None:
    wrong = {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": "wrong", "namespace": NAMESPACE},
        "data": {"KGENTS_PEPPER": base64.b64encode(b"short").decode()},
    }
    installation.cluster.apply(wrong)
    done = installation.deploy(api(volumes=secrets_of("wrong")), seconds=SECONDS)
    assert done.returncode == 1
    assert "The setting KGENTS_PEPPER can't be used" in done.stderr
    assert "short" not in done.stderr.replace("too short", "")
    assert "What was deployed before is back." in done.stderr


def test_a_kind_that_the_cluster_does_not_know(installation: Installation) -> None:
    strange = {"apiVersion": "nobody.example.com/v1", "kind": "Strange", "metadata": {"name": "strange"}}
    done = installation.deploy(objects=[strange], seconds=SECONDS)
    assert done.returncode == 1
    assert "Nothing was changed" in done.stderr
    assert 'no matches for kind "Strange"' in done.stderr


def test_an_image_that_was_never_set(installation: Installation) -> None:
    unset = {"name": "api", "image": "registry.example.com/kgents@sha256:" + 64 * "0"}
    done = installation.deploy(api(containers=[unset]), seconds=SECONDS)
    assert done.returncode == 1
    assert "which image to take for registry.example.com/kgents" in done.stderr


@pytest.fixture
def elsewhere(installation: Installation) -> Iterator[str]:
    """A database that has a table of somebody else's, of the name of one of ours: the owner's URL of it."""
    name = "somebody_elses"
    sql(installation, f"DROP DATABASE IF EXISTS {name} WITH (FORCE)")
    sql(installation, f"CREATE DATABASE {name}")
    sql(installation, "CREATE TABLE sessions (mine integer)", database=name)
    yield f"postgresql://kgents_owner:{installation.secret('kgents-postgres-secrets', 'owner')}@kgents-postgres/{name}"
    sql(installation, f"DROP DATABASE {name} WITH (FORCE)")


def test_a_migration_that_fails(installation: Installation, elsewhere: str) -> None:
    """The new version of the API is not there for a moment: the migration comes before it."""
    container = {"name": "migrate", "env": [{"name": "KGENTS_DATABASE_OWNER_URL", "value": elsewhere}]}
    migration = {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {"name": "kgents-migrate"},
        "spec": {"backoffLimit": 0, "template": {"spec": {"containers": [container]}}},
    }
    before = sorted(installation.pods("kgents", "api"))
    done = installation.deploy(migration, restarted("kgents-api", "by the failed migration"), seconds=SECONDS)
    assert done.returncode == 1
    assert "job/kgents-migrate" in done.stderr
    assert 'relation "sessions" already exists' in done.stderr
    assert "What was deployed before is back." in done.stderr
    assert sorted(installation.pods("kgents", "api")) == before


def broken(installation: Installation, name: str, **of_container: Any) -> dict[str, Any]:
    """A Deployment of one pod that would run, but for what is given; `pod` is for the pod itself."""
    labels = {"app.kubernetes.io/name": name}
    of_pod = of_container.pop("pod", {})
    container = {
        "name": "one",
        "image": installation.images["kgents"],
        "command": [PYTHON, "-c", "import time; time.sleep(600)"],
        "resources": {"requests": {"cpu": "1m", "memory": "16Mi"}, "limits": {"memory": "64Mi"}},
        **of_container,
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "capabilities": {"drop": ["ALL"]},
            **of_container.get("securityContext", {}),
        },
    }
    secure = {"runAsNonRoot": True, "runAsUser": 65532, "seccompProfile": {"type": "RuntimeDefault"}}
    pod = {"securityContext": secure, "terminationGracePeriodSeconds": 1, "containers": [container], **of_pod}
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": name, "namespace": NAMESPACE, "labels": labels},
        "spec": {
            "replicas": 1,
            "selector": {"matchLabels": labels},
            "template": {"metadata": {"labels": labels}, "spec": pod},
        },
    }


SCARCE = "example.com/scarce"
WORDS = {
    "nowhere": "no node takes it: ",
    "unwell": "a probe fails: ",
    "too-much": "its pods are refused: .*exceeded quota: scarce",
    "unsafe": "its pods are refused: .*violates PodSecurity",
    "imageless": "its image can't be pulled",
}


@pytest.fixture
def unready(installation: Installation) -> Iterator[list[dict[str, Any]]]:
    """Deployments that do not become ready, each for another reason."""
    quota = {
        "apiVersion": "v1",
        "kind": "ResourceQuota",
        "metadata": {"name": "scarce", "namespace": NAMESPACE},
        "spec": {"hard": {f"requests.{SCARCE}": "0"}},
    }
    scarce = {"requests": {SCARCE: "1"}, "limits": {SCARCE: "1"}}
    made = [
        broken(installation, "nowhere", pod={"nodeSelector": {"example.com/there": "is-none"}}),
        broken(installation, "unwell", readinessProbe={"tcpSocket": {"port": 9}, "periodSeconds": 1}),
        broken(installation, "too-much", resources=scarce),
        broken(installation, "unsafe", securityContext={"allowPrivilegeEscalation": True}),
        broken(installation, "imageless", image="localhost/nothing@sha256:" + "1" * 64),
    ]
    installation.cluster.apply(quota, *made)
    yield made
    names = [f"deployment/{each['metadata']['name']}" for each in made]
    installation.cluster.kubectl("delete", f"-n{NAMESPACE}", "resourcequota/scarce", *names)


def test_what_is_not_ready_is_told_in_words(installation: Installation, unready: list[dict[str, Any]]) -> None:
    overlay = installation.overlay(objects=unready)
    found: dict[str, str] = {}

    def all_told() -> bool:
        done = installation.cluster.kgents("deploy", "status", f"--overlay={overlay}", "--output=json")
        assert done.returncode == 1, done.stderr
        rows = {each["object"].removeprefix("deployment/"): each for each in json.loads(done.stdout)}
        assert rows["kgents-api"]["ready"]
        found.update({name: "; ".join(rows[name]["why"]) for name in WORDS})
        return all(re.search(words, found[name]) for name, words in WORDS.items())

    with suppress(TimeoutError):
        wait_until(all_told, seconds=60)
    assert {name for name, words in WORDS.items() if re.search(words, found[name])} == set(WORDS), found
