"""CHANGELOG.md in the form of Keep a Changelog: what is released has a section with its day and its entries."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date

UNRELEASED = "Unreleased"
_HEADING = re.compile(r"^## (.*)$", re.MULTILINE)
_NAMED = re.compile(r"\[(?P<name>[^\]]+)\](?: - (?P<day>\d{4}-\d{2}-\d{2}))?")
_ENTRY = re.compile(r"^[-*] \S", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Section:
    """A version's part of the changelog: its name, its day where it has one, and how many entries it has."""

    name: str
    day: date | None
    entries: int


def sections(text: str) -> Iterator[Section]:
    """The sections of a changelog in their order. A heading or a day in another form makes no section, or no day."""
    _, *parts = _HEADING.split(text)
    for heading, body in zip(parts[::2], parts[1::2], strict=True):
        found = _NAMED.fullmatch(heading.strip())
        if found:
            yield Section(found["name"], _day(found["day"]), len(_ENTRY.findall(body)))


def lacking(text: str, version: str) -> list[str]:
    """Why a changelog is not that of this version's release, and what to do; empty where it is."""
    found = {section.name: section for section in sections(text)}
    reasons = []
    if version not in found:
        reasons.append(
            f"CHANGELOG.md has no section of {version}. Put what changed under a heading `## [{version}] - YYYY-MM-DD`."
        )
    elif found[version].day is None:
        reasons.append(f"CHANGELOG.md's section of {version} has no day. Write `## [{version}] - YYYY-MM-DD`.")
    elif not found[version].entries:
        reasons.append(f"CHANGELOG.md's section of {version} is empty. Say in it what changed for users.")
    waiting = found[UNRELEASED].entries if UNRELEASED in found else 0
    if waiting:
        reasons.append(
            f"CHANGELOG.md has {waiting} {'entry' if waiting == 1 else 'entries'} under {UNRELEASED}. What is in the "
            f"commit is released with it: move them into the section of {version}."
        )
    return reasons


def _day(text: str | None) -> date | None:
    try:
        return date.fromisoformat(text) if text else None
    except ValueError:
        return None
