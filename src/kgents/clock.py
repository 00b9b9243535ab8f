"""The one source of time. Everything that needs "now" is given a Clock, so that tests can set it."""

from __future__ import annotations

import re
import time
from datetime import UTC, datetime
from functools import lru_cache
from typing import Protocol

SECOND = 1_000_000  # in microseconds, the unit in which kgents keeps time
_RFC3339 = re.compile(
    r"[0-9]{4}-[0-9]{2}-[0-9]{2}[Tt][0-9]{2}:[0-9]{2}:[0-9]{2}(\.[0-9]+)?([Zz]|[+-][0-9]{2}:[0-9]{2})"
)


class Clock(Protocol):
    """A source of wall time and of monotonic time."""

    def now(self) -> int:
        """Wall time: microseconds since 1970-01-01T00:00:00Z."""
        ...

    def monotonic(self) -> float:
        """Seconds from an arbitrary start, never running backwards."""
        ...


class SystemClock:
    """The machine's clocks."""

    def now(self) -> int:
        return time.time_ns() // 1000

    def monotonic(self) -> float:
        return time.monotonic()


class ManualClock:
    """A clock that moves only when told, for tests. Both times advance together."""

    def __init__(self, now: int = 1_700_000_000 * SECOND) -> None:
        self._now = now

    def now(self) -> int:
        return self._now

    def monotonic(self) -> float:
        return self._now / SECOND

    def advance(self, seconds: float) -> None:
        """Move forward by `seconds`."""
        self._now += round(seconds * SECOND)


def to_datetime(micros: int) -> datetime:
    """The aware UTC datetime of `micros` microseconds since the epoch."""
    return datetime.fromtimestamp(micros // SECOND, UTC).replace(microsecond=micros % SECOND)


def from_datetime(value: datetime) -> int:
    """Microseconds since the epoch of an aware datetime. Raises ValueError for a naive one."""
    if value.tzinfo is None:
        raise ValueError("a time needs an offset, such as 2026-01-31T00:00:00Z")
    delta = value - datetime(1970, 1, 1, tzinfo=UTC)
    return (delta.days * 86_400 + delta.seconds) * SECOND + delta.microseconds


def from_rfc3339(value: str) -> int:
    """Microseconds since the epoch of an RFC 3339 time; digits beyond microseconds are dropped. Raises ValueError."""
    if not _RFC3339.fullmatch(value):
        raise ValueError("a time must be written as 2026-01-31T00:00:00Z or 2026-01-31T01:00:00+01:00")
    return from_datetime(datetime.fromisoformat(value.upper()))


def to_rfc3339(micros: int) -> str:
    """RFC 3339 text in UTC with microseconds, e.g. `2026-11-23T10:00:00.000000Z`."""
    return f"{_to_the_second(micros // SECOND)}.{micros % SECOND:06d}Z"


@lru_cache(maxsize=64)
def _to_the_second(seconds: int) -> str:
    return to_datetime(seconds * SECOND).replace(tzinfo=None).isoformat()


def month_of(micros: int) -> str:
    """The UTC calendar month that a moment falls in, as `2026-11`: the period of quotas and balances."""
    return _month_of_day(micros // (86_400 * SECOND))


@lru_cache(maxsize=64)
def _month_of_day(day: int) -> str:
    moment = time.gmtime(day * 86_400)
    return f"{moment.tm_year:04d}-{moment.tm_mon:02d}"


def month_bounds(month: str) -> tuple[int, int]:
    """Start (inclusive) and end (exclusive) of a `YYYY-MM` month, in microseconds since the epoch."""
    start = datetime.strptime(month, "%Y-%m").replace(tzinfo=UTC)
    end = start.replace(year=start.year + start.month // 12, month=start.month % 12 + 1)
    return from_datetime(start), from_datetime(end)
