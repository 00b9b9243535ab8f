"""How the relay packs the outbox."""

from __future__ import annotations

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kgents.store.outbox import OutboxRow
from kgents.workers.relay import MAX_EVENTS, MAX_MESSAGE, pack

sizes = st.lists(st.tuples(st.integers(1, 4), st.integers(0, 60_000)), max_size=60)


def rows_of(steps):
    """Rows of so many events with so much text each."""
    rows = []
    for number, (count, size) in enumerate(steps):
        events = [{"specversion": "1.0", "id": f"{number}:{n}", "pad": "x" * size} for n in range(count)]
        rows.append(OutboxRow(number, "ten_1", "usage", f"run_{number}:0:runs", orjson.dumps(events).decode(), 0))
    return rows


@given(sizes)
def test_every_event_is_in_one_message_in_order(steps):
    rows = rows_of(steps)

    packs = list(pack(rows))

    packed = [event["id"] for _, payload, _ in packs for event in orjson.loads(payload)]
    assert packed == [event["id"] for row in rows for event in orjson.loads(row.payload)]
    assert [row for _, _, members in packs for row in members] == rows


@given(sizes)
def test_no_message_is_over_the_limits_unless_one_row_is(steps):
    for _, payload, members in pack(rows_of(steps)):
        if len(members) > 1:
            assert len(orjson.loads(payload)) <= MAX_EVENTS
            assert len(payload) <= MAX_MESSAGE


@given(sizes)
def test_messages_have_ids_of_their_own_that_a_retry_has_too(steps):
    rows = rows_of(steps)

    ids = [message_id for message_id, _, _ in pack(rows)]

    assert len(set(ids)) == len(ids)
    assert ids == [message_id for message_id, _, _ in pack(rows)]


@pytest.mark.parametrize("others", [(0, 1), (0, 1, 3), (1, 2, 3), (0, 2, 1, 3)])
def test_a_retry_that_packs_other_rows_has_another_id(others):
    rows = rows_of([(1, 0)] * 4)

    first, second = (
        [message_id for message_id, _, _ in pack(part)]
        for part in ([rows[0], rows[2], rows[3]], [rows[number] for number in others])
    )

    assert first != second


def test_nothing_makes_no_message():
    assert list(pack([])) == []
