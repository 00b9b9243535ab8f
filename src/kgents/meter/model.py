"""CloudEvents, meters and windows, as OpenMeter has them. Quantities are exact integers."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Literal
from zoneinfo import ZoneInfo

from kgents.clock import from_datetime

WindowSize = Literal["MINUTE", "HOUR", "DAY", "MONTH"]
WINDOW_SIZES: tuple[WindowSize, ...] = ("MINUTE", "HOUR", "DAY", "MONTH")
MAX_TEXT = 1024
MAX_QUANTITY = 2**62


class Invalid(ValueError):
    """An event or a query that can't be accepted; the text says which part and why."""


@dataclass(frozen=True, slots=True)
class Meter:
    """How events of one type add up: the sum of `value_property`, grouped by properties of the event's data."""

    slug: str
    event_type: str
    description: str
    value_property: str = "quantity"
    group_by: tuple[str, ...] = ("agent", "model")


METERS = tuple(
    Meter(slug, f"kgents.{slug}", f"{slug.replace('_', ' ').capitalize()} of agents' runs.")
    for slug in ("runs", "input_tokens", "output_tokens", "tool_calls")
)


@dataclass(frozen=True, slots=True)
class Event:
    """A CloudEvent as it is stored. `time` is in microseconds since the epoch; `quantity` is None for types that no
    meter counts.
    """

    id: str
    source: str
    type: str
    subject: str
    time: int
    data: dict[str, Any] | None
    quantity: int | None
    groups: tuple[str, str]


def parse_event(value: Any, meters: dict[str, Meter], now: int) -> Event:
    """The event of its CloudEvents 1.0 JSON form. Raises Invalid."""
    if not isinstance(value, dict):
        raise Invalid("an event must be a JSON object")
    if value.get("specversion", "1.0") != "1.0":
        raise Invalid("specversion must be 1.0")
    id_, source, type_, subject = (_text(value, name) for name in ("id", "source", "type", "subject"))
    data = value.get("data")
    if data is not None and not isinstance(data, dict):
        raise Invalid("data must be a JSON object")
    meter = meters.get(type_)
    quantity = _quantity(data, meter) if meter else None
    groups = ("", "")
    if data is not None:
        groups = (_group(data, "agent"), _group(data, "model"))
    return Event(id_, source, type_, subject, _time(value.get("time"), now), data, quantity, groups)


def _text(value: dict[str, Any], name: str) -> str:
    found = value.get(name)
    if not isinstance(found, str) or not found or len(found) > MAX_TEXT or "\0" in found:
        raise Invalid(f"{name} must be a text of 1 to {MAX_TEXT} characters")
    return found


def _group(data: dict[str, Any], name: str) -> str:
    found = data.get(name, "")
    return found[:MAX_TEXT] if isinstance(found, str) else ""


def _quantity(data: dict[str, Any] | None, meter: Meter) -> int:
    found = (data or {}).get(meter.value_property)
    if isinstance(found, str) and found.isascii() and found.isdigit() and len(found) < 20:
        found = int(found)
    if isinstance(found, float) and found.is_integer():
        found = int(found)
    if isinstance(found, bool) or not isinstance(found, int) or not 0 <= found <= MAX_QUANTITY:
        raise Invalid(f"data.{meter.value_property} must be a whole number that is not negative")
    return found


def _time(value: Any, now: int) -> int:
    if value is None:
        return now
    try:
        return parse_time(value)
    except (TypeError, ValueError, OverflowError) as error:
        raise Invalid("time must be an RFC 3339 time with an offset") from error


def parse_time(value: str) -> int:
    """Microseconds since the epoch of an RFC 3339 time. Raises ValueError."""
    moment = datetime.fromisoformat(value)
    if moment.tzinfo is None:
        raise ValueError("a time needs an offset")
    return from_datetime(moment)


def window_start(moment: int, size: WindowSize, zone: ZoneInfo) -> int:
    """The start of the window that a moment falls in; days and months begin at the zone's midnight."""
    local = datetime.fromtimestamp(moment // 1_000_000, UTC).astimezone(zone)
    if size == "MINUTE":
        return from_datetime(local.replace(second=0))
    if size == "HOUR":
        return from_datetime(local.replace(minute=0, second=0))
    day = local.replace(hour=0, minute=0, second=0, fold=0)
    return from_datetime(day if size == "DAY" else day.replace(day=1))


def window_end(start: int, size: WindowSize, zone: ZoneInfo) -> int:
    """The end of the window that starts at `start`: the next one's start."""
    if size == "MINUTE":
        return start + 60_000_000
    if size == "HOUR":
        return start + 3_600_000_000
    local = datetime.fromtimestamp(start // 1_000_000, UTC).astimezone(zone).replace(tzinfo=None)
    if size == "DAY":
        following = local + timedelta(days=1)
    else:
        following = local.replace(year=local.year + local.month // 12, month=local.month % 12 + 1)
    return from_datetime(following.replace(tzinfo=zone))
