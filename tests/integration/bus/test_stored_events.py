"""The list of runs with events is whole, however many there are and whatever is erased while it is read."""

from __future__ import annotations

from pydantic import SecretStr

from kgents.bus.admin import connected
from kgents.bus.nats import Bus
from kgents.bus.stored_events import erase_events, runs_with_events
from kgents.config import Settings
from tests.support.nats import NatsServer

MANY = 100_400  # more than the server lists in one answer
AT_ONCE = 5_000  # the server drops what it can't queue


async def test_runs_after_those_that_are_erased_are_not_passed_over(bus: Bus, nats: NatsServer) -> None:
    settings = Settings(nats_url=nats.url, nats_user=nats.user, nats_password=SecretStr(nats.password))
    runs = [f"run_{number:06}" for number in range(MANY)]
    async with connected(settings) as client:
        for number, run in enumerate(runs, 1):
            if number % AT_ONCE and number < MANY:
                await client.publish(f"kgents.events.{run}", b"x")
            else:
                await client.request(f"kgents.events.{run}", b"x", timeout=30)
        seen: list[str] = []
        async for part in runs_with_events(client):
            seen += part
            await erase_events(client, part[:500])
    assert seen == runs
