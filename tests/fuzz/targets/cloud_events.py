"""CloudEvents: each is refused as Invalid, or taken with exactly the time and the quantities that it names."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import orjson

from kgents.clock import to_rfc3339
from kgents.meter.model import MAX_QUANTITY, MAX_TIME, METERS, MIN_TIME, Event, Invalid, Meter, parse_event
from tests.fuzz.values import json_of

NOW = 1_700_000_000_000_000
_METERS = {meter.event_type: (meter, Meter("calls", meter.event_type, aggregation="COUNT")) for meter in METERS}
_EVENT = {
    "specversion": "1.0",
    "id": "run_1:1:runs",
    "source": "kgents",
    "type": "kgents.runs",
    "subject": "ten_1",
    "time": "2026-01-31T00:00:00.5Z",
    "data": {"quantity": 1, "agent": "agt_1", "model": "kgents:echo"},
}
_WORDS = [
    *_EVENT,
    *_EVENT.values(),
    "quantity",
    "agent",
    "model",
    "9" * 19,
    "2016-12-31T23:59:60Z",
    "0001-01-01T00:00:00+14:00",
]

SEEDS = [
    orjson.dumps(_EVENT),
    orjson.dumps([_EVENT | {"data": {"quantity": str(2**63 - 1)}}, _EVENT | {"time": "2026-01-31t23:59:59-23:59"}]),
    orjson.dumps(_EVENT | {"data": {"quantity": 2.0**53, "agent": True, "model": 1.5}}),
    b"\x05\x09" + bytes(range(64)),
]


def check(data: bytes) -> None:
    """Every event of a batch."""
    value = json_of(data, _WORDS)
    for item in value if isinstance(value, list) else [value]:
        try:
            event = parse_event(item, _METERS, NOW)
        except Invalid:
            continue
        _check(event, item)


def _check(event: Event, item: dict[str, Any]) -> None:
    assert event.time == NOW if item.get("time") is None else MIN_TIME <= event.time < MAX_TIME
    assert [reading.meter for reading in event.readings] == list(_METERS.get(item["type"], ()))
    for reading in event.readings:
        assert type(reading.value) is int
        assert 0 <= reading.value <= MAX_QUANTITY
        if reading.meter.aggregation == "COUNT":
            assert reading.value == 1
        else:
            assert reading.value == Decimal(item["data"][reading.meter.value_property])
        assert len(reading.groups) == len(reading.meter.group_by)
    shown = {
        "id": event.id,
        "source": event.source,
        "type": event.type,
        "subject": event.subject,
        "time": to_rfc3339(event.time),
        "data": event.data,
    }
    assert parse_event(orjson.loads(orjson.dumps(shown)), _METERS, NOW) == event
