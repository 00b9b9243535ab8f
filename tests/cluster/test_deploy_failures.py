"""What can go wrong with a deployment: `kgents deploy` stops, brings back what was there, and says what it was."""

from __future__ import annotations

import base64
from typing import Any

import pytest

from tests.cluster.installation import NAMESPACE, Installation

SECONDS = 20


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


def test_a_migration_that_fails(installation: Installation) -> None:
    change = {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {"name": "kgents-migrate"},
        "spec": {
            "backoffLimit": 0,
            "template": {
                "spec": {
                    "containers": [
                        {
                            "name": "migrate",
                            "env": [
                                {
                                    "name": "KGENTS_DATABASE_OWNER_URL",
                                    "value": "postgresql://nobody:x@kgents-postgres/kgents",
                                }
                            ],
                        }
                    ]
                }
            },
        },
    }
    done = installation.deploy(change, seconds=SECONDS)
    assert done.returncode == 1
    assert "job/kgents-migrate" in done.stderr
    assert "What was deployed before is back." in done.stderr
