"""The windows that a meter's query divides time into: minutes, hours, days and months of a time zone."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from kgents.clock import from_datetime
from kgents.meter.model import Invalid, WindowSize

SECOND = 1_000_000
MINUTE = 60 * SECOND
QUARTER = 15 * MINUTE
HOUR = 60 * MINUTE
DAY = 24 * HOUR


def parse_zone(name: str) -> ZoneInfo:
    """The time zone of its name in the IANA database. Raises Invalid."""
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError) as error:
        raise Invalid("windowTimeZone must be the name of a time zone, such as Europe/Berlin") from error


class Windows:
    """Windows of one size in one zone. They cover time without gaps and do not overlap, whatever the clocks do.

    Days and months begin at the zone's midnight, or at the first moment after it where the clock skips it; where the
    clock shows midnight twice, at the first. An hour that is repeated is two windows.
    """

    def __init__(self, size: WindowSize, zone: ZoneInfo) -> None:
        self._size = size
        self._zone = zone
        self._utc = zone.key in ("UTC", "Etc/UTC")

    @property
    def grain(self) -> int:
        """Microseconds: every window is made of whole multiples of it, counted from the epoch."""
        if self._size == "MINUTE":
            return MINUTE
        if not self._utc:
            return QUARTER
        return HOUR if self._size == "HOUR" else DAY

    def of(self, moment: int) -> tuple[int, int]:
        """Start and end (exclusive) of the window that a moment falls in, in microseconds since the epoch."""
        if self._size == "MINUTE":
            start = moment - moment % MINUTE
            return start, start + MINUTE
        return self._hour(moment) if self._size == "HOUR" else self._dates(moment)

    def _hour(self, moment: int) -> tuple[int, int]:
        offset = self._offset(moment)
        start = moment - (moment + offset) % HOUR
        end = start + HOUR
        # A clock that changes by a part of an hour ends one window early and begins the next one late.
        if (self._offset(start) - offset) % HOUR:
            start = self._change(start, moment)
        if (self._offset(end - SECOND) - offset) % HOUR:
            end = self._change(moment, end)
        return start, end

    def _dates(self, moment: int) -> tuple[int, int]:
        day = datetime.fromtimestamp(moment // SECOND, self._zone).date()
        day = day if self._size == "DAY" else day.replace(day=1)
        start, end = self._begin(day), self._begin(self._next(day))
        while end <= moment:  # a date that the zone skipped has no time in it
            day = self._next(day)
            start, end = end, self._begin(self._next(day))
        while start > moment:  # a clock set back over midnight shows the earlier date again
            day = self._previous(day)
            start, end = self._begin(day), start
        return start, end

    def _next(self, day: date) -> date:
        if self._size == "DAY":
            return day + timedelta(days=1)
        return day.replace(year=day.year + day.month // 12, month=day.month % 12 + 1)

    def _previous(self, day: date) -> date:
        earlier = day - timedelta(days=1)
        return earlier if self._size == "DAY" else earlier.replace(day=1)

    def _begin(self, day: date) -> int:
        # A midnight that is skipped is read by the offset before the change: the moment of the change.
        return from_datetime(datetime(day.year, day.month, day.day, tzinfo=self._zone))

    def _offset(self, moment: int) -> int:
        local = datetime.fromtimestamp(moment // SECOND, self._zone)
        return from_datetime(local.replace(tzinfo=UTC)) - moment // SECOND * SECOND

    def _change(self, before: int, after: int) -> int:
        """The first second after `before` with the offset of `after`, of which `before` has another."""
        low, high, wanted = before // SECOND, after // SECOND, self._offset(after)
        while high - low > 1:
            middle = (low + high) // 2
            if self._offset(middle * SECOND) == wanted:
                high = middle
            else:
                low = middle
        return high * SECOND
