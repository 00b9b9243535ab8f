"""What a meter's query asks for, by parameters and by body."""

from __future__ import annotations

from typing import Any

import pytest

from kgents.clock import from_rfc3339
from kgents.meter.model import MAX_TIME, METERS, MIN_TIME, Invalid
from kgents.meter.query import Query, from_body, from_params

METER = METERS[0]
NOON = from_rfc3339("2026-03-10T12:00:00Z")


def of(*params: tuple[str, str]) -> Query:
    return from_params(params, METER)


def test_nothing_asked_is_everything() -> None:
    query = of()
    assert (query.start, query.end, query.size, query.by_subject) == (MIN_TIME, MAX_TIME, None, False)


def test_a_range_is_counted_in_whole_seconds() -> None:
    query = of(("from", "2026-03-10T12:00:00.9Z"), ("to", "2026-03-10T13:00:01.9+01:00"))
    assert (query.start, query.end) == (NOON, NOON + 1_000_000)


def test_a_range_beyond_what_can_be_counted_is_cut() -> None:
    query = of(("from", "0001-01-01T00:00:00+14:00"), ("to", "9999-12-31T23:59:59-14:00"))
    assert (query.start, query.end) == (MIN_TIME, MAX_TIME)


def test_a_subject_filters_and_groups() -> None:
    query = of(("subject", "a"), ("subject", "b"))
    assert (query.subjects, query.by_subject) == (("a", "b"), True)


def test_groups_are_named_once_and_without_the_subject() -> None:
    query = of(("groupBy", "model"), ("groupBy", "subject"), ("groupBy", "model"), ("groupBy", "agent"))
    assert (query.group_by, query.by_subject) == (("model", "agent"), True)


def test_filters_of_one_group_are_alternatives() -> None:
    assert of(("filterGroupBy[model]", "m"), ("filterGroupBy[model]", "n")).filters == {"model": {"m", "n"}}


def test_advanced_filters_narrow_the_simple_ones() -> None:
    query = of(
        ("filterGroupBy[model]", "m"),
        ("filterGroupBy[model]", "n"),
        ("advancedMeterGroupByFilters", '{"model": {"$in": ["n", "o"]}, "agent": {"$eq": "a"}}'),
    )
    assert query.filters == {"model": {"n"}, "agent": {"a"}}


def test_a_body_asks_the_same_as_parameters() -> None:
    body = {
        "from": "2026-03-10T12:00:00Z",
        "windowSize": "DAY",
        "subject": ["a"],
        "groupBy": ["model"],
        "filterGroupBy": {"model": ["m"]},
        "clientId": None,
    }
    by_params = of(
        ("from", "2026-03-10T12:00:00Z"),
        ("windowSize", "DAY"),
        ("subject", "a"),
        ("groupBy", "model"),
        ("filterGroupBy[model]", "m"),
    )
    by_body = from_body(body, METER)
    for name in ("asked_from", "asked_to", "size", "subjects", "by_subject", "group_by", "filters"):
        assert getattr(by_body, name) == getattr(by_params, name), name


@pytest.mark.parametrize(
    "params",
    [
        [("from", "2026-01-02T00:00:00Z"), ("to", "2026-01-02T00:00:00Z")],
        [("from", "2026-01-02T00:00:00Z"), ("to", "2026-01-01T00:00:00Z")],
        [("from", "yesterday")],
        [("from", "2026-01-02T00:00:00Z"), ("from", "2026-01-03T00:00:00Z")],
        [("windowSize", "YEAR")],
        [("windowSize", "day")],
        [("windowTimeZone", "Nowhere")],
        [("groupBy", "run")],
        [("filterGroupBy", "{'model': 'm'}")],
        [("filterGroupBy[run]", "r")],
        [("filterGroupBy[]", "r")],
        [("filterCustomerId", "c")],
        [("advancedMeterGroupByFilters", "{")],
        [("advancedMeterGroupByFilters", "[]")],
        [("advancedMeterGroupByFilters", '{"model": {"$like": "m%"}}')],
        [("advancedMeterGroupByFilters", '{"model": {"$in": [1]}}')],
    ],
)
def test_what_can_not_be_answered_rightly_is_refused(params: list[tuple[str, str]]) -> None:
    with pytest.raises(Invalid):
        from_params(params, METER)


@pytest.mark.parametrize(
    "body",
    [
        [],
        "x",
        {"from": []},
        {"from": 5},
        {"windowSize": ["DAY"]},
        {"windowTimeZone": 5},
        {"subject": [1]},
        {"subject": {"a": 1}},
        {"groupBy": [None]},
        {"filterGroupBy": ["model"]},
        {"filterGroupBy": {"model": {"a": 1}}},
        {"advancedMeterGroupByFilters": {"model": "m"}},
        {"advancedMeterGroupByFilters": {"model": {}}},
        {"advancedMeterGroupByFilters": {"model": {"$eq": "a", "$in": ["b"]}}},
    ],
)
def test_a_body_of_the_wrong_shape_is_refused(body: Any) -> None:
    with pytest.raises(Invalid):
        from_body(body, METER)
