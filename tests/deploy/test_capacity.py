"""The manifests' numbers are those that were measured: evidence/capacity.json, and the component that comes from it."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from kgents.load.autoscaler import OURS
from kgents.load.capacity import conclude, proposal
from kgents.load.component import differences, drift, write
from kgents.load.sizing import Demand
from tests.cluster import page
from tests.support.loads import measured, stress
from tests.support.manifests import ROOT, objects_of, rendered

EVIDENCE = ROOT / "evidence" / "capacity.json"
COMPONENT = ROOT / "deploy" / "components" / "capacity"


def test_the_component_and_production_are_what_the_evidence_says() -> None:
    assert EVIDENCE.exists() == COMPONENT.exists(), "capacity.json and the component come together"
    if EVIDENCE.exists():
        document = json.loads(EVIDENCE.read_text())
        assert drift(document, COMPONENT) == []
        assert differences(proposal(document), rendered("production")) == []


def test_the_page_of_autoscaling_has_the_numbers_of_production_and_of_the_component() -> None:
    text = page.PAGE.read_text()
    assert "\n".join(page.production()) in text, "write it anew with: python -m tests.cluster.page"
    assert f"for the API: {OURS.least} to {OURS.most} pods" in text


@pytest.fixture
def overlay(tmp_path: Path) -> Path:
    """Production with a component from planted figures."""
    for folder in ("deploy", "dashboards"):
        shutil.copytree(ROOT / folder, tmp_path / folder)
    write(
        proposal(conclude(measured(), stress(), Demand(expected=500))), tmp_path / "deploy" / "components" / "capacity"
    )
    path = tmp_path / "deploy" / "overlays" / "production"
    kustomization = path / "kustomization.yaml"
    line = "  - ../../components/capacity\n"
    text = kustomization.read_text().replace(line, "")
    kustomization.write_text(text.replace("components/autoscaling\n", "components/autoscaling\n" + line))
    return path


def test_a_component_brings_every_number_into_production(overlay: Path) -> None:
    document = conclude(measured(), stress(), Demand(expected=500))

    assert differences(proposal(document), objects_of(overlay)) == []


def test_a_number_that_somebody_changed_is_seen(overlay: Path) -> None:
    found = proposal(conclude(measured(), stress(), Demand(expected=500)))
    path = overlay.parents[1] / "components" / "capacity" / "kustomization.yaml"
    path.write_text(path.read_text().replace(f"value: {found.most}\n", f"value: {found.most + 5}\n"))

    assert differences(found, objects_of(overlay)) == [
        f"HorizontalPodAutoscaler kgents-api: spec.maxReplicas is {found.most + 5}, not {found.most}"
    ]


def test_a_component_that_production_does_not_take_is_seen() -> None:
    found = proposal(conclude(measured(), stress(), Demand(expected=5000, peak=50_000)))

    assert "spec.minReplicas" in "".join(differences(found, rendered("production")))
