"""What a benchmark answers, and how several runs become one figure."""

from __future__ import annotations

import json
import statistics
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parent / "results"


@dataclass(frozen=True, slots=True)
class Figure:
    """One figure beside its target. `met` is None where there is none; `why` is why a missed one is missed."""

    what: str
    target: str
    got: str
    met: bool | None
    why: str = ""


@dataclass(frozen=True, slots=True)
class Table:
    """Rows beside the figures."""

    head: list[str]
    rows: list[list[str]]


@dataclass(frozen=True, slots=True)
class Profile:
    """What a process did while it was under load: the share of samples and the function, most first."""

    process: str
    rows: list[tuple[float, str]]


@dataclass(slots=True)
class Section:
    """What one benchmark found. `how` says what was done; `raw` are the runs themselves."""

    title: str
    how: str
    figures: list[Figure] = field(default_factory=list)
    tables: list[Table] = field(default_factory=list)
    profiles: list[Profile] = field(default_factory=list)
    raw: dict[str, Any] = field(default_factory=dict)
    machine: dict[str, str] = field(default_factory=dict)
    took: float = 0.0

    def save(self, name: str) -> None:
        """Keep it as JSON."""
        RESULTS.mkdir(exist_ok=True)
        partial = RESULTS / f"{name}.partial"
        partial.write_text(json.dumps(asdict(self), indent=1))
        partial.replace(RESULTS / f"{name}.json")


def load(name: str) -> Section | None:
    """What the last run of a benchmark found, or None."""
    path = RESULTS / f"{name}.json"
    if not path.exists():
        return None
    kept = json.loads(path.read_text())
    figures = [Figure(**figure) for figure in kept.pop("figures")]
    tables = [Table(**table) for table in kept.pop("tables")]
    profiles = [Profile(one["process"], [tuple(row) for row in one["rows"]]) for one in kept.pop("profiles")]
    return Section(figures=figures, tables=tables, profiles=profiles, **kept)


@dataclass(frozen=True, slots=True)
class Scale:
    """How long to measure: `share` of the full time and counts, `repeats` times."""

    repeats: int = 3
    share: float = 1.0

    def seconds(self, full: float) -> float:
        """So many seconds."""
        return full * self.share

    def count(self, full: int) -> int:
        """So many."""
        return max(1, round(full * self.share))


def spread(values: Sequence[float], digits: int = 0, unit: str = "") -> str:
    """The median, and the least and the most."""
    middle, least, most = statistics.median(values), min(values), max(values)
    return f"{middle:,.{digits}f}{unit} ({least:,.{digits}f} to {most:,.{digits}f})"


median = statistics.median
