"""What a load measured: one row a request, and the figures that are made of them."""

from __future__ import annotations

from array import array
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from math import ceil, isnan, nan
from typing import Any, NamedTuple

PERCENTILES = {"p50": 0.5, "p90": 0.9, "p95": 0.95, "p99": 0.99, "p99_9": 0.999, "max": 1.0}
POINTS = 300  # of a timeline, at most
LOST = 0
"""The status of a request that got no answer, or one that was cut off."""


def percentile(ordered: Sequence[float], share: float) -> float:
    """The least of the values, which ascend, that `share` of them do not exceed; NaN without any."""
    return ordered[max(0, ceil(share * len(ordered)) - 1)] if ordered else nan


def percentiles(values: Iterable[float]) -> dict[str, float]:
    """The usual percentiles of values in seconds, in milliseconds; empty without any."""
    ordered = sorted(values)
    return {name: round(percentile(ordered, share) * 1000, 2) for name, share in PERCENTILES.items() if ordered}


class Sample(NamedTuple):
    """A request. Times in seconds: `at` is when it was meant to start, counted from the step's start; `late` how much
    later it did; `latency` from the intended start to the last byte; `first` to the first token, NaN without one.
    """

    kind: str
    at: float
    late: float
    latency: float
    status: int
    first: float = nan


@dataclass(slots=True)
class Samples:
    """The samples of a step, as columns, since there may be millions."""

    kinds: list[str] = field(default_factory=list)
    _kind: array[int] = field(default_factory=lambda: array("H"))
    _status: array[int] = field(default_factory=lambda: array("H"))
    _times: tuple[array[float], ...] = field(default_factory=lambda: tuple(array("d") for _ in range(4)))

    def add(self, sample: Sample) -> None:
        """Keep one more."""
        if sample.kind not in self.kinds:
            self.kinds.append(sample.kind)
        self._kind.append(self.kinds.index(sample.kind))
        self._status.append(sample.status)
        for column, value in zip(self._times, (sample.at, sample.late, sample.latency, sample.first), strict=True):
            column.append(value)

    @classmethod
    def merged(cls, parts: Iterable[Samples]) -> Samples:
        """The samples of programs that ran side by side."""
        found = cls()
        for part in parts:
            for sample in part:
                found.add(sample)
        return found

    def __len__(self) -> int:
        return len(self._status)

    def __iter__(self) -> Iterator[Sample]:
        for kind, status, at, late, latency, first in zip(self._kind, self._status, *self._times, strict=True):
            yield Sample(self.kinds[kind], at, late, latency, status, first)


@dataclass(slots=True)
class Counts:
    """What is known while a step runs."""

    sent: int = 0
    good: int = 0
    bad: int = 0
    recent: list[float] = field(default_factory=list)
    """The latencies (s) since they were last looked at."""

    def add(self, status: int, latency: float) -> None:
        """One more answer."""
        self.sent += 1
        if good(status):
            self.good += 1
            self.recent.append(latency)
        else:
            self.bad += 1


def good(status: int) -> bool:
    """Whether the target did what it was asked."""
    return 200 <= status < 300


def figures(samples: Samples, *, rate: float, seconds: float) -> dict[str, Any]:
    """A step's figures: `rate` requests a second (0: closed loop) were meant to start for `seconds`.

    Percentiles (ms) are of the good answers. `latency_ms` is to the last byte of what is no stream, `first_token_ms`
    and `stream_ms` are of the streams; `late_ms` is of every request: how late the generator was.
    """
    rows = list(samples)
    fine = [row for row in rows if good(row.status)]
    took = max([seconds, *(row.at + row.latency for row in rows)])
    kinds = sorted({row.kind for row in rows})
    streams = [row for row in fine if not isnan(row.first)]
    return {
        "offered": round(rate, 2),
        "sent": round(len(rows) / seconds, 2),
        "achieved": round(len(fine) / took, 2),
        "seconds": round(seconds, 2),
        "took": round(took, 2),
        "requests": len(rows),
        "errors": len(rows) - len(fine),
        "statuses": {_name(code): count for code, count in sorted(Counter(row.status for row in rows).items())},
        "latency_ms": percentiles(row.latency for row in fine if isnan(row.first)),
        "first_token_ms": percentiles(row.first for row in streams),
        "stream_ms": percentiles(row.latency for row in streams),
        "late_ms": percentiles(row.late for row in rows),
        "kinds": {kind: _kind(rows, kind) for kind in kinds},
        "timeline": timeline(rows, seconds),
    }


def _name(status: int) -> str:
    return "lost" if status == LOST else str(status)


def _kind(rows: Sequence[Sample], kind: str) -> dict[str, Any]:
    own = [row for row in rows if row.kind == kind]
    fine = [row.latency for row in own if good(row.status)]
    return {"requests": len(own), "errors": len(own) - len(fine), "latency_ms": percentiles(fine)}


def timeline(rows: Sequence[Sample], seconds: float) -> list[dict[str, float]]:
    """The step in stretches of at least a second: what was meant to start in each, what became of it, and how many good
    answers ended in it.
    """
    width = max(1.0, seconds / POINTS)
    last = max(0, ceil(seconds / width) - 1)
    started: dict[int, list[Sample]] = {}
    ended: Counter[int] = Counter()
    for row in rows:
        started.setdefault(min(last, int(row.at / width)), []).append(row)
        if good(row.status):
            ended[int((row.at + row.latency) / width)] += 1
    points = []
    for number in range(max([last, *ended]) + 1):
        inside = started.get(number, [])
        span = seconds - number * width if number == last else width
        fine = sorted(row.latency if isnan(row.first) else row.first for row in inside if good(row.status))
        point = {
            "second": round(number * width, 2),
            "arrivals": round(len(inside) / span, 1),
            "answers": round(ended[number] / span, 1),
            "errors": len(inside) - len(fine),
        }
        if fine:
            point |= {name: round(percentile(fine, PERCENTILES[name]) * 1000, 2) for name in ("p50", "p99")}
        points.append(point)
    return points
