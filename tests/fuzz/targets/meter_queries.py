"""Queries of the meter, as a URL's parameters or a body: refused as Invalid, or with a range and windows that hold."""

from __future__ import annotations

from contextlib import suppress
from urllib.parse import parse_qsl

from kgents.meter import events, query
from kgents.meter.model import MAX_TIME, METERS, MIN_TIME, Invalid
from kgents.meter.query import Query
from tests.fuzz.values import json_of

NOW = 1_700_000_000_000_000
_METER = METERS[1]
_WORDS = [
    *(
        "from",
        "to",
        "windowSize",
        "windowTimeZone",
        "subject",
        "groupBy",
        "filterGroupBy",
        "advancedMeterGroupByFilters",
    ),
    *("agent", "model", "$eq", "$in", "MINUTE", "HOUR", "DAY", "MONTH", "UTC", "Europe/Berlin", "America", "../UTC"),
    *("2026-01-31T00:00:00Z", "2026-03-29T01:30:00+01:00", "1969-12-31T23:59:59Z", "9999-12-31T23:59:59-14:00"),
]

SEEDS = [
    b"from=2026-01-01T00:00:00Z&to=2026-02-01T00:00:00Z&windowSize=DAY&windowTimeZone=Europe/Berlin&groupBy=agent",
    b"subject=a&subject=b&filterGroupBy[agent]=x&filterGroupBy[model]=y&advancedMeterGroupByFilters={%22agent%22:{}}",
    b"id=a&subject=b&limit=10&ingestedAtFrom=2026-01-01T00:00:00Z&ingestedAtTo=2026-01-02T00:00:00Z",
    b'{"from":"2026-01-01T00:00:00Z","windowSize":"HOUR","filterGroupBy":{"agent":["a"]}}',
    b"\x05\x09" + bytes(range(64)),
]


def check(data: bytes) -> None:
    """The same bytes as parameters of either list, and as a body."""
    params = parse_qsl(data.decode("latin-1"), keep_blank_values=True)
    with suppress(Invalid):
        _check(query.from_params(params, _METER))
    with suppress(Invalid):
        wanted = events.from_params(params, NOW)
        assert 1 <= wanted.limit <= events.MAX_LISTED
        assert len(wanted.conditions) == len(wanted.values)
    with suppress(Invalid):
        _check(query.from_body(json_of(data, _WORDS), _METER))


def _check(asked: Query) -> None:
    assert asked.start >= MIN_TIME
    assert asked.end <= MAX_TIME
    assert set(asked.group_by) | set(asked.filters) <= set(_METER.group_by)
    if asked.windows:
        for moment in {asked.start, max(MIN_TIME, asked.end - 1)}:
            start, end = asked.windows.of(moment)
            assert start <= moment < end
