"""Windows of usage: on UTC, without gap or overlap."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kgents.clock import SECOND, to_rfc3339
from kgents.usage.reconcile import _next, _whole_windows
from kgents.usage.service import parse_moment, window_of

moments = st.integers(0, parse_moment("2100-01-01"))
windows = st.sampled_from(["hour", "day", "month"])


@given(moments, windows)
def test_a_moment_lies_in_its_window(moment, window):
    start = window_of(moment, window)

    assert start <= moment < _next(start, window)
    assert window_of(start, window) == start
    assert window_of(_next(start, window) - 1, window) == start


@given(moments, windows)
def test_windows_follow_on_each_other(moment, window):
    following = _next(window_of(moment, window), window)

    assert window_of(following, window) == following


@given(moments, windows)
def test_an_end_is_widened_to_the_end_of_its_window(moment, window):
    _, end = _whole_windows(0, moment, window)

    assert end >= moment
    assert window_of(end, window) == end
    assert window_of(max(0, end - 1), window) <= moment


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("2026-11-01", "2026-11-01T00:00:00.000000Z"),
        ("2026-11-01T00:00:00Z", "2026-11-01T00:00:00.000000Z"),
        ("2026-11-01T01:00:00+01:00", "2026-11-01T00:00:00.000000Z"),
        ("2026-11-01T00:00:00.000001Z", "2026-11-01T00:00:00.000001Z"),
        ("1969-12-31T23:59:59.999999Z", "1969-12-31T23:59:59.999999Z"),
    ],
)
def test_a_time_is_read(text, shown):
    assert to_rfc3339(parse_moment(text)) == shown


def test_a_day_begins_at_midnight_of_utc():
    assert parse_moment("1970-01-02") == 86_400 * SECOND


@pytest.mark.parametrize(
    "text",
    ["", "now", "2026-13-01", "2026-11-01T00:00:00", "9999-12-31T23:59:59-23:59", "0001-01-01T00:00:00+23:59"],
)
def test_what_is_no_time_is_refused(text):
    with pytest.raises(ValueError, match=r"."):
        parse_moment(text)
