"""An overlay with the settings for traces: API and workers are told where to send spans, and may."""

from __future__ import annotations

import json
import os
from typing import Any
from urllib.parse import urlsplit

import pytest
import yaml
from opentelemetry.sdk.trace import sampling

from tests.support.documents import blocks
from tests.support.flows import PEERS
from tests.support.manifests import ROOT, containers_of, objects_of
from tests.support.policies import allowed


@pytest.fixture(scope="module")
def objects(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """Of the overlay for production as docs/operations/observe.md changes it."""
    folder = tmp_path_factory.mktemp("overlay")
    (block,) = blocks("docs/operations/observe.md", "yaml", "## Traces")
    kustomization = yaml.safe_load(block)
    kustomization["resources"] = [os.path.relpath(ROOT / "deploy/overlays/production", folder)]
    for each in kustomization["configMapGenerator"]:
        each["namespace"] = "kgents-agents"
    (folder / "kustomization.yaml").write_text(json.dumps(kustomization))
    return objects_of(folder)


@pytest.fixture(scope="module")
def settings(objects: list[dict[str, Any]]) -> dict[str, Any]:
    (found,) = (each for each in objects if each["metadata"]["name"].startswith("kgents-settings-"))
    return found


def test_api_and_workers_are_told_where_to_send_spans_and_how_many(
    objects: list[dict[str, Any]], settings: dict[str, Any]
) -> None:
    assert settings["data"]["OTEL_TRACES_SAMPLER"] in sampling._KNOWN_SAMPLERS
    assert 0 < float(settings["data"]["OTEL_TRACES_SAMPLER_ARG"]) < 1
    readers = {
        each["metadata"]["name"]
        for each in objects
        for container in containers_of(each)
        if {"configMapRef": {"name": settings["metadata"]["name"]}} in container.get("envFrom", ())
    }
    assert readers >= {"kgents-api", "kgents-worker"}


@pytest.mark.parametrize("source", ["api", "worker"])
def test_they_may_send_them_there(objects: list[dict[str, Any]], settings: dict[str, Any], source: str) -> None:
    policies = [each for each in objects if each["kind"] == "NetworkPolicy"]
    receiver = urlsplit(settings["data"]["OTEL_EXPORTER_OTLP_ENDPOINT"])
    assert receiver.hostname is not None
    assert receiver.port is not None
    assert receiver.hostname.rpartition(".")[2] == PEERS["tracing"].namespace
    assert allowed(policies, PEERS[source], PEERS["tracing"], receiver.port)
    assert not allowed(policies, PEERS[source], PEERS["another namespace"], receiver.port)
