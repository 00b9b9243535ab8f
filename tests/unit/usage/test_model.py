"""The arithmetic of usage."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from kgents.store import tables
from kgents.usage.model import METERS, Amounts, Balance, event_id, events_of

amounts = st.builds(Amounts, *[st.integers(0, 2**60)] * 4)


def balance(used, reserved, **limits):
    return Balance("ten_1", "2026-11", used, reserved, limits)


def test_the_tables_have_the_meters_in_the_same_order():
    assert tables.METERS == METERS


@given(amounts, amounts)
def test_what_is_added_can_be_taken_away(first, second):
    assert first.plus(second).minus(second) == first


def test_a_step_has_one_event_for_each_meter_that_it_used():
    fields = {"tenant_id": "ten_1", "agent_id": "agt_1", "model": "m", "estimated": True, "now": 7}

    events = events_of(Amounts(1, 0, 5, 0), run_id="run_1", step=2, **fields)

    assert [(event.event_id, event.meter, event.quantity) for event in events] == [
        ("run_1:2:runs", "runs", 1),
        ("run_1:2:output_tokens", "output_tokens", 5),
    ]
    assert {(event.tenant_id, event.run_id, event.estimated, event.occurred_at) for event in events} == {
        ("ten_1", "run_1", True, 7)
    }


def test_the_same_work_has_the_same_event():
    assert event_id("run_1", 0, "runs") == event_id("run_1", 0, "runs")
    assert len({event_id(run, step, meter) for run in ("a", "b") for step in (0, 1) for meter in METERS}) == 16


@given(used=st.integers(0, 100), reserved=st.integers(0, 100), wanted=st.integers(1, 100), limit=st.integers(0, 200))
def test_what_fits_under_a_limit_is_exactly_what_is_left(used, reserved, wanted, limit):
    has_room = balance(Amounts(runs=used), Amounts(runs=reserved), runs=limit).room_for(Amounts(runs=wanted)) is None

    assert has_room == (used + reserved + wanted <= limit)


def test_a_meter_without_a_limit_always_has_room():
    assert balance(Amounts(10**18), Amounts(10**18), tool_calls=0).room_for(Amounts(runs=10**18)) is None


def test_what_asks_for_nothing_fits_even_over_the_limit():
    assert balance(Amounts(runs=5), Amounts(), runs=3).room_for(Amounts(runs=0)) is None


def test_the_first_meter_without_room_is_named():
    short = balance(Amounts(), Amounts(), input_tokens=1, output_tokens=1)

    assert short.room_for(Amounts(1, 2, 2, 0)) == "input_tokens"
