"""kgents' own tree, with the scanners that need no network: nothing is open, and every exception is needed."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from kgents.clock import SystemClock, to_datetime
from kgents.scan.exceptions import load
from kgents.scan.service import Report, scan
from kgents.scan.subject import Subject
from kgents.scan.toolbox import Toolbox
from tests.scan import planted
from tests.support.manifests import OVERLAYS, ROOT, kubectl

OFFLINE = ("trivy-config", "checkov", "hadolint", "secrets", "licences", "sbom")


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("work")


@pytest.fixture(scope="module")
def report(work: Path) -> Report:
    clock = SystemClock()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PATH", f"{kubectl().parent}:{os.environ['PATH']}")
        subject = Subject(ROOT, work, Toolbox.usual(), clock.now(), image=planted.write_oci_layout(work / "image"))
        return scan(subject, load(ROOT, to_datetime(clock.now()).date()), clock=clock, only=OFFLINE)


def test_every_scanner_passes(report: Report) -> None:
    rows = report.document()["scanners"]
    assert {row["scanner"]: (row["verdict"], row["why"]) for row in rows} == dict.fromkeys(OFFLINE, ("pass", ""))


def test_nothing_is_open(report: Report) -> None:
    assert report.sorted.open == []


def test_every_exception_holds_and_is_needed(report: Report) -> None:
    assert report.sorted.expired == []
    assert report.sorted.unused == []


def test_every_overlay_was_looked_at(report: Report, work: Path) -> None:
    looked_at = {path.name for path in (work / "manifests" / "deploy" / "overlays").iterdir()}
    assert looked_at == set(OVERLAYS)


def test_the_bill_of_the_package_has_licences_and_names_the_package(report: Report, work: Path) -> None:
    bill = json.loads((work / "sbom" / "package.cdx.json").read_text())

    assert bill["bomFormat"] == "CycloneDX"
    assert bill["metadata"]["component"]["name"] == "kgents"
    [pydantic] = [each for each in bill["components"] if each["name"] == "pydantic"]
    assert pydantic["purl"].startswith("pkg:pypi/pydantic@")
    assert pydantic["licenses"]


def test_the_bill_of_an_image_has_its_packages_of_debian_and_of_python(report: Report, work: Path) -> None:
    bill = json.loads((work / "sbom" / "image.cdx.json").read_text())
    packages = {each["purl"].partition("?")[0] for each in bill["components"] if "purl" in each}

    assert bill["bomFormat"] == "CycloneDX"
    assert {"pkg:pypi/jinja2@2.10", "pkg:deb/debian/openssl@3.0.15-1"} <= packages
