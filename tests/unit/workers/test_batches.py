"""How the meter sink takes what waits together."""

from __future__ import annotations

import asyncio
from contextlib import aclosing
from dataclasses import dataclass

import pytest

from kgents.workers.meter_sink import MAX_EVENTS, batches, retry_in


@dataclass
class Delivery:
    """A message of so many events."""

    events: int

    @property
    def data(self):
        return b"[" + b",".join([b'{"specversion":"1.0"}'] * self.events) + b"]"


class Deliveries:
    """Gives out what was put in, as the bus does: at once what is there, and later what comes later."""

    def __init__(self, *sizes):
        self.queue = asyncio.Queue()
        for size in sizes:
            self.queue.put_nowait(Delivery(size))

    def __aiter__(self):
        return self

    async def __anext__(self):
        delivery = await self.queue.get()
        if delivery is None:
            raise StopAsyncIteration
        return delivery


async def sizes_of(deliveries):
    async with aclosing(batches(deliveries)) as together:
        return [[delivery.events for delivery in batch] async for batch in together]


@pytest.mark.parametrize(
    ("sizes", "expected"),
    [
        ([], []),
        ([1], [[1]]),
        ([1, 2, 3], [[1, 2, 3]]),
        ([200, 200, 200, 200], [[200, 200], [200, 200]]),
        ([MAX_EVENTS, 1], [[MAX_EVENTS], [1]]),
        ([MAX_EVENTS + 1, 1], [[MAX_EVENTS + 1], [1]]),
        ([0, 0], [[0, 0]]),
    ],
)
async def test_what_is_there_is_taken_together_up_to_the_limit(sizes, expected):
    deliveries = Deliveries(*sizes)
    deliveries.queue.put_nowait(None)

    assert await sizes_of(deliveries) == expected


async def test_what_is_not_there_yet_is_not_waited_for():
    deliveries = Deliveries(1)

    async with aclosing(batches(deliveries)) as together:
        assert [delivery.events for delivery in await anext(together)] == [1]
        deliveries.queue.put_nowait(Delivery(2))
        assert [delivery.events for delivery in await anext(together)] == [2]


async def test_closing_leaves_no_task_behind():
    before = asyncio.all_tasks()

    async with aclosing(batches(Deliveries(1))) as together:
        await anext(together)
    await asyncio.sleep(0)

    assert asyncio.all_tasks() == before


@pytest.mark.parametrize(("delivered", "seconds"), [(1, 2), (2, 4), (6, 64), (7, 64), (10_000, 64)])
def test_what_the_meter_fails_on_comes_again_later_and_later_within_bounds(delivered, seconds):
    assert retry_in(delivered) == seconds
