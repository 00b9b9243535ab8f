"""CloudEvents and meters, as OpenMeter has them. Quantities are exact integers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Literal, NamedTuple

from kgents.clock import from_datetime, from_rfc3339

WindowSize = Literal["MINUTE", "HOUR", "DAY", "MONTH"]
WINDOW_SIZES: tuple[WindowSize, ...] = ("MINUTE", "HOUR", "DAY", "MONTH")
Aggregation = Literal["SUM", "COUNT", "MIN", "MAX"]

MAX_TEXT = 1024  # characters of an id, a source, a type, a subject or a group
MAX_QUANTITY = 2**63 - 1
_MAX_EXACT_FLOAT = 2**53
# Every zone is whole quarters of an hour from UTC since 1980 (windows.py counts on it); OpenMeter ends in 2106.
MIN_TIME = from_datetime(datetime(1990, 1, 1, tzinfo=UTC))
MAX_TIME = from_datetime(datetime(2106, 1, 1, tzinfo=UTC))


class Invalid(ValueError):
    """An event or a query that can't be accepted; the text says which part and why."""


@dataclass(frozen=True, slots=True)
class Meter:
    """How events of one type add up: `aggregation` of `value_property`, grouped by properties of the event's data.

    COUNT counts events and reads no property. Properties are names of the top level of the event's data.
    """

    slug: str
    event_type: str
    description: str = ""
    aggregation: Aggregation = "SUM"
    value_property: str = "quantity"
    group_by: tuple[str, ...] = ("agent", "model")


METERS = tuple(
    Meter(slug, f"kgents.{slug}", f"{slug.replace('_', ' ').capitalize()} of agents' runs.")
    for slug in ("runs", "input_tokens", "output_tokens", "tool_calls")
)


class Reading(NamedTuple):
    """What one event says to one meter. `groups` are the values of the meter's `group_by`, "" where there is none."""

    meter: Meter
    groups: tuple[str, ...]
    value: int


class Event(NamedTuple):
    """A CloudEvent. `time` is in microseconds since the epoch; types that no meter counts have no readings."""

    id: str
    source: str
    type: str
    subject: str
    time: int
    data: dict[str, Any] | None
    readings: Sequence[Reading]


def parse_event(value: Any, meters: Mapping[str, Sequence[Meter]], now: int) -> Event:
    """The event of its CloudEvents 1.0 JSON form. `meters` are by event type; `now` is the time of an event without
    one. Raises Invalid.
    """
    if not isinstance(value, dict):
        raise Invalid("an event must be a JSON object")
    if value.get("specversion", "1.0") != "1.0":
        raise Invalid("specversion must be 1.0")
    if value.get("datacontenttype") not in (None, "application/json") or "data_base64" in value:
        raise Invalid("an event's data must be JSON: datacontenttype must be application/json")
    type_ = _text(value, "type")
    data = value.get("data")
    if data is not None and not isinstance(data, dict):
        raise Invalid("data must be a JSON object")
    return Event(
        _text(value, "id"),
        _text(value, "source"),
        type_,
        _text(value, "subject"),
        _time(value.get("time"), now),
        data,
        [read(meter, data) for meter in meters.get(type_, ())],
    )


def read(meter: Meter, data: dict[str, Any] | None) -> Reading:
    """What an event's data says to a meter. Raises Invalid."""
    data = data or {}
    value = 1 if meter.aggregation == "COUNT" else _quantity(data, meter.value_property)
    return Reading(meter, tuple([_group(data, name) for name in meter.group_by]), value)


def _text(value: dict[str, Any], name: str) -> str:
    found = value.get(name)
    if not isinstance(found, str) or not found or len(found) > MAX_TEXT or "\0" in found:
        raise Invalid(f"{name} must be a text of 1 to {MAX_TEXT} characters without NUL")
    return found


def _group(data: dict[str, Any], name: str) -> str:
    found = data.get(name, "")
    if isinstance(found, str):
        if len(found) > MAX_TEXT or "\0" in found:
            raise Invalid(f"data.{name} must have at most {MAX_TEXT} characters and no NUL")
        return found
    if isinstance(found, bool):
        return "true" if found else "false"
    return str(found) if isinstance(found, int | float) else ""


def _quantity(data: dict[str, Any], name: str) -> int:
    found = data.get(name)
    if isinstance(found, str):
        found = int(found) if found.isascii() and found.isdigit() and len(found) < 20 else None
    elif isinstance(found, float):
        found = int(found) if found.is_integer() and abs(found) <= _MAX_EXACT_FLOAT else None
    if isinstance(found, bool) or not isinstance(found, int) or not 0 <= found <= MAX_QUANTITY:
        raise Invalid(f"data.{name} must be a whole number from 0 to {MAX_QUANTITY}")
    return found


def _time(value: Any, now: int) -> int:
    if value is None:
        return now
    try:
        moment = from_rfc3339(value)
    except (TypeError, ValueError) as error:
        raise Invalid("time must be an RFC 3339 time with an offset, such as 2026-01-31T00:00:00Z") from error
    if not MIN_TIME <= moment < MAX_TIME:
        raise Invalid("time must lie in the years 1990 to 2105")
    return moment
