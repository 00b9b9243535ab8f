"""Which CloudEvents are accepted, and what they say to a meter."""

from __future__ import annotations

from typing import Any

import pytest

from kgents.clock import from_rfc3339, to_rfc3339
from kgents.meter.model import MAX_QUANTITY, Event, Invalid, Meter, Reading, parse_event

TOKENS = Meter("tokens", "t.tokens")
CALLS = Meter("calls", "t.tokens", aggregation="COUNT", group_by=("model",))
NOW = from_rfc3339("2026-11-23T10:00:00Z")


def valid(**changes: Any) -> dict[str, Any]:
    event = {
        "specversion": "1.0",
        "id": "run_1:0:tokens",
        "source": "kgents",
        "type": "t.tokens",
        "subject": "ten_1",
        "time": "2026-01-31T00:00:00Z",
        "data": {"quantity": 7, "agent": "a", "model": "m"},
    }
    return {name: value for name, value in (event | changes).items() if value is not ...}


def parsed(event: Any) -> Event:
    return parse_event(event, {"t.tokens": [TOKENS, CALLS]}, NOW)


def test_an_event_is_read_by_every_meter_of_its_type() -> None:
    assert parsed(valid()).readings == [Reading(TOKENS, ("a", "m"), 7), Reading(CALLS, ("m",), 1)]


def test_an_event_that_no_meter_counts_is_kept_all_the_same() -> None:
    event = parsed(valid(type="other", data={"anything": [1]}))
    assert (event.type, event.readings) == ("other", [])


def test_an_event_without_a_time_happened_when_it_came() -> None:
    assert parsed(valid(time=...)).time == NOW


def test_specversion_may_be_left_out_as_openmeter_allows() -> None:
    assert parsed(valid(specversion=...)).id == "run_1:0:tokens"


@pytest.mark.parametrize(
    ("given", "counted"),
    [(0, 0), (MAX_QUANTITY, MAX_QUANTITY), ("12", 12), (str(MAX_QUANTITY), MAX_QUANTITY), (3.0, 3), (2.0**53, 2**53)],
)
def test_quantities_are_exact(given: Any, counted: int) -> None:
    assert parsed(valid(data={"quantity": given})).readings[0].value == counted


@pytest.mark.parametrize(
    "given",
    [-1, 1.5, 2.0**54, MAX_QUANTITY + 1, "", "1.0", "-1", "1e3", "²", "٣", "9" * 20, True, None, [], {}, float("inf")],
)
def test_a_quantity_that_can_not_be_exact_is_refused(given: Any) -> None:
    with pytest.raises(Invalid, match=r"data\.quantity must be a whole number"):
        parsed(valid(data={"quantity": given}))


@pytest.mark.parametrize(
    ("given", "group"),
    [
        ("gpt", "gpt"),
        ("", ""),
        (5, "5"),
        (1.5, "1.5"),
        (True, "true"),
        (False, "false"),
        (None, ""),
        ({}, ""),
        ([], ""),
    ],
)
def test_a_group_is_the_text_of_its_value(given: Any, group: str) -> None:
    assert parsed(valid(data={"quantity": 1, "model": given})).readings[1].groups == (group,)


@pytest.mark.parametrize(
    "changes",
    [
        {"id": ...},
        {"id": ""},
        {"id": 5},
        {"id": "a\0b"},
        {"id": "x" * 1025},
        {"source": ...},
        {"type": None},
        {"subject": ""},
        {"subject": "a\0"},
        {"specversion": "0.3"},
        {"datacontenttype": "text/plain"},
        {"data_base64": "AAAA"},
        {"data": "text"},
        {"data": [1]},
        {"data": ...},
        {"data": None},
        {"data": {"quantity": 1, "model": "a\0"}},
        {"data": {"quantity": 1, "model": "x" * 1025}},
        {"time": "yesterday"},
        {"time": 1_700_000_000},
        {"time": "2026-01-31T00:00:00"},
        {"time": "1989-12-31T23:59:59Z"},
        {"time": "2106-01-01T00:00:00Z"},
    ],
)
def test_an_event_that_breaks_the_rules_is_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(Invalid):
        parsed(valid(**changes))


@pytest.mark.parametrize("value", [None, 1, "x", [], [valid()]])
def test_only_an_object_is_an_event(value: Any) -> None:
    with pytest.raises(Invalid, match="an event must be a JSON object"):
        parsed(value)


@pytest.mark.parametrize(
    ("text", "same"),
    [
        ("2026-01-31T01:00:00+01:00", "2026-01-31T00:00:00.000000Z"),
        ("2026-01-31t00:00:00z", "2026-01-31T00:00:00.000000Z"),
        ("2026-01-31T00:00:00.5Z", "2026-01-31T00:00:00.500000Z"),
        ("2026-01-31T00:00:00.123456789Z", "2026-01-31T00:00:00.123456Z"),
        ("2024-02-29T23:59:59-00:30", "2024-03-01T00:29:59.000000Z"),
    ],
)
def test_times_are_rfc_3339(text: str, same: str) -> None:
    assert to_rfc3339(from_rfc3339(text)) == same


@pytest.mark.parametrize(
    "text",
    [
        "2026-01-31",
        "20260131T000000Z",
        "2026-W05-6T00:00:00Z",
        "2026-01-31 00:00:00Z",
        "2026-01-31T00:00:00 01:00",
        "2026-01-31T00:00:00,5Z",
        "2026-02-29T00:00:00Z",
        "2026-01-31T24:00:00Z",
        "2026-01-31T00:00:00+25:00",
        "\uff12026-01-31T00:00:00Z",
        "2026-01-31T00:00:00Z\n",
        "",
    ],
)
def test_other_times_are_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        from_rfc3339(text)
