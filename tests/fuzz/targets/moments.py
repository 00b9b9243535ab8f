"""Times and days of queries: refused as ValueError, or moments that can be written down and read again."""

from __future__ import annotations

from kgents.clock import from_rfc3339, month_bounds, month_of, to_rfc3339
from kgents.usage.service import parse_moment

SEEDS = [
    b"2026-01-31T00:00:00Z",
    b"2026-01-31",
    b"2026-01-31t23:59:59.123456789+14:00",
    b"0001-01-01T00:00:00+14:00",
    b"9999-12-31T23:59:59-14:00",
    b"2016-12-31T23:59:60Z",
    b"2026-W05-6",
    b"20260131T000000+0000",
]


def check(data: bytes) -> None:
    """Both ways of reading."""
    text = data.decode("utf-8", "replace")
    try:
        moment = parse_moment(text)
    except ValueError:
        pass
    else:
        assert parse_moment(to_rfc3339(moment)) == moment
        if 0 <= moment < from_rfc3339("9999-12-01T00:00:00Z"):
            start, end = month_bounds(month_of(moment))
            assert start <= moment < end
    try:
        exact = from_rfc3339(text)
    except ValueError:
        return
    if from_rfc3339("0001-01-02T00:00:00Z") < exact < from_rfc3339("9999-12-31T00:00:00Z"):
        assert from_rfc3339(to_rfc3339(exact)) == exact
