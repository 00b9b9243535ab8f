"""Handing events to a meter that refuses some of them."""

from __future__ import annotations

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kgents.meter.client import MeterRefused, MeterUnavailable
from kgents.usage.delivery import Refused, count_events, deliver, is_array, join
from kgents.usage.ledger import outbox_row
from kgents.usage.model import Amounts, events_of


class Meter:
    """Takes arrays of events without a bad one; answers `away` more times that it can't."""

    def __init__(self, bad=(), away=0):
        self.bad = set(bad)
        self.away = away
        self.taken = []
        self.asked = 0

    async def ingest(self, payload):
        self.asked += 1
        if self.away:
            self.away -= 1
            raise MeterUnavailable("away")
        try:
            events = orjson.loads(payload)
            ids = [event["id"] + "" for event in events]
        except (orjson.JSONDecodeError, TypeError, KeyError) as error:
            raise MeterRefused("no events") from error
        if self.bad & set(ids):
            raise MeterRefused("a bad event")
        self.taken += ids


def payload(*ids):
    return orjson.dumps([{"id": id_} for id_ in ids])


async def test_what_the_meter_takes_is_handed_over_in_one_request():
    meter = Meter()

    assert await deliver(meter, payload("a", "b", "c")) == []
    assert (meter.taken, meter.asked) == (["a", "b", "c"], 1)


@given(st.sets(st.integers(0, 20)))
async def test_exactly_what_the_meter_refuses_is_left_out(bad):
    ids = [str(number) for number in range(21)]
    meter = Meter(bad=[str(number) for number in bad])

    refused = await deliver(meter, payload(*ids))

    assert [event.event_id for event in refused] == [id_ for id_ in ids if id_ in meter.bad]
    assert sorted(meter.taken) == sorted(set(ids) - meter.bad)


async def test_one_bad_event_of_many_is_found_in_few_requests():
    meter = Meter(bad=["77"])

    refused = await deliver(meter, payload(*(str(number) for number in range(500))))

    assert [event.event_id for event in refused] == ["77"]
    assert meter.asked <= 2 * 9 + 1  # a halving costs two requests


@pytest.mark.parametrize(
    ("garbage", "named"),
    [
        (b"", "(not JSON)"),
        (b"\xff", "(not JSON)"),
        (b'{"id": "x"}', "x"),
        (b"7", "(no event)"),
        (b"[7]", "(no event)"),
        (b'[{"id": 7}]', "(no event)"),
    ],
)
async def test_what_is_no_list_of_events_is_refused_and_not_an_error(garbage, named):
    meter = Meter()

    assert [event.event_id for event in await deliver(meter, garbage)] == [named]
    assert meter.taken == []


async def test_a_reason_is_told():
    assert await deliver(Meter(bad=["a"]), payload("a")) == [Refused("a", "a bad event")]


async def test_a_meter_that_is_away_is_not_a_refusal():
    with pytest.raises(MeterUnavailable):
        await deliver(Meter(away=1), payload("a", "b"))


@given(st.lists(st.lists(st.text(), min_size=1), min_size=1))
def test_joined_arrays_are_one_array(arrays):
    joined = join([orjson.dumps(array) for array in arrays])

    assert is_array(joined)
    assert orjson.loads(joined) == [text for array in arrays for text in array]


@pytest.mark.parametrize("text", [b"", b"[]", b"{}", b"[", b"]", b'"x"', b"[1", b"1]"])
def test_what_is_no_array_with_something_in_it_is_not_joined(text):
    assert not is_array(text)


@given(st.lists(st.text(), min_size=1, max_size=4))
def test_events_are_counted_whatever_they_say(models):
    fields = {"tenant_id": "ten_1", "agent_id": '"specversion"', "estimated": False, "now": 7}
    steps = [
        events_of(Amounts(1, 2, 0, 0), run_id="r", step=step, model=f'"specversion"{model}', **fields)
        for step, model in enumerate(models)
    ]
    rows = [outbox_row(events, source="kgents", now=7) for events in steps]

    assert count_events(join([row.payload.encode() for row in rows])) == 2 * len(models)
