"""`kgents deploy` asks for the health of what it deployed through the gateway, where there is one."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.cluster.installation import NAMESPACE, Installation
from tests.support import nginx
from tests.support.manifests import ROOT
from tests.support.nginx import Nginx

ADDRESS = "127.0.0.77"
SECONDS = 20


def ingress() -> dict[str, Any]:
    """The Ingress of the component, without what only Kong knows."""
    found: dict[str, Any] = yaml.safe_load((ROOT / "deploy/components/ingress/ingress.yaml").read_text())
    return found


@pytest.fixture
def gateway(installation: Installation, tmp_path: Path) -> Iterator[Nginx]:
    """A gateway in front of the API's Service, as a controller of the Ingress' class would set one up."""
    binary = nginx.find_binary()
    if binary is None:
        pytest.skip("there is no nginx")
    running = Nginx(binary, tmp_path, [f"{installation.address('kgents-api')}:80"], host=ADDRESS, port=80)
    yield running
    running.stop()


@pytest.fixture(autouse=True)
def without_it_again(installation: Installation) -> Iterator[None]:
    yield
    assert installation.deploy().returncode == 0


def test_without_a_controller_it_says_that_there_is_no_address(installation: Installation) -> None:
    done = installation.deploy(objects=[ingress()], seconds=SECONDS)
    assert done.returncode == 1
    assert "ingress/kgents-api has no address yet. Does a controller of its class run?" in done.stderr


@pytest.mark.usefixtures("gateway")
def test_health_is_asked_for_through_the_gateway(installation: Installation) -> None:
    installation.deploy(objects=[ingress()], seconds=SECONDS)
    status = {"status": {"loadBalancer": {"ingress": [{"ip": ADDRESS}]}}}
    where = ("ingress/kgents-api", f"-n{NAMESPACE}", "--subresource=status")
    installation.cluster.kubectl("patch", *where, "--type=merge", f"--patch={json.dumps(status)}")
    done = installation.deploy(objects=[ingress()], seconds=SECONDS)
    assert done.returncode == 0, done.stderr
    assert f"asked through ingress/kgents-api (http://{ADDRESS}:80):" in done.stderr
    assert "nats: connected" in done.stderr
