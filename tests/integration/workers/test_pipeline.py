"""From the ledger to the meter through kills: what is metered is what the ledger has, to the token."""

from __future__ import annotations

import asyncio
import random
import signal

import pytest

from kgents.store.engine import Scope
from kgents.usage.model import Amounts
from kgents.usage.reconcile import reconcile
from kgents.workers.meter_sink import MeterSink
from kgents.workers.relay import Relay
from tests.integration.workers.conftest import TENANT
from tests.integration.workers.running import running, waiting_in
from tests.support.ledger import SOURCE, post, posting
from tests.support.waiting import eventually

BEGIN = 1_780_000_000_000_000
MONTH = 31 * 86_400_000_000


async def compare(ledger, client):
    return await reconcile(ledger, client, start=BEGIN, end=BEGIN + MONTH, source=SOURCE)


async def agrees(ledger, client):
    report = await compare(ledger, client)
    return report if not report.differences and report.compared else None


class Feed:
    """Writes usage all the time, as runs do."""

    def __init__(self, ledger, seed):
        self._ledger = ledger
        self._random = random.Random(seed)
        self.steps = 0

    async def run(self):
        while True:
            step = [posting(TENANT, self._moment(), self._used()) for _ in range(self._random.randint(1, 8))]
            await self._ledger.write(Scope.system(), lambda connection, step=step: post(connection, *step))
            self.steps += len(step)
            await asyncio.sleep(0.002)

    def _moment(self):
        return BEGIN + self._random.randrange(MONTH)

    def _used(self):
        return Amounts(1, self._random.randrange(1, 5000), self._random.randrange(500), self._random.randrange(3))


@pytest.mark.parametrize("seed", [1])
async def test_kills_of_the_bus_and_of_the_meter_lose_nothing_and_count_nothing_twice(
    ledger, bus, nats, meter, client, metrics, seed
):
    feed = Feed(ledger, seed)

    async def grown(steps):
        await eventually(lambda: feed.steps > steps, seconds=30, what="usage goes on being written")

    async with running(Relay(ledger, bus, metrics), MeterSink(bus, client, metrics)):
        async with running(feed):
            for _ in range(3):
                await grown(feed.steps + 150)
                nats.stop(signal.SIGKILL)
                await grown(feed.steps + 150)
                await asyncio.to_thread(nats.start)  # a loop that waited for it would time out on the database
                await grown(feed.steps + 150)
                meter.kill()
                await grown(feed.steps + 150)
                await asyncio.to_thread(meter.start)
        report = await eventually(lambda: agrees(ledger, client), seconds=60, what="ledger and meter agree")

    assert await waiting_in(ledger) == 0
    assert feed.steps >= 1800
    assert report.compared > 60


async def test_a_relay_and_a_sink_that_are_ended_at_any_moment_lose_nothing(ledger, make_bus, meter, client, metrics):
    feed = Feed(ledger, 2)
    async with running(feed):
        for _ in range(8):
            steps = feed.steps
            bus = await make_bus()
            async with running(Relay(ledger, bus, metrics), MeterSink(bus, client, metrics)):
                await eventually(lambda steps=steps: feed.steps > steps + 40, what="usage goes on being written")
    bus = await make_bus()
    async with running(Relay(ledger, bus, metrics), MeterSink(bus, client, metrics)):
        await eventually(lambda: agrees(ledger, client), seconds=60, what="ledger and meter agree")
