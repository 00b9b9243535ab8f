"""All scanners together: which there are, running them, and what they come to."""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from kgents.clock import Clock, to_datetime, to_rfc3339
from kgents.scan import bill, checkov, hadolint, licences, osv, pip_audit, trivy
from kgents.scan.exceptions import Acceptance, Sorted, sort
from kgents.scan.lock import locked, packages_of
from kgents.scan.model import Scanned, Severity, Verdict
from kgents.scan.subject import Subject
from kgents.scan.toolbox import Broken

Scan = Callable[[Subject], Scanned]


def _osv(subject: Subject) -> Scanned:
    packages = packages_of(subject.environment) if subject.environment else locked(subject.tree)
    if subject.image is not None:
        packages += bill.python_packages(trivy.image_bill(subject)[1])
    return osv.scan(packages, osv.Database.fetch(subject.osv or osv.SOURCE), subject.now)


SCANNERS: Mapping[str, Scan] = {
    "pip-audit": pip_audit.scan,
    "osv": _osv,
    "trivy": trivy.vulnerabilities,
    "trivy-config": trivy.configuration,
    "checkov": checkov.scan,
    "hadolint": hadolint.scan,
    "secrets": trivy.secrets,
    "image-secrets": trivy.image_secrets,
    "licences": licences.scan,
    "sbom": bill.scan,
}
OF_IMAGES = ("image-secrets",)
"""Left out where no image is given."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One scanner's part of a report."""

    scanner: str
    scanned: Scanned
    seconds: float


@dataclass(frozen=True, slots=True)
class Report:
    """What all scanners that ran (`entries`) came to. A scanner that did not is in `left_out`, with the reason."""

    entries: Sequence[Entry]
    sorted: Sorted
    left_out: Mapping[str, str]
    allow_unknown: bool
    started: int

    def verdict_of(self, entry: Entry) -> Verdict:
        """A finding that needs an exception and has none is a failure, also where the scanner could not see all."""
        if any(finding.scanner == entry.scanner for finding in self.sorted.open):
            return Verdict.FAIL
        return Verdict.UNKNOWN if entry.scanned.unknown else Verdict.PASS

    @property
    def verdict(self) -> Verdict:
        """`pass` only where each scanner passed, or is unknown and that was allowed, and no exception has expired."""
        verdicts = {self.verdict_of(entry) for entry in self.entries}
        if Verdict.FAIL in verdicts or self.sorted.expired:
            return Verdict.FAIL
        if not verdicts or (Verdict.UNKNOWN in verdicts and not self.allow_unknown):
            return Verdict.UNKNOWN
        return Verdict.PASS

    def document(self) -> dict[str, Any]:
        """The report as JSON has it."""
        order = list(Severity)
        pairs = sorted(
            self.sorted.findings,
            key=lambda pair: (order.index(pair[0].severity), pair[0].scanner, pair[0].rule, pair[0].where),
        )
        return {
            "verdict": self.verdict.value,
            "allow_unknown": self.allow_unknown,
            "started": to_rfc3339(self.started),
            "scanners": [self._row(entry) for entry in self.entries],
            "left_out": dict(self.left_out),
            "findings": [
                {
                    "severity": finding.severity.value,
                    "scanner": finding.scanner,
                    "rule": finding.rule,
                    "where": finding.where,
                    "title": finding.title,
                    "also": list(finding.also),
                    "exception": None if accepted is None else _told(accepted),
                }
                for finding, accepted in pairs
            ],
            "expired_exceptions": [_told(each) for each in self.sorted.expired],
            "unused_exceptions": [_told(each) for each in self.sorted.unused],
        }

    def _row(self, entry: Entry) -> dict[str, Any]:
        mine = [(finding, accepted) for finding, accepted in self.sorted.findings if finding.scanner == entry.scanner]
        return {
            "scanner": entry.scanner,
            "verdict": self.verdict_of(entry).value,
            "open": sum(accepted is None and finding.severity.blocks for finding, accepted in mine),
            "excepted": sum(accepted is not None for _, accepted in mine),
            "lower": sum(accepted is None and not finding.severity.blocks for finding, accepted in mine),
            "looked_at": entry.scanned.looked_at,
            "tool": entry.scanned.tool,
            "database": entry.scanned.database,
            "seconds": round(entry.seconds, 1),
            "why": entry.scanned.unknown,
        }


def scan(
    subject: Subject,
    accepted: Sequence[Acceptance],
    *,
    clock: Clock,
    only: Collection[str] = (),
    allow_unknown: bool = False,
    say: Callable[[str], None] = lambda _text: None,
) -> Report:
    """Run the scanners (`only` these, where some are named), as many at once as there are processors.

    `say` is told of each that ends. A scanner that breaks, in whatever way, is `unknown`.
    """
    started = clock.now()
    left_out = {}
    wanted = []
    for name in SCANNERS:
        if only and name not in only:
            left_out[name] = "not asked for"
        elif name in OF_IMAGES and subject.image is None and name not in only:
            left_out[name] = "no --image"
        else:
            wanted.append(name)

    def one(name: str) -> Entry:
        begun = clock.monotonic()
        try:
            scanned = SCANNERS[name](subject)
        except Broken as error:
            scanned = Scanned(unknown=error.detail)
        except Exception as error:  # a scanner's answer in a form that it does not have today
            scanned = Scanned(unknown=f"what it answered can't be read: {type(error).__name__} {error}")
        entry = Entry(name, scanned, clock.monotonic() - begun)
        say(f"{name}: {scanned.unknown or f'{len(scanned.findings)} findings'}")
        return entry

    with ThreadPoolExecutor(max_workers=os.cpu_count() or 1) as pool:
        entries = list(pool.map(one, wanted))
    found = [finding for entry in entries for finding in entry.scanned.findings]
    today = to_datetime(started).date()
    blind = [*left_out, *(entry.scanner for entry in entries if entry.scanned.unknown)]
    return Report(entries, sort(found, accepted, today, blind), left_out, allow_unknown, started)


def _told(accepted: Acceptance) -> dict[str, str]:
    return {
        "scanner": accepted.scanner,
        "rule": accepted.rule,
        "where": accepted.where,
        "reason": accepted.reason,
        "owner": accepted.owner,
        "until": accepted.until.isoformat(),
    }
