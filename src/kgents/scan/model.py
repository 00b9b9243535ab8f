"""What scanners find, and what they say of themselves."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import StrEnum


class Severity(StrEnum):
    """How bad a finding is. A scanner that says nothing of it is taken to mean HIGH."""

    CRITICAL = "critical"
    HIGH = "high"
    MEDIUM = "medium"
    LOW = "low"

    @property
    def blocks(self) -> bool:
        """Whether it needs an exception."""
        return self in (Severity.CRITICAL, Severity.HIGH)

    @staticmethod
    def of(word: str | None) -> Severity:
        """What a scanner's word means: an unknown one, or none, is HIGH."""
        name = (word or "").lower()
        if name == "moderate":
            return Severity.MEDIUM
        return Severity(name) if name in set(Severity) else Severity.HIGH


class Verdict(StrEnum):
    """What a scan comes to. `unknown` is never a pass: the scanner could not look, or not with fresh data."""

    PASS = "pass"  # noqa: S105 - no password
    FAIL = "fail"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that a scanner found: a rule's or an advisory's id, and where; `also` has its other ids."""

    scanner: str
    rule: str
    where: str
    severity: Severity
    title: str
    also: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Scanned:
    """What a scanner came to: what it looked at, with which tool, and the day of its database (RFC 3339) if any.

    `unknown` says why nothing, or not everything, could be seen; it is empty where all of it was.
    """

    looked_at: str = ""
    tool: str = ""
    database: str = ""
    findings: Sequence[Finding] = field(default=())
    unknown: str = ""
