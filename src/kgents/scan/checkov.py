"""checkov, on the rendered manifests."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from kgents.scan.manifests import render
from kgents.scan.model import Finding, Scanned, Severity
from kgents.scan.subject import Subject
from kgents.scan.toolbox import Broken, run


def scan(subject: Subject) -> Scanned:
    """Every check of Kubernetes' objects, also those that an annotation would have it skip. Raises Broken.

    Without its vendor's platform checkov has no severities, so that each of its findings is HIGH.
    """
    folder = render(subject)
    python = subject.toolbox.program("checkov", "python")
    home = subject.work / "checkov"
    home.mkdir(exist_ok=True)
    done = run(
        [
            *(python, str(Path(python).with_name("checkov")), "--directory", str(folder), "--framework", "kubernetes"),
            *("--skip-download", "--compact", "--output", "json"),
        ],
        cwd=home,
        HOME=str(home),  # its configuration can lie in the home folder
    )
    try:
        document = json.loads(done.stdout)
    except json.JSONDecodeError:
        document = None
    if done.status not in (0, 1) or not isinstance(document, dict) or "results" not in document:
        raise Broken(f"checkov failed: {done.last_words}", code="scanner")
    results, summary = document["results"], document["summary"]
    if results.get("parsing_errors"):
        raise Broken(f"checkov could not read {', '.join(results['parsing_errors'])}", code="scanner")
    findings = [
        _finding(each) for each in (*(results.get("failed_checks") or ()), *(results.get("skipped_checks") or ()))
    ]
    return Scanned(f"{summary['resource_count']} objects", f"checkov {summary['checkov_version']}", findings=findings)


def _finding(each: dict[str, Any]) -> Finding:
    return Finding(
        scanner="checkov",
        rule=each["check_id"],
        where=each["file_path"].lstrip("/"),
        severity=Severity.of(each["severity"]),
        title=each["check_name"],
    )
