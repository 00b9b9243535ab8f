"""pip-audit, on everything that uv.lock pins for this platform."""

from __future__ import annotations

import json

from kgents.scan.model import Finding, Scanned, Severity
from kgents.scan.subject import Subject
from kgents.scan.toolbox import Broken, run


def scan(subject: Subject) -> Scanned:
    """Ask PyPI (or what pip-audit's own `PIP_AUDIT_*` variables name) about each pin. Raises Broken.

    `--strict`: a package that it can't ask about is no clean one. It has no severities, so that each finding is HIGH.
    """
    if not (subject.tree / "uv.lock").is_file():
        raise Broken(f"there is no uv.lock in {subject.tree}", code="no-lock")
    pins = subject.work / "pins.txt"
    exported = subject.toolbox.uv(
        *("export", "--quiet", "--frozen", "--all-extras", "--all-groups", "--no-emit-project", "--no-annotate"),
        cwd=subject.tree,
    )
    pins.write_text(exported.stdout)
    program = subject.toolbox.program("pip-audit", "pip-audit")
    version = run([program, "--version"]).stdout.strip()
    done = run(
        [
            *(program, "--strict", "--disable-pip", "--require-hashes", "--requirement", str(pins)),
            *("--format", "json", "--progress-spinner", "off"),
        ],
        cwd=subject.work,
        PIP_AUDIT_OUTPUT="stdout",
    )
    try:
        document = json.loads(done.stdout)
        packages = document["dependencies"]
    except (json.JSONDecodeError, KeyError, TypeError):
        raise Broken(f"pip-audit failed: {done.last_words}", code="scanner") from None
    if not packages:
        raise Broken("pip-audit was asked about no package", code="scanner")
    passed_over = [each["name"] for each in packages if "skip_reason" in each]
    findings = [
        Finding(
            scanner="pip-audit",
            rule=flaw["id"],
            where=f"uv.lock: {each['name']} {each['version']}",
            severity=Severity.HIGH,
            title=str(flaw.get("description") or "").strip().partition("\n")[0][:200],
            also=tuple(flaw.get("aliases") or ()),
        )
        for each in packages
        for flaw in each.get("vulns") or ()
    ]
    unknown = f"passed over: {', '.join(passed_over)}" if passed_over else ""
    return Scanned(f"{len(packages)} packages", version, "", findings, unknown)
