"""What is accepted, by whom, why, and until when: security/exceptions.toml."""

from __future__ import annotations

import tomllib
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from kgents.errors import Unprocessable
from kgents.scan.model import Finding

FILE = Path("security") / "exceptions.toml"
NEEDED = ("scanner", "rule", "where", "reason", "owner", "until")
STATUSES = ("affected", "not_affected", "under_investigation")
JUSTIFICATIONS = (
    "component_not_present",
    "vulnerable_code_not_present",
    "vulnerable_code_not_in_execute_path",
    "vulnerable_code_cannot_be_controlled_by_adversary",
    "inline_mitigations_already_exist",
)
"""OpenVEX's words (https://github.com/openvex/spec)."""
LONGEST = timedelta(days=400)
"""How long somebody answers for something without looking again."""


@dataclass(frozen=True, slots=True)
class Acceptance:
    """One exception. `scanner` and `where` are patterns (`*`); it holds through the day `until`, in UTC.

    `status` and `justification` are OpenVEX's; with `affected`, the reason says what is done about it meanwhile.
    """

    scanner: str
    rule: str
    where: str
    reason: str
    owner: str
    until: date
    status: str = "affected"
    justification: str = ""

    def covers(self, finding: Finding) -> bool:
        """Whether this finding is meant, whatever the day."""
        return (
            fnmatchcase(finding.scanner, self.scanner)
            and self.rule in (finding.rule, *finding.also)
            and fnmatchcase(finding.where, self.where)
        )

    def expired(self, today: date) -> bool:
        """Whether its last day is over."""
        return today > self.until

    def __str__(self) -> str:
        return f"{self.scanner} {self.rule} in {self.where}, until {self.until}, {self.owner}"


@dataclass(frozen=True, slots=True)
class Sorted:
    """Findings with the exception that covers each, and the exceptions that are expired or cover nothing."""

    findings: Sequence[tuple[Finding, Acceptance | None]]
    expired: Sequence[Acceptance]
    unused: Sequence[Acceptance]

    @property
    def open(self) -> list[Finding]:
        """What needs an exception and has none."""
        return [finding for finding, accepted in self.findings if accepted is None and finding.severity.blocks]


def load(tree: Path, today: date) -> list[Acceptance]:
    """The exceptions of a tree; none without the file. Raises Unprocessable for one that is not complete, or has no end
    that is near enough.
    """
    path = tree / FILE
    if not path.is_file():
        return []
    try:
        document = tomllib.loads(path.read_text())
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise Unprocessable(f"{path} is not TOML: {error}.", code="exceptions") from None
    entries = document.pop("exception", [])
    if document or not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
        raise Unprocessable(f"{path} may hold nothing but [[exception]] tables.", code="exceptions")
    return [_acceptance(path, number, entry, today) for number, entry in enumerate(entries, 1)]


def sort(findings: Iterable[Finding], accepted: Sequence[Acceptance], today: date, blind: Collection[str]) -> Sorted:
    """Give each finding its exception. One covers nothing only if none of its scanners is `blind`: away, or broken."""
    listed = list(findings)
    valid = [each for each in accepted if not each.expired(today)]
    pairs = [(finding, next((each for each in valid if each.covers(finding)), None)) for finding in listed]
    decided = [each for each in valid if not any(fnmatchcase(name, each.scanner) for name in blind)]
    unused = [each for each in decided if not any(each.covers(finding) for finding in listed)]
    return Sorted(pairs, [each for each in accepted if each.expired(today)], unused)


def _acceptance(path: Path, number: int, entry: Mapping[str, Any], today: date) -> Acceptance:
    def refused(why: str) -> Unprocessable:
        named = f"the exception for {entry['rule']}" if entry.get("rule") else f"exception {number}"
        return Unprocessable(f"{path}: {named} {why}.", code="exceptions")

    missing = [name for name in NEEDED if not entry.get(name)]
    if missing:
        raise refused(f"has no {', '.join(missing)}")
    unknown = sorted(entry.keys() - set(Acceptance.__dataclass_fields__))
    if unknown:
        raise refused(f"has {', '.join(unknown)}, which means nothing here")
    if type(entry["until"]) is not date:
        raise refused("needs a day as its end, without quotes, such as until = 2027-01-31")
    if entry["until"] > today + LONGEST:
        raise refused(f"ends on {entry['until']}, and may hold for {LONGEST.days} days at most")
    words = {name: value for name, value in entry.items() if name != "until"}
    if not all(isinstance(value, str) for value in words.values()):
        raise refused("has a value that is no text")
    found = Acceptance(**words, until=entry["until"])
    if found.status not in STATUSES:
        raise refused(f"has a status that is not one of {', '.join(STATUSES)}")
    if found.justification and (found.status != "not_affected" or found.justification not in JUSTIFICATIONS):
        raise refused(f"has a justification, which goes with not_affected and is one of {', '.join(JUSTIFICATIONS)}")
    return found
