"""Time as whole microseconds in UTC."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kgents.clock import (
    SECOND,
    ManualClock,
    SystemClock,
    from_datetime,
    month_bounds,
    month_of,
    to_datetime,
    to_rfc3339,
)

moments = st.integers(from_datetime(datetime(1, 1, 1, tzinfo=UTC)), from_datetime(datetime(9999, 12, 31, tzinfo=UTC)))


@given(moments)
def test_a_moment_is_kept_to_the_microsecond(micros: int) -> None:
    assert from_datetime(to_datetime(micros)) == micros


@given(moments)
def test_its_text_is_the_same_moment(micros: int) -> None:
    assert from_datetime(datetime.fromisoformat(to_rfc3339(micros))) == micros
    assert len(to_rfc3339(micros)) == 27


def test_an_offset_is_taken_into_account() -> None:
    there = datetime(2026, 1, 1, 0, 30, tzinfo=timezone(timedelta(hours=1)))
    assert to_rfc3339(from_datetime(there)) == "2025-12-31T23:30:00.000000Z"


def test_a_time_without_an_offset_is_refused() -> None:
    with pytest.raises(ValueError, match="offset"):
        from_datetime(datetime(2026, 1, 1))  # noqa: DTZ001 - that is the point


@given(st.integers(0, from_datetime(datetime(2200, 1, 1, tzinfo=UTC))))
def test_a_moment_lies_in_its_month(micros: int) -> None:
    start, end = month_bounds(month_of(micros))
    assert start <= micros < end
    assert month_of(end) != month_of(start) == month_of(end - 1)


def test_the_system_clock_is_now() -> None:
    assert abs(SystemClock().now() - from_datetime(datetime.now(UTC))) < 5 * SECOND


def test_a_manual_clock_moves_when_told() -> None:
    clock = ManualClock(5 * SECOND)
    clock.advance(1.5)
    assert (clock.now(), clock.monotonic()) == (6_500_000, 6.5)
