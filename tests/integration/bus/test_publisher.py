"""Publishing a run's events: all of them, in messages that the bus takes."""

from __future__ import annotations

import asyncio

from kgents.agents.events import RunEvent, load_events
from kgents.agents.publisher import Publisher
from kgents.bus.nats import Bus

MAX_PAYLOAD = 8 * 1024 * 1024  # bytes, of the event bus


def event(number: int, size: int) -> RunEvent:
    return RunEvent(number, "text.delta", {"text": "x" * size})


async def published(bus: Bus, events: list[RunEvent], last: int) -> list[int]:
    """The numbers of the events that are on the bus, up to the last one, once a run that had these has ended."""
    publisher = Publisher(bus, "run_1")
    for each in events:
        publisher.put(each)
    publisher.close()
    await publisher.run()
    numbers: list[int] = []
    async with bus.events("run_1") as messages, asyncio.timeout(20):
        while last not in numbers:
            numbers += [each.sequence for each in load_events(await anext(messages))]
    return numbers


async def test_events_that_are_too_large_together_come_in_several_messages(bus: Bus) -> None:
    events = [event(number, MAX_PAYLOAD // 10) for number in range(1, 21)]
    assert await published(bus, events, 20) == list(range(1, 21))


async def test_an_event_that_no_message_holds_is_left_out_and_the_others_come(bus: Bus) -> None:
    events = [event(1, 1), event(2, MAX_PAYLOAD), event(3, 1)]
    assert await published(bus, events, 3) == [1, 3]
