"""`kgents deploy` asks for the health of what it deployed through the gateway, where there is one."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any

import pytest
import yaml

from tests.cluster.installation import NAMESPACE, Installation
from tests.support import nginx
from tests.support.manifests import ROOT
from tests.support.nginx import Nginx

ADDRESS = "127.0.0.77"
SECONDS = 12


def ingress() -> dict[str, Any]:
    """The Ingress of the component, without what only Kong knows."""
    found: dict[str, Any] = yaml.safe_load((ROOT / "deploy/components/ingress/ingress.yaml").read_text())
    return found


@pytest.fixture(scope="module")
def without_a_controller(installation: Installation) -> Iterator[CompletedProcess[str]]:
    """How the deployment of an Ingress ended that nobody serves, which is there until the end."""
    yield installation.deploy(objects=[ingress()], seconds=SECONDS)
    assert installation.deploy().returncode == 0


@pytest.fixture
def gateway(installation: Installation, tmp_path: Path) -> Iterator[Nginx]:
    """A gateway in front of the API's Service, as a controller of the Ingress' class would set one up."""
    binary = nginx.find_binary()
    if binary is None:
        pytest.skip("there is no nginx")
    running = Nginx(binary, tmp_path, [f"{installation.address('kgents-api')}:80"], host=ADDRESS, port=80)
    yield running
    running.stop()


def test_without_a_controller_it_says_that_there_is_no_address(without_a_controller: CompletedProcess[str]) -> None:
    assert without_a_controller.returncode == 1
    assert "ingress/kgents-api has no address yet. Does a controller of its class run?" in without_a_controller.stderr


@pytest.mark.usefixtures("gateway", "without_a_controller")
def test_health_is_asked_for_through_the_gateway(installation: Installation) -> None:
    status = {"status": {"loadBalancer": {"ingress": [{"ip": ADDRESS}]}}}
    where = ("ingress/kgents-api", f"-n{NAMESPACE}", "--subresource=status")
    installation.cluster.kubectl("patch", *where, "--type=merge", f"--patch={json.dumps(status)}")
    done = installation.deploy(objects=[ingress()], seconds=SECONDS)
    assert done.returncode == 0, done.stderr
    assert f"asked through ingress/kgents-api (http://{ADDRESS}:80):" in done.stderr
    assert "nats: connected" in done.stderr
