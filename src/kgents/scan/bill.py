"""Bills of materials (CycloneDX) of the package and of the image."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from packaging.utils import canonicalize_name

from kgents.scan import trivy
from kgents.scan.lock import Package, installed
from kgents.scan.model import Finding, Scanned, Severity
from kgents.scan.subject import Subject
from kgents.scan.toolbox import Broken, run

SPECIFICATION = "1.6"


def scan(subject: Subject) -> Scanned:
    """Make them, in the subject's work folder (`package.cdx.json`, `image.cdx.json`). Raises Broken.

    A bill of the package that lacks one of its packages is a finding, and so is one of the image with no package.
    """
    folder = subject.work / "sbom"
    folder.mkdir(exist_ok=True)
    tool, package = _package(subject)
    (folder / "package.cdx.json").write_text(json.dumps(package, indent=2, sort_keys=True) + "\n")
    named = {canonicalize_name(each["name"]) for each in package["components"]}
    missing = sorted({canonicalize_name(each.name) for each in installed(subject.runtime())} - named)
    findings = [_missing("package", name) for name in missing]
    looked_at = f"{len(named)} packages"
    if subject.image is not None:
        other, image = trivy.image_bill(subject)
        tool = f"{tool}, {other}"
        (folder / "image.cdx.json").write_text(json.dumps(image, indent=2, sort_keys=True) + "\n")
        kinds = {kind: _count(image, f"pkg:{kind}/") for kind in ("pypi", "deb")}
        findings += [_missing("image", f"any package of {kind}") for kind, count in kinds.items() if not count]
        looked_at += f"; image: {kinds['pypi']} of Python, {kinds['deb']} of Debian"
    return Scanned(looked_at, tool, findings=findings)


def python_packages(document: Mapping[str, Any]) -> list[Package]:
    """The packages of Python that a bill of an image names."""
    return [
        Package(canonicalize_name(each["name"]), each["version"], "image")
        for each in document.get("components", ())
        if str(each.get("purl", "")).startswith("pkg:pypi/")
    ]


def _package(subject: Subject) -> tuple[str, dict[str, Any]]:
    program = subject.toolbox.program("cyclonedx", "cyclonedx-py")
    target = subject.work / "package.json"
    done = run(
        [
            *(program, "environment", "--no-validate", "--output-reproducible", "--of", "JSON"),
            *("--sv", SPECIFICATION, "--pyproject", str(subject.tree / "pyproject.toml")),
            *("-o", str(target), str(subject.runtime() / "bin" / "python")),
        ],
        cwd=subject.work,
    )
    if done.status != 0:
        raise Broken(f"cyclonedx-py failed: {done.last_words}", code="scanner")
    document: dict[str, Any] = json.loads(target.read_text())
    return f"cyclonedx-py {run([program, '--version']).stdout.strip()}", document


def _count(document: dict[str, Any], prefix: str) -> int:
    return sum(str(each.get("purl", "")).startswith(prefix) for each in document.get("components", ()))


def _missing(of: str, what: str) -> Finding:
    return Finding("sbom", "incomplete", of, Severity.HIGH, f"the bill of the {of} lacks {what}")
