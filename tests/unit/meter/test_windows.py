"""Windows of time, where clocks change and months end."""

from __future__ import annotations

from zoneinfo import available_timezones

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kgents.clock import from_rfc3339
from kgents.meter.answer import rfc3339
from kgents.meter.model import MIN_TIME, WINDOW_SIZES, Invalid, WindowSize
from kgents.meter.windows import Windows, parse_zone

ZONES = sorted(available_timezones())


def window(size: WindowSize, zone: str, moment: str) -> tuple[str, str]:
    start, end = Windows(size, parse_zone(zone)).of(from_rfc3339(moment))
    return rfc3339(start), rfc3339(end)


@pytest.mark.parametrize(
    ("size", "start", "end"),
    [
        ("MINUTE", "2024-02-29T23:59:00Z", "2024-03-01T00:00:00Z"),
        ("HOUR", "2024-02-29T23:00:00Z", "2024-03-01T00:00:00Z"),
        ("DAY", "2024-02-29T00:00:00Z", "2024-03-01T00:00:00Z"),
        ("MONTH", "2024-02-01T00:00:00Z", "2024-03-01T00:00:00Z"),
    ],
)
def test_the_last_moment_of_a_leap_month(size: WindowSize, start: str, end: str) -> None:
    assert window(size, "UTC", "2024-02-29T23:59:59.999999Z") == (start, end)


def test_a_window_begins_with_its_first_microsecond() -> None:
    assert window("MONTH", "UTC", "2024-03-01T00:00:00Z") == ("2024-03-01T00:00:00Z", "2024-04-01T00:00:00Z")


def test_december_ends_with_the_year() -> None:
    assert window("MONTH", "UTC", "2025-12-31T23:59:59Z") == ("2025-12-01T00:00:00Z", "2026-01-01T00:00:00Z")


def test_a_february_of_28_days() -> None:
    assert window("MONTH", "UTC", "2026-02-28T12:00:00Z") == ("2026-02-01T00:00:00Z", "2026-03-01T00:00:00Z")


def test_the_day_on_which_the_clock_goes_forward_has_23_hours() -> None:
    day = ("2026-03-28T23:00:00Z", "2026-03-29T22:00:00Z")
    assert window("DAY", "Europe/Berlin", "2026-03-29T00:30:00Z") == day
    assert window("DAY", "Europe/Berlin", "2026-03-29T21:59:59Z") == day


def test_the_day_on_which_the_clock_goes_back_has_25_hours() -> None:
    assert window("DAY", "Europe/Berlin", "2026-10-25T12:00:00Z") == ("2026-10-24T22:00:00Z", "2026-10-25T23:00:00Z")


def test_a_month_with_a_clock_change_begins_and_ends_at_midnight() -> None:
    month = ("2026-02-28T23:00:00Z", "2026-03-31T22:00:00Z")
    assert window("MONTH", "Europe/Berlin", "2026-03-31T21:59:59Z") == month


def test_an_hour_that_is_repeated_is_two_windows() -> None:
    assert window("HOUR", "Europe/Berlin", "2026-10-25T00:30:00Z") == ("2026-10-25T00:00:00Z", "2026-10-25T01:00:00Z")
    assert window("HOUR", "Europe/Berlin", "2026-10-25T01:30:00Z") == ("2026-10-25T01:00:00Z", "2026-10-25T02:00:00Z")


def test_hours_of_a_zone_that_is_half_an_hour_off() -> None:
    assert window("HOUR", "Asia/Kolkata", "2026-01-01T00:10:00Z") == ("2025-12-31T23:30:00Z", "2026-01-01T00:30:00Z")


def test_an_hour_is_cut_short_where_the_clock_changes_by_half_an_hour() -> None:
    # Lord Howe Island went back from 02:00 to 01:30 at 2026-04-04T15:00Z.
    assert window("HOUR", "Australia/Lord_Howe", "2026-04-04T14:30:00Z")[1] == "2026-04-04T15:00:00Z"
    assert window("HOUR", "Australia/Lord_Howe", "2026-04-04T15:00:00Z") == (
        "2026-04-04T15:00:00Z",
        "2026-04-04T15:30:00Z",
    )


def test_a_day_whose_midnight_is_skipped_begins_when_the_clock_has_changed() -> None:
    # Cairo went from 00:00 to 01:00 on 2026-04-24, at 22:00Z; the next day begins at 00:00 again, at 21:00Z.
    assert window("DAY", "Africa/Cairo", "2026-04-24T12:00:00Z") == ("2026-04-23T22:00:00Z", "2026-04-24T21:00:00Z")
    assert window("DAY", "Africa/Cairo", "2026-04-23T12:00:00Z") == ("2026-04-22T22:00:00Z", "2026-04-23T22:00:00Z")


def test_a_day_whose_midnight_comes_twice_begins_with_the_first() -> None:
    # Havana went back from 01:00 to 00:00 on 2026-11-01, at 05:00Z.
    assert window("DAY", "America/Havana", "2026-11-01T05:30:00Z") == ("2026-11-01T04:00:00Z", "2026-11-02T05:00:00Z")


def test_a_date_that_was_skipped_has_no_window() -> None:
    # Samoa left out 2011-12-30.
    assert window("DAY", "Pacific/Apia", "2011-12-30T09:59:59Z")[1] == "2011-12-30T10:00:00Z"
    assert window("DAY", "Pacific/Apia", "2011-12-30T10:00:00Z") == ("2011-12-30T10:00:00Z", "2011-12-31T10:00:00Z")


@given(
    zone=st.sampled_from(ZONES),
    size=st.sampled_from(WINDOW_SIZES),
    moment=st.integers(MIN_TIME, from_rfc3339("2050-01-01T00:00:00Z")),
)
def test_windows_cover_time_without_gaps_or_overlaps(zone: str, size: WindowSize, moment: int) -> None:
    windows = Windows(size, parse_zone(zone))
    start, end = windows.of(moment)
    assert start <= moment < end
    assert windows.of(start) == windows.of(end - 1) == (start, end)
    assert windows.of(end)[0] == end
    assert start % windows.grain == end % windows.grain == 0


@pytest.mark.parametrize("name", ["", "Nowhere/Town", "../../etc/passwd", "/etc/passwd", "Europe", "a\0b", "x" * 9999])
def test_a_zone_that_is_not_known_is_refused(name: str) -> None:
    with pytest.raises(Invalid, match="windowTimeZone"):
        parse_zone(name)
