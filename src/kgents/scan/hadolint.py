"""hadolint, on the Dockerfiles."""

from __future__ import annotations

import json

from kgents.scan.model import Finding, Scanned, Severity
from kgents.scan.subject import Subject
from kgents.scan.toolbox import Broken, run

_LEVELS = {"error": Severity.HIGH, "warning": Severity.MEDIUM, "info": Severity.LOW, "style": Severity.LOW}


def scan(subject: Subject) -> Scanned:
    """Every Dockerfile of the tree; remarks in it that would have hadolint look away do not count. Raises Broken."""
    names = subject.dockerfiles()
    program = subject.toolbox.program("hadolint", "hadolint")
    empty = subject.work / "hadolint.yaml"
    empty.write_text("ignored: []\n")
    version = run([program, "--version"])
    done = run(
        [
            *(program, "--config", str(empty), "--disable-ignore-pragma", "--no-color", "--format", "json"),
            *map(str, names),
        ],
        cwd=subject.tree,
    )
    try:
        found = json.loads(done.stdout)
    except json.JSONDecodeError:
        raise Broken(f"hadolint failed: {done.last_words}", code="scanner") from None
    findings = [
        Finding(
            scanner="hadolint",
            rule=each["code"],
            where=f"{each['file']}:{each['line']}",
            severity=_LEVELS.get(each["level"], Severity.HIGH),
            title=each["message"],
        )
        for each in found
    ]
    tool = version.stdout.strip().rpartition(" ")[2].removeprefix("v").partition("-")[0]
    return Scanned(f"{len(names)} files", f"hadolint {tool}", findings=findings)
