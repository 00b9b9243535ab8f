"""What a meter's query asks for, read from OpenMeter's parameters or its request body."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import orjson

from kgents.clock import from_rfc3339
from kgents.meter.model import MAX_TIME, MIN_TIME, WINDOW_SIZES, Invalid, Meter, WindowSize
from kgents.meter.windows import SECOND, Windows, parse_zone

_FILTER = "filterGroupBy["
_ADVANCED = "advancedMeterGroupByFilters"
_LISTS = ("subject", "groupBy")


@dataclass(frozen=True, slots=True)
class Query:
    """`asked_from` and `asked_to` are as they were given; `start` and `end` are what they mean: as OpenMeter compares
    whole seconds, fractions are dropped, and the range is [start, end).
    """

    asked_from: int | None = None
    asked_to: int | None = None
    size: WindowSize | None = None
    windows: Windows | None = None
    subjects: tuple[str, ...] | None = None
    by_subject: bool = False
    group_by: tuple[str, ...] = ()
    filters: Mapping[str, frozenset[str]] = field(default_factory=dict)

    @property
    def start(self) -> int:
        """Where the range begins: at the first moment that an event may have, unless something was asked."""
        return MIN_TIME if self.asked_from is None else max(MIN_TIME, self.asked_from // SECOND * SECOND)

    @property
    def end(self) -> int:
        """Where the range ends."""
        return MAX_TIME if self.asked_to is None else min(MAX_TIME, self.asked_to // SECOND * SECOND)


def from_params(params: Iterable[tuple[str, str]], meter: Meter) -> Query:
    """The query of a URL's parameters. Raises Invalid."""
    body: dict[str, Any] = {}
    filters: dict[str, list[str]] = {}
    for name, value in params:
        if name.startswith(_FILTER) and name.endswith("]"):
            filters.setdefault(name[len(_FILTER) : -1], []).append(value)
        elif name == "filterGroupBy":
            raise Invalid("filterGroupBy must be written as filterGroupBy[name]=value")
        elif name == _ADVANCED:
            try:
                body[_ADVANCED] = orjson.loads(value)
            except orjson.JSONDecodeError as error:
                raise Invalid(f"{_ADVANCED} must be JSON") from error
        elif name in _LISTS:
            body.setdefault(name, []).append(value)
        elif body.setdefault(name, value) != value:
            raise Invalid(f"{name} is given more than once")
    if filters:
        body["filterGroupBy"] = filters
    return from_body(body, meter)


def from_body(body: Any, meter: Meter) -> Query:
    """The query of a JSON request body. Members that are null are as if left out. Raises Invalid."""
    if not isinstance(body, dict):
        raise Invalid("the body must be a JSON object")
    body = {name: value for name, value in body.items() if value is not None}
    if "filterCustomerId" in body:
        raise Invalid("filterCustomerId is not supported: this meter knows subjects, not customers")
    start, end = _moment(body, "from"), _moment(body, "to")
    if start is not None and end is not None and start >= end:
        raise Invalid("from must be before to")
    size = _size(body.get("windowSize"))
    zone = parse_zone(_text(body.get("windowTimeZone", "UTC"), "windowTimeZone"))
    subjects = _texts(body["subject"], "subject") if "subject" in body else None
    group_by = _texts(body.get("groupBy", []), "groupBy")
    for name in group_by:
        if name != "subject" and name not in meter.group_by:
            raise Invalid(f"groupBy {name[:64]!r} is not one of subject, {', '.join(meter.group_by)}")
    return Query(
        asked_from=start,
        asked_to=end,
        size=size,
        windows=Windows(size, zone) if size else None,
        subjects=tuple(subjects) if subjects else None,
        by_subject=bool(subjects) or "subject" in group_by,
        group_by=tuple(dict.fromkeys(name for name in group_by if name != "subject")),
        filters=_filters(body, meter),
    )


def _filters(body: dict[str, Any], meter: Meter) -> dict[str, frozenset[str]]:
    simple, advanced = body.get("filterGroupBy", {}), body.get(_ADVANCED, {})
    if not isinstance(simple, dict) or not isinstance(advanced, dict):
        raise Invalid(f"filterGroupBy and {_ADVANCED} must be JSON objects")
    chosen = [(name, _texts(value, f"filterGroupBy[{name}]")) for name, value in simple.items()]
    for name, rule in advanced.items():
        if not isinstance(rule, dict) or len(rule) != 1 or next(iter(rule)) not in ("$eq", "$in"):
            raise Invalid(f"{_ADVANCED}.{name[:64]} must be an object with either $eq or $in; others are not supported")
        chosen.append((name, _texts(next(iter(rule.values())), f"{_ADVANCED}.{name}")))
    filters: dict[str, frozenset[str]] = {}
    for name, values in chosen:
        if name not in meter.group_by:
            raise Invalid(f"the filter {name[:64]!r} is not one of {', '.join(meter.group_by)}")
        filters[name] = filters.get(name, frozenset(values)) & frozenset(values)
    return filters


def _moment(body: dict[str, Any], name: str) -> int | None:
    value = body.get(name)
    if value is None:
        return None
    try:
        moment = from_rfc3339(value)
    except (TypeError, ValueError) as error:
        raise Invalid(f"{name} must be an RFC 3339 time with an offset, such as 2026-01-31T00:00:00Z") from error
    return min(max(moment, 0), MAX_TIME)


def _size(value: Any) -> WindowSize | None:
    if value is None:
        return None
    for size in WINDOW_SIZES:
        if size == value:
            return size
    raise Invalid(f"windowSize must be one of {', '.join(WINDOW_SIZES)}")


def _text(value: Any, name: str) -> str:
    if not isinstance(value, str):
        raise Invalid(f"{name[:64]} must be a text")
    return value


def _texts(value: Any, name: str) -> Sequence[str]:
    return [_text(item, name) for item in (value if isinstance(value, list) else [value])]
