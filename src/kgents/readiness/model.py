"""What a criterion is, what becomes of checking it, and the graph that criteria make. Standard library only."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, NamedTuple

from kgents.clock import SECOND
from kgents.errors import KgentsError

HOUR = 3600 * SECOND
DAY = 24 * HOUR


class Verdict(StrEnum):
    """What a criterion comes to. Only `pass` and `waived` let a launch go on."""

    PASS = "pass"  # noqa: S105 - not a password
    FAIL = "fail"
    UNKNOWN = "unknown"
    WAIVED = "waived"

    @property
    def stops(self) -> bool:
        """Whether it stands in the way."""
        return self in (Verdict.FAIL, Verdict.UNKNOWN)


class NotShown(KgentsError):
    """It can't be told whether the criterion holds; the detail says why, and what would let it be told."""

    code = "not-shown"


class Broken(KgentsError):
    """The criterion does not hold. `seen` is what shows it."""

    code = "not-ready"

    def __init__(self, detail: str, seen: Mapping[str, Any] | None = None) -> None:
        super().__init__(detail)
        self.seen = dict(seen or {})


class Found(NamedTuple):
    """What a check saw where its criterion holds: in words, and as facts (JSON, without a secret).

    `time` and `commit` are those of the evidence where it was recorded earlier, by another command.
    """

    detail: str
    seen: Mapping[str, Any]
    time: int | None = None
    commit: str = ""


Check = Callable[[Any], Found]
"""Looks at a Target (target.py). Returns what it saw where the criterion holds, raises Broken where it does not and
NotShown where that can't be told. Whatever else it raises counts as not shown.
"""


@dataclass(frozen=True, slots=True)
class Criterion:
    """Something that must be true, and the check that shows it.

    `how` says what the check does and `fix` what to do where it fails. `max_age` (microseconds) is how old evidence may
    be. One that `disrupts` breaks something or drives load, and is checked only when that is asked for; otherwise its
    last result counts while it is young enough. `attention` and `exploration` are the minutes planned for it: of a
    person who has to see to it, and for finding out what is not known yet.
    """

    id: str
    claim: str
    how: str
    fix: str
    check: Check = field(repr=False)
    needs: tuple[str, ...] = ()
    max_age: int = DAY
    disrupts: bool = False
    attention: int = 10
    exploration: int = 0

    @property
    def track(self) -> str:
        """The letter of its track."""
        return self.id[0]

    @property
    def minutes(self) -> int:
        """What is planned for it in all."""
        return self.attention + self.exploration


@dataclass(frozen=True, slots=True)
class Track:
    """Criteria that one person can see to, one after another; `needs` are tracks that have to stand first."""

    id: str
    name: str
    needs: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Graph:
    """All tracks and criteria. Raises ValueError for one that hangs together badly."""

    tracks: tuple[Track, ...]
    criteria: tuple[Criterion, ...]

    def __post_init__(self) -> None:
        ids = [*(each.id for each in self.tracks), *(each.id for each in self.criteria)]
        if len(set(ids)) != len(ids):
            raise ValueError("two tracks or criteria have one id")
        needs = {need for track in self.tracks for need in track.needs}
        needs.update(need for criterion in self.criteria for need in criterion.needs)
        if missing := sorted(needs.difference(ids)):
            raise ValueError(f"something needs {', '.join(missing)}, which there is not")
        if any(each.track not in {track.id for track in self.tracks} for each in self.criteria):
            raise ValueError("a criterion is in no track")
        self.order()

    @property
    def names(self) -> set[str]:
        """The ids of all tracks and criteria."""
        return {*(each.id for each in self.tracks), *(each.id for each in self.criteria)}

    def get(self, id_: str) -> Criterion:
        """The criterion of this id. Raises KeyError."""
        return {each.id: each for each in self.criteria}[id_]

    def of_track(self, track: str) -> list[Criterion]:
        """A track's criteria."""
        return [each for each in self.criteria if each.track == track]

    def needs(self, criterion: Criterion) -> tuple[str, ...]:
        """The criteria that have to hold before this one can be checked: its own, and those that its track's tracks
        begin with.
        """
        track = next(each for each in self.tracks if each.id == criterion.track)
        first = [self.of_track(each)[0].id for each in track.needs]
        return tuple(dict.fromkeys((*first, *criterion.needs)))

    def blocks(self, criterion: Criterion) -> list[str]:
        """The criteria that can't be checked before this one holds, near and far."""
        found: list[str] = []
        for each in self.order():
            if any(need == criterion.id or need in found for need in self.needs(each)):
                found.append(each.id)
        return found

    def order(self) -> list[Criterion]:
        """The criteria, each after those that it needs. Raises ValueError for a circle."""
        left = list(self.criteria)
        done: set[str] = set()
        ordered: list[Criterion] = []
        while left:
            ready = [each for each in left if done.issuperset(self.needs(each))]
            if not ready:
                raise ValueError(f"{', '.join(each.id for each in left)} need each other")
            ordered += ready
            done.update(each.id for each in ready)
            left = [each for each in left if each.id not in done]
        return ordered

    def critical_path(self, done: Collection[str] = ()) -> tuple[list[Criterion], int]:
        """The chain of criteria that takes longest, by their planned minutes, and how long; those that are done take
        none.
        """
        longest: dict[str, tuple[int, list[Criterion]]] = {}
        for each in self.order():
            before: tuple[int, list[Criterion]] = max(
                (longest[need] for need in self.needs(each)), key=lambda found: found[0], default=(0, [])
            )
            own = 0 if each.id in done else each.minutes
            longest[each.id] = (before[0] + own, [*before[1], *([each] if own else [])])
        minutes, path = max(longest.values(), key=lambda found: found[0], default=(0, []))
        return path, minutes


@dataclass(frozen=True, slots=True)
class Result:
    """What a criterion came to. `time` is when it was seen (microseconds), `seconds` how long the check took,
    `evidence` the SHA-256 of what was seen, and `earlier` says that an earlier run saw it.
    """

    criterion: str
    verdict: Verdict
    detail: str
    time: int
    commit: str
    evidence: str = ""
    seconds: float = 0.0
    earlier: bool = False


def standing(results: Iterable[Result]) -> list[Result]:
    """The results that stand in the way."""
    return [each for each in results if each.verdict.stops]
